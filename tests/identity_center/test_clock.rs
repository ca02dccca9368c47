//! A clock that a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use jit::clock::{Clock, Uptime};
use jit::domain::{Millis, Timestamp};
use uuid::Uuid;

#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicI64>, Arc<AtomicU64>);

impl TestClock {
    pub fn pass(&self, span: Millis) {
        self.0.fetch_add(span.0, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Uptime {
        Uptime(Millis(self.now().millis()))
    }

    async fn wait_until(&self, _: Timestamp) {
        std::future::pending::<()>().await;
    }

    async fn sleep_until(&self, _: Uptime) {
        std::future::pending::<()>().await;
    }

    fn draw(&self) -> Uuid {
        let drawn = self.1.fetch_add(1, Ordering::SeqCst);
        Uuid::from_u64_pair(1, drawn)
    }
}
