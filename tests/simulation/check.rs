//! The checks of the promises, made outside the engine: the records in the store against the
//! assignments in Identity Center.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jit::domain::audit::verify_against;
use jit::domain::replay::{compare_holding, compare_request};
use jit::domain::{
    Audience, AuditKey, Doubt, EventKind, ExtensionRule, HoldingKey, Millis, Notice,
    OldCredentials, Policy, ReceiverName, Request, RequestId, State, Status, Timestamp,
};
use jit::identity_center::deny::{PolicyDeny, holds};

use crate::aws::{Aws, SESSIONS_LAST};
use crate::clock::Time;
use crate::event_log::EventLog;
use crate::memory::{MemoryStore, Tables};
use crate::receivers::Heard;
use crate::rules::{Before, approved_by_the_rules};

/// The largest difference between a wall clock and the true time.
const CLOCKS_DIFFER: Millis = Millis::minutes(12);

/// The changes made in the AWS console, outside the engine.
#[derive(Clone, Default)]
pub struct ConsoleChanges(Arc<Mutex<Done>>);

#[derive(Default)]
struct Done {
    /// Assignments from outside, which jit must leave alone.
    foreign: BTreeSet<HoldingKey>,
    /// Assignments of jit that were removed outside jit.
    taken: BTreeSet<HoldingKey>,
    /// The operators who remove an assignment without the store. Their calls may take effect later.
    overridden: BTreeMap<HoldingKey, u32>,
    /// Until when a call of an operator whose command was cut off may take effect.
    late: BTreeMap<HoldingKey, Timestamp>,
}

/// A call takes effect at most 10 seconds after it was sent.
const CALLS_ARRIVE_WITHIN: Millis = Millis::seconds(11);

/// An operator who removes an assignment without the store, until the command ends or is cut off.
pub struct Override {
    console: ConsoleChanges,
    key: HoldingKey,
    time: Time,
}

impl Drop for Override {
    fn drop(&mut self) {
        let until = self.time.now() + CALLS_ARRIVE_WITHIN;
        let mut done = self.console.0.lock().unwrap();
        if let Some(operators) = done.overridden.get_mut(&self.key) {
            *operators -= 1;
        }
        done.taken.insert(self.key.clone());
        done.late.insert(self.key.clone(), until);
    }
}

impl ConsoleChanges {
    pub fn assigned(&self, key: &HoldingKey) {
        self.0.lock().unwrap().foreign.insert(key.clone());
    }

    pub fn took_away(&self, key: &HoldingKey) {
        self.0.lock().unwrap().taken.insert(key.clone());
    }

    pub fn begins_to_override(&self, key: &HoldingKey, time: &Time) -> Override {
        let mut done = self.0.lock().unwrap();
        *done.overridden.entry(key.clone()).or_default() += 1;
        Override {
            console: self.clone(),
            key: key.clone(),
            time: time.clone(),
        }
    }

    pub fn is_foreign(&self, key: &HoldingKey) -> bool {
        self.0.lock().unwrap().foreign.contains(key)
    }

    fn took(&self, key: &HoldingKey, now: Timestamp) -> bool {
        let done = self.0.lock().unwrap();
        done.taken.contains(key)
            || done.overridden.get(key).is_some_and(|one| *one > 0)
            || done.late.get(key).is_some_and(|until| now <= *until)
    }

    /// The assignment exists again: if it disappears from now on, jit has removed it.
    fn is_back(&self, key: &HoldingKey) {
        self.0.lock().unwrap().taken.remove(key);
    }

    fn foreign(&self) -> Vec<HoldingKey> {
        self.0.lock().unwrap().foreign.iter().cloned().collect()
    }
}

/// Checks the changes after every step of every task.
pub struct Checker {
    extension: ExtensionRule,
    /// The change counters of the store and of AWS at the last check.
    seen: (u64, u64),
    /// The number of checks so far.
    looks: u64,
    known: BTreeMap<RequestId, Known>,
    by_key: BTreeMap<HoldingKey, BTreeSet<RequestId>>,
    kinds: BTreeSet<String>,
}

/// The state of a request at the last check.
#[derive(Default)]
struct Known {
    /// The number of events that were already logged.
    events: u64,
    rules: Before,
    /// The check at which the request was found to hold its assignment, and to be ending.
    joined: Option<u64>,
    ending: Option<u64>,
    /// Whether it held its assignment when its end began.
    held: bool,
}

impl Checker {
    pub fn new(policy: &Policy) -> Self {
        Self {
            extension: policy.extension,
            seen: (0, 0),
            looks: 0,
            known: BTreeMap::new(),
            by_key: BTreeMap::new(),
            kinds: BTreeSet::new(),
        }
    }

    pub fn kinds(&self) -> BTreeSet<String> {
        self.kinds.clone()
    }

    pub fn always(
        &mut self,
        store: &MemoryStore,
        aws: &Aws,
        console: &ConsoleChanges,
        event_log: &EventLog,
        now: Timestamp,
    ) -> Result<(), String> {
        let seen = (store.commits(), aws.changes());
        if std::mem::replace(&mut self.seen, seen) == seen {
            return Ok(());
        }
        self.looks += 1;
        let changes = store.take_changes();
        let mut keys = aws.take_changed();
        for key in &keys {
            if aws.stands(key) {
                console.is_back(key);
            } else if console.is_foreign(key) {
                return Err(format!(
                    "P4: {key} is an assignment from outside, and is gone"
                ));
            }
        }
        keys.extend(changes.holdings);
        store.read(|tables| {
            for id in changes.requests {
                let request = tables.request(id).unwrap();
                self.follow(tables, request, event_log, now)?;
                keys.extend(request.holding_key());
            }
            for key in &keys {
                self.check_key(tables, aws, console, key, now)?;
            }
            for request in tables
                .requests()
                .filter(|one| one.access.old_credentials().is_some())
            {
                denied_is_true(aws, request, now)?;
            }
            Ok(())
        })
    }

    /// Logs the new events of a request and checks its history.
    fn follow(
        &mut self,
        tables: &Tables,
        request: &Request,
        event_log: &EventLog,
        now: Timestamp,
    ) -> Result<(), String> {
        let id = request.id;
        let known = self.known.entry(id).or_default();
        if let Some(key) = request.holding_key() {
            let held = tables.holding(&key);
            let holds = held.is_some_and(|held| held.holders.contains(&id));
            if holds {
                known.joined.get_or_insert(self.looks);
            }
            if !is_ending(&request.state) {
                known.held = holds;
            }
            self.by_key.entry(key).or_default().insert(id);
        }
        if is_ending(&request.state) {
            known.ending.get_or_insert(self.looks);
        } else {
            known.ending = None;
        }
        for event in tables.events_from(&AuditKey::Request(id), known.events + 1) {
            known.events = event.seq;
            let kind = event.event_type.to_string();
            let line = format!("  {id} {} {kind}: {:?}", event.seq, event.details);
            event_log.log(now, &line);
            self.kinds.insert(kind);
        }
        approved_by_the_rules(tables, request, &mut known.rules, self.extension)?;
        history_is_whole(tables, request)
    }

    fn check_key(
        &self,
        tables: &Tables,
        aws: &Aws,
        console: &ConsoleChanges,
        key: &HoldingKey,
        now: Timestamp,
    ) -> Result<(), String> {
        let (stands, is_foreign) = (aws.stands(key), console.is_foreign(key));
        if stands && !is_foreign {
            has_a_duty(tables, key)?;
        }
        for id in self.by_key.get(key).into_iter().flatten() {
            let request = tables.request(*id).unwrap();
            match request.state {
                State::Granted if !stands && !console.took(key, now) => {
                    return Err(format!("P4: {id} is GRANTED, and has no assignment"));
                }
                State::Revoked { .. } if stands && !is_foreign => {
                    self.is_kept_after(tables, key, *id)?;
                }
                State::Expired { .. } if stands && !is_foreign && !is_held(tables, key) => {
                    return Err(format!("P6: {id} is EXPIRED, and its assignment exists"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A request that joined after a revoke began may hold the same assignment; a request that the
    /// revoke ended may not. The revoke of a request that held nothing may leave the assignment
    /// of another request.
    fn is_kept_after(
        &self,
        tables: &Tables,
        key: &HoldingKey,
        revoked: RequestId,
    ) -> Result<(), String> {
        let known = &self.known[&revoked];
        if !known.held && is_held(tables, key) {
            return Ok(());
        }
        let since = known.ending;
        let holders = tables.holding(key).map(|held| &held.holders);
        let mut holders = holders.into_iter().flatten();
        let joined = |id: &RequestId| self.known.get(id).and_then(|known| known.joined);
        if holders.any(|id| joined(id) >= since) {
            return Ok(());
        }
        Err(format!(
            "P6: {revoked} is REVOKED, and its assignment exists"
        ))
    }
}

fn is_ending(state: &State) -> bool {
    matches!(
        state,
        State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. }
            | State::Revoked { .. }
    )
}

fn is_held(tables: &Tables, key: &HoldingKey) -> bool {
    tables
        .holding(key)
        .is_some_and(|held| !held.holders.is_empty())
}

/// P1: every assignment of jit has a holder with the time of its removal in the record.
fn has_a_duty(tables: &Tables, key: &HoldingKey) -> Result<(), String> {
    let holders = tables.holding(key).map(|held| &held.holders);
    let mut holders = holders.into_iter().flatten();
    let is_due = |id: &RequestId| {
        tables
            .request(*id)
            .is_some_and(|one| one.schedule.due_at.is_some())
    };
    if holders.any(is_due) {
        return Ok(());
    }
    Err(format!(
        "P1: {key} exists, and no record says when to remove it"
    ))
}

/// A recorded deny statement is in the policy, also after later changes of the policy.
fn denied_is_true(aws: &Aws, request: &Request, now: Timestamp) -> Result<(), String> {
    let (Some(OldCredentials::Denied { until }), Some(user)) =
        (request.access.old_credentials(), request.access.user())
    else {
        return Ok(());
    };
    let deny = PolicyDeny {
        request: request.id,
        user: user.clone(),
        before: until + Millis(-SESSIONS_LAST.0),
    };
    let policy = aws.policy(&request.asked.permission_set);
    if now + CLOCKS_DIFFER >= until || holds(policy.as_deref(), &deny) {
        return Ok(());
    }
    let id = request.id;
    Err(format!("the sessions of {id} are not denied: {policy:?}"))
}

/// P2, P3, P7: every state has its events, in an unbroken hash chain, with one end.
fn history_is_whole(tables: &Tables, request: &Request) -> Result<(), String> {
    let id = request.id;
    let key = AuditKey::Request(id);
    let events: Vec<_> = tables.events_from(&key, 0).cloned().collect();
    // A written status has no event until jit has handled it.
    let status = match &request.state {
        State::Unsettled {
            doubt: Doubt::Outside | Doubt::OutsideWithoutTime,
            ..
        } => events.last().and_then(|last| last.status),
        state => Some(state.status()),
    };
    verify_against(&events, &request.version.chain, status)
        .map_err(|tampered| format!("P7: {id}: {tampered}"))?;
    // C
    if let Some(mismatch) = compare_request(request, &events).first() {
        return Err(format!("P7: {mismatch}: {:?}", request.state));
    }
    if let Some(key) = request.holding_key() {
        let holding = tables.holding(&key);
        let others = holding.iter().flat_map(|one| one.named_beside(id));
        let others = others.map(|other| (other, tables.request(other).cloned()));
        let others = others.collect();
        if let Some(mismatch) = compare_holding(request, &events, holding, &others).first() {
            return Err(format!("P7: {mismatch}"));
        }
    }
    let count = |wanted: &[EventKind]| {
        let found = events
            .iter()
            .filter(|event| wanted.contains(&event.event_type));
        found.count()
    };
    let ends = [
        EventKind::Denied,
        EventKind::Cancelled,
        EventKind::Expired,
        EventKind::Revoked,
    ];
    // A status that an operator writes over an end becomes one more end.
    if count(&ends) > 1 + tables.written_over(id) {
        return Err(format!("P3: {id} ended twice"));
    }
    if count(&[EventKind::Granted]) > 1 {
        return Err(format!("P3: {id} was granted twice"));
    }
    Ok(())
}

/// The checks after all work has ended.
pub fn at_rest(
    store: &MemoryStore,
    aws: &Aws,
    console: &ConsoleChanges,
    heard: &BTreeMap<ReceiverName, Heard>,
) -> Result<(), String> {
    let requests = store.all_requests();
    if let Some(request) = requests.iter().find(|one| !one.state.is_settled()) {
        let (id, state) = (request.id, &request.state);
        return Err(format!("P1: {id} never ends: {state:?}"));
    }
    for set in ["admin", "readonly"] {
        if let Some(left) = aws.policy(&set.parse().unwrap()) {
            return Err(format!("a deny statement was not removed: {left}"));
        }
    }
    let standing = aws.standing();
    if let Some(key) = standing.iter().find(|key| !console.is_foreign(key)) {
        return Err(format!("P1: {key} exists after all requests have ended"));
    }
    if let Some(key) = console.foreign().iter().find(|key| !standing.contains(key)) {
        return Err(format!(
            "P4: {key} is an assignment from outside, and is gone"
        ));
    }
    heard.iter().try_for_each(|(receiver, heard)| {
        let heard = heard.notices();
        requests
            .iter()
            .try_for_each(|request| check_order_of_notices(store, request.id, *receiver, &heard))
    })
}

/// P2: every event made its notices, delivered in order. A repeated delivery is allowed.
fn check_order_of_notices(
    store: &MemoryStore,
    id: RequestId,
    receiver: ReceiverName,
    heard: &[Notice],
) -> Result<(), String> {
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
    let is_told = |notice: &&Notice| {
        let is_for_mattermost = [Audience::Card, Audience::Mattermost].contains(&notice.audience);
        notice.request_id == id && !is_for_mattermost
    };
    for notice in heard.iter().filter(is_told) {
        if !first.contains(&notice.seq) {
            first.push(notice.seq);
        }
    }
    if first == must {
        Ok(())
    } else {
        Err(format!(
            "P2: {id}: {receiver:?} got the notices {first:?}, not {must:?}"
        ))
    }
}
