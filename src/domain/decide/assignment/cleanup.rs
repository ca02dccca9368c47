//! Cleanup: an operator removed the assignment by hand, and the record is corrected.

use super::super::step::{Step, details, words};
use super::super::{Decision, Refusal};
use super::old_credentials;
use super::unsettled::settle;
use crate::domain::{AssignmentProof, Doubt, EventKind, Holding, Person, State, Text};

pub(in crate::domain::decide) fn cleaned_up(
    step: Step<'_>,
    by: &Person,
    (reason, credentials): (Text, &Text),
    proof: Option<AssignmentProof>,
) -> Result<Decision, Refusal> {
    match (step.request.state.clone(), proof) {
        (State::Granted | State::Removing { .. }, Some(proof)) => {
            check_proof(&step, proof)?;
            gone(step, by, reason, credentials)
        }
        (State::Granted | State::Removing { .. }, None) => {
            end_unverified(step, by, reason, credentials)
        }
        // An operator wrote a status into the store, and this cleanup asked AWS about it.
        (State::Unsettled { end, doubt }, Some(proof)) => {
            check_proof(&step, proof)?;
            settle(step, *end, doubt)
        }
        (State::Unsettled { .. }, None)
        | (
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Checking { .. }
            | State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_),
            Some(_) | None,
        ) => Err(Refusal::WrongState {
            status: step.request.status(),
            done: "cleaned up",
            hint: "; a cleanup needs a request that is GRANTED",
        }),
    }
}

/// K1, K3: a look that shows no assignment proves that the access is gone only if the caller
/// has the lease of the request, and no create may still take effect: neither a create of this
/// request nor one of another holder. A create that was in flight during the look changed the
/// holding when it was answered.
fn check_proof(step: &Step<'_>, proof: AssignmentProof) -> Result<(), Refusal> {
    let AssignmentProof { lease, revision } = proof;
    let present = step.request.schedule.lease;
    if present.is_none_or(|present| present.token != lease) {
        return Err(Refusal::Leased { lease: present });
    }
    let id = step.request.id;
    let is_creating = |holding: &Holding| holding.creating.contains(&id);
    if step.holding().is_some_and(is_creating) {
        let why = "a create of this request may still take effect; remove the access with: \
                   jit break-glass revoke ID --reason TEXT";
        return Err(Refusal::NotGone { why });
    }
    if step.may_appear() {
        let why = "a create of the same assignment may still take effect; remove the access \
                   with: jit break-glass revoke ID --reason TEXT";
        return Err(Refusal::NotGone { why });
    }
    if step.holding().map(|holding| holding.revision) != revision {
        let why = "another request for the same access changed its record while AWS was asked; \
                   run this command again";
        return Err(Refusal::NotGone { why });
    }
    Ok(())
}

/// The assignment is gone, so every holder loses it.
fn gone(
    mut step: Step<'_>,
    by: &Person,
    reason: Text,
    credentials: &Text,
) -> Result<Decision, Refusal> {
    step.end_access(Some(by), Some(&reason));
    old_credentials::end(&mut step);
    let at = step.now;
    let said = details([
        ("reason", Some(reason.to_string())),
        ("cleanup", Some("AWS shows that it is gone".to_owned())),
        ("credentials", words(Some(credentials))),
    ]);
    let state = State::Revoked {
        by: Some(by.clone()),
        reason: Some(reason),
        at,
    };
    step.end(state, EventKind::Revoked, Some(by), said)
}

/// Stores the operator's statement as an unverified end. jit sends no notice until a worker
/// has asked AWS.
fn end_unverified(
    mut step: Step<'_>,
    by: &Person,
    reason: Text,
    credentials: &Text,
) -> Result<Decision, Refusal> {
    let said = details([
        ("reason", Some(reason.to_string())),
        (
            "cleanup",
            Some("not verified: AWS was not asked".to_owned()),
        ),
        ("credentials", words(Some(credentials))),
    ]);
    let end = State::Revoked {
        by: Some(by.clone()),
        reason: Some(reason),
        at: step.now,
    };
    step.set_state(State::Unsettled {
        end: Box::new(end),
        doubt: Doubt::Outside,
    });
    step.request.grant.extension = None;
    // The lease stays: the worker that has it may have sent calls that still take effect.
    step.request.schedule.due_at = Some(step.now);
    step.record(EventKind::CleanedUp, Some(by), said);
    step.done(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{bob, holding_of, id, later, lease, policy, record};
    use crate::domain::decide::{Record, decide};
    use crate::domain::{Command, LeaseToken, Proof, Status};

    fn seen_gone() -> Proof {
        let lease = lease().token;
        let revision = Some(0);
        Proof::Assignment(AssignmentProof { lease, revision })
    }

    fn cleaned(record: Record, proof: Proof) -> Result<Decision, Refusal> {
        let command = Command::CleanedUp {
            by: bob(),
            reason: Text::clip("by hand"),
            credentials: Text::clip("arn"),
            proof,
        };
        decide(record, &policy(), command, later())
    }

    /// P6: the create of another holder was answered after the look.
    #[test]
    fn a_cleanup_refuses_a_look_from_before_a_change_of_the_holding() {
        let mut shared = record("Granted");
        let holding = holding_of(&mut shared);
        holding.holders.insert(id(2));
        holding.revision += 1;
        let refused = cleaned(shared, seen_gone()).unwrap_err();
        assert!(matches!(refused, Refusal::NotGone { .. }), "{refused}");
    }

    // B4
    #[test]
    fn b4_a_cleanup_records_the_aws_credentials_of_its_operator() {
        for proof in [seen_gone(), Proof::None] {
            let decision = cleaned(record("Granted"), proof).unwrap();
            assert_eq!(decision.events[0].details["credentials"], "arn");
        }
    }

    // P4
    #[test]
    fn a_verified_cleanup_ends_all_holders() {
        let mut shared = record("Granted");
        holding_of(&mut shared).holders.insert(id(2));
        let decision = cleaned(shared, seen_gone()).unwrap();
        assert_eq!(decision.access.co_holders().unwrap().requests, [id(2)]);
        let left = decision.access.holding().unwrap();
        assert!(left.removing && !left.holders.contains(&decision.request.id));
    }

    // P6
    #[test]
    fn a_verified_cleanup_is_refused_while_another_create_may_take_effect() {
        let mut shared = record("Granted");
        let holding = holding_of(&mut shared);
        holding.holders.insert(id(2));
        holding.creating.insert(id(2));
        let refused = cleaned(shared, seen_gone()).unwrap_err();
        assert!(matches!(refused, Refusal::NotGone { .. }), "{refused}");
    }

    // K3
    #[test]
    fn a_verified_cleanup_is_refused_while_the_own_create_may_take_effect() {
        let mut making = record("Revoking");
        let id = making.request.id;
        holding_of(&mut making).creating.insert(id);
        let refused = cleaned(making, seen_gone()).unwrap_err();
        assert!(matches!(refused, Refusal::NotGone { .. }), "{refused}");

        let call = LeaseToken(uuid::Uuid::from_u128(5));
        let mut unanswered = record("Granted");
        holding_of(&mut unanswered).unanswered_create = Some(call);
        let refused = cleaned(unanswered, seen_gone()).unwrap_err();
        assert!(matches!(refused, Refusal::NotGone { .. }), "{refused}");
    }

    // K1, K2
    #[test]
    fn a_verified_cleanup_is_refused_without_the_lease() {
        for leased in [None, Some(LeaseToken(uuid::Uuid::from_u128(6)))] {
            let mut removing = record("Revoking");
            let other = |token| crate::domain::Lease { token, ..lease() };
            removing.request.schedule.lease = leased.map(other);
            let refused = cleaned(removing, seen_gone()).unwrap_err();
            assert!(matches!(refused, Refusal::Leased { .. }), "{refused}");
        }
    }

    /// The worker that has the lease keeps it: calls that it sent may take effect until the lease
    /// has lapsed. The next worker asks AWS.
    #[test]
    fn an_unverified_cleanup_is_due_at_once_and_ends_no_lease() {
        let decision = cleaned(record("Revoking"), Proof::None).unwrap();
        let request = &decision.request;
        assert_eq!(request.status(), Status::Revoked);
        assert_eq!(
            (request.schedule.lease, request.schedule.due_at),
            (Some(lease()), Some(later()))
        );
        assert!(decision.notices.is_empty() && !request.state.is_settled());
        assert_eq!(decision.events[0].event_type, EventKind::CleanedUp);
    }
}
