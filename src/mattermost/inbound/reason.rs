//! Denials and revokes with a reason. The buttons Deny and Revoke act at once, because an incident
//! must not wait for a dialog. The button beside each of them opens a dialog for the reason, and
//! jit acts when the person submits it. A submission without a reason acts as the plain button.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::click::Click;
use super::fields::Fields;
use crate::domain::{Ask, MmUserId, Request, Subject};
use crate::mattermost::cards::text::{more_minutes, plain, short_id};
use crate::mattermost::commands::form::OPEN_FOR;
use crate::mattermost::commands::requests::ShownDecision;
use crate::mattermost::trust::seal::{ReasonOf, ReasonedStep};
use crate::mattermost::{Answer, Mattermost, No};

const REASON: &str = "reason";
/// The longest reason that jit accepts.
const LONGEST: u32 = 1000;

/// The step for which the dialog asks a reason.
struct ReasonAsked<'r> {
    request: &'r Request,
    step: ReasonedStep,
    /// W6: the address and the name, because users can change their addresses.
    requester: String,
}

impl Mattermost {
    /// Within three seconds of the click: after that, Mattermost does not open the dialog.
    pub(super) async fn ask_reason(
        &self,
        click: &Click,
        request: &Request,
        step: ReasonedStep,
    ) -> Result<Answer, No> {
        let subject = subject(request, step).ok_or_else(|| over(request))?;
        let of = ReasonOf {
            request_id: request.id,
            step,
            subject,
        };
        let until = self.clock().now() + OPEN_FOR;
        let once = self.clock().draw().to_string();
        let (user, channel) = (&click.user_id, &click.channel_id);
        let state = self.seals.dialog(once, user, channel, until, Some(of));
        let handles = self.handles([request].into_iter()).await;
        let of = ReasonAsked {
            request,
            step,
            requester: handles.named(&request.asked.requester),
        };
        let shown = self.reason_dialog(&of, &json!(state).to_string());
        let opened = self
            .bot
            .open_dialog(&click.trigger_id, &self.dialog_url, &shown);
        match opened.await {
            Ok(()) => Ok(Answer::Nothing),
            Err(why) => {
                tracing::warn!(
                    request_id = %request.id, error = %why,
                    "dialog for a reason not opened; the user can press the plain button or type the command"
                );
                Err(No::Message(format!(
                    "the dialog could not be opened, and nothing was changed; type `/jit {} {} REASON`, or press the button without a reason, which works at once",
                    step.word(),
                    short_id(request.id)
                )))
            }
        }
    }

    /// Mattermost shows at most 24 characters of a title.
    fn reason_dialog(&self, of: &ReasonAsked<'_>, state: &str) -> Value {
        let (request, step) = (of.request, of.step);
        let is_extension = request.grant.extension.is_some();
        let (title, label, without) = match step {
            ReasonedStep::Deny if is_extension => (
                "Deny the extension",
                "Deny extension",
                "If you leave this empty, jit denies the extension without a reason.",
            ),
            ReasonedStep::Deny => (
                "Deny the request",
                "Deny",
                "If you leave this empty, jit denies the request without a reason.",
            ),
            ReasonedStep::Revoke => (
                "Revoke the access",
                "Revoke",
                "If you leave this empty, jit revokes the access without a reason.",
            ),
        };
        let more = request.grant.extension.as_ref();
        let more = more
            .filter(|_| step == ReasonedStep::Deny)
            .map_or_else(String::new, |extension| {
                format!("{} of ", more_minutes(extension.minutes.get()))
            });
        json!({
            "callback_id": "jit_reason",
            "title": title,
            "introduction_text": format!(
                "`{}` · {more}{} in {} for {}",
                short_id(request.id),
                plain(request.asked.permission_set.as_str()),
                self.names.shown(&request.asked.account_id),
                of.requester,
            ),
            "submit_label": label,
            "notify_on_cancel": false,
            "state": state,
            "elements": [{
                "type": "textarea", "name": REASON, "display_name": "Reason", "optional": true,
                "max_length": LONGEST, "help_text": without,
            }],
        })
    }

    /// Denies or revokes with the submitted reason. The card shows the result.
    pub(super) async fn act_with_reason(
        &self,
        user: &MmUserId,
        of: &ReasonOf,
        fields: &BTreeMap<String, Value>,
    ) -> Result<Answer, No> {
        let who = self.who(user).await?;
        let mut form = Fields::of(fields);
        let reason = form.one(REASON);
        if !form.wrong.is_empty() {
            return Ok(Answer::Wrong(form.wrong));
        }
        let request = self.app.service.request(of.request_id).await?;
        if subject(&request, of.step).as_ref() != Some(&of.subject) {
            return Err(over(&request));
        }
        match of.step {
            ReasonedStep::Deny => {
                let shown = of.subject.parse().map_err(|_| over(&request))?;
                let deny = (&who, Ask::Deny { reason });
                match self.decide_on_shown(request.id, deny, shown, None).await? {
                    ShownDecision::Done => {}
                    ShownDecision::OtherWaits(now) => return Err(over(&now)),
                }
            }
            ReasonedStep::Revoke => {
                self.revoke(&who, &request, reason, None).await?;
            }
        }
        Ok(Answer::Nothing)
    }
}

/// The subject of the step. A denial of a request must not become the denial of an extension that
/// the approver has not seen. A revoke is about all access of the request at any time.
fn subject(request: &Request, step: ReasonedStep) -> Option<String> {
    match step {
        ReasonedStep::Revoke => Some("access".to_owned()),
        ReasonedStep::Deny => Subject::waiting(request).map(|subject| subject.to_string()),
    }
}

/// The request no longer waits for what the dialog or the button is about.
fn over(request: &Request) -> No {
    No::Message(format!(
        "nothing was changed: what you decided on does not wait any more; the request is {} now. `/jit status {}` shows it",
        request.status(),
        short_id(request.id)
    ))
}
