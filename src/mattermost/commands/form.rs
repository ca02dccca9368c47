//! The dialog that `/jit request` opens: the accounts, permission sets and times of the channel.

use serde_json::{Value, json};

use super::bindings::nothing_bound;
use super::slash::Slash;
use crate::domain::limits::MOST_ACCOUNTS;
use crate::domain::{Binding, Millis, PermissionSet};
use crate::mattermost::cards::text::{counted, counted_minutes};
use crate::mattermost::{Answer, Mattermost, No};

/// How long a dialog is valid.
pub(in crate::mattermost) const OPEN_FOR: Millis = Millis::minutes(30);
const TIMES: [u32; 9] = [15, 30, 60, 120, 240, 480, 720, 1440, 2880];
const AN_HOUR: u32 = 60;

impl Mattermost {
    /// Within three seconds: after that, Mattermost does not open the dialog.
    pub(super) async fn open_dialog(&self, slash: &Slash) -> Result<Answer, No> {
        let (service, channel) = (&self.app.service, &slash.channel_id);
        let bindings = service.bindings(channel, None, MOST_ACCOUNTS).await?;
        if bindings.is_empty() {
            return Err(No::Message(nothing_bound(slash.is_direct)));
        }
        let until = self.clock().now() + OPEN_FOR;
        let once = self.clock().draw().to_string();
        let state = self
            .seals
            .dialog(once, &slash.user_id, &slash.channel_id, until, None);
        let state = json!(state).to_string();
        let shown = self.shown(&bindings, &state);
        let opened = self
            .bot
            .open_dialog(&slash.trigger_id, &self.dialog_url, &shown);
        match opened.await {
            Ok(()) => Ok(Answer::Nothing),
            Err(why) => {
                tracing::warn!(
                    user_id = %slash.user_id, channel = %slash.channel_id, error = %why,
                    "dialog not opened; the user can type the request"
                );
                Err(No::Message(
                    "the dialog could not be opened; type the request in one line: `/jit request 123456789012 admin 2h INC-42 db down`".into(),
                ))
            }
        }
    }

    /// The set that the dialog selects at first; jit does not choose between several.
    fn selected<'s>(&self, sets: &[&'s PermissionSet]) -> Option<&'s PermissionSet> {
        let default = &self.app.service.policy().default_permission_set;
        match sets {
            [only] => Some(only),
            _ if self.default_set_is_configured => sets.iter().copied().find(|set| *set == default),
            _ => None,
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
        let default = self.selected(&sets);
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
}

fn time_of(minutes: u32) -> String {
    match (minutes / 60, minutes % 60) {
        (0, minutes) => counted_minutes(minutes),
        (hours, _) => counted(hours, "hour"),
    }
}
