//! Parses the events of Lambda: an HTTP call, or an occasion to search for work.
//!
//! An event with a `requestContext` is always a call, whatever else it contains: a gateway adds
//! it to every call, so an outside caller cannot make an event that counts as work.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Map, Value, json};

use crate::domain::RequestId;
use crate::signature::percent_encoded;

/// An upper limit for the size of an answer; no answer of jit is larger.
const MOST_ANSWERED: usize = 6 * 1024 * 1024;

/// The largest number of headers of a call. API Gateway allows 10 KB for all of them.
const MOST_HEADERS: usize = 500;

fn too_many() -> String {
    format!("headers: expected at most {MOST_HEADERS}")
}

/// An event by its purpose.
#[derive(Debug)]
pub enum LambdaEvent {
    Call(Box<Request<Body>>),
    Work(Occasion),
}

/// The reason for which an invocation searches for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The schedule started a new minute: the invocation does the work that becomes due in it.
    Minute,
    /// These requests were written and may be due now. The event names them, because an index
    /// may show them only later.
    Changed(Vec<RequestId>),
}

type EventResult<T> = Result<T, String>;

/// Parses an event. The error says what is wrong with it and is safe to return to the caller.
pub fn understand(bytes: &[u8]) -> EventResult<LambdaEvent> {
    let event: Value =
        serde_json::from_slice(bytes).map_err(|why| format!("the event is not JSON: {why}"))?;
    let Value::Object(event) = event else {
        return Err("the event is not a JSON object".into());
    };
    match event.get("requestContext") {
        Some(context) => call(&event, context).map(Box::new).map(LambdaEvent::Call),
        None => work(&event).map(LambdaEvent::Work),
    }
}

fn work(event: &Map<String, Value>) -> EventResult<Occasion> {
    let says = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let is_change = |record: &Value| record["eventSource"] == "aws:dynamodb";
    match event.get("Records") {
        Some(Value::Array(records)) if !records.is_empty() && records.iter().all(is_change) => {
            let id = |record: &Value| {
                let id = record["dynamodb"]["Keys"]["request_id"]["S"].as_str()?;
                id.parse().ok()
            };
            let ids: BTreeSet<RequestId> = records.iter().filter_map(id).collect();
            return Ok(Occasion::Changed(ids.into_iter().collect()));
        }
        _ => {}
    }
    let by_schedule = matches!(says("source"), "aws.events" | "aws.scheduler");
    if by_schedule && says("detail-type") == "Scheduled Event" {
        return Ok(Occasion::Minute);
    }
    if says("jit") == "work" {
        return Ok(Occasion::Changed(Vec::new()));
    }
    let kinds = "a call has requestContext.http with method and path; work is a Scheduled Event, \
                 the records of a DynamoDB stream, or {\"jit\": \"work\"}";
    Err(format!("the event has no form that jit knows: {kinds}"))
}

fn call(event: &Map<String, Value>, context: &Value) -> EventResult<Request<Body>> {
    let method = text(&context["http"]["method"], "requestContext.http.method")?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| format!("requestContext.http.method: {method:?} is not a method"))?;
    let raw = event.get("rawPath").and_then(Value::as_str);
    let path = match raw.filter(|path| !path.is_empty()) {
        Some(path) => path,
        None => text(&context["http"]["path"], "requestContext.http.path")?,
    };
    let (path, asked) = path.split_once('?').unwrap_or((path, ""));
    let path = without_stage(path, context["stage"].as_str().unwrap_or_default());
    let query = match event.get("rawQueryString") {
        Some(Value::String(query)) => query.clone(),
        _ => match event.get("queryStringParameters") {
            Some(Value::Object(pairs)) => joined(pairs)?,
            _ => asked.to_owned(),
        },
    };
    let mut request = Request::new(Body::from(body(event)?));
    *request.method_mut() = method;
    *request.uri_mut() = uri(path, &query)?;
    *request.headers_mut() = headers(event.get("headers"))?;
    Ok(request)
}

fn text<'v>(value: &'v Value, name: &str) -> EventResult<&'v str> {
    let missing = || format!("{name}: expected a text");
    value.as_str().ok_or_else(missing)
}

/// Removes the stage prefix, which the caller's signature does not cover.
fn without_stage<'p>(path: &'p str, stage: &str) -> &'p str {
    let inside = path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(stage));
    match inside {
        Some("") if !stage.is_empty() => "/",
        Some(inside) if !stage.is_empty() && inside.starts_with('/') => inside,
        _ => path,
    }
}

fn joined(pairs: &Map<String, Value>) -> EventResult<String> {
    let pair = |(name, value): (&String, &Value)| {
        let value =
            plain(value).ok_or_else(|| format!("queryStringParameters.{name}: expected a text"))?;
        Ok(format!(
            "{}={}",
            percent_encoded(name),
            percent_encoded(&value)
        ))
    };
    let pairs: EventResult<Vec<String>> = pairs.iter().map(pair).collect();
    Ok(pairs?.join("&"))
}

/// Builds the URI. Some gateways decode the path, so characters that a path cannot contain are
/// encoded again.
fn uri(path: &str, query: &str) -> EventResult<Uri> {
    let encoded = |text: &str, more: &[u8]| {
        let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/".contains(&b);
        let byte = |b: u8| match keep(b) || more.contains(&b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        };
        text.bytes().map(byte).collect::<String>()
    };
    if !path.starts_with('/') {
        return Err(format!(
            "requestContext.http.path: {path:?} does not begin with a slash"
        ));
    }
    let mut text = encoded(path, b"");
    if !query.is_empty() {
        text.push('?');
        text.push_str(&encoded(query, b"?"));
    }
    let why = |why| format!("requestContext.http.path: {why}");
    text.parse().map_err(why)
}

fn headers(given: Option<&Value>) -> EventResult<HeaderMap> {
    let mut headers = HeaderMap::new();
    let given = match given {
        None | Some(Value::Null) => return Ok(headers),
        Some(Value::Object(given)) => given,
        Some(_) => return Err("headers: expected an object of texts".into()),
    };
    if given.len() > MOST_HEADERS {
        return Err(too_many());
    }
    for (name, value) in given {
        let wrong = || {
            let name: String = name.chars().take(64).collect();
            format!("headers.{name}: expected a text that can stand in a header")
        };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = plain(value).ok_or_else(wrong)?;
        let value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
        // `append` panics when the map is full.
        headers.try_append(key, value).map_err(|_| too_many())?;
    }
    Ok(headers)
}

/// Reads a text, a number or a boolean as a text: in an event that is written by hand a number
/// often has no quotes.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn body(event: &Map<String, Value>) -> EventResult<Vec<u8>> {
    let body = match event.get("body") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(body)) => body,
        Some(_) => return Err("body: expected a text, with JSON in it".into()),
    };
    match event.get("isBase64Encoded") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(body.clone().into_bytes()),
        Some(Value::Bool(true)) => STANDARD
            .decode(body)
            .or_else(|_| STANDARD_NO_PAD.decode(body))
            .map_err(|_| "body: is not the base64 that isBase64Encoded says it is".into()),
        Some(_) => Err("isBase64Encoded: expected true or false".into()),
    }
}

/// Converts a response to the form that API Gateway expects.
pub async fn gateway_response(response: Response) -> Value {
    let (parts, body) = response.into_parts();
    let mut headers = Map::new();
    for (name, value) in &parts.headers {
        if let Ok(value) = value.to_str() {
            headers.insert(name.as_str().to_owned(), value.into());
        }
    }
    let (status, body) = match axum::body::to_bytes(body, MOST_ANSWERED).await {
        Ok(body) => (parts.status.as_u16(), body),
        Err(error) => {
            tracing::error!(%error, "an answer could not be read; the caller gets a 500");
            (500, axum::body::Bytes::new())
        }
    };
    let (body, is_base64) = match String::from_utf8(body.into()) {
        Ok(text) => (text, false),
        Err(bytes) => (STANDARD.encode(bytes.as_bytes()), true),
    };
    json!({
        "statusCode": status,
        "headers": headers,
        "body": body,
        "isBase64Encoded": is_base64,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn called(event: &Value) -> Request<Body> {
        match understand(event.to_string().as_bytes()) {
            Ok(LambdaEvent::Call(request)) => *request,
            other => panic!("{other:?}"),
        }
    }

    fn at(path: &str) -> Value {
        json!({"requestContext": {"http": {"method": "GET", "path": path}}})
    }

    #[test]
    fn an_event_with_only_method_and_path_is_a_call() {
        let request = called(&at("/requests/1/revoke"));
        assert_eq!(
            (request.method().as_str(), request.uri().path()),
            ("GET", "/requests/1/revoke")
        );
    }

    /// The signature covers the path after the stage, as it is on the request line.
    #[test]
    fn the_stage_is_removed_from_the_path() {
        for (stage, path, signed) in [
            ("prod", "/prod/requests", "/requests"),
            ("prod", "/prod", "/"),
            ("prod", "/production/requests", "/production/requests"),
            ("prod", "/requests", "/requests"),
            ("$default", "/requests", "/requests"),
            ("", "/requests", "/requests"),
            (
                "prod",
                "/requests/config#ops/audit",
                "/requests/config%23ops/audit",
            ),
            (
                "prod",
                "/requests/config%23ops/audit",
                "/requests/config%23ops/audit",
            ),
        ] {
            let mut event = at("/other");
            event["requestContext"]["stage"] = stage.into();
            event["rawPath"] = path.into();
            assert_eq!(called(&event).uri().path(), signed, "{stage} {path}");
        }
    }

    #[test]
    fn the_query_is_read_from_each_field_of_the_event() {
        let mut event = at("/requests?limit=1");
        assert_eq!(called(&event).uri().query(), Some("limit=1"));
        event["queryStringParameters"] = json!({"status": "A B", "limit": 2});
        assert_eq!(called(&event).uri().query(), Some("limit=2&status=A%20B"));
        event["rawQueryString"] = "limit=3".into();
        assert_eq!(called(&event).uri().query(), Some("limit=3"));
    }

    /// An event with a requestContext came from outside, whatever else it contains.
    #[test]
    fn an_event_with_a_request_context_is_never_work() {
        let stream = json!([{"eventSource": "aws:dynamodb"}]);
        let mut event = at("/requests");
        event["Records"] = stream.clone();
        event["source"] = "aws.events".into();
        event["detail-type"] = "Scheduled Event".into();
        event["jit"] = "work".into();
        called(&event);
        for context in [
            json!(null),
            json!({}),
            json!("aws.events"),
            json!({"http": null}),
        ] {
            event["requestContext"] = context;
            assert!(understand(event.to_string().as_bytes()).is_err(), "{event}");
        }
    }

    // F2
    #[test]
    fn an_event_with_very_many_headers_is_refused() {
        for many in [MOST_HEADERS + 1, 30_000, 100_000] {
            for odd in ["", "x".repeat(300).as_str(), "ö", " ", ":", "\r\nx: y"] {
                let mut event = at("/requests");
                let named = (0..many).map(|number| (format!("h{odd}{number}"), json!("v")));
                event["headers"] = Value::Object(named.collect());
                event["multiValueHeaders"] = event["headers"].clone();
                let refused = understand(event.to_string().as_bytes()).err();
                assert_eq!(refused.as_deref(), Some("headers: expected at most 500"));
            }
        }
    }

    // F2: names that differ in case are values of one header, and each odd name is an error.
    #[test]
    fn the_largest_number_of_headers_is_accepted() {
        let mut event = at("/requests");
        let named = (0..MOST_HEADERS).map(|number| {
            let name: String = (0..9)
                .map(|bit| if number >> bit & 1 == 0 { 'a' } else { 'A' })
                .collect();
            (name, json!(number))
        });
        event["headers"] = Value::Object(named.collect());
        let headers = called(&event).headers().clone();
        assert_eq!((headers.len(), headers.keys_len()), (MOST_HEADERS, 1));
        for odd in ["", " ", "ö", ":", "a\nb", &"x".repeat(100_000)] {
            let mut event = at("/requests");
            event["headers"] = json!({odd: "v"});
            let refused = understand(event.to_string().as_bytes()).err().unwrap();
            assert!(refused.len() < 400, "{refused}");
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
        let words = [
            "requestContext",
            "http",
            "method",
            "path",
            "stage",
            "headers",
            "body",
            "isBase64Encoded",
            "rawPath",
            "rawQueryString",
            "queryStringParameters",
            "Records",
            "source",
            "detail-type",
            "jit",
            "eventSource",
        ];
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "/[a-z/%#?= ]{0,12}".prop_map(Value::from),
            prop::sample::select(vec![
                "GET",
                "POST",
                "aws.events",
                "aws:dynamodb",
                "Scheduled Event",
                "AA==",
                "prod",
                "$default"
            ])
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 8, move |inner| {
            let key = prop_oneof![4 => prop::sample::select(words.to_vec()).prop_map(String::from), 1 => ".{0,8}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// An invalid event gets an error message. G20: invalid base64 causes no panic.
        #[test]
        fn no_event_panics(event in anything(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for bytes in [event.to_string().into_bytes(), bytes] {
                if let Err(why) = understand(&bytes) {
                    prop_assert!(!why.is_empty());
                }
            }
        }

        #[test]
        fn no_field_of_a_call_panics(path in anything(), headers in anything(), body in anything(), encoded in any::<bool>()) {
            let mut event = at("/requests");
            event["requestContext"]["http"]["path"] = path.clone();
            event["rawPath"] = path;
            event["headers"] = headers;
            event["body"] = body;
            event["isBase64Encoded"] = encoded.into();
            understand(event.to_string().as_bytes()).ok();
        }
    }
}
