//! Tests of decisions on what a card or a dialog showed.

use super::fixtures::{asked, bob, later, minutes, policy, record};
use super::{Decision, Record, Refusal, decide};
use crate::domain::{Ask, Command, EventKind, Millis, Status, Subject};

fn on_shown(record: Record, ask: Ask, shown: Subject) -> Result<Decision, Refusal> {
    let by = bob();
    let command = Command::DecidedOnShown { by, ask, shown };
    decide(record, &policy(), command, later())
}

fn deny() -> Ask {
    Ask::Deny { reason: None }
}

/// W15: an extension took the place of the one that the approver saw, between the look of the click
/// and its command.
#[test]
fn w15_only_what_was_shown_is_decided() {
    let waiting = |record: &Record| Subject::waiting(&record.request).unwrap();
    let shown = waiting(&record("Extending"));
    let longer = || {
        let mut longer = record("Extending");
        let extension = longer.request.grant.extension.as_mut();
        extension.unwrap().minutes = minutes(180);
        longer
    };
    let after_another_end = || {
        let mut moved = record("Extending");
        let period = moved.request.grant.period.as_mut().unwrap();
        period.until = period.until + Millis::minutes(30);
        moved
    };
    for ask in [Ask::Approve, deny()] {
        for (record, seen) in [
            (longer(), shown),
            (after_another_end(), shown),
            (record("Extending"), Subject::Request),
            (record("Pending"), shown),
        ] {
            let refused = on_shown(record, ask.clone(), seen).unwrap_err();
            let is_it = matches!(refused, Refusal::NotWhatWasShown { .. });
            assert!(is_it, "{ask:?} {seen}: {refused}");
        }
        for word in ["Pending", "Extending"] {
            let now = waiting(&record(word));
            let done = on_shown(record(word), ask.clone(), now);
            let plain = decide(record(word), &policy(), asked(bob(), ask.clone()), later());
            assert_eq!(done, plain, "{word} {ask:?}");
            assert!(done.is_ok());
        }
    }
}

/// If nothing waits any more, the person learns the state.
#[test]
fn a_decision_on_what_was_shown_is_refused_by_the_state_if_nothing_waits() {
    for word in ["Granted", "Revoking", "Denied"] {
        let refused = on_shown(record(word), Ask::Approve, Subject::Request).unwrap_err();
        let is_it = matches!(refused, Refusal::WrongState { .. });
        assert!(is_it, "{word}: {refused}");
    }
    let approved = on_shown(record("Pending"), Ask::Approve, Subject::Request).unwrap();
    assert_eq!(approved.request.status(), Status::Approved);
    assert_eq!(approved.events[0].event_type, EventKind::Approved);
}
