//! One card for each request, in its channel: posted by the bot, and kept as the request
//! is, through its whole life.
//!
//! Only the bot (and the system's admins) can change what the bot posted. Always the whole
//! card is sent: what is read back is less than what was posted.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::answer::short_id;
use super::api::{Api, ApiError};
use super::text::plain;
use crate::config;
use crate::domain::{Command, Notice, PostId, Request, RequestObject, Status, Timestamp};
use crate::service::Service;
use crate::worker::postman::{NotReceived, Receiver};

/// Well below the lease on a notice.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

pub struct Cards {
    service: Arc<Service>,
    bot: Api,
}

impl Cards {
    pub fn of(config: &config::Mattermost, service: Arc<Service>) -> reqwest::Result<Self> {
        let bot = Api::new(config.url.clone(), config.bot_token.clone(), PATIENCE)?;
        Ok(Self { service, bot })
    }

    async fn post(&self, request: &Request) -> Result<(), NotReceived> {
        // Nobody who guesses it first can have her own post taken for this one.
        let pending = format!("{}:jit", self.service.clock().draw());
        let post = json!({
            "channel_id": request.channel_id,
            "message": "",
            "props": card(request),
            "pending_post_id": pending,
        });
        let made = self
            .bot
            .post("posts", &post)
            .await
            .map_err(|why| not_received(&why))?;
        if made["channel_id"] != request.channel_id.as_str() {
            return Err(NotReceived(
                "another post was returned than the one that was made".into(),
            ));
        }
        let id = made["id"].as_str().and_then(|id| id.parse::<PostId>().ok());
        let post = id.ok_or_else(|| NotReceived("the post has no id".into()))?;
        let said = self
            .service
            .handle(request.id, Command::CardPosted { post })
            .await;
        said.map(drop)
            .map_err(|error| NotReceived(error.to_string()))
    }
}

#[async_trait]
impl Receiver for Cards {
    /// Whatever was news: the card becomes what the request is by now.
    async fn receive(&self, notice: &Notice, _now: Timestamp) -> Result<(), NotReceived> {
        let found = self.service.request(notice.request_id).await;
        let request = found.map_err(|error| NotReceived(error.to_string()))?;
        let Some(post) = &request.card else {
            return self.post(&request).await;
        };
        let changed = json!({"message": "", "props": card(&request)});
        match self.bot.put(&format!("posts/{post}/patch"), &changed).await {
            // Somebody deleted it: that is theirs to do, and no reason to try for a day.
            Err(ApiError::Forbidden(why) | ApiError::NotThere(why)) => {
                tracing::warn!(request = %request.id, %why, "a card is gone");
                Ok(())
            }
            changed => changed.map(drop).map_err(|why| not_received(&why)),
        }
    }
}

fn not_received(error: &ApiError) -> NotReceived {
    let next = match error {
        ApiError::Forbidden(_) => "; add the bot to the channel",
        ApiError::NotAllowed(_) => "; jit mattermost setup makes a new token",
        _ => "",
    };
    NotReceived(format!("{error}{next}"))
}

fn card(request: &Request) -> Value {
    let (status, shown) = (request.status(), RequestObject::from(request));
    let id = short_id(request.id);
    let (colour, next) = match status {
        Status::Pending => (
            "#f0a030",
            format!("Approvers: `/jit approve {id}` or `/jit deny {id} why`"),
        ),
        Status::Approved => ("#3070c0", "AWS is asked to give it.".to_owned()),
        Status::Granted if shown.assignment_status == Some("DELETING") => (
            "#c05020",
            "AWS is removing it; it is there until AWS shows that it is gone.".to_owned(),
        ),
        Status::Granted => ("#30a050", format!("To end it now: `/jit revoke {id}`")),
        Status::Revoked | Status::Expired => (
            "#808080",
            "Gone: AWS shows that it is no longer there.".to_owned(),
        ),
        Status::Denied | Status::Cancelled => ("#808080", "Nothing was given.".to_owned()),
        Status::Error => (
            "#c02020",
            "It ended in an error, and nothing of it is left.".to_owned(),
        ),
    };
    // Texts, all of them: a number would be shown as a fraction.
    let field = |title: &str, value: String| json!({"title": title, "value": value, "short": true});
    let mut fields = vec![
        field("Who", plain(request.requester_email().as_str())),
        field(
            "What",
            format!(
                "{} in `{}`",
                plain(request.permission_set.as_str()),
                request.account_id
            ),
        ),
        field("How long", how_long(request)),
    ];
    if let Some(by) = decided_by(request) {
        fields.push(field("Decided by", by));
    }
    if let Some(why) = &request.reason {
        fields.push(json!({"title": "Why", "value": plain(why.as_str()), "short": false}));
    }
    if let Some(by) = shown.revoked_by {
        fields.push(field("Revoked by", plain(by.as_str())));
    }
    for (title, words) in [
        ("Why not", shown.deny_reason),
        ("Why it was revoked", shown.revoke_reason),
        ("Trouble", shown.error_details),
    ] {
        if let Some(words) = words {
            fields.push(json!({"title": title, "value": plain(words.as_str()), "short": false}));
        }
    }
    json!({"attachments": [{
        "fallback": format!("{status}: {} in {}", request.permission_set, request.account_id),
        "color": colour,
        "title": format!("{status} · {id}"),
        "text": next,
        "fields": fields,
    }]})
}

fn how_long(request: &Request) -> String {
    match request.granted {
        Some(period) => format!("until {}", plain(&period.until.to_string())),
        None => format!("{} minutes", request.duration.get()),
    }
}

fn decided_by(request: &Request) -> Option<String> {
    let by: Vec<String> = request
        .approvals
        .iter()
        .map(|approval| plain(approval.by.email.as_str()))
        .collect();
    (!by.is_empty()).then(|| by.join(", "))
}
