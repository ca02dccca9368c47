//! Makes a new request out of a draft, or refuses the draft.

use super::step::{Step, details, words};
use super::{Decision, Record, Refusal};
use crate::domain::{
    AccessFacts, AccessForm, AccessRecord, Approvals, Asked, Binding, Chat, Draft, EventKind,
    Grant, PermissionSet, Policy, Request, Schedule, State, Timestamp, Version,
};

/// Opens a request, if the policy and the binding of its account allow it.
pub fn open(
    draft: Draft,
    binding: Option<Binding>,
    policy: &Policy,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    if draft.reason.is_none() && draft.jira.is_none() {
        return Err(Refusal::NoReason);
    }
    let bound = Policy::bound(binding.as_ref(), &draft.account_id, &draft.channel_id)?;
    let (permission_set, form) = policy.permission_set(&draft, bound)?;
    policy.check_duration(draft.duration, &permission_set, bound)?;
    policy.check_start(draft.start_at, now)?;
    let record = Record {
        request: pending(draft, permission_set, form, policy, now),
        binding,
        access: AccessRecord::unread(form),
    };
    let mut step = Step::new(record, policy, now);
    let request = &step.request;
    let requester = request.asked.requester.clone();
    let said = details([
        (
            "permission_set",
            Some(request.asked.permission_set.to_string()),
        ),
        (
            "duration_minutes",
            Some(request.asked.duration.get().to_string()),
        ),
        ("reason", words(request.asked.reason.as_ref())),
        ("jira", words(request.asked.jira.as_ref())),
        ("start_at", request.asked.start_at.map(|at| at.to_string())),
        (
            "pending_until",
            request.schedule.due_at.map(|at| at.to_string()),
        ),
    ]);
    step.record(EventKind::Requested, Some(&requester), said);
    step.done(None)
}

/// The request of a draft that is allowed.
fn pending(
    draft: Draft,
    permission_set: PermissionSet,
    form: AccessForm,
    policy: &Policy,
    now: Timestamp,
) -> Request {
    Request {
        id: draft.id,
        asked: Asked {
            account_id: draft.account_id,
            channel_id: draft.channel_id,
            requester: draft.requester,
            permission_set,
            reason: draft.reason,
            jira: draft.jira,
            duration: draft.duration,
            start_at: draft.start_at,
            created_at: now,
            key_id: None,
        },
        approvals: Approvals::default(),
        grant: Grant::default(),
        state: State::Pending,
        access: AccessFacts::new(form),
        schedule: Schedule {
            due_at: Some(now + policy.pending_lifetime),
            ..Schedule::default()
        },
        chat: Chat::default(),
        version: Version::default(),
    }
}
