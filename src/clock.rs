//! Time and random ids. Only this module reads a clock or a random number generator.
//!
//! There are two times. The wall clock (`now`) gives the recorded dates and decides when a
//! grant ends; an operator can set it forward or back. Uptime only increases: waits, the pace
//! of calls and leases use it, so a change of the wall clock delays none of them.

#[cfg(test)]
pub mod test_clock;

use std::ops::{Add, Sub};
use std::sync::LazyLock;
use std::time::Instant;

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Millis, Timestamp};

/// A moment in uptime. It has no meaning outside its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub Millis);

impl Add<Millis> for Uptime {
    type Output = Self;
    fn add(self, span: Millis) -> Self {
        Self(Millis(self.0.0.saturating_add(span.0)))
    }
}

impl Sub for Uptime {
    type Output = Millis;
    fn sub(self, earlier: Self) -> Millis {
        Millis(self.0.0.saturating_sub(earlier.0.0))
    }
}

/// The interface to the clock. A test implements it to control the time.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// Returns the uptime of the process, which no operator can set.
    fn uptime(&self) -> Uptime;
    /// Waits until `now()` is at or after `time`; for recorded dates.
    async fn wait_until(&self, time: Timestamp);
    /// Waits until `uptime()` is at or after `moment`; for everything else.
    async fn sleep_until(&self, moment: Uptime);
    /// Waits for this span of uptime.
    async fn sleep(&self, span: Millis) {
        self.sleep_until(self.uptime() + span).await;
    }
    /// Returns a new random id that cannot be guessed.
    fn draw(&self) -> Uuid;
    /// Returns a new random id that sorts after the earlier ones, so that records of the same
    /// time are stored together. A clock for tests may return ids in any order.
    fn draw_in_order(&self) -> Uuid {
        self.draw()
    }
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // only this module reads the clock and random numbers
    fn now(&self) -> Timestamp {
        let millis = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    fn uptime(&self) -> Uptime {
        static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
        let millis = STARTED.elapsed().as_millis();
        Uptime(Millis(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    async fn sleep_until(&self, moment: Uptime) {
        tokio::time::sleep((moment - self.uptime()).std()).await;
        // A timer can fire a fraction of a millisecond early.
        while self.uptime() < moment {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn wait_until(&self, time: Timestamp) {
        // An operator may set the wall clock during the wait, so it is read again regularly.
        const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);
        loop {
            let now = self.now();
            if now >= time {
                return;
            }
            tokio::time::sleep((time - now).std().min(LOOK_AGAIN)).await;
        }
    }

    #[allow(clippy::disallowed_methods)] // only this module reads the clock and random numbers
    fn draw(&self) -> Uuid {
        Uuid::new_v4()
    }

    #[allow(clippy::disallowed_methods)] // only this module reads the clock and random numbers
    fn draw_in_order(&self) -> Uuid {
        Uuid::now_v7()
    }
}
