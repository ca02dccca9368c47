//! Decisions about the commands of people. A refusal because of the state comes before a
//! refusal because of the person.

use super::step::{Details, Step, details, words};
use super::{Decision, Refusal};
use crate::domain::{
    Approval, Ask, Binding, Ending, ErrorEnd, EventKind, Extension, ExtensionRule, Failing,
    Minutes, Period, Person, Policy, Request, RequestId, State, Subject, Text, limits,
};

pub(super) fn asked(step: Step<'_>, by: &Person, ask: Ask) -> Result<Decision, Refusal> {
    match ask {
        Ask::Approve => approve(step, by),
        Ask::Deny { reason } => deny(step, by, reason),
        Ask::Revoke { reason } => revoke(step, by, reason),
        Ask::Cancel => cancel(step, by),
        Ask::Extend { minutes } => extend(step, by, minutes),
    }
}

/// W15: the decision that checks the state also checks that nothing else waits than what the person
/// saw. If nothing waits, the state refuses the command.
pub(super) fn decided_on_shown(
    step: Step<'_>,
    by: &Person,
    ask: Ask,
    shown: Subject,
) -> Result<Decision, Refusal> {
    match Subject::waiting(&step.request) {
        Some(waiting) if waiting != shown => Err(Refusal::NotWhatWasShown {
            status: step.request.status(),
        }),
        Some(_) | None => asked(step, by, ask),
    }
}

/// The states in which an approver, or the requester of an extension, can act.
#[derive(Clone, Copy)]
enum Decidable {
    Pending,
    Granted,
    Neither,
}

fn decidable(state: &State) -> Decidable {
    match state {
        State::Pending => Decidable::Pending,
        State::Granted => Decidable::Granted,
        State::Approved
        | State::Assigning
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => Decidable::Neither,
    }
}

fn approve(mut step: Step<'_>, by: &Person) -> Result<Decision, Refusal> {
    match (
        decidable(&step.request.state),
        step.request.grant.extension.clone(),
        step.request.grant.period,
    ) {
        (Decidable::Pending, ..) => {
            let binding = check_waiting(&step).and_then(|()| may_approve(&step, by))?;
            let before = &step.request.approvals.given;
            let approvals = with_approval(&step, before, by, &binding)?;
            let enough = is_quorum(&step, &approvals, &binding);
            step.request.approvals.given = approvals;
            let said = details([("approvals_required", quorum(&binding))]);
            if enough {
                step.request.approvals.complete_at = Some(step.now);
                step.request.schedule.due_at = Some(
                    step.request
                        .asked
                        .start_at
                        .map_or(step.now, |at| at.max(step.now)),
                );
                step.set_state(State::Approved);
                step.record(EventKind::Approved, Some(by), said);
            } else {
                step.record(EventKind::ApprovalRecorded, Some(by), said);
            }
            step.done(None)
        }
        (Decidable::Granted, Some(mut extension), Some(period)) if step.now < period.until => {
            let binding = may_approve(&step, by)?;
            extension.approvals = with_approval(&step, &extension.approvals, by, &binding)?;
            if is_quorum(&step, &extension.approvals, &binding) {
                extend_now(step, by, period, extension.minutes)
            } else {
                step.request.grant.extension = Some(extension);
                let said = details([("approvals_required", quorum(&binding))]);
                step.record(EventKind::ApprovalRecorded, Some(by), said);
                step.done(None)
            }
        }
        (Decidable::Granted | Decidable::Neither, ..) => wrong_state(&step, "approved"),
    }
}

fn deny(mut step: Step<'_>, by: &Person, reason: Option<Text>) -> Result<Decision, Refusal> {
    let said = details([("reason", words(reason.as_ref()))]);
    match (
        decidable(&step.request.state),
        &step.request.grant.extension,
    ) {
        (Decidable::Pending, _) => {
            check_waiting(&step)?;
            step.policy
                .check_approver(by, &step.request, step.binding.as_ref())?;
            let at = step.now;
            step.end(
                State::Denied {
                    by: by.clone(),
                    reason,
                    at,
                },
                EventKind::Denied,
                Some(by),
                said,
            )
        }
        (Decidable::Granted, Some(_)) => {
            step.policy
                .check_approver(by, &step.request, step.binding.as_ref())?;
            step.request.grant.extension = None;
            step.record(EventKind::ExtensionDenied, Some(by), said);
            step.done(None)
        }
        (Decidable::Granted | Decidable::Neither, _) => wrong_state(&step, "denied"),
    }
}

fn revoke(step: Step<'_>, by: &Person, reason: Option<Text>) -> Result<Decision, Refusal> {
    let (rules, binding) = (step.policy, step.binding.as_ref());
    let may = rules.check_revoker(by, &step.request, binding);
    let said = details([("reason", words(reason.as_ref()))]);
    revoke_access(step, by, reason, may, said)
}

pub(super) fn broken_glass(
    mut step: Step<'_>,
    by: &Person,
    reason: Option<Text>,
    credentials: &Text,
) -> Result<Decision, Refusal> {
    let said = details([
        ("reason", words(reason.as_ref())),
        ("break_glass", words(Some(credentials))),
    ]);
    match step.request.state {
        // The removal runs, or waits for its next try: the operator's command tries it now.
        State::Removing {
            ending: Ending::Revoked { .. },
        }
        | State::Checking { .. }
        | State::Unsettled { .. } => {
            step.request.schedule.due_at = Some(step.now);
            step.record(EventKind::RevokeRequested, Some(by), said);
            step.done(None)
        }
        // Otherwise an approval would give the access after the incident.
        State::Pending => cancelled(step, Some(by), said),
        State::Removing {
            ending: Ending::Failed { .. } | Ending::Expired,
        }
        | State::Approved
        | State::Assigning
        | State::Granted
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => revoke_access(step, by, reason, Ok(()), said),
    }
}

fn revoke_access(
    mut step: Step<'_>,
    by: &Person,
    reason: Option<Text>,
    may: Result<(), Refusal>,
    said: Details,
) -> Result<Decision, Refusal> {
    let request = &step.request;
    match request.state.clone() {
        // jit has not asked AWS for the access, so no removal is needed.
        State::Approved => {
            may?;
            step.end_revoked(Some(by.clone()), reason)
        }
        State::Error(_) if !request.access.was_begun() => {
            may?;
            step.end_revoked(Some(by.clone()), reason)
        }
        State::Error(error) => {
            may?;
            check_after_error(step, by, reason, error, said)
        }
        // An expiry and a rollback wait in their own lane; a revoke moves them to the first one.
        State::Assigning
        | State::Granted
        | State::Removing {
            ending: Ending::Failed { .. } | Ending::Expired,
        } => {
            may?;
            step.end_access(Some(by), reason.as_ref());
            begin_revoke(step, Some(by), reason, said)
        }
        State::Removing { .. } | State::Checking { .. } | State::Unsettled { .. } => {
            Err(being_removed(request))
        }
        State::Pending => Err(Refusal::WrongState {
            status: request.status(),
            done: "revoked",
            hint: "; it has no access yet, deny or cancel it instead",
        }),
        State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. } => wrong_state(&step, "revoked"),
    }
}

/// A worker asks AWS whether the request, which ended in ERROR, has left its access.
fn check_after_error(
    mut step: Step<'_>,
    by: &Person,
    reason: Option<Text>,
    error: ErrorEnd,
    said: Details,
) -> Result<Decision, Refusal> {
    step.set_state(State::Checking {
        by: by.clone(),
        reason,
        error,
    });
    step.request.schedule.due_at = Some(step.now);
    step.record(EventKind::RevokeRequested, Some(by), said);
    step.done(None)
}

fn being_removed(request: &Request) -> Refusal {
    let said = |failing: &Failing| {
        let (attempts, why) = (failing.attempts, &failing.why);
        format!("; {attempts} attempts failed: {why}")
    };
    Refusal::BeingRemoved {
        status: request.status(),
        failures: request
            .schedule
            .failures
            .as_ref()
            .map(said)
            .unwrap_or_default(),
    }
}

/// A worker that has the lease continues under it; its next work is the removal.
fn begin_revoke(
    mut step: Step<'_>,
    by: Option<&Person>,
    reason: Option<Text>,
    said: Details,
) -> Result<Decision, Refusal> {
    step.request.grant.extension = None;
    step.request.schedule.due_at = Some(step.now);
    // A revoke of a failing removal does not reset its failures.
    let is_removing = step.request.state.is_removing();
    let failures = step
        .request
        .schedule
        .failures
        .take()
        .filter(|_| is_removing);
    let ending = Ending::Revoked {
        by: by.cloned(),
        reason,
        asked_at: step.now,
    };
    step.set_state(State::Removing { ending });
    step.request.schedule.failures = failures;
    step.record(EventKind::RevokeRequested, by, said);
    step.done(None)
}

pub(super) fn revoked_with_co_holder(
    step: Step<'_>,
    with: RequestId,
    by: Option<&Person>,
    reason: Option<Text>,
) -> Result<Decision, Refusal> {
    let said = details([
        ("reason", words(reason.as_ref())),
        ("shared_with", Some(with.to_string())),
    ]);
    match step.request.state {
        State::Assigning | State::Granted => begin_revoke(step, by, reason, said),
        // Its own removal ends the access at AWS, which the two requests share.
        State::Removing { .. }
        | State::Pending
        | State::Approved
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => wrong_state(&step, "revoked"),
    }
}

fn cancel(step: Step<'_>, by: &Person) -> Result<Decision, Refusal> {
    if step.request.state != State::Pending {
        return wrong_state(&step, "cancelled");
    }
    Policy::check_requester(by, &step.request, "cancel")?;
    cancelled(step, Some(by), details([]))
}

/// An unbind ends what has not begun; other access runs to its end.
pub(super) fn unbound(step: Step<'_>, by: Option<&Person>) -> Result<Decision, Refusal> {
    match step.request.state {
        State::Pending => {
            let why = "the account was unbound from the channel";
            cancelled(step, by, details([("reason", Some(why.to_owned()))]))
        }
        // B1
        State::Approved => {
            let why = "the account was unbound from the channel before the access began";
            step.end_revoked(by.cloned(), Some(Text::clip(why)))
        }
        State::Assigning
        | State::Granted
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => wrong_state(&step, "cancelled"),
    }
}

/// The webhook gets no notice of a cancelled request.
fn cancelled(mut step: Step<'_>, by: Option<&Person>, said: Details) -> Result<Decision, Refusal> {
    step.set_state(State::Cancelled {
        by: by.cloned(),
        at: step.now,
    });
    step.record(EventKind::Cancelled, by, said);
    step.done(None)
}

fn extend(mut step: Step<'_>, by: &Person, minutes: Minutes) -> Result<Decision, Refusal> {
    let status = step.request.status();
    let period = match (decidable(&step.request.state), step.request.grant.period) {
        (Decidable::Granted, Some(period)) if step.now < period.until => period,
        (Decidable::Pending | Decidable::Granted | Decidable::Neither, _) => {
            return wrong_state(&step, "extended");
        }
    };
    if step.request.grant.extension.is_some() {
        return Err(Refusal::ExtensionWaiting { status });
    }
    Policy::check_requester(by, &step.request, "extend")?;
    check_extension(&step, period, minutes)?;
    match step.policy.extension {
        ExtensionRule::Granted => extend_now(step, by, period, minutes),
        ExtensionRule::NeedsApproval => {
            let approvals = Vec::new();
            step.request.grant.extension = Some(Extension {
                by: by.clone(),
                minutes,
                approvals,
            });
            let said = details([("additional_minutes", Some(minutes.get().to_string()))]);
            step.record(EventKind::ExtensionRequested, Some(by), said);
            step.done(None)
        }
    }
}

fn extend_now(
    mut step: Step<'_>,
    by: &Person,
    period: Period,
    minutes: Minutes,
) -> Result<Decision, Refusal> {
    check_extension(&step, period, minutes)?;
    let until = period.until + minutes.span();
    step.request.grant.period = Some(Period { until, ..period });
    step.request.grant.extension = None;
    step.request.schedule.due_at = Some(step.policy.wakes_at(until, step.now));
    let mut said = details([
        ("additional_minutes", Some(minutes.get().to_string())),
        ("end_time", Some(until.to_string())),
    ]);
    step.record(EventKind::Extended, Some(by), said.clone());
    let total = (until - period.from).0 / 60_000;
    said.insert("duration_minutes".into(), total.to_string());
    step.notify(Some(by), said);
    step.done(None)
}

/// B2: a grant may not last longer than the longest duration, from its beginning to its end with
/// the extension, however often it was extended before.
fn check_extension(step: &Step<'_>, period: Period, minutes: Minutes) -> Result<(), Refusal> {
    let asked = &step.request.asked;
    let binding = Policy::bound(step.binding.as_ref(), &asked.account_id, &asked.channel_id)?;
    let set = &asked.permission_set;
    step.policy.check_set(set, binding)?;
    step.policy.check_duration(minutes, set, binding)?;
    let most = step.policy.longest_of(set, binding);
    let (now, wanted) = (whole_minutes(period), i64::from(minutes.get()));
    let total = now + wanted;
    if total > i64::from(most) {
        let next = match i64::from(most) - now {
            ..=0 => "make a new request for the time after this one".to_owned(),
            left => format!("ask for at most {left} more minutes, or make a new request"),
        };
        let (status, minutes) = (step.request.status(), minutes.get());
        return Err(Refusal::ExtendedTooFar {
            status,
            minutes,
            total,
            most,
            next,
        });
    }
    Ok(())
}

/// The length of the period; a minute that began counts.
fn whole_minutes(period: Period) -> i64 {
    const MINUTE: i64 = 60_000;
    ((period.until - period.from).0 + MINUTE - 1).div_euclid(MINUTE)
}

/// The time limit applies even if no worker has expired the request yet.
fn check_waiting(step: &Step<'_>) -> Result<(), Refusal> {
    match step.request.schedule.due_at {
        Some(until) if step.now >= until => Err(Refusal::WaitedTooLong {
            status: step.request.status(),
            until,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Checks the rules as they are now, not as they were when the request was made.
fn may_approve(step: &Step<'_>, by: &Person) -> Result<Binding, Refusal> {
    let binding = step.binding.as_ref();
    let binding = step.policy.check_approval(by, &step.request, binding)?;
    Ok(binding.clone())
}

/// A repeated approval is not counted twice. If the quorum was lowered meanwhile, it approves
/// the request.
fn with_approval(
    step: &Step<'_>,
    approvals: &[Approval],
    by: &Person,
    binding: &Binding,
) -> Result<Vec<Approval>, Refusal> {
    if approvals.iter().any(|approval| approval.by.is(by)) {
        if is_quorum(step, approvals, binding) {
            return Ok(approvals.to_vec());
        }
        let status = step.request.status();
        return Err(Refusal::AlreadyApproved {
            status,
            person: by.id.clone(),
        });
    }
    limits::check_approvals(approvals.len(), step.request.status())?;
    let mut approvals = approvals.to_vec();
    approvals.push(Approval {
        by: by.clone(),
        at: step.now,
    });
    Ok(approvals)
}

fn is_quorum(step: &Step<'_>, approvals: &[Approval], binding: &Binding) -> bool {
    Policy::is_quorum(approvals, &step.request.asked.requester, binding)
}

fn quorum(binding: &Binding) -> Option<String> {
    (binding.approvals_required > 1).then(|| binding.approvals_required.to_string())
}

fn wrong_state(step: &Step<'_>, done: &'static str) -> Result<Decision, Refusal> {
    Err(Refusal::WrongState {
        status: step.request.status(),
        done,
        hint: "",
    })
}
