//! What is taken when: the loop of every process that works, under `serve`, under Lambda
//! and in the simulation.
//!
//! It looks for what is due, takes up what this process was asked for itself, and sleeps
//! until something is due. No piece of work can stop it: one that panics, hangs or is
//! refused gives its place up or is set aside for a while, and the others go on.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AFTER_A_FAULT, GRACE, Tried, Worker, note_panic};
use crate::clock::Uptime;
use crate::domain::{Lane, Millis, RequestId, Timestamp};
use crate::service::desk::{Begun, Place, Slot, locked, places};
use crate::service::{ServiceError, WORKERS_LOOK_EVERY};
use crate::store::StoreError;

/// A record that cannot be worked on is looked at again after this at the latest.
const LONGEST_ASIDE: Millis = Millis::minutes(1);
/// So many are set aside at most; one more makes room by being forgotten.
const MOST_ASIDE: usize = 10_000;

/// How long a worker stays, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// Until it is asked to stop, for everything.
    Standing,
    /// Until it is asked to stop, for what this process is asked for itself.
    AtTheDesk,
    /// Until nothing is due before then.
    Until(Timestamp),
}

impl Shift {
    pub(super) fn looks(self) -> bool {
        self != Self::AtTheDesk
    }

    fn asked_for_here(self) -> bool {
        !matches!(self, Self::Until(_))
    }

    /// Whether what is due next is another process's already.
    pub(super) fn is_over(self, next: Option<Timestamp>) -> bool {
        matches!(self, Self::Until(horizon) if next.is_none_or(|next| next > horizon))
    }
}

/// What is due and not at work.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// What the last look found due and had no place for.
    places: Mutex<VecDeque<(RequestId, Lane, Timestamp)>>,
    /// Rung when none of those waits any more: there may be others.
    moved: Notify,
    /// What could not be worked on, and is not looked at before then.
    aside: Mutex<HashMap<RequestId, Aside>>,
    /// When the loop last began a round.
    round: Mutex<Option<Uptime>>,
}

#[derive(Clone, Copy, Debug)]
struct Aside {
    times: u32,
    until: Uptime,
}

impl Waiting {
    fn set_aside(&self, id: RequestId, until: Option<Uptime>, now: Uptime) {
        let mut aside = locked(&self.aside);
        if aside.len() >= MOST_ASIDE {
            aside.retain(|_, one| one.until > now);
        }
        let times = aside.get(&id).map_or(0, |one| one.times);
        let pause = Millis(AFTER_A_FAULT.0 << times.min(6)).min(LONGEST_ASIDE);
        let until = until.unwrap_or(now + pause).min(now + LONGEST_ASIDE);
        let times = times.saturating_add(1);
        aside.insert(id, Aside { times, until });
    }

    fn is_aside(&self, id: RequestId, now: Uptime) -> Option<Uptime> {
        let aside = locked(&self.aside);
        let until = aside.get(&id)?.until;
        (until > now).then_some(until)
    }

    fn take_back(&self, id: RequestId) {
        locked(&self.aside).remove(&id);
    }

    fn many_aside(&self) -> usize {
        locked(&self.aside).len()
    }
}

/// What a piece of work begins with.
enum First {
    Due(RequestId, Timestamp, Slot),
    Begun(Box<Begun>),
}

impl Worker {
    /// From now on this process begins by itself what it is asked for: it steps, or runs,
    /// until it ends.
    pub fn sit_at_the_desk(&self) {
        self.service.desk.open();
    }

    /// When the loop last began a round, if it ever did.
    pub fn last_round(&self) -> Option<Uptime> {
        *locked(&self.waiting.round)
    }

    /// Works until `stop`; then lets go of what cannot be finished soon.
    pub async fn run(&self, stop: CancellationToken) {
        let give_up = CancellationToken::new();
        tokio::select! {
            biased;
            () = self.stay(Shift::Standing, &[], &stop, &give_up) => {}
            never = self.lose_patience(&stop, &give_up) => match never {},
        }
    }

    async fn lose_patience(
        &self,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) -> Infallible {
        stop.cancelled().await;
        self.service.clock().sleep(GRACE).await;
        give_up.cancel();
        std::future::pending().await
    }

    /// Works a shift to its end, or until `stop`; what has begun by then is finished,
    /// unless told to give it up. The next process finds what is left. What is `named` is
    /// begun without looking: an index may know of it later.
    pub async fn stay(
        &self,
        shift: Shift,
        named: &[RequestId],
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        tasks.close();
        for &id in named {
            if let Place::Taken(slot) = self.service.desk.sit_down(id, Lane::Revoke) {
                let now = self.service.clock().now();
                self.start(&tasks, give_up, First::Due(id, now, slot));
            }
        }
        if shift.asked_for_here() {
            self.sit_at_the_desk();
        }
        // K6: a panic in the loop itself ends one round, and no more.
        loop {
            let rounds = self.make_rounds(shift, &tasks, stop, give_up);
            if AssertUnwindSafe(rounds).catch_unwind().await.is_ok() {
                break;
            }
            note_panic("the worker's loop");
            self.service.clock().sleep(AFTER_A_FAULT).await;
        }
        self.service.desk.close();
        self.clear_the_desk(&tasks, give_up);
        locked(&self.waiting.places).clear();
        tasks.wait().await;
    }

    async fn make_rounds(
        &self,
        shift: Shift,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) {
        while !stop.is_cancelled() {
            *locked(&self.waiting.round) = Some(self.service.clock().uptime());
            let woken = self.waiting.moved.notified();
            let rung = self.service.work_bell.notified();
            tokio::pin!(woken, rung);
            woken.as_mut().enable();
            rung.as_mut().enable();
            let next = tokio::select! {
                biased;
                next = self.look(shift, tasks, give_up) => next,
                never = self.serve_the_desk(tasks, give_up) => match never {},
            };
            if shift.is_over(next) && tasks.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = rung => {}
                never = self.serve_the_desk(tasks, give_up) => match never {},
                () = self.look_again(shift, next) => {}
                () = tasks.wait(), if shift.is_over(next) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// When something is due that is not at work, if this shift looks for any.
    async fn look(
        &self,
        shift: Shift,
        tasks: &TaskTracker,
        give_up: &CancellationToken,
    ) -> Option<Timestamp> {
        if !shift.looks() {
            return None;
        }
        match self.begin_due(shift, tasks, give_up).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "cannot see what is due");
                Some(self.service.clock().now() + AFTER_A_FAULT)
            }
        }
    }

    async fn look_again(&self, shift: Shift, next: Option<Timestamp>) {
        if !shift.looks() {
            return std::future::pending().await;
        }
        let clock = self.service.clock();
        let ahead = next.map_or(WORKERS_LOOK_EVERY, |next| next - clock.now());
        let pause = Millis(ahead.0.clamp(0, WORKERS_LOOK_EVERY.0));
        clock.sleep(pause).await;
    }

    /// Starts everything that is due, as far as there are places; returns when the next
    /// will be.
    async fn begin_due(
        &self,
        shift: Shift,
        tasks: &TaskTracker,
        give_up: &CancellationToken,
    ) -> Result<Option<Timestamp>, StoreError> {
        let clock = self.service.clock();
        let (now, up) = (clock.now(), clock.uptime());
        let as_of = match shift {
            Shift::Standing | Shift::AtTheDesk => self.clock_watch.as_of(clock),
            Shift::Until(_) => now,
        };
        // K15: what is at work or set aside is due as well, so that many more are asked for.
        let more = self.waiting.many_aside();
        let look = |lane| {
            self.service
                .store()
                .due(lane, as_of, places(lane) * 2 + more)
        };
        let [revoke, remove, other] = Lane::ALL.map(look);
        let (revoke, remove, other) = tokio::try_join!(revoke, remove, other)?;
        locked(&self.waiting.places).clear();
        let mut first: Option<Timestamp> = None;
        for (lane, due) in Lane::ALL.into_iter().zip([revoke, remove, other]) {
            // What is due already is at work, or waits for a place.
            let next = due.next.filter(|next| *next > as_of);
            first = first.into_iter().chain(next).min();
            for id in due.ready {
                if let Some(until) = self.waiting.is_aside(id, up) {
                    first = first.into_iter().chain([now + (until - up)]).min();
                    continue;
                }
                match self.service.desk.sit_down(id, lane) {
                    Place::Taken(slot) => self.start(tasks, give_up, First::Due(id, as_of, slot)),
                    Place::Had => {}
                    Place::None => locked(&self.waiting.places).push_back((id, lane, as_of)),
                }
            }
        }
        Ok(first)
    }

    /// Works on one thing, and then on what waits for the place.
    fn start(&self, tasks: &TaskTracker, give_up: &CancellationToken, first: First) {
        let (worker, give_up) = (self.clone(), give_up.clone());
        let piece = tasks.track_future(async move {
            let mut next = match first {
                First::Due(id, as_of, slot) => Some((id, as_of, slot)),
                First::Begun(begun) => {
                    let id = begun.handled.request.id;
                    let done = worker
                        .go_on_with(*begun, &give_up)
                        .map(|done| done.map(|()| Tried::Done));
                    worker.note(id, AssertUnwindSafe(done).catch_unwind().await);
                    worker.next_for_a_place()
                }
            };
            while let Some((id, as_of, slot)) = next {
                let tried = AssertUnwindSafe(worker.work_on(id, as_of, &give_up))
                    .catch_unwind()
                    .await;
                worker.note(id, tried);
                drop(slot);
                next = worker.next_for_a_place();
            }
        });
        self.pieces.spawn(Box::pin(piece));
    }

    /// What came of one try: what cannot be worked on now takes no place of another.
    fn note(&self, id: RequestId, tried: std::thread::Result<Result<Tried, ServiceError>>) {
        let now = self.service.clock().uptime();
        match tried {
            Ok(Ok(Tried::Done)) => self.waiting.take_back(id),
            Ok(Ok(Tried::NotBefore(until))) => self.waiting.set_aside(id, Some(until), now),
            Ok(Ok(Tried::Refused(refusal))) => {
                tracing::debug!(request = %id, %refusal, "not worked on");
                self.waiting.set_aside(id, None, now);
            }
            Ok(Err(error)) => {
                tracing::warn!(request = %id, %error, "left for later");
                self.waiting.set_aside(id, None, now);
            }
            Err(_) => {
                tracing::error!(request = %id, "work on this request is tried again");
                note_panic("a piece of work");
                self.waiting.set_aside(id, None, now);
            }
        }
    }

    fn next_for_a_place(&self) -> Option<(RequestId, Timestamp, Slot)> {
        let mut waiting = locked(&self.waiting.places);
        while let Some((next, lane, as_of)) = waiting.pop_front() {
            if waiting.is_empty() {
                self.waiting.moved.notify_one();
            }
            if let Place::Taken(slot) = self.service.desk.sit_down(next, lane) {
                return Some((next, as_of, slot));
            }
        }
        None
    }

    /// Takes up what is put on the desk, also while a look takes long.
    async fn serve_the_desk(&self, tasks: &TaskTracker, give_up: &CancellationToken) -> Infallible {
        loop {
            let rung = self.service.desk.bell.notified();
            self.clear_the_desk(tasks, give_up);
            rung.await;
        }
    }

    fn clear_the_desk(&self, tasks: &TaskTracker, give_up: &CancellationToken) {
        while let Some(begun) = self.service.desk.take() {
            self.start(tasks, give_up, First::Begun(Box::new(begun)));
        }
    }
}
