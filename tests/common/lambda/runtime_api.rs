//! The Runtime API: a process of jit polls it for invocations and sends it the results.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;

use super::cloud::{Inner, Outcome, settle};

pub(super) fn router() -> Router<Arc<Inner>> {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route(
            "/2018-06-01/runtime/invocation/{id}/response",
            post(answered),
        )
        .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
        .route("/2018-06-01/runtime/init/error", post(init_failed))
}

async fn next(State(inner): State<Arc<Inner>>) -> Response<Body> {
    *inner.asked.lock().unwrap() += 1;
    inner.news.notify_waiters();
    let mut queue = inner.waiting.lock().await;
    let waiting = queue.recv().await.unwrap();
    Response::builder()
        .header("Lambda-Runtime-Aws-Request-Id", waiting.id)
        .header("Lambda-Runtime-Deadline-Ms", waiting.deadline_ms)
        .header(
            "Lambda-Runtime-Invoked-Function-Arn",
            "arn:aws:lambda:eu-central-1:111111111111:function:jit-api",
        )
        .header(
            "Lambda-Runtime-Trace-Id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        )
        .body(Body::from(waiting.event))
        .unwrap()
}

type Said = (State<Arc<Inner>>, Path<String>, Bytes);

async fn answered(state: State<Arc<Inner>>, id: Path<String>, body: Bytes) -> StatusCode {
    settle_with((state, id, body), Outcome::Answered)
}

async fn failed(state: State<Arc<Inner>>, id: Path<String>, body: Bytes) -> StatusCode {
    settle_with((state, id, body), Outcome::Failed)
}

fn settle_with((State(inner), Path(id), body): Said, how: fn(Value) -> Outcome) -> StatusCode {
    settle(&inner, &id, how(serde_json::from_slice(&body).unwrap()))
}

async fn init_failed(State(inner): State<Arc<Inner>>, body: Bytes) -> StatusCode {
    let why = serde_json::from_slice(&body).unwrap();
    inner.init_errors.lock().unwrap().push(why);
    StatusCode::ACCEPTED
}
