//! An end that jit has to verify at AWS: an operator wrote it into the store, or a late answer
//! contradicts it.

use super::super::step::{Step, details};
use super::super::{Decision, Refusal};
use super::begin;
use super::removal::look_again;
use crate::domain::{AssignmentWork, Doubt, EventKind, Lease, State};

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
    let revoked = matches!(end, State::Revoked { .. });
    if step.is_shared() && !(revoked && doubt == Doubt::Outside) {
        step.leave_to_others();
        return settled(step, end, doubt);
    }
    if step.holding().is_some_and(|known| !known.removing) {
        step.end_access(None, None);
    }
    begin(step, lease, AssignmentWork::Remove)
}

pub(super) fn settle(step: Step<'_>, end: State, doubt: Doubt) -> Result<Decision, Refusal> {
    if step.holds() && step.may_appear() {
        return look_again(step);
    }
    settled(step, end, doubt)
}

fn settled(mut step: Step<'_>, end: State, doubt: Doubt) -> Result<Decision, Refusal> {
    let source = details([("source", Some("changed outside jit".to_owned()))]);
    let (kind, said) = match (doubt, &end) {
        (Doubt::LateAnswer, _) => (EventKind::StrayAccessRemoved, details([])),
        (Doubt::Outside, State::Cancelled { .. }) => (EventKind::Cancelled, source),
        (Doubt::Outside, State::Revoked { .. }) => {
            return step.end(end, EventKind::Revoked, None, source);
        }
        (Doubt::Outside, State::Expired { .. }) => {
            return step.end(end, EventKind::Expired, None, source);
        }
        (Doubt::Outside, State::Error(ended)) => {
            let said = details([("error", Some(ended.why.to_string()))]);
            return step.end(end, EventKind::Error, None, said);
        }
        // `Request::apply_outside_status` makes none of these.
        (
            Doubt::Outside,
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Granted
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. }
            | State::Denied { .. },
        ) => return step.end(end, EventKind::Error, None, source),
    };
    // These ends get no notice.
    step.set_state(end);
    step.leave();
    step.record(kind, None, said);
    step.done(None)
}
