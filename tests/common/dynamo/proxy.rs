//! A proxy between jit and DynamoDB Local that makes the faults of the real DynamoDB.
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use hyper::body::Incoming;
use hyper::{Request, Response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::wire::{self, Hangup};

/// A fault of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The partition throttles the call; nothing is written.
    Full,
    /// A transaction conflict; nothing is written.
    Conflict,
    /// HTTP 500; nothing is written.
    Broken,
    /// The connection is closed; nothing is written.
    Lost,
    /// The connection is closed after the write.
    AnswerLost,
}

const ALL: [Fault; 5] = [
    Fault::Full,
    Fault::Conflict,
    Fault::Broken,
    Fault::Lost,
    Fault::AnswerLost,
];

#[derive(Clone, Debug)]
pub enum Mood {
    Well,
    /// The first answer to every call is lost.
    LosesFirstAnswers,
    /// Every call is refused at first, for alternating reasons.
    RefusesFirstCalls,
    /// This percentage of calls fails, for any reason.
    Failing {
        seed: u64,
        percent: u32,
    },
    /// Writes fail.
    ReadOnly,
    /// Every call fails.
    Unreachable,
}

#[derive(Clone)]
pub struct Proxy {
    pub url: String,
    upstream: String,
    client: reqwest::Client,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    mood: Mood,
    dice: StdRng,
    /// Calls that failed once.
    met: HashSet<Bytes>,
    turn: usize,
    /// The number of calls of each action.
    calls: BTreeMap<String, u64>,
    /// The permissions that the calls need.
    needs: BTreeSet<String>,
    /// The number of entries that queries read.
    looked_at: u64,
}

impl Proxy {
    pub async fn open(upstream: &str, mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Inner {
            mood: Mood::Well,
            dice: StdRng::seed_from_u64(0),
            met: HashSet::new(),
            turn: 0,
            calls: BTreeMap::new(),
            needs: BTreeSet::new(),
            looked_at: 0,
        };
        let proxy = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            upstream: upstream.to_owned(),
            client: reqwest::Client::new(),
            inner: Arc::new(Mutex::new(inner)),
        };
        proxy.set(mood);
        tokio::spawn(proxy.clone().serve(listener));
        proxy
    }

    pub fn set(&self, mood: Mood) {
        let mut inner = self.inner.lock().unwrap();
        if let Mood::Failing { seed, .. } = mood {
            inner.dice = StdRng::seed_from_u64(seed);
        }
        inner.mood = mood;
    }

    /// The number of calls of each action since the last call of this function.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.inner.lock().unwrap().calls)
    }

    /// The number of entries that queries read since the last call of this function: their cost.
    pub fn looked_at(&self) -> u64 {
        std::mem::take(&mut self.inner.lock().unwrap().looked_at)
    }

    /// The permissions that the calls so far needed, as IAM names them.
    pub fn needs(&self) -> BTreeSet<String> {
        self.inner.lock().unwrap().needs.clone()
    }

    async fn serve(self, listener: TcpListener) {
        let answer = move |request| {
            let proxy = self.clone();
            async move { proxy.pass(request).await }
        };
        wire::serve(listener, answer).await;
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
        let (parts, body) = request.into_parts();
        let target = parts.headers["x-amz-target"].to_str().unwrap().to_owned();
        let action = target.split('.').nth(1).unwrap();
        let body = to_bytes(Body::new(body), 1 << 24).await;
        let body = body.map_err(|_| Hangup)?;
        let is_query = action == "Query";
        let fault = self.inner.lock().unwrap().arrive(action, &body);
        match fault {
            Some(Fault::Lost) => return Err(Hangup),
            Some(Fault::AnswerLost) | None => {}
            Some(fault) => return Ok(refusal(fault, action, &body)),
        }
        let mut call = self.client.post(&self.upstream).body(body);
        for name in [
            "x-amz-target",
            "content-type",
            "x-amz-date",
            "authorization",
        ] {
            if let Some(value) = parts.headers.get(name) {
                call = call.header(name, value);
            }
        }
        let answer = call.send().await.map_err(|_| Hangup)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|_| Hangup)?;
        if is_query {
            let told: Value = serde_json::from_slice(&body).unwrap();
            self.inner.lock().unwrap().looked_at += told["ScannedCount"].as_u64().unwrap_or(0);
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(Hangup);
        }
        let answer = Response::builder()
            .status(status)
            .header("content-type", "application/x-amz-json-1.0")
            .body(Body::from(body));
        Ok(answer.unwrap())
    }
}

impl Inner {
    fn arrive(&mut self, action: &str, body: &Bytes) -> Option<Fault> {
        *self.calls.entry(action.to_owned()).or_default() += 1;
        self.needs.extend(needed(action, body));
        match &self.mood {
            Mood::Well => None,
            Mood::Unreachable => Some(Fault::Lost),
            Mood::ReadOnly => action.contains("Write").then_some(Fault::Lost),
            Mood::LosesFirstAnswers => self.met.insert(body.clone()).then_some(Fault::AnswerLost),
            Mood::RefusesFirstCalls => {
                let first = self.met.insert(body.clone());
                self.turn += 1;
                first.then(|| [Fault::Full, Fault::Conflict, Fault::Broken][self.turn % 3])
            }
            Mood::Failing { percent, .. } => {
                let strikes = self.dice.random_range(0..100) < *percent;
                strikes.then(|| ALL[self.dice.random_range(0..ALL.len())])
            }
        }
    }
}

/// A transaction needs the permissions of all its parts.
fn needed(action: &str, body: &[u8]) -> Vec<String> {
    if action != "TransactWriteItems" {
        return vec![format!("dynamodb:{action}")];
    }
    let body: Value = serde_json::from_slice(body).unwrap();
    let items = body["TransactItems"].as_array().unwrap();
    let kinds = items
        .iter()
        .flat_map(|item| item.as_object().unwrap().keys());
    kinds.map(|kind| format!("dynamodb:{kind}Item")).collect()
}

fn refusal(fault: Fault, action: &str, body: &[u8]) -> Response<Body> {
    let items = || {
        let body: Value = serde_json::from_slice(body).unwrap();
        body["TransactItems"].as_array().unwrap().len()
    };
    let writes = ["PutItem", "UpdateItem", "DeleteItem"].contains(&action);
    if fault == Fault::Full && action == "BatchGetItem" {
        // DynamoDB answers with success, and names all keys as unprocessed.
        let body: Value = serde_json::from_slice(body).unwrap();
        let answer = json!({"Responses": {}, "UnprocessedKeys": body["RequestItems"]});
        return answered(200, &answer);
    }
    let (status, kind, reason) = match fault {
        Fault::Conflict if action == "TransactWriteItems" => (
            400,
            "TransactionCanceledException",
            Some("TransactionConflict"),
        ),
        Fault::Conflict if writes => (400, "TransactionConflictException", None),
        Fault::Full if action == "TransactWriteItems" => {
            let reason = Some("ProvisionedThroughputExceeded");
            (400, "TransactionCanceledException", reason)
        }
        Fault::Full => (400, "ProvisionedThroughputExceededException", None),
        _ => (500, "InternalServerError", None),
    };
    let mut answer = json!({
        "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"),
        "Message": "planned by a test",
        "message": "planned by a test",
    });
    if let Some(reason) = reason {
        let mut reasons = vec![json!({"Code": "None"}); items()];
        reasons[0] = json!({"Code": reason, "Message": "planned by a test"});
        answer["CancellationReasons"] = Value::Array(reasons);
    }
    answered(status, &answer)
}

fn answered(status: u16, answer: &Value) -> Response<Body> {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Body::from(answer.to_string()));
    response.unwrap()
}
