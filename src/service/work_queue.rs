//! Between the door and the worker of the same process: what a person asked for is
//! already this process's to do when it is written, so nobody has to look for it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Handled;
use crate::clock::{Clock, Uptime};
use crate::domain::{Lane, Lease, LeaseHolder, LeaseToken, Millis, Request, RequestId, Timestamp};

/// How many of a lane are worked on at once. What AWS lets through is not decided here:
/// removals wait for it side by side, so that the same look can serve many, and a revoke
/// never waits for a place. No lane takes a place of another.
pub(crate) fn slots(lane: Lane) -> usize {
    match lane {
        Lane::Revoke => 2048,
        Lane::Remove => 1024,
        Lane::Other => 40,
    }
}

/// Work that was claimed in the same write that made it.
#[derive(Debug)]
pub(crate) struct ClaimedWork {
    pub handled: Handled,
    pub lease: Lease,
    pub deadline: LeaseDeadline,
    /// None: the request has a place already, of a piece of work that is about to end.
    pub slot: Option<Slot>,
}

/// How long the holder of a lease may act, counted from before the lease was written. Two
/// clocks must agree: uptime, because the wall clock can be set; and the wall clock, because
/// the uptime of a process that was frozen may have stood still.
#[derive(Debug)]
pub(crate) struct LeaseDeadline(Mutex<BothClocks>);

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BothClocks {
    up: Uptime,
    wall: Timestamp,
}

impl BothClocks {
    pub fn now(clock: &dyn Clock) -> Self {
        Self {
            up: clock.uptime(),
            wall: clock.now(),
        }
    }
}

impl LeaseDeadline {
    pub fn since(taken: BothClocks) -> Self {
        Self(Mutex::new(taken))
    }

    /// The lease was renewed, by a write that began then.
    pub fn renew(&self, begun: BothClocks) {
        *locked(&self.0) = begun;
    }

    /// Whether it is sure to last for this span from now on.
    pub fn lasts_for(&self, span: Millis, clock: &dyn Clock) -> bool {
        let (taken, now) = (*locked(&self.0), BothClocks::now(clock));
        let left = Millis(Lease::LASTS.0 - span.0);
        now.up - taken.up <= left && now.wall - taken.wall <= left
    }
}

/// A lease of this process that begins now.
pub(crate) fn new_lease(clock: &dyn Clock, by: LeaseHolder) -> Lease {
    lease_again(LeaseToken(clock.draw()), clock, by)
}

/// The same lease, from now on.
pub(crate) fn lease_again(token: LeaseToken, clock: &dyn Clock, by: LeaseHolder) -> Lease {
    Lease {
        token,
        until: clock.now() + Lease::TRUSTED_FOR,
        by,
    }
}

#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    /// Whether a worker of this process works until the process ends.
    is_open: AtomicBool,
    at_work: Mutex<AtWork>,
    begun: Mutex<VecDeque<ClaimedWork>>,
    /// Rung when something was put down here.
    pub bell: Notify,
}

#[derive(Debug, Default)]
struct AtWork {
    by_id: HashMap<RequestId, Lane>,
    in_lane: [usize; Lane::ALL.len()],
}

/// A place at work for one request; given up when it is dropped, however its work ended.
#[derive(Debug)]
pub(crate) struct Slot {
    work_queue: Arc<WorkQueue>,
    id: RequestId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut at_work = locked(&self.work_queue.at_work);
        if let Some(lane) = at_work.by_id.remove(&self.id) {
            at_work.in_lane[usize::from(lane.number())] -= 1;
        }
    }
}

impl WorkQueue {
    pub fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    pub fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
    }

    pub fn reserve(self: &Arc<Self>, id: RequestId, lane: Lane) -> Reservation {
        let mut at_work = locked(&self.at_work);
        let in_lane = usize::from(lane.number());
        if at_work.by_id.contains_key(&id) {
            Reservation::AlreadyAtWork
        } else if at_work.in_lane[in_lane] >= slots(lane) {
            Reservation::Full
        } else {
            at_work.by_id.insert(id, lane);
            at_work.in_lane[in_lane] += 1;
            let work_queue = self.clone();
            Reservation::Reserved(Slot { work_queue, id })
        }
    }

    pub fn at_work(&self, lane: Lane) -> usize {
        locked(&self.at_work).in_lane[usize::from(lane.number())]
    }

    pub fn take(&self) -> Option<ClaimedWork> {
        locked(&self.begun).pop_front()
    }

    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// A place for what is about to be written under this lease; given back unless it is.
    pub(super) fn reserve_for(
        self: &Arc<Self>,
        request: &Request,
        lease: Lease,
        taken: BothClocks,
    ) -> Option<ReservedWork> {
        let slot = match self.reserve(request.id, request.lane()) {
            Reservation::Reserved(slot) => Some(slot),
            // The piece of work that has it is about to end: its lease was free.
            Reservation::AlreadyAtWork => None,
            Reservation::Full => return None,
        };
        let work_queue = self.clone();
        Some(ReservedWork {
            work_queue,
            slot,
            lease,
            taken,
        })
    }
}

#[derive(Debug)]
pub(crate) enum Reservation {
    Reserved(Slot),
    /// It is at work already.
    AlreadyAtWork,
    /// All of its lane are taken by others.
    Full,
}

/// A place that is kept for what is being written.
pub(super) struct ReservedWork {
    work_queue: Arc<WorkQueue>,
    slot: Option<Slot>,
    lease: Lease,
    taken: BothClocks,
}

impl ReservedWork {
    pub fn begin(self, handled: Handled) {
        let begun = ClaimedWork {
            handled,
            lease: self.lease,
            deadline: LeaseDeadline::since(self.taken),
            slot: self.slot,
        };
        locked(&self.work_queue.begun).push_back(begun);
        self.work_queue.bell.notify_one();
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn id(number: u128) -> RequestId {
        RequestId::from_uuid(Uuid::from_u128(number))
    }

    // K15
    #[test]
    fn removals_at_work_take_no_place_of_a_create() {
        let work_queue = Arc::new(WorkQueue::default());
        let removals: Vec<Reservation> = (0..100)
            .map(|n| work_queue.reserve(id(n), Lane::Remove))
            .collect();
        assert!(
            removals
                .iter()
                .all(|place| matches!(place, Reservation::Reserved(_)))
        );
        let creates: Vec<Reservation> = (100..141)
            .map(|n| work_queue.reserve(id(n), Lane::Other))
            .collect();
        let taken = creates
            .iter()
            .filter(|place| matches!(place, Reservation::Reserved(_)));
        assert_eq!(taken.count(), slots(Lane::Other));
        drop(creates);
        assert!(matches!(
            work_queue.reserve(id(141), Lane::Other),
            Reservation::Reserved(_)
        ));
    }

    #[test]
    fn a_place_is_given_up_however_its_work_ends() {
        let work_queue = Arc::new(WorkQueue::default());
        let Reservation::Reserved(slot) = work_queue.reserve(id(1), Lane::Revoke) else {
            panic!("no place");
        };
        assert!(matches!(
            work_queue.reserve(id(1), Lane::Revoke),
            Reservation::AlreadyAtWork
        ));
        let work = std::panic::AssertUnwindSafe(move || {
            let _kept = slot;
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert!(std::panic::catch_unwind(work).is_err());
        assert!(matches!(
            work_queue.reserve(id(1), Lane::Revoke),
            Reservation::Reserved(_)
        ));
    }
}
