//! Decisions about due work, leases, and the outcomes that workers report.

use super::step::{Step, details};
use super::{Decision, Refusal, access, announce};
use crate::domain::{Calls, Claim, Lease, LeaseToken, Outcome, State};

pub(super) fn due(step: Step<'_>, claim: &Claim) -> Result<Decision, Refusal> {
    let until = step.request.due_at();
    let time = match step.request.is_dated() {
        true => step.now,
        false => step.now.max(claim.as_of),
    };
    if until.is_none_or(|due| due > time) {
        return Err(Refusal::NotDue { until });
    }
    check_free(&step, claim)?;
    if let Some(end) = announce::end_ahead(&step) {
        return announce::announce(step, end);
    }
    if step.request.state == State::Pending {
        let why = Some("the approvals did not come in time".to_owned());
        return step.end_expired(details([("reason", why)]));
    }
    access::due(step, claim.lease)
}

/// P1, P4: a lease ends when its worker gives it back, or when another worker has seen it
/// lapse. No clock and no command ends it: its worker may have sent calls that still take
/// effect.
fn check_free(step: &Step<'_>, claim: &Claim) -> Result<(), Refusal> {
    match step.request.leased_to_another(claim) {
        Some(lease) => Err(Refusal::Leased { lease: Some(lease) }),
        None => Ok(()),
    }
}

pub(super) fn hold(mut step: Step<'_>, claim: &Claim) -> Result<Decision, Refusal> {
    check_free(&step, claim)?;
    if step.request.state.is_settled() {
        return Err(Refusal::WrongState {
            status: step.request.status(),
            done: "held",
            hint: "; it is settled",
        });
    }
    step.request.schedule.lease = Some(claim.lease);
    step.done(None)
}

pub(super) fn renew(mut step: Step<'_>, lease: Lease) -> Result<Decision, Refusal> {
    match step.request.schedule.lease {
        Some(present) if present.token == lease.token => {
            step.request.schedule.lease = Some(lease);
            step.done(None)
        }
        lease => Err(Refusal::Leased { lease }),
    }
}

pub(super) fn finished(
    step: Step<'_>,
    token: LeaseToken,
    outcome: Outcome,
    calls: Option<&Calls>,
) -> Result<Decision, Refusal> {
    let Some(lease) = step
        .request
        .schedule
        .lease
        .filter(|lease| lease.token == token)
    else {
        return access::late(step, token, &outcome, calls);
    };
    access::finished(step, lease, outcome, calls)
}
