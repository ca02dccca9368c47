//! The users of Mattermost, by user id.

use std::collections::HashMap;
use std::sync::Mutex;

use serde::Deserialize;

use super::api::{Api, ApiError};
use crate::clock::Uptime;
use crate::domain::{Millis, MmUserId};
use crate::lock::locked;

const ATTEMPTS: u32 = 2;
/// How long jit keeps a user. After this time it knows that a user was deactivated.
const KNOWN_FOR: Millis = Millis::seconds(30);
const MOST_KNOWN: usize = 10_000;

/// A user of Mattermost.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct User {
    pub id: String,
    pub username: String,
    /// Empty if the server shows addresses only to admins.
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

pub struct People {
    api: Api,
    /// With the uptime at which jit asked: a wall clock that is set back keeps no user longer.
    known: Mutex<HashMap<String, (User, Uptime)>>,
}

impl People {
    pub fn new(api: Api) -> Self {
        let known = Mutex::default();
        Self { api, known }
    }

    pub async fn user(&self, id: &MmUserId) -> Result<User, ApiError> {
        let now = self.api.clock().uptime();
        let known = self.known().get(id.as_str()).cloned();
        if let Some((user, at)) = known
            && now - at < KNOWN_FOR
        {
            return Ok(user);
        }
        let user = self.fetch_with_retries(id).await?;
        let mut known = self.known();
        known.retain(|_, (_, at)| now - *at < KNOWN_FOR);
        if known.len() < MOST_KNOWN {
            known.insert(user.id.clone(), (user.clone(), now));
        }
        Ok(user)
    }

    async fn fetch_with_retries(&self, id: &MmUserId) -> Result<User, ApiError> {
        let mut attempt = 1;
        loop {
            match self.fetch(id).await {
                Err(ApiError::NoAnswer(why)) if attempt < ATTEMPTS => {
                    tracing::debug!(error = %why, "user not read from Mattermost, will be retried");
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn fetch(&self, id: &MmUserId) -> Result<User, ApiError> {
        let found = self.api.get(&format!("users/{id}")).await?;
        let user: User = serde_json::from_value(found).map_err(|why| {
            ApiError::NoAnswer(format!("the answer is not from Mattermost: {why}"))
        })?;
        match user.id == id.as_str() {
            true => Ok(user),
            false => Err(ApiError::NoAnswer("it answered with another user".into())),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (User, Uptime)>> {
        locked(&self.known)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_server::TestServer;
    use super::*;

    /// K8: after the wall clock was set back, jit kept a user for that time too, and a deactivated
    /// user could still act.
    #[tokio::test]
    async fn a_deactivated_user_is_known_after_thirty_seconds_if_the_clock_is_set_back() {
        let user = |delete_at: i64| json!({"id": "bob", "username": "bob", "delete_at": delete_at});
        let server = TestServer::open(user(0)).await;
        let people = People::new(server.api.clone());
        let id: MmUserId = "bob".parse().unwrap();
        assert_eq!(people.user(&id).await.unwrap().delete_at, 0);
        server.answers(user(1));
        server.clock.pass(29, 29 - 3600);
        assert_eq!(people.user(&id).await.unwrap().delete_at, 0);
        server.clock.pass(1, 1);
        assert_eq!(people.user(&id).await.unwrap().delete_at, 1);
    }
}
