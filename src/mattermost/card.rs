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
    use super::*;
    use crate::domain::decide::fixtures::record;
    use crate::domain::{Failing, Text};

    fn shown(request: &Request) -> String {
        card(request, &Names::default(), &[])["attachments"][0].to_string()
    }

    /// P6: that it is gone is said where AWS has shown it, and nowhere else.
    #[test]
    fn gone_is_said_when_it_is_known() {
        for (state, is_gone) in [
            ("Pending", false),
            ("Approved", false),
            ("Assigning", false),
            ("Granted", false),
            ("Expiring", false),
            ("Revoking", false),
            ("Checking", false),
            // Somebody wrote REVOKED into the store, and AWS has not been asked.
            ("Doubted", false),
            ("Denied", false),
            ("Cancelled", false),
            ("Expired", true),
            ("Revoked", true),
        ] {
            let card = shown(&record(state).request);
            assert_eq!(card.contains("no longer there"), is_gone, "{state}: {card}");
        }
        let mut never = record("Expired").request;
        (never.user, never.granted) = (None, None);
        let card = shown(&never);
        assert!(card.contains("Nothing was given"), "{card}");
    }

    #[test]
    fn what_can_be_pressed_is_what_can_be_done() {
        for (state, wanted) in [
            ("Pending", &["approve", "deny"][..]),
            ("Approved", &["revoke"]),
            ("Assigning", &["revoke"]),
            ("Granted", &["revoke"]),
            ("Extending", &["approve", "deny", "revoke"]),
            ("Expiring", &[]),
            ("Revoking", &[]),
            ("Checking", &[]),
            ("Doubted", &[]),
            ("Denied", &[]),
            ("Expired", &[]),
            ("Error", &[]),
        ] {
            let offers = offers(&record(state).request);
            let words: Vec<String> = offers.iter().map(|offer| offer.action.word()).collect();
            assert_eq!(words, wanted, "{state}");
        }
    }

    /// What is late in AWS can be pressed all the same, a day long.
    #[test]
    fn a_button_outlasts_what_it_is_for() {
        for state in ["Pending", "Granted"] {
            let request = record(state).request;
            let over = request.end_time().max(request.due_at.unwrap());
            assert_eq!(good_until(&request) - over, Millis::DAY, "{state}");
        }
    }

    /// However long people's words are, Mattermost takes the card: at most 8000 characters.
    #[test]
    fn a_card_is_never_too_long() {
        let long = || Text::clip(&"|".repeat(1000));
        let mut request = record("Denied").request;
        (request.reason, request.jira) = (Some(long()), Some(long()));
        if let State::Denied { reason, .. } = &mut request.state {
            *reason = Some(long());
        }
        request.trouble = Some(Failing {
            since: Timestamp::default(),
            attempts: 1,
            refusals: 0,
            why: long(),
        });
        let card = shown(&request);
        // Three buttons with their seals are a quarter of it.
        assert!(card.chars().count() < 5_000, "{}", card.chars().count());
    }
}
