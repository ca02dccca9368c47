//! Nothing starves, and what is stuck is seen: looked at while time passes.
//!
//! Each bound is counted from the last disturbance (a process that was killed, stopped,
//! frozen or set to another time, a disk that is full), so it holds for any process that
//! is left alone for that long.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};

use jit::domain::{Lease, Millis, Request, RequestId, State, Timestamp};
use jit::store::STUCK_AFTER;

use crate::aws::Aws;
use crate::memory::{MemoryStore, Tables};
use crate::replica::Replica;

/// A due record is tried within three minutes, and two by which clocks may differ.
const TRIED_WITHIN: Millis = Millis::minutes(5);
/// A removal asks AWS for something within this, again and again.
const ASKED_WITHIN: Millis = Millis::minutes(5);
/// What has been stuck for five minutes says so.
const SEEN_WITHIN: Millis = Millis::minutes(6);
/// And `jit_stuck_requests`, which the alarm goes by, counts it: by clocks that may have been
/// ten minutes off when its trouble began.
const COUNTED_WITHIN: Millis = Millis::minutes(25);
/// What DynamoDB takes in one item.
const LARGEST_ITEM: usize = 400 * 1024;
/// Nothing changes so fast that it must be looked at more often.
const LOOK_EVERY: Millis = Millis::seconds(5);

pub struct Watch {
    looked_at: Timestamp,
    disturbed_at: Timestamp,
    records: BTreeMap<RequestId, Seen>,
}

struct Seen {
    state: Discriminant<State>,
    /// Since when it has been in that state.
    since: Timestamp,
    tries: Tries,
    tried_at: Timestamp,
    /// Since when it has been due by the clock of a process that works.
    due_since: Option<Timestamp>,
}

/// What a worker leaves on a record whenever it tries.
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

    /// Something happened to a process or to the store: what is due may be late by it.
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
            lease: request.lease,
            attempts: request
                .trouble
                .as_ref()
                .map_or(0, |trouble| trouble.attempts),
            due_at: request.due_at,
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
        });
        if seen.state != discriminant(&request.state) {
            (seen.state, seen.since) = (discriminant(&request.state), now);
        }
        if seen.tries != tries {
            (seen.tries, seen.tried_at) = (tries, now);
        }
        let mut working = replicas.iter().filter(|replica| replica.works());
        let is_due = working.any(|replica| request.due_at.is_some_and(|due| due <= replica.wall()));
        // A clock that was set may have made it due, and not due again, since the last look.
        let disturbed_at = self.disturbed_at;
        let before = seen.due_since.filter(|since| *since >= disturbed_at);
        seen.due_since = is_due.then(|| before.unwrap_or(now));
    }

    fn is_tried(&self, request: &Request, now: Timestamp) -> Result<(), String> {
        let seen = &self.records[&request.id];
        let Some(due) = seen.due_since else {
            return Ok(());
        };
        let since = due.max(seen.tried_at).max(self.disturbed_at);
        if now - since <= TRIED_WITHIN {
            return Ok(());
        }
        let (id, state, due_at) = (request.id, &request.state, request.due_at);
        let lease = request.lease;
        Err(format!(
            "starved: {id} has been due ({due_at:?}) since {since} and is not tried: {state:?}, {lease:?}"
        ))
    }

    /// A removal that a worker holds and never asks AWS for is no removal.
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
        // Each try moves the time at which it is due: what counts is how long it is in a state
        // that a worker has to end.
        let since = self.records[&request.id].since.max(self.disturbed_at);
        let (id, state, stuck_for) = (request.id, &request.state, now - since);
        if !is_work || stuck_for <= SEEN_WITHIN {
            return Ok(());
        }
        if !shows_that_it_is_stuck(request) {
            return Err(format!(
                "unseen: {id} has been stuck since {since} and does not say so: {state:?}"
            ));
        }
        let troubled = request.troubled_since();
        let is_counted = troubled.is_some_and(|began| now - began >= STUCK_AFTER);
        if stuck_for > COUNTED_WITHIN && !is_counted {
            return Err(format!(
                "uncounted: {id} has been stuck since {since}, by its record since {troubled:?}: {state:?}"
            ));
        }
        Ok(())
    }
}

/// What status, metrics and alarms are made from.
fn shows_that_it_is_stuck(request: &Request) -> bool {
    request.trouble.is_some()
}

/// K9: what is kept of a request fits into items of DynamoDB, however much is said to it.
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
