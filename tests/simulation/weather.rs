//! What goes wrong just now, for all processes together.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard};

use jit::domain::{Lane, Millis, RequestId, Timestamp};
use jit::store::{Commit, StoreError};

use crate::clock::Time;
use crate::executor::Planted;
use crate::memory::MemoryStore;
use crate::plan::{Fault, Plan};

/// One call in so many panics, in worlds where they do.
const PANICS: u32 = 400;

#[derive(Clone, Default)]
pub struct Weather(Arc<Mutex<Air>>);

#[derive(Default)]
struct Air {
    /// One call in so many is lost; 0: none.
    storm: u32,
    panics: u32,
    is_wire_slow: bool,
    is_store_late: bool,
    is_receiver_deaf: bool,
    does_index_lag: bool,
    is_disk_full: bool,
    /// Writes that their callers have given up, by when they are carried out.
    late: BTreeMap<(Timestamp, u64), Commit>,
    numbers: u64,
    index: Index,
}

/// What the index of due records showed when it was brought up to date last.
#[derive(Default)]
struct Index {
    until: Timestamp,
    due: Vec<(Lane, Timestamp, RequestId)>,
}

impl Weather {
    /// From here on everything goes wrong that the plan names.
    pub fn begin(&self, plan: &Plan) {
        *self.air() = Air {
            storm: plan.storm,
            panics: if plan.has(Fault::Panic) { PANICS } else { 0 },
            is_wire_slow: plan.has(Fault::Wire),
            is_store_late: plan.has(Fault::LateStore),
            is_receiver_deaf: plan.has(Fault::Deaf),
            does_index_lag: plan.has(Fault::Lag),
            ..Air::default()
        };
    }

    fn air(&self) -> MutexGuard<'_, Air> {
        self.0.lock().unwrap()
    }

    /// What was to be written late still is.
    pub fn calm(&self) {
        let mut air = self.air();
        let late = std::mem::take(&mut air.late);
        *air = Air {
            late,
            numbers: air.numbers,
            ..Air::default()
        };
    }

    pub fn strikes(&self, time: &Time) -> bool {
        let storm = self.air().storm;
        time.chance(storm)
    }

    /// Kills the task that calls this, now and then.
    pub fn may_panic(&self, time: &Time) {
        let panics = self.air().panics;
        if time.chance(panics) {
            resume_unwind(Box::new(Planted));
        }
    }

    pub fn is_wire_slow(&self) -> bool {
        self.air().is_wire_slow
    }

    pub fn is_store_late(&self) -> bool {
        self.air().is_store_late
    }

    pub fn is_receiver_deaf(&self) -> bool {
        self.air().is_receiver_deaf
    }

    pub fn is_disk_full(&self) -> bool {
        self.air().is_disk_full
    }

    /// Returns whether it is full now.
    pub fn fill_or_empty_the_disk(&self) -> bool {
        let mut air = self.air();
        air.is_disk_full = !air.is_disk_full;
        air.is_disk_full
    }

    pub fn write_late(&self, commit: Commit, at: Timestamp) {
        let mut air = self.air();
        air.numbers += 1;
        let number = air.numbers;
        air.late.insert((at, number), commit);
    }

    pub fn next_late_write(&self) -> Option<Timestamp> {
        self.air().late.keys().next().map(|(at, _)| *at)
    }

    /// Carries out the first write that was to be carried out by now; one that no longer
    /// fits is refused as any other. False: there is none.
    pub fn write_one_late(&self, store: &MemoryStore, now: Timestamp) -> bool {
        let mut air = self.air();
        let first = air.late.first_entry();
        let Some(first) = first.filter(|entry| entry.key().0 <= now) else {
            return false;
        };
        let commit = first.remove();
        match store.commit_now(commit) {
            Ok(()) | Err(StoreError::Conflict(_) | StoreError::Replayed) => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// What an index shows that is brought up to date every few seconds. None: this one
    /// is up to date.
    pub fn lagging(
        &self,
        store: &MemoryStore,
        time: &Time,
    ) -> Option<Vec<(Lane, Timestamp, RequestId)>> {
        let mut air = self.air();
        if !air.does_index_lag {
            return None;
        }
        let now = time.now();
        if now >= air.index.until {
            let due = store.read(|tables| {
                let requests = tables.requests();
                requests
                    .filter_map(|one| Some((one.lane(), one.claimable_at()?, one.id)))
                    .collect()
            });
            let until = now + time.span(Millis::seconds(8));
            air.index = Index { until, due };
        }
        Some(air.index.due.clone())
    }
}
