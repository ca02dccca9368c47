//! Time and chance. The only place where the process reads either.
//!
//! There are two times. The wall clock (`now`) dates what is recorded and decides when a
//! grant ends; it can be set, forward and back. Uptime only passes: everything that waits,
//! paces calls or holds a lease goes by it, so a clock that is set delays none of these.

use std::ops::{Add, Sub};
use std::sync::LazyLock;
use std::time::Instant;

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Millis, Timestamp};

/// A moment by the time that only passes. It means nothing outside its process.
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

/// A seam, so that a test can be the one who says what time it is.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// How long the process has been up, at least: nobody can set it.
    fn uptime(&self) -> Uptime;
    /// Returns once `now()` is at or past `time`: for dates that are recorded.
    async fn wait_until(&self, time: Timestamp);
    /// Returns once `uptime()` is at or past `moment`: for everything else.
    async fn sleep_until(&self, moment: Uptime);
    /// Returns after this span.
    async fn sleep(&self, span: Millis) {
        self.sleep_until(self.uptime() + span).await;
    }
    /// A new id that nobody can guess.
    fn draw(&self) -> Uuid;
    /// The same, and sorting after those that were drawn before, so that what is written
    /// together lies together. Where nothing is kept for long, any order will do.
    fn draw_in_order(&self) -> Uuid {
        self.draw()
    }
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place
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
        // A timer may fire a fraction of a millisecond early.
        while self.uptime() < moment {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn wait_until(&self, time: Timestamp) {
        // The wall clock may be set while we sleep, so never sleep long without looking.
        const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);
        loop {
            let now = self.now();
            if now >= time {
                return;
            }
            tokio::time::sleep((time - now).std().min(LOOK_AGAIN)).await;
        }
    }

    #[allow(clippy::disallowed_methods)] // the one place
    fn draw(&self) -> Uuid {
        Uuid::new_v4()
    }

    #[allow(clippy::disallowed_methods)] // the one place
    fn draw_in_order(&self) -> Uuid {
        Uuid::now_v7()
    }
}
