//! The rate at which each key may store something new. A key that was stolen, or a program in a
//! loop, would fill the disk otherwise.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::reply::Problem;
use crate::clock::Uptime;
use crate::code::Code;
use crate::config::ServerConfig;
use crate::lock::locked;

/// Calls are counted in thousandths, because they come back by the millisecond.
const ONE: i64 = 1000;

/// The number of calls that each key may make at once now.
pub struct KeyRates {
    each_second: i64,
    at_once: i64,
    keys: Mutex<BTreeMap<String, Allowance>>,
}

#[derive(Clone, Copy)]
struct Allowance {
    /// In thousandths of a call.
    left: i64,
    at: Uptime,
}

impl Default for KeyRates {
    fn default() -> Self {
        Self::new(ServerConfig::CREATES_PER_SECOND, ServerConfig::CREATE_BURST)
    }
}

impl KeyRates {
    pub fn new(each_second: u32, at_once: u32) -> Self {
        Self {
            each_second: i64::from(each_second),
            at_once: i64::from(at_once),
            keys: Mutex::default(),
        }
    }

    /// A6: counts one call of this key, or refuses it.
    pub fn take(&self, key_id: &str, now: Uptime) -> Result<(), Problem> {
        let most = self.at_once * ONE;
        let mut keys = locked(&self.keys);
        // Only verified calls come here, so there are no more entries than keys.
        let known = keys.entry(key_id.to_owned()).or_insert(Allowance {
            left: most,
            at: now,
        });
        let gained = (now - known.at).0.max(0).saturating_mul(self.each_second);
        known.left = known.left.saturating_add(gained).min(most);
        known.at = now;
        if known.left < ONE {
            let message = format!(
                "the key {key_id} makes more than {} requests or bindings a second; try again \
                 after a second, or set server.creates_per_second higher",
                self.each_second
            );
            return Err(Problem::new(Code::TooMany, message));
        }
        known.left -= ONE;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Millis;

    fn at(millis: i64) -> Uptime {
        Uptime(Millis(millis))
    }

    // A6
    #[test]
    fn a6_a_key_gets_its_burst_and_then_its_rate() {
        let rates = KeyRates::new(20, 100);
        let taken = |key: &str, millis| {
            let calls = 0..1000;
            calls
                .filter(|_| rates.take(key, at(millis)).is_ok())
                .count()
        };
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
        rates.take("plugin", at(0)).unwrap();
        let refused = rates.take("plugin", at(1)).unwrap_err();
        assert_eq!(refused.code, Code::TooMany);
        assert!(refused.message.contains("plugin"), "{}", refused.message);
        assert!(refused.message.contains("server.creates_per_second"));
    }
}
