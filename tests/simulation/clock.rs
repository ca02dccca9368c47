//! The true time and the random numbers of a world, and the clocks that processes read.
//!
//! A process reads a wall clock, which differs from the true time and can be set, and its uptime,
//! which never goes back. Timers use the true time at which they end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use jit::clock::{Clock, Uptime};
use jit::domain::{Millis, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::executor::Kind;

/// A restarted process has a new id.
pub type ProcessId = u32;

#[derive(Clone)]
pub struct Time(Arc<Mutex<Inner>>);

struct Inner {
    now: Timestamp,
    dice: StdRng,
    timers: BTreeMap<Timer, (ProcessId, Waker)>,
    next: u64,
    /// The kind of the task that runs.
    running: Kind,
}

type Timer = (Timestamp, u64);

impl Time {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: Timestamp::from_seconds(1_800_000_000),
            dice: StdRng::seed_from_u64(seed),
            timers: BTreeMap::new(),
            next: 0,
            running: Kind::Loop,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.inner().now
    }

    pub fn runs(&self, kind: Kind) {
        self.inner().running = kind;
    }

    /// The kind of the task that runs: a worker's own, or the call of a person.
    pub fn running(&self) -> Kind {
        self.inner().running
    }

    /// Wakes every task whose timer has ended.
    pub fn advance_to(&self, time: Timestamp) {
        let mut inner = self.inner();
        inner.now = inner.now.max(time);
        let after = (inner.now + Millis(1), 0);
        let later = inner.timers.split_off(&after);
        for (_, waker) in std::mem::replace(&mut inner.timers, later).into_values() {
            waker.wake();
        }
    }

    pub fn next_timer(&self) -> Option<Timestamp> {
        self.inner().timers.keys().next().map(|(at, _)| *at)
    }

    /// Wakes the waiting tasks of a process to read the clock again, because it was set.
    pub fn wake(&self, process: ProcessId) {
        let inner = self.inner();
        let own = inner.timers.values().filter(|(of, _)| *of == process);
        own.for_each(|(_, waker)| waker.wake_by_ref());
    }

    /// `true` with a probability of 1 in `of`; never if `of` is 0.
    pub fn chance(&self, of: u32) -> bool {
        of > 0 && self.below(of) == 0
    }

    pub fn below(&self, most: u32) -> u32 {
        self.inner().dice.random_range(0..most)
    }

    /// A random span of at least a millisecond and at most this.
    pub fn span(&self, most: Millis) -> Millis {
        Millis(self.inner().dice.random_range(1..=most.0.max(1)))
    }

    pub fn strikes(&self, rate: f64) -> bool {
        rate > 0.0 && self.inner().dice.random_bool(rate.min(1.0))
    }

    pub fn draw(&self) -> Uuid {
        Uuid::from_u128(self.inner().dice.random())
    }

    /// A point where other tasks can run, or the task can be dropped.
    pub async fn yield_here(&self) {
        let mut yielded = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// The clocks of one process.
#[derive(Clone)]
pub struct ProcessClock {
    pub time: Time,
    pub process: ProcessId,
    own: Arc<Mutex<Own>>,
}

#[derive(Clone, Copy)]
struct Own {
    /// How far the wall clock is ahead of the true time.
    ahead: Millis,
    began: Timestamp,
    /// How long uptime has stood still, as it does while a machine is suspended.
    stood_still: Millis,
}

impl ProcessClock {
    pub fn new(time: &Time, process: ProcessId, ahead: Millis) -> Self {
        let own = Own {
            ahead,
            began: time.now(),
            stood_still: Millis(0),
        };
        Self {
            time: time.clone(),
            process,
            own: Arc::new(Mutex::new(own)),
        }
    }

    fn own(&self) -> Own {
        *self.own.lock().unwrap()
    }

    pub fn set(&self, ahead: Millis) {
        self.own.lock().unwrap().ahead = ahead;
        self.time.wake(self.process);
    }

    pub fn stand_still(&self, span: Millis) {
        let mut own = self.own.lock().unwrap();
        own.stood_still = Millis(own.stood_still.0 + span.0);
    }

    /// The true time at which the wall clock shows this, unless it is set meanwhile.
    pub fn when(&self, wall: Timestamp) -> Timestamp {
        wall + Millis(-self.own().ahead.0)
    }

    fn when_up(&self, moment: Uptime) -> Timestamp {
        let own = self.own();
        own.began + own.stood_still + moment.0 + Millis(-self.head_start().0)
    }

    /// The uptime at the start, different for each process.
    fn head_start(&self) -> Millis {
        Millis(1_000_000 * i64::from(self.process))
    }

    pub async fn until_true(&self, time: Timestamp) {
        self.until(Moment::True(time)).await;
    }

    fn until(&self, moment: Moment) -> Until<'_> {
        Until {
            clock: self,
            moment,
            timer: None,
        }
    }
}

#[derive(Clone, Copy)]
enum Moment {
    True(Timestamp),
    Wall(Timestamp),
    Up(Uptime),
}

struct Until<'a> {
    clock: &'a ProcessClock,
    moment: Moment,
    timer: Option<Timer>,
}

impl Future for Until<'_> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock;
        let at = match self.moment {
            Moment::True(time) => time,
            Moment::Wall(wall) => clock.when(wall),
            Moment::Up(moment) => clock.when_up(moment),
        };
        let mut inner = clock.time.inner();
        if let Some(timer) = self.timer.take() {
            inner.timers.remove(&timer);
        }
        if inner.now >= at {
            return Poll::Ready(());
        }
        inner.next += 1;
        let timer = (at, inner.next);
        let entry = (clock.process, context.waker().clone());
        inner.timers.insert(timer, entry);
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.clock.time.inner().timers.remove(&timer);
        }
    }
}

#[async_trait]
impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        self.time.now() + self.own().ahead
    }

    fn uptime(&self) -> Uptime {
        let own = self.own();
        let passed = self.time.now() - own.began;
        Uptime(Millis(passed.0 - own.stood_still.0 + self.head_start().0))
    }

    async fn wait_until(&self, time: Timestamp) {
        self.until(Moment::Wall(time)).await;
    }

    async fn sleep_until(&self, moment: Uptime) {
        self.until(Moment::Up(moment)).await;
    }

    fn draw(&self) -> Uuid {
        self.time.draw()
    }
}
