//! The content and the buttons of the card of a request. Pure: `tell` posts it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::handles::Handles;
use super::history::ExpiredAccess;
use super::names::Names;
use super::quorum::ApprovalCount;
use super::text::{counted_minutes, moment, more_minutes, plain, short, short_id, span};
use crate::domain::{
    Binding, Ending, Millis, MmUserId, Person, Request, RequestObject, State, Status, Timestamp,
};
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
    let revoke = || {
        [
            offer(Action::Revoke, "Revoke", "danger"),
            offer(Action::RevokeWithReason, "Revoke with reason…", "default"),
        ]
    };
    let deny = |name: &str, style| {
        [
            offer(Action::Deny, name, style),
            offer(Action::DenyWithReason, "Deny with reason…", "default"),
        ]
    };
    match &request.state {
        State::Pending => [offer(Action::Approve, "Approve", "good")]
            .into_iter()
            .chain(deny("Deny", "danger"))
            .collect(),
        State::Approved | State::Assigning => revoke().into(),
        State::Granted => match &request.grant.extension {
            Some(extension) => {
                let more = format!("Approve {}", more_minutes(extension.minutes.get()));
                [offer(Action::Approve, &more, "good")]
                    .into_iter()
                    .chain(deny("Deny extension", "default"))
                    .chain(revoke())
                    .collect()
            }
            None => revoke().into(),
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

/// The data that a card shows beside the record of the request.
pub struct Shown<'s> {
    pub names: &'s Names,
    pub handles: Handles,
    /// The binding of the account, with the approvals that a request needs now.
    pub binding: Option<Binding>,
    /// Of a request that is EXPIRED.
    pub expired: ExpiredAccess,
}

/// The people whom the card names.
pub fn people(request: &Request) -> BTreeSet<MmUserId> {
    let approvers = request.approvals.given.iter().map(|approval| &approval.by);
    let people = [&request.asked.requester].into_iter().chain(approvers);
    let people = people.chain(ended_by(request)).chain(revoked_by(request));
    people.map(|person| person.id.clone()).collect()
}

fn ended_by(request: &Request) -> Option<&Person> {
    match &request.state {
        State::Denied { by, .. } => Some(by),
        State::Cancelled { by, .. } => by.as_ref(),
        State::Pending
        | State::Approved
        | State::Assigning
        | State::Granted
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => None,
    }
}

pub fn revoked_by(request: &Request) -> Option<&Person> {
    match &request.state {
        State::Revoked { by, .. } => by.as_ref(),
        State::Checking { by, .. } => Some(by),
        State::Removing {
            ending: Ending::Revoked { by, .. },
        } => by.as_ref(),
        State::Pending
        | State::Approved
        | State::Assigning
        | State::Granted
        | State::Removing { .. }
        | State::Unsettled { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Error(_) => None,
    }
}

/// The message of the card: one line, so that the search of Mattermost finds the request.
pub fn message(request: &Request, names: &Names) -> String {
    format!(
        "`{}` · {} · {} in {}",
        short_id(request.id),
        request.status(),
        plain(request.asked.permission_set.as_str()),
        names.shown(&request.asked.account_id),
    )
}

/// `buttons` are in the format of Mattermost.
pub fn card(request: &Request, beside: &Shown<'_>, buttons: &[Value]) -> Value {
    let (status, shown) = (request.status(), RequestObject::from(request));
    let id = short_id(request.id);
    let (colour, next) = headline(request, &shown, beside.expired);
    json!({"attachments": [{
        "fallback": format!("{status}: {} in {}", request.asked.permission_set, request.asked.account_id),
        "color": colour,
        "title": format!("{status} · {id}"),
        "text": next,
        "fields": fields(request, &shown, beside),
        "actions": buttons,
    }], MARK: request.id})
}

/// The colour of the card, and the sentence below its title: the situation or the next step.
fn headline(
    request: &Request,
    shown: &RequestObject<'_>,
    expired: ExpiredAccess,
) -> (&'static str, String) {
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
        Status::Revoked | Status::Expired | Status::Denied | Status::Cancelled
            if !request.access.was_begun() =>
        {
            ("#808080", "No access was granted.".to_owned())
        }
        Status::Revoked => (
            "#808080",
            "Revoked: AWS shows that the access is gone.".to_owned(),
        ),
        Status::Expired => ("#808080", expired_text(expired).to_owned()),
        // An operator wrote the status into the store while the access existed.
        Status::Denied | Status::Cancelled => (
            "#808080",
            "This request gives no access any more.".to_owned(),
        ),
        Status::Error => ("#c02020", error_text(request).to_owned()),
    }
}

/// The card stays after the other request has ended, so it does not say that this one still runs.
fn expired_text(access: ExpiredAccess) -> &'static str {
    match access {
        ExpiredAccess::Gone => "Expired: AWS shows that the access is gone.",
        ExpiredAccess::Shared => {
            "Expired: another request of the same person had the same access at that time, and keeps it until its own end."
        }
        ExpiredAccess::Unknown => "Expired: this request gives no access any more.",
    }
}

/// The access may exist all the same: an assignment from outside, or that of another request.
fn error_text(request: &Request) -> &'static str {
    match request.grant.period {
        None => "The request ended in an error and was not granted; see the field Error.",
        // An operator wrote a status into the store while the access existed.
        Some(_) => {
            "The request ended in an error after it was granted; see the field Error. This request gives no access any more."
        }
    }
}

fn fields(request: &Request, shown: &RequestObject<'_>, beside: &Shown<'_>) -> Vec<Value> {
    let (names, handles) = (beside.names, &beside.handles);
    let over = shown.revoked_at.or(shown.expired_at);
    // Every value is a text: Mattermost would show a number as a fraction.
    let field = |title: &str, value: String| json!({"title": title, "value": value, "short": true});
    let mut fields = vec![
        field("Requester", handles.named(&request.asked.requester)),
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
    if let Some(by) = approved_by(request, handles) {
        fields.push(field("Approved by", by));
    }
    if let Some(count) = ApprovalCount::of_several(request, beside.binding.as_ref()) {
        fields.push(field("Approvals", count.to_string()));
    }
    if let Some(by) = ended_by(request) {
        fields.push(field("Ended by", handles.named(by)));
    }
    if let Some(ticket) = &request.asked.jira {
        fields.push(field("Ticket", short(ticket.as_str(), LONGEST)));
    }
    if let Some(extension) = &request.grant.extension {
        let minutes = extension.minutes.get();
        fields.push(field("Extension requested", counted_minutes(minutes)));
    }
    if let Some(email) = shown.revoked_by {
        let by = revoked_by(request).map(|by| handles.named(by));
        let by = by.unwrap_or_else(|| plain(email.as_str()));
        fields.push(field("Revoked by", by));
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
        (Some(period), Some(over)) => span(&period.from.to_string(), &over.to_string()),
        (Some(period), None) => format!("until {}", moment(period.until)),
        (None, _) => counted_minutes(request.asked.duration.get()),
    }
}

fn approved_by(request: &Request, handles: &Handles) -> Option<String> {
    let by: Vec<String> = request
        .approvals
        .given
        .iter()
        .map(|approval| handles.named(&approval.by))
        .collect();
    (!by.is_empty()).then(|| by.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::record;
    use crate::domain::{AccessFacts, AccessForm, Failing, Text};

    fn shown(request: &Request) -> String {
        shown_with(request, None)
    }

    fn shown_with(request: &Request, binding: Option<Binding>) -> String {
        shown_beside(request, binding, ExpiredAccess::Gone)
    }

    fn shown_beside(request: &Request, binding: Option<Binding>, expired: ExpiredAccess) -> String {
        let alice = (request.asked.requester.id.clone(), "alice".to_owned());
        let shown = Shown {
            names: &Names::default(),
            handles: Handles::new([alice].into()),
            binding,
            expired,
        };
        card(request, &shown, &[])["attachments"][0].to_string()
    }

    /// W6: an address alone does not say who asks, because users can change it.
    #[test]
    fn a_card_names_the_requester_by_the_name_in_mattermost_too() {
        let card = shown(&record("Pending").request);
        assert!(card.contains("(@\u{200b}alice)"), "{card}");
    }

    /// W12
    #[test]
    fn a_card_counts_the_approvals_of_a_request_and_of_an_extension() {
        for (state, wanted) in [
            ("Pending", Some("0 of 2")),
            ("Extending", Some("0 of 2")),
            ("Granted", None),
            ("Denied", None),
        ] {
            let record = record(state);
            let mut binding = record.binding.clone().unwrap();
            binding.approvals_required = 2;
            let card = shown_with(&record.request, Some(binding));
            match wanted {
                Some(wanted) => assert!(card.contains(wanted), "{state}: {card}"),
                None => assert!(!card.contains("\"Approvals\""), "{state}: {card}"),
            }
            let one = shown_with(&record.request, record.binding.clone());
            assert!(!one.contains("\"Approvals\""), "{state}: {one}");
        }
    }

    /// W10
    #[test]
    fn the_message_of_a_card_is_one_line_with_id_state_set_and_account() {
        let request = record("Granted").request;
        let line = message(&request, &Names::default());
        let id = short_id(request.id);
        let account = request.asked.account_id.to_string();
        for word in [id.as_str(), "GRANTED", "admin", &account] {
            assert!(line.contains(word), "{word} in {line}");
        }
        assert!(!line.contains('\n'), "{line}");
    }

    /// W12
    #[test]
    fn a_short_access_shows_seconds_and_one_minute_is_singular() {
        let mut request = record("Revoked").request;
        let at = Timestamp::parse("2027-01-15T12:40:05Z").unwrap();
        if let Some(period) = &mut request.grant.period {
            period.from = at;
        }
        let over = Some(at + Millis::seconds(20));
        assert_eq!(
            how_long(&request, over),
            "2027-01-15 12:40:05 UTC to 2027-01-15 12:40:25 UTC"
        );
        request.grant.period = None;
        request.asked.duration = crate::domain::Minutes::new(1).unwrap();
        assert_eq!(how_long(&request, None), "1 minute");
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
            ("Unsettled", false),
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
        never.access = AccessFacts::new(AccessForm::Assignment);
        never.grant.period = None;
        let card = shown(&never);
        assert!(card.contains("No access was granted"), "{card}");
    }

    /// W14: the card of an expired request said "Revoked", also if AWS was not asked because another
    /// request has the same access.
    #[test]
    fn the_card_of_an_expired_request_says_what_is_known_of_the_access() {
        let request = record("Expired").request;
        for (expired, wanted) in [
            (
                ExpiredAccess::Gone,
                "\"Expired: AWS shows that the access is gone.",
            ),
            (
                ExpiredAccess::Shared,
                "\"Expired: another request of the same",
            ),
            (ExpiredAccess::Unknown, "\"Expired: this request gives no"),
        ] {
            let card = shown_beside(&request, None, expired);
            assert!(card.contains(wanted), "{card}");
            let is_gone = expired == ExpiredAccess::Gone;
            assert_eq!(card.contains("access is gone"), is_gone, "{card}");
        }
        let card = shown(&record("Revoked").request);
        assert!(
            card.contains("\"Revoked: AWS shows that the access is gone."),
            "{card}"
        );
    }

    /// W14: the card said "No access was granted." of a GRANTED request over which an operator wrote
    /// CANCELLED.
    #[test]
    fn w14_the_card_of_a_cancelled_request_tells_whether_it_had_access() {
        let mut never = record("Cancelled").request;
        never.access = AccessFacts::new(AccessForm::Assignment);
        let mut begun = record("Granted").request;
        begun.state = never.state.clone();
        for (request, wanted, other) in [
            (&never, "No access was granted.", "any more"),
            (
                &begun,
                "This request gives no access any more.",
                "No access was",
            ),
        ] {
            let card = shown(request);
            assert!(card.contains(wanted) && !card.contains(other), "{card}");
        }
    }

    /// W14: the card said that no access is left, although an assignment from outside, or that of
    /// another request, is one way to this end.
    #[test]
    fn the_card_of_an_error_says_only_that_this_request_gives_no_access() {
        let mut request = record("Error").request;
        let card = shown(&request);
        let wanted = "\"The request ended in an error and was not granted; see the field Error.\"";
        assert!(card.contains(wanted), "{card}");
        request.grant.period = record("Granted").request.grant.period;
        let card = shown(&request);
        let wanted = "\"The request ended in an error after it was granted;";
        assert!(card.contains(wanted), "{card}");
        assert!(!card.contains("access is left"), "{card}");
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
            ("Pending", &["approve", "deny", "denywithreason"][..]),
            ("Approved", &["revoke", "revokewithreason"]),
            ("Assigning", &["revoke", "revokewithreason"]),
            ("Granted", &["revoke", "revokewithreason"]),
            (
                "Extending",
                &[
                    "approve",
                    "deny",
                    "denywithreason",
                    "revoke",
                    "revokewithreason",
                ],
            ),
            ("Expiring", &[]),
            ("Revoking", &[]),
            ("Checking", &[]),
            ("Unsettled", &[]),
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
        request.schedule.failures = Some(Failing {
            since: Timestamp::default(),
            attempts: 1,
            refusals: 0,
            why: long(),
        });
        let card = shown(&request);
        // Five buttons with their seals need a quarter of the limit.
        assert!(card.chars().count() < 5_000, "{}", card.chars().count());
    }
}
