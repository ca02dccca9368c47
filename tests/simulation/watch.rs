//! Liveness: due work is tried, and a stuck request is visible; checked while time passes.
//!
//! Each limit counts from the last disturbance (a process that was killed, stopped, frozen or set
//! to another time, or a full disk), so it holds for any process that runs undisturbed for that
//! long.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};

use jit::domain::{Lease, Millis, Request, RequestId, State, Timestamp};
use jit::store::STUCK_AFTER;

use crate::aws::Aws;
use crate::memory::{MemoryStore, Tables};
use crate::replica::Replica;

/// A due record is tried within three minutes, plus two by which clocks may differ.
const TRIED_WITHIN: Millis = Millis::minutes(5);
/// A next try that a wrong clock put too late is found once a minute. Two such looks are needed if
/// the claim of the first is lost, and in the worst world one look in five fails at the store.
const TRIED_AGAIN_WITHIN: Millis = Millis::minutes(10);
/// A removal makes a call to AWS at least this often. A claim whose answer is lost costs the worker
/// 36 s, and in the worst world one claim in eleven is lost: seven in a row occur in 50,000 seeds.
const ASKED_WITHIN: Millis = Millis::minutes(10);
/// A request that has been stuck for five minutes is shown as stuck.
const SEEN_WITHIN: Millis = Millis::minutes(6);
/// `jit_stuck_requests`, which the alarm uses, counts it within this time, by clocks that may have
/// been ten minutes off when the failures began.
const COUNTED_WITHIN: Millis = Millis::minutes(25);
/// The largest item of DynamoDB.
const LARGEST_ITEM: usize = 400 * 1024;
/// No state changes so fast that it needs a check more often.
const LOOK_EVERY: Millis = Millis::seconds(5);

pub struct Watch {
    looked_at: Timestamp,
    disturbed_at: Timestamp,
    records: BTreeMap<RequestId, Seen>,
}

struct Seen {
    state: Discriminant<State>,
    /// The time since when it has been in that state.
    since: Timestamp,
    tries: Tries,
    tried_at: Timestamp,
    /// The time since when it has been due by the clock of a running process.
    due_since: Option<Timestamp>,
    /// The time since when it has been due, or has waited for a next try.
    waits_since: Option<Timestamp>,
}

/// The fields that a worker changes in a record at every attempt.
#[derive(PartialEq, Eq)]
struct Tries {
    lease: Option<Lease>,
    attempts: u32,
    due_at: Option<Timestamp>,
    state: Discriminant<State>,
}

impl Watch {
    pub fn new(now: Timestamp) -> Self {
        Self {
            looked_at: now,
            disturbed_at: now,
            records: BTreeMap::new(),
        }
    }

    /// A process or the store was disturbed: due work may be late.
    pub fn disturbed(&mut self, now: Timestamp) {
        self.disturbed_at = now;
    }

    pub fn look(
        &mut self,
        store: &MemoryStore,
        aws: &Aws,
        replicas: &[Replica],
        now: Timestamp,
    ) -> Result<(), String> {
        if now - self.looked_at < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = now;
        store.read(|tables| {
            for request in tables.requests() {
                self.follow(request, replicas, now);
                self.is_tried(request, now)?;
                self.is_asked_for(request, aws, now)?;
                self.is_seen(request, now)?;
                is_small(tables, request)?;
            }
            Ok(())
        })
    }

    fn follow(&mut self, request: &Request, replicas: &[Replica], now: Timestamp) {
        let tries = Tries {
            lease: request.schedule.lease,
            attempts: request
                .schedule
                .trouble
                .as_ref()
                .map_or(0, |trouble| trouble.attempts),
            due_at: request.schedule.due_at,
            state: discriminant(&request.state),
        };
        let seen = self.records.entry(request.id).or_insert_with(|| Seen {
            state: discriminant(&request.state),
            since: now,
            tries: Tries {
                lease: None,
                attempts: 0,
                due_at: None,
                state: discriminant(&request.state),
            },
            tried_at: now,
            due_since: None,
            waits_since: None,
        });
        if seen.state != discriminant(&request.state) {
            (seen.state, seen.since) = (discriminant(&request.state), now);
        }
        if seen.tries != tries {
            (seen.tries, seen.tried_at) = (tries, now);
        }
        let mut working = replicas.iter().filter(|replica| replica.works());
        let due_at = request.schedule.due_at;
        let is_due = working.any(|replica| due_at.is_some_and(|due| due <= replica.wall()));
        // A due time without a date is only the time of a next try, which a wrong clock may have
        // put far ahead.
        let works = replicas.iter().any(Replica::works);
        let waits = is_due || works && due_at.is_some() && !request.is_dated();
        // A clock that was set may have made it due and not due again since the last check.
        let disturbed_at = self.disturbed_at;
        let before = |since: Option<Timestamp>| since.filter(|since| *since >= disturbed_at);
        seen.due_since = is_due.then(|| before(seen.due_since).unwrap_or(now));
        seen.waits_since = waits.then(|| before(seen.waits_since).unwrap_or(now));
    }

    fn is_tried(&self, request: &Request, now: Timestamp) -> Result<(), String> {
        let seen = &self.records[&request.id];
        let Some(due) = seen.waits_since else {
            return Ok(());
        };
        let since = due.max(seen.tried_at).max(self.disturbed_at);
        let within = match seen.due_since {
            Some(_) => TRIED_WITHIN,
            None => TRIED_AGAIN_WITHIN,
        };
        if now - since <= within {
            return Ok(());
        }
        let (id, state, due_at) = (request.id, &request.state, request.schedule.due_at);
        let lease = request.schedule.lease;
        Err(format!(
            "starved: {id} has been due ({due_at:?}) since {since} and is not tried: {state:?}, {lease:?}"
        ))
    }

    /// A worker that holds a removal makes calls to AWS for it.
    fn is_asked_for(&self, request: &Request, aws: &Aws, now: Timestamp) -> Result<(), String> {
        let State::Removing { .. } = request.state else {
            return Ok(());
        };
        let seen = &self.records[&request.id];
        let (Some(due), Some(key)) = (seen.due_since, request.holding_key()) else {
            return Ok(());
        };
        let asked = aws.last_tried_to_remove(&key).unwrap_or_default();
        let since = due.max(seen.since).max(asked).max(self.disturbed_at);
        if now - since <= ASKED_WITHIN {
            return Ok(());
        }
        let (id, state) = (request.id, &request.state);
        Err(format!(
            "starved: AWS has not been asked to remove {key} since {since}: {id} {state:?}"
        ))
    }

    fn is_seen(&self, request: &Request, now: Timestamp) -> Result<(), String> {
        let is_work = matches!(
            request.state,
            State::Assigning
                | State::Removing { .. }
                | State::Checking { .. }
                | State::Unsettled { .. }
        );
        // Each attempt changes the due time, so the check uses the time since which the request is
        // in a state that a worker must end.
        let since = self.records[&request.id].since.max(self.disturbed_at);
        let (id, state, stuck_for) = (request.id, &request.state, now - since);
        if !is_work || stuck_for <= SEEN_WITHIN {
            return Ok(());
        }
        if !shows_that_it_is_stuck(request) {
            return Err(format!(
                "not shown: {id} has been stuck since {since} and is not shown as stuck: {state:?}"
            ));
        }
        let troubled = request.troubled_since();
        let is_counted = troubled.is_some_and(|began| now - began >= STUCK_AFTER);
        if stuck_for > COUNTED_WITHIN && !is_counted {
            return Err(format!(
                "not counted: {id} has been stuck since {since}, by its record since {troubled:?}: {state:?}"
            ));
        }
        Ok(())
    }
}

/// The condition that status, metrics and alarms use.
fn shows_that_it_is_stuck(request: &Request) -> bool {
    request.schedule.trouble.is_some()
}

/// K9: the records of a request fit into items of DynamoDB, for any number of commands.
fn is_small(tables: &Tables, request: &Request) -> Result<(), String> {
    let (id, record) = (request.id, serde_json::to_vec(request).unwrap().len());
    for (what, bytes) in [("record", record), ("outbox", tables.outbox_bytes(id))] {
        if bytes > LARGEST_ITEM {
            return Err(format!(
                "too large: the {what} of {id} has {bytes} bytes, and its removal cannot be written"
            ));
        }
    }
    Ok(())
}
