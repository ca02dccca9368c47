//! The grant: a prepared request asks for the create, and the create makes it GRANTED.

use super::super::at_start::{start_ahead, wait_for_start, withdrawn};
use super::super::step::{Step, details, words};
use super::super::{Decision, Refusal};
use super::{begin, failed, not_ours};
use crate::domain::assignment::{ARN_DETAIL, MOST_HOLDERS, USER_DETAIL};
use crate::domain::{
    AssignmentWork, Ending, EventKind, Holding, Lease, Period, Preparation, Presence, State, Text,
    WorkFailure,
};

pub(super) fn prepared(mut step: Step<'_>, found: Preparation) -> Result<Decision, Refusal> {
    // The clock was set back after the claim.
    if let Some(start) = start_ahead(&step) {
        return wait_for_start(step, start);
    }
    // B1: after this the create is sent.
    if let Some(why) = withdrawn(&step) {
        return step.end_revoked(None, Some(why));
    }
    let Some(holding) = step.holding().cloned() else {
        return step.done(Some(AssignmentWork::Prepare.into()));
    };
    // The look is older than the last change of the holding, or an earlier call may still take
    // effect: look again.
    let unsure = match holding.holders.is_empty() {
        true => holding.unanswered().next(),
        false => holding.unanswered_delete,
    };
    if holding.revision != found.revision || unsure.is_some() {
        return step.done(Some(AssignmentWork::Prepare.into()));
    }
    if let Some(failure) = cannot_join_yet(&holding, &found.permission_set_arn) {
        return failed(step, &failure);
    }
    if holding.holders.len() >= MOST_HOLDERS {
        let why = Text::clip(&format!(
            "{MOST_HOLDERS} requests hold the same access already: extend one of them instead"
        ));
        return step.end_in_error(why, None);
    }
    let user = Some(found.user.to_string());
    step.request.access.set_user(found.user);
    if found.presence == Presence::Present && holding.holders.is_empty() {
        let why = not_ours(&step);
        return step.end_in_error(why, None);
    }
    // After this commit a worker sends the create, so the commit stores the holder: its duty
    // to remove the assignment is written first.
    let id = step.request.id;
    let arn = found.permission_set_arn;
    step.change_holding(|holding| holding.joined(id).with_arn(arn.clone()));
    step.request.schedule.due_at = Some(step.now);
    step.set_state(State::Assigning);
    let said = details([(USER_DETAIL, user), (ARN_DETAIL, Some(arn))]);
    step.record(EventKind::Assigning, None, said);
    step.done(Some(AssignmentWork::Create(holding.key).into()))
}

/// Ends a request whose create was sent, and whose approval does not count any more. What the
/// create may have made is removed first.
pub(super) fn withdraw(mut step: Step<'_>, lease: Lease, why: Text) -> Result<Decision, Refusal> {
    if step.is_shared() {
        step.leave_to_others();
        // P6: the access of the others stands, so this is no REVOKED.
        return step.end_in_error(why, None);
    }
    let said = details([("reason", words(Some(&why)))]);
    step.mark_removing();
    step.request.schedule.due_at = Some(step.now);
    step.set_state(State::Removing {
        ending: Ending::Revoked {
            by: None,
            reason: Some(why),
            asked_at: step.now,
        },
    });
    step.record(EventKind::RevokeRequested, None, said);
    begin(step, lease, AssignmentWork::Remove)
}

/// Why a request has to wait before it can hold this assignment.
fn cannot_join_yet(holding: &Holding, arn: &str) -> Option<WorkFailure> {
    if holding.removing {
        let why = "jit is removing the same assignment; the grant follows after that";
        return Some(WorkFailure::passing(why));
    }
    let held_under = holding.permission_set_arn.as_ref();
    let other = held_under.filter(|then| *then != arn && !holding.holders.is_empty())?;
    let why = format!("the same assignment exists under another ARN: {other}");
    Some(WorkFailure::denied(&why))
}

pub(super) fn granted(mut step: Step<'_>) -> Result<Decision, Refusal> {
    let until = step.now + step.request.asked.duration.span();
    step.note_create_answered();
    step.request.grant.period = Some(Period {
        from: step.now,
        until,
    });
    step.request.schedule.due_at = Some(step.policy.wakes_at(until, step.now));
    step.request.schedule.lease = None;
    step.set_state(State::Granted);
    let request = &step.request;
    let said = details([
        (
            "duration_minutes",
            Some(request.asked.duration.get().to_string()),
        ),
        ("end_time", Some(until.to_string())),
        (
            "permission_set",
            Some(request.asked.permission_set.to_string()),
        ),
    ]);
    step.record(EventKind::Granted, None, said.clone());
    step.notify(None, said);
    step.done(None)
}
