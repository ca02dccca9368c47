//! The work on a request: what its history says of it, and what no clock can have written.

use super::{Comparison, FactMismatch, detail};
use crate::domain::old_credentials::{
    CHANGES_OLD_CREDENTIALS, DENIED_DETAIL, ENDING_DETAIL, NONE_DETAIL,
};
use crate::domain::{Event, EventKind, Lease, Millis, OldCredentials, Request, State, Timestamp};

/// The clocks of two processes may differ by this much.
const CLOCKS_DIFFER: Millis = Millis::minutes(5);
/// A next try is at most this much later than the attempt before it.
const LONGEST_PAUSE: Millis = Millis::minutes(2);

/// A due time that is too late makes a request or a grant outlive its end; one that is too early
/// begins an access too early.
pub(super) fn compare_due(comparison: &mut Comparison, request: &Request, events: &[Event]) {
    let due = request.schedule.due_at;
    match &request.state {
        State::Pending => {
            let mut all = events.iter();
            let requested = all.find(|event| event.event_type == EventKind::Requested);
            // An event of an older jit does not say it.
            let said = requested.and_then(|event| detail(event, "pending_until"));
            if said.is_some() || due.is_none() {
                comparison.same("due_at", due, said);
            }
        }
        State::Approved => {
            let start = request.asked.start_at;
            if due.is_none() || due < start {
                comparison.same("due_at", due, start.or(request.approvals.complete_at));
            }
        }
        State::Granted => {
            let until = request.grant.period.map(|period| period.until);
            if due.is_none() || due > until {
                comparison.same("due_at", due, until);
            }
        }
        State::Assigning
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. } => {
            if due.is_none() {
                comparison.same("due_at", due, Some("unfinished work"));
            }
        }
        State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => {}
    }
}

/// C: without this, a changed record would end the deny of old credentials early, or never begin it.
pub(super) fn compare_old_credentials(
    comparison: &mut Comparison,
    request: &Request,
    events: &[Event],
) {
    let (old, due) = (request.access.old_credentials(), request.schedule.due_at);
    let (ending_before, denied_until) = match old {
        Some(OldCredentials::Ending { before }) => (Some(before), None),
        Some(OldCredentials::Denied { until }) => (None, Some(until)),
        None => (None, None),
    };
    let changes = |event: &&Event| CHANGES_OLD_CREDENTIALS.contains(&event.event_type);
    let last = events.iter().rfind(changes);
    let said = |name| last.and_then(|event| detail(event, name));
    match last.map(|event| event.event_type) {
        Some(EventKind::SessionsDenied) => {
            comparison.same("sessions_denied_until", denied_until, said("until"));
        }
        Some(EventKind::SessionsEnded | EventKind::SessionDenyLifted) => {
            comparison.same("sessions", old.map(|_| "old credentials"), None::<&str>);
        }
        Some(_) if said(NONE_DETAIL).is_some() => {
            comparison.same("sessions", old.map(|_| "old credentials"), None::<&str>);
        }
        None => {
            comparison.same("sessions_ending_before", ending_before, None::<&str>);
            comparison.same("sessions_denied_until", denied_until, None::<&str>);
        }
        // An event of an older jit does not say it.
        Some(_) => {
            if let Some(before) = said(ENDING_DETAIL) {
                comparison.same("sessions_ending_before", ending_before, Some(before));
            }
            if let Some(until) = said(DENIED_DETAIL) {
                comparison.same("sessions_denied_until", denied_until, Some(until));
            }
        }
    }
    match old.filter(|_| request.state.is_settled()) {
        Some(_) if due.is_none() => comparison.same("due_at", due, Some("unfinished work")),
        Some(OldCredentials::Denied { until }) if due < Some(until) => {
            comparison.same("due_at", due, Some(until));
        }
        Some(OldCredentials::Ending { .. } | OldCredentials::Denied { .. }) | None => {}
    }
}

/// Returns every time of the request that is later than any process can have written it: a lease
/// is renewed all the time, and a next try follows soon.
pub fn compare_with_clock(request: &Request, now: Timestamp) -> Vec<FactMismatch> {
    let of = format!("request {}", request.id);
    let mut comparison = Comparison::with(of, "no process can have written more than");
    let mut check = |field, at: Option<Timestamp>, most: Millis| {
        let latest = now + Millis(most.0 + CLOCKS_DIFFER.0);
        if at.is_some_and(|at| at > latest) {
            let record = at.map(|at| at.to_string());
            comparison.differs(field, record, Some(latest.to_string()));
        }
    };
    let lease = request.schedule.lease.map(|lease| lease.until);
    check("lease", lease, Lease::LASTS);
    if is_tried_again(request) {
        check("due_at", request.schedule.due_at, LONGEST_PAUSE);
    }
    comparison.found
}

/// Whether the due time can only be the time of a next try.
fn is_tried_again(request: &Request) -> bool {
    match &request.state {
        State::Approved => request.asked.start_at.is_none(),
        State::Pending | State::Granted => false,
        State::Assigning
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. } => true,
        State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => matches!(
            request.access.old_credentials(),
            Some(OldCredentials::Ending { .. })
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare_request;
    use super::*;
    use crate::domain::decide::fixtures::{
        asked, at_the_end, binding, bob, draft, due_at, finished, later, policy, record,
    };
    use crate::domain::decide::{Decision, Record, decide, open};
    use crate::domain::{
        AccessForm, AccessRecord, Ask, AssignmentOutcome, LeaseHolder, LeaseToken, Text,
    };

    fn far() -> Timestamp {
        at_the_end() + Millis::hours(24 * 365)
    }

    fn fields(found: &[FactMismatch]) -> Vec<&str> {
        found.iter().map(|one| one.field).collect()
    }

    // C
    #[test]
    fn a_lease_or_a_next_try_that_no_process_wrote_is_found_in_every_state() {
        for word in [
            "Pending",
            "Approved",
            "Assigning",
            "Granted",
            "Expiring",
            "Revoking",
            "Checking",
            "Unsettled",
            "ToDeny",
        ] {
            let mut request = record(word).request;
            assert_eq!(compare_with_clock(&request, later()), [], "{word}");
            request.schedule.lease = Some(Lease {
                token: LeaseToken(uuid::Uuid::from_u128(9)),
                until: far(),
                by: LeaseHolder::Operator,
            });
            let found = compare_with_clock(&request, later());
            assert_eq!(fields(&found), ["lease"], "{word}");
            request.schedule.lease = None;
            request.schedule.due_at = Some(far());
            let found = compare_with_clock(&request, later());
            let is_date = matches!(word, "Pending" | "Granted");
            assert_eq!(found.is_empty(), is_date, "{word}");
        }
    }

    // C
    #[test]
    fn old_credentials_that_the_history_does_not_explain_are_found() {
        let until = later() + Millis::hours(1);
        let denying = AssignmentOutcome::OldCredentialsDenied {
            until,
            dropped: Vec::new(),
        };
        let denied = decide(record("ToDeny"), &policy(), finished(denying), later()).unwrap();
        let found = |request: &Request, events: &[Event]| {
            let mut comparison = Comparison::of("the request".into());
            compare_old_credentials(&mut comparison, request, events);
            fields(&comparison.found).join(" ")
        };
        assert_eq!(found(&denied.request, &denied.events), "");
        let changed = |old: Option<OldCredentials>, due: Option<Timestamp>| {
            let mut request = denied.request.clone();
            request.access.set_old_credentials(old);
            request.schedule.due_at = due;
            request
        };
        let early = later() + Millis::minutes(1);
        let deny = |until| Some(OldCredentials::Denied { until });
        for (request, said) in [
            (changed(None, None), "sessions_denied_until"),
            (changed(deny(early), Some(early)), "sessions_denied_until"),
            (changed(deny(until), Some(early)), "due_at"),
            (changed(deny(until), None), "due_at"),
        ] {
            assert_eq!(found(&request, &denied.events), said);
        }
        // No event of an end, and the end of an older jit.
        let to_deny = record("ToDeny").request;
        assert_eq!(found(&to_deny, &[]), "sessions_ending_before");
        assert_eq!(found(&denied.request, &[]), "sessions_denied_until");
        let gone = finished(AssignmentOutcome::Gone);
        let mut ended = decide(record("Revoking"), &policy(), gone, later()).unwrap();
        assert_eq!(found(&to_deny, &ended.events), "sessions");
        ended.events[0].details.remove(NONE_DETAIL).unwrap();
        assert_eq!(found(&to_deny, &ended.events), "");
        let mut forgotten = to_deny.clone();
        forgotten.schedule.due_at = None;
        assert_eq!(found(&forgotten, &ended.events), "due_at");
    }

    // C: no event said that the credentials of the access must end.
    #[test]
    fn old_credentials_that_were_to_be_denied_and_were_removed_are_found() {
        let rules = crate::domain::Policy {
            end_sessions: crate::domain::OldCredentialsRule::PermissionSet,
            ..policy()
        };
        let found = |ended: &Decision, old: Option<OldCredentials>| {
            let mut request = ended.request.clone();
            request.access.set_old_credentials(old);
            request.schedule.due_at = old.map(|old| old.due_at(later()));
            let mut comparison = Comparison::of("the request".into());
            compare_old_credentials(&mut comparison, &request, &ended.events);
            fields(&comparison.found).join(" ")
        };
        let gone = || finished(AssignmentOutcome::Gone);
        let failed = || finished(crate::domain::WorkFailure::passing("throttled"));
        for (word, command, policy) in [
            ("Revoking", gone(), &rules),
            ("Expiring", gone(), &rules),
            ("RollingBack", gone(), &rules),
            ("ToDeny", failed(), &policy()),
        ] {
            let ended = decide(record(word), policy, command, later()).unwrap();
            let old = ended.request.access.old_credentials();
            let Some(OldCredentials::Ending { before }) = old else {
                panic!("{word}: {old:?}");
            };
            assert_eq!(found(&ended, old), "", "{word}");
            let moved = OldCredentials::Ending {
                before: before + Millis(-1),
            };
            let denied = OldCredentials::Denied { until: later() };
            for changed in [None, Some(moved), Some(denied)] {
                assert_eq!(found(&ended, changed), "sessions_ending_before", "{word}");
            }
        }
        // jit gives up: the deny statement that may stand is lifted next.
        let late = later() + Millis::hours(13);
        let given_up = decide(record("ToDeny"), &rules, failed(), late).unwrap();
        let old = given_up.request.access.old_credentials();
        assert_eq!(found(&given_up, old), "");
        assert_eq!(found(&given_up, None), "sessions_denied_until");
        // Without the setting there is nothing to end, and the event says that too.
        let plain = decide(record("Revoking"), &policy(), gone(), later()).unwrap();
        let ending = OldCredentials::Ending { before: later() };
        let denied = OldCredentials::Denied { until: later() };
        assert_eq!(found(&plain, None), "");
        for added in [ending, denied] {
            assert_eq!(found(&plain, Some(added)), "sessions");
        }
    }

    /// The request after the first steps of its life, with its history.
    fn pending() -> Decision {
        let mut draft = draft();
        draft.start_at = Some(later() + Millis::hours(1));
        open(draft, Some(binding()), &policy(), later()).unwrap()
    }

    fn then(before: &Decision, command: crate::domain::Command, now: Timestamp) -> Decision {
        let record = Record {
            request: before.request.clone(),
            binding: Some(binding()),
            access: AccessRecord::unread(AccessForm::Assignment),
        };
        let mut after = decide(record, &policy(), command, now).unwrap();
        after.events = [before.events.clone(), after.events].concat();
        after
    }

    fn found(decision: &Decision, change: impl FnOnce(&mut Request)) -> Vec<&'static str> {
        let mut request = decision.request.clone();
        assert_eq!(compare_request(&request, &decision.events), []);
        change(&mut request);
        let found = compare_request(&request, &decision.events);
        found.iter().map(|one| one.field).collect()
    }

    // C
    #[test]
    fn a_due_time_that_was_moved_is_found() {
        let pending = pending();
        let due = |at| move |request: &mut Request| request.schedule.due_at = at;
        assert_eq!(found(&pending, due(Some(far()))), ["due_at"]);
        assert_eq!(found(&pending, due(None)), ["due_at"]);
        let approved = then(&pending, asked(bob(), Ask::Approve), later());
        assert_eq!(found(&approved, due(Some(later()))), ["due_at"]);
        assert_eq!(found(&approved, due(None)), ["due_at"]);
    }

    // C
    #[test]
    fn a_state_that_the_history_does_not_have_is_found_although_the_status_is_the_same() {
        let approved = then(&pending(), asked(bob(), Ask::Approve), later());
        let assigning = found(&approved, |request| request.state = State::Assigning);
        assert_eq!(assigning, ["state"]);
    }

    // C: an error that looks as if an operator had written it.
    #[test]
    fn an_error_that_was_changed_is_found_whatever_it_says() {
        let approved = then(&pending(), asked(bob(), Ask::Approve), later());
        let start = approved.request.asked.start_at.unwrap();
        let claimed = then(&approved, due_at(start), start);
        let outcome = crate::domain::AssignmentOutcome::NoUser {
            why: Text::clip("no such user"),
        };
        let ended = then(&claimed, finished(outcome), start);
        assert!(matches!(ended.request.state, State::Error(_)));
        let changed = found(&ended, |request| {
            let State::Error(error) = &mut request.state else {
                panic!("{:?}", request.state);
            };
            error.why = Text::clip("the record was changed to DENIED from outside jit");
        });
        assert_eq!(changed, ["error_details"]);
    }
}
