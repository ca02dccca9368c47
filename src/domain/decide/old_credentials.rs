//! Old credentials of a settled request: a deny statement ends them, and jit removes that
//! statement when the last of them has expired.

use super::step::{Details, Step, details};
use super::{Decision, Refusal};
use crate::domain::{
    EventKind, HoldingKey, Lease, Millis, OldCredentials, RequestId, Timestamp, Work,
};

/// The longest session that a permission set can have.
const LONGEST_SESSION: Millis = Millis::hours(12);

/// The work of a settled request that is due.
pub(super) fn old_credentials(
    step: Step<'_>,
    lease: Lease,
    key: Option<HoldingKey>,
) -> Result<Decision, Refusal> {
    match (step.request.sessions, key) {
        (Some(OldCredentials::Ending { before }), Some(key)) => {
            step.lease(lease, Work::EndSessions(key, before))
        }
        (Some(OldCredentials::Denied { .. }), Some(key)) => step.lease(lease, Work::LiftDeny(key)),
        (Some(_), None) | (None, _) => step.nothing_left(),
    }
}

/// Sets the next step about old credentials, gives the lease back and records the event.
pub(super) fn follow_up(
    mut step: Step<'_>,
    sessions: Option<OldCredentials>,
    kind: EventKind,
    said: Details,
) -> Result<Decision, Refusal> {
    let now = step.now;
    step.request.sessions = sessions;
    step.request.trouble = None;
    step.request.lease = None;
    step.request.due_at = sessions.map(|sessions| sessions.due_at(now));
    step.record(kind, None, said);
    step.done(None)
}

pub(super) fn sessions_denied(
    step: Step<'_>,
    until: Timestamp,
    dropped: &[RequestId],
) -> Result<Decision, Refusal> {
    let dropped: Vec<String> = dropped.iter().map(ToString::to_string).collect();
    let said = details([
        ("until", Some(until.to_string())),
        (
            "dropped",
            Some(dropped.join(",")).filter(|ids| !ids.is_empty()),
        ),
    ]);
    let denied = Some(OldCredentials::Denied { until });
    follow_up(step, denied, EventKind::SessionsDenied, said)
}

pub(super) fn is_ending(step: &Step<'_>) -> bool {
    let ending = matches!(step.request.sessions, Some(OldCredentials::Ending { .. }));
    ending && step.request.state.is_settled()
}

pub(super) fn is_denied(step: &Step<'_>) -> bool {
    let denied = matches!(step.request.sessions, Some(OldCredentials::Denied { .. }));
    denied && step.request.state.is_settled()
}

pub(super) fn is_over_by_itself(step: &Step<'_>) -> bool {
    match step.request.sessions {
        Some(OldCredentials::Ending { before }) => {
            is_ending(step) && step.now - before >= LONGEST_SESSION
        }
        Some(OldCredentials::Denied { .. }) | None => false,
    }
}
