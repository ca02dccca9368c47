//! Limits on what jit processes at the same time, so that no caller can stop the others.
//!
//! A call whose body has not arrived completely has a place in `BodyPool`. A call has a seat only
//! after its signature or its token was verified. Some seats are for revokes only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::reply::Problem;
use crate::code::Code;
use crate::lock::locked;

/// The number of verified calls that jit processes at the same time.
const MOST_SEATS: usize = 1024;
/// One seat in eight is for revokes only.
const REVOKE_SHARE: usize = 8;
/// The number of calls whose bodies jit awaits at the same time.
const MOST_BODIES: usize = 256;

/// The seats of the calls in progress.
pub struct Seats {
    shared: Arc<Semaphore>,
    for_revokes: Arc<Semaphore>,
}

/// One seat; dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    #[allow(dead_code)] // held for its Drop
    permit: OwnedSemaphorePermit,
}

/// The work that a seat is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatFor {
    Revoke,
    OtherCall,
}

impl Default for Seats {
    fn default() -> Self {
        Self::new(MOST_SEATS)
    }
}

impl Seats {
    fn new(most: usize) -> Self {
        let for_revokes = most / REVOKE_SHARE;
        Self {
            shared: Arc::new(Semaphore::new(most - for_revokes)),
            for_revokes: Arc::new(Semaphore::new(for_revokes)),
        }
    }

    /// The number of calls in progress.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        let free = self.shared.available_permits() + self.for_revokes.available_permits();
        MOST_SEATS - free
    }

    /// Refuses the call at once if no seat is free, so that the calls in progress stay fast.
    pub fn take(&self, work: SeatFor) -> Result<Seat, Problem> {
        let shared = self.shared.clone().try_acquire_owned();
        let permit = shared.or_else(|full| match work {
            SeatFor::Revoke => self.for_revokes.clone().try_acquire_owned(),
            SeatFor::OtherCall => Err(full),
        });
        permit.map(|permit| Seat { permit }).map_err(|_| {
            Problem::new(
                Code::TooMany,
                "jit is processing too many calls; try again in a second",
            )
        })
    }
}

/// The calls whose bodies have not arrived completely. If the pool is full, a new call takes the
/// place of the oldest: an honest body arrives with its head or shortly after it, so the oldest
/// is one that a caller holds back.
pub struct BodyPool {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    places: BTreeMap<u64, CancellationToken>,
}

impl Default for BodyPool {
    fn default() -> Self {
        Self::new(MOST_BODIES)
    }
}

/// The place of one call; dropping it gives it back.
pub struct BodyPlace<'p> {
    pool: &'p BodyPool,
    number: u64,
    evicted: CancellationToken,
}

impl BodyPool {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            waiting: Mutex::default(),
        }
    }

    pub fn enter(&self) -> BodyPlace<'_> {
        let mut waiting = locked(&self.waiting);
        if waiting.places.len() >= self.most
            && let Some((_, oldest)) = waiting.places.pop_first()
        {
            oldest.cancel();
        }
        let (number, evicted) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.places.insert(number, evicted.clone());
        BodyPlace {
            pool: self,
            number,
            evicted,
        }
    }
}

impl BodyPlace<'_> {
    /// Returns when another call has taken this place.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for BodyPlace<'_> {
    fn drop(&mut self) {
        locked(&self.pool.waiting).places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A1: other calls cannot take the seats of revokes.
    #[test]
    fn a1_a_revoke_gets_a_seat_when_other_calls_have_all_theirs() {
        let seats = Seats::new(16);
        let mut taken = Vec::new();
        while let Ok(seat) = seats.take(SeatFor::OtherCall) {
            taken.push(seat);
        }
        assert_eq!(taken.len(), 14);
        let revoke = seats.take(SeatFor::Revoke).unwrap();
        assert!(seats.take(SeatFor::OtherCall).is_err());
        drop(revoke);
        taken.pop();
        assert!(seats.take(SeatFor::OtherCall).is_ok());
    }

    /// A1: a caller that holds its bodies back delays only itself.
    #[tokio::test]
    async fn a1_a_new_body_takes_the_place_of_the_oldest_that_has_not_arrived() {
        let pool = BodyPool::new(2);
        let (first, second) = (pool.enter(), pool.enter());
        let third = pool.enter();
        first.evicted().await;
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop((first, second));
        let fourth = pool.enter();
        assert!(!third.evicted.is_cancelled() && !fourth.evicted.is_cancelled());
    }
}
