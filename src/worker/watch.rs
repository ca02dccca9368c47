//! Leases and calls that this process has seen unchanged, and since when, by its own uptime. A lease that was
//! unchanged for long enough has lapsed; the clock of its worker does not matter.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

use crate::clock::{Clock, Uptime};
use crate::domain::{Lane, Lease, LeaseToken, Millis, RequestId, Timestamp};
use crate::identity_center::CALL_PATIENCE;
use crate::lock::locked;

/// An entry that was not used for this long is removed.
const REMEMBERED_FOR: Millis = Millis::minutes(30);
/// Old entries are removed only when there are this many.
const MANY: usize = 1024;

/// A value, and the time since which it has been seen unchanged.
#[derive(Debug)]
struct Observed<K, V> {
    things: Mutex<HashMap<K, (V, Uptime)>>,
}

impl<K: Eq + Hash, V: PartialEq> Observed<K, V> {
    fn new() -> Self {
        Self {
            things: Mutex::default(),
        }
    }

    /// Stores the present value; returns since when it has been unchanged.
    fn see(&self, thing: K, is: V, now: Uptime) -> Uptime {
        let mut things = self.things();
        if things.len() >= MANY {
            things.retain(|_, (_, since)| now - *since < REMEMBERED_FOR);
        }
        match things.get(&thing) {
            Some((was, since)) if *was == is => *since,
            Some(_) | None => {
                things.insert(thing, (is, now));
                now
            }
        }
    }

    fn things(&self) -> MutexGuard<'_, HashMap<K, (V, Uptime)>> {
        locked(&self.things)
    }
}

#[derive(Debug)]
pub(super) struct Watch {
    leases: Observed<RequestId, Lease>,
    named_leases: Observed<String, Lease>,
    calls: Observed<LeaseToken, ()>,
}

impl Watch {
    pub fn new() -> Self {
        Self {
            leases: Observed::new(),
            named_leases: Observed::new(),
            calls: Observed::new(),
        }
    }

    /// Notes the lease of another worker; returns when it will have lapsed if it is not renewed.
    pub fn see_lease(&self, id: RequestId, lease: Lease, now: Uptime) -> Uptime {
        self.leases.see(id, lease, now) + Lease::LASTS
    }

    /// The lease on this request, if it was seen unchanged for as long as a lease lasts.
    pub fn lapsed(&self, id: RequestId, now: Uptime) -> Option<Lease> {
        let things = self.leases.things();
        let (lease, since) = things.get(&id)?;
        (now - *since >= Lease::LASTS).then_some(*lease)
    }

    pub fn forget_lease(&self, id: RequestId) {
        self.leases.things().remove(&id);
    }

    /// Notes a lease by name; returns it if it has lapsed.
    pub fn see_named_lease(&self, name: &str, lease: Lease, now: Uptime) -> Option<Lease> {
        let since = self.named_leases.see(name.to_owned(), lease, now);
        (now - since >= Lease::LASTS).then_some(lease)
    }

    /// Notes an unanswered call that was sent under this lease; returns when it has taken effect
    /// or never will.
    pub fn see_call(&self, sent_under: LeaseToken, now: Uptime) -> Uptime {
        self.calls.see(sent_under, (), now) + CALL_PATIENCE
    }
}

/// A smaller difference is no jump: clocks are slewed.
const TOLERATED: Millis = Millis::seconds(1);
/// A wrong clock of another process may have put a next try too late by this much.
const SEARCHES_AHEAD: Millis = Millis::minutes(15);
/// A next try is at most this much later than the attempt before it.
const LONGEST_PAUSE: Millis = Millis::minutes(2);
/// The due time of a revoke is always the time of a next try, so a search ahead includes every revoke.
const EVER: Millis = Millis::hours(24 * 365 * 100);
/// How often a worker searches ahead.
const SEARCHES_AHEAD_EVERY: Millis = Millis::minutes(1);

/// Detects that the wall clock was set or that the process was suspended, and says up to which
/// due time a search goes.
#[derive(Debug, Default)]
pub(super) struct ClockWatch(Mutex<Option<ClockReading>>);

#[derive(Clone, Copy, Debug)]
struct ClockReading {
    up: Uptime,
    wall: Timestamp,
    /// The last search ahead that the store answered since the clock was set back.
    searched_ahead: Option<Uptime>,
    /// How far a search ahead goes. It grows when the clock is set back.
    reach: Millis,
}

/// Up to which due time a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Horizon {
    Now(Timestamp),
    Ahead {
        now: Timestamp,
        /// How far after `now` the search goes.
        reach: Millis,
    },
}

impl Horizon {
    pub fn of(self, lane: Lane) -> Timestamp {
        match (self, lane) {
            (Self::Now(now), Lane::Revoke | Lane::Remove | Lane::Other) => now,
            // A removal that a person asked for has no date.
            (Self::Ahead { now, .. }, Lane::Revoke) => now + EVER,
            (Self::Ahead { now, reach }, Lane::Remove | Lane::Other) => now + reach,
        }
    }
}

impl ClockWatch {
    /// Now; or a later time, in the first search, once a minute, and after the clock was set back.
    /// Otherwise a worker would wait for a due time or a lease that a wrong clock wrote too late.
    pub fn horizon(&self, clock: &dyn Clock) -> Horizon {
        let (up, wall) = (clock.uptime(), clock.now());
        let mut known = locked(&self.0);
        let jumped = known.map_or(Millis(0), |known| {
            Millis((wall - known.wall).0 - (up - known.up).0)
        });
        if jumped.0.abs() >= TOLERATED.0 {
            note_jump(jumped);
        }
        let was_set_back = jumped.0 <= -TOLERATED.0;
        let set_back = Millis(LONGEST_PAUSE.0 - jumped.0);
        let reach = known.map_or(SEARCHES_AHEAD, |known| known.reach.max(set_back));
        let searched_ahead = known
            .and_then(|known| known.searched_ahead)
            .filter(|_| !was_set_back);
        *known = Some(ClockReading {
            up,
            wall,
            searched_ahead,
            reach,
        });
        let searches_ahead = searched_ahead.is_none_or(|last| up - last >= SEARCHES_AHEAD_EVERY);
        match searches_ahead {
            true => Horizon::Ahead { now: wall, reach },
            false => Horizon::Now(wall),
        }
    }

    /// Notes that the store answered a search. A search ahead that failed is repeated by the next one.
    pub fn searched(&self, horizon: Horizon) {
        let mut known = locked(&self.0);
        match (horizon, known.as_mut()) {
            (Horizon::Ahead { .. }, Some(known)) => known.searched_ahead = Some(known.up),
            (Horizon::Ahead { .. }, None) | (Horizon::Now(_), Some(_) | None) => {}
        }
    }
}

fn note_jump(jumped: Millis) {
    let direction = match jumped.0 {
        ..0 => "back",
        0.. => "forward",
    };
    metrics::counter!("jit_clock_jumps_total", "direction" => direction).increment(1);
    tracing::warn!(
        direction,
        seconds = jumped.0.abs() / 1000,
        "the wall clock jumped, or the process was suspended; leases and pauses go by uptime and \
         are not affected, ends of grants go by the wall clock"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::test_clock::TestClock;
    use uuid::Uuid;

    // K8
    #[test]
    fn a_worker_searches_ahead_once_a_minute_and_when_the_clock_was_set_back() {
        let (clock, watch) = (TestClock::default(), ClockWatch::default());
        let ahead = |clock: &TestClock| {
            let horizon = watch.horizon(clock);
            watch.searched(horizon);
            horizon.of(Lane::Remove) - clock.now()
        };
        clock.pass(0, 1_000_000);
        assert_eq!(ahead(&clock), SEARCHES_AHEAD, "the first search");
        clock.pass(5, 5);
        assert_eq!(ahead(&clock), Millis(0));
        clock.pass(5, 5 - 600);
        assert_eq!(ahead(&clock), SEARCHES_AHEAD, "set back");
        clock.pass(59, 59);
        assert_eq!(ahead(&clock), Millis(0));
        clock.pass(1, 1);
        assert_eq!(ahead(&clock), SEARCHES_AHEAD, "a minute later");
        clock.pass(5, 5 + 600);
        assert_eq!(ahead(&clock), Millis(0), "set forward");
    }

    // K8
    #[test]
    fn a_search_ahead_that_failed_at_the_store_is_repeated_by_the_next_one() {
        let (clock, watch) = (TestClock::default(), ClockWatch::default());
        for _ in 0..2 {
            let failed = watch.horizon(&clock);
            assert_eq!(failed.of(Lane::Remove) - clock.now(), SEARCHES_AHEAD);
            clock.pass(5, 5);
        }
        watch.searched(watch.horizon(&clock));
        clock.pass(5, 5);
        let after = watch.horizon(&clock);
        assert_eq!(after, Horizon::Now(clock.now()));
    }

    /// K8: a clock that was hours ahead wrote the time of a next try.
    #[test]
    fn a_search_ahead_reaches_as_far_as_the_clock_was_set_back() {
        let (clock, watch) = (TestClock::default(), ClockWatch::default());
        clock.pass(0, 1_000_000);
        watch.horizon(&clock);
        clock.pass(5, 5 - 7200);
        let ahead = watch.horizon(&clock);
        let reach = Millis(Millis::hours(2).0 + LONGEST_PAUSE.0);
        for lane in [Lane::Remove, Lane::Other] {
            assert_eq!(ahead.of(lane) - clock.now(), reach);
        }
        clock.pass(60, 60);
        assert_eq!(watch.horizon(&clock).of(Lane::Remove) - clock.now(), reach);
    }

    /// K8: after a restart jit does not know how wrong the clock was. A revoke has no date.
    #[test]
    fn the_first_search_finds_every_revoke() {
        let (clock, watch) = (TestClock::default(), ClockWatch::default());
        let first = watch.horizon(&clock);
        assert_eq!(first.of(Lane::Revoke) - clock.now(), EVER);
    }

    #[test]
    fn a_lease_lapses_only_while_it_is_not_renewed() {
        let watch = Watch::new();
        let id = RequestId::NIL;
        let at = |seconds| Uptime(Millis::seconds(seconds));
        let lease = |until| Lease {
            token: LeaseToken(Uuid::from_u128(1)),
            until: Timestamp::from_seconds(until),
            by: crate::domain::LeaseHolder::Server,
        };
        let lapses = Lease::LASTS.0 / 1000;
        assert_eq!(watch.see_lease(id, lease(1), at(0)), at(lapses));
        assert_eq!(watch.lapsed(id, at(lapses - 1)), None);
        // After a renewal the time starts again.
        assert_eq!(watch.see_lease(id, lease(2), at(lapses)), at(2 * lapses));
        assert_eq!(watch.lapsed(id, at(lapses)), None);
        assert_eq!(watch.lapsed(id, at(2 * lapses)), Some(lease(2)));
    }
}
