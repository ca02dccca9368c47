//! Clicks on buttons. Mattermost sends no secret with a click, and every user can post a card
//! with a button that sends any content to jit when a person presses it. jit accepts a click
//! only if Mattermost signed that this user acted within the last minute, and if jit made the
//! button for that post, and if the post is the card or the reminder of the request.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::{Ask, ChannelId, Millis, MmUserId, PostId, Request, RequestId};
use crate::http::body::read;
use crate::http::limits::{BodyOf, SeatFor};
use crate::http::reply::{Problem, json as reply};
use crate::http::unsigned::Unsigned;
use crate::mattermost::cards::subject::seen;
use crate::mattermost::cards::text::{counted_minutes, short_id};
use crate::mattermost::commands::requests::ShownDecision;
use crate::mattermost::trust::seal::{Action, Broken, ClickContext, ReasonedStep};
use crate::mattermost::trust::trigger::Trigger;
use crate::mattermost::{ACTION, Answer, Mattermost, No};
use crate::service::{CallRight, ServiceError};
use crate::store::{Nonce, StoreError};

const STALE: &str = ":warning: This click is too old; nothing was changed. If you pressed the button just now, the clocks of Mattermost and jit differ: tell an operator.";
const LATE: &str = ":warning: This button is out of date; nothing was changed. `/jit list` shows the open requests.";
const UNSURE: &str = ":warning: jit cannot ask Mattermost whether this click is genuine; nothing was changed. Press again, or type `/jit help` for the commands.";
const NOT_OURS: &str = ":warning: jit did not make this card; nothing was changed. Tell your security team who posted it.";
const OTHER_TEAM: &str = ":warning: This click came from a team that jit does not serve; nothing was changed. Press the button in the channel of the request.";
const RENEWED: &str = ":warning: This card was changed, or its buttons are from an earlier bot token; nothing was changed. jit has renewed the card: read it, and press again.";

/// Longer than jit accepts a click.
const CLICK_KEPT: Millis = Millis::minutes(16);

/// The fields that jit uses; the user can choose all others.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Click {
    pub user_id: MmUserId,
    pub channel_id: ChannelId,
    /// Empty in a direct message, which has no team.
    #[serde(default)]
    team_id: String,
    post_id: PostId,
    pub trigger_id: String,
    /// Absent if the button has none; a user can post such a button.
    #[serde(default)]
    context: Value,
}

/// Why jit does not accept a click.
#[derive(Debug)]
enum ClickFault {
    /// Mattermost signed no such click: the sender gets an error.
    Forged(Unsigned),
    /// A user pressed the button more than a minute ago.
    Stale,
    /// A user pressed a button that jit did not make, or that was changed.
    Card,
    /// A user pressed a button in a team that jit does not serve.
    Team,
    /// The seal names another key than the current one: jit made the button with an earlier
    /// token of its bot, or the button is forged.
    OtherKey,
    /// The button has expired.
    Late,
    Unsure,
}

/// A click that jit accepts.
struct Pressed {
    request_id: RequestId,
    action: Action,
    /// The subject of the button, as its seal says.
    subject: Option<String>,
    trigger: Trigger,
}

pub(super) async fn action(
    State(mattermost): State<Arc<Mattermost>>,
    request: axum::extract::Request,
) -> Result<Response, Problem> {
    let begun = mattermost.clock().uptime();
    let bodies = mattermost.app.bodies.of(BodyOf::Chat);
    let (_, body) = read(bodies, request).await?;
    let claim: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Ok(click) = serde_json::from_value::<Click>(claim.clone()) else {
        return Err(mattermost.forged(Unsigned::Card, ACTION, &claim));
    };
    let told = |text: &str| reply(200, &json!({"ephemeral_text": text}));
    let verified = match mattermost.verified(&click).await {
        // A user pressed a button on the recorded post, with the recorded key: no forgery.
        Err(ClickFault::OtherKey) if !mattermost.is_recorded(&click).await => Err(ClickFault::Card),
        verified => verified,
    };
    match &verified {
        Ok(_) | Err(ClickFault::OtherKey) => {}
        Err(ClickFault::Forged(why)) => return Err(mattermost.forged(*why, ACTION, &claim)),
        Err(ClickFault::Card) => {
            mattermost.forged_by_user(&click.user_id, Unsigned::Card, ACTION, &claim);
        }
        Err(ClickFault::Team) => {
            mattermost.forged_by_user(&click.user_id, Unsigned::Team, ACTION, &claim);
            return Ok(told(OTHER_TEAM));
        }
        Err(ClickFault::Stale) => {
            mattermost.forged_by_user(&click.user_id, Unsigned::Stale, ACTION, &claim);
            return Ok(told(STALE));
        }
        Err(ClickFault::Late) => return Ok(told(LATE)),
        Err(ClickFault::Unsure) => return Ok(told(UNSURE)),
    }
    let seat_for = match &verified {
        Ok(Pressed {
            action: Action::Revoke | Action::RevokeWithReason,
            ..
        }) => SeatFor::Revoke,
        Ok(_) | Err(_) => SeatFor::OtherCall,
    };
    let user = click.user_id.clone();
    let work = {
        let mattermost = mattermost.clone();
        async move {
            match verified {
                Ok(pressed) => mattermost.press(&click, &claim, &pressed).await,
                Err(_) => mattermost.renew(&click).await,
            }
        }
    };
    Ok(
        match mattermost.in_time(begun, user, seat_for, work).await {
            Answer::Text(text) => told(&text),
            Answer::Nothing | Answer::Wrong(_) => reply(200, &json!({})),
        },
    )
}

impl Mattermost {
    async fn verified(&self, click: &Click) -> Result<Pressed, ClickFault> {
        let trigger = Trigger::read(&click.trigger_id);
        let trigger = trigger.filter(|trigger| trigger.user == click.user_id.as_str());
        let trigger = trigger.ok_or(ClickFault::Forged(Unsigned::Trigger))?;
        match self.server_key.has_signed(&trigger).await {
            Ok(true) => {}
            Ok(false) => return Err(ClickFault::Forged(Unsigned::Trigger)),
            Err(error) => {
                tracing::error!(
                    user_id = %click.user_id, %error,
                    "click not verified, Mattermost did not answer; the user must press again"
                );
                return Err(ClickFault::Unsure);
            }
        }
        let now = self.clock().now();
        if !trigger.is_fresh(now) {
            return Err(ClickFault::Stale);
        }
        if !click.team_id.is_empty() && click.team_id != self.team_id {
            return Err(ClickFault::Team);
        }
        let context = serde_json::from_value::<ClickContext>(click.context.clone());
        let context = context.map_err(|_| ClickFault::Card)?;
        match self
            .seals
            .pressed(&context, &click.channel_id, &click.post_id, now)
        {
            Ok(action) => Ok(Pressed {
                request_id: context.request_id,
                action,
                subject: context.subject,
                trigger,
            }),
            Err(Broken::Seal | Broken::Earlier) if self.seals.is_of_another_key(&context) => {
                Err(ClickFault::OtherKey)
            }
            Err(Broken::Seal | Broken::Earlier) => Err(ClickFault::Card),
            Err(Broken::Late) => Err(ClickFault::Late),
        }
    }

    /// The request that the context of a click names, if there is one.
    async fn request_of(&self, click: &Click) -> Option<Request> {
        let id = click.context["request_id"].as_str()?;
        self.app.service.request(id.parse().ok()?).await.ok()
    }

    /// Whether the post of the click is the card or the reminder of its request, and its key is the
    /// one of the last buttons that jit made for the request. A button of an earlier version of jit
    /// names no key, and the record of its request has none.
    async fn is_recorded(&self, click: &Click) -> bool {
        let named = click.context["key"].as_str().unwrap_or_default();
        let request = self.request_of(click).await;
        request.is_some_and(|request| {
            let is_its_key = named == request.chat.button_key.as_deref().unwrap_or_default();
            let is_its_card = request.chat.card.as_ref() == Some(&click.post_id);
            is_its_key && (is_its_card || is_its_reminder(&request, &click.post_id))
        })
    }

    /// Renews a card of the bot: a system admin may have changed it, or the seals of its
    /// buttons are from an earlier token of the bot.
    async fn renew(&self, click: &Click) -> Answer {
        let Some(request) = self.request_of(click).await else {
            return Answer::Text(NOT_OURS.into());
        };
        if is_its_reminder(&request, &click.post_id) {
            return Answer::Text(LATE.into());
        }
        if request.chat.card.as_ref() != Some(&click.post_id) {
            return Answer::Text(NOT_OURS.into());
        }
        let id = request.id;
        match self.renew_as_it_is(request).await {
            Ok(()) => Answer::Text(RENEWED.into()),
            Err(why) => {
                tracing::error!(
                    request_id = %id, post = %click.post_id, error = %why,
                    "card not renewed; the next click tries again"
                );
                Answer::Text(UNSURE.into())
            }
        }
    }

    /// The notice worker writes cards as well: jit must not overwrite a newer card with an older one.
    async fn renew_as_it_is(&self, mut request: Request) -> Result<(), String> {
        loop {
            let card = request
                .chat
                .card
                .as_ref()
                .ok_or("the request has no card")?;
            let renewed = self.cards.renew(&request, card).await;
            renewed.map_err(|why| why.to_string())?;
            let now = self.app.service.request(request.id).await;
            let now = now.map_err(|why| why.to_string())?;
            if now.version.chain == request.version.chain {
                return Ok(());
            }
            request = now;
        }
    }

    async fn press(self: &Arc<Self>, click: &Click, claim: &Value, pressed: &Pressed) -> Answer {
        let now = self.clock().now();
        let nonce = Nonce {
            text: format!("mattermost:{}", pressed.trigger.id),
            at: now,
            keep_until: now + CLICK_KEPT,
        };
        let right = Arc::new(CallRight::new(nonce, None));
        let done = self.act(click, pressed, &right).await;
        // jit does not accept this click again, for any result.
        let spent = self.app.service.use_up(&right).await;
        match (done, spent) {
            (Err(No::Taken), _) | (_, Err(ServiceError::Store(StoreError::Replayed))) => {
                self.forged_by_user(&click.user_id, Unsigned::Replayed, ACTION, claim);
                Answer::Text("jit has processed this click already.".into())
            }
            (done, Err(error)) => {
                tracing::error!(
                    request_id = %pressed.request_id, %error,
                    "click not marked as used; jit refuses it after a minute by its age"
                );
                done.unwrap_or_else(No::into_answer)
            }
            (done, Ok(())) => done.unwrap_or_else(No::into_answer),
        }
    }

    async fn act(
        &self,
        click: &Click,
        pressed: &Pressed,
        right: &Arc<CallRight>,
    ) -> Result<Answer, No> {
        let who = self.who(&click.user_id).await?;
        let request = self.app.service.request(pressed.request_id).await?;
        if !is_its_post(&request, pressed.action, &click.post_id) {
            return Err(No::Message(
                "this post is not the card of the request any more; `/jit list` shows the open requests".into(),
            ));
        }
        let right = Some(right.clone());
        let ask = match pressed.action {
            Action::Approve => Ask::Approve,
            Action::Deny => Ask::Deny { reason: None },
            Action::Extend(minutes) => {
                let extend = Ask::Extend { minutes };
                self.command(request.id, &who, extend, right).await?;
                return Ok(Answer::Nothing);
            }
            Action::Revoke => {
                let said = self.revoke_access(&who, &request, None, right).await?;
                return Ok(Answer::Text(said));
            }
            Action::DenyWithReason => {
                return self.ask_reason(click, &request, ReasonedStep::Deny).await;
            }
            Action::RevokeWithReason => {
                return self.ask_reason(click, &request, ReasonedStep::Revoke).await;
            }
        };
        let Some(shown) = seen(pressed.subject.as_deref()) else {
            return Err(self.unseen(request).await);
        };
        let decided = self.decide_on_shown(request.id, (&who, ask), shown, right);
        match decided.await? {
            // The card shows the result to the channel.
            ShownDecision::Done => Ok(Answer::Nothing),
            ShownDecision::OtherWaits(now) => Err(self.unseen(*now).await),
        }
    }
}

impl Mattermost {
    /// Refuses a button of a card that showed something else than what waits now, and renews the
    /// card: the update may wait in the outbox, or the user's client may show an old card.
    async fn unseen(&self, request: Request) -> No {
        let id = request.id;
        let waits = request.waiting_extension().map_or_else(
            || "the request".to_owned(),
            |extension| {
                let minutes = counted_minutes(extension.minutes.get());
                format!("an extension of {minutes}")
            },
        );
        let next = match self.renew_as_it_is(request).await {
            Ok(()) => "jit has renewed the card: read it, and press again".to_owned(),
            Err(why) => {
                tracing::error!(
                    request_id = %id, error = %why,
                    "card not renewed; the next click or the next notice tries again"
                );
                format!("`/jit status {}` shows it", short_id(id))
            }
        };
        No::Message(format!(
            "this button is from an earlier state of the card; nothing was changed. Now {waits} waits for a decision. {next}."
        ))
    }
}

/// The bot may have several posts about a request; only one is its card.
fn is_its_post(request: &Request, action: Action, post: &PostId) -> bool {
    match action {
        Action::Extend(_) => is_its_reminder(request, post),
        Action::Approve
        | Action::Deny
        | Action::DenyWithReason
        | Action::Revoke
        | Action::RevokeWithReason => request.chat.card.as_ref() == Some(post),
    }
}

fn is_its_reminder(request: &Request, post: &PostId) -> bool {
    let reminder = request.chat.reminder.as_ref();
    reminder.is_some_and(|reminder| reminder.post == *post)
}
