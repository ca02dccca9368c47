//! The current faults, for all processes together.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard};

use jit::domain::{Lane, Millis, ReceiverName, RequestId, Timestamp};
use jit::store::{Commit, StoreError};

use crate::clock::Time;
use crate::executor::Planted;
use crate::memory::MemoryStore;
use crate::plan::{Fault, Plan};
use crate::receivers::Deafness;

/// One call in this many panics, in worlds with panics.
const PANICS: u32 = 400;

#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<FaultState>>);

#[derive(Default)]
struct FaultState {
    /// One call in this many is lost; 0: none.
    storm: u32,
    panics: u32,
    is_wire_slow: bool,
    is_store_late: bool,
    deaf: Vec<(ReceiverName, Deafness)>,
    does_index_lag: bool,
    is_disk_full: bool,
    /// Writes whose callers have given up, by the time at which they are carried out.
    late: BTreeMap<(Timestamp, u64), Commit>,
    numbers: u64,
    index: Index,
}

/// The content of the index of due records at its last update.
#[derive(Default)]
struct Index {
    until: Timestamp,
    due: Vec<(Lane, Timestamp, RequestId)>,
}

impl Faults {
    /// Begins the faults of the plan.
    pub fn begin(&self, plan: &Plan) {
        *self.state() = FaultState {
            storm: plan.storm,
            panics: if plan.has(Fault::Panic) { PANICS } else { 0 },
            is_wire_slow: plan.has(Fault::Wire),
            is_store_late: plan.has(Fault::LateStore),
            deaf: plan.deaf.clone(),
            does_index_lag: plan.has(Fault::Lag),
            ..FaultState::default()
        };
    }

    fn state(&self) -> MutexGuard<'_, FaultState> {
        self.0.lock().unwrap()
    }

    /// Ends all faults. The late writes are still carried out.
    pub fn calm(&self) {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        *state = FaultState {
            late,
            numbers: state.numbers,
            ..FaultState::default()
        };
    }

    pub fn strikes(&self, time: &Time) -> bool {
        let storm = self.state().storm;
        time.chance(storm)
    }

    /// Panics at random, which ends the calling task.
    pub fn may_panic(&self, time: &Time) {
        let panics = self.state().panics;
        if time.chance(panics) {
            resume_unwind(Box::new(Planted));
        }
    }

    pub fn is_wire_slow(&self) -> bool {
        self.state().is_wire_slow
    }

    pub fn is_store_late(&self) -> bool {
        self.state().is_store_late
    }

    pub fn deafness(&self, receiver: ReceiverName) -> Option<Deafness> {
        let state = self.state();
        let mut deaf = state.deaf.iter();
        deaf.find(|(name, _)| *name == receiver)
            .map(|(_, how)| *how)
    }

    pub fn is_disk_full(&self) -> bool {
        self.state().is_disk_full
    }

    /// Returns whether the disk is full now.
    pub fn fill_or_empty_the_disk(&self) -> bool {
        let mut state = self.state();
        state.is_disk_full = !state.is_disk_full;
        state.is_disk_full
    }

    pub fn write_late(&self, commit: Commit, at: Timestamp) {
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        state.late.insert((at, number), commit);
    }

    pub fn next_late_write(&self) -> Option<Timestamp> {
        self.state().late.keys().next().map(|(at, _)| *at)
    }

    /// Carries out the first late write whose time has come; one that conflicts is refused like any
    /// other. `false`: there is none.
    pub fn write_one_late(&self, store: &MemoryStore, now: Timestamp) -> bool {
        let mut state = self.state();
        let first = state.late.first_entry();
        let Some(first) = first.filter(|entry| entry.key().0 <= now) else {
            return false;
        };
        let commit = first.remove();
        match store.commit_now(commit) {
            Ok(()) | Err(StoreError::Conflict(_) | StoreError::Replayed) => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// The content of an index that is updated every few seconds. `None`: this index is up to date.
    pub fn lagging(
        &self,
        store: &MemoryStore,
        time: &Time,
    ) -> Option<Vec<(Lane, Timestamp, RequestId)>> {
        let mut state = self.state();
        if !state.does_index_lag {
            return None;
        }
        let now = time.now();
        if now >= state.index.until {
            let due = store.read(|tables| {
                let requests = tables.requests();
                requests
                    .filter_map(|one| Some((one.lane(), one.claimable_at()?, one.id)))
                    .collect()
            });
            let until = now + time.span(Millis::seconds(8));
            state.index = Index { until, due };
        }
        Some(state.index.due.clone())
    }
}
