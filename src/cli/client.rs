//! Signed calls to a running jit.

use reqwest::Method;
use serde_json::Value;

use super::arguments::Via;
use super::fields::TypedFields;
use super::invoke::{Function, SignedRequest};
use super::{CliContext, Failure};
use crate::clock::{Clock, SystemClock};
use crate::config::Client;
use crate::identity_center::causes;
use crate::signature::{self, Message, Scheme};

/// More than the ten seconds in which jit answers a revoke.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) struct Caller {
    client: Client,
    way: Transport,
}

/// How a call reaches jit.
enum Transport {
    Http(reqwest::Client),
    Lambda(Function),
}

/// The answer of jit, if it is not a refusal.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub status: u16,
    pub value: Value,
}

impl Caller {
    pub async fn new(context: &CliContext) -> Result<Self, Failure> {
        let client = context.client().await?;
        match &context.via {
            None => Self::with(client),
            Some(Via::Lambda(name)) => {
                let way = Transport::Lambda(Function::named(name).await);
                Ok(Self { client, way })
            }
        }
    }

    pub fn with(client: Client) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("jit/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|why| Failure::Failed(format!("jit cannot make HTTP calls: {why}")))?;
        let way = Transport::Http(http);
        Ok(Self { client, way })
    }

    pub async fn get(&self, path_and_query: &str) -> Result<HttpAnswer, Failure> {
        self.call(Method::GET, path_and_query, String::new(), None)
            .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<HttpAnswer, Failure> {
        self.post_once(path, body, None).await
    }

    pub async fn post_once(
        &self,
        path: &str,
        body: &Value,
        idempotency_key: Option<&str>,
    ) -> Result<HttpAnswer, Failure> {
        self.call(Method::POST, path, body.to_string(), idempotency_key)
            .await
    }

    async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: String,
        idempotency_key: Option<&str>,
    ) -> Result<HttpAnswer, Failure> {
        let signed = headers(
            &self.client,
            Scheme::V2,
            &method,
            path_and_query,
            body.as_bytes(),
        );
        let mut call = SignedRequest {
            method,
            path_and_query,
            headers: signed.into(),
            body,
        };
        call.headers
            .push(("Content-Type", "application/json".into()));
        if let Some(key) = idempotency_key {
            call.headers.push(("Idempotency-Key", key.to_owned()));
        }
        let (_, query) = path_and_query.split_once('?').unwrap_or_default();
        let typed_body = call.body.clone();
        let typed = TypedFields {
            query,
            body: &typed_body,
        };
        let (status, text) = match &self.way {
            Transport::Http(http) => self.over_http(http, call).await?,
            Transport::Lambda(function) => function.invoke(&call).await?,
        };
        let there = self.there();
        let value: Value = serde_json::from_slice(&text).map_err(|_| {
            let next = match self.way {
                Transport::Http(_) => "check client.url",
                Transport::Lambda(_) => "check the name of the function",
            };
            Failure::Failed(format!(
                "{there} answered {status}, but the answer is not from jit; {next}"
            ))
        })?;
        if status < 400 {
            return Ok(HttpAnswer { status, value });
        }
        Err(self.refusal(status, &value, &typed))
    }

    fn refusal(&self, status: u16, value: &Value, typed: &TypedFields<'_>) -> Failure {
        let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let message = match status {
            401 => format!(
                "{} does not accept the signature of key {}: check client.key_id, client.secret \
                 and this machine's clock",
                self.there(),
                self.client.key_id
            ),
            _ => typed.explained(&word("message")),
        };
        Failure::Refused {
            message,
            code: word("code"),
            request: value.get("request").cloned().map(Box::new),
        }
    }

    fn there(&self) -> String {
        match &self.way {
            Transport::Http(_) => self.client.shown_url(),
            Transport::Lambda(function) => function.name().to_owned(),
        }
    }

    async fn over_http(
        &self,
        http: &reqwest::Client,
        call: SignedRequest<'_>,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let url = format!("{}{}", self.client.url, call.path_and_query);
        let mut request = http.request(call.method, &url);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let reply = request.body(call.body).send().await;
        let reply = reply.map_err(|why| self.no_answer(&why))?;
        let status = reply.status().as_u16();
        let text = reply.bytes().await.map_err(|why| self.no_answer(&why))?;
        Ok((status, text.into()))
    }

    fn no_answer(&self, why: &reqwest::Error) -> Failure {
        let url = self.client.shown_url();
        let runs = "check that `jit serve` runs, and check client.url";
        let causes = causes(why).to_lowercase();
        let (why, next) = if why.is_timeout() {
            ("the server did not answer in time", runs)
        } else if causes.contains("dns error") || causes.contains("lookup address") {
            let next = "check the name in client.url, and the DNS of this machine";
            ("the name of the server cannot be resolved", next)
        } else if causes.contains("certificate") || causes.contains("tls") {
            let next = "check that client.url begins with https:// or http:// as the server does";
            ("no TLS connection could be made", next)
        } else if causes.contains("refused") {
            ("the connection was refused", runs)
        } else if why.is_connect() {
            ("the server cannot be reached", runs)
        } else {
            ("the connection was closed", runs)
        };
        Failure::Failed(format!("no answer from {url}: {why}; {next}"))
    }
}

/// The four headers of a signed call at the current time.
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
