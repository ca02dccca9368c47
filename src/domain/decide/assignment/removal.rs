//! The removal: at the end of a grant, for a revoke, and after an end in ERROR that may have
//! left an assignment.

use super::super::step::{Details, Step, details};
use super::super::{Decision, Refusal};
use super::{begin, not_ours, old_credentials};
use crate::domain::{AssignmentWork, Ending, EventKind, Lease, Millis, Person, State, Text};

pub(super) fn end_grant(mut step: Step<'_>, lease: Lease) -> Result<Decision, Refusal> {
    // The other holders keep the assignment; only this grant ends.
    // The event names one of them, because AWS is not asked.
    let id = step.request.id;
    let other = step.holding().and_then(|holding| holding.others(id).next());
    if let Some(other) = other {
        let said = details([("shared_with", Some(other.to_string()))]);
        return step.end_expired(said);
    }
    step.request.grant.extension = None;
    step.mark_removing();
    step.set_state(State::Removing {
        ending: Ending::Expired,
    });
    step.record(EventKind::ExpiryStarted, None, details([]));
    begin(step, lease, AssignmentWork::Remove)
}

/// The revoke of a request that ended in ERROR.
pub(super) fn check_after_error(
    mut step: Step<'_>,
    lease: Lease,
    by: Person,
    reason: Option<Text>,
) -> Result<Decision, Refusal> {
    if !step.may_appear_unheld() {
        return begin(step, lease, AssignmentWork::Look);
    }
    // An unanswered create may still make the assignment. jit sent it, so jit removes the
    // assignment. A look does not show what AWS is still carrying out.
    remove_after_error(&mut step, by, reason, details([]));
    begin(step, lease, AssignmentWork::Remove)
}

/// The request takes its assignment over, and the removal begins.
pub(super) fn remove_after_error(
    step: &mut Step<'_>,
    by: Person,
    reason: Option<Text>,
    said: Details,
) {
    step.take_over();
    let asked_at = step.now;
    step.set_state(State::Removing {
        ending: Ending::Revoked {
            by: Some(by),
            reason,
            asked_at,
        },
    });
    step.record(EventKind::StrayAccessFound, None, said);
}

pub(super) fn gone(mut step: Step<'_>, ending: Ending) -> Result<Decision, Refusal> {
    if step.may_appear() {
        return look_again(step);
    }
    old_credentials::end(&mut step);
    match ending {
        Ending::Expired => step.end_expired(details([])),
        Ending::Revoked { by, reason, .. } => step.end_revoked(by, reason),
        Ending::Failed { why } => step.end_in_error(why, None),
    }
}

/// AWS shows no assignment of a request that ended in ERROR and was revoked.
pub(super) fn gone_after_error(
    step: Step<'_>,
    by: Person,
    reason: Option<Text>,
) -> Result<Decision, Refusal> {
    // With another holder, a look that shows no assignment may only mean that the other
    // create has not taken effect yet.
    if step.is_shared() {
        return present_after_error(step, &by);
    }
    step.end_revoked(Some(by), reason)
}

/// AWS shows an assignment that the request, which ended in ERROR and was revoked, did not make.
pub(super) fn present_after_error(step: Step<'_>, by: &Person) -> Result<Decision, Refusal> {
    let why = not_ours(&step);
    step.end_in_error(why, Some(by))
}

/// The assignment is gone now, but a create may still take effect, so the request does not end
/// yet. `failures` shows for how long it waits.
pub(super) fn look_again(mut step: Step<'_>) -> Result<Decision, Refusal> {
    step.note_create_answered();
    let why = Text::clip("a create of the same assignment may still take effect; waiting for it");
    let waiting = step.failing_once_more(why, 0);
    // Longer each time: the create also needs its turn at AWS.
    let pause = Millis(500 << waiting.attempts.min(5));
    step.try_again(waiting, pause)
}

#[cfg(test)]
mod tests {
    use super::super::super::decide;
    use super::super::super::fixtures::{
        at_the_end, due_at, finished, holding_of, id, policy, record,
    };
    use crate::domain::{AssignmentOutcome, EventKind, Status};

    /// W14: the end of a grant whose assignment another request keeps was recorded as an end that AWS
    /// had shown.
    #[test]
    fn an_expiry_names_the_request_that_keeps_the_assignment() {
        let mut shared = record("Granted");
        holding_of(&mut shared).holders.insert(id(2));
        let ended = decide(shared, &policy(), due_at(at_the_end()), at_the_end()).unwrap();
        assert_eq!(ended.request.status(), Status::Expired);
        assert_eq!(ended.work, None);
        let event = ended.events.last().unwrap();
        assert_eq!(event.event_type, EventKind::Expired);
        assert_eq!(event.details["shared_with"], id(2).to_string());
        assert_eq!(ended.notices[0].details["shared_with"], id(2).to_string());
        let gone = finished(AssignmentOutcome::Gone);
        let alone = decide(record("Expiring"), &policy(), gone, at_the_end()).unwrap();
        assert_eq!(alone.request.status(), Status::Expired);
        assert!(!alone.events[0].details.contains_key("shared_with"));
    }
}
