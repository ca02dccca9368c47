//! Between the door and the worker of the same process: what a person asked for is
//! already this process's to do when it is written, so nobody has to look for it.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Handled;
use crate::clock::Clock;
use crate::domain::{Lane, Lease, LeaseToken, Millis, Request, RequestId, Timestamp};

/// How long a piece of work is somebody's, unless it is kept longer.
pub(crate) const LEASE: Millis = Millis::seconds(30);

/// How many are worked on at once. What AWS lets through is not decided here: removals wait
/// for it side by side, so that the same look can serve many, and a revoke never waits for
/// a place.
pub(crate) fn places(lane: Lane) -> usize {
    match lane {
        Lane::Revoke => 2048,
        Lane::Remove => 1024,
        Lane::Other => 40,
    }
}

/// Work that was claimed in the same write that made it.
#[derive(Debug)]
pub(crate) struct Begun {
    pub handled: Handled,
    pub lease: Lease,
}

#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Whether somebody here works until the process ends.
    staffed: AtomicBool,
    at_work: Mutex<HashSet<RequestId>>,
    begun: Mutex<VecDeque<Begun>>,
    /// Rung when something was put down here.
    pub bell: Notify,
}

impl Desk {
    pub fn open(&self) {
        self.staffed.store(true, Ordering::SeqCst);
    }

    pub fn close(&self) {
        self.staffed.store(false, Ordering::SeqCst);
    }

    pub fn sit_down(&self, id: RequestId, lane: Lane) -> Place {
        let mut at_work = locked(&self.at_work);
        if at_work.contains(&id) {
            Place::Had
        } else if at_work.len() >= places(lane) {
            Place::None
        } else {
            at_work.insert(id);
            Place::Taken
        }
    }

    pub fn stand_up(&self, id: RequestId) {
        locked(&self.at_work).remove(&id);
    }

    pub fn take(&self) -> Option<Begun> {
        locked(&self.begun).pop_front()
    }

    /// One to begin with, if somebody here could.
    pub(super) fn lease(&self, clock: &dyn Clock, now: Timestamp) -> Option<Lease> {
        let is_staffed = self.staffed.load(Ordering::SeqCst);
        is_staffed.then(|| Lease {
            token: LeaseToken(clock.draw()),
            until: now + LEASE,
        })
    }

    pub(super) fn seat(&self, request: &Request, lease: Lease) -> Option<Seat<'_>> {
        let (desk, id) = (self, request.id);
        let place = self.sit_down(id, request.lane());
        // Who still has one has done with it: otherwise the lease would not have been free.
        let is_there = place != Place::None;
        is_there.then_some(Seat {
            desk,
            id,
            place,
            lease,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Taken,
    /// It is at work already.
    Had,
    /// All are taken by others.
    None,
}

/// A place that is kept for what is being written; given back unless it comes to be.
pub(super) struct Seat<'d> {
    desk: &'d Desk,
    id: RequestId,
    place: Place,
    lease: Lease,
}

impl Seat<'_> {
    pub fn begin(self, handled: Handled) {
        let lease = self.lease;
        locked(&self.desk.begun).push_back(Begun { handled, lease });
        self.desk.bell.notify_one();
        // The place is the worker's now.
        std::mem::forget(self);
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.place == Place::Taken {
            self.desk.stand_up(self.id);
        }
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
