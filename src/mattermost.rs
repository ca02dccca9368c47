//! Mattermost itself, without a plugin: a slash command, buttons and a dialog come in, and
//! a bot looks up who it was and keeps a card. The rules are the engine's; here is only who
//! is who, what is believed, and what is said back.
//!
//! Only the command brings a secret. A click and a dialog bring a seal of jit's own, and a
//! click what Mattermost signed of it. Whose they are says `user_id` alone: names, addresses
//! and texts are the user's own to change.

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

/// Of one call to Mattermost that somebody waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Mattermost's users get impatient after three seconds: what takes longer goes on, and is
/// told in a message of the bot's.
const ANSWER_WITHIN: Millis = Millis(2_600);

/// What comes in comes here.
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

/// What somebody gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Told(String),
    /// What is wrong with a dialog, field by field.
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

    /// To its end, whoever waits: what is not done in time is told later, to that user.
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
                Answer::Told(":warning: jit failed to carry this out; see its log".into())
            }),
            () = SystemClock.wait_until(begun + ANSWER_WITHIN) => Answer::Told(
                "This takes longer than usual. It goes on, and what comes of it is sent to you.".into(),
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
            tracing::error!(%user, %why, "what came of a command could not be told");
        }
    }
}

/// A path of a server's, wherever the server is.
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

/// Anything but 200 is shown to the user as a failure: only who is not Mattermost gets it.
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
            "this is no slash command of Mattermost's",
        ));
    };
    // Whoever makes a team of their own makes a command of their own, and its token.
    if slash.team_id != mattermost.team_id {
        return Err(Problem::unsigned(Unsigned::Team, COMMAND));
    }
    let work = {
        let (mattermost, slash) = (mattermost.clone(), slash.clone());
        async move { mattermost.answer(&slash).await }
    };
    Ok(match mattermost.in_time(begun, slash.user_id, work).await {
        // Never in_channel: such a post is the requester's own, to be changed at will.
        Answer::Told(text) => reply(
            200,
            &json!({"response_type": "ephemeral", "text": text, "skip_slack_parsing": true}),
        ),
        Answer::Nothing | Answer::Wrong(_) => reply(200, &json!({})),
    })
}
