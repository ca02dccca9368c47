//! How many requests of a lane a worker claims at once, and when the loop has to search for
//! more of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::domain::Lane;

/// At most this many claims of a lane run at once: more than AWS's quota lets through, and few
/// enough that the store answers them in time when several workers find many due requests at
/// once. If the store answers too late, all of those claims have lapsed.
const AT_ONCE: usize = 4;

#[derive(Debug)]
pub(super) struct Claims {
    lanes: [LaneClaims; Lane::ALL.len()],
    /// Notified when few requests are left to claim and the store may have more.
    pub search_again: Notify,
}

#[derive(Debug)]
struct LaneClaims {
    turns: Semaphore,
    /// The number of tasks that have not claimed their request yet.
    left: AtomicUsize,
    /// Whether the last search left some that are due.
    more: AtomicBool,
}

/// One request that has a task and is not claimed yet; counted until it is dropped.
pub(super) struct Unclaimed<'c> {
    claims: &'c Claims,
    lane: Lane,
}

impl Claims {
    pub fn new() -> Self {
        Self {
            lanes: Lane::ALL.map(|_| LaneClaims {
                turns: Semaphore::new(AT_ONCE),
                left: AtomicUsize::new(0),
                more: AtomicBool::new(false),
            }),
            search_again: Notify::new(),
        }
    }

    fn lane(&self, lane: Lane) -> &LaneClaims {
        &self.lanes[usize::from(lane.number())]
    }

    pub fn unclaimed(&self, lane: Lane) -> Unclaimed<'_> {
        self.lane(lane).left.fetch_add(1, Ordering::SeqCst);
        Unclaimed { claims: self, lane }
    }

    /// Waits for a turn, which the permit keeps until it is dropped. The semaphore is never
    /// closed.
    pub async fn turn(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        self.lane(lane).turns.acquire().await.ok()
    }

    pub fn set_more(&self, lane: Lane, more: bool) {
        self.lane(lane).more.store(more, Ordering::SeqCst);
    }

    /// Whether the last search left some that are due.
    pub fn has_more(&self) -> bool {
        let has_more = |lane: &LaneClaims| lane.more.load(Ordering::SeqCst);
        self.lanes.iter().any(has_more)
    }
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        let lane = self.claims.lane(self.lane);
        let left = lane.left.fetch_sub(1, Ordering::SeqCst) - 1;
        // Before the last request is claimed, because a search takes time as well.
        if left < AT_ONCE && lane.more.load(Ordering::SeqCst) {
            self.claims.search_again.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_next_search_begins_before_all_requests_are_claimed() {
        let claims = Claims::new();
        let mut left: Vec<Unclaimed<'_>> = (0..=AT_ONCE)
            .map(|_| claims.unclaimed(Lane::Remove))
            .collect();
        let is_asked_for = || claims.search_again.notified().now_or_never().is_some();
        left.pop();
        assert!(!is_asked_for(), "many are left");
        claims.set_more(Lane::Remove, true);
        left.pop();
        assert!(is_asked_for(), "few are left, and the store has more");
        claims.set_more(Lane::Remove, false);
        left.pop();
        assert!(!is_asked_for(), "the store has no more");
    }
}
