//! Assignments that the record does not expect: an answer of AWS that comes after its worker
//! lost the lease, or an assignment that an operator sees in AWS.

use super::super::step::{Details, Step, details, words};
use super::super::{Decision, Refusal};
use super::removal::remove_after_error;
use crate::domain::{
    AssignmentCall, AssignmentCalls, AssignmentOutcome, Doubt, EventKind, LeaseToken, Outcome,
    Person, State, Text,
};

/// An outcome from a worker that lost its lease. It does not show the present state of AWS. It
/// shows only that the assignment which the worker made may exist, and that calls which it
/// sent may still take effect.
pub(in crate::domain::decide) fn late(
    mut step: Step<'_>,
    token: LeaseToken,
    outcome: &Outcome,
    calls: &AssignmentCalls,
) -> Result<Decision, Refusal> {
    let made = *outcome == Outcome::Assignment(AssignmentOutcome::Created);
    // A call that ended within the lease took effect before another worker looked at AWS.
    let may_follow = calls.overran || !step.request.state.is_settled();
    let unanswered = calls.unanswered.filter(|_| may_follow);
    if !(made || unanswered.is_some()) || step.holding().is_none() {
        let lease = step.request.schedule.lease;
        return Err(Refusal::Leased { lease });
    }
    if let Some(call) = unanswered {
        step.note_calls(token, &AssignmentCalls::unanswered(call));
    }
    let may_exist = made || unanswered == Some(AssignmentCall::Create);
    if may_exist && may_be_stray(&step) {
        let why = (!made).then(|| "AWS did not answer a create, which may take effect".to_owned());
        return stray(step, None, details([("how", why)]));
    }
    match made {
        true => made_late(step, token),
        false => step.done(None),
    }
}

/// AWS made the assignment, and the worker that has the lease now may have looked before that.
fn made_late(mut step: Step<'_>, token: LeaseToken) -> Result<Decision, Refusal> {
    step.note_calls(token, &AssignmentCalls::unanswered(AssignmentCall::Create));
    match step.request.state.clone() {
        // The revoke of a request that ended in ERROR: the assignment exists, and this request
        // made it.
        State::Checking { by, reason, .. } if !step.is_shared() => {
            let why = "AWS made the assignment after the request ended".to_owned();
            remove_after_error(&mut step, by, reason, details([("error", Some(why))]));
        }
        State::Removing { .. } | State::Unsettled { .. } => {
            step.request.schedule.due_at = Some(step.now);
        }
        // The grant keeps the assignment until its own end. For a settled request with other
        // holders, the end of the last holder removes it.
        State::Pending
        | State::Approved
        | State::Assigning
        | State::Granted
        | State::Checking { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => {}
    }
    step.done(None)
}

/// An operator saw in AWS an assignment that this settled request may have left behind, and
/// wants it removed. P4: not for a request that ended in ERROR. jit refused the assignment as
/// one from outside, or saw that it was gone, and told people that it does not change it.
pub(in crate::domain::decide) fn found_present(
    step: Step<'_>,
    by: Option<&Person>,
    credentials: &Text,
    revision: u64,
) -> Result<Decision, Refusal> {
    let seen = step.holding().map(|holding| holding.revision);
    let hint = if step.request.state.is_error() {
        "; it ended in ERROR, so jit did not make the assignment: remove it in Identity Center"
    } else if !may_be_stray(&step) {
        "; it is not settled, or another request holds the same assignment"
    } else if seen != Some(revision) {
        "; another request had the same assignment after AWS was asked: run the command again"
    } else {
        let how = Some("compared with Identity Center".to_owned());
        let credentials = words(Some(credentials));
        let said = details([("source", how), ("credentials", credentials)]);
        return stray(step, by, said);
    };
    Err(Refusal::WrongState {
        status: step.request.status(),
        done: "cleaned up",
        hint,
    })
}

fn may_be_stray(step: &Step<'_>) -> bool {
    step.request.state.is_settled() && step.request.access.was_begun() && !step.is_shared()
}

/// The assignment exists and no request holds it: this request takes it over and has it
/// removed.
fn stray(mut step: Step<'_>, by: Option<&Person>, said: Details) -> Result<Decision, Refusal> {
    let end = Box::new(step.request.state.clone());
    step.take_over();
    step.set_state(State::Unsettled {
        end,
        doubt: Doubt::LateAnswer,
    });
    step.request.schedule.due_at = Some(step.now);
    step.record(EventKind::StrayAccessFound, by, said);
    step.done(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Command;
    use crate::domain::decide::decide;
    use crate::domain::decide::fixtures::{bob, holding_of, later, policy, record};

    fn seen(revision: u64) -> Command {
        Command::FoundPresent {
            by: Some(bob()),
            credentials: Text::clip("arn"),
            revision,
        }
    }

    fn found(state: &str, revision: u64) -> Result<Decision, Refusal> {
        let found = seen(revision);
        decide(record(state), &policy(), found, later())
    }

    // P4
    #[test]
    fn an_assignment_that_another_request_had_meanwhile_is_not_removed() {
        let mut ended = record("Revoked");
        let revision = holding_of(&mut ended).revision;
        assert!(found("Revoked", revision).is_ok());
        holding_of(&mut ended).revision += 2;
        let found = seen(revision);
        let refused = decide(ended, &policy(), found, later()).unwrap_err();
        assert!(
            refused.to_string().contains("run the command again"),
            "{refused}"
        );
    }

    // B4
    #[test]
    fn b4_a_reconcile_records_the_aws_credentials_of_its_operator() {
        let mut ended = record("Revoked");
        let revision = holding_of(&mut ended).revision;
        let decision = found("Revoked", revision).unwrap();
        assert_eq!(decision.events[0].details["credentials"], "arn");
    }

    // P4
    #[test]
    fn a_request_that_ended_in_error_takes_no_assignment_over() {
        let refused = found("Error", 0).unwrap_err();
        assert!(
            refused.to_string().contains("jit did not make"),
            "{refused}"
        );
    }
}
