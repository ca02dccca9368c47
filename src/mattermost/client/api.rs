//! Calls to the API of Mattermost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url, redirect};
use serde_json::Value;

use crate::clock::{Clock, Uptime};
use crate::config;
use crate::domain::Millis;
use crate::identity_center::causes;
use crate::lock::locked;
use crate::signature::{CurrentSecret, Secret};

/// The longest pause in seconds that jit keeps after 429.
const LONGEST_REST: i64 = 60;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("Mattermost does not accept this token: {0}")]
    NotAllowed(String),
    #[error("Mattermost does not allow this call: {0}")]
    Forbidden(String),
    #[error("Mattermost has no such object: {0}")]
    NotThere(String),
    #[error("Mattermost refuses the call: {0}")]
    Refused(String),
    #[error("Mattermost gives no usable answer: {0}")]
    NoAnswer(String),
}

#[derive(Clone)]
pub struct Api {
    url: Url,
    token: CurrentSecret,
    http: reqwest::Client,
    timeout: Millis,
    clock: Arc<dyn Clock>,
    /// jit makes no calls before this time: the server answered 429.
    paused_until: Arc<Mutex<Uptime>>,
}

impl Api {
    pub fn new(
        url: Url,
        token: CurrentSecret,
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            // A redirect would send the token to another server.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("jit/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let timeout = Millis(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
        Ok(Self {
            url,
            token,
            http,
            timeout,
            clock,
            paused_until: Arc::default(),
        })
    }

    /// The address of the server as it may be shown (D3).
    pub fn shown_url(&self) -> String {
        config::shown(&self.url)
    }

    /// The token of the next call.
    pub fn token(&self) -> Secret {
        self.token.get()
    }

    /// The time for everything that is built on the API.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.call(Method::PUT, path, Some(body)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let url = format!("{}/api/v4/{path}", self.url.as_str().trim_end_matches('/'));
        // Only the causes say what is wrong: a name without an address, a refused connection.
        let no_answer = |why: reqwest::Error| ApiError::NoAnswer(causes(&why.without_url()));
        let mut call = self
            .http
            .request(method, url)
            .bearer_auth(self.token().expose());
        if let Some(body) = body {
            call = call
                .header("Content-Type", "application/json")
                .body(body.to_string());
        }
        self.wait_for_a_turn().await?;
        let answer = call.send().await.map_err(no_answer)?;
        let status = answer.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.rest(&answer);
        }
        let text = answer.bytes().await.map_err(no_answer)?;
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        if status.is_success() {
            return match value.is_null() {
                true => Err(ApiError::NoAnswer(
                    "the answer is not from Mattermost".into(),
                )),
                false => Ok(value),
            };
        }
        let why = match value["message"].as_str() {
            Some(message) => message.to_owned(),
            None => status.to_string(),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED => ApiError::NotAllowed(why),
            StatusCode::FORBIDDEN => ApiError::Forbidden(why),
            StatusCode::NOT_FOUND => ApiError::NotThere(why),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                ApiError::Refused(why)
            }
            status => ApiError::NoAnswer(format!("{status} {why}")),
        })
    }

    /// All calls wait for the pause that the server requires; a call with less time fails at
    /// once.
    async fn wait_for_a_turn(&self) -> Result<(), ApiError> {
        let until = *self.paused_until();
        let rest = until - self.clock.uptime();
        if rest > self.timeout {
            let seconds = rest.0.div_euclid(1000) + 1;
            let why = format!("it limits the rate and accepts no calls for {seconds} seconds");
            return Err(ApiError::NoAnswer(why));
        }
        self.clock.sleep_until(until).await;
        Ok(())
    }

    fn rest(&self, answer: &Response) {
        let after = answer.headers().get("retry-after");
        let seconds = after.and_then(|after| after.to_str().ok()?.parse().ok());
        let rest = Millis::seconds(seconds.unwrap_or(1).clamp(1, LONGEST_REST));
        let mut until = self.paused_until();
        *until = (*until).max(self.clock.uptime() + rest);
    }

    fn paused_until(&self) -> std::sync::MutexGuard<'_, Uptime> {
        locked(&self.paused_until)
    }
}
