//! `jit lambda`: AWS Lambda starts it as `bootstrap`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::serve::{failed, reload, stop_asked};
use super::{CliContext, Failure};
use crate::config::LogFormat;
use crate::lambda::{self, LambdaEnvironment};
use crate::telemetry;

pub(super) async fn lambda(context: &CliContext) -> Result<(), Failure> {
    let Ok(runtime_api) = std::env::var("AWS_LAMBDA_RUNTIME_API") else {
        let why = "AWS_LAMBDA_RUNTIME_API is not set: only AWS Lambda starts jit lambda. On your own \
                   machine, run jit serve";
        return Err(Failure::Usage(why.into()));
    };
    let runtime_api = runtime_api
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|_| "jit".into());
    let stop = CancellationToken::new();
    let asked = stop_asked()?;
    let reload = reload(context);
    let config = reload().await;
    match &config {
        Ok(config) => telemetry::log(config.log.format, config.log.level),
        Err(_) => telemetry::log(LogFormat::Text, tracing::Level::INFO),
    }
    let metrics = telemetry::install().map_err(failed)?;
    let place = LambdaEnvironment {
        runtime_api,
        function,
    };
    let ran = lambda::run(place, config, Arc::clone(&reload), metrics, stop.clone());
    tokio::pin!(ran);
    tokio::select! {
        ran = &mut ran => ran.map_err(failed),
        () = asked => {
            tracing::info!("jit received a stop signal");
            stop.cancel();
            ran.await.map_err(failed)
        }
    }
}
