//! Makes a new request out of a draft, or refuses the draft.

use super::step::{Step, details, words};
use super::{Decision, Record, Refusal};
use crate::domain::{
    Binding, Chain, Draft, EventKind, PermissionSet, Policy, Request, State, Timestamp,
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
    let bound = binding
        .as_ref()
        .filter(|binding| binding.channel_id == draft.channel_id)
        .ok_or_else(|| Refusal::NotBound {
            account_id: draft.account_id.clone(),
            channel_id: draft.channel_id.clone(),
        })?;
    let permission_set = policy.permission_set(&draft, bound)?;
    policy.check_duration(draft.duration, &permission_set, bound)?;
    let record = Record {
        request: pending(draft, permission_set, policy, now),
        binding,
        holding: None,
    };
    let mut step = Step::new(record, policy, now);
    let request = &step.request;
    let requester = request.requester.clone();
    let said = details([
        ("permission_set", Some(request.permission_set.to_string())),
        ("duration_minutes", Some(request.duration.get().to_string())),
        ("reason", words(request.reason.as_ref())),
        ("jira", words(request.jira.as_ref())),
        ("start_at", request.start_at.map(|at| at.to_string())),
    ]);
    step.record(EventKind::Requested, Some(&requester), said);
    step.done(None)
}

/// The request of a draft that is allowed.
fn pending(
    draft: Draft,
    permission_set: PermissionSet,
    policy: &Policy,
    now: Timestamp,
) -> Request {
    Request {
        id: draft.id,
        account_id: draft.account_id,
        channel_id: draft.channel_id,
        requester: draft.requester,
        permission_set,
        reason: draft.reason,
        jira: draft.jira,
        duration: draft.duration,
        start_at: draft.start_at,
        created_at: now,
        approvals: Vec::new(),
        approved_at: None,
        user: None,
        granted: None,
        extension: None,
        state: State::Pending,
        old_credentials: None,
        trouble: None,
        parked_notices: 0,
        card: None,
        reminder: None,
        due_at: Some(now + policy.pending_lifetime),
        lease: None,
        chain: Chain::default(),
        revision: 0,
    }
}
