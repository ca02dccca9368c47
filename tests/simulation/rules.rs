//! P5: a request is approved only by the approvers of its binding. These checks repeat the rules
//! independently of the engine.

use jit::domain::{
    AuditKey, Binding, EventKind, ExtensionRule, Person, Request, RequestId, State, Timestamp,
};

use crate::memory::{MemoryStore, Tables};

/// The state of a request before a step.
#[derive(Default)]
pub struct Before {
    was_pending: bool,
    until: Option<Timestamp>,
}

/// A request that was just approved has enough approvals by approvers.
pub fn approved_by_the_rules(
    tables: &Tables,
    request: &Request,
    before: &mut Before,
    rule: ExtensionRule,
) -> Result<(), String> {
    let until = request.grant.period.map(|period| period.until);
    let now = Before {
        was_pending: request.state == State::Pending,
        until,
    };
    let before = std::mem::replace(before, now);
    let is_approved = matches!(request.state, State::Approved | State::Assigning);
    let is_approved = before.was_pending && is_approved;
    let is_extended = before.until.is_some() && until > before.until;
    if !is_approved && !is_extended {
        return Ok(());
    }
    let (id, set) = (request.id, &request.asked.permission_set);
    let done = if is_extended { "extended" } else { "approved" };
    let Some(binding) = tables.binding(&request.asked.account_id) else {
        return Err(format!(
            "P5: {id} was {done}, and its account has no binding"
        ));
    };
    if !binding.allows(set) {
        return Err(format!(
            "P5: {id} was {done}, and {set} is not allowed there"
        ));
    }
    let approvals = standing(request, binding);
    if is_approved && !is_enough(approvals, binding) {
        let required = binding.approvals_required;
        return Err(format!(
            "P5: {id} has {approvals} of {required} approvals by approvers"
        ));
    }
    let needs_approval = is_extended && rule == ExtensionRule::NeedsApproval;
    match needs_approval.then(|| extended_by(tables, id)).flatten() {
        Some(by) if !may_approve(&by, request, binding) => {
            Err(format!("P5: {id} was extended by {by}, not an approver"))
        }
        _ => Ok(()),
    }
}

/// The user whose approval completed the quorum of an extension.
fn extended_by(tables: &Tables, id: RequestId) -> Option<String> {
    let key = AuditKey::Request(id);
    let events = tables.events_from(&key, 0);
    let extended = events.filter(|event| event.event_type == EventKind::Extended);
    extended.last()?.actor_mm_user_id.clone()
}

fn may_approve(user: &str, request: &Request, binding: &Binding) -> bool {
    let is_own = request.asked.requester.id.as_str() == user;
    let is_named = binding.approvers.iter().any(|one| one.as_str() == user);
    is_named && (binding.allow_self_approval || !is_own)
}

fn standing(request: &Request, binding: &Binding) -> u64 {
    let by = request
        .approvals
        .given
        .iter()
        .map(|approval| approval.by.id.as_str());
    by.filter(|user| may_approve(user, request, binding))
        .count() as u64
}

fn is_enough(approvals: u64, binding: &Binding) -> bool {
    approvals >= u64::from(binding.approvals_required.max(1))
}

/// A call by an approver whose approval exists already, if it was refused for that reason alone.
pub struct Repeated {
    id: RequestId,
    revisions: Option<(u64, u64)>,
}

impl Repeated {
    /// The state before the call.
    pub fn before(store: &MemoryStore, id: RequestId) -> Self {
        let revisions = store.read(|tables| revisions(tables, id));
        Self { id, revisions }
    }

    /// A request that has a quorum under the current rules does not wait for another approval,
    /// because there may be no other approver.
    pub fn check(&self, store: &MemoryStore, by: &Person) -> Result<(), String> {
        store.read(|tables| {
            let id = self.id;
            // The request or the binding may have changed since the call was decided.
            if revisions(tables, id) != self.revisions {
                return Ok(());
            }
            let Some(request) = tables.request(id) else {
                return Ok(());
            };
            match tables.binding(&request.asked.account_id) {
                Some(binding)
                    if request.state == State::Pending
                        && may_approve(by.id.as_str(), request, binding)
                        && is_enough(standing(request, binding), binding) =>
                {
                    Err(format!(
                        "{id} has enough approvals, and {} is refused",
                        by.id
                    ))
                }
                _ => Ok(()),
            }
        })
    }
}

fn revisions(tables: &Tables, id: RequestId) -> Option<(u64, u64)> {
    let request = tables.request(id)?;
    let binding = tables.binding(&request.asked.account_id)?;
    Some((request.version.revision, binding.revision))
}
