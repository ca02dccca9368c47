//! Requests from a dialog. The user can change everything that comes back with a dialog: jit
//! accepts what its seal covers, and checks every other field like a typed word.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::No;
use super::seal::{Broken, DialogState as Sealed};
use super::slash::Slash;
use super::{Answer, DIALOG, Mattermost};
use crate::clock::{Clock, SystemClock};
use crate::domain::{
    Binding, ChannelId, Draft, Millis, Minutes, MmUserId, PermissionSet, RequestId,
};
use crate::http::body::read;
use crate::http::reply::{Problem, json as reply};
use crate::http::unsigned::Unsigned;
use crate::service::Idempotency;

/// How long a dialog is valid.
const OPEN_FOR: Millis = Millis::minutes(30);
const TIMES: [u32; 9] = [15, 30, 60, 120, 240, 480, 720, 1440, 2880];
const AN_HOUR: u32 = 60;

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
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let begun = SystemClock.now();
    let body = read(&headers, body).await?;
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
    let (user, channel, now) = (&sent.user_id, &sent.channel_id, SystemClock.now());
    match mattermost.seals.submitted(&state, user, channel, now) {
        Ok(()) => {}
        Err(Broken::Seal) => return forged(Unsigned::Dialog),
        Err(Broken::Late) => {
            let why = "this dialog is older than 30 minutes; type /jit request again";
            return Ok(reply(200, &json!({"error": why})));
        }
    }
    let Some(fields) = sent.submission.filter(|_| !sent.cancelled) else {
        return Ok(reply(200, &json!({})));
    };
    let (user, channel) = (sent.user_id, sent.channel_id);
    let work = {
        let (mattermost, user) = (mattermost.clone(), user.clone());
        async move {
            let done = mattermost.submit(&user, channel, &state.once, &fields);
            done.await.unwrap_or_else(No::told)
        }
    };
    Ok(match mattermost.in_time(begun, user, work).await {
        // The card shows the result.
        Answer::Nothing => reply(200, &json!({})),
        Answer::Told(error) => reply(200, &json!({"error": error})),
        Answer::Wrong(errors) => reply(200, &json!({"errors": errors})),
    })
}

impl Mattermost {
    /// Within three seconds: after that, Mattermost does not open the dialog.
    pub(super) async fn open_dialog(&self, slash: &Slash) -> Result<Answer, No> {
        let bindings = self.app.service.bindings(&slash.channel_id).await?;
        if bindings.is_empty() {
            return Err(No::Told(super::answer::nothing_bound(slash.is_direct)));
        }
        let until = SystemClock.now() + OPEN_FOR;
        let once = SystemClock.draw().to_string();
        let state = self
            .seals
            .dialog(once, &slash.user_id, &slash.channel_id, until);
        let state = json!(state).to_string();
        let shown = self.shown(&bindings, &state);
        let opened = self
            .bot
            .open_dialog(&slash.trigger_id, &self.dialog_url, &shown);
        match opened.await {
            Ok(()) => Ok(Answer::Nothing),
            Err(why) => {
                tracing::warn!(%why, "jit could not open a dialog");
                Err(No::Told(
                    "the dialog could not be opened; type the request in one line: `/jit request 123456789012 admin 2h INC-42 db down`".into(),
                ))
            }
        }
    }

    fn shown(&self, bindings: &[Binding], state: &str) -> Value {
        let policy = self.app.service.policy();
        let option = |text: String, value: String| json!({"text": text, "value": value});
        let accounts = bindings.iter().map(|binding| {
            let id = &binding.account_id;
            option(self.names.label(id), id.to_string())
        });
        let is_had = |set: &&PermissionSet| bindings.iter().any(|binding| binding.allows(set));
        let sets = policy.permission_sets.keys().filter(is_had);
        let sets: Vec<&PermissionSet> = sets.collect();
        let default = sets
            .iter()
            .find(|set| ***set == policy.default_permission_set)
            .or_else(|| sets.first());
        let longest = bindings.iter().map(|binding| policy.longest(binding)).max();
        let longest = longest.unwrap_or(1).saturating_mul(60);
        let times = TIMES.iter().filter(|minutes| **minutes <= longest);
        let select = |name: &str, title: &str, options: Vec<Value>, default: String| {
            json!({
                "type": "select", "name": name, "display_name": title,
                "options": options, "default": default,
            })
        };
        let only = match bindings {
            [one] => one.account_id.to_string(),
            _ => String::new(),
        };
        json!({
            "callback_id": "jit_request",
            "title": "Request AWS access",
            "submit_label": "Request",
            "notify_on_cancel": false,
            "state": state,
            "elements": [
                select("account", "Account", accounts.collect(), only),
                select(
                    "permission_set",
                    "Permission set",
                    sets.iter().map(|set| option(set.to_string(), set.to_string())).collect(),
                    default.map_or_else(String::new, ToString::to_string),
                ),
                select(
                    "minutes",
                    "Duration",
                    times.map(|minutes| option(time_of(*minutes), minutes.to_string())).collect(),
                    AN_HOUR.to_string(),
                ),
                {"type": "textarea", "name": "reason", "display_name": "Reason", "max_length": 1000},
                {
                    "type": "text", "name": "ticket", "display_name": "Ticket", "optional": true,
                    "max_length": 100, "placeholder": "INC-42",
                },
            ],
        })
    }

    async fn submit(
        &self,
        user: &MmUserId,
        channel_id: ChannelId,
        once: &str,
        fields: &BTreeMap<String, Value>,
    ) -> Result<Answer, No> {
        let who = self.who(user).await?;
        let mut form = Fields {
            fields,
            wrong: BTreeMap::new(),
        };
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
        let draft = Draft {
            id: RequestId::from_uuid(self.app.service.clock().draw_in_order()),
            account_id,
            channel_id,
            requester: who.person,
            reason,
            jira,
            duration,
            permission_set,
            start_at: None,
        };
        let once = Idempotency {
            key: format!("mattermost:{once}"),
            fingerprint: json!(fields).to_string(),
        };
        self.open(draft, once).await?;
        Ok(Answer::Nothing)
    }
}

/// The fields of the form; clients send texts or numbers.
struct Fields<'f> {
    fields: &'f BTreeMap<String, Value>,
    wrong: BTreeMap<&'static str, String>,
}

impl Fields<'_> {
    fn one<T: std::str::FromStr<Err: ToString>>(&mut self, name: &'static str) -> Option<T> {
        let text = match self.fields.get(name) {
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return None,
        };
        if text.is_empty() {
            return None;
        }
        match text.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong.insert(name, why.to_string());
                None
            }
        }
    }

    fn needed<T: std::str::FromStr<Err: ToString>>(&mut self, name: &'static str) -> Option<T> {
        let value = self.one(name);
        if value.is_none() && !self.wrong.contains_key(name) {
            self.wrong.insert(name, "is required".into());
        }
        value
    }
}

fn time_of(minutes: u32) -> String {
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} minutes"),
        (1, 0) => "1 hour".into(),
        (hours, _) => format!("{hours} hours"),
    }
}
