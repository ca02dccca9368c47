//! The queue between the service and the worker of the same process. A command of a person is
//! claimed for this process in its own commit, so no worker has to find the request.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::Handled;
use crate::clock::{Clock, Uptime};
use crate::domain::{Lane, Lease, LeaseHolder, LeaseToken, Millis, Request, RequestId, Timestamp};
use crate::lock::locked;

/// The number of slots of a lane. The pace of AWS calls is not decided here: removals wait for
/// their turn in parallel, so that one look can serve many of them, and a revoke always finds
/// a slot. No lane uses the slots of another.
pub(crate) fn slots(lane: Lane) -> usize {
    match lane {
        Lane::Revoke => 2048,
        Lane::Remove => 1024,
        Lane::Other => 40,
    }
}

/// Work that was claimed in the commit that made the request due.
#[derive(Debug)]
pub(crate) struct ClaimedWork {
    pub handled: Handled,
    pub lease: Lease,
    pub deadline: LeaseDeadline,
    /// None if another execution of this process has the slot of the request and is about to end.
    pub slot: Option<Slot>,
}

/// The deadline of a lease, counted from before the write of the lease. Two clocks must
/// confirm it: the uptime, because an operator can set the wall clock; and the wall clock,
/// because the uptime of a suspended process may stand still.
#[derive(Debug)]
pub(crate) struct LeaseDeadline(Mutex<BothClocks>);

/// A moment, measured by both clocks.
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

    /// A renewal that began then: it counts only if the store has written it.
    pub fn renewed<T, E>(&self, begun: BothClocks, written: Result<T, E>) -> Result<T, E> {
        if written.is_ok() {
            *locked(&self.0) = begun;
        }
        written
    }

    /// Whether the lease certainly lasts for this span from now on.
    pub fn lasts_for(&self, span: Millis, clock: &dyn Clock) -> bool {
        let (taken, now) = (*locked(&self.0), BothClocks::now(clock));
        let left = Millis(Lease::LASTS.0 - span.0);
        now.up - taken.up <= left && now.wall - taken.wall <= left
    }
}

/// A new lease of this process.
pub(crate) fn new_lease(clock: &dyn Clock, by: LeaseHolder) -> Lease {
    lease_again(LeaseToken(clock.draw()), clock, by)
}

/// The same lease, renewed now.
pub(crate) fn lease_again(token: LeaseToken, clock: &dyn Clock, by: LeaseHolder) -> Lease {
    Lease {
        token,
        until: clock.now() + Lease::TRUSTED_FOR,
        by,
    }
}

#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    /// Whether a worker of this process runs until the process ends.
    is_open: AtomicBool,
    at_work: Mutex<AtWork>,
    begun: Mutex<VecDeque<ClaimedWork>>,
    /// Notified when work was put in.
    pub bell: Notify,
}

#[derive(Debug, Default)]
struct AtWork {
    by_id: HashMap<RequestId, Lane>,
    in_lane: [usize; Lane::ALL.len()],
}

/// A slot of one request. It is freed when it is dropped, also by an error or a panic.
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

    /// Reserves a slot for work that is about to be committed under this lease; it is freed if
    /// the commit fails.
    pub(super) fn reserve_for(
        self: &Arc<Self>,
        request: &Request,
        lease: Lease,
        taken: BothClocks,
    ) -> Option<ReservedWork> {
        let slot = match self.reserve(request.id, request.lane()) {
            Reservation::Reserved(slot) => Some(slot),
            // The lease is free, so the execution that has the slot is about to end.
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
    /// The request has a slot already.
    AlreadyAtWork,
    /// All slots of the lane are taken.
    Full,
}

/// A slot that is reserved for work that is being committed.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use uuid::Uuid;

    fn id(number: u128) -> RequestId {
        RequestId::from_uuid(Uuid::from_u128(number))
    }

    // K15
    #[test]
    fn removals_take_no_slot_of_a_create() {
        let work_queue = Arc::new(WorkQueue::default());
        let removals: Vec<Reservation> = (0..100)
            .map(|n| work_queue.reserve(id(n), Lane::Remove))
            .collect();
        assert!(
            removals
                .iter()
                .all(|reserved| matches!(reserved, Reservation::Reserved(_)))
        );
        let creates: Vec<Reservation> = (100..141)
            .map(|n| work_queue.reserve(id(n), Lane::Other))
            .collect();
        let taken = creates
            .iter()
            .filter(|reserved| matches!(reserved, Reservation::Reserved(_)));
        assert_eq!(taken.count(), slots(Lane::Other));
        drop(creates);
        assert!(matches!(
            work_queue.reserve(id(141), Lane::Other),
            Reservation::Reserved(_)
        ));
    }

    #[test]
    fn a_slot_is_freed_when_its_work_ends_or_panics() {
        let work_queue = Arc::new(WorkQueue::default());
        let Reservation::Reserved(slot) = work_queue.reserve(id(1), Lane::Revoke) else {
            panic!("no slot");
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

    // P4: calls are sent only while the lease is sure to outlast them.
    #[test]
    fn a_renewal_that_is_not_written_does_not_prolong_a_lease() {
        let clock = SystemClock;
        let now = BothClocks::now(&clock);
        let before = BothClocks {
            up: now.up + Millis(-Lease::LASTS.0),
            wall: now.wall + Millis(-Lease::LASTS.0),
        };
        let span = Millis::seconds(10);
        let deadline = LeaseDeadline::since(before);
        assert_eq!(
            deadline.renewed::<(), _>(now, Err("no answer")),
            Err("no answer")
        );
        assert!(!deadline.lasts_for(span, &clock));
        assert_eq!(deadline.renewed::<_, &str>(now, Ok(())), Ok(()));
        assert!(deadline.lasts_for(span, &clock));
    }
}
