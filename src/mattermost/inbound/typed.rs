//! The route of the slash command, which only its token proves to be from Mattermost.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;

use crate::http::body::read;
use crate::http::limits::{BodyOf, SeatFor};
use crate::http::reply::{Problem, json as reply};
use crate::http::unsigned::Unsigned;
use crate::mattermost::commands::slash::{Form, Slash, tokens};
use crate::mattermost::{Answer, COMMAND, Mattermost};

/// Mattermost shows every status except 200 as a failure: jit sends it only to other callers.
pub(super) async fn command(
    State(mattermost): State<Arc<Mattermost>>,
    request: Request,
) -> Result<Response, Problem> {
    let begun = mattermost.clock().uptime();
    let bodies = mattermost.app.bodies.of(BodyOf::Chat);
    let (headers, body) = read(bodies, request).await?;
    let form = Form::read(&body);
    let keyring = &mattermost.app.keyring;
    if !tokens(&headers, &form).any(|token| keyring.is_command_token(token)) {
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
    // Never in_channel: the requester could edit such a post.
    let told = |text: &str| {
        let shown = json!({"response_type": "ephemeral", "text": text, "skip_slack_parsing": true});
        reply(200, &shown)
    };
    let seat_for = match slash.text.split_whitespace().next() {
        Some(word) if word.eq_ignore_ascii_case("revoke") => SeatFor::Revoke,
        Some(_) | None => SeatFor::OtherCall,
    };
    let work = {
        let (mattermost, slash) = (mattermost.clone(), slash.clone());
        async move { mattermost.answer(&slash).await }
    };
    Ok(
        match mattermost
            .in_time(begun, slash.user_id, seat_for, work)
            .await
        {
            Answer::Text(text) => told(&text),
            Answer::Nothing | Answer::Wrong(_) => reply(200, &json!({})),
        },
    )
}
