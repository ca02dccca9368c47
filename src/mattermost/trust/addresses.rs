//! The users behind verified addresses, for signed calls that name a person by an address alone.

use async_trait::async_trait;

use super::who::Rules;
use crate::clock::Clock;
use crate::config;
use crate::domain::{Email, MmUserId};
use crate::http::address_book::{AddressBook, NoUser};
use crate::mattermost::CALL_TIMEOUT;
use crate::mattermost::client::api::{Api, ApiError};
use crate::mattermost::client::people::User;
use crate::signature::{CurrentSecret, percent_encoded};

pub struct Addresses {
    api: Api,
    rules: Rules,
}

impl Addresses {
    pub fn of(
        config: &config::MattermostConfig,
        bot_token: CurrentSecret,
        clock: std::sync::Arc<dyn Clock>,
    ) -> reqwest::Result<Self> {
        Ok(Self {
            api: Api::new(config.url.clone(), bot_token, CALL_TIMEOUT, clock)?,
            rules: Rules {
                email_domain: config.email_domain.clone(),
            },
        })
    }

    /// Whether a user can have only an address whose messages the user receives.
    async fn are_verified(&self) -> Result<bool, ApiError> {
        let config = self.api.get("config/client?format=old").await?;
        Ok(config["RequireEmailVerification"] == "true")
    }

    async fn user(&self, email: &Email) -> Result<User, ApiError> {
        let path = format!("users/email/{}", percent_encoded(email.as_str()));
        let found = self.api.get(&path).await?;
        serde_json::from_value(found)
            .map_err(|why| ApiError::NoAnswer(format!("the answer is not from Mattermost: {why}")))
    }
}

#[async_trait]
impl AddressBook for Addresses {
    async fn user_with(&self, email: &Email) -> Result<MmUserId, NoUser> {
        let are_verified = self.are_verified().await.map_err(|error| {
            tracing::error!(%error, "settings not read from Mattermost; the signed call of a person without a user id is refused; run `jit mattermost check`");
            NoUser::NoAnswer(email.clone())
        })?;
        if !are_verified {
            return Err(NoUser::Unverified(email.clone()));
        }
        let user = self.user(email).await.map_err(|error| match error {
            ApiError::NotThere(_) | ApiError::Refused(_) => NoUser::Unknown(email.clone()),
            ApiError::NotAllowed(_) | ApiError::Forbidden(_) | ApiError::NoAnswer(_) => {
                tracing::error!(%error, "user not looked up by the address at Mattermost; the signed call of a person without a user id is refused; run `jit mattermost check`");
                NoUser::NoAnswer(email.clone())
            }
        })?;
        let admitted = self.rules.admit(&user);
        let who = admitted.map_err(|why| NoUser::NotAdmitted {
            email: email.clone(),
            why,
        })?;
        match who.person.email == *email {
            true => Ok(who.person.id),
            false => Err(NoUser::Unknown(email.clone())),
        }
    }
}
