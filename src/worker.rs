//! Everything that happens later: one record that is due, one lease, one action in AWS
//! at a time, and its outcome brought back through the one door.
//!
//! `step` is the whole of it; `run` is a loop around it that sleeps until something is
//! due. A restart needs no recovery: what was due is still due, and is found again.

mod perform;
pub mod postman;
mod sessions;
pub mod spawn;
pub mod webhook;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Paced;
use crate::domain::{
    Command, Lane, Lease, LeaseToken, Millis, Outcome, Request, RequestId, Timestamp, Trouble,
};
use crate::service::desk::{Begun, LEASE, Place, places};
use crate::service::{Handled, Service, ServiceError, WORKERS_LOOK_EVERY};
use crate::store::StoreError;
use spawn::{OnRuntime, Spawn};

const RENEW_EVERY: Millis = Millis::seconds(10);
/// How long work that has begun may go on once the process is asked to stop.
const GRACE: Millis = Millis::seconds(5);
const AFTER_A_FAULT: Millis = Millis::seconds(1);

#[derive(Clone)]
pub struct Worker {
    service: Arc<Service>,
    access: Arc<Paced>,
    pieces: Arc<dyn Spawn>,
    /// What the last look found due and had no place for.
    waiting: Arc<Mutex<VecDeque<(RequestId, Lane)>>>,
    /// Rung when none of those waits any more: there may be others.
    moved: Arc<Notify>,
}

/// How long somebody stays, and for what.
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
    fn looks(self) -> bool {
        self != Self::AtTheDesk
    }

    fn asked_for_here(self) -> bool {
        !matches!(self, Self::Until(_))
    }

    /// Whether what is due next is somebody else's already.
    fn is_over(self, next: Option<Timestamp>) -> bool {
        matches!(self, Self::Until(horizon) if next.is_none_or(|next| next > horizon))
    }
}

/// What one step found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    Worked(RequestId),
    Idle,
}

/// What somebody who sits down begins with.
enum First {
    Due(RequestId),
    Begun(Box<Begun>),
}

/// How long a lease is known to be held.
struct Tenure(AtomicI64);

impl Tenure {
    fn new(lease: Lease) -> Self {
        Self(AtomicI64::new(lease.until.millis()))
    }

    fn extend(&self, lease: Lease) {
        self.0.store(lease.until.millis(), Ordering::Relaxed);
    }

    fn lasts_until(&self, time: Timestamp) -> bool {
        time.millis() <= self.0.load(Ordering::Relaxed)
    }
}

impl Worker {
    pub fn new(service: Arc<Service>, access: Arc<Paced>) -> Self {
        Self {
            service,
            access,
            pieces: Arc::new(OnRuntime),
            waiting: Arc::default(),
            moved: Arc::default(),
        }
    }

    /// The same, with pieces of work that run elsewhere.
    #[must_use]
    pub fn spawning(self, pieces: Arc<dyn Spawn>) -> Self {
        Self { pieces, ..self }
    }

    /// From now on this process begins by itself what it is asked for: somebody steps, or
    /// runs, until it ends.
    pub fn sit_at_the_desk(&self) {
        self.service.desk.open();
    }

    /// Takes the most urgent record that is due and works on it until it needs nothing
    /// more just now.
    pub async fn step(&self, stop: &CancellationToken) -> Result<Stepped, ServiceError> {
        if let Some(begun) = self.service.desk.take() {
            let id = begun.handled.request.id;
            let done = self.go_on_with(begun, stop).await;
            self.service.desk.stand_up(id);
            return done.map(|()| Stepped::Worked(id));
        }
        let now = self.service.clock().now();
        for lane in Lane::ALL {
            let due = self.service.store().due(lane, now, 1).await?;
            if let Some(&id) = due.ready.first() {
                self.work_on(id, stop).await?;
                return Ok(Stepped::Worked(id));
            }
        }
        Ok(Stepped::Idle)
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
        let clock = self.service.clock();
        clock.wait_until(clock.now() + GRACE).await;
        give_up.cancel();
        std::future::pending().await
    }

    /// Works a shift to its end, or until `stop`; what has begun by then is finished,
    /// unless told to give it up. Whoever comes next finds what is left. What is `named` is
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
            if self.service.desk.sit_down(id, Lane::Revoke) == Place::Taken {
                self.start(&tasks, give_up, First::Due(id));
            }
        }
        if shift.asked_for_here() {
            self.sit_at_the_desk();
        }
        while !stop.is_cancelled() {
            let woken = self.moved.notified();
            let rung = self.service.work_bell.notified();
            tokio::pin!(woken, rung);
            woken.as_mut().enable();
            rung.as_mut().enable();
            let next = tokio::select! {
            biased;
                next = self.look(shift, &tasks, give_up) => next,
                never = self.serve_the_desk(&tasks, give_up) => match never {},
            };
            if shift.is_over(next) && tasks.is_empty() {
                break;
            }
            tokio::select! {
            biased;
                () = woken => {}
                () = rung => {}
                never = self.serve_the_desk(&tasks, give_up) => match never {},
                () = self.look_again(shift, next) => {}
                () = tasks.wait(), if shift.is_over(next) => {}
                () = stop.cancelled() => {}
            }
        }
        self.service.desk.close();
        self.clear_the_desk(&tasks, give_up);
        self.waiting().clear();
        tasks.wait().await;
    }

    /// When something is due that nobody has begun, if this shift looks for any.
    async fn look(
        &self,
        shift: Shift,
        tasks: &TaskTracker,
        give_up: &CancellationToken,
    ) -> Option<Timestamp> {
        if !shift.looks() {
            return None;
        }
        match self.begin_due(tasks, give_up).await {
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
        let again = clock.now() + WORKERS_LOOK_EVERY;
        clock
            .wait_until(next.map_or(again, |next| next.min(again)))
            .await;
    }

    /// Starts everything that is due, as far as there are places; returns when the next
    /// will be.
    async fn begin_due(
        &self,
        tasks: &TaskTracker,
        give_up: &CancellationToken,
    ) -> Result<Option<Timestamp>, StoreError> {
        let now = self.service.clock().now();
        // Those that wait for their lease are due as well, so ask for that many more.
        let look = |lane| self.service.store().due(lane, now, places(lane) * 2);
        let [revoke, remove, other] = Lane::ALL.map(look);
        let (revoke, remove, other) = tokio::try_join!(revoke, remove, other)?;
        self.waiting().clear();
        let mut first: Option<Timestamp> = None;
        for (lane, due) in Lane::ALL.into_iter().zip([revoke, remove, other]) {
            // What is due already is at work, or waits for a place.
            let next = due.next.filter(|next| *next > now);
            first = first.into_iter().chain(next).min();
            for id in due.ready {
                match self.service.desk.sit_down(id, lane) {
                    Place::Taken => self.start(tasks, give_up, First::Due(id)),
                    Place::Had => {}
                    Place::None => self.waiting().push_back((id, lane)),
                }
            }
        }
        Ok(first)
    }

    /// Works on one thing, and then on whatever waits for the place.
    fn start(&self, tasks: &TaskTracker, give_up: &CancellationToken, first: First) {
        let (worker, give_up) = (self.clone(), give_up.clone());
        let piece = tasks.track_future(async move {
            let (mut id, mut done) = match first {
                First::Due(id) => (id, worker.work_on(id, &give_up).await),
                First::Begun(begun) => {
                    let id = begun.handled.request.id;
                    (id, worker.go_on_with(*begun, &give_up).await)
                }
            };
            while let Some(next) = worker.get_up(id, done).await {
                id = next;
                done = worker.work_on(id, &give_up).await;
            }
        });
        self.pieces.spawn(Box::pin(piece));
    }

    /// Takes up whatever is put on the desk, also while a look takes long.
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

    /// Gives the place to the next who waits for one.
    async fn get_up(&self, id: RequestId, done: Result<(), ServiceError>) -> Option<RequestId> {
        if let Err(error) = done {
            tracing::warn!(request = %id, %error, "left for later");
            let clock = self.service.clock();
            clock.wait_until(clock.now() + AFTER_A_FAULT).await;
        }
        self.service.desk.stand_up(id);
        let mut waiting = self.waiting();
        while let Some((next, lane)) = waiting.pop_front() {
            if waiting.is_empty() {
                self.moved.notify_one();
            }
            if self.service.desk.sit_down(next, lane) == Place::Taken {
                return Some(next);
            }
        }
        None
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(RequestId, Lane)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on this one request, and on nothing else, until it is over. Whoever else is at
    /// it is waited for; `told` hears how it stands meanwhile.
    pub async fn see_through(
        &self,
        id: RequestId,
        stop: &CancellationToken,
        mut told: impl FnMut(&Request),
    ) -> Result<Request, ServiceError> {
        let clock = self.service.clock();
        loop {
            self.work_on(id, stop).await?;
            let request = self.service.request(id).await?;
            if request.is_over() || stop.is_cancelled() {
                return Ok(request);
            }
            told(&request);
            let again = clock.now() + Millis(500);
            let due = request.claimable_at().unwrap_or(again);
            clock.wait_until(due.min(again)).await;
        }
    }

    /// Claims, acts, reports; and goes on under the same lease for as long as the core
    /// has a next action.
    async fn work_on(&self, id: RequestId, stop: &CancellationToken) -> Result<(), ServiceError> {
        let lease = self.lease(LeaseToken(self.service.clock().draw()));
        match self.service.handle(id, Command::Due { lease }).await {
            Ok(handled) => self.go_on_with(Begun { handled, lease }, stop).await,
            // Somebody else has it, or it is not due after all.
            Err(ServiceError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn go_on_with(
        &self,
        Begun { handled, lease }: Begun,
        stop: &CancellationToken,
    ) -> Result<(), ServiceError> {
        let (id, token) = (handled.request.id, lease.token);
        let tenure = Tenure::new(lease);
        let mut now = Some(handled);
        while let Some(Handled {
            request,
            work: Some(action),
            held,
        }) = now
        {
            let held = held.as_ref();
            let outcome = tokio::select! {
                biased;
                outcome = perform::perform(&self.service, &self.access, &action, &request, held, &tenure) => outcome,
                outcome = self.keep_lease(id, token, &tenure) => outcome,
                () = stop.cancelled() => Outcome::Interrupted,
            };
            tracing::debug!(request = %id, ?action, ?outcome, "worked");
            let denied = match &outcome {
                Outcome::Failed(Trouble::Denied { why }) => Some(why.clone()),
                _ => None,
            };
            now = self.report(id, token, outcome, stop).await?;
            if let Some(why) = denied {
                let next = "it is tried again every minute";
                tracing::error!(request = %id, ?action, %why, "AWS does not allow it to jit; {next}");
            }
        }
        Ok(())
    }

    /// What AWS did must not be forgotten because the store is out of breath: it is said
    /// again for as long as the lease would hold.
    async fn report(
        &self,
        id: RequestId,
        lease: LeaseToken,
        outcome: Outcome,
        stop: &CancellationToken,
    ) -> Result<Option<Handled>, ServiceError> {
        let clock = self.service.clock();
        let until = clock.now() + LEASE;
        loop {
            let outcome = outcome.clone();
            let error = match self
                .service
                .handle(id, Command::Finished { lease, outcome })
                .await
            {
                Ok(handled) => return Ok(Some(handled)),
                // The lease was lost and the news is of no use.
                Err(ServiceError::Refused(refusal)) => {
                    tracing::info!(request = %id, %refusal, "came too late");
                    return Ok(None);
                }
                Err(error) => error,
            };
            let now = clock.now();
            if now >= until || stop.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(request = %id, %error, "outcome not written yet");
            clock.wait_until(now + AFTER_A_FAULT).await;
        }
    }

    /// Never returns while the lease can be kept, and not either once it is lost: what
    /// AWS is doing must still be heard and reported.
    async fn keep_lease(&self, id: RequestId, token: LeaseToken, tenure: &Tenure) -> Outcome {
        loop {
            let clock = self.service.clock();
            clock.wait_until(clock.now() + RENEW_EVERY).await;
            let lease = self.lease(token);
            match self.service.handle(id, Command::Renew { lease }).await {
                Ok(_) => tenure.extend(lease),
                Err(error) => tracing::warn!(request = %id, %error, "lease not renewed"),
            }
        }
    }

    fn lease(&self, token: LeaseToken) -> Lease {
        Lease {
            token,
            until: self.service.clock().now() + LEASE,
        }
    }
}
