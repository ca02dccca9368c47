//! The API of Lambda that `aws lambda invoke` and the SDKs call.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::cloud::{Cloud, Inner, Outcome};

pub(super) fn router() -> Router<Arc<Inner>> {
    Router::new()
        .route("/2015-03-31/functions/{name}/invocations", post(invoke))
        .route("/2016-08-19/account-settings", get(account_settings))
        .route("/2016-08-19/account-settings/", get(account_settings))
}

async fn invoke(
    State(inner): State<Arc<Inner>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if function != "jit-api" && function != "jit-worker" {
        let why = json!({"Type": "User", "Message": format!("Function not found: {function}")});
        return Response::builder()
            .status(404)
            .header("x-amzn-errortype", "ResourceNotFoundException")
            .body(Body::from(why.to_string()))
            .unwrap();
    }
    if let Ok(event) = serde_json::from_slice(&body) {
        inner.invoked.lock().unwrap().push(event);
    }
    let (runtime_api, url) = (String::new(), String::new());
    let cloud = Cloud {
        runtime_api,
        url,
        inner,
    };
    if headers
        .get("x-amz-invocation-type")
        .is_some_and(|kind| kind == "Event")
    {
        drop(cloud.put(body));
        return Response::builder().status(202).body(Body::empty()).unwrap();
    }
    let (value, failed) = match cloud.invoke(body).await {
        Outcome::Answered(value) => (value, None),
        Outcome::Failed(why) => (why, Some("Unhandled")),
    };
    let mut response = Response::builder().header("X-Amz-Executed-Version", "$LATEST");
    if let Some(failed) = failed {
        response = response.header("X-Amz-Function-Error", failed);
    }
    response.body(Body::from(value.to_string())).unwrap()
}

async fn account_settings() -> String {
    let limit = json!({"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000});
    json!({"AccountLimit": limit, "AccountUsage": {"FunctionCount": 2}}).to_string()
}
