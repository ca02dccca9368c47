//! An operator has removed the assignment by hand, and the record follows.

use super::step::{Step, details};
use super::work::settle;
use super::{Decision, Refusal};
use crate::domain::{Doubt, EventKind, Holding, Person, Proof, State, Text};

pub(super) fn cleaned_up(
    step: Step<'_>,
    by: &Person,
    reason: Text,
    proof: Proof,
) -> Result<Decision, Refusal> {
    match (step.request.state.clone(), proof) {
        (State::Granted | State::Removing { .. }, Proof::SeenGone) => gone(step, by, reason),
        (State::Granted | State::Removing { .. }, Proof::None) => {
            taken_at_their_word(step, by, reason)
        }
        // Somebody wrote it into the store, and AWS has been asked now.
        (State::Unsettled { end, doubt }, Proof::SeenGone) => settle(step, *end, doubt),
        _ => Err(Refusal::WrongState {
            status: step.request.status(),
            done: "cleaned up after",
            hint: "; only access that is recorded as given can be",
        }),
    }
}

/// It is gone for everybody who shared it.
fn gone(mut step: Step<'_>, by: &Person, reason: Text) -> Result<Decision, Refusal> {
    if step.awaits_another() {
        let why = "another request for the same access is being carried out just now; revoke that one first";
        return Err(Refusal::NotGone { why });
    }
    step.end_others(Some(by), Some(&reason));
    step.change_holding(Holding::being_removed);
    let at = step.now;
    let said = details([
        ("reason", Some(reason.to_string())),
        ("cleanup", Some("AWS shows that it is gone".to_owned())),
    ]);
    let state = State::Revoked {
        by: Some(by.clone()),
        reason: Some(reason),
        at,
    };
    step.end(state, EventKind::Revoked, Some(by), said)
}

/// Their word stands, and stays in doubt until AWS has been asked: nobody is told before.
fn taken_at_their_word(mut step: Step<'_>, by: &Person, reason: Text) -> Result<Decision, Refusal> {
    let said = details([
        ("reason", Some(reason.to_string())),
        (
            "cleanup",
            Some("not verified: AWS was not asked".to_owned()),
        ),
    ]);
    let end = State::Revoked {
        by: Some(by.clone()),
        reason: Some(reason),
        at: step.now,
    };
    step.become_(State::Unsettled {
        end: Box::new(end),
        doubt: Doubt::Outside,
    });
    step.request.extension = None;
    step.request.lease = None;
    step.request.due_at = Some(step.now);
    step.record(EventKind::CleanedUp, Some(by), said);
    step.done(None)
}

#[cfg(test)]
mod tests {
    use super::super::cast::{bob, id, later, policy, record};
    use super::super::{Record, decide};
    use super::*;
    use crate::domain::{Command, Status};

    fn cleaned(record: Record, proof: Proof) -> Result<Decision, Refusal> {
        let command = Command::CleanedUp {
            by: bob(),
            reason: Text::clip("by hand"),
            proof,
        };
        decide(record, &policy(), command, later())
    }

    // P4
    #[test]
    fn what_is_gone_is_gone_for_all_who_shared_it() {
        let mut shared = record("Granted");
        shared.holding.as_mut().unwrap().holders.insert(id(2));
        let decision = cleaned(shared, Proof::SeenGone).unwrap();
        assert_eq!(decision.also.unwrap().requests, [id(2)]);
        let left = decision.holding.unwrap();
        assert!(left.removing && !left.holders.contains(&decision.request.id));
    }

    // P6
    #[test]
    fn none_proves_nothing_while_another_is_being_made() {
        let mut shared = record("Granted");
        let holding = shared.holding.as_mut().unwrap();
        holding.holders.insert(id(2));
        holding.creating.insert(id(2));
        let refused = cleaned(shared, Proof::SeenGone).unwrap_err();
        assert!(matches!(refused, Refusal::NotGone { .. }), "{refused}");
    }

    /// Whoever is at work on it has nothing more to say; the next who comes asks AWS at once.
    #[test]
    fn a_word_alone_is_due_at_once_and_nobody_hears_of_it() {
        let decision = cleaned(record("Revoking"), Proof::None).unwrap();
        let request = &decision.request;
        assert_eq!(request.status(), Status::Revoked);
        assert_eq!((request.lease, request.due_at), (None, Some(later())));
        assert!(decision.notices.is_empty() && !request.state.is_settled());
        assert_eq!(decision.events[0].event_type, EventKind::CleanedUp);
    }
}
