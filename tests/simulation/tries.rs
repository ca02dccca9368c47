//! The attempts of the workers, each by its process: which process searched for due records, which
//! read a record to claim it, and which asked AWS about a record whose lease it has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jit::domain::{Lane, LeaseToken, Request, RequestId, Timestamp};
use jit::identity_center::AssignmentPlace;
use jit::store::{Commit, Write};

use crate::aws::{Aws, Question};
use crate::clock::ProcessId;
use crate::executor::Kind;
use crate::memory::MemoryStore;

#[derive(Clone, Default)]
pub struct Tries(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    searches: BTreeMap<(ProcessId, u8), Timestamp>,
    reads: BTreeMap<(ProcessId, RequestId), Timestamp>,
    /// The process that first wrote each lease.
    leases: BTreeMap<LeaseToken, ProcessId>,
    /// When the worker that had the lease of a request last asked AWS about its assignment.
    asked: BTreeMap<RequestId, Timestamp>,
}

impl Tries {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// A process asks the store for the due records of a lane.
    pub fn searches(&self, process: ProcessId, lane: Lane, now: Timestamp) {
        self.inner().searches.insert((process, lane.number()), now);
    }

    /// A process reads a record. The call of a person is no attempt of a worker.
    pub fn reads(&self, process: ProcessId, by: Kind, id: RequestId, now: Timestamp) {
        if by != Kind::Call {
            self.inner().reads.insert((process, id), now);
        }
    }

    /// A process writes: a lease that no process wrote before is its own.
    pub fn writes(&self, process: ProcessId, commit: &Commit) {
        let mut inner = self.inner();
        for write in &commit.writes {
            if let Write::Request(request) = write
                && let Some(lease) = request.schedule.lease
            {
                inner.leases.entry(lease.token).or_insert(process);
            }
        }
    }

    /// A process sends a question to AWS, which is an attempt at each request whose lease it has.
    pub fn asks(
        &self,
        process: ProcessId,
        question: &Question,
        store: &MemoryStore,
        aws: &Aws,
        now: Timestamp,
    ) {
        let is_about = |request: &Request| {
            let key = request.holding_key();
            match question {
                Question::Delete(about) => key.as_ref() == Some(about),
                Question::Assigned(place, _) => key
                    .as_ref()
                    .is_some_and(|key| AssignmentPlace::of(key) == *place),
                Question::Poll(operation) => key.is_some() && aws.key_of(operation) == key,
                _ => false,
            }
        };
        let mut inner = self.inner();
        store.read(|tables| {
            for request in tables.requests().filter(|one| is_about(one)) {
                let lease = request.schedule.lease;
                let of = lease.and_then(|lease| inner.leases.get(&lease.token));
                if of == Some(&process) {
                    inner.asked.insert(request.id, now);
                }
            }
        });
    }

    /// When this process last asked for the due records of the lane for which it did so least
    /// recently.
    pub fn last_search(&self, process: ProcessId) -> Option<Timestamp> {
        let inner = self.inner();
        let searches = Lane::ALL.map(|lane| inner.searches.get(&(process, lane.number())).copied());
        searches.into_iter().min().flatten()
    }

    pub fn last_read(&self, process: ProcessId, id: RequestId) -> Option<Timestamp> {
        self.inner().reads.get(&(process, id)).copied()
    }

    pub fn last_asked(&self, id: RequestId) -> Option<Timestamp> {
        self.inner().asked.get(&id).copied()
    }
}
