//! Measures a cold start under Lambda: from the start of the process to its first answer, on
//! DynamoDB, with the real clients.
#![allow(clippy::disallowed_methods)] // its tasks end with the bench's runtime

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Response;
use axum::routing::{get, post};
use jit::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::aws::{ADMIN, Aws, INSTANCE, STORE};
use crate::process::{PLUGIN, SECRET, sign};
use crate::tables::Tables;
use crate::{Report, median, millis};

const RUNS: usize = 20;

/// The simulated Runtime API: one invocation, and the time of its answer.
#[derive(Default)]
struct Lambda {
    event: std::sync::Mutex<String>,
    answered: Notify,
    answer: std::sync::Mutex<Option<Value>>,
}

async fn next(State(lambda): State<Arc<Lambda>>) -> Response<Body> {
    let event = std::mem::take(&mut *lambda.event.lock().unwrap());
    if event.is_empty() {
        std::future::pending::<()>().await;
    }
    let deadline = SystemClock.now().millis() + 30_000;
    Response::builder()
        .header("Lambda-Runtime-Aws-Request-Id", "1")
        .header("Lambda-Runtime-Deadline-Ms", deadline)
        .body(Body::from(event))
        .unwrap()
}

async fn answered(State(lambda): State<Arc<Lambda>>, body: Bytes) -> &'static str {
    *lambda.answer.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
    lambda.answered.notify_one();
    "{}"
}

/// Returns the packaged binary if `JIT_BOOTSTRAP` names it, else the built one.
fn binary() -> PathBuf {
    let packaged = std::env::var_os("JIT_BOOTSTRAP");
    packaged.map_or_else(|| env!("CARGO_BIN_EXE_jit").into(), PathBuf::from)
}

/// Serves the Runtime API, and returns its address.
async fn serve(lambda: Arc<Lambda>) -> String {
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/1/response", post(answered))
        .with_state(lambda);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn config_on(tables: &Tables) -> String {
    format!(
        "[identity_center]\ninstance_arn = \"{INSTANCE}\"\nidentity_store_id = \"{STORE}\"\n\
         [permission_sets]\nadmin = \"{ADMIN}\"\n[keys.plugin]\nsecret = \"{SECRET}\"\n\
         [webhook]\nurl = \"https://mattermost.example.com/plugins/com.example.jit/webhook\"\n\
         secret = \"another-secret-of-32-bytes-or-so\"\n[store]\n{}",
        tables.config()
    )
}

pub async fn cold_start(report: &mut Report) {
    let (tables, aws) = (Tables::fresh().await, Aws::quick().await);
    let lambda = Arc::new(Lambda::default());
    let address = serve(lambda.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("jit.toml");
    std::fs::write(&config, config_on(&tables)).unwrap();
    let mut waited = Vec::new();
    for _ in 0..RUNS {
        let path = "/requests/01a1fd36-48a0-790d-8297-f43722aa0cb8";
        let event = json!({
            "requestContext": {"http": {"method": "GET", "path": path}},
            "headers": sign(&PLUGIN, "GET", path, b"").into_iter().collect::<BTreeMap<_, _>>(),
        });
        *lambda.event.lock().unwrap() = event.to_string();
        let begun = Instant::now();
        let mut child = Command::new(binary())
            .arg("lambda")
            .env_clear()
            .envs(aws.environment())
            .envs(tables.environment())
            .env("JIT_CONFIG", &config)
            .env("AWS_LAMBDA_RUNTIME_API", &address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "jit-api")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(30), lambda.answered.notified());
        answered.await.expect("no answer");
        waited.push(begun.elapsed().as_secs_f64());
        let answer = lambda.answer.lock().unwrap().take().unwrap();
        assert_eq!(answer["statusCode"], 404, "{answer}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    tell(report, waited);
}

fn tell(report: &mut Report, waited: Vec<f64>) {
    let size = std::fs::metadata(binary()).unwrap().len();
    report.tell(
        "what Lambda starts",
        &format!("{:.1} MiB", size as f64 / 1048576.0),
    );
    let worst = waited.iter().copied().fold(0.0, f64::max);
    let median = median(waited);
    report.hold(
        "cold start to first answer, median of 20",
        &format!(
            "{} (worst {})",
            millis(Duration::from_secs_f64(median)),
            millis(Duration::from_secs_f64(worst))
        ),
        median < 0.040,
        "under 40 ms",
    );
}
