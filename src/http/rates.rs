//! The rates of each key. A key that was stolen, or a program in a loop, would fill the disk with
//! what it stores, or the memory with the nonces of its other calls.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use super::reply::Problem;
use crate::clock::Uptime;
use crate::code::Code;
use crate::config::ServerConfig;
use crate::domain::Millis;
use crate::lock::locked;
use crate::signature;

/// Calls are counted in thousandths, because they come back by the millisecond.
const ONE: i64 = 1000;

/// A14: the store keeps each nonce for 16 minutes, so one key has at most 296,000 nonces of other
/// calls there.
const OTHER_CALLS: Limit = Limit {
    each_second: 100,
    at_once: 200_000,
};

/// A call can be sent again for twice the window: its timestamp may be ahead of the clock.
const FRESH: Millis = Millis(2 * signature::WINDOW.0);

/// The numbers in the sets are hashes with a secret of the process already.
type Quick = foldhash::fast::RandomState;

/// The rate that limits a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateOf {
    /// A6: the route stores something new with each call.
    Creates,
    /// A14: the call costs no more than its nonce.
    OtherCalls,
    /// A revoke that changes something is never refused by a rate. A14: one that changes nothing
    /// costs its nonce, and counts like the other calls.
    UnlimitedChanges,
}

/// The number of calls that each key may make at once now.
pub struct KeyRates {
    creates: Limit,
    other_calls: Limit,
    hasher: RandomState,
    keys: Mutex<BTreeMap<String, KeyUse>>,
}

#[derive(Clone, Copy)]
struct Limit {
    each_second: u32,
    at_once: u32,
}

struct KeyUse {
    creates: Allowance,
    other_calls: Allowance,
    counted: CountedNonces,
}

#[derive(Clone, Copy)]
struct Allowance {
    /// In thousandths of a call.
    left: i64,
    at: Uptime,
}

/// The nonces that were counted in the last `FRESH`, or some more, as hashes. A9: a call that is
/// sent again counts once, so a person without the secret cannot use up the rate of a key.
struct CountedNonces {
    recent: HashSet<u64, Quick>,
    older: HashSet<u64, Quick>,
    since: Uptime,
}

impl Default for KeyRates {
    fn default() -> Self {
        Self::new(ServerConfig::CREATES_PER_SECOND, ServerConfig::CREATE_BURST)
    }
}

impl KeyRates {
    pub fn new(each_second: u32, at_once: u32) -> Self {
        Self {
            creates: Limit {
                each_second,
                at_once,
            },
            other_calls: OTHER_CALLS,
            hasher: RandomState::new(),
            keys: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub fn of_other_calls(at_once: u32) -> Self {
        let other_calls = Limit {
            each_second: 1,
            at_once,
        };
        Self {
            other_calls,
            ..Self::default()
        }
    }

    /// Counts one verified call of this key, unless it was counted before, or refuses it.
    pub fn count(
        &self,
        key_id: &str,
        nonce: &str,
        rate: RateOf,
        now: Uptime,
    ) -> Result<(), Problem> {
        let nonce = self.hasher.hash_one(nonce);
        let mut keys = locked(&self.keys);
        // Only verified calls come here, so there are no more entries than keys.
        let new = || KeyUse::new(self.creates, self.other_calls, now);
        let known = match keys.get_mut(key_id) {
            Some(known) => known,
            None => keys.entry(key_id.to_owned()).or_insert_with(new),
        };
        known.counted.forget(now);
        if known.counted.has(nonce) {
            return Ok(());
        }
        let taken = match rate {
            RateOf::UnlimitedChanges => return Ok(()),
            RateOf::Creates => known.creates.take(self.creates, now),
            RateOf::OtherCalls => known.other_calls.take(self.other_calls, now),
        };
        if !taken {
            return Err(self.too_many(key_id, rate));
        }
        known.counted.recent.insert(nonce);
        Ok(())
    }

    pub fn too_many(&self, key_id: &str, rate: RateOf) -> Problem {
        let message = match rate {
            RateOf::Creates => format!(
                "the key {key_id} makes more than {} requests or bindings a second; try again \
                 after a second, or set server.creates_per_second higher",
                self.creates.each_second
            ),
            RateOf::OtherCalls => format!(
                "the key {key_id} made {} calls and goes on with more than {} a second; try again \
                 after a second",
                self.other_calls.at_once, self.other_calls.each_second
            ),
            RateOf::UnlimitedChanges => format!(
                "this revoke changed nothing, and the key {key_id} made {} such calls and goes on \
                 with more than {} a second; a revoke that ends access is not limited",
                self.other_calls.at_once, self.other_calls.each_second
            ),
        };
        Problem::new(Code::TooMany, message)
    }
}

impl KeyUse {
    fn new(creates: Limit, other_calls: Limit, now: Uptime) -> Self {
        Self {
            creates: Allowance::new(creates, now),
            other_calls: Allowance::new(other_calls, now),
            counted: CountedNonces {
                recent: HashSet::default(),
                older: HashSet::default(),
                since: now,
            },
        }
    }
}

impl Allowance {
    fn new(limit: Limit, at: Uptime) -> Self {
        let left = limit.most();
        Self { left, at }
    }

    /// Takes one call; returns false if none is left.
    fn take(&mut self, limit: Limit, now: Uptime) -> bool {
        let gained = (now - self.at).0.max(0);
        let gained = gained.saturating_mul(i64::from(limit.each_second));
        self.left = self.left.saturating_add(gained).min(limit.most());
        self.at = now;
        let is_left = self.left >= ONE;
        if is_left {
            self.left -= ONE;
        }
        is_left
    }
}

impl Limit {
    fn most(self) -> i64 {
        i64::from(self.at_once) * ONE
    }
}

impl CountedNonces {
    fn has(&self, nonce: u64) -> bool {
        self.recent.contains(&nonce) || self.older.contains(&nonce)
    }

    fn forget(&mut self, now: Uptime) {
        let passed = now - self.since;
        if passed < FRESH {
            return;
        }
        let recent = std::mem::take(&mut self.recent);
        self.older = match passed < Millis(2 * FRESH.0) {
            true => recent,
            false => HashSet::default(),
        };
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Uptime {
        Uptime(Millis(millis))
    }

    /// How many of so many calls with different nonces are accepted.
    fn accepted(rates: &KeyRates, key: &str, rate: RateOf, millis: i64, calls: u32) -> usize {
        let one = |number: &u32| {
            let nonce = format!("{key} {millis} {number}");
            rates.count(key, &nonce, rate, at(millis)).is_ok()
        };
        (0..calls).filter(one).count()
    }

    // A6
    #[test]
    fn a6_a_key_gets_its_burst_and_then_its_rate() {
        let rates = KeyRates::new(20, 100);
        let taken = |key: &str, millis| accepted(&rates, key, RateOf::Creates, millis, 1000);
        assert_eq!(taken("plugin", 0), 100);
        assert_eq!(taken("plugin", 49), 0);
        assert_eq!(taken("plugin", 50), 1);
        assert_eq!(taken("plugin", 1050), 20);
        assert_eq!(taken("plugin", 3_600_000), 100, "no more than the burst");
        assert_eq!(taken("other", 3_600_000), 100, "each key has its own rate");
    }

    #[test]
    fn a6_a_refusal_by_rate_is_a_429_that_names_the_key_and_the_setting() {
        let rates = KeyRates::new(1, 1);
        rates.count("plugin", "a", RateOf::Creates, at(0)).unwrap();
        let refused = rates
            .count("plugin", "b", RateOf::Creates, at(1))
            .unwrap_err();
        assert_eq!(refused.code, Code::TooMany);
        assert!(refused.message.contains("plugin"), "{}", refused.message);
        assert!(refused.message.contains("server.creates_per_second"));
    }

    // A9
    #[test]
    fn a9_a_call_that_is_sent_again_counts_once() {
        let rates = KeyRates::new(1, 2);
        // As long as the timestamp of the call is accepted, it is counted once.
        for millis in (0..=FRESH.0).step_by(1000) {
            rates
                .count("plugin", "captured", RateOf::Creates, at(millis))
                .unwrap();
        }
        let own = accepted(&rates, "plugin", RateOf::Creates, FRESH.0, 10);
        assert_eq!(own, 2, "the repetitions took nothing");
    }

    // A14
    #[test]
    fn a14_a_key_that_only_reads_leaves_a_limited_number_of_nonces() {
        let rates = KeyRates::new(1, 1);
        let calls = OTHER_CALLS.at_once;
        let most = usize::try_from(calls).unwrap();
        let read =
            |millis, calls: u32| accepted(&rates, "plugin", RateOf::OtherCalls, millis, calls);
        assert_eq!(read(0, calls + 10), most);
        assert_eq!(read(1000, 1000), 100);
        let revokes = accepted(&rates, "plugin", RateOf::UnlimitedChanges, 1000, 10);
        assert_eq!(revokes, 10);
        assert_eq!(accepted(&rates, "plugin", RateOf::Creates, 1001, 10), 1);
        let refused = rates.count("plugin", "x", RateOf::OtherCalls, at(1001));
        assert_eq!(refused.unwrap_err().code, Code::TooMany);
        let kept = |rates: &KeyRates| {
            let keys = locked(&rates.keys);
            keys["plugin"].counted.recent.len() + keys["plugin"].counted.older.len()
        };
        assert!(kept(&rates) > most);
        read(3_600_000, 1);
        assert_eq!(kept(&rates), 1, "old nonces are forgotten");
    }
}
