//! Mattermost without a plugin: jit receives slash commands, clicks and dialogs, and a bot
//! looks up users and posts cards. The domain has the rules; this module identifies the
//! person, checks what comes in, and writes the answer.
//!
//! Only a slash command carries a secret. A click and a dialog carry a seal that jit made,
//! and a click also carries a signature of Mattermost. Only `user_id` identifies the person:
//! users can change names, addresses and texts.

mod answer;
pub mod api;
mod bot;
mod card;
mod click;
mod dialog;
mod find;
mod forgery;
mod history;
mod names;
mod people;
mod seal;
pub mod setup;
mod slash;
mod tell;
mod text;
mod trigger;
mod who;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use reqwest::Url;
use serde_json::json;
use tokio::sync::oneshot;

use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::domain::{Millis, MmUserId, Timestamp};
use crate::http::HttpState;
use crate::http::body::read;
use crate::http::reply::{Problem, json as reply};
use crate::http::unsigned::Unsigned;
use api::Api;
use bot::Bot;
use forgery::Forgeries;
pub use names::Names;
use people::People;
use seal::Seals;
use slash::{Form, Slash};
pub use tell::Cards;
use trigger::ServerKey;

pub const COMMAND: &str = "/mattermost/command";
pub const ACTION: &str = "/mattermost/action";
pub const DIALOG: &str = "/mattermost/dialog";

/// For one call to Mattermost while a user waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// Mattermost shows a failure after three seconds: work that takes longer continues, and the
/// bot sends the result.
const ANSWER_WITHIN: Millis = Millis(2_600);

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
    rules: who::Rules,
    team_id: String,
    dialog_url: String,
}

/// The answer that a user sees.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Told(String),
    /// The errors of a dialog, by field.
    Wrong(BTreeMap<&'static str, String>),
}

impl Mattermost {
    pub fn new(
        app: Arc<HttpState>,
        config: config::MattermostConfig,
        names: Names,
        cards: Arc<Cards>,
    ) -> reqwest::Result<Self> {
        let api = Api::new(config.url, config.bot_token.clone(), PATIENCE)?;
        Ok(Self {
            app,
            people: People::new(api.clone()),
            bot: Bot::new(api.clone()),
            cards,
            server_key: ServerKey::new(api),
            seals: Seals::of(&config.bot_token),
            forgeries: Forgeries::default(),
            names,
            rules: who::Rules {
                admins: config.admins,
                email_domain: config.email_domain,
            },
            team_id: config.team_id,
            dialog_url: at(&config.public_url, DIALOG),
        })
    }

    /// Runs the work to its end. If it takes too long, the bot sends the result to the user.
    async fn in_time(
        self: &Arc<Self>,
        begun: Timestamp,
        user: MmUserId,
        work: impl Future<Output = Answer> + Send + 'static,
    ) -> Answer {
        let (tell, told) = oneshot::channel();
        let mattermost = self.clone();
        self.app.tasks.spawn(async move {
            if let Err(late) = tell.send(work.await) {
                mattermost.tell_later(&user, late).await;
            }
        });
        tokio::select! {
            biased;
            told = told => told.unwrap_or_else(|_| {
                Answer::Told(":warning: jit could not carry out the command because of an internal error; ask an operator to read the log of jit".into())
            }),
            () = SystemClock.wait_until(begun + ANSWER_WITHIN) => Answer::Told(
                "This takes longer than usual. jit continues, and sends you the result in a direct message.".into(),
            ),
        }
    }

    async fn tell_later(&self, user: &MmUserId, answer: Answer) {
        let message = match answer {
            Answer::Nothing => return,
            Answer::Told(message) => message,
            Answer::Wrong(fields) => fields.into_values().collect::<Vec<_>>().join("\n"),
        };
        let once = SystemClock.draw().to_string();
        if let Err(why) = self.bot.send(user, &message, &once).await {
            tracing::error!(%user, %why, "jit could not send the result of a command");
        }
    }
}

/// The address of a path on a server.
fn at(server: &Url, path: &str) -> String {
    format!("{}{path}", server.as_str().trim_end_matches('/'))
}

pub fn router(mattermost: Arc<Mattermost>) -> Router {
    Router::new()
        .route(COMMAND, post(command))
        .route(ACTION, post(click::action))
        .route(DIALOG, post(dialog::dialog))
        .with_state(mattermost)
}

/// Mattermost shows every status except 200 as a failure: jit sends it only to other callers.
async fn command(
    State(mattermost): State<Arc<Mattermost>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let begun = SystemClock.now();
    let body = read(&headers, body).await?;
    let form = Form::read(&body);
    let keyring = &mattermost.app.keyring;
    if !slash::tokens(&headers, &form).any(|token| keyring.is_command_token(token)) {
        return Err(Problem::unsigned(Unsigned::Token, COMMAND));
    }
    let Some(slash) = Slash::of(&form) else {
        return Err(Problem::malformed(
            "this is not a slash command of Mattermost",
        ));
    };
    // The admin of another team can make a command with its own token.
    if slash.team_id != mattermost.team_id {
        return Err(Problem::unsigned(Unsigned::Team, COMMAND));
    }
    let work = {
        let (mattermost, slash) = (mattermost.clone(), slash.clone());
        async move { mattermost.answer(&slash).await }
    };
    Ok(match mattermost.in_time(begun, slash.user_id, work).await {
        // Never in_channel: the requester could edit such a post.
        Answer::Told(text) => reply(
            200,
            &json!({"response_type": "ephemeral", "text": text, "skip_slack_parsing": true}),
        ),
        Answer::Nothing | Answer::Wrong(_) => reply(200, &json!({})),
    })
}
