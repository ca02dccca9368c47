//! Mattermost without a plugin: jit receives slash commands, clicks and dialogs, and a bot
//! looks up users and posts cards. The domain has the rules; this module identifies the
//! person, checks what comes in, and writes the answer.
//!
//! Only a slash command carries a secret. A click and a dialog carry a seal that jit made,
//! and a click also carries a signature of Mattermost. Only `user_id` identifies the person:
//! users can change names, addresses and texts.
//!
//! Each folder uses only those before it: `client` calls Mattermost, `trust` checks what comes
//! in, `cards` writes what people see, `commands` answers typed commands, `inbound` has the
//! routes.

mod cards;
mod client;
mod commands;
mod inbound;
pub mod setup;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use crate::clock::Clock;
use crate::config;
use crate::http::HttpState;
use crate::http::reply::Problem;
use crate::service::ServiceError;
use crate::signature::CurrentSecret;
use crate::store::StoreError;
pub use cards::direct::DirectMessages;
pub use cards::names::{Names, nearest};
use cards::refusals::in_chat;
pub use cards::tell::Cards;
use cards::text::plain;
pub use client::api::Api;
use client::bot::Bot;
use client::people::People;
pub use commands::time::minutes as typed_minutes;
pub use inbound::router;
pub use trust::addresses::Addresses;
use trust::forgery::Forgeries;
use trust::seal::Seals;
use trust::trigger::ServerKey;
use trust::who::Rules;

pub const COMMAND: &str = "/mattermost/command";
pub const ACTION: &str = "/mattermost/action";
pub const DIALOG: &str = "/mattermost/dialog";

/// For one call to Mattermost while a user waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of the routes.
pub struct Mattermost {
    app: Arc<HttpState>,
    people: People,
    bot: Bot,
    cards: Arc<Cards>,
    server_key: ServerKey,
    seals: Seals,
    forgeries: Forgeries,
    names: Names,
    rules: Rules,
    team_id: String,
    dialog_url: String,
    default_set_is_configured: bool,
}

impl Mattermost {
    pub fn new(
        app: Arc<HttpState>,
        config: config::MattermostConfig,
        bot_token: CurrentSecret,
        names: Names,
        cards: Arc<Cards>,
    ) -> reqwest::Result<Self> {
        let clock = app.service.shared_clock();
        let api = Api::new(config.url, bot_token.clone(), CALL_TIMEOUT, clock)?;
        Ok(Self {
            app,
            people: People::new(api.clone()),
            bot: Bot::new(api.clone()),
            cards,
            server_key: ServerKey::new(api),
            seals: Seals::of(bot_token),
            forgeries: Forgeries::default(),
            names,
            rules: Rules {
                email_domain: config.email_domain,
            },
            team_id: config.team_id,
            dialog_url: at(&config.public_url, DIALOG),
            default_set_is_configured: config.default_set_is_configured,
        })
    }

    fn clock(&self) -> &dyn Clock {
        self.app.service.clock()
    }
}

/// The address of a path on a server.
fn at(server: &Url, path: &str) -> String {
    format!("{}{path}", server.as_str().trim_end_matches('/'))
}

/// The answer that a user sees.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Text(String),
    /// The errors of a dialog, by field.
    Wrong(BTreeMap<&'static str, String>),
}

/// Why a command has no normal answer.
enum No {
    /// A message for the person, ready to show.
    Message(String),
    /// jit has processed the same click already.
    Taken,
    Problem(Problem),
}

impl No {
    fn into_answer(self) -> Answer {
        Answer::Text(match self {
            Self::Message(why) => format!(":warning: {why}"),
            Self::Taken => "jit has processed this already.".into(),
            // `Problem` decides which part of a failure a caller may see.
            Self::Problem(problem) => format!(":warning: {}", plain(&problem.message)),
        })
    }
}

impl From<ServiceError> for No {
    fn from(error: ServiceError) -> Self {
        if let Some(message) = in_chat(&error) {
            return Self::Message(message);
        }
        match error {
            ServiceError::Store(StoreError::Replayed) => Self::Taken,
            error => Self::Problem(error.into()),
        }
    }
}

impl From<StoreError> for No {
    fn from(error: StoreError) -> Self {
        ServiceError::from(error).into()
    }
}
