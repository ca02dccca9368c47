//! The promises, looked at from outside the engine: what the store says, against what
//! Identity Center has.

use std::collections::{BTreeMap, BTreeSet};

use jit::access::deny::{Deny, holds};
use jit::access::sandbox::Sandbox;
use jit::domain::audit::verify_against;
use jit::domain::{
    AuditKey, Doubt, EventKind, HoldingKey, Millis, Notice, Request, RequestId, Sessions, State,
    Status, Timestamp,
};

use crate::memory::MemoryStore;

/// What was made outside jit, and must be left alone.
pub type Foreign = BTreeSet<HoldingKey>;

/// Looks at everything after every step, and twice only at what changed.
#[derive(Default)]
pub struct Checker {
    seen: BTreeMap<RequestId, u64>,
    last: Option<(u64, Timestamp)>,
}

impl Checker {
    pub fn always(
        &mut self,
        store: &MemoryStore,
        sandbox: &Sandbox,
        foreign: &Foreign,
        now: Timestamp,
    ) -> Result<(), String> {
        let moment = Some((store.commits(), now));
        if std::mem::replace(&mut self.last, moment) == moment {
            return Ok(());
        }
        let requests: BTreeMap<RequestId, Request> = store
            .all_requests()
            .into_iter()
            .map(|request| (request.id, request))
            .collect();
        let standing = sandbox.assignments().map_err(|error| error.to_string())?;
        let standing: BTreeSet<HoldingKey> = standing.into_iter().collect();
        for key in standing.difference(foreign) {
            somebodys_duty(store, &requests, key)?;
        }
        for key in foreign {
            if !standing.contains(key) {
                return Err(format!("P4: {key} was made outside jit, and is gone"));
            }
        }
        for request in requests.values() {
            said_is_true(store, &standing, foreign, request)?;
            denied_is_true(sandbox, request, now)?;
            if self.seen.insert(request.id, request.revision) != Some(request.revision) {
                history_is_whole(store, request)?;
            }
        }
        Ok(())
    }
}

/// P1: whoever holds what stands has it in their diary to remove it.
fn somebodys_duty(
    store: &MemoryStore,
    requests: &BTreeMap<RequestId, Request>,
    key: &HoldingKey,
) -> Result<(), String> {
    let holders = store
        .holding_now(key)
        .map(|held| held.holders)
        .unwrap_or_default();
    let duty = holders.iter().any(|id| requests[id].due_at.is_some());
    if duty {
        Ok(())
    } else {
        Err(format!(
            "P1: {key} stands, and it is nobody's duty to remove it"
        ))
    }
}

/// P6, P4: gone means gone, or kept by another's grant; granted means there.
fn said_is_true(
    store: &MemoryStore,
    standing: &BTreeSet<HoldingKey>,
    foreign: &Foreign,
    request: &Request,
) -> Result<(), String> {
    let Some(key) = request.holding_key() else {
        return Ok(());
    };
    let id = request.id;
    match request.state {
        State::Granted if !standing.contains(&key) => {
            Err(format!("P4: {id} is GRANTED, and has nothing"))
        }
        State::Revoked { at, .. } if standing.contains(&key) && !foreign.contains(&key) => {
            let holders = store
                .holding_now(&key)
                .map(|held| held.holders)
                .unwrap_or_default();
            // Whoever came after the revoke may hold it; whoever it ended may not.
            let kept = holders
                .iter()
                .any(|holder| joined_at(store, *holder) >= Some(at));
            if kept {
                Ok(())
            } else {
                Err(format!("P6: {id} is REVOKED, and its access stands"))
            }
        }
        State::Expired { .. } if standing.contains(&key) && !foreign.contains(&key) => {
            let held = store
                .holding_now(&key)
                .is_some_and(|held| !held.holders.is_empty());
            if held {
                Ok(())
            } else {
                Err(format!("P6: {id} is EXPIRED, and its access stands"))
            }
        }
        _ => Ok(()),
    }
}

/// A deny that is said to stand stands, whoever else has changed the policy since.
fn denied_is_true(sandbox: &Sandbox, request: &Request, now: Timestamp) -> Result<(), String> {
    let (Some(Sessions::Denied { until }), Some(user)) = (request.sessions, &request.user) else {
        return Ok(());
    };
    let deny = Deny {
        request: request.id,
        user: user.clone(),
        before: until + Millis(-Millis::hours(1).0),
    };
    let policy = sandbox.policy(&request.permission_set);
    let policy = policy.map_err(|error| error.to_string())?;
    if now >= until || holds(policy.as_deref(), &deny) {
        return Ok(());
    }
    Err(format!(
        "the sessions of {} are not denied: {policy:?}",
        request.id
    ))
}

fn joined_at(store: &MemoryStore, id: RequestId) -> Option<Timestamp> {
    let history = store.history(&AuditKey::Request(id));
    let joined = history
        .iter()
        .find(|event| event.event_type == EventKind::Assigning)?;
    Some(joined.event_time)
}

/// P2, P3, P7: every state has its events, in an unbroken chain, and one end.
fn history_is_whole(store: &MemoryStore, request: &Request) -> Result<(), String> {
    let id = request.id;
    let events = store.history(&AuditKey::Request(id));
    // A word from outside has no event until jit has looked into it.
    let status = match &request.state {
        State::Unsettled {
            doubt: Doubt::Outside,
            ..
        } => events.last().and_then(|last| last.status),
        state => Some(state.status()),
    };
    verify_against(&events, &request.chain, status)
        .map_err(|tampered| format!("P7: {id}: {tampered}"))?;
    let ends = events.iter().filter(|event| {
        matches!(
            event.event_type,
            EventKind::Denied | EventKind::Cancelled | EventKind::Expired | EventKind::Revoked
        )
    });
    if ends.count() > 1 {
        return Err(format!("P3: {id} ended twice"));
    }
    let granted = events
        .iter()
        .filter(|event| event.event_type == EventKind::Granted)
        .count();
    if granted > 1 {
        return Err(format!("P3: {id} was granted {granted} times"));
    }
    Ok(())
}

/// When all has come to rest.
pub fn at_rest(
    store: &MemoryStore,
    sandbox: &Sandbox,
    foreign: &Foreign,
    heard: &[Notice],
) -> Result<(), String> {
    for request in store.all_requests() {
        if !request.state.is_settled() {
            return Err(format!(
                "P1: {} never ends: {:?}",
                request.id, request.state
            ));
        }
    }
    for set in ["admin", "readonly"] {
        let policy = sandbox.policy(&set.parse().unwrap());
        if let Some(left) = policy.map_err(|error| error.to_string())? {
            return Err(format!("a deny outlives its use: {left}"));
        }
    }
    let standing = sandbox.assignments().map_err(|error| error.to_string())?;
    if let Some(key) = standing.iter().find(|key| !foreign.contains(key)) {
        return Err(format!("P1: {key} outlives everything"));
    }
    for request in store.all_requests() {
        told_in_order(store, request.id, heard)?;
    }
    Ok(())
}

/// P2: what happened was told: all of it, and in order. Twice is allowed.
fn told_in_order(store: &MemoryStore, id: RequestId, heard: &[Notice]) -> Result<(), String> {
    let told = [
        Status::Granted,
        Status::Revoked,
        Status::Expired,
        Status::Denied,
        Status::Error,
    ];
    let events = store.history(&AuditKey::Request(id));
    let must: Vec<u64> = events
        .iter()
        .filter(|event| {
            let ends = matches!(
                event.event_type,
                EventKind::Granted
                    | EventKind::Extended
                    | EventKind::EndAnnounced
                    | EventKind::Revoked
                    | EventKind::Expired
                    | EventKind::Denied
                    | EventKind::Error
            );
            ends && event.status.is_some_and(|status| told.contains(&status))
        })
        .map(|event| event.seq)
        .collect();
    let mut first: Vec<u64> = Vec::new();
    for notice in heard.iter().filter(|notice| notice.request_id == id) {
        if !first.contains(&notice.seq) {
            first.push(notice.seq);
        }
    }
    if first == must {
        Ok(())
    } else {
        Err(format!("P2: {id}: told {first:?}, not {must:?}"))
    }
}
