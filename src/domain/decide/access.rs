//! The parts of a decision that depend on the form of the access: each form has its own rules.

use super::assignment;
use super::step::Step;
use super::{Decision, Refusal};
use crate::domain::{
    AccessForm, AssignmentCalls, Calls, Lease, LeaseToken, Outcome, Person, Proof, Text,
    WorkFailure,
};

impl Step<'_> {
    /// A revoke begins: the access ends for this request, and for the others that have it.
    pub fn end_access(&mut self, by: Option<&Person>, reason: Option<&Text>) {
        match self.request.access.form() {
            AccessForm::Assignment => {
                self.end_others(by, reason);
                self.mark_removing();
            }
        }
    }

    /// The request has ended and needs its access no more.
    pub fn release_access(&mut self) {
        match self.request.access.form() {
            AccessForm::Assignment => self.leave(),
        }
    }
}

/// The work of a request that is due.
pub(super) fn due(step: Step<'_>, lease: Lease) -> Result<Decision, Refusal> {
    match step.request.access.form() {
        AccessForm::Assignment => assignment::due(step, lease),
    }
}

/// The outcome of the worker that has the lease, and the calls that it sent.
pub(super) fn finished(
    mut step: Step<'_>,
    lease: Lease,
    outcome: Outcome,
    calls: Option<&Calls>,
) -> Result<Decision, Refusal> {
    match calls {
        Some(Calls::Assignment(calls)) => step.note_calls(lease.token, calls),
        None => {}
    }
    match outcome {
        Outcome::Assignment(outcome) => assignment::finished(step, lease, outcome),
        Outcome::Failed(failure) => failed(step, &failure),
        Outcome::Interrupted => step.give_back(),
    }
}

fn failed(step: Step<'_>, failure: &WorkFailure) -> Result<Decision, Refusal> {
    match step.request.access.form() {
        AccessForm::Assignment => assignment::failed(step, failure),
    }
}

/// The outcome of a worker that lost its lease.
pub(super) fn late(
    step: Step<'_>,
    token: LeaseToken,
    outcome: &Outcome,
    calls: Option<&Calls>,
) -> Result<Decision, Refusal> {
    match step.request.access.form() {
        AccessForm::Assignment => {
            let calls = match calls {
                Some(Calls::Assignment(calls)) => calls,
                None => &AssignmentCalls::default(),
            };
            assignment::late(step, token, outcome, calls)
        }
    }
}

/// An operator removed the access by hand.
pub(super) fn cleaned_up(
    step: Step<'_>,
    by: &Person,
    (reason, credentials): (Text, &Text),
    proof: Proof,
) -> Result<Decision, Refusal> {
    match step.request.access.form() {
        AccessForm::Assignment => {
            let proof = match proof {
                Proof::Assignment(proof) => Some(proof),
                Proof::None => None,
            };
            assignment::cleaned_up(step, by, (reason, credentials), proof)
        }
    }
}

/// AWS shows the access of a settled request.
pub(super) fn found_present(
    step: Step<'_>,
    by: Option<&Person>,
    credentials: &Text,
    revision: u64,
) -> Result<Decision, Refusal> {
    match step.request.access.form() {
        AccessForm::Assignment => assignment::found_present(step, by, credentials, revision),
    }
}
