//! Failures of work for an assignment: jit tries again, or gives the grant up.

use super::super::step::{Step, details};
use super::super::{Decision, Refusal};
use super::{go_on_with_removal, old_credentials};
use crate::domain::{Ending, EventKind, Millis, State, Text, WorkFailure};

/// After this many creates that AWS carried out and that FAILED, jit gives the grant up.
const MOST_REFUSALS: u32 = 3;
const LONGEST_PAUSE: Millis = Millis::seconds(60);

pub(in crate::domain::decide) fn failed(
    mut step: Step<'_>,
    failure: &WorkFailure,
) -> Result<Decision, Refusal> {
    let refused = match failure {
        WorkFailure::Refused { .. } => 1,
        WorkFailure::Passing { .. } | WorkFailure::Denied { .. } => 0,
    };
    let failing = step.failing_once_more(failure.why().clone(), refused);
    let hopeless =
        failing.refusals >= MOST_REFUSALS || step.now - failing.since >= step.policy.grant_patience;
    match step.request.state {
        State::Approved if hopeless => return step.end_in_error(failing.why, None),
        State::Assigning if hopeless => return roll_back(step, failing.why),
        State::Approved | State::Assigning => {}
        // jit never gives up a removal.
        State::Pending
        | State::Granted
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. } => step.record_failure(&failing, EventKind::RemovalFailing),
        State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => {
            if old_credentials::are_expired(&step) {
                return old_credentials::not_denied(step, &failing.why);
            }
            step.record_failure(&failing, EventKind::SessionsNotEnded);
        }
    }
    let whole = match failure {
        WorkFailure::Denied { .. } => LONGEST_PAUSE,
        // Doubling from one second to a minute.
        WorkFailure::Passing { .. } | WorkFailure::Refused { .. } => {
            Millis(500 << failing.attempts.min(7)).min(LONGEST_PAUSE)
        }
    };
    let pause = step.request.id.spread(failing.attempts, whole);
    step.try_again(failing, pause)
}

/// Gives the grant up. The assignment may exist, so it is removed first.
fn roll_back(mut step: Step<'_>, why: Text) -> Result<Decision, Refusal> {
    if step.is_shared() {
        step.leave_to_others();
        return step.end_in_error(why, None);
    }
    let said = details([("error", Some(why.to_string()))]);
    step.mark_removing();
    step.request.schedule.due_at = Some(step.now);
    step.set_state(State::Removing {
        ending: Ending::Failed { why },
    });
    step.record(EventKind::RollbackStarted, None, said);
    go_on_with_removal(step)
}
