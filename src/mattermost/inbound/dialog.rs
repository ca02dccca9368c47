//! Submitted dialogs: requests, and reasons of denials and revokes. The user can change everything that comes back with a dialog: jit
//! accepts what its seal covers, and checks every other field like a typed word.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::Fields;
use crate::domain::{ChannelId, Draft, Minutes, MmUserId, RequestId};
use crate::http::body::read;
use crate::http::limits::{BodyOf, SeatFor};
use crate::http::reply::{Problem, json as reply};
use crate::http::unsigned::Unsigned;
use crate::mattermost::cards::text::{short_id, unmarked};
use crate::mattermost::trust::seal::{Broken, DialogState as Sealed, ReasonedStep};
use crate::mattermost::{Answer, DIALOG, Mattermost, No};
use crate::service::{Idempotency, OpenedOrFound};

#[derive(Clone, Debug, Deserialize)]
struct Submission {
    user_id: MmUserId,
    channel_id: ChannelId,
    team_id: String,
    state: String,
    submission: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    cancelled: bool,
}

pub(super) async fn dialog(
    State(mattermost): State<Arc<Mattermost>>,
    request: Request,
) -> Result<Response, Problem> {
    let begun = mattermost.clock().uptime();
    let bodies = mattermost.app.bodies.of(BodyOf::Chat);
    let (_, body) = read(bodies, request).await?;
    let claim: Value = serde_json::from_slice(&body).unwrap_or_default();
    let forged = |why| Err(mattermost.forged(why, DIALOG, &claim));
    let Ok(sent) = serde_json::from_value::<Submission>(claim.clone()) else {
        return forged(Unsigned::Dialog);
    };
    if sent.team_id != mattermost.team_id {
        return forged(Unsigned::Team);
    }
    let Ok(state) = serde_json::from_str::<Sealed>(&sent.state) else {
        return forged(Unsigned::Dialog);
    };
    let (user, channel, now) = (&sent.user_id, &sent.channel_id, mattermost.clock().now());
    match mattermost.seals.submitted(&state, user, channel, now) {
        Ok(()) => {}
        Err(Broken::Seal) => return forged(Unsigned::Dialog),
        Err(Broken::Earlier) => {
            let why = "the token of jit's bot was replaced while this dialog was open";
            return Ok(reply(200, &json!({"error": unmarked(&again(why, &state))})));
        }
        Err(Broken::Late) => {
            let why = "this dialog is older than 30 minutes";
            return Ok(reply(200, &json!({"error": unmarked(&again(why, &state))})));
        }
    }
    let Some(fields) = sent.submission.filter(|_| !sent.cancelled) else {
        return Ok(reply(200, &json!({})));
    };
    let (user, channel) = (sent.user_id, sent.channel_id);
    let seat_for = match &state.reason_of {
        Some(of) if of.step == ReasonedStep::Revoke => SeatFor::Revoke,
        Some(_) | None => SeatFor::OtherCall,
    };
    let work = {
        let (mattermost, user) = (mattermost.clone(), user.clone());
        async move {
            let done = match &state.reason_of {
                Some(of) => mattermost.act_with_reason(&user, of, &fields).await,
                None => {
                    let done = mattermost.submit(&user, channel, &state.once, &fields);
                    done.await
                }
            };
            done.unwrap_or_else(No::into_answer)
        }
    };
    let done = mattermost.in_time(begun, user, seat_for, work);
    Ok(match done.await {
        // The card shows the result.
        Answer::Nothing => reply(200, &json!({})),
        Answer::Text(error) => reply(200, &json!({"error": unmarked(&error)})),
        Answer::Wrong(errors) => reply(200, &json!({"errors": errors})),
    })
}

/// Why the dialog changed nothing, and how to open another.
fn again(why: &str, state: &Sealed) -> String {
    let next = match &state.reason_of {
        Some(of) => format!(
            "nothing was changed: press the button on the card again, or type `/jit {} {} REASON`",
            of.step.word(),
            short_id(of.request_id)
        ),
        None => "type /jit request again".to_owned(),
    };
    format!("{why}; {next}")
}

impl Mattermost {
    async fn submit(
        &self,
        user: &MmUserId,
        channel_id: ChannelId,
        once: &str,
        fields: &BTreeMap<String, Value>,
    ) -> Result<Answer, No> {
        let who = self.who(user).await?;
        let mut form = Fields::of(fields);
        let account_id = form.needed("account");
        let permission_set = form.one("permission_set");
        let duration = form
            .needed("minutes")
            .map(|minutes: i64| Minutes::new(minutes));
        let (reason, jira) = (form.one("reason"), form.one("ticket"));
        let mut wrong = form.wrong;
        let duration = match duration.transpose() {
            Ok(duration) => duration,
            Err(why) => {
                wrong.insert("minutes", why.to_string());
                None
            }
        };
        let (Some(account_id), Some(duration), true) = (account_id, duration, wrong.is_empty())
        else {
            return Ok(Answer::Wrong(wrong));
        };
        let service = &self.app.service;
        if permission_set.is_none()
            && let Some(binding) = service.binding(&account_id).await?
            && self.assumed_set(&binding).is_err()
        {
            let why = "choose one".to_owned();
            return Ok(Answer::Wrong([("permission_set", why)].into()));
        }
        let draft = Draft {
            id: RequestId::from_uuid(self.clock().draw_in_order()),
            account_id,
            channel_id,
            requester: who.person,
            reason,
            jira,
            duration,
            permission_set,
            start_at: None,
        };
        let once = Idempotency::of_chat(once, json!(fields).to_string());
        Ok(match service.open_or_find(draft, once).await? {
            OpenedOrFound::Opened(_) => Answer::Nothing,
            OpenedOrFound::Found(pending) => Answer::Text(self.already_pending(&pending).await),
        })
    }
}
