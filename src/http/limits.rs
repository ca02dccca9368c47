//! Limits on what jit processes at the same time, so that no caller can stop the others.
//!
//! A call whose body has not arrived completely has a place in a `BodyPool`. A call has a seat only
//! after its signature or its token was verified. Some seats are for revokes only.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::connections::Peer;
use super::reply::Problem;
use crate::code::Code;
use crate::lock::locked;

/// The number of verified calls that jit processes at the same time.
const MOST_SEATS: usize = 1024;
/// One seat in eight is for revokes only.
const REVOKE_SHARE: usize = 8;
/// The largest number of calls with a known key whose bodies jit awaits at the same time.
const MOST_BODIES: usize = 256;
/// The same number for each other kind of body.
const MOST_OTHER_BODIES: usize = 64;

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

/// The kind of a call whose body jit awaits. A10: each kind has places of its own, so that no caller
/// of one kind takes a place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyOf {
    UnknownKey,
    KnownKey,
    /// A revoke with a known key.
    Revoke,
    /// A call of Mattermost, which names no key.
    Chat,
}

pub struct BodyPools {
    unknown_keys: BodyPool,
    known_keys: BodyPool,
    revokes: BodyPool,
    chat: BodyPool,
}

impl Default for BodyPools {
    fn default() -> Self {
        Self {
            unknown_keys: BodyPool::new(MOST_OTHER_BODIES),
            known_keys: BodyPool::new(MOST_BODIES),
            revokes: BodyPool::new(MOST_OTHER_BODIES),
            chat: BodyPool::new(MOST_OTHER_BODIES),
        }
    }
}

impl BodyPools {
    /// A1: limits the pools to a part of the connections. All pools together have fewer places than
    /// one address has connections, so a new connection always finds one that jit can close.
    pub fn fit(&self, connections: usize) {
        let known_keys = (connections / 8).clamp(1, MOST_BODIES);
        self.known_keys.most.store(known_keys, Ordering::Relaxed);
        let others = (connections / 16).clamp(1, MOST_OTHER_BODIES);
        for pool in [&self.unknown_keys, &self.revokes, &self.chat] {
            pool.most.store(others, Ordering::Relaxed);
        }
    }

    pub fn of(&self, body: BodyOf) -> &BodyPool {
        match body {
            BodyOf::UnknownKey => &self.unknown_keys,
            BodyOf::KnownKey => &self.known_keys,
            BodyOf::Revoke => &self.revokes,
            BodyOf::Chat => &self.chat,
        }
    }
}

/// The calls of one kind whose bodies have not arrived completely. If the pool is full, a new call
/// takes the place of the oldest of the address with the most places: an honest body arrives with
/// its head or shortly after it, so the oldest is one that a caller holds back.
pub struct BodyPool {
    most: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    places: BTreeMap<u64, AwaitedBody>,
}

struct AwaitedBody {
    peer: Option<Peer>,
    evicted: CancellationToken,
}

/// The place of one call; dropping it gives it back.
pub struct BodyPlace<'p> {
    pool: &'p BodyPool,
    number: u64,
    evicted: CancellationToken,
}

impl BodyPool {
    fn new(most: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            waiting: Mutex::default(),
        }
    }

    pub fn enter(&self, peer: Option<Peer>) -> BodyPlace<'_> {
        let mut waiting = locked(&self.waiting);
        if waiting.places.len() >= self.most.load(Ordering::Relaxed) {
            waiting.evict();
        }
        let (number, evicted) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        let awaited = AwaitedBody {
            peer,
            evicted: evicted.clone(),
        };
        waiting.places.insert(number, awaited);
        BodyPlace {
            pool: self,
            number,
            evicted,
        }
    }
}

impl Waiting {
    /// Takes the place of the oldest call of the address with the most places.
    fn evict(&mut self) {
        let mut counts: BTreeMap<Option<Peer>, usize> = BTreeMap::new();
        for one in self.places.values() {
            *counts.entry(one.peer).or_default() += 1;
        }
        let all = self.places.iter();
        let worst = all.max_by_key(|(number, one)| (counts.get(&one.peer), Reverse(**number)));
        let worst = worst.map(|(number, _)| *number);
        if let Some(evicted) = worst.and_then(|number| self.places.remove(&number)) {
            evicted.evicted.cancel();
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
        let (first, second) = (pool.enter(None), pool.enter(None));
        let third = pool.enter(None);
        first.evicted().await;
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop((first, second));
        let fourth = pool.enter(None);
        assert!(!third.evicted.is_cancelled() && !fourth.evicted.is_cancelled());
    }

    // A1
    #[test]
    fn a1_the_bodies_of_all_kinds_leave_half_of_an_address_to_other_calls() {
        for connections in [16, 86, 448, 1024, 4096] {
            let pools = BodyPools::default();
            pools.fit(connections);
            let all = [
                &pools.unknown_keys,
                &pools.known_keys,
                &pools.revokes,
                &pools.chat,
            ];
            let places: usize = all
                .map(|pool| pool.most.load(Ordering::Relaxed))
                .iter()
                .sum();
            assert!(places < connections / 2, "{connections}: {places}");
        }
    }

    /// A10: a caller with many bodies takes its own places, also from a second caller that waits
    /// for a longer time.
    #[test]
    fn a10_a_new_body_takes_a_place_of_the_address_with_the_most() {
        let pool = BodyPool::new(4);
        let peer = |last| Some(Peer::at([192, 0, 2, last].into()));
        let honest = pool.enter(peer(1));
        let flood: Vec<BodyPlace<'_>> = (0..100).map(|_| pool.enter(peer(2))).collect();
        assert!(!honest.evicted.is_cancelled());
        let kept = flood.iter().filter(|one| !one.evicted.is_cancelled());
        assert_eq!(kept.count(), 3);
        let second = pool.enter(peer(3));
        assert!(!honest.evicted.is_cancelled() && !second.evicted.is_cancelled());
    }
}
