//! A token bucket: the calls per second, and the order of the waiting calls.
//!
//! The rate is halved when AWS throttles, and recovers slowly: so replicas share the quota
//! without knowing of each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::Turn;
use crate::clock::{Clock, Uptime};
use crate::domain::Millis;
use crate::lock::locked;

/// How many seconds' worth of calls may be saved up while there are no calls.
const SAVED: f64 = 0.25;
/// How many seconds the rate takes to recover from zero to the full rate.
const RECOVERY_SECONDS: f64 = 20.0;
/// One call in this many goes to another lane than the most urgent one: removals that never
/// succeed must not keep the other lanes from AWS.
const SHARED: u64 = 16;
/// Several throttled calls within this time halve the rate once.
const MOMENT: Millis = Millis::seconds(1);

pub struct Bucket {
    clock: Arc<dyn Clock>,
    /// Calls per second without throttling.
    full_rate: f64,
    inner: Mutex<BucketState>,
}

struct BucketState {
    rate: f64,
    tokens: f64,
    filled_at: Uptime,
    slowed_at: Option<Uptime>,
    waiting: BTreeMap<CallArrival, Arc<Notify>>,
    arrivals: u64,
    /// How many calls were made.
    calls: u64,
}

/// In the order of turns, and within one turn in the order of arrival.
type CallArrival = (Turn, u64);

enum Next {
    Go,
    /// First in the queue; a token is available at this time.
    At(Uptime),
    /// Another call is first.
    Wait,
}

impl Bucket {
    pub fn new(calls_per_second: u32, clock: Arc<dyn Clock>) -> Self {
        let full_rate = f64::from(calls_per_second);
        let inner = BucketState {
            rate: full_rate,
            tokens: (full_rate * SAVED).max(1.0),
            filled_at: clock.uptime(),
            slowed_at: None,
            waiting: BTreeMap::new(),
            arrivals: 0,
            calls: 0,
        };
        Self {
            clock,
            full_rate,
            inner: Mutex::new(inner),
        }
    }

    pub async fn take(&self, turn: Turn) {
        let queued = Queued::join(self, turn);
        loop {
            match self.next(queued.arrival) {
                Next::Go => return,
                Next::At(time) => tokio::select! {
                    biased;
                    () = self.clock.sleep_until(time) => {}
                    // A more urgent call was added and served meanwhile.
                    () = queued.called.notified() => {}
                },
                Next::Wait => queued.called.notified().await,
            }
        }
    }

    pub fn slow_down(&self) {
        let now = self.clock.uptime();
        let mut inner = self.inner();
        inner.fill(self.full_rate, now);
        inner.tokens = inner.tokens.min(0.0);
        if inner.slowed_at.is_none_or(|at| now - at >= MOMENT) {
            inner.slowed_at = Some(now);
            inner.rate = (inner.rate / 2.0).max(1.0);
        }
    }

    fn next(&self, arrival: CallArrival) -> Next {
        let now = self.clock.uptime();
        let mut inner = self.inner();
        if inner.first() != Some(arrival) {
            return Next::Wait;
        }
        inner.fill(self.full_rate, now);
        if inner.tokens >= 1.0 {
            inner.tokens -= 1.0;
            inner.calls += 1;
            return Next::Go;
        }
        let missing = (1.0 - inner.tokens) / inner.rate * 1000.0;
        #[allow(clippy::cast_possible_truncation)] // a few seconds at most
        let millis = missing.ceil() as i64;
        Next::At(now + Millis(millis.max(1)))
    }

    fn inner(&self) -> MutexGuard<'_, BucketState> {
        locked(&self.inner)
    }
}

impl BucketState {
    #[allow(clippy::cast_precision_loss)] // milliseconds between two calls
    fn fill(&mut self, full_rate: f64, now: Uptime) {
        let seconds = (now - self.filled_at).0.max(0) as f64 / 1000.0;
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + seconds * self.rate).min((full_rate * SAVED).max(1.0));
        self.rate = (self.rate + seconds * full_rate / RECOVERY_SECONDS).min(full_rate);
    }

    /// The call that is sent next.
    fn first(&self) -> Option<CallArrival> {
        let mut arrivals = self.waiting.keys().copied();
        let urgent = arrivals.next()?;
        let is_shared = (self.calls + 1).is_multiple_of(SHARED);
        // Of those, the call that has waited longest.
        let other = arrivals
            .filter(|(turn, _)| is_shared && turn.lane != urgent.0.lane)
            .min_by_key(|(_, number)| *number);
        Some(other.unwrap_or(urgent))
    }

    fn call_first(&self) {
        if let Some(first) = self.first() {
            self.waiting[&first].notify_one();
        }
    }
}

/// A call in the queue; dropping it takes the call out, sent or not.
struct Queued<'a> {
    bucket: &'a Bucket,
    arrival: CallArrival,
    called: Arc<Notify>,
}

impl<'a> Queued<'a> {
    fn join(bucket: &'a Bucket, turn: Turn) -> Self {
        let mut inner = bucket.inner();
        inner.arrivals += 1;
        let arrival = (turn, inner.arrivals);
        let called = Arc::new(Notify::new());
        inner.waiting.insert(arrival, called.clone());
        // A new call can change which one is first, and that one waits for its notification.
        inner.call_first();
        Self {
            bucket,
            arrival,
            called,
        }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut inner = self.bucket.inner();
        inner.waiting.remove(&self.arrival);
        inner.call_first();
    }
}
