//! The content and the buttons of the card of a request. Pure: `tell` posts it.

use serde_json::{Value, json};

use super::names::Names;
use super::text::{moment, plain, short, short_id};
use crate::domain::{Millis, Request, RequestObject, State, Status, Timestamp};
use crate::mattermost::trust::seal::Action;

/// The length of a text of a person on a card, so that Mattermost accepts the card.
const LONGEST: usize = 300;
/// The card carries the request id, so that jit finds a card that it posted and did not record.
pub const MARK: &str = "jit_request";

/// A button: its action, its name and its style.
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

/// The buttons of a card; the domain decides whether a person may use them.
pub fn offers(request: &Request) -> Vec<Offer> {
    let revoke = || offer(Action::Revoke, "Revoke", "danger");
    match &request.state {
        State::Pending => vec![
            offer(Action::Approve, "Approve", "good"),
            offer(Action::Deny, "Deny", "danger"),
        ],
        State::Approved | State::Assigning => vec![revoke()],
        State::Granted => match &request.grant.extension {
            Some(extension) => vec![
                offer(
                    Action::Approve,
                    &format!("Approve {} more minutes", extension.minutes.get()),
                    "good",
                ),
                offer(Action::Deny, "Deny extension", "default"),
                revoke(),
            ],
            None => vec![revoke()],
        },
        State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => Vec::new(),
    }
}

/// One day after the end of the request.
pub fn good_until(request: &Request) -> Timestamp {
    let over = request
        .end_time()
        .max(request.schedule.due_at.unwrap_or_default());
    over + Millis::DAY
}

/// `buttons` are in the format of Mattermost.
pub fn card(request: &Request, names: &Names, buttons: &[Value]) -> Value {
    let (status, shown) = (request.status(), RequestObject::from(request));
    let id = short_id(request.id);
    let (colour, next) = headline(request, &shown);
    json!({"attachments": [{
        "fallback": format!("{status}: {} in {}", request.asked.permission_set, request.asked.account_id),
        "color": colour,
        "title": format!("{status} · {id}"),
        "text": next,
        "fields": fields(request, &shown, names),
        "actions": buttons,
    }], MARK: request.id})
}

/// The colour of the card, and the sentence below its title: the situation or the next step.
fn headline(request: &Request, shown: &RequestObject<'_>) -> (&'static str, String) {
    let id = short_id(request.id);
    // P6: the card says only what AWS has shown.
    if shown.assignment_status == Some("CHECKING") {
        let asks = "jit asks AWS whether an assignment is left.";
        return ("#c05020", asks.to_owned());
    }
    match request.status() {
        Status::Pending => (
            "#f0a030",
            format!("Approvers: decide here, or type `/jit deny {id} REASON`"),
        ),
        Status::Approved if request.is_dated() => (
            "#3070c0",
            "jit asks AWS to make the assignment at the start.".to_owned(),
        ),
        Status::Approved => ("#3070c0", "jit asks AWS to make the assignment.".to_owned()),
        Status::Granted if shown.assignment_status == Some("DELETING") => (
            "#c05020",
            "AWS is removing the access; it may exist until AWS shows that it is gone.".to_owned(),
        ),
        Status::Granted if request.grant.extension.is_some() => (
            "#f0a030",
            "Approvers: the requester asks for an extension.".to_owned(),
        ),
        Status::Granted => (
            "#30a050",
            format!("To end the access now: `/jit revoke {id}`"),
        ),
        Status::Revoked | Status::Expired if request.assignment.user.is_none() => {
            ("#808080", "No access was granted.".to_owned())
        }
        Status::Revoked | Status::Expired => (
            "#808080",
            "Revoked: AWS shows that the access is gone.".to_owned(),
        ),
        Status::Denied | Status::Cancelled => ("#808080", "No access was granted.".to_owned()),
        Status::Error => (
            "#c02020",
            "The request ended in an error; no access is left.".to_owned(),
        ),
    }
}

fn fields(request: &Request, shown: &RequestObject<'_>, names: &Names) -> Vec<Value> {
    let over = shown.revoked_at.or(shown.expired_at);
    // Every value is a text: Mattermost would show a number as a fraction.
    let field = |title: &str, value: String| json!({"title": title, "value": value, "short": true});
    let mut fields = vec![
        field("Requester", plain(request.requester_email().as_str())),
        field(
            "Access",
            format!(
                "{} in {}",
                plain(request.asked.permission_set.as_str()),
                names.shown(&request.asked.account_id)
            ),
        ),
        field("Duration", how_long(request, over)),
    ];
    if let Some(start) = request.starts_at() {
        fields.push(field("Starts", moment(&start.to_string())));
    }
    if let Some(by) = approved_by(request) {
        fields.push(field("Approved by", by));
    }
    if let State::Denied { by, .. } | State::Cancelled { by: Some(by), .. } = &request.state {
        fields.push(field("Ended by", plain(by.email.as_str())));
    }
    if let Some(ticket) = &request.asked.jira {
        fields.push(field("Ticket", short(ticket.as_str(), LONGEST)));
    }
    if let Some(extension) = &request.grant.extension {
        let minutes = extension.minutes.get();
        fields.push(field("Extension requested", format!("{minutes} minutes")));
    }
    if let Some(by) = shown.revoked_by {
        fields.push(field("Revoked by", plain(by.as_str())));
    }
    let reason = request.asked.reason.as_ref();
    for (title, words) in [
        ("Reason", reason),
        ("Deny reason", shown.deny_reason),
        ("Revoke reason", shown.revoke_reason),
        ("Error", shown.error_details),
    ] {
        if let Some(words) = words {
            fields.push(
                json!({"title": title, "value": short(words.as_str(), LONGEST), "short": false}),
            );
        }
    }
    fields
}

fn how_long(request: &Request, over: Option<Timestamp>) -> String {
    let moment = |time: Timestamp| moment(&time.to_string());
    match (request.grant.period, over) {
        (Some(period), Some(over)) => format!("{} to {}", moment(period.from), moment(over)),
        (Some(period), None) => format!("until {}", moment(period.until)),
        (None, _) => format!("{} minutes", request.asked.duration.get()),
    }
}

fn approved_by(request: &Request) -> Option<String> {
    let by: Vec<String> = request
        .approvals
        .given
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

    /// P6: a card says that the access is gone only after AWS has shown it.
    #[test]
    fn a_card_says_gone_only_after_aws_has_shown_it() {
        for (state, is_gone) in [
            ("Pending", false),
            ("Approved", false),
            ("Assigning", false),
            ("Granted", false),
            ("Expiring", false),
            ("Revoking", false),
            ("Checking", false),
            // An operator wrote REVOKED into the store, and jit has not asked AWS.
            ("Doubted", false),
            ("Denied", false),
            ("Cancelled", false),
            ("Expired", true),
            ("Revoked", true),
        ] {
            let card = shown(&record(state).request);
            assert_eq!(
                card.contains("the access is gone"),
                is_gone,
                "{state}: {card}"
            );
        }
        let mut never = record("Expired").request;
        (never.assignment.user, never.grant.period) = (None, None);
        let card = shown(&never);
        assert!(card.contains("No access was granted"), "{card}");
    }

    // B1
    #[test]
    fn a_card_shows_the_start_until_the_access_begins() {
        let start = "2026-03-01T09:00:00Z";
        for (state, is_shown) in [("Pending", true), ("Approved", true), ("Granted", false)] {
            let mut request = record(state).request;
            request.asked.start_at = Timestamp::parse(start);
            request.schedule.due_at = request.asked.start_at;
            let card = shown(&request);
            assert_eq!(card.contains("Starts"), is_shown, "{card}");
            let waits = card.contains("at the start");
            assert_eq!(waits, state == "Approved", "{card}");
        }
        let card = shown(&record("Pending").request);
        assert!(!card.contains("Starts"), "{card}");
    }

    #[test]
    fn a_card_has_the_buttons_of_its_state() {
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

    /// A button works for one more day, because AWS may be late.
    #[test]
    fn a_button_is_valid_for_one_day_after_the_end() {
        for state in ["Pending", "Granted"] {
            let request = record(state).request;
            let over = request.end_time().max(request.schedule.due_at.unwrap());
            assert_eq!(good_until(&request) - over, Millis::DAY, "{state}");
        }
    }

    /// Mattermost accepts at most 8000 characters, for any length of the texts of people.
    #[test]
    fn a_card_with_long_texts_stays_below_the_limit() {
        let long = || Text::clip(&"|".repeat(1000));
        let mut request = record("Denied").request;
        (request.asked.reason, request.asked.jira) = (Some(long()), Some(long()));
        if let State::Denied { reason, .. } = &mut request.state {
            *reason = Some(long());
        }
        request.schedule.trouble = Some(Failing {
            since: Timestamp::default(),
            attempts: 1,
            refusals: 0,
            why: long(),
        });
        let card = shown(&request);
        // Three buttons with their seals need a quarter of the limit.
        assert!(card.chars().count() < 5_000, "{}", card.chars().count());
    }
}
