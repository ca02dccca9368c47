//! Mattermost itself, without a plugin: a slash command comes in, and a bot looks up who
//! typed it. The rules are the engine's; here is only who is who, and what is said back.
//!
//! Only the command's token says that Mattermost is calling, and only `user_id` says for
//! whom: names, addresses and texts are the user's own to change.

mod answer;
pub mod api;
mod card;
mod client;
pub mod setup;
mod slash;
mod text;
mod who;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;

use crate::config;
use crate::http::App;
use crate::http::reply::{Problem, json as reply};
use crate::http::signed::{Unsigned, read, refused};
pub use card::Cards;
use client::Client;
use slash::{Form, Slash};

pub const COMMAND: &str = "/mattermost/command";

/// What a command comes to.
pub struct Mattermost {
    app: Arc<App>,
    client: Client,
    rules: who::Rules,
    team_id: String,
}

impl Mattermost {
    pub fn new(app: Arc<App>, config: config::Mattermost) -> reqwest::Result<Self> {
        Ok(Self {
            app,
            client: Client::new(config.url, config.bot_token)?,
            rules: who::Rules {
                admins: config.admins,
                email_domain: config.email_domain,
            },
            team_id: config.team_id,
        })
    }
}

pub fn router(mattermost: Arc<Mattermost>) -> Router {
    Router::new()
        .route(COMMAND, post(command))
        .with_state(mattermost)
}

/// Anything but 200 is shown to the user as a failure: only who is not Mattermost gets it.
async fn command(
    State(mattermost): State<Arc<Mattermost>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = read(&headers, body).await?;
    let form = Form::read(&body);
    let keyring = &mattermost.app.keyring;
    if !slash::tokens(&headers, &form).any(|token| keyring.is_command_token(token)) {
        return Err(refused(Unsigned::Token, COMMAND));
    }
    let Some(slash) = Slash::of(&form) else {
        return Err(Problem::malformed(
            "this is no slash command of Mattermost's",
        ));
    };
    // Whoever makes a team of their own makes a command of their own, and its token.
    if slash.team_id != mattermost.team_id {
        return Err(refused(Unsigned::Team, COMMAND));
    }
    let said = mattermost.answer(&slash).await;
    // Never in_channel: such a post is the requester's own, to be changed at will.
    let told = json!({"response_type": "ephemeral", "text": said, "skip_slack_parsing": true});
    Ok(reply(200, &told).into_response())
}
