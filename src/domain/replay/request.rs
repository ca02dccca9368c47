//! The facts of a request according to its history.

use super::phase::compare_phase;
use super::schedule::{compare_due, compare_old_credentials};
use super::{Comparison, FactMismatch, Moment, detail, moments};
use crate::domain::assignment::USER_DETAIL;
use crate::domain::old_credentials::NONE_DETAIL;
use crate::domain::{
    Approval, Ending, ErrorEnd, Event, EventKind, Person, Request, State, Text, Timestamp,
};

/// Returns every fact that the request and its history tell differently. The status is part of
/// the check of the chain itself.
pub fn compare_request(request: &Request, events: &[Event]) -> Vec<FactMismatch> {
    let mut comparison = Comparison::of(format!("request {}", request.id));
    let facts = RequestFacts::of(events);
    compare_asked(&mut comparison, request, &facts);
    compare_access(&mut comparison, request, &facts);
    compare_end(&mut comparison, &request.state, events);
    compare_phase(&mut comparison, &request.state, events);
    compare_due(&mut comparison, request, events);
    compare_old_credentials(&mut comparison, request, events);
    comparison.found
}

#[derive(Default)]
struct RequestFacts<'e> {
    requested: Option<(Moment, &'e Event)>,
    approvals: Vec<RecordedApproval<'e>>,
    complete_at: Option<Moment>,
    granted_at: Option<Moment>,
    until: Option<&'e str>,
    extension: Option<RecordedExtension<'e>>,
    user: Option<&'e str>,
    /// An ERROR does not say whether a user was found.
    may_lack_user: bool,
    parked_notices: u32,
}

#[derive(Clone)]
struct RecordedApproval<'e> {
    at: Moment,
    id: Option<&'e str>,
    email: Option<&'e str>,
}

struct RecordedExtension<'e> {
    by_id: Option<&'e str>,
    by: Option<&'e str>,
    minutes: Option<&'e str>,
    approvals: Vec<RecordedApproval<'e>>,
}

impl<'e> RecordedExtension<'e> {
    fn of(event: &'e Event) -> Self {
        Self {
            by_id: event.actor_mm_user_id.as_deref(),
            by: event.actor_email.as_deref(),
            minutes: detail(event, "additional_minutes"),
            approvals: Vec::new(),
        }
    }
}

impl<'e> RequestFacts<'e> {
    fn of(events: &'e [Event]) -> Self {
        let mut facts = Self::default();
        for (at, event) in moments(events) {
            facts.add(at, event);
        }
        facts
    }

    fn add(&mut self, at: Moment, event: &'e Event) {
        match event.event_type {
            EventKind::Requested => self.requested = Some((at, event)),
            EventKind::ApprovalRecorded => match &mut self.extension {
                Some(extension) => approve(&mut extension.approvals, at, event),
                None => approve(&mut self.approvals, at, event),
            },
            EventKind::Approved => {
                approve(&mut self.approvals, at, event);
                self.complete_at = Some(at);
            }
            EventKind::Assigning => self.user = detail(event, USER_DETAIL),
            EventKind::Granted => {
                self.granted_at = Some(at);
                self.until = detail(event, "end_time");
            }
            EventKind::ExtensionRequested => {
                self.extension = Some(RecordedExtension::of(event));
            }
            EventKind::Extended => {
                self.until = detail(event, "end_time");
                self.extension = None;
            }
            EventKind::NoticeParked => {
                let many = detail(event, "notices").map_or(Some(1), |many| many.parse().ok());
                let parked = self.parked_notices.saturating_add(many.unwrap_or(1));
                self.parked_notices = parked;
            }
            EventKind::ExtensionDenied
            | EventKind::Denied
            | EventKind::Cancelled
            | EventKind::RevokeRequested
            | EventKind::ExpiryStarted
            | EventKind::RollbackStarted
            | EventKind::CleanedUp
            | EventKind::Revoked
            | EventKind::Expired => self.extension = None,
            EventKind::Error => {
                self.extension = None;
                self.user = self.user.or(detail(event, USER_DETAIL));
                // An event of an older jit does not say it.
                self.may_lack_user |= detail(event, NONE_DETAIL).is_none();
            }
            EventKind::EndAnnounced
            | EventKind::RemovalFailing
            | EventKind::StrayAccessFound
            | EventKind::StrayAccessRemoved
            | EventKind::SessionsDenied
            | EventKind::SessionsEnded
            | EventKind::SessionsNotEnded
            | EventKind::SessionDenyLifted
            | EventKind::ForgeryRefused
            | EventKind::Bound
            | EventKind::BindingChanged
            | EventKind::ApproversSet
            | EventKind::Unbound => {}
        }
    }
}

/// A person who approves again, after the quorum was lowered, is counted once.
fn approve<'e>(approvals: &mut Vec<RecordedApproval<'e>>, at: Moment, event: &'e Event) {
    let id = event.actor_mm_user_id.as_deref();
    let email = event.actor_email.as_deref();
    let is_known = |one: &RecordedApproval<'_>| one.id == id || one.email == email;
    if !approvals.iter().any(is_known) {
        approvals.push(RecordedApproval { at, id, email });
    }
}

fn compare_asked(comparison: &mut Comparison, request: &Request, facts: &RequestFacts<'_>) {
    let Some((at, event)) = facts.requested else {
        let created = Some(request.asked.created_at);
        return comparison.same("REQUESTED", created, None::<&str>);
    };
    let asked = &request.asked;
    let said = |name| detail(event, name);
    let (id, email) = (&asked.requester.id, &asked.requester.email);
    comparison.same("requester", Some(id), event.actor_mm_user_id.as_ref());
    comparison.same("requester_email", Some(email), event.actor_email.as_ref());
    comparison.same(
        "account_id",
        Some(&asked.account_id),
        event.account_id.as_ref(),
    );
    comparison.same(
        "channel_id",
        Some(&asked.channel_id),
        Some(&event.channel_id),
    );
    comparison.same(
        "permission_set",
        Some(&asked.permission_set),
        said("permission_set"),
    );
    let minutes = Some(asked.duration.get());
    comparison.same("duration_minutes", minutes, said("duration_minutes"));
    comparison.same("reason", asked.reason.as_ref(), said("reason"));
    comparison.same("jira", asked.jira.as_ref(), said("jira"));
    comparison.same("start_at", asked.start_at, said("start_at"));
    comparison.same("key_id", asked.key_id.as_ref(), said("key_id"));
    comparison.same_time("created_at", Some(asked.created_at), Some(at));
}

fn compare_access(comparison: &mut Comparison, request: &Request, facts: &RequestFacts<'_>) {
    let given = &request.approvals.given;
    compare_approvals(comparison, "approvals", given, &facts.approvals);
    let complete_at = request.approvals.complete_at;
    comparison.same_time("approved_at", complete_at, facts.complete_at);
    let period = request.grant.period;
    let from = period.map(|period| period.from);
    comparison.same_time("grant_time", from, facts.granted_at);
    comparison.same("end_time", period.map(|period| period.until), facts.until);
    compare_extension(comparison, request, facts);
    // A worker that finds a user may end the request in ERROR instead of ASSIGNING.
    if facts.user.is_some() || !facts.may_lack_user {
        let user = request.access.user();
        comparison.same(USER_DETAIL, user, facts.user);
    }
    let parked = request.chat.parked_notices;
    comparison.same("parked_notices", Some(parked), Some(facts.parked_notices));
}

fn compare_extension(comparison: &mut Comparison, request: &Request, facts: &RequestFacts<'_>) {
    let extension = request.grant.extension.as_ref();
    let (by_id, by) = extension.map(|one| (&one.by.id, &one.by.email)).unzip();
    let minutes = extension.map(|one| one.minutes.get());
    // An operator who writes a status into the store ends the extension without an event.
    let is_live = request.state == State::Granted;
    let said = facts.extension.as_ref().filter(|_| is_live);
    let asked = said.and_then(|one| one.minutes);
    comparison.same("extension_minutes", minutes, asked);
    comparison.same("extension_by", by, said.and_then(|one| one.by));
    comparison.same("extension_by_id", by_id, said.and_then(|one| one.by_id));
    if let (Some(extension), Some(said)) = (extension, said) {
        let field = "extension_approvals";
        compare_approvals(comparison, field, &extension.approvals, &said.approvals);
    }
}

fn compare_approvals(
    comparison: &mut Comparison,
    field: &'static str,
    record: &[Approval],
    history: &[RecordedApproval<'_>],
) {
    let is_same = |(one, said): (&Approval, &RecordedApproval<'_>)| {
        said.id == Some(one.by.id.as_str())
            && said.email == Some(one.by.email.as_str())
            && said.at.is(one.at)
    };
    if record.len() == history.len() && record.iter().zip(history).all(is_same) {
        return;
    }
    let given = record
        .iter()
        .map(|one| format!("{} ({}) at {}", one.by.id, one.by.email, one.at));
    let said = history.iter().map(|one| {
        let (id, email) = (one.id.unwrap_or("?"), one.email.unwrap_or("?"));
        format!("{id} ({email}) at {}", one.at.at)
    });
    let list = |all: Vec<String>| (!all.is_empty()).then(|| all.join(", "));
    comparison.differs(field, list(given.collect()), list(said.collect()));
}

fn compare_end(comparison: &mut Comparison, state: &State, events: &[Event]) {
    let last = |kinds: &[EventKind]| {
        let mut ends = moments(events).rev();
        ends.find(|(_, event)| kinds.contains(&event.event_type))
    };
    match state {
        State::Pending | State::Approved | State::Assigning | State::Granted => {}
        State::Removing { ending } => compare_ending(comparison, ending, events),
        State::Checking { by, reason, error } => {
            compare_revoke(comparison, Some(by), reason.as_ref(), events);
            compare_error(comparison, error, last(&[EventKind::Error]));
        }
        // jit records an end that an operator wrote into the store when it has settled it. Until
        // then, the check of the chain reports the status that the history does not have.
        State::Unsettled { end, .. } if names_no_person(end) => {}
        State::Unsettled { end, .. } => compare_end(comparison, end, events),
        State::Denied { by, reason, at } => {
            let end = last(&[EventKind::Denied]);
            compare_person(comparison, Some(by), reason.as_ref(), end);
            comparison.same_time("denied_at", Some(*at), end.map(|(at, _)| at));
        }
        State::Cancelled { by, at } => {
            let end = last(&[EventKind::Cancelled]);
            // The record does not keep the reason of a break-glass command.
            compare_actor(comparison, by.as_ref(), end);
            compare_end_time(comparison, "cancelled_at", *at, end);
        }
        State::Expired { at } => {
            let end = last(&[EventKind::Expired]);
            compare_end_time(comparison, "expired_at", *at, end);
        }
        State::Revoked { by, reason, at } => {
            // The REVOKED that follows an unverified cleanup does not repeat its person.
            let is_own = |event: &Event| {
                let is_revoke = event.event_type == EventKind::Revoked;
                let is_own_revoke = is_revoke && detail(event, "source").is_none();
                is_own_revoke || event.event_type == EventKind::CleanedUp
            };
            let own = moments(events).rev().find(|(_, event)| is_own(event));
            // The operator who wrote a status after that is not known, and chose its time.
            let settled = last(&[EventKind::Revoked, EventKind::StrayAccessRemoved]);
            let is_written = settled.is_some_and(|(_, event)| !is_own(event));
            if !(is_written && names_no_person(state)) {
                compare_person(comparison, by.as_ref(), reason.as_ref(), own);
                compare_end_time(comparison, "revoked_at", *at, own);
            }
        }
        State::Error(error) => compare_error(comparison, error, last(&[EventKind::Error])),
    }
}

/// Whether this end has only what a status in the store says. An unverified cleanup has a person.
fn names_no_person(end: &State) -> bool {
    match end {
        State::Revoked { by, reason, .. } => by.is_none() && reason.is_none(),
        State::Cancelled { by, .. } => by.is_none(),
        State::Expired { .. } | State::Error(_) => true,
        State::Pending
        | State::Approved
        | State::Assigning
        | State::Granted
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Denied { .. } => false,
    }
}

fn compare_ending(comparison: &mut Comparison, ending: &Ending, events: &[Event]) {
    let some = |kind: EventKind| events.iter().any(|event| event.event_type == kind);
    match ending {
        Ending::Expired => {
            let began = some(EventKind::ExpiryStarted).then_some("EXPIRY_STARTED");
            comparison.same("removal", Some("EXPIRY_STARTED"), began);
        }
        Ending::Revoked {
            by,
            reason,
            asked_at,
        } => {
            let last = compare_revoke(comparison, by.as_ref(), reason.as_ref(), events);
            let began = |(at, event): (Moment, &Event)| {
                let begins = [EventKind::RevokeRequested, EventKind::StrayAccessFound];
                begins.contains(&event.event_type) && at.is(*asked_at)
            };
            if !moments(events).any(began) {
                comparison.same_time("revoke_asked_at", Some(*asked_at), last);
            }
        }
        Ending::Failed { why } => {
            let mut began = events.iter().rev();
            let began = began.find(|event| event.event_type == EventKind::RollbackStarted);
            let said = began.and_then(|event| detail(event, "error"));
            comparison.same("error_details", Some(why), said);
        }
    }
}

/// Compares the person of a revoke that has begun; returns when the last one was asked for.
/// Break-glass records one more REVOKE_REQUESTED, and the first one stays the reason.
fn compare_revoke(
    comparison: &mut Comparison,
    by: Option<&Person>,
    reason: Option<&Text>,
    events: &[Event],
) -> Option<Moment> {
    let is_revoke = |event: &Event| event.event_type == EventKind::RevokeRequested;
    let last = moments(events).rev().find(|(_, event)| is_revoke(event));
    let is_its = |event: &Event| is_revoke(event) && is_by(event, by, reason);
    if !events.iter().any(is_its) {
        compare_person(comparison, by, reason, last);
    }
    last.map(|(at, _)| at)
}

fn is_by(event: &Event, by: Option<&Person>, reason: Option<&Text>) -> bool {
    event.person_id().map(String::as_str) == by.map(|by| by.id.as_str())
        && event.actor_email.as_deref() == by.map(|by| by.email.as_str())
        && detail(event, "reason") == reason.map(Text::as_str)
}

fn compare_person(
    comparison: &mut Comparison,
    by: Option<&Person>,
    reason: Option<&Text>,
    end: Option<(Moment, &Event)>,
) {
    compare_actor(comparison, by, end);
    let said = end.and_then(|(_, event)| detail(event, "reason"));
    comparison.same("end_reason", reason, said);
}

fn compare_actor(comparison: &mut Comparison, by: Option<&Person>, end: Option<(Moment, &Event)>) {
    let event = end.map(|(_, event)| event);
    let (id, email) = by.map(|by| (&by.id, &by.email)).unzip();
    comparison.same("ended_by", id, event.and_then(Event::person_id));
    let said = event.and_then(|event| event.actor_email.as_ref());
    comparison.same("ended_by_email", email, said);
}

/// An operator who writes a status into the store chooses the time of the end.
fn compare_end_time(
    comparison: &mut Comparison,
    field: &'static str,
    at: Timestamp,
    end: Option<(Moment, &Event)>,
) {
    let own = end.filter(|(_, event)| detail(event, "source").is_none());
    if own.is_some() {
        comparison.same_time(field, Some(at), own.map(|(at, _)| at));
    }
}

fn compare_error(comparison: &mut Comparison, error: &ErrorEnd, end: Option<(Moment, &Event)>) {
    let said = end.and_then(|(_, event)| detail(event, "error"));
    comparison.same("error_details", Some(&error.why), said);
    // An operator who writes a status into the store chooses the time of the end. The history
    // says whether that was so.
    if !said.is_some_and(|said| said.starts_with(FROM_OUTSIDE)) {
        comparison.same_time("error_at", Some(error.at), end.map(|(at, _)| at));
    }
}

/// The beginning of the error that `Request::apply_outside_status` makes.
const FROM_OUTSIDE: &str = "the record was changed to";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::EventDraft;
    use crate::domain::decide::decide;
    use crate::domain::decide::fixtures::{
        alice, bob, finished, later, person, policy, prepared, record,
    };
    use crate::domain::{AssignmentOutcome, AuditKey, Chain, Doubt, Presence};

    fn event(kind: EventKind, by: Option<&Person>, details: &[(&str, &str)]) -> Event {
        let request = record("Granted").request;
        let details = details.iter();
        let draft = EventDraft {
            key: AuditKey::Request(request.id),
            kind,
            account_id: None,
            channel_id: &request.asked.channel_id,
            actor: by,
            status: None,
            details: details
                .map(|(name, said)| ((*name).to_owned(), (*said).to_owned()))
                .collect(),
        };
        Chain::default().append(draft, later())
    }

    /// C: the simulation found that a request in ERROR with two revokes was compared with the last.
    #[test]
    fn break_glass_on_a_revoke_that_has_begun_is_no_finding() {
        let (bob, alice) = (bob(), alice());
        let mut comparison = Comparison::with("the request".into(), "the history says");
        let revokes = [&bob, &alice].map(|by| event(EventKind::RevokeRequested, Some(by), &[]));
        for (by, is_found) in [(bob.clone(), false), (person("carol"), true)] {
            compare_revoke(&mut comparison, Some(&by), None, &revokes);
            assert_eq!(!comparison.found.is_empty(), is_found, "{by:?}");
        }
    }

    /// C: the simulation found that a status that an operator wrote after an unverified cleanup was
    /// compared with the cleanup.
    #[test]
    fn an_end_that_an_operator_wrote_is_not_compared_with_an_earlier_cleanup() {
        let bob = bob();
        let revoked = |by: Option<&Person>| State::Revoked {
            by: by.cloned(),
            reason: None,
            at: later(),
        };
        let found = |state: &State, events: &[Event]| {
            let mut comparison = Comparison::with("the request".into(), "the history says");
            compare_end(&mut comparison, state, events);
            comparison.found.len()
        };
        let mut events = vec![event(EventKind::CleanedUp, Some(&bob), &[])];
        let doubts = [Doubt::Outside, Doubt::OutsideWithoutTime, Doubt::LateAnswer];
        for doubt in doubts {
            let unsettled = |by| State::Unsettled {
                end: Box::new(revoked(by)),
                doubt,
            };
            assert_eq!(found(&unsettled(None), &events), 0, "a written status");
            assert_eq!(found(&unsettled(Some(&bob)), &events), 0, "the cleanup");
            assert!(found(&unsettled(Some(&alice())), &events) > 0);
        }
        assert!(found(&revoked(None), &events) > 0, "no event settled it");
        let source = ("source", "changed outside jit");
        for settles in [
            event(EventKind::Revoked, None, &[source]),
            event(EventKind::StrayAccessRemoved, None, &[]),
        ] {
            events.push(settles);
            assert_eq!(found(&revoked(None), &events), 0, "a written status");
            assert_eq!(found(&revoked(Some(&bob)), &events), 0, "the cleanup");
            assert!(found(&revoked(Some(&alice())), &events) > 0);
            events.pop();
        }
    }

    /// C: a revoke of such a request asked AWS about another user, and said that nothing is left.
    #[test]
    fn the_user_of_a_request_that_ended_in_error_is_compared() {
        let ended = |outcome: AssignmentOutcome| {
            decide(record("Approved"), &policy(), finished(outcome), later()).unwrap()
        };
        let found = |user: Option<&str>, events: &[Event]| {
            let mut request = record("NeverHeld").request;
            if let Some(user) = user {
                request.access.set_user(user.parse().unwrap());
            }
            let mut comparison = Comparison::of("the request".into());
            compare_access(&mut comparison, &request, &RequestFacts::of(events));
            let mut found = comparison.found.iter();
            found.any(|one| one.field == USER_DETAIL)
        };
        let mut not_ours = ended(prepared(Presence::Present, 0)).events;
        assert!(!found(Some("u-1"), &not_ours));
        assert!(found(Some("another"), &not_ours) && found(None, &not_ours));
        // An older jit did not write it.
        not_ours[0].details.remove(USER_DETAIL);
        not_ours[0].details.remove(NONE_DETAIL);
        assert!(!found(Some("another"), &not_ours));
        let mut before = record("Approved");
        before.request.access = record("NeverHeld").request.access;
        let why = Text::clip("no such user");
        let no_user = finished(AssignmentOutcome::NoUser { why });
        let no_user = decide(before, &policy(), no_user, later()).unwrap().events;
        assert!(!found(None, &no_user) && found(Some("u-1"), &no_user));
    }
}
