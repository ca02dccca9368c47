//! Liveness: due work is tried, and a stuck request is visible; checked while time passes.
//!
//! Each limit counts from the last disturbance of a process (it was started, thawed or set to
//! another time, or one of its tasks panicked), or of the store (a full disk). It holds for each
//! process that runs undisturbed for that long, whatever happens to the others.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};

use jit::clock::Clock;
use jit::domain::{
    Lease, Millis, ReceiverName, Request, RequestId, RequestObject, State, Timestamp,
};
use jit::store::STUCK_AFTER;

use crate::clock::ProcessId;
use crate::faults::Faults;
use crate::memory::{MemoryStore, Tables};
use crate::metrics_shown::Scraped;
use crate::plan::Plan;
use crate::receivers::Heard;
use crate::replica::Replica;
use crate::told::Told;
use crate::tries::Tries;

/// A process searches for due records of every lane at least this often.
const SEARCHES_WITHIN: Millis = Millis::seconds(30);
/// `/readyz` calls a process not ready when its loop has begun no round for this long.
const ROUND_WITHIN: Millis = Millis::minutes(1);
/// A due record is tried within three minutes, plus two by which clocks may differ.
const TRIED_WITHIN: Millis = Millis::minutes(5);
/// A next try that a wrong clock put too late is found once a minute. Two such searches are needed if
/// the claim of the first is lost, and in the worst world one search in five fails at the store.
const TRIED_AGAIN_WITHIN: Millis = Millis::minutes(10);
/// A worker that has the lease of a removal asks AWS at least this often. A claim whose answer is
/// lost costs the worker 36 s, and in the worst world one claim in eleven is lost: seven in a row
/// occur in 50,000 seeds.
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
/// How often the metrics of every process are read.
const SCRAPE_EVERY: Millis = Millis::minutes(1);

/// The parts of the world that one check compares.
pub struct Scene<'s> {
    pub store: &'s MemoryStore,
    pub replicas: &'s [Replica],
    pub tries: &'s Tries,
    pub heard: &'s BTreeMap<ReceiverName, Heard>,
    pub faults: &'s Faults,
    pub now: Timestamp,
}

impl Scene<'_> {
    fn working(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.works())
    }
}

pub struct Watch {
    looked_at: Timestamp,
    scraped_at: Timestamp,
    /// When the store was last disturbed.
    disturbed_at: Timestamp,
    /// The end of the last time that was not simulated.
    skipped_until: Timestamp,
    records: BTreeMap<RequestId, Seen>,
    told: Told,
}

struct Seen {
    state: Discriminant<State>,
    /// The time since when it has been in that state.
    since: Timestamp,
    attempt: Attempt,
    tried_at: Timestamp,
    /// The time since when it has been due by the clock of each running process.
    due_since: BTreeMap<ProcessId, Timestamp>,
    /// The time since when it has been due, or has waited for a next try.
    waits_since: BTreeMap<ProcessId, Timestamp>,
    /// The revision whose size was checked.
    measured: Option<u64>,
}

/// The fields that a worker changes in a record at every attempt.
#[derive(PartialEq, Eq)]
struct Attempt {
    lease: Option<Lease>,
    attempts: u32,
    due_at: Option<Timestamp>,
    state: Discriminant<State>,
}

impl Attempt {
    fn of(request: &Request) -> Self {
        let failing = request.schedule.failures.as_ref();
        Self {
            lease: request.schedule.lease,
            attempts: failing.map_or(0, |failing| failing.attempts),
            due_at: request.schedule.due_at,
            state: discriminant(&request.state),
        }
    }
}

impl Watch {
    pub fn new(plan: &Plan, now: Timestamp) -> Self {
        Self {
            looked_at: now,
            scraped_at: now,
            disturbed_at: now,
            skipped_until: now,
            records: BTreeMap::new(),
            told: Told::new(plan),
        }
    }

    /// The store was disturbed: due work may be late.
    pub fn disturbed(&mut self, now: Timestamp) {
        self.disturbed_at = now;
    }

    /// The time until then was not simulated.
    pub fn skipped(&mut self, until: Timestamp) {
        self.skipped_until = until;
    }

    pub fn look(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        if scene.now - self.looked_at < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = scene.now;
        let quiet = scene.working().map(|replica| self.quiet(replica)).min();
        for replica in scene.working() {
            self.searches(replica, scene)?;
        }
        scene.store.read(|tables| {
            for request in tables.requests() {
                self.follow(request, scene);
                for replica in scene.working() {
                    self.is_tried(request, replica, scene)?;
                }
                if let Some(quiet) = quiet {
                    self.is_asked_for(request, scene, quiet)?;
                    self.is_seen(request, scene.now, quiet)?;
                }
                self.is_small(tables, request)?;
            }
            self.told.look(tables, scene, quiet)
        })?;
        match quiet {
            Some(quiet) => self.metrics_show(scene, quiet),
            None => Ok(()),
        }
    }

    /// Since when this process and the store are undisturbed.
    fn quiet(&self, replica: &Replica) -> Timestamp {
        replica.undisturbed_since.max(self.disturbed_at)
    }

    /// Each process searches for due records itself, and `/readyz` sees that its loop runs.
    fn searches(&self, replica: &Replica, scene: &Scene<'_>) -> Result<(), String> {
        let quiet = self.quiet(replica).max(self.skipped_until);
        let (process, now) = (replica.process, scene.now);
        let searched = scene.tries.last_search(process).unwrap_or_default();
        let since = searched.max(quiet);
        if now - since > SEARCHES_WITHIN {
            return Err(format!(
                "starved: process {process} has not searched for the due records of a lane since {since}"
            ));
        }
        let is_ready = replica
            .last_round()
            .is_some_and(|round| replica.clock.uptime() - round <= ROUND_WITHIN);
        if now - quiet > ROUND_WITHIN && !is_ready {
            return Err(format!(
                "not shown: /readyz calls process {process} not ready while it searches"
            ));
        }
        Ok(())
    }

    fn follow(&mut self, request: &Request, scene: &Scene<'_>) {
        let now = scene.now;
        let (attempt, state) = (Attempt::of(request), discriminant(&request.state));
        let seen = self.records.entry(request.id).or_insert_with(|| Seen {
            state,
            since: now,
            attempt: Attempt::of(request),
            tried_at: now,
            due_since: BTreeMap::new(),
            waits_since: BTreeMap::new(),
            measured: None,
        });
        if seen.state != state {
            (seen.state, seen.since) = (state, now);
        }
        if seen.attempt != attempt {
            (seen.attempt, seen.tried_at) = (attempt, now);
        }
        let due_at = request.schedule.due_at;
        let (mut due, mut waits) = (BTreeMap::new(), BTreeMap::new());
        for replica in scene.working() {
            let process = replica.process;
            // A clock that was set may have made it due and not due again since the last check.
            let undisturbed = replica.undisturbed_since;
            let since = |known: &BTreeMap<ProcessId, Timestamp>| {
                let before = known.get(&process).copied();
                before.filter(|since| *since >= undisturbed).unwrap_or(now)
            };
            let is_due = due_at.is_some_and(|due| due <= replica.wall());
            if is_due {
                due.insert(process, since(&seen.due_since));
            }
            // A due time without a date is only the time of a next try, which a wrong clock may
            // have put far ahead.
            if is_due || due_at.is_some() && !request.is_dated() {
                waits.insert(process, since(&seen.waits_since));
            }
        }
        (seen.due_since, seen.waits_since) = (due, waits);
    }

    /// Each process tries a due record, unless another process changes it meanwhile: a process
    /// alone is enough.
    fn is_tried(
        &self,
        request: &Request,
        replica: &Replica,
        scene: &Scene<'_>,
    ) -> Result<(), String> {
        let (id, process) = (request.id, replica.process);
        let seen = &self.records[&id];
        let Some(waits) = seen.waits_since.get(&process).copied() else {
            return Ok(());
        };
        let read = scene.tries.last_read(process, id).unwrap_or_default();
        let since = waits.max(seen.tried_at).max(read).max(self.quiet(replica));
        let within = match seen.due_since.contains_key(&process) {
            true => TRIED_WITHIN,
            false => TRIED_AGAIN_WITHIN,
        };
        if scene.now - since <= within {
            return Ok(());
        }
        let (state, due_at) = (&request.state, request.schedule.due_at);
        let lease = request.schedule.lease;
        Err(format!(
            "starved: {id} has been due ({due_at:?}) since {since} and process {process} does not \
             try it: {state:?}, {lease:?}"
        ))
    }

    /// The worker that has the lease of a removal asks AWS.
    fn is_asked_for(
        &self,
        request: &Request,
        scene: &Scene<'_>,
        quiet: Timestamp,
    ) -> Result<(), String> {
        let State::Removing { .. } = request.state else {
            return Ok(());
        };
        let seen = &self.records[&request.id];
        let due = seen.due_since.values().min().copied();
        let (Some(due), Some(key)) = (due, request.holding_key()) else {
            return Ok(());
        };
        let asked = scene.tries.last_asked(request.id).unwrap_or_default();
        let since = due.max(seen.since).max(asked).max(quiet);
        if scene.now - since <= ASKED_WITHIN {
            return Ok(());
        }
        let (id, state) = (request.id, &request.state);
        Err(format!(
            "starved: no worker with its lease has asked AWS to remove {key} since {since}: {id} \
             {state:?}"
        ))
    }

    /// How long the request has been in a state that a worker must end. Each attempt changes the
    /// due time, so the check uses the time since which the request is in this state.
    fn stuck_for(&self, request: &Request, now: Timestamp, quiet: Timestamp) -> Option<Millis> {
        let is_work = matches!(request.state, State::Assigning) || is_removal(request);
        let seen = self.records.get(&request.id).filter(|_| is_work)?;
        Some(now - seen.since.max(quiet))
    }

    fn is_seen(&self, request: &Request, now: Timestamp, quiet: Timestamp) -> Result<(), String> {
        let Some(stuck_for) = self.stuck_for(request, now, quiet) else {
            return Ok(());
        };
        let (id, state) = (request.id, &request.state);
        if stuck_for > SEEN_WITHIN && !shows_that_it_is_stuck(request) {
            return Err(format!(
                "not shown: {id} has been stuck for {stuck_for} and is not shown as stuck: {state:?}"
            ));
        }
        let failing = request.failing_since();
        let is_counted = failing.is_some_and(|began| now - began >= STUCK_AFTER);
        if stuck_for > COUNTED_WITHIN && !is_counted {
            return Err(format!(
                "not counted: {id} has been stuck for {stuck_for}, by its record since {failing:?}: {state:?}"
            ));
        }
        Ok(())
    }

    /// K9: the records of a request fit into items of DynamoDB, for any number of commands.
    fn is_small(&mut self, tables: &Tables, request: &Request) -> Result<(), String> {
        let (id, revision) = (request.id, request.version.revision);
        let mut sizes = vec![("outbox", tables.outbox_bytes(id))];
        let seen = self.records.get_mut(&id);
        if seen.is_some_and(|seen| seen.measured.replace(revision) != Some(revision)) {
            sizes.push(("record", serde_json::to_vec(request).unwrap().len()));
        }
        match sizes.into_iter().find(|(_, bytes)| *bytes > LARGEST_ITEM) {
            Some((what, bytes)) => Err(format!(
                "too large: the {what} of {id} has {bytes} bytes, and its removal cannot be written"
            )),
            None => Ok(()),
        }
    }

    /// The metrics of each process show what is stuck, overdue and undelivered.
    fn metrics_show(&mut self, scene: &Scene<'_>, quiet: Timestamp) -> Result<(), String> {
        if scene.now - self.scraped_at < SCRAPE_EVERY {
            return Ok(());
        }
        self.scraped_at = scene.now;
        for replica in scene.working() {
            let scraped = replica.metrics.scrape();
            scene
                .store
                .read(|tables| overdue_is_shown(tables, &scraped, replica.wall()))?;
            // The clock of the process may be wrong before.
            if scene.now - self.quiet(replica) > SEEN_WITHIN {
                self.stuck_is_shown(scene, &scraped, quiet)?;
            }
        }
        Ok(())
    }

    fn stuck_is_shown(
        &self,
        scene: &Scene<'_>,
        scraped: &Scraped,
        quiet: Timestamp,
    ) -> Result<(), String> {
        let stuck_longer = |request: &Request, than: Millis| {
            let stuck_for = self.stuck_for(request, scene.now, quiet);
            stuck_for.is_some_and(|stuck_for| stuck_for > than)
        };
        let (stuck, failing) = scene.store.read(|tables| {
            let stuck = tables.requests();
            let stuck = stuck.filter(|one| stuck_longer(one, COUNTED_WITHIN));
            let failing = tables.requests().filter(|one| is_removal(one));
            let failing = failing.filter(|one| stuck_longer(one, SEEN_WITHIN));
            (stuck.count(), failing.count())
        });
        scraped.shows("jit_stuck_requests", many(stuck))?;
        scraped.shows("jit_failing_removals", many(failing))
    }
}

/// A grant past its end, a due record and a notice are counted while they wait, by the clock of
/// the process.
fn overdue_is_shown(tables: &Tables, scraped: &Scraped, wall: Timestamp) -> Result<(), String> {
    let seconds = |since: Option<Timestamp>| {
        let waited = since.map_or(Millis(0), |since| wall - since);
        f64::from(u32::try_from(waited.0 / 1000).unwrap())
    };
    let is_overdue = |one: &&Request| one.overdue_at().is_some_and(|at| at <= wall);
    let overdue = tables.requests().filter(is_overdue).count();
    scraped.shows("jit_overdue_grants", many(overdue))?;
    let free_since = |one: &Request| {
        let lease = one.schedule.lease.map(|lease| lease.until);
        let since = one.schedule.due_at?.max(lease.unwrap_or_default());
        (since <= wall).then_some(since)
    };
    let waiting: Vec<Timestamp> = tables.requests().filter_map(free_since).collect();
    scraped.shows("jit_due_backlog", many(waiting.len()))?;
    let longest = waiting.iter().min().copied();
    scraped.shows("jit_oldest_due_seconds", seconds(longest))?;
    scraped.shows(
        "jit_undelivered_notices",
        many(tables.pending_notices().count()),
    )?;
    let created = tables.pending_notices().map(|notice| notice.created_at);
    let longest = created.min().filter(|created| *created <= wall);
    scraped.shows("jit_oldest_undelivered_notice_seconds", seconds(longest))
}

fn many(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn is_removal(request: &Request) -> bool {
    matches!(
        request.state,
        State::Removing { .. } | State::Checking { .. } | State::Unsettled { .. }
    )
}

/// The record names the failure, and every form of the status has its text.
fn shows_that_it_is_stuck(request: &Request) -> bool {
    request.schedule.failures.is_some() && RequestObject::from(request).error_details.is_some()
}
