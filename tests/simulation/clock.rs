//! A clock that only the world moves, and dice that only the seed throws.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use jit::clock::{Clock, Uptime};
use jit::domain::{Millis, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

#[derive(Clone)]
pub struct SimClock(Arc<Mutex<Inner>>);

struct Inner {
    now: Timestamp,
    dice: StdRng,
    /// What the task that is being polled waits for.
    waiting: Option<Timestamp>,
    yielded: bool,
}

/// Why a task stopped where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Yielded,
    Until(Timestamp),
    Forever,
}

impl SimClock {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: Timestamp::from_seconds(1_800_000_000),
            dice: StdRng::seed_from_u64(seed),
            waiting: None,
            yielded: false,
        })))
    }

    pub fn advance(&self, span: Millis) {
        let mut inner = self.0.lock().unwrap();
        inner.now = inner.now + span;
    }

    pub fn advance_to(&self, time: Timestamp) {
        let mut inner = self.0.lock().unwrap();
        inner.now = inner.now.max(time);
    }

    /// One throw in `of` comes up.
    pub fn chance(&self, of: u32) -> bool {
        self.below(of) == 0
    }

    pub fn below(&self, most: u32) -> u32 {
        self.0.lock().unwrap().dice.random_range(0..most)
    }

    pub fn begin_poll(&self) {
        let mut inner = self.0.lock().unwrap();
        (inner.waiting, inner.yielded) = (None, false);
    }

    pub fn end_poll(&self) -> Stopped {
        let inner = self.0.lock().unwrap();
        match (inner.yielded, inner.waiting) {
            (true, _) => Stopped::Yielded,
            (false, Some(time)) => Stopped::Until(time),
            (false, None) => Stopped::Forever,
        }
    }

    /// A place where a task can be interleaved with the others, or die.
    pub async fn yield_here(&self) {
        let mut yielded = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            self.0.lock().unwrap().yielded = true;
            Poll::Pending
        })
        .await;
    }
}

struct Until<'a>(&'a SimClock, Timestamp);

impl Future for Until<'_> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.0.lock().unwrap();
        if inner.now >= self.1 {
            return Poll::Ready(());
        }
        inner.waiting = Some(inner.waiting.map_or(self.1, |other| other.min(self.1)));
        Poll::Pending
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().now
    }

    fn uptime(&self) -> Uptime {
        Uptime(Millis(self.now().millis()))
    }

    async fn wait_until(&self, time: Timestamp) {
        Until(self, time).await;
    }

    async fn sleep_until(&self, moment: Uptime) {
        Until(self, Timestamp::from_millis(moment.0.0)).await;
    }

    fn draw(&self) -> Uuid {
        Uuid::from_u128(self.0.lock().unwrap().dice.random())
    }
}
