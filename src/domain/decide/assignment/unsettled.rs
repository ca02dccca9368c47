//! An end that jit has to verify at AWS: an operator wrote it into the store, or a late answer
//! contradicts it.

use super::super::step::{Details, Step, details};
use super::super::{Decision, Refusal};
use super::removal::look_again;
use super::{begin, not_ours, old_credentials};
use crate::domain::{AssignmentOutcome, AssignmentWork, Doubt, EventKind, Lease, State, Text};

/// The same worker verifies the end, or removes the assignment first.
pub(super) fn verify(
    mut step: Step<'_>,
    lease: Lease,
    end: State,
    doubt: Doubt,
) -> Result<Decision, Refusal> {
    if !step.request.access.was_begun() {
        return settle(step, end, doubt);
    }
    if step.may_appear_unheld() {
        step.take_over();
    }
    if !step.holds() {
        return begin(step, lease, AssignmentWork::Look);
    }
    if step.is_shared() && !(end.is_revoked() && doubt != Doubt::LateAnswer) {
        step.leave_to_others();
        return settled(step, end, doubt);
    }
    if step.holding().is_some_and(|known| !known.removing) {
        step.end_access(None, None);
    }
    begin(step, lease, AssignmentWork::Remove)
}

/// A worker looked at AWS. P6: the request does not become REVOKED while its requester has the
/// access, or while another request that holds the assignment may have it again soon.
pub(super) fn looked(
    step: Step<'_>,
    lease: Lease,
    (end, doubt): (State, Doubt),
    seen: &AssignmentOutcome,
) -> Result<Decision, Refusal> {
    let is_gone = *seen == AssignmentOutcome::Gone;
    if step.holds() {
        return match is_gone {
            true => settle(step, end, doubt),
            // The request became a holder after the look began: its duty is the removal.
            false => verify(step, lease, end, doubt),
        };
    }
    match end.is_revoked() && (!is_gone || step.is_shared()) {
        true => not_revoked(step),
        false => settle(step, end, doubt),
    }
}

/// The same end as after a revoke of a request that ended in ERROR. P4: jit removes nothing.
fn not_revoked(step: Step<'_>) -> Result<Decision, Refusal> {
    let id = step.request.id;
    let other = step.holding().and_then(|holding| holding.others(id).next());
    let why = match other {
        Some(other) => Text::clip(&format!(
            "REVOKED was written into the store, but the access was not removed: the request \
             {other} has the same access; to end it: jit revoke {other}"
        )),
        None => not_ours(&step),
    };
    step.end_in_error(why, None)
}

/// AWS shows that the access is gone, or this request does not hold the assignment.
pub(super) fn settle(mut step: Step<'_>, end: State, doubt: Doubt) -> Result<Decision, Refusal> {
    if step.holds() && step.may_appear() {
        return look_again(step);
    }
    if step.holds() {
        old_credentials::end(&mut step);
    }
    settled(step, end, doubt)
}

fn settled(step: Step<'_>, end: State, doubt: Doubt) -> Result<Decision, Refusal> {
    match doubt {
        // The request had this end before the late answer.
        Doubt::LateAnswer => {
            settled_without_notice(step, end, EventKind::StrayAccessRemoved, details([]))
        }
        Doubt::Outside => settled_from_outside(step, end),
        // H7: nobody knows when it was written.
        Doubt::OutsideWithoutTime => {
            let now = step.now;
            settled_from_outside(step, end.ended_at(now))
        }
    }
}

/// The request gets the end that an operator wrote into the store.
fn settled_from_outside(step: Step<'_>, end: State) -> Result<Decision, Refusal> {
    let source = details([("source", Some("changed outside jit".to_owned()))]);
    match &end {
        State::Cancelled { .. } => settled_without_notice(step, end, EventKind::Cancelled, source),
        State::Revoked { .. } => step.end(end, EventKind::Revoked, None, source),
        State::Expired { .. } => step.end(end, EventKind::Expired, None, source),
        State::Error(ended) => {
            let said = details([("error", Some(ended.why.to_string()))]);
            step.end(end, EventKind::Error, None, said)
        }
        // `Request::apply_outside_status` makes none of these.
        State::Pending
        | State::Approved
        | State::Assigning
        | State::Granted
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Denied { .. } => step.end(end, EventKind::Error, None, source),
    }
}

fn settled_without_notice(
    mut step: Step<'_>,
    end: State,
    kind: EventKind,
    said: Details,
) -> Result<Decision, Refusal> {
    step.set_state(end);
    step.leave();
    step.record(kind, None, said);
    step.done(None)
}

#[cfg(test)]
mod tests {
    use super::super::super::decide;
    use super::super::super::fixtures::{finished, holding_of, id, later, policy, record};
    use super::*;
    use crate::domain::decide::Record;
    use crate::domain::{Millis, RequestObject, Status};

    /// An operator wrote this status over a request that ended in ERROR because of an assignment from
    /// outside, and a worker looks at AWS.
    fn written(said: Status) -> Record {
        let mut written = record("Error");
        written
            .request
            .apply_outside_status(said, Some(later()), later());
        written.request.schedule.lease = record("Unsettled").request.schedule.lease;
        written
    }

    fn looked(record: Record, outcome: AssignmentOutcome) -> Decision {
        decide(record, &policy(), finished(outcome), later()).unwrap()
    }

    /// H7: the end was the time of the last event, so the access ended at its beginning.
    #[test]
    fn h7_an_end_that_was_written_without_its_time_ends_when_jit_settles_it() {
        let written_at = later() + Millis::minutes(5);
        let settled_at = later() + Millis::minutes(9);
        for said in [
            Status::Revoked,
            Status::Expired,
            Status::Cancelled,
            Status::Error,
        ] {
            for (at, wanted) in [(Some(written_at), written_at), (None, settled_at)] {
                let mut written = record("Granted");
                let last_event = later();
                written.request.apply_outside_status(said, at, last_event);
                let shown = RequestObject::from(&written.request);
                let ends = [shown.revoked_at, shown.expired_at, shown.cancelled_at];
                let is_shown = ends.into_iter().flatten().next();
                assert_eq!(is_shown, at.filter(|_| said != Status::Error), "{said}");
                written.request.schedule.lease = record("Unsettled").request.schedule.lease;
                let outcome = finished(AssignmentOutcome::Gone);
                let ended = decide(written, &policy(), outcome, settled_at).unwrap();
                assert_eq!(ended.request.status(), said);
                let state = ended.request.state;
                assert_eq!(state.clone().ended_at(wanted), state, "{said}");
            }
        }
    }

    /// P6, W14: the channel was told "AWS shows that the access is gone".
    #[test]
    fn w14_a_written_revoked_is_no_end_while_aws_shows_an_assignment_from_outside() {
        let ended = looked(written(Status::Revoked), AssignmentOutcome::StillThere);
        let State::Error(error) = &ended.request.state else {
            panic!("{:?}", ended.request.state);
        };
        assert!(error.why.as_str().contains("did not make"), "{}", error.why);
        assert_eq!(ended.access.holding(), None, "P4");
        let kinds: Vec<EventKind> = ended.events.iter().map(|one| one.event_type).collect();
        assert_eq!(kinds, [EventKind::Error]);
        assert_eq!(ended.notices[0].status, Status::Error);
        let gone = looked(written(Status::Revoked), AssignmentOutcome::Gone);
        assert_eq!(gone.request.status(), Status::Revoked);
        // The other ends say nothing of the access.
        let expired = looked(written(Status::Expired), AssignmentOutcome::StillThere);
        assert_eq!(expired.request.status(), Status::Expired);
        assert!(expired.events[0].details.contains_key("source"));
    }

    /// P6, W14: the same if another request has the access, whatever AWS shows at this moment.
    #[test]
    fn w14_a_written_revoked_is_no_end_while_another_request_has_the_access() {
        for outcome in [AssignmentOutcome::StillThere, AssignmentOutcome::Gone] {
            let mut shared = written(Status::Revoked);
            holding_of(&mut shared).holders.insert(id(2));
            let ended = looked(shared, outcome);
            assert_eq!(ended.request.status(), Status::Error);
            let next = format!("jit revoke {}", id(2));
            assert!(ended.notices[0].details["error"].contains(&next));
            assert_eq!(ended.access.holding(), None, "P4");
        }
    }
}
