//! Whose approvals count: by the binding as it is when they are counted.

use super::fixtures::{alice, asked, bob, carol, later, minutes, policy, record};
use super::{Refusal, decide};
use crate::domain::{Ask, State};

#[test]
fn a_quorum_is_of_different_people_who_are_approvers_now() {
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
    // T5: an approval by somebody who is an approver no longer does not count.
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
    narrowed.request.extension = record("Extending").request.extension;
    let approved = decide(narrowed, &policy(), asked(bob(), Ask::Approve), later());
    assert!(matches!(approved, Err(Refusal::SetNotAllowed { .. })));
}

// K10
#[test]
fn an_own_approval_does_not_count_once_self_approval_is_forbidden() {
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
fn an_approver_says_it_again_where_fewer_approvals_are_needed_by_now() {
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
    assert_eq!(again.request.approvals.len(), 1, "it is counted once");
}
