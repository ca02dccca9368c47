//! Everything that happens later: one record that is due, one lease, one action in AWS
//! at a time, and its outcome brought back through the one door.
//!
//! A worker takes a due record, works on it until it needs nothing more just now, and
//! reports what came of it. The loop around that, which decides what is taken when, is in
//! `schedule`; one action in AWS is in `execute`. A restart needs no recovery: what was due
//! is still due, and is found again.
#![deny(clippy::wildcard_enum_match_arm)]

mod claims;
mod execute;
pub mod notices;
mod prove;
mod schedule;
mod sessions;
pub mod spawn;
mod watch;
pub mod webhook;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::clock::Uptime;
use crate::domain::{
    Calls, Claim, Command, Lane, Lease, LeaseHolder, LeaseToken, Millis, Outcome, Refusal, Request,
    RequestId, Text, Timestamp, Trouble, Work,
};
use crate::identity_center::Paced;
use crate::service::work_queue::{BothClocks, ClaimedWork, LeaseDeadline, lease_again, new_lease};
use crate::service::{Handled, Service, ServiceError};
use execute::SentCalls;
pub use prove::{ProveError, Proven};
pub use schedule::RunMode;
use schedule::WaitingWork;
use spawn::{OnRuntime, Spawn};
use watch::{ClockWatch, Watch};

/// How long work that has begun may go on once the process is asked to stop.
const GRACE: Millis = Millis::seconds(5);
const AFTER_A_FAULT: Millis = Millis::seconds(1);
/// How often an operator's command looks at a request that another worker has.
const LOOKS_AGAIN: Millis = Millis(500);

#[derive(Clone)]
pub struct Worker {
    service: Arc<Service>,
    access: Arc<Paced>,
    pieces: Arc<dyn Spawn>,
    by: LeaseHolder,
    watch: Arc<Watch>,
    clock_watch: Arc<ClockWatch>,
    waiting: Arc<WaitingWork>,
}

/// What one step found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    Worked(RequestId),
    Idle,
}

/// What came of an offer to work on a request.
#[derive(Debug)]
enum Tried {
    Done,
    /// Not yet: another worker has it, or its time has not come. To be tried again then.
    NotBefore(Uptime),
    /// It is not to be worked on as it stands.
    Refused(Refusal),
    /// The process was asked to stop before this was claimed.
    NotBegun,
}

impl Worker {
    pub fn new(service: Arc<Service>, access: Arc<Paced>) -> Self {
        let waiting = Arc::new(WaitingWork::new(service.clock()));
        Self {
            service,
            access,
            pieces: Arc::new(OnRuntime),
            by: LeaseHolder::Server,
            watch: Arc::new(Watch::new()),
            clock_watch: Arc::default(),
            waiting,
        }
    }

    /// The same, with pieces of work that run elsewhere.
    #[must_use]
    pub fn spawning(self, pieces: Arc<dyn Spawn>) -> Self {
        Self { pieces, ..self }
    }

    /// The same, for an operator's command: a server that starts beside it leaves its leases
    /// alone.
    #[must_use]
    pub fn of_an_operator(self) -> Self {
        let by = LeaseHolder::Operator;
        Self { by, ..self }
    }

    /// Takes the most urgent record that is due and works on it until it needs nothing
    /// more just now.
    pub async fn step(&self, stop: &CancellationToken) -> Result<Stepped, ServiceError> {
        if let Some(begun) = self.service.work_queue.take() {
            let id = begun.handled.request.id;
            let done = self.go_on_with(begun, stop).await;
            return done.map(|()| Stepped::Worked(id));
        }
        let now = self.service.clock().now();
        for lane in Lane::ALL {
            let due = self.service.store().due(lane, now, 1).await?;
            if let Some(&id) = due.ready.first() {
                self.work_on(id, now, stop).await?;
                return Ok(Stepped::Worked(id));
            }
        }
        Ok(Stepped::Idle)
    }

    /// Works on this one request, and on nothing else, until it is over. Another worker that
    /// is at it is waited for; `told` hears how it stands meanwhile.
    pub async fn see_through(
        &self,
        id: RequestId,
        stop: &CancellationToken,
        mut told: impl FnMut(&Request),
    ) -> Result<Request, ServiceError> {
        let clock = self.service.clock();
        loop {
            let tried = self.work_on(id, clock.now(), stop).await?;
            let request = self.service.request(id).await?;
            if request.is_over() || stop.is_cancelled() {
                return Ok(request);
            }
            told(&request);
            let again = clock.uptime() + LOOKS_AGAIN;
            let next = match tried {
                Tried::Done | Tried::NotBegun | Tried::Refused(_) => again,
                Tried::NotBefore(at) => at.min(again),
            };
            clock.sleep_until(next).await;
        }
    }

    fn claim(&self, id: RequestId, as_of: Timestamp) -> Claim {
        let clock = self.service.clock();
        Claim {
            lease: new_lease(clock, self.by),
            lapsed: self.watch.lapsed(id, clock.uptime()),
            as_of,
        }
    }

    /// Claims, acts, reports; and goes on under the same lease for as long as the core
    /// has a next action.
    async fn work_on(
        &self,
        id: RequestId,
        as_of: Timestamp,
        stop: &CancellationToken,
    ) -> Result<Tried, ServiceError> {
        match self.take_up(id, as_of).await? {
            Ok(begun) => self.go_on_with(begun, stop).await.map(|()| Tried::Done),
            Err(tried) => Ok(tried),
        }
    }

    /// Claims what is due.
    async fn take_up(
        &self,
        id: RequestId,
        as_of: Timestamp,
    ) -> Result<Result<ClaimedWork, Tried>, ServiceError> {
        let clock = self.service.clock();
        let (claim, taken) = (self.claim(id, as_of), BothClocks::now(clock));
        match self.service.handle(id, Command::Due { claim }).await {
            Ok(handled) => {
                self.watch.forget_lease(id);
                Ok(Ok(ClaimedWork {
                    handled,
                    lease: claim.lease,
                    deadline: LeaseDeadline::since(taken),
                    slot: None,
                }))
            }
            Err(ServiceError::Refused(refusal)) => Ok(Err(self.refused(id, refusal))),
            Err(error) => Err(error),
        }
    }

    fn refused(&self, id: RequestId, refusal: Refusal) -> Tried {
        let clock = self.service.clock();
        let now = clock.uptime();
        if let Refusal::Leased { lease: Some(lease) } = refusal {
            return Tried::NotBefore(self.watch.see_lease(id, lease, now));
        }
        if let Refusal::NotDue { until: Some(until) } = refusal {
            let ahead = until - clock.now();
            return Tried::NotBefore(now + Millis(ahead.0.max(0)));
        }
        Tried::Refused(refusal)
    }

    async fn go_on_with(
        &self,
        begun: ClaimedWork,
        stop: &CancellationToken,
    ) -> Result<(), ServiceError> {
        let ClaimedWork {
            handled,
            lease,
            deadline,
            slot: _slot,
        } = begun;
        let (id, token) = (handled.request.id, lease.token);
        let mut now = Some(handled);
        while let Some(Handled {
            request,
            work: Some(action),
            held,
        }) = now
        {
            let sent = SentCalls::default();
            let performed = async {
                let held = held.as_ref();
                tokio::select! {
                    biased;
                    outcome = execute::execute(self, &action, &request, held, &deadline, &sent) => outcome,
                    outcome = self.keep_lease(request.clone(), token, &deadline) => outcome,
                    () = stop.cancelled() => Outcome::Interrupted,
                }
            };
            let outcome = AssertUnwindSafe(performed).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| panicked(id, &action));
            tracing::debug!(request_id = %id, ?action, ?outcome, "worked");
            if let Outcome::Failed(Trouble::Denied { why }) = &outcome {
                tracing::error!(
                    request_id = %id, ?action, %why,
                    "AWS denied the call; retrying every minute"
                );
            }
            now = self.report(id, token, outcome, sent.calls(), stop).await?;
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
        calls: Calls,
        stop: &CancellationToken,
    ) -> Result<Option<Handled>, ServiceError> {
        let clock = self.service.clock();
        let until = clock.uptime() + Lease::LASTS;
        loop {
            let finished = Command::Finished {
                lease,
                outcome: outcome.clone(),
                calls: calls.clone(),
            };
            let error = match self.service.handle(id, finished).await {
                Ok(handled) => return Ok(Some(handled)),
                // The lease was lost and the news is of no use.
                Err(ServiceError::Refused(refusal)) => {
                    tracing::info!(request_id = %id, %refusal, "came too late");
                    return Ok(None);
                }
                Err(error) => error,
            };
            if clock.uptime() >= until || stop.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(request_id = %id, %error, "outcome not written yet");
            clock.sleep(AFTER_A_FAULT).await;
        }
    }

    /// Never returns while the lease can be kept, and not either once it is lost: what
    /// AWS is doing must still be heard and reported.
    async fn keep_lease(
        &self,
        mut request: Request,
        token: LeaseToken,
        deadline: &LeaseDeadline,
    ) -> Outcome {
        let clock = self.service.clock();
        loop {
            clock.sleep(Lease::RENEWED_EVERY).await;
            let (lease, begun) = (lease_again(token, clock, self.by), BothClocks::now(clock));
            match self.service.renew(request.clone(), lease).await {
                Ok(renewed) => {
                    deadline.renew(begun);
                    request = renewed;
                }
                Err(error) => tracing::warn!(request_id = %request.id, %error, "lease not renewed"),
            }
        }
    }
}

/// Counts a panic that was caught: a fault of jit's own, whose trace is in the log.
fn note_panic(what: &'static str) {
    metrics::counter!("jit_worker_panics_total").increment(1);
    tracing::error!("{what} panicked, and goes on");
}

/// K6: a fault of jit's own is a failed try like any other. What it sent stays noted, the
/// lease is given back, and the next try has its chance.
fn panicked(id: RequestId, action: &Work) -> Outcome {
    tracing::error!(request_id = %id, ?action, "this work is tried again");
    note_panic("a piece of work");
    let why = Text::clip("jit itself failed (a panic, see its log); it is tried again");
    Outcome::Failed(Trouble::Passing { why })
}
