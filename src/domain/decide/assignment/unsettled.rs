//! An end that jit has to verify at AWS: an operator wrote it into the store, or a late answer
//! contradicts it.

use super::super::step::{Details, Step, details};
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
    if step.is_shared() && !(end.is_revoked() && doubt == Doubt::Outside) {
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

fn settled(step: Step<'_>, end: State, doubt: Doubt) -> Result<Decision, Refusal> {
    match doubt {
        // The request had this end before the late answer.
        Doubt::LateAnswer => {
            settled_without_notice(step, end, EventKind::StrayAccessRemoved, details([]))
        }
        Doubt::Outside => settled_from_outside(step, end),
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
