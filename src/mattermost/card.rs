//! What a request's card shows, and what can be pressed on it. Pure: `tell` posts it.

use serde_json::{Value, json};

use super::names::Names;
use super::seal::Action;
use super::text::{moment, plain, short, short_id};
use crate::domain::{Millis, Request, RequestObject, State, Status, Timestamp};

/// Of a person's words, so that a card never is more than Mattermost takes.
const LONGEST: usize = 300;
/// A card says whose it is, so that one that was posted and not written down is found.
pub const MARK: &str = "jit_request";

/// A button: what it does, and how it looks.
pub struct Offer {
    pub action: Action,
    pub name: String,
    pub style: &'static str,
}

fn offer(action: Action, name: &str, style: &'static str) -> Offer {
    let name = name.to_owned();
    Offer {
        action,
        name,
        style,
    }
}

/// What anybody may press here; whether they may is the engine's to say.
pub fn offers(request: &Request) -> Vec<Offer> {
    let revoke = || offer(Action::Revoke, "Revoke", "danger");
    match &request.state {
        State::Pending => vec![
            offer(Action::Approve, "Approve", "good"),
            offer(Action::Deny, "Deny", "danger"),
        ],
        State::Approved | State::Assigning => vec![revoke()],
        State::Granted => match &request.extension {
            Some(extension) => vec![
                offer(
                    Action::Approve,
                    &format!("Approve {} more minutes", extension.minutes.get()),
                    "good",
                ),
                offer(Action::Deny, "Deny more time", "default"),
                revoke(),
            ],
            None => vec![revoke()],
        },
        _ => Vec::new(),
    }
}

/// Long after whatever it is for is over, and not for ever.
pub fn good_until(request: &Request) -> Timestamp {
    let over = request.end_time().max(request.due_at.unwrap_or_default());
    over + Millis::DAY
}

/// `buttons` as Mattermost wants them.
pub fn card(request: &Request, names: &Names, buttons: &[Value]) -> Value {
    let (status, shown) = (request.status(), RequestObject::from(request));
    let id = short_id(request.id);
    let (colour, next) = match status {
        // P6: what is not proven is not said.
        _ if shown.assignment_status == Some("CHECKING") => (
            "#c05020",
            "AWS is asked whether anything of it is left.".to_owned(),
        ),
        Status::Pending => (
            "#f0a030",
            format!("Approvers: decide here, or `/jit deny {id} why`"),
        ),
        Status::Approved => ("#3070c0", "AWS is asked to give it.".to_owned()),
        Status::Granted if shown.assignment_status == Some("DELETING") => (
            "#c05020",
            "AWS is removing it; it is there until AWS shows that it is gone.".to_owned(),
        ),
        Status::Granted if request.extension.is_some() => {
            ("#f0a030", "Approvers: more time is asked for.".to_owned())
        }
        Status::Granted => ("#30a050", format!("To end it now: `/jit revoke {id}`")),
        Status::Revoked | Status::Expired if request.user.is_none() => {
            ("#808080", "Nothing was given.".to_owned())
        }
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
    let over = shown.revoked_at.or(shown.expired_at);
    // Texts, all of them: a number would be shown as a fraction.
    let field = |title: &str, value: String| json!({"title": title, "value": value, "short": true});
    let mut fields = vec![
        field("Who", plain(request.requester_email().as_str())),
        field(
            "What",
            format!(
                "{} in {}",
                plain(request.permission_set.as_str()),
                names.shown(&request.account_id)
            ),
        ),
        field("How long", how_long(request, over)),
    ];
    if let Some(by) = approved_by(request) {
        fields.push(field("Approved by", by));
    }
    if let State::Denied { by, .. } | State::Cancelled { by: Some(by), .. } = &request.state {
        fields.push(field("Ended by", plain(by.email.as_str())));
    }
    if let Some(ticket) = &request.jira {
        fields.push(field("Ticket", short(ticket.as_str(), LONGEST)));
    }
    if let Some(extension) = &request.extension {
        let minutes = extension.minutes.get();
        fields.push(field(
            "Asked for besides",
            format!("{minutes} more minutes"),
        ));
    }
    if let Some(by) = shown.revoked_by {
        fields.push(field("Revoked by", plain(by.as_str())));
    }
    let reason = request.reason.as_ref();
    for (title, words) in [
        ("Why", reason),
        ("Why not", shown.deny_reason),
        ("Why it was revoked", shown.revoke_reason),
        ("Trouble", shown.error_details),
    ] {
        if let Some(words) = words {
            fields.push(
                json!({"title": title, "value": short(words.as_str(), LONGEST), "short": false}),
            );
        }
    }
    json!({"attachments": [{
        "fallback": format!("{status}: {} in {}", request.permission_set, request.account_id),
        "color": colour,
        "title": format!("{status} · {id}"),
        "text": next,
        "fields": fields,
        "actions": buttons,
    }], MARK: request.id})
}

fn how_long(request: &Request, over: Option<Timestamp>) -> String {
    let moment = |time: Timestamp| moment(&time.to_string());
    match (request.granted, over) {
        (Some(period), Some(over)) => format!("{} to {}", moment(period.from), moment(over)),
        (Some(period), None) => format!("until {}", moment(period.until)),
        (None, _) => format!("{} minutes", request.duration.get()),
    }
}

fn approved_by(request: &Request) -> Option<String> {
    let by: Vec<String> = request
        .approvals
        .iter()
        .map(|approval| plain(approval.by.email.as_str()))
        .collect();
    (!by.is_empty()).then(|| by.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::{
        BindTerms, Binding, Doubt, Draft, EndSessions, ExtensionRule, Minutes, Period, Person,
        Policy, RequestId, SetRule, Text, open,
    };

    fn pending() -> Request {
        let email = "alice@example.com".parse().unwrap();
        let requester = Person {
            id: "alice".parse().unwrap(),
            email,
        };
        let account = "111122223333".parse().unwrap();
        let channel: crate::domain::ChannelId = "aws-prod".parse().unwrap();
        let terms = BindTerms::default();
        let binding = Binding {
            account_id: account,
            channel_id: channel.clone(),
            approvers: Vec::new(),
            approvals_required: 1,
            allow_self_approval: false,
            max_request_hours: terms.max_request_hours,
            session_duration_minutes: 60,
            permission_sets: Vec::new(),
            updated_at: Timestamp::default(),
            revision: 1,
        };
        let draft = Draft {
            id: RequestId::from_uuid(uuid::Uuid::from_u128(1)),
            account_id: binding.account_id.clone(),
            channel_id: channel,
            requester,
            reason: Some(Text::clip(&"*why*".repeat(150))),
            jira: Some(Text::clip("INC-42")),
            duration: Minutes::new(60).unwrap(),
            permission_set: None,
            start_at: None,
        };
        let set: crate::domain::PermissionSet = "admin".parse().unwrap();
        let policy = Policy {
            permission_sets: BTreeMap::from([(set.clone(), SetRule::default())]),
            default_permission_set: set,
            pending_lifetime: Millis::hours(8),
            max_request_hours: 4,
            extension: ExtensionRule::NeedsApproval,
            grant_patience: Millis::minutes(15),
            admins: [].into(),
            end_sessions: EndSessions::Off,
            remind_before: None,
        };
        open(draft, Some(binding), &policy, Timestamp::default())
            .unwrap()
            .request
    }

    fn shown(change: impl Fn(&mut Request)) -> String {
        let mut request = pending();
        change(&mut request);
        card(&request, &Names::default(), &[])["attachments"][0].to_string()
    }

    /// P6: that it is gone is said where AWS has shown it, and nowhere else.
    #[test]
    fn gone_is_said_when_it_is_known() {
        let at = Timestamp::from_seconds(120);
        let revoked = || State::Revoked {
            by: None,
            reason: None,
            at,
        };
        let given = |request: &mut Request, state| {
            request.user = Some("u-1".parse().unwrap());
            request.granted = Some(Period {
                from: Timestamp::from_seconds(60),
                until: Timestamp::from_seconds(3660),
            });
            request.state = state;
        };
        let gone = shown(|request| given(request, revoked()));
        assert!(gone.contains("no longer there"), "{gone}");
        assert!(
            gone.contains("1970-01-01 00:01 UTC to 1970-01-01 00:02 UTC"),
            "{gone}"
        );
        let doubted = shown(|request| {
            let end = Box::new(revoked());
            let doubt = Doubt::Outside;
            given(request, State::Unsettled { end, doubt });
        });
        assert!(
            doubted.contains("AWS is asked") && !doubted.contains("no longer"),
            "{doubted}"
        );
        let never = shown(|request| request.state = State::Expired { at });
        assert!(never.contains("Nothing was given"), "{never}");
    }

    /// However long people's words are, Mattermost takes the card: at most 8000 characters.
    #[test]
    fn a_card_is_never_too_long() {
        let long = || Some(Text::clip(&"|".repeat(1000)));
        let shown = shown(|request| {
            request.reason = long();
            request.jira = long();
            request.trouble = Some(crate::domain::Failing {
                since: Timestamp::default(),
                attempts: 1,
                refusals: 0,
                why: Text::clip(&"|".repeat(1000)),
            });
            request.state = State::Denied {
                by: request.requester.clone(),
                reason: long(),
                at: Timestamp::default(),
            };
        });
        // Three buttons with their seals are a quarter of it.
        assert!(shown.chars().count() < 5_000, "{}", shown.chars().count());
    }
}
