//! The worker's loop, under `serve`, under Lambda and in the simulation: it decides what is
//! claimed when.
//!
//! It searches for due requests, starts the work that this process was asked for, and sleeps
//! until a request is due. An execution that panics, hangs or is refused does not stop the
//! loop: its slot is freed, or the request is set aside for a while.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claims::Claims;
use super::watch::Horizon;
use super::{AFTER_A_FAULT, GRACE, Tried, Worker, note_panic};
use crate::clock::{Clock, Uptime};
use crate::domain::{Lane, Millis, RequestId, Timestamp};
use crate::lock::locked;
use crate::service::work_queue::{ClaimedWork, Reservation, Slot};
use crate::service::{ServiceError, WORKERS_SEARCH_EVERY};
use crate::store::StoreError;

/// A record that cannot be worked on is tried again after this at the latest.
const LONGEST_ASIDE: Millis = Millis::minutes(1);
/// At most this many records are set aside. When there are more, those whose time is over
/// are removed from the list.
const MOST_ASIDE: usize = 10_000;
/// Records that were set aside shortly after each other are tried again by the same search: a
/// search for each of them is too many when another worker holds many leases.
const ASIDE_TOGETHER: Millis = Millis::seconds(1);
/// A search begins at most this many records of a lane. When they are claimed, the next search
/// finds the next ones, or finds that another worker holds them.
const AHEAD: usize = 32;
/// Each worker shuffles the due records in groups of this size, and takes the groups in the
/// order of their due times: workers that claim in the same order collide at each record.
const SHUFFLED_TOGETHER: usize = 256;

/// The run mode: how long a worker runs and what it searches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// Until it is asked to stop; it searches for all due work.
    Forever,
    /// Until it is asked to stop; only work from the work queue of this process.
    OwnWorkOnly,
    /// Until no request is due before this time.
    UntilIdle(Timestamp),
}

impl RunMode {
    pub(super) fn searches(self) -> bool {
        self != Self::OwnWorkOnly
    }

    fn takes_own_work(self) -> bool {
        !matches!(self, Self::UntilIdle(_))
    }

    /// Whether this worker leaves the next due work to another process.
    pub(super) fn is_over(self, next: Option<Timestamp>) -> bool {
        matches!(self, Self::UntilIdle(horizon) if next.is_none_or(|next| next > horizon))
    }
}

/// Due requests that have no execution yet.
#[derive(Debug)]
pub(super) struct WaitingWork {
    /// Due requests that the last search found and that got no slot.
    requests: Mutex<VecDeque<(RequestId, Lane, Timestamp)>>,
    /// Requests that could not be worked on, and are not tried again before this time.
    aside: Mutex<HashMap<RequestId, Aside>>,
    /// When the loop last began a round.
    round: Mutex<Option<Uptime>>,
    claims: Claims,
    /// The salt of this worker's order of claims.
    order: u128,
}

#[derive(Clone, Copy, Debug)]
struct Aside {
    times: u32,
    until: Uptime,
}

impl WaitingWork {
    pub fn new(clock: &dyn Clock) -> Self {
        Self {
            requests: Mutex::default(),
            aside: Mutex::default(),
            round: Mutex::default(),
            claims: Claims::new(),
            order: clock.draw().as_u128(),
        }
    }

    fn shuffle(&self, ready: &mut [RequestId]) {
        for together in ready.chunks_mut(SHUFFLED_TOGETHER) {
            together.sort_by_key(|id| id.salted(self.order));
        }
    }

    /// Sets the request aside until then.
    fn set_aside(&self, id: RequestId, until: Uptime, now: Uptime) {
        let mut aside = locked(&self.aside);
        if aside.len() >= MOST_ASIDE {
            aside.retain(|_, one| one.until > now);
        }
        let until = until.min(now + LONGEST_ASIDE);
        let times = aside.get(&id).map_or(0, |one| one.times);
        let times = times.saturating_add(1);
        aside.insert(id, Aside { times, until });
    }

    /// Sets the request aside for longer each time, up to `longest`.
    fn set_aside_after_a_fault(&self, id: RequestId, longest: Millis, now: Uptime) {
        let times = locked(&self.aside).get(&id).map_or(0, |one| one.times);
        let pause = Millis(AFTER_A_FAULT.0 << times.min(6)).min(longest);
        self.set_aside(id, now + pause, now);
    }

    fn is_aside(&self, id: RequestId, now: Uptime) -> Option<Uptime> {
        let aside = locked(&self.aside);
        let until = aside.get(&id)?.until;
        (until > now).then_some(until)
    }

    fn take_back(&self, id: RequestId) {
        locked(&self.aside).remove(&id);
    }

    /// A request whose time was over long ago has ended, or another process works on it.
    fn many_aside(&self, now: Uptime) -> usize {
        let mut aside = locked(&self.aside);
        aside.retain(|_, one| now - one.until < LONGEST_ASIDE);
        aside.len()
    }
}

/// The start of an execution.
enum First {
    DueRequest(DueRequest),
    ClaimedWork(Box<ClaimedWork>),
}

/// A request that is due as of then, with its slot.
struct DueRequest {
    id: RequestId,
    lane: Lane,
    as_of: Timestamp,
    /// Freed when this is dropped.
    _slot: Slot,
}

enum Offered {
    Begins(DueRequest),
    /// A task of this process works on it.
    AtWork,
    NoSlot,
}

/// The signals that all executions of one run share.
#[derive(Clone, Copy)]
struct Run<'s> {
    tasks: &'s TaskTracker,
    /// When it is cancelled, the worker claims no more requests.
    stop: &'s CancellationToken,
    /// When it is cancelled, running executions stop.
    give_up: &'s CancellationToken,
}

impl Worker {
    /// Opens the work queue: from now on the commits of this process may claim work for this
    /// worker. The caller must step or run the worker until the process ends.
    pub fn take_own_work(&self) {
        self.service.work_queue.open();
    }

    /// The start of the loop's last round, if there was one.
    pub fn last_round(&self) -> Option<Uptime> {
        *locked(&self.waiting.round)
    }

    /// Runs until `stop`; executions that have not ended after `GRACE` are then stopped.
    pub async fn run(&self, stop: CancellationToken) {
        let give_up = CancellationToken::new();
        tokio::select! {
            biased;
            () = self.run_as(RunMode::Forever, &[], &stop, &give_up) => {}
            never = self.give_up_after_grace(&stop, &give_up) => match never {},
        }
    }

    async fn give_up_after_grace(
        &self,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) -> Infallible {
        stop.cancelled().await;
        self.service.clock().sleep(GRACE).await;
        give_up.cancel();
        std::future::pending().await
    }

    /// Runs until the run mode ends, or until `stop`. Executions that have begun are finished,
    /// unless `give_up` is cancelled; the next process finds what is left. The `named` requests
    /// are started without a search, because an index may list them later.
    pub async fn run_as(
        &self,
        mode: RunMode,
        named: &[RequestId],
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) {
        let tasks = &TaskTracker::new();
        tasks.close();
        let run = Run {
            tasks,
            stop,
            give_up,
        };
        for &id in named {
            let as_of = self.service.clock().now();
            if let Offered::Begins(due) = self.offer(id, Lane::Revoke, as_of) {
                self.start(run, First::DueRequest(due));
            }
        }
        if mode.takes_own_work() {
            self.take_own_work();
        }
        // K6: a panic in the loop ends only one round.
        loop {
            let rounds = self.make_rounds(mode, run);
            if AssertUnwindSafe(rounds).catch_unwind().await.is_ok() {
                break;
            }
            note_panic("loop of the worker");
            self.service.clock().sleep(AFTER_A_FAULT).await;
        }
        self.service.work_queue.close();
        self.start_own_work(run);
        locked(&self.waiting.requests).clear();
        tasks.wait().await;
    }

    async fn make_rounds(&self, mode: RunMode, run: Run<'_>) {
        let Run { tasks, stop, .. } = run;
        while !stop.is_cancelled() {
            *locked(&self.waiting.round) = Some(self.service.clock().uptime());
            let woken = self.waiting.claims.search_again.notified();
            let notified = self.service.work_ready.notified();
            tokio::pin!(woken, notified);
            woken.as_mut().enable();
            notified.as_mut().enable();
            let begun = self.service.clock().uptime();
            let next = tokio::select! {
                biased;
                next = self.search(mode, run) => next,
                never = self.serve_own_work(run) => match never {},
            };
            let took = self.service.clock().uptime() - begun;
            if mode.is_over(next) && !self.waiting.claims.has_more() && tasks.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = notified => {}
                never = self.serve_own_work(run) => match never {},
                () = self.search_again(mode, next) => {}
                () = tasks.wait(), if mode.is_over(next) => {}
                () = stop.cancelled() => {}
            }
            // A pause between two searches, also if the store is slow.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                never = self.serve_own_work(run) => match never {},
                () = self.service.clock().sleep(took.min(WORKERS_SEARCH_EVERY)) => {}
            }
        }
    }

    /// Searches for due requests, if the mode does; returns when the next one without an execution
    /// is due.
    async fn search(&self, mode: RunMode, run: Run<'_>) -> Option<Timestamp> {
        if !mode.searches() {
            return None;
        }
        match self.begin_due(mode, run).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "due requests not read from the store, will be retried");
                Some(self.service.clock().now() + AFTER_A_FAULT)
            }
        }
    }

    async fn search_again(&self, mode: RunMode, next: Option<Timestamp>) {
        if !mode.searches() {
            return std::future::pending().await;
        }
        let clock = self.service.clock();
        let ahead = next.map_or(WORKERS_SEARCH_EVERY, |next| next - clock.now());
        let pause = Millis(ahead.0.clamp(0, WORKERS_SEARCH_EVERY.0));
        clock.sleep(pause).await;
    }

    /// Starts an execution for each due request that gets a slot; returns when the next request
    /// is due.
    async fn begin_due(
        &self,
        mode: RunMode,
        run: Run<'_>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let clock = self.service.clock();
        let (now, up) = (clock.now(), clock.uptime());
        let horizon = match mode {
            RunMode::Forever | RunMode::OwnWorkOnly => self.clock_watch.horizon(clock),
            RunMode::UntilIdle(_) => Horizon::Now(now),
        };
        // K15: the store also lists due requests that have an execution or are set aside, so the
        // search asks for that many more.
        let aside = self.waiting.many_aside(up);
        let search = |lane| {
            let most = AHEAD + self.service.work_queue.at_work(lane) + aside;
            self.service.store().due(lane, horizon.of(lane), most)
        };
        let found = join_all(Lane::ALL.map(search)).await;
        // A lane that cannot be read does not stop the work of the others.
        let failed = found.iter().find_map(|one| one.as_ref().err().cloned());
        if failed.is_none() {
            self.clock_watch.searched(horizon);
        }
        let mut first: Option<Timestamp> = None;
        for (lane, due) in Lane::ALL.into_iter().zip(found) {
            let Ok(mut due) = due else { continue };
            locked(&self.waiting.requests).retain(|(_, of, _)| *of != lane);
            let as_of = horizon.of(lane);
            self.waiting.shuffle(&mut due.ready);
            let more = due.next.is_some_and(|next| next <= as_of);
            self.waiting.claims.set_more(lane, more);
            // The requests that are due already have an execution or wait for a slot.
            let next = due.next.filter(|next| *next > as_of);
            first = first.into_iter().chain(next).min();
            for id in due.ready {
                if let Some(until) = self.waiting.is_aside(id, up) {
                    let again = now + (until - up).max(ASIDE_TOGETHER);
                    first = first.into_iter().chain([again]).min();
                    continue;
                }
                match self.offer(id, lane, as_of) {
                    Offered::Begins(due) => self.start(run, First::DueRequest(due)),
                    Offered::AtWork => {}
                    Offered::NoSlot => locked(&self.waiting.requests).push_back((id, lane, as_of)),
                }
            }
        }
        failed.map_or(Ok(first), Err)
    }

    fn offer(&self, id: RequestId, lane: Lane, as_of: Timestamp) -> Offered {
        match self.service.work_queue.reserve(id, lane) {
            Reservation::Reserved(slot) => Offered::Begins(DueRequest {
                id,
                lane,
                as_of,
                _slot: slot,
            }),
            Reservation::AlreadyAtWork => Offered::AtWork,
            Reservation::Full => Offered::NoSlot,
        }
    }

    /// Works on one request, and then on those that wait for the slot.
    fn start(&self, run: Run<'_>, first: First) {
        let worker = self.clone();
        let (stop, give_up) = (run.stop.clone(), run.give_up.clone());
        let piece = run.tasks.track_future(async move {
            let mut next = match first {
                First::DueRequest(due) => Some(due),
                First::ClaimedWork(begun) => {
                    let id = begun.handled.request.id;
                    let done = worker
                        .go_on_with(*begun, &give_up)
                        .map(|done| done.map(|()| Tried::Done));
                    worker.note(id, AssertUnwindSafe(done).catch_unwind().await);
                    worker.next_for_a_place()
                }
            };
            while let Some(due) = next {
                let tried = worker.work_in_turn(&due, &stop, &give_up);
                worker.note(due.id, AssertUnwindSafe(tried).catch_unwind().await);
                drop(due);
                next = worker.next_for_a_place();
            }
        });
        self.spawner.spawn(Box::pin(piece));
    }

    async fn work_in_turn(
        &self,
        due: &DueRequest,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) -> Result<Tried, ServiceError> {
        let unclaimed = self.waiting.claims.unclaimed(due.lane);
        let claimed = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Tried::NotBegun),
            _turn = self.waiting.claims.turn(due.lane) => {
                self.take_up(due.id, due.as_of).await?
            }
        };
        drop(unclaimed);
        match claimed {
            Ok(begun) => self.go_on_with(begun, give_up).await.map(|()| Tried::Done),
            Err(tried) => Ok(tried),
        }
    }

    /// Handles the result of one attempt: a request that cannot be worked on is set aside, so
    /// that it takes no slot of another.
    fn note(&self, id: RequestId, tried: std::thread::Result<Result<Tried, ServiceError>>) {
        let now = self.service.clock().uptime();
        match tried {
            Ok(Ok(Tried::Done | Tried::NotBegun)) => self.waiting.take_back(id),
            Ok(Ok(Tried::NotBefore(until))) => self.waiting.set_aside(id, until, now),
            Ok(Ok(Tried::Refused(refusal))) => {
                tracing::debug!(request_id = %id, %refusal, "claim refused, will be retried");
                self.waiting.set_aside_after_a_fault(id, LONGEST_ASIDE, now);
            }
            Ok(Err(error)) => {
                tracing::warn!(request_id = %id, %error, "work failed, will be retried");
                // A failure of the store does not depend on this record.
                let longest = match is_the_stores(&error) {
                    true => WORKERS_SEARCH_EVERY,
                    false => LONGEST_ASIDE,
                };
                self.waiting.set_aside_after_a_fault(id, longest, now);
            }
            Err(_) => {
                tracing::error!(request_id = %id, "work on this request panicked, will be retried");
                note_panic("execution");
                self.waiting.set_aside_after_a_fault(id, LONGEST_ASIDE, now);
            }
        }
    }

    fn next_for_a_place(&self) -> Option<DueRequest> {
        let mut waiting = locked(&self.waiting.requests);
        while let Some((id, lane, as_of)) = waiting.pop_front() {
            if waiting.is_empty() {
                self.waiting.claims.search_again.notify_one();
            }
            if let Offered::Begins(due) = self.offer(id, lane, as_of) {
                return Some(due);
            }
        }
        None
    }

    /// Starts the work that is put into the work queue, also while a search takes long.
    async fn serve_own_work(&self, run: Run<'_>) -> Infallible {
        loop {
            let notified = self.service.work_queue.bell.notified();
            self.start_own_work(run);
            notified.await;
        }
    }

    fn start_own_work(&self, run: Run<'_>) {
        while let Some(begun) = self.service.work_queue.take() {
            self.start(run, First::ClaimedWork(Box::new(begun)));
        }
    }
}

fn is_the_stores(error: &ServiceError) -> bool {
    match error {
        ServiceError::Store(why) => match why {
            StoreError::Unavailable(_) | StoreError::Unsure(_) => true,
            StoreError::Conflict(_)
            | StoreError::Corrupt(_)
            | StoreError::Diverged(_)
            | StoreError::Replayed
            | StoreError::TooLarge(_) => false,
        },
        ServiceError::Refused(_) | ServiceError::Unknown(_) | ServiceError::KeyReused => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use uuid::Uuid;

    #[test]
    fn workers_claim_in_different_orders_and_the_longest_due_first() {
        let all: Vec<RequestId> = (0..u128::try_from(SHUFFLED_TOGETHER).unwrap() * 2)
            .map(|number| RequestId::from_uuid(Uuid::from_u128(number << 64 | number)))
            .collect();
        let order = || {
            let mut ready = all.clone();
            WaitingWork::new(&SystemClock).shuffle(&mut ready);
            ready
        };
        let (one, other) = (order(), order());
        assert_ne!(one, other);
        for ready in [one, other] {
            let (first, last) = ready.split_at(SHUFFLED_TOGETHER);
            assert!(first.iter().all(|id| all[..SHUFFLED_TOGETHER].contains(id)));
            assert!(last.iter().all(|id| all[SHUFFLED_TOGETHER..].contains(id)));
        }
    }
}
