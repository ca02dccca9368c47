//! A caller that signs its calls with a key, as the plugin does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::http::HeaderMap;
use serde_json::Value;

use super::wall_clock::WallClock;
use super::{METRICS_TOKEN, Signing, TIMEOUT, nonce, now};

#[derive(Clone)]
pub struct Caller {
    pub url: String,
    pub key_id: String,
    pub secret: String,
    client: reqwest::Client,
    /// How many seconds the wall clock of the server is ahead of this machine's.
    ahead: Arc<AtomicI64>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks the status, and that an error has a code and a message; returns the body.
    pub fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let value = self.json();
        if status >= 400 {
            assert!(
                value["message"].is_string() && value["code"].is_string(),
                "{self:?}"
            );
        }
        value
    }
}

impl Caller {
    pub fn new(url: &str, key_id: &str, secret: &str) -> Self {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().unwrap();
        Self {
            url: url.into(),
            key_id: key_id.into(),
            secret: secret.into(),
            client,
            ahead: Arc::default(),
        }
    }

    /// The same caller, with the time of a server whose clock is set.
    #[must_use]
    pub fn at(self, clock: &WallClock) -> Self {
        let ahead = clock.ahead();
        Self { ahead, ..self }
    }

    pub fn signing(&self) -> Signing<'_> {
        Signing {
            key_id: &self.key_id,
            secret: &self.secret,
            timestamp: now() + self.ahead.load(Ordering::SeqCst),
            nonce: nonce(),
        }
    }

    /// The page of `/metrics`.
    pub async fn metrics(&self) -> Reply {
        let token = format!("Bearer {METRICS_TOKEN}");
        let given = vec![("authorization", token)];
        self.send("GET", "/metrics", given, vec![]).await
    }

    pub async fn send(
        &self,
        method: &str,
        path_and_query: &str,
        headers: Vec<(&str, String)>,
        body: Vec<u8>,
    ) -> Reply {
        self.try_send(method, path_and_query, headers, body)
            .await
            .unwrap()
    }

    pub async fn try_send(
        &self,
        method: &str,
        path_and_query: &str,
        headers: Vec<(&str, String)>,
        body: Vec<u8>,
    ) -> reqwest::Result<Reply> {
        let url = format!("{}{path_and_query}", self.url);
        let mut call = self.client.request(method.parse().unwrap(), url);
        for (name, value) in headers {
            call = call.header(name, value);
        }
        let reply = call.body(body).send().await?;
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        Ok(Reply {
            status,
            headers,
            text: reply.text().await?,
        })
    }

    /// Sends a call signed as v1, as the plugin does.
    pub async fn call(&self, method: &str, path_and_query: &str, body: &str) -> Reply {
        self.try_call(method, path_and_query, body).await.unwrap()
    }

    pub async fn try_call(
        &self,
        method: &str,
        path_and_query: &str,
        body: &str,
    ) -> reqwest::Result<Reply> {
        let path = path_and_query.split('?').next().unwrap();
        let signing = self.signing();
        let mac = signing.v1(method, path, body.as_bytes());
        let mut headers = signing.headers(mac);
        headers.push(("Content-Type", "application/json".into()));
        self.try_send(method, path_and_query, headers, body.as_bytes().to_vec())
            .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, &body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, "").await
    }
}
