//! For unit tests: a clock that a test sets. A wait on it ends at once.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use uuid::Uuid;

use super::{Clock, Uptime};
use crate::domain::{Millis, Timestamp};

/// The uptime and the wall clock, in milliseconds.
#[derive(Default)]
pub struct TestClock {
    up: AtomicI64,
    wall: AtomicI64,
}

impl TestClock {
    /// Adds so many seconds to each of the two times.
    pub fn pass(&self, up: i64, wall: i64) {
        self.up.fetch_add(up * 1000, Ordering::SeqCst);
        self.wall.fetch_add(wall * 1000, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::SeqCst))
    }
    fn uptime(&self) -> Uptime {
        Uptime(Millis(self.up.load(Ordering::SeqCst)))
    }
    async fn wait_until(&self, _: Timestamp) {}
    async fn sleep_until(&self, _: Uptime) {}
    fn draw(&self) -> Uuid {
        panic!("this test draws no random numbers");
    }
}
