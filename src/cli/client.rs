//! Signed calls to a jit that serves.

use reqwest::Method;
use serde_json::Value;

use super::{Context, Failure};
use crate::clock::{Clock, SystemClock};
use crate::config::Client;
use crate::signature::{self, Message, Scheme};

/// Longer than the ten seconds that a revoke may take to answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) struct Caller {
    client: Client,
    http: reqwest::Client,
}

/// What jit answered, if it was no refusal.
pub(crate) struct Answer {
    pub status: u16,
    pub value: Value,
}

impl Caller {
    pub fn new(context: &Context) -> Result<Self, Failure> {
        Self::with(context.client()?)
    }

    pub fn with(client: Client) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("jit/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|why| Failure::Failed(format!("no calls can be made: {why}")))?;
        Ok(Self { client, http })
    }

    pub async fn get(&self, path_and_query: &str) -> Result<Answer, Failure> {
        self.call(Method::GET, path_and_query, Vec::new(), None)
            .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.post_once(path, body, None).await
    }

    pub async fn post_once(
        &self,
        path: &str,
        body: &Value,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, Failure> {
        let body = body.to_string().into_bytes();
        self.call(Method::POST, path, body, idempotency_key).await
    }

    async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Vec<u8>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, Failure> {
        let url = format!("{}{path_and_query}", self.client.url);
        let mut call = self
            .http
            .request(method.clone(), &url)
            .header("Content-Type", "application/json");
        for (name, value) in headers(&self.client, Scheme::V2, &method, path_and_query, &body) {
            call = call.header(name, value);
        }
        if let Some(key) = idempotency_key {
            call = call.header("Idempotency-Key", key);
        }
        let reply = call
            .body(body)
            .send()
            .await
            .map_err(|why| self.no_answer(&why))?;
        let status = reply.status().as_u16();
        let text = reply.bytes().await.map_err(|why| self.no_answer(&why))?;
        let value: Value = serde_json::from_slice(&text).map_err(|_| {
            let url = &self.client.url;
            Failure::Failed(format!(
                "{url} answered {status}, and not as jit does; is client.url right?"
            ))
        })?;
        if status < 400 {
            return Ok(Answer { status, value });
        }
        let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let message = match status {
            401 => format!(
                "{} does not accept the signature of key {}: check client.key_id, client.secret \
                 and this machine's clock",
                self.client.url, self.client.key_id
            ),
            _ => word("message"),
        };
        Err(Failure::Refused {
            message,
            code: word("code"),
        })
    }

    fn no_answer(&self, why: &reqwest::Error) -> Failure {
        let url = &self.client.url;
        let why = if why.is_timeout() {
            "it did not answer in time"
        } else if why.is_connect() {
            "nothing listens there"
        } else {
            "the connection broke"
        };
        Failure::Failed(format!(
            "no answer from {url}: {why}; is `jit serve` running, and client.url right?"
        ))
    }
}

/// The four headers of a call, by the wall clock.
pub(crate) fn headers(
    client: &Client,
    scheme: Scheme,
    method: &Method,
    path_and_query: &str,
    body: &[u8],
) -> [(&'static str, String); 4] {
    let (path, query) = path_and_query
        .split_once('?')
        .unwrap_or((path_and_query, ""));
    let timestamp = SystemClock.now().seconds().to_string();
    let nonce = SystemClock.draw().to_string();
    let message = Message {
        key_id: &client.key_id,
        timestamp: &timestamp,
        nonce: &nonce,
        method: method.as_str(),
        path,
        query,
        body,
    };
    let mac = signature::sign(scheme, &client.secret, &message);
    [
        ("X-JIT-KeyID", client.key_id.clone()),
        ("X-JIT-Timestamp", timestamp),
        ("X-JIT-Nonce", nonce),
        ("X-JIT-Signature", mac),
    ]
}
