//! The worker: it claims a due request, executes the work at AWS, and reports the outcome to
//! the service as a command.
//!
//! A worker works on a request until the request needs no more work for now. `schedule`
//! has the loop that decides what is claimed when; `execute` carries out one piece of work at
//! AWS. A restart needs no recovery: due requests are still due, and a worker finds them.
#![deny(clippy::wildcard_enum_match_arm)]

mod assignment;
mod break_glass;
mod claims;
mod execute;
pub mod heads;
pub mod notices;
mod prove;
mod schedule;
pub mod spawn;
pub mod tidy;
mod watch;
pub mod webhook;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::clock::Uptime;
use crate::domain::{
    Calls, Claim, Command, Lease, LeaseHolder, LeaseToken, Millis, Outcome, Refusal, Request,
    RequestId, Timestamp, Work, WorkFailure,
};
use crate::identity_center::Paced;
use crate::service::work_queue::{BothClocks, ClaimedWork, LeaseDeadline, lease_again, new_lease};
use crate::service::{Handled, Service, ServiceError};
pub use break_glass::{BreakGlassError, BreakGlassOperator, BreakGlassResult, remove_unrecorded};
use execute::Execution;
pub use prove::{ProveError, Proven, Remains};
pub use schedule::RunMode;
use schedule::WaitingWork;
use spawn::{OnRuntime, Spawn};
use watch::{ClockWatch, Watch};

/// How long executions that have begun may continue after the process was asked to stop.
const GRACE: Millis = Millis::seconds(5);
const AFTER_A_FAULT: Millis = Millis::seconds(1);
/// The pause between two reads of a request whose lease another worker holds.
const LOOKS_AGAIN: Millis = Millis(500);

#[derive(Clone)]
pub struct Worker {
    service: Arc<Service>,
    identity_center: Arc<Paced>,
    spawner: Arc<dyn Spawn>,
    by: LeaseHolder,
    watch: Arc<Watch>,
    clock_watch: Arc<ClockWatch>,
    waiting: Arc<WaitingWork>,
}

/// The result of an attempt to work on a request.
#[derive(Debug)]
enum Tried {
    Done,
    /// Another worker has the lease, or the request is not due. To be tried again at this time.
    NotBefore(Uptime),
    /// The request does not accept the claim.
    Refused(Refusal),
    /// The process was asked to stop before the claim.
    NotBegun,
}

impl Worker {
    pub fn new(service: Arc<Service>, identity_center: Arc<Paced>) -> Self {
        let waiting = Arc::new(WaitingWork::new(service.clock()));
        Self {
            service,
            identity_center,
            spawner: Arc::new(OnRuntime),
            by: LeaseHolder::Server,
            watch: Arc::new(Watch::new()),
            clock_watch: Arc::default(),
            waiting,
        }
    }

    /// A worker whose executions run on this spawner.
    #[must_use]
    pub fn spawning(self, spawner: Arc<dyn Spawn>) -> Self {
        Self { spawner, ..self }
    }

    /// A worker of an operator's command: a server that starts meanwhile does not take its
    /// leases.
    #[must_use]
    pub fn of_an_operator(self) -> Self {
        let by = LeaseHolder::Operator;
        Self { by, ..self }
    }

    /// Works only on this request, until it is settled and its old credentials are denied. While
    /// another worker holds its lease, this waits. `progress` gets the request after each attempt.
    pub async fn follow_to_end(
        &self,
        id: RequestId,
        stop: &CancellationToken,
        mut progress: impl FnMut(&Request),
    ) -> Result<Request, ServiceError> {
        let clock = self.service.clock();
        loop {
            let tried = self.work_on(id, clock.now(), stop).await?;
            let request = self.service.request(id).await?;
            if request.is_over() || stop.is_cancelled() {
                return Ok(request);
            }
            progress(&request);
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

    /// Claims the request, executes the work and reports the outcome; continues under the same
    /// lease as long as the decision returns more work.
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

    /// Claims the request if it is due.
    async fn take_up(
        &self,
        id: RequestId,
        as_of: Timestamp,
    ) -> Result<Result<ClaimedWork, Tried>, ServiceError> {
        let clock = self.service.clock();
        let (claim, taken) = (self.claim(id, as_of), BothClocks::now(clock));
        match self.service.handle(id, Command::Due { claim }, None).await {
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
            work: Some(work),
            access,
        }) = now
        {
            let execution = Execution::of(&work);
            let performed = async {
                tokio::select! {
                    biased;
                    outcome = execution.carry_out(self, &request, &access, &deadline) => outcome,
                    outcome = self.keep_lease(request.clone(), token, &deadline) => outcome,
                    () = stop.cancelled() => Outcome::Interrupted,
                }
            };
            let outcome = AssertUnwindSafe(performed).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| panicked(id, &work));
            tracing::debug!(request_id = %id, %work, ?outcome, "execution ended");
            if let Outcome::Failed(WorkFailure::Denied { why }) = &outcome {
                tracing::error!(
                    request_id = %id, %work, error = %why,
                    "AWS denied the call, or configuration or credentials do not allow it; retrying every minute"
                );
            }
            let calls = execution.calls(&deadline, self.service.clock());
            now = self.report(id, token, outcome, calls, stop).await?;
        }
        Ok(())
    }

    /// Reports the outcome. If the store fails, the report is repeated for as long as the lease
    /// lasts, because the outcome at AWS must be stored.
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
                calls: Some(calls.clone()),
            };
            let error = match self.service.handle(id, finished, None).await {
                Ok(handled) => return Ok(Some(handled)),
                // The lease was lost, and the outcome changes nothing.
                Err(ServiceError::Refused(refusal)) => {
                    tracing::info!(request_id = %id, %refusal, "outcome not stored: another worker holds the lease and continues");
                    return Ok(None);
                }
                Err(error) => error,
            };
            if clock.uptime() >= until || stop.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(request_id = %id, %error, "outcome not stored, will be retried");
            clock.sleep(AFTER_A_FAULT).await;
        }
    }

    /// Renews the lease. It never returns, also not when the lease is lost: the outcome of a call
    /// that was sent must still be reported.
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
            let renewed = self.service.renew(request.clone(), lease).await;
            match deadline.renewed(begun, renewed) {
                Ok(renewed) => request = renewed,
                Err(error) => {
                    tracing::warn!(request_id = %request.id, %error, "lease not renewed, will be retried");
                }
            }
        }
    }
}

/// Counts a caught panic. A panic is a defect of jit; the log has its trace.
fn note_panic(task: &'static str) {
    metrics::counter!("jit_worker_panics_total").increment(1);
    tracing::error!(task, "a task panicked, will be retried");
}

/// K6: a panic counts as a failed attempt. The holding keeps the unanswered calls, the lease
/// is given back, and the work is tried again.
fn panicked(id: RequestId, work: &Work) -> Outcome {
    tracing::error!(
        request_id = %id, %work,
        "execution panicked, will be retried; report the trace as a fault of jit"
    );
    note_panic("execution");
    WorkFailure::passing("jit failed (a panic, see its log); the work is tried again").into()
}
