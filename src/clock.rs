//! Time and chance. The only place where the process reads either.

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::Timestamp;

/// A seam, so that a test can be the one who says what time it is.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// Returns once `now()` is at or past `time`.
    async fn wait_until(&self, time: Timestamp);
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

    async fn wait_until(&self, time: Timestamp) {
        // The wall clock may be set while we sleep, so never sleep long without looking.
        const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);
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
