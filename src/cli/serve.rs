//! `jit serve`: runs the server until a stop signal.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::output::print;
use super::{CliContext, Failure};
use crate::config;
use crate::serve;
use crate::telemetry;

pub(super) async fn serve(context: &CliContext) -> Result<(), Failure> {
    let config = context.config().await?;
    telemetry::log(config.log.format, config.log.level);
    let metrics = telemetry::install().map_err(failed)?;
    let reload = reload(context);
    // Before the address is printed: a reader of the line may stop jit at once.
    let stop = stop_asked()?;
    let running = serve::start(config, reload, metrics)
        .await
        .map_err(failed)?;
    print(&format!("jit listens on http://{}", running.address))?;
    stop.await;
    tracing::info!("jit received a stop signal");
    running.stop().await;
    Ok(())
}

/// Reads the same configuration again.
pub(super) fn reload(context: &CliContext) -> serve::Reload {
    let (path, variables) = (context.config_path.clone(), context.variables.clone());
    Arc::new(move || {
        let (path, variables) = (path.clone(), variables.clone());
        Box::pin(async move { config::read(path.as_deref(), &variables).await })
    })
}

/// Ends at SIGTERM or Ctrl-C.
pub(super) fn stop_asked() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            Some(()) = terminate.recv() => {}
            Some(()) = interrupt.recv() => {}
            else => {}
        }
    })
}

pub(super) fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::Failed(why.to_string())
}
