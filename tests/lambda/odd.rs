//! Events that are no calls to jit: each gets an answer, and the process keeps running.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::Setup;
use crate::common::lambda::{Function, Outcome};

/// The answer to each event in `events/`; all have the shapes of real ones.
const ANSWERS: &[(&str, &str)] = &[
    ("bucket", "400"),
    ("console-test", "400"),
    ("custom-resource", "400"),
    ("event-bus", "400"),
    ("event-bus-of-somebody", "400"),
    ("function-url-get", "200"),
    ("function-url-iam", "401"),
    ("function-url-text", "401"),
    ("graphql", "400"),
    ("http-api-authorized", "200"),
    ("http-api-authorizer-request", "200"),
    ("http-api-cookies-and-jwt", "200"),
    ("http-api-custom-domain", "200"),
    ("http-api-get", "200"),
    ("http-api-metrics", "404"),
    ("http-api-not-found", "404"),
    ("http-api-preflight", "405"),
    ("http-api-stage", "200"),
    ("http-api-unsigned", "401"),
    ("http-api-unsigned-base64", "401"),
    ("kinesis", "400"),
    ("load-balancer", "400"),
    ("load-balancer-many-values", "400"),
    ("logs", "400"),
    ("nothing", "400"),
    ("queue", "400"),
    ("rest-api", "400"),
    ("rest-api-console-test", "400"),
    ("schedule-rule", "worked"),
    ("schedule-scheduler", "worked"),
    ("secret-rotation", "400"),
    ("stream-and-queue", "400"),
    ("stream-batch", "worked"),
    ("stream-from-ttl", "worked"),
    ("stream-insert", "worked"),
    ("topic", "400"),
    ("user-pool", "400"),
    ("websocket-connect", "400"),
];

/// The result in one word; an error must have the common shape.
fn result_of(outcome: &Outcome) -> String {
    let answer = outcome.answer();
    if *answer == json!({"jit": "worked"}) {
        return "worked".into();
    }
    let status = answer["statusCode"].as_u64().unwrap();
    if status >= 400 {
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let is_shaped = body["message"].is_string() && body["code"].is_string();
        assert!(is_shaped, "{body}");
    }
    status.to_string()
}

// G20
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_gets_its_answer() {
    let lambda = Function::deploy(&Setup::default()).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lambda/events");
    let mut answers = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let event = std::fs::read(&path).unwrap();
        answers.insert(name, result_of(&lambda.cloud.invoke(event).await));
    }
    let wanted: BTreeMap<String, String> = ANSWERS
        .iter()
        .map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned()))
        .collect();
    assert_eq!(answers, wanted);
}

/// A call of `POST /requests` with these changes.
fn call(changes: &Value) -> Vec<u8> {
    let mut event = json!({"requestContext": {"http": {"method": "POST", "path": "/requests"}}});
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string().into_bytes()
}

fn http(http: &Value) -> Vec<u8> {
    call(&json!({"requestContext": {"http": http}}))
}

fn texts() -> Vec<(Vec<u8>, &'static str)> {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    vec![
        (b"".to_vec(), "not JSON"),
        (b"{".to_vec(), "not JSON"),
        (b"\xff\xfe".to_vec(), "not JSON"),
        (b"null".to_vec(), "not a JSON object"),
        (b"[]".to_vec(), "not a JSON object"),
        (b"\"POST\"".to_vec(), "not a JSON object"),
        (deep.into_bytes(), "not JSON"),
    ]
}

fn fields() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (
            call(&json!({"body": "%%%", "isBase64Encoded": true})),
            "body: ",
        ),
        (
            call(&json!({"body": "AAAAA", "isBase64Encoded": true})),
            "body: ",
        ),
        (
            call(&json!({"body": {"actor_email": "a@example.com"}})),
            "body: expected a text",
        ),
        (
            call(&json!({"body": "", "isBase64Encoded": "yes"})),
            "isBase64Encoded",
        ),
        (call(&json!({"headers": ["a"]})), "headers"),
        (
            call(&json!({"headers": {"x-jit-nonce": ["a"]}})),
            "headers.x-jit-nonce",
        ),
        (
            call(&json!({"headers": {"x-jit-nonce": "a\nb"}})),
            "headers.x-jit-nonce",
        ),
        (call(&json!({"headers": {"x jit": "a"}})), "headers.x jit"),
        (
            call(&json!({"queryStringParameters": {"a": ["b"]}})),
            "queryStringParameters.a",
        ),
        (
            call(&json!({"requestContext": null})),
            "requestContext.http.method",
        ),
        (
            call(&json!({"requestContext": []})),
            "requestContext.http.method",
        ),
        (
            http(&json!({"method": 1, "path": "/"})),
            "requestContext.http.method",
        ),
        (
            http(&json!({"method": "GE T", "path": "/"})),
            "requestContext.http.method",
        ),
        (http(&json!({"method": "GET"})), "requestContext.http.path"),
        (http(&json!({"method": "GET", "path": "requests"})), "slash"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_event_is_refused_and_the_process_continues() {
    let lambda = Function::deploy(&Setup::default()).await;
    for (event, why) in [texts(), fields()].concat() {
        let outcome = lambda.cloud.invoke(event.clone()).await;
        let event = String::from_utf8_lossy(&event[..event.len().min(200)]).into_owned();
        assert_eq!(result_of(&outcome), "400", "{event}");
        let body = outcome.answer()["body"].as_str().unwrap();
        assert!(body.contains(why), "{event}: {body}");
    }
    // A body that is too large gets the same error as over HTTP; the process continues.
    let large = call(&json!({"body": "x".repeat(5_000_000)}));
    assert_eq!(result_of(&lambda.cloud.invoke(large).await), "413");
    let odd = http(&json!({"method": "get", "path": "/\u{0}\u{1f}%zz \u{e9}#?"}));
    assert_eq!(result_of(&lambda.cloud.invoke(odd).await), "404");
    lambda.caller.bind().await;
    lambda.caller.granted().await;
}
