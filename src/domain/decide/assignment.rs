//! Decisions about assignments: which work a due request needs, and what the outcome of the
//! work changes.

mod cleanup;
mod failure;
mod grant;
mod holding;
#[cfg(test)]
mod in_flight;
mod old_credentials;
mod removal;
mod stray;
mod unsettled;

pub(super) use cleanup::cleaned_up;
pub(super) use failure::failed;
pub(super) use stray::{found_present, late};

use super::at_start::{start_ahead, wait_for_start, withdrawn};
use super::step::Step;
use super::{Decision, Refusal};
use crate::domain::{AssignmentOutcome, AssignmentWork, HoldingKey, Lease, State, Text};

/// The work of a request that is due.
pub(super) fn due(step: Step<'_>, lease: Lease) -> Result<Decision, Refusal> {
    match step.request.state.clone() {
        // It expires without work at AWS (`work::due`).
        State::Pending => step.nothing_left(),
        State::Approved => match (start_ahead(&step), withdrawn(&step)) {
            (Some(start), _) => wait_for_start(step, start),
            (None, Some(why)) => step.end_revoked(None, Some(why)),
            (None, None) => step.lease(lease, AssignmentWork::Prepare.into()),
        },
        State::Assigning => match withdrawn(&step) {
            Some(why) => grant::withdraw(step, lease, why),
            None => begin(step, lease, AssignmentWork::Create),
        },
        State::Granted => removal::end_grant(step, lease),
        State::Removing { .. } => begin(step, lease, AssignmentWork::Remove),
        State::Checking { by, reason, .. } => removal::check_after_error(step, lease, by, reason),
        State::Unsettled { end, doubt } => unsettled::verify(step, lease, *end, doubt),
        State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => old_credentials::due(step, lease),
    }
}

/// Takes the lease for work at the assignment. If the record names no user, AWS was never asked
/// for an assignment, and there is no work.
fn begin(
    step: Step<'_>,
    lease: Lease,
    work: impl FnOnce(HoldingKey) -> AssignmentWork,
) -> Result<Decision, Refusal> {
    match step.request.holding_key() {
        Some(key) => step.lease(lease, work(key).into()),
        None => step.nothing_left(),
    }
}

/// The worker that has the lease continues and removes the assignment.
fn go_on_with_removal(step: Step<'_>) -> Result<Decision, Refusal> {
    let key = step.request.holding_key();
    step.done(key.map(|key| AssignmentWork::Remove(key).into()))
}

/// The outcome of the worker that has the lease.
pub(super) fn finished(
    step: Step<'_>,
    lease: Lease,
    outcome: AssignmentOutcome,
) -> Result<Decision, Refusal> {
    match (step.request.state.clone(), outcome) {
        (State::Approved, AssignmentOutcome::Prepared(found)) => grant::prepared(step, found),
        (State::Approved, AssignmentOutcome::NoUser { why }) => step.end_in_error(why, None),
        (State::Assigning, AssignmentOutcome::Created) => grant::granted(step),
        // The request was revoked during the create, or an operator wrote a status into the store.
        // P6: the create counts as in flight until this request has removed what it made, because
        // another holder may have looked before it took effect.
        (State::Removing { .. }, AssignmentOutcome::Created) => go_on_with_removal(step),
        (State::Unsettled { end, doubt }, AssignmentOutcome::Created) => {
            unsettled::verify(step, lease, *end, doubt)
        }
        (State::Removing { ending }, AssignmentOutcome::Gone) => removal::gone(step, ending),
        // P1: jit may have made what AWS shows, or may still make it.
        (
            State::Checking { .. } | State::Unsettled { .. },
            AssignmentOutcome::Gone | AssignmentOutcome::StillThere,
        ) if step.may_appear() && !step.is_shared() => removal::look_again(step),
        (State::Checking { by, reason, .. }, AssignmentOutcome::Gone) => {
            removal::gone_after_error(step, by, reason)
        }
        (State::Checking { by, .. }, AssignmentOutcome::StillThere) => {
            removal::present_after_error(step, &by)
        }
        (
            State::Unsettled { end, doubt },
            seen @ (AssignmentOutcome::Gone | AssignmentOutcome::StillThere),
        ) => unsettled::looked(step, lease, (*end, doubt), &seen),
        (
            State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_),
            outcome,
        ) => old_credentials::finished(step, outcome),
        // A command of a person changed the state during the work.
        (
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Granted
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. },
            AssignmentOutcome::Prepared(_)
            | AssignmentOutcome::NoUser { .. }
            | AssignmentOutcome::Created
            | AssignmentOutcome::Gone
            | AssignmentOutcome::OldCredentialsDenied { .. }
            | AssignmentOutcome::OldCredentialsGone
            | AssignmentOutcome::DenyLifted
            | AssignmentOutcome::StillThere,
        ) => step.give_back(),
    }
}

/// Why jit refuses an assignment from outside.
fn not_ours(step: &Step<'_>) -> Text {
    let (set, account) = (
        &step.request.asked.permission_set,
        &step.request.asked.account_id,
    );
    Text::clip(&format!(
        "this user has an assignment of {set} in {account} that this request did not make; \
         jit does not change it: remove it in Identity Center, or let its own request end"
    ))
}
