//! News of an assignment that the record does not expect: an answer that comes after its
//! lease was lost, or an assignment that an operator sees in AWS.

use super::step::{Details, Step, details};
use super::{Decision, Refusal};
use crate::domain::{Calls, Doubt, Ending, EventKind, LeaseToken, Outcome, Person, State};

/// News from a worker whose lease is lost. What it says of AWS's past proves nothing
/// about now, except that an assignment it made may be standing, and that calls which it
/// sent may still take effect.
pub(super) fn late(
    mut step: Step<'_>,
    token: LeaseToken,
    outcome: &Outcome,
    calls: &Calls,
) -> Result<Decision, Refusal> {
    let made = *outcome == Outcome::Created;
    let is_news = made || calls.unanswered.is_some();
    if !is_news || step.held.is_none() {
        let lease = step.request.lease;
        return Err(Refusal::Leased { lease });
    }
    if made && may_be_stray(&step, &step.request.state) {
        return stray(step, None, details([]));
    }
    let unanswered = Calls {
        unanswered: calls.unanswered,
        ..Calls::default()
    };
    step.note_calls(token, &unanswered);
    if made {
        // The worker that has the lease now may have looked before it was made.
        step.change_holding(|held| held.made_late(token));
    }
    match (&step.request.state, made) {
        // A revoke of what ended in ERROR: it stands after all, and is this request's.
        (State::Checking { by, reason, .. }, true) if !step.is_shared() => {
            let (by, reason) = (by.clone(), reason.clone());
            step.take_over();
            let said = details([("error", Some("it was made after all".to_owned()))]);
            let asked_at = step.now;
            step.become_(State::Removing {
                ending: Ending::Revoked {
                    by: Some(by),
                    reason,
                    asked_at,
                },
            });
            step.record(EventKind::StrayAccessFound, None, said);
        }
        (State::Removing { .. } | State::Unsettled { .. }, true) => {
            step.request.due_at = Some(step.now);
        }
        // A grant keeps the assignment, and its end removes it; another holder's end does.
        (
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Granted
            | State::Checking { .. }
            | State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_),
            true,
        )
        | (_, false) => {}
    }
    step.done(None)
}

/// Somebody looked at AWS, and what they saw is what this request left behind.
pub(super) fn found_standing(step: Step<'_>, by: Option<&Person>) -> Result<Decision, Refusal> {
    if may_be_stray(&step, &step.request.state) {
        let how = Some("compared with Identity Center".to_owned());
        return stray(step, by, details([("source", how)]));
    }
    Err(Refusal::WrongState {
        status: step.request.status(),
        done: "cleaned up after",
        hint: "; it is not over, or somebody else holds the same access",
    })
}

fn may_be_stray(step: &Step<'_>, state: &State) -> bool {
    state.is_settled() && step.request.user.is_some() && !step.is_shared()
}

/// Access stands that nobody holds: the last who held it has it removed.
fn stray(mut step: Step<'_>, by: Option<&Person>, said: Details) -> Result<Decision, Refusal> {
    let end = Box::new(step.request.state.clone());
    step.take_over();
    step.become_(State::Unsettled {
        end,
        doubt: Doubt::LateAnswer,
    });
    step.request.due_at = Some(step.now);
    step.record(EventKind::StrayAccessFound, by, said);
    step.done(None)
}
