//! Tests about calls in flight: a create or a delete that AWS has not answered may still take
//! effect, and no decision forgets it.

use crate::domain::decide::fixtures::{
    due_at, finished, holding_of, id, later, lease, policy, prepared, record,
};
use crate::domain::decide::{Decision, Record, decide};
use crate::domain::{
    AssignmentCall, AssignmentCalls, AssignmentOutcome, AssignmentWork, Calls, Command, Doubt,
    Holding, LeaseToken, Outcome, Presence, Refusal, State, Status, Text, WorkFailure,
};
use uuid::Uuid;

fn report(record: Record, outcome: impl Into<Outcome>, calls: AssignmentCalls) -> Decision {
    let finished = Command::Finished {
        lease: lease().token,
        outcome: outcome.into(),
        calls: Some(Calls::Assignment(calls)),
    };
    decide(record, &policy(), finished, later()).unwrap()
}

/// P4: a delete is waited out by itself, even if a create of the same lease has been waited out.
#[test]
fn each_unanswered_call_of_a_lease_is_waited_out_by_itself() {
    let interrupted = |record: Record, calls| {
        let mut request = record.request.clone();
        request.schedule.lease = Some(lease());
        let record = Record { request, ..record };
        let decision = report(record.clone(), Outcome::Interrupted, calls);
        Record {
            request: decision.request,
            access: record.access.clone().after(&decision.access),
            ..record
        }
    };
    let record = interrupted(
        record("Revoking"),
        AssignmentCalls::unanswered(AssignmentCall::Create),
    );
    let create = record.access.holding().unwrap().unanswered_create;
    let record = interrupted(record, AssignmentCalls::unanswered(AssignmentCall::Delete));
    let over = AssignmentCalls {
        waited_out: create.into_iter().collect(),
        ..AssignmentCalls::default()
    };
    let record = interrupted(record, over);
    let holding = record.access.holding().unwrap();
    assert_eq!(holding.unanswered_create, None);
    assert!(holding.unanswered_delete.is_some());
}

fn check_that_gone_is_refused(record: Record) {
    let decision = decide(
        record,
        &policy(),
        finished(AssignmentOutcome::Gone),
        later(),
    )
    .unwrap();
    let state = &decision.request.state;
    assert!(matches!(state, State::Removing { .. }), "{state:?}");
    assert!(decision.request.schedule.due_at > Some(later()));
}

/// P6: while the create of another holder may still take effect, a look that shows no
/// assignment proves nothing.
#[test]
fn a_removal_is_not_recorded_while_the_create_of_another_holder_may_take_effect() {
    let mut record = record("Revoking");
    let holding = holding_of(&mut record);
    holding.holders.insert(id(7));
    holding.creating.insert(id(7));
    check_that_gone_is_refused(record);
}

/// P6: the same for an earlier create of this request that was never answered.
#[test]
fn a_removal_is_not_recorded_while_an_unanswered_create_may_take_effect() {
    let mut record = record("Revoking");
    let holding = holding_of(&mut record);
    holding.unanswered_create = Some(LeaseToken(Uuid::from_u128(7)));
    check_that_gone_is_refused(record);
}

/// P6: the create of a request that ends was answered. Another holder may have looked before it
/// took effect, so the create counts as in flight until its own request has removed the
/// assignment.
#[test]
fn an_answered_create_of_an_ending_request_stays_in_flight_for_other_holders() {
    for word in ["Revoking", "Unsettled"] {
        let mut shared = creating_beside_another(word);
        let before = holding_of(&mut shared);
        before.removing = true;
        let before = before.clone();
        let created = finished(AssignmentOutcome::Created);
        let decision = decide(shared, &policy(), created, later()).unwrap();
        let removal = AssignmentWork::Remove(before.key.clone());
        assert_eq!(decision.work, Some(removal.into()), "{word}");
        let holding = decision.access.holding().unwrap_or(&before);
        assert!(holding.awaits_another(id(7)), "{word}: {holding:?}");
    }
}

/// A request in this state that shares its assignment with another holder, and whose own create
/// may still take effect.
fn creating_beside_another(word: &str) -> Record {
    let mut shared = record(word);
    let holding = holding_of(&mut shared);
    holding.holders.extend([id(1), id(7)]);
    holding.creating.insert(id(1));
    shared
}

fn keeps_the_create(holding: &Holding) -> bool {
    !holding.holds(id(1)) && holding.holds(id(7)) && holding.unanswered_create.is_some()
}

/// P1: AWS may still carry out the create of a request that gives its grant up. The other holder
/// removes what the create makes.
#[test]
fn a_grant_that_is_given_up_leaves_its_create_to_the_other_holder() {
    let why = Text::clip("AWS refused the create operation");
    let mut shared = creating_beside_another("Assigning");
    shared.request.schedule.failures = Some(crate::domain::Failing {
        since: later(),
        attempts: 2,
        refusals: 2,
        why: why.clone(),
    });
    let failed = WorkFailure::Refused { why };
    let decision = report(shared, failed, AssignmentCalls::default());
    assert_eq!(decision.request.status(), Status::Error);
    assert!(keeps_the_create(decision.access.holding().unwrap()));
}

/// P1: the same after an operator wrote EXPIRED into the store.
#[test]
fn an_end_from_outside_leaves_the_create_to_the_other_holder() {
    let mut shared = creating_beside_another("Unsettled");
    shared.request.state = State::Unsettled {
        end: Box::new(State::Expired { at: later() }),
        doubt: Doubt::Outside,
    };
    shared.request.schedule.lease = None;
    let decision = decide(shared, &policy(), due_at(later()), later()).unwrap();
    assert_eq!(decision.request.status(), Status::Expired);
    assert!(decision.request.state.is_settled());
    assert!(keeps_the_create(decision.access.holding().unwrap()));
}

/// P1: a worker that was suspended after its last check sends its create late. It lost its lease,
/// and the request is settled.
#[test]
fn a_late_create_without_an_answer_is_removed_like_one_that_was_made() {
    for word in ["Expired", "Revoked", "Error"] {
        let calls = AssignmentCalls {
            overran: true,
            ..AssignmentCalls::unanswered(AssignmentCall::Create)
        };
        let decision = report(record(word), Outcome::Interrupted, calls);
        let state = &decision.request.state;
        assert!(
            matches!(state, State::Unsettled { .. }),
            "{word}: {state:?}"
        );
        assert_eq!(decision.request.schedule.due_at, Some(later()), "{word}");
        let holding = decision.access.holding().unwrap();
        assert!(holding.removing && holding.holds(id(1)), "{word}");
        assert!(holding.unanswered_create.is_some(), "{word}");
    }
}

/// P4: a create that ended within its lease took effect before another worker looked at AWS. What
/// AWS shows since then may be an assignment from outside.
#[test]
fn a_late_report_of_a_create_within_its_lease_changes_nothing() {
    for word in ["Expired", "Revoked", "Error"] {
        let calls = AssignmentCalls::unanswered(AssignmentCall::Create);
        let finished = Command::Finished {
            lease: lease().token,
            outcome: Outcome::Interrupted,
            calls: Some(Calls::Assignment(calls)),
        };
        let refused = decide(record(word), &policy(), finished, later()).unwrap_err();
        assert!(
            matches!(refused, Refusal::Leased { .. }),
            "{word}: {refused}"
        );
    }
}

/// P1: while a create may take effect, an assignment that AWS shows may be the one that jit made.
#[test]
fn a_request_does_not_end_on_a_foreign_assignment_while_a_create_may_take_effect() {
    for word in ["Checking", "Unsettled"] {
        let mut looked = record(word);
        let holding = holding_of(&mut looked);
        holding.holders.clear();
        holding.unanswered_create = Some(LeaseToken(Uuid::from_u128(7)));
        let there = finished(AssignmentOutcome::StillThere);
        let decision = decide(looked, &policy(), there, later()).unwrap();
        assert!(!decision.request.state.is_settled(), "{word}");
        assert!(decision.request.schedule.due_at > Some(later()), "{word}");
    }
}

/// P4: a delete in flight would remove a new assignment, so the worker prepares again.
#[test]
fn no_create_is_sent_while_an_unanswered_delete_may_take_effect() {
    for held_by in [None, Some(id(7))] {
        let mut approved = record("Approved");
        let holding = holding_of(&mut approved);
        holding.unanswered_delete = Some(LeaseToken(Uuid::from_u128(7)));
        holding.holders = held_by.into_iter().collect();
        let prepared = finished(prepared(Presence::Absent, 0));
        let decision = decide(approved, &policy(), prepared, later()).unwrap();
        let again = Some(AssignmentWork::Prepare.into());
        assert_eq!(decision.work, again, "{held_by:?}");
        assert_eq!(decision.request.state, State::Approved, "{held_by:?}");
    }
}
