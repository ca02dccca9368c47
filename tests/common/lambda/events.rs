//! The events with which AWS invokes the function.

use serde_json::{Value, json};

use super::super::now;

/// The event of an HTTP API, payload format 2.0.
pub fn v2_event(
    stage: &str,
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    body: &str,
) -> Value {
    let mut names = serde_json::Map::new();
    for (name, value) in headers {
        names.insert(name.to_lowercase(), value.as_str().into());
    }
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": names,
        "requestContext": {
            "accountId": "111111111111",
            "apiId": "a1b2c3d4e5",
            "domainName": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
            "domainPrefix": "a1b2c3d4e5",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "curl/8.5.0"
            },
            "requestId": "Zx1abjK1liAEJBQ=",
            "routeKey": "$default",
            "stage": stage,
            "time": "21/Nov/2026:10:00:00 +0000",
            "timeEpoch": 1_795_255_200_000_u64
        },
        "isBase64Encoded": false
    });
    if !body.is_empty() {
        event["body"] = body.into();
    }
    event
}

/// The event of EventBridge Scheduler at the start of a minute.
pub fn minute() -> Value {
    json!({
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": "111111111111",
        "time": "2026-11-21T10:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:scheduler:eu-central-1:111111111111:schedule/default/jit-worker"],
        "detail": "{}"
    })
}

/// An event of the table's stream with one changed record.
pub fn change(id: &str) -> Value {
    json!({"Records": [{
        "eventID": "c4ca4238a0b923820dcc509a6f75849b",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-central-1",
        "dynamodb": {
            "ApproximateCreationDateTime": now(),
            "Keys": {"request_id": {"S": id}},
            "NewImage": {"request_id": {"S": id}, "at_hand": {"S": "yes"}},
            "SequenceNumber": "4421584500000000017450439091",
            "SizeBytes": 26,
            "StreamViewType": "NEW_IMAGE"
        },
        "eventSourceARN": "arn:aws:dynamodb:eu-central-1:111111111111:table/jit_requests/stream/2026-11-21T00:00:00.000"
    }]})
}
