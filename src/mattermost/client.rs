//! The bot's way to Mattermost's own API: whom a user id stands for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{StatusCode, Url, redirect};
use serde::Deserialize;

use crate::clock::{Clock, SystemClock};
use crate::domain::{Millis, MmUserId, Timestamp};
use crate::signature::Secret;

/// A command is answered within three seconds: this often, and this long.
const ATTEMPTS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(1);
/// So long somebody is who they were. Whoever was thrown out just now is heard of by then.
const KNOWN_FOR: Millis = Millis::seconds(30);
const MOST_KNOWN: usize = 10_000;

/// A user as Mattermost has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct User {
    pub id: String,
    pub username: String,
    /// Empty, if the server shows it to nobody but admins.
    #[serde(default)]
    pub email: String,
    #[serde(default)]
    pub roles: String,
    /// Not 0: deactivated.
    #[serde(default)]
    pub delete_at: i64,
    #[serde(default)]
    pub is_bot: bool,
}

impl User {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.split_whitespace().any(|one| one == role)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error(
        "Mattermost does not take jit's bot token: check mattermost.bot_token, and that the bot is enabled"
    )]
    NotAllowed,
    #[error("Mattermost has no such user")]
    NoUser,
    #[error("Mattermost does not answer: {0}")]
    NoAnswer(String),
}

pub struct Client {
    url: Url,
    token: Secret,
    http: reqwest::Client,
    known: Mutex<HashMap<String, (User, Timestamp)>>,
}

impl Client {
    pub fn new(url: Url, token: Secret) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            // A redirect would carry the token to somebody it was not made for.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("jit/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            url,
            token,
            http,
            known: Mutex::default(),
        })
    }

    pub async fn user(&self, id: &MmUserId) -> Result<User, ClientError> {
        let now = SystemClock.now();
        let known = self.known().get(id.as_str()).cloned();
        if let Some((user, at)) = known
            && now - at < KNOWN_FOR
        {
            return Ok(user);
        }
        let user = self.ask_patiently(id).await?;
        let mut known = self.known();
        known.retain(|_, (_, at)| now - *at < KNOWN_FOR);
        if known.len() < MOST_KNOWN {
            known.insert(user.id.clone(), (user.clone(), now));
        }
        Ok(user)
    }

    async fn ask_patiently(&self, id: &MmUserId) -> Result<User, ClientError> {
        let mut attempt = 1;
        loop {
            match self.ask(id).await {
                Err(ClientError::NoAnswer(why)) if attempt < ATTEMPTS => {
                    tracing::debug!(%why, "Mattermost is asked again");
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn ask(&self, id: &MmUserId) -> Result<User, ClientError> {
        let url = format!(
            "{}/api/v4/users/{id}",
            self.url.as_str().trim_end_matches('/')
        );
        let no_answer = |why: reqwest::Error| ClientError::NoAnswer(why.without_url().to_string());
        let asked = self.http.get(url).bearer_auth(self.token.expose());
        let answer = asked.send().await.map_err(no_answer)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => return Err(ClientError::NoUser),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(ClientError::NotAllowed);
            }
            status => return Err(ClientError::NoAnswer(status.to_string())),
        }
        let text = answer.bytes().await.map_err(no_answer)?;
        let user: User = serde_json::from_slice(&text)
            .map_err(|why| ClientError::NoAnswer(format!("not as Mattermost does: {why}")))?;
        match user.id == id.as_str() {
            true => Ok(user),
            false => Err(ClientError::NoAnswer(
                "another user than the one asked for".into(),
            )),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (User, Timestamp)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
