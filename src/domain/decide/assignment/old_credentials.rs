//! Old credentials of a settled request: a deny statement ends them, and jit removes that
//! statement when the last of them has expired.

use super::super::step::{Details, Step, details};
use super::super::{Decision, Refusal};
use super::begin;
use crate::domain::{
    AssignmentOutcome, AssignmentWork, EventKind, Lease, Millis, OldCredentials,
    OldCredentialsRule, RequestId, Text, Timestamp,
};

/// The longest session that a permission set can have.
const LONGEST_SESSION: Millis = Millis::hours(12);

/// The assignment of this request is gone, however it ended. Credentials that its person fetched
/// before may still work, and a worker denies them if the policy says so.
pub(super) fn end(step: &mut Step<'_>) {
    if step.policy.end_sessions == OldCredentialsRule::PermissionSet {
        let before = step.now;
        let ending = Some(OldCredentials::Ending { before });
        step.request.access.set_old_credentials(ending);
    }
}

/// The work of a settled request that is due.
pub(super) fn due(mut step: Step<'_>, lease: Lease) -> Result<Decision, Refusal> {
    match step.request.access.old_credentials() {
        Some(OldCredentials::Ending { before }) => {
            let deny = |key| AssignmentWork::DenyOldCredentials(key, before);
            begin(step, lease, deny)
        }
        // C: whatever the due time of the record is, the deny stays until the credentials expire.
        Some(OldCredentials::Denied { until }) if step.now < until => {
            step.request.schedule.due_at = Some(until);
            step.give_back()
        }
        Some(OldCredentials::Denied { .. }) => begin(step, lease, AssignmentWork::LiftDeny),
        None => step.nothing_left(),
    }
}

/// The outcome of the work for a settled request.
pub(super) fn finished(step: Step<'_>, outcome: AssignmentOutcome) -> Result<Decision, Refusal> {
    match (step.request.access.old_credentials(), outcome) {
        (
            Some(OldCredentials::Ending { .. }),
            AssignmentOutcome::OldCredentialsDenied { until, dropped },
        ) => denied(step, until, &dropped),
        (Some(OldCredentials::Ending { .. }), AssignmentOutcome::OldCredentialsGone) => gone(step),
        (Some(OldCredentials::Denied { .. }), AssignmentOutcome::DenyLifted) => deny_lifted(step),
        (
            Some(OldCredentials::Ending { .. } | OldCredentials::Denied { .. }) | None,
            AssignmentOutcome::Prepared(_)
            | AssignmentOutcome::NoUser { .. }
            | AssignmentOutcome::Created
            | AssignmentOutcome::Gone
            | AssignmentOutcome::StillThere
            | AssignmentOutcome::OldCredentialsDenied { .. }
            | AssignmentOutcome::OldCredentialsGone
            | AssignmentOutcome::DenyLifted,
        ) => step.give_back(),
    }
}

fn denied(step: Step<'_>, until: Timestamp, dropped: &[RequestId]) -> Result<Decision, Refusal> {
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

fn gone(step: Step<'_>) -> Result<Decision, Refusal> {
    let why = "the role is gone: no user has this set in this account";
    let said = details([("how", Some(why.to_owned()))]);
    follow_up(step, None, EventKind::SessionsEnded, said)
}

fn deny_lifted(step: Step<'_>) -> Result<Decision, Refusal> {
    follow_up(step, None, EventKind::SessionDenyLifted, details([]))
}

/// jit could not deny the old credentials before they expired. A failed try may have placed the
/// deny statement all the same, so jit removes it as usual.
pub(super) fn not_denied(step: Step<'_>, why: &Text) -> Result<Decision, Refusal> {
    let said = details([("error", Some(why.to_string()))]);
    let lift = Some(OldCredentials::Denied { until: step.now });
    follow_up(step, lift, EventKind::SessionsNotEnded, said)
}

/// Sets the next step about old credentials, gives the lease back and records the event.
fn follow_up(
    mut step: Step<'_>,
    next: Option<OldCredentials>,
    kind: EventKind,
    said: Details,
) -> Result<Decision, Refusal> {
    let now = step.now;
    step.request.access.set_old_credentials(next);
    step.request.schedule.failures = None;
    step.request.schedule.due_at = next.map(|old| old.due_at(now));
    step.record(kind, None, said);
    step.give_back()
}

/// No credentials last longer, so the old ones have expired without a deny statement.
pub(super) fn are_expired(step: &Step<'_>) -> bool {
    match step.request.access.old_credentials() {
        Some(OldCredentials::Ending { before }) => step.now - before >= LONGEST_SESSION,
        Some(OldCredentials::Denied { .. }) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{bob, finished, later, lease, policy, record};
    use crate::domain::decide::{Record, decide};
    use crate::domain::{AssignmentProof, Command, Policy, Proof, Status};

    fn cleaned_up() -> Command {
        let (lease, revision) = (lease().token, Some(0));
        Command::CleanedUp {
            by: bob(),
            reason: Text::clip("by hand"),
            credentials: Text::clip("arn"),
            proof: Proof::Assignment(AssignmentProof { lease, revision }),
        }
    }

    /// A grant over which an operator wrote this status.
    fn written(said: Status) -> Record {
        let mut written = record("Granted");
        let request = &mut written.request;
        request.apply_outside_status(said, Some(later()), later());
        request.schedule.lease = Some(lease());
        written
    }

    /// A written status and a cleanup ended the access, and the old credentials worked on.
    #[test]
    fn each_end_of_an_assignment_ends_the_old_credentials() {
        let policy = Policy {
            end_sessions: OldCredentialsRule::PermissionSet,
            ..policy()
        };
        let gone = || finished(AssignmentOutcome::Gone);
        for (how, record, command) in [
            ("expiry", record("Expiring"), gone()),
            ("revoke", record("Revoking"), gone()),
            ("rollback", record("RollingBack"), gone()),
            ("written REVOKED", written(Status::Revoked), gone()),
            ("written EXPIRED", written(Status::Expired), gone()),
            ("written CANCELLED", written(Status::Cancelled), gone()),
            ("written ERROR", written(Status::Error), gone()),
            ("verified cleanup", record("Granted"), cleaned_up()),
            (
                "cleanup of a written status",
                written(Status::Revoked),
                cleaned_up(),
            ),
        ] {
            let ended = decide(record, &policy, command, later()).unwrap();
            let before = later();
            let ending = Some(OldCredentials::Ending { before });
            assert_eq!(ended.request.access.old_credentials(), ending, "{how}");
            assert!(ended.request.state.is_settled(), "{how}");
            assert_eq!(ended.request.due_at(), Some(before), "{how}");
            // C: the history says it.
            let said = &ended.events.last().unwrap().details;
            assert_eq!(said["sessions_ending_before"], before.to_string(), "{how}");
        }
    }
}
