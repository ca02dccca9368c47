//! The execution of work for an assignment.
//!
//! `Paced` retries a conflict or throttling for a few seconds. After that the execution
//! reports a failure, and the request, which survives a restart, is due again later.
//!
//! A call that was sent may take effect up to `CALL_PATIENCE` later, even if its worker is
//! dead. So a worker sends a call only if its lease certainly lasts longer than that, and
//! `SentCalls` records which call has no answer. A removal is "gone" only if the delete was
//! sent after every earlier unanswered create was waited out: AWS refuses a delete while it
//! carries out such a create, and a look does not show the create.

mod old_credentials;

use std::sync::Mutex;

use super::Worker;
use super::watch::Watch;
use crate::clock::Clock;
use crate::domain::{
    AssignmentCall, AssignmentCalls, AssignmentOutcome, AssignmentWork, Holding, HoldingKey, Lane,
    LeaseToken, Millis, Outcome, Preparation, Presence, Request, RequestId, State, Text,
    WorkFailure,
};
use crate::identity_center::{
    CALL_PATIENCE, Deletion, Gate, IdentityCenterError, IdentityCenterErrorKind, OperationResult,
    Paced, PendingCall, Progress,
};
use crate::lock::locked;
use crate::service::Service;
use crate::service::work_queue::LeaseDeadline;

/// How long a revoke waits for a create that AWS has accepted, before the worker sends the
/// delete.
const REVOKED_CREATE_TIMEOUT: Millis = Millis::seconds(5);

pub(super) async fn execute(
    worker: &Worker,
    work: &AssignmentWork,
    request: &Request,
    holding: Option<&Holding>,
    deadline: &LeaseDeadline,
    sent: &SentCalls,
) -> Outcome {
    let execution = AssignmentExecution {
        service: &worker.service,
        identity_center: &worker.identity_center,
        watch: &worker.watch,
        holding,
        deadline,
        sent,
        id: request.id,
        lane: request.lane(),
    };
    match execution.carry_out(work, request).await {
        Ok(outcome) => Outcome::Assignment(outcome),
        Err(outcome) => outcome,
    }
}

/// The calls of one execution; the record is complete also when the execution is stopped.
#[derive(Debug, Default)]
pub(super) struct SentCalls(Mutex<AssignmentCalls>);

impl SentCalls {
    /// The calls of an execution that has ended.
    pub fn calls(&self, deadline: &LeaseDeadline, clock: &dyn Clock) -> AssignmentCalls {
        AssignmentCalls {
            overran: !deadline.lasts_for(Millis(0), clock),
            ..locked(&self.0).clone()
        }
    }

    fn send(&self, call: AssignmentCall) {
        locked(&self.0).unanswered = Some(call);
    }

    fn answered(&self) {
        locked(&self.0).unanswered = None;
    }

    fn waited_out(&self, calls: impl Iterator<Item = LeaseToken>) {
        locked(&self.0).waited_out.extend(calls);
    }

    fn has_waited_out(&self, call: LeaseToken) -> bool {
        locked(&self.0).waited_out.contains(&call)
    }
}

/// Whether the call that changes the assignment was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    NotSent,
    Sent,
}

struct AssignmentExecution<'a> {
    service: &'a Service,
    identity_center: &'a Paced,
    watch: &'a Watch,
    /// The holding at the time of the claim.
    holding: Option<&'a Holding>,
    deadline: &'a LeaseDeadline,
    sent: &'a SentCalls,
    id: RequestId,
    lane: Lane,
}

/// The error side is an outcome that ends the work early.
type Done<T = AssignmentOutcome> = Result<T, Outcome>;

/// Sends a create or a delete, and records it as unanswered until AWS answers.
struct Sending<'h> {
    execution: &'h AssignmentExecution<'h>,
    call: AssignmentCall,
    stage: &'h Mutex<Stage>,
}

impl<'h> Gate<'h> for Sending<'h> {
    fn may_be_sent(&self) -> PendingCall<'h, ()> {
        let (execution, call, stage) = (self.execution, self.call, self.stage);
        Box::pin(async move {
            if call == AssignmentCall::Create {
                execution.still_wanted().await?;
            }
            // The last check, because the check before it may take long.
            execution.still_held()?;
            execution.note_waited_out();
            execution.sent.send(call);
            *locked(stage) = Stage::Sent;
            Ok(())
        })
    }

    fn was_answered(&self) {
        self.execution.sent.answered();
    }
}

impl AssignmentExecution<'_> {
    async fn carry_out(&self, work: &AssignmentWork, request: &Request) -> Done {
        match work {
            AssignmentWork::Prepare => {}
            AssignmentWork::Create(key)
            | AssignmentWork::Remove(key)
            | AssignmentWork::Look(key)
            | AssignmentWork::DenyOldCredentials(key, _)
            | AssignmentWork::LiftDeny(key) => self.check_arn(key)?,
        }
        match work {
            AssignmentWork::Prepare => self.prepare(request).await,
            AssignmentWork::Create(key) => self.create(key).await,
            AssignmentWork::Remove(key) => self.remove(key).await,
            AssignmentWork::Look(key) => Ok(match self.look(key).await? {
                Presence::Absent => AssignmentOutcome::Gone,
                Presence::Present => AssignmentOutcome::StillThere,
            }),
            AssignmentWork::DenyOldCredentials(key, before) => {
                self.deny_old_credentials(key, *before).await
            }
            AssignmentWork::LiftDeny(key) => self.lift_deny(key).await,
        }
    }

    /// P6: a look under another ARN of the same permission set name proves nothing about this
    /// assignment.
    fn check_arn(&self, key: &HoldingKey) -> Done<()> {
        let set = &key.permission_set;
        let now = self.identity_center.permission_set_arn(set)?;
        let then = self
            .holding
            .and_then(|known| known.permission_set_arn.as_ref());
        match then {
            Some(then) if *then != now => Err(WorkFailure::denied(&format!(
                "permission set {set} had the ARN {then} when jit made this assignment, and has {now} now: \
                 restore permission_sets.{set} in jit.toml until the access has ended"
            ))
            .into()),
            Some(_) | None => Ok(()),
        }
    }

    async fn prepare(&self, request: &Request) -> Done {
        let email = request.requester_email();
        let user = self.identity_center.find_user(self.lane, email).await?;
        let key = request.holding_key_of(user.clone());
        // Read before the look: if a holder joins or leaves meanwhile, the revision changes and
        // the look is repeated.
        let holding = self.service.holding(key.clone()).await;
        let holding = holding.map_err(|error| WorkFailure::passing(&error.to_string()))?;
        // P4: an earlier delete may still take effect, so the create is sent only after that.
        self.wait_out(holding.unanswered()).await;
        self.sent.waited_out(holding.unanswered());
        let presence = self.identity_center.look(self.lane, &key).await?;
        let permission_set_arn = self
            .identity_center
            .permission_set_arn(&key.permission_set)?;
        Ok(AssignmentOutcome::Prepared(Preparation {
            user,
            presence,
            revision: holding.revision,
            permission_set_arn,
        }))
    }

    /// A create may wait long for its turn, and a revoke does not wait for it: a create that was
    /// not sent is dropped; if AWS accepted it but does not finish it, the next work is the
    /// removal.
    async fn create(&self, key: &HoldingKey) -> Done {
        let stage = Mutex::new(Stage::NotSent);
        let done = tokio::select! {
            biased;
            done = self.create_and_wait(key, &stage) => done,
            () = self.revoked_during_create(&stage) => Err(Outcome::Interrupted),
        };
        done.map_err(|failed| interrupted_if_unsent(&stage, failed))
    }

    async fn create_and_wait(&self, key: &HoldingKey, stage: &Mutex<Stage>) -> Done {
        let room = self
            .identity_center
            .room_to_create(self.lane, &key.account_id)
            .await;
        let sending = Sending {
            execution: self,
            call: AssignmentCall::Create,
            stage,
        };
        let operation = self
            .identity_center
            .create(self.lane, key, &sending)
            .await?;
        match self
            .identity_center
            .wait_for(self.lane, &operation, room)
            .await?
        {
            OperationResult::Badly { why } => Err(WorkFailure::refused(&why).into()),
            OperationResult::Well | OperationResult::Somehow => Ok(AssignmentOutcome::Created),
            OperationResult::NotYet => Err(unfinished("create", &operation.id).into()),
        }
    }

    /// The assignment is gone only when a look shows that. If a revoke comes while this removal
    /// waits for its turn, the removal starts again in the lane of revokes.
    async fn remove(&self, key: &HoldingKey) -> Done {
        let stage = Mutex::new(Stage::NotSent);
        let done = tokio::select! {
            biased;
            done = self.remove_after_creates(key, &stage) => done,
            () = self.revoked_before_send(&stage) => Err(Outcome::Interrupted),
        };
        done.map_err(|failed| interrupted_if_unsent(&stage, failed))?;
        Ok(AssignmentOutcome::Gone)
    }

    /// If an earlier create may still take effect, the assignment is removed once more after
    /// that.
    async fn remove_after_creates(&self, key: &HoldingKey, stage: &Mutex<Stage>) -> Done<()> {
        loop {
            self.delete_and_look(key, stage).await?;
            let create = self.holding.and_then(|known| known.unanswered_create);
            let in_flight = create.filter(|call| !self.sent.has_waited_out(*call));
            if in_flight.is_none() {
                return Ok(());
            }
            self.wait_out(in_flight.into_iter()).await;
        }
    }

    /// Returns if the request is revoked before the call is sent.
    async fn revoked_before_send(&self, stage: &Mutex<Stage>) {
        self.revoked().await;
        if *locked(stage) == Stage::Sent {
            std::future::pending::<()>().await;
        }
    }

    /// Returns if the request is revoked: at once if the call was not sent, or else after
    /// `REVOKED_CREATE_TIMEOUT`.
    async fn revoked_during_create(&self, stage: &Mutex<Stage>) {
        self.revoked().await;
        if *locked(stage) == Stage::Sent {
            self.service.clock().sleep(REVOKED_CREATE_TIMEOUT).await;
        }
    }

    /// Returns if the request is revoked and this work is not part of a revoke.
    async fn revoked(&self) {
        match self.lane {
            Lane::Revoke => std::future::pending().await,
            Lane::Remove | Lane::Other => self.service.until_revoked(self.id).await,
        }
    }

    /// Returns when AWS shows that the assignment is gone.
    async fn delete_and_look(&self, key: &HoldingKey, stage: &Mutex<Stage>) -> Done<()> {
        let room = self
            .identity_center
            .room_to_remove(self.lane, &key.account_id)
            .await;
        let sending = Sending {
            execution: self,
            call: AssignmentCall::Delete,
            stage,
        };
        let deletion = self
            .identity_center
            .delete(self.lane, key, &sending)
            .await?;
        let Deletion::Started(operation) = deletion else {
            drop(room);
            return match self.look(key).await? {
                Presence::Absent => Ok(()),
                Presence::Present => Err(still_present()),
            };
        };
        let mut ended = self
            .identity_center
            .wait_for(self.lane, &operation, room)
            .await?;
        loop {
            match ended {
                OperationResult::Badly { why } => return Err(WorkFailure::refused(&why).into()),
                OperationResult::NotYet => return Err(unfinished("delete", &operation.id).into()),
                OperationResult::Well | OperationResult::Somehow => {}
            }
            if self.look(key).await? == Presence::Absent {
                return Ok(());
            }
            ended = match self.identity_center.poll(self.lane, &operation).await? {
                Progress::Failed { why } => OperationResult::Badly { why },
                Progress::Succeeded => return Err(still_present()),
                // AWS did not list the operation, but it is still running.
                Progress::InProgress => {
                    let room = self.identity_center.no_room();
                    self.identity_center
                        .wait_for(self.lane, &operation, room)
                        .await?
                }
            };
        }
    }

    /// Looks whether the assignment exists. After a revoke the look moves to the lane of revokes.
    async fn look(&self, key: &HoldingKey) -> Done<Presence> {
        let nothing_sent = Mutex::new(Stage::NotSent);
        let seen = tokio::select! {
            biased;
            seen = self.identity_center.look(self.lane, key) => seen,
            () = self.revoked_before_send(&nothing_sent) => self.identity_center.look(Lane::Revoke, key).await,
        };
        Ok(presence(seen, self.holding)?)
    }

    /// Records which calls that were unanswered at the claim this process has known for
    /// `CALL_PATIENCE`.
    fn note_waited_out(&self) {
        let now = self.service.clock().uptime();
        let known = self.holding.into_iter().flat_map(Holding::unanswered);
        let over = known.filter(|call| self.watch.see_call(*call, now) <= now);
        self.sent.waited_out(over);
    }

    /// Returns when these calls have taken effect or never will.
    async fn wait_out(&self, calls: impl Iterator<Item = LeaseToken>) {
        let (clock, now) = (self.service.clock(), self.service.clock().uptime());
        let last = calls.map(|call| self.watch.see_call(call, now)).max();
        if let Some(last) = last {
            clock.sleep_until(last).await;
        }
    }

    /// A worker sends a create or a delete only if its lease certainly lasts until the call has
    /// taken effect: the next worker must see the effect of every call.
    fn still_held(&self) -> Result<(), IdentityCenterError> {
        if self.deadline.lasts_for(CALL_PATIENCE, self.service.clock()) {
            return Ok(());
        }
        Err(not_sent("the lease may not last long enough"))
    }

    /// Another process may have revoked the request.
    async fn still_wanted(&self) -> Result<(), IdentityCenterError> {
        match self.service.request(self.id).await {
            Ok(request) if request.state == State::Assigning => Ok(()),
            Ok(_) => Err(not_sent("the request does not want the access any more")),
            Err(error) => Err(not_sent(&error.to_string())),
        }
    }
}

fn not_sent(why: &str) -> IdentityCenterError {
    let why = format!("call not sent: {why}");
    IdentityCenterError::new(IdentityCenterErrorKind::NoAnswer, why)
}

/// If the call was not sent, because the lease might not last or the request was revoked, the work
/// starts again under another lease.
fn interrupted_if_unsent(stage: &Mutex<Stage>, failed: Outcome) -> Outcome {
    match *locked(stage) {
        Stage::NotSent => Outcome::Interrupted,
        Stage::Sent => failed,
    }
}

/// K15: if jit made the assignment with this permission set and AWS does not find the set, the set
/// was deleted. AWS deletes only a set without assignments, so the assignment is gone.
pub(super) fn presence(
    seen: Result<Presence, IdentityCenterError>,
    holding: Option<&Holding>,
) -> Result<Presence, IdentityCenterError> {
    let was_there = holding.is_some_and(|known| known.permission_set_arn.is_some());
    match seen {
        Err(error) if error.kind == IdentityCenterErrorKind::NoSuchSet && was_there => {
            Ok(Presence::Absent)
        }
        seen => seen,
    }
}

impl From<IdentityCenterError> for Outcome {
    fn from(error: IdentityCenterError) -> Self {
        let why = Text::clip(&error.to_string());
        match error.kind {
            IdentityCenterErrorKind::NoUser => AssignmentOutcome::NoUser { why }.into(),
            // Without credentials, fast retries do not help either.
            IdentityCenterErrorKind::Denied | IdentityCenterErrorKind::Unsent => {
                WorkFailure::Denied { why }.into()
            }
            IdentityCenterErrorKind::Invalid => WorkFailure::Refused { why }.into(),
            IdentityCenterErrorKind::Conflict
            | IdentityCenterErrorKind::Throttled
            | IdentityCenterErrorKind::NoAnswer
            | IdentityCenterErrorKind::NoSuchSet => WorkFailure::Passing { why }.into(),
        }
    }
}

/// K7: an operation that AWS does not finish is reported as such, and looked at again later.
fn unfinished(what: &str, operation: &str) -> WorkFailure {
    WorkFailure::passing(&format!(
        "AWS has not finished the {what} operation {operation} in two minutes; \
         open a support case with AWS if this lasts"
    ))
}

fn still_present() -> Outcome {
    WorkFailure::passing("AWS still shows the assignment after the delete").into()
}
