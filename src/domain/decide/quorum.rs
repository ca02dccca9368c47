//! Tests of the quorum: approvals are counted by the terms of the binding at the time of the
//! count.

use super::fixtures::{alice, asked, bob, carol, later, minutes, policy, record};
use super::{Refusal, decide};
use crate::domain::{Ask, State};

#[test]
fn a_quorum_counts_each_current_approver_once() {
    let mut record = record("Pending");
    record.binding.as_mut().unwrap().approvals_required = 2;
    let once = decide(
        record.clone(),
        &policy(),
        asked(bob(), Ask::Approve),
        later(),
    )
    .unwrap();
    assert_eq!(once.request.state, State::Pending);
    record.request = once.request;
    let again = decide(
        record.clone(),
        &policy(),
        asked(bob(), Ask::Approve),
        later(),
    );
    assert!(matches!(again, Err(Refusal::AlreadyApproved { .. })));
    // T5: the approval of a former approver does not count.
    let mut changed = record.clone();
    let binding = changed.binding.as_mut().unwrap();
    binding
        .approvers
        .retain(|approver| approver.as_str() != "bob");
    let second = decide(changed, &policy(), asked(carol(), Ask::Approve), later()).unwrap();
    assert_eq!(second.request.state, State::Pending);
    let second = decide(record, &policy(), asked(carol(), Ask::Approve), later()).unwrap();
    assert_eq!(second.request.state, State::Approved);
}

// K10
#[test]
fn an_extension_is_refused_for_a_set_that_the_binding_no_longer_allows() {
    let extend = || {
        let minutes = minutes(30);
        asked(alice(), Ask::Extend { minutes })
    };
    assert!(decide(record("Granted"), &policy(), extend(), later()).is_ok());
    let mut narrowed = record("Granted");
    narrowed.binding.as_mut().unwrap().permission_sets = vec!["readonly".parse().unwrap()];
    let refused = decide(narrowed.clone(), &policy(), extend(), later()).unwrap_err();
    assert!(
        matches!(refused, Refusal::SetNotAllowed { .. }),
        "{refused}"
    );
    narrowed.request.grant.extension = record("Extending").request.grant.extension;
    let approved = decide(narrowed, &policy(), asked(bob(), Ask::Approve), later());
    assert!(matches!(approved, Err(Refusal::SetNotAllowed { .. })));
}

// K10
#[test]
fn an_own_approval_does_not_count_after_self_approval_is_forbidden() {
    let mut record = record("Pending");
    let binding = record.binding.as_mut().unwrap();
    (binding.approvals_required, binding.allow_self_approval) = (2, true);
    let own = decide(
        record.clone(),
        &policy(),
        asked(alice(), Ask::Approve),
        later(),
    )
    .unwrap();
    record.request = own.request;
    record.binding.as_mut().unwrap().allow_self_approval = false;
    let second = decide(
        record.clone(),
        &policy(),
        asked(bob(), Ask::Approve),
        later(),
    )
    .unwrap();
    assert_eq!(second.request.state, State::Pending);
    record.request = second.request;
    let third = decide(record, &policy(), asked(carol(), Ask::Approve), later()).unwrap();
    assert_eq!(third.request.state, State::Approved);
}

// K10
#[test]
fn a_repeated_approval_approves_after_the_quorum_was_lowered() {
    let mut record = record("Pending");
    let binding = record.binding.as_mut().unwrap();
    binding.approvals_required = 2;
    binding.approvers = vec!["bob".parse().unwrap()];
    let once = decide(
        record.clone(),
        &policy(),
        asked(bob(), Ask::Approve),
        later(),
    )
    .unwrap();
    record.request = once.request;
    record.binding.as_mut().unwrap().approvals_required = 1;
    let again = decide(record, &policy(), asked(bob(), Ask::Approve), later()).unwrap();
    assert_eq!(again.request.state, State::Approved);
    assert_eq!(
        again.request.approvals.given.len(),
        1,
        "a repeated approval is counted once"
    );
}
