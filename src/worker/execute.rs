//! One execution: a piece of work at AWS, from its first call to its outcome.
//!
//! `Paced` retries a conflict or throttling for a few seconds. After that the execution
//! reports a failure, and the request, which survives a restart, is due again later.
//!
//! A call that was sent may take effect up to `CALL_PATIENCE` later, even if its worker is
//! dead. So a worker sends a call only if its lease certainly lasts longer than that, and
//! `SentCalls` records which call has no answer. A removal is "gone" only if the delete was
//! sent after every earlier unanswered create was waited out: AWS refuses a delete while it
//! carries out such a create, and a look does not show the create.

use std::sync::Mutex;

use super::Worker;
use super::watch::Watch;
use crate::clock::Clock;
use crate::domain::{
    AssignmentCall, Calls, Holding, HoldingKey, Lane, LeaseToken, Millis, Outcome, Presence,
    Request, RequestId, State, Text, Trouble, Work,
};
use crate::identity_center::{
    CALL_PATIENCE, Deletion, Gate, IdentityCenterError, IdentityCenterErrorKind, OperationResult,
    Paced, PendingCall, Progress,
};
use crate::service::work_queue::{LeaseDeadline, locked};
use crate::service::{Service, ServiceError};

/// How long a revoke waits for a create that AWS has accepted, before the worker sends the
/// delete.
const REVOKE_PATIENCE: Millis = Millis::seconds(5);

pub(super) async fn execute(
    worker: &Worker,
    work: &Work,
    request: &Request,
    held: Option<&Holding>,
    deadline: &LeaseDeadline,
    sent: &SentCalls,
) -> Outcome {
    let execution = Execution {
        service: &worker.service,
        access: &worker.access,
        watch: &worker.watch,
        held,
        deadline,
        sent,
        id: request.id,
        lane: request.lane(),
    };
    let done = execution.carry_out(work, request).await;
    done.unwrap_or_else(|trouble| trouble)
}

/// The calls of one execution; the record is complete also when the execution is stopped.
#[derive(Debug, Default)]
pub(super) struct SentCalls(Mutex<Calls>);

impl SentCalls {
    /// The calls of an execution that has ended.
    pub fn calls(&self, deadline: &LeaseDeadline, clock: &dyn Clock) -> Calls {
        Calls {
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

pub(super) struct Execution<'a> {
    pub service: &'a Service,
    pub access: &'a Paced,
    pub watch: &'a Watch,
    /// The holding at the time of the claim.
    held: Option<&'a Holding>,
    deadline: &'a LeaseDeadline,
    sent: &'a SentCalls,
    pub id: RequestId,
    pub lane: Lane,
}

/// The error side is a failure that is already an outcome.
pub(super) type Done<T = Outcome> = Result<T, Outcome>;

/// Sends a create or a delete, and records it as unanswered until AWS answers.
struct Sending<'h> {
    execution: &'h Execution<'h>,
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

impl Execution<'_> {
    async fn carry_out(&self, work: &Work, request: &Request) -> Done {
        match work {
            Work::Prepare => {}
            Work::Create(key)
            | Work::Remove(key)
            | Work::Look(key)
            | Work::EndSessions(key, _)
            | Work::LiftDeny(key) => self.check_meaning(key)?,
        }
        match work {
            Work::Prepare => self.prepare(request).await,
            Work::Create(key) => self.create(key).await,
            Work::Remove(key) => self.remove(key).await,
            Work::Look(key) => self.look(key).await,
            Work::EndSessions(key, before) => self.end_sessions(key, *before).await,
            Work::LiftDeny(key) => self.lift_deny(key).await,
        }
    }

    /// P6: a look under another ARN of the same permission set name proves nothing about this
    /// assignment.
    fn check_meaning(&self, key: &HoldingKey) -> Done<()> {
        let (now, set) = (
            self.access.permission_set_arn(&key.permission_set)?,
            &key.permission_set,
        );
        match self.held.and_then(|held| held.permission_set_arn.as_ref()) {
            Some(then) if *then != now => {
                let why = Text::clip(&format!(
                    "{set} stood for {then} when jit made this assignment, and stands for {now} now: \
                     restore permission_sets.{set} in jit.toml until the access has ended"
                ));
                Err(Outcome::Failed(Trouble::Denied { why }))
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn prepare(&self, request: &Request) -> Done {
        let email = request.requester_email();
        let user = self.access.find_user(self.lane, email).await?;
        let key = request.holding_key_of(user.clone());
        // Read before the look: if a holder joins or leaves meanwhile, the revision changes and
        // the look is repeated.
        let held = self.service.holding(key.clone()).await;
        let held = held.map_err(|error| unreadable(&error.into()))?;
        // P4: an earlier delete may still take effect, so the create is sent only after that.
        self.wait_out(held.unanswered()).await;
        self.sent.waited_out(held.unanswered());
        let presence = self.access.look(self.lane, &key).await?;
        let permission_set_arn = self.access.permission_set_arn(&key.permission_set)?;
        Ok(Outcome::Prepared {
            user,
            presence,
            revision: held.revision,
            permission_set_arn,
        })
    }

    /// A create may wait long for its turn, and a revoke does not wait for it: a create that was
    /// not sent is dropped; if AWS accepted it but does not finish it, the next work is the
    /// removal.
    async fn create(&self, key: &HoldingKey) -> Done {
        let stage = Mutex::new(Stage::NotSent);
        let created = self.carried_through(key, &stage);
        let done = tokio::select! {
            biased;
            done = created => done,
            () = self.hurried_past(&stage) => Ok(Outcome::Interrupted),
        };
        match done {
            Err(_) if *locked(&stage) == Stage::NotSent => Ok(Outcome::Interrupted),
            done => done,
        }
    }

    async fn carried_through(&self, key: &HoldingKey, stage: &Mutex<Stage>) -> Done {
        let room = self.access.room_to_create(self.lane, &key.account_id).await;
        let sending = Sending {
            execution: self,
            call: AssignmentCall::Create,
            stage,
        };
        let operation = self.access.create(self.lane, key, &sending).await?;
        match self.access.wait_for(self.lane, &operation, room).await? {
            OperationResult::Badly { why } => Ok(refused(&why)),
            OperationResult::Well | OperationResult::Somehow => Ok(Outcome::Created),
            OperationResult::NotYet => Ok(unfinished("create", &operation.id)),
        }
    }

    /// The assignment is gone only when a look shows that. If a revoke comes while this removal
    /// waits for its turn, the removal starts again in the lane of revokes.
    async fn remove(&self, key: &HoldingKey) -> Done {
        let stage = Mutex::new(Stage::NotSent);
        let done = tokio::select! {
            biased;
            done = self.removed_for_good(key, &stage) => done,
            () = self.hurried(&stage) => Ok(Outcome::Interrupted),
        };
        match done {
            // The delete was not sent, because the lease might not last: the removal starts again
            // under another lease.
            Err(_) if *locked(&stage) == Stage::NotSent => Ok(Outcome::Interrupted),
            done => done,
        }
    }

    /// If an earlier create may still take effect, the assignment is removed once more after
    /// that.
    async fn removed_for_good(&self, key: &HoldingKey, stage: &Mutex<Stage>) -> Done {
        loop {
            let outcome = self.removed(key, stage).await?;
            let create = self.held.and_then(|held| held.unanswered_create);
            let in_doubt = create.filter(|call| !self.sent.has_waited_out(*call));
            if outcome != Outcome::Gone || in_doubt.is_none() {
                return Ok(outcome);
            }
            self.wait_out(in_doubt.into_iter()).await;
        }
    }

    /// Returns if the request is revoked before the call is sent.
    async fn hurried(&self, stage: &Mutex<Stage>) {
        self.revoked().await;
        if *locked(stage) == Stage::Sent {
            std::future::pending::<()>().await;
        }
    }

    /// Returns if the request is revoked: at once if the call was not sent, or else after
    /// `REVOKE_PATIENCE`.
    async fn hurried_past(&self, stage: &Mutex<Stage>) {
        self.revoked().await;
        if *locked(stage) == Stage::Sent {
            self.service.clock().sleep(REVOKE_PATIENCE).await;
        }
    }

    /// Returns if the request is revoked and this work is not part of a revoke.
    async fn revoked(&self) {
        match self.lane {
            Lane::Revoke => std::future::pending().await,
            Lane::Remove | Lane::Other => self.service.until_revoked(self.id).await,
        }
    }

    async fn removed(&self, key: &HoldingKey, stage: &Mutex<Stage>) -> Done {
        let room = self.access.room_to_remove(self.lane, &key.account_id).await;
        let sending = Sending {
            execution: self,
            call: AssignmentCall::Delete,
            stage,
        };
        let deletion = self.access.delete(self.lane, key, &sending).await?;
        let Deletion::Started(operation) = deletion else {
            drop(room);
            let seen = self.look(key).await?;
            return Ok(match seen == Outcome::StillThere {
                true => still_present(),
                false => seen,
            });
        };
        let mut ended = self.access.wait_for(self.lane, &operation, room).await?;
        loop {
            match ended {
                OperationResult::Badly { why } => return Ok(refused(&why)),
                OperationResult::NotYet => return Ok(unfinished("delete", &operation.id)),
                OperationResult::Well | OperationResult::Somehow => {}
            }
            if self.look(key).await? == Outcome::Gone {
                return Ok(Outcome::Gone);
            }
            ended = match self.access.poll(self.lane, &operation).await? {
                Progress::Failed { why } => OperationResult::Badly { why },
                Progress::Succeeded => return Ok(still_present()),
                // AWS did not list the operation, but it is still running.
                Progress::InProgress => {
                    let room = self.access.no_room();
                    self.access.wait_for(self.lane, &operation, room).await?
                }
            };
        }
    }

    /// Looks whether the assignment exists. After a revoke the look moves to the lane of revokes.
    async fn look(&self, key: &HoldingKey) -> Done {
        let nothing_sent = Mutex::new(Stage::NotSent);
        let seen = tokio::select! {
            biased;
            seen = self.access.look(self.lane, key) => seen,
            () = self.hurried(&nothing_sent) => self.access.look(Lane::Revoke, key).await,
        };
        Ok(match presence(seen, self.held)? {
            Presence::Absent => Outcome::Gone,
            Presence::Present => Outcome::StillThere,
        })
    }

    /// Records which calls that were unanswered at the claim this process has known for
    /// `CALL_PATIENCE`.
    fn note_waited_out(&self) {
        let now = self.service.clock().uptime();
        let known = self.held.into_iter().flat_map(Holding::unanswered);
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
        let why = "call not sent: the lease may not last long enough";
        Err(IdentityCenterError::new(
            IdentityCenterErrorKind::NoAnswer,
            why,
        ))
    }

    /// Another process may have revoked the request.
    async fn still_wanted(&self) -> Result<(), IdentityCenterError> {
        let why = match self.service.request(self.id).await {
            Ok(request) if request.state == State::Assigning => return Ok(()),
            Ok(_) => "call not sent: the request does not want the access any more".into(),
            Err(error) => format!("call not sent: {error}"),
        };
        Err(IdentityCenterError::new(
            IdentityCenterErrorKind::NoAnswer,
            why,
        ))
    }
}

/// K15: if jit made the assignment with this permission set and AWS does not find the set, the set
/// was deleted. AWS deletes only a set without assignments, so the assignment is gone.
pub(super) fn presence(
    seen: Result<Presence, IdentityCenterError>,
    held: Option<&Holding>,
) -> Result<Presence, IdentityCenterError> {
    let was_there = held.is_some_and(|held| held.permission_set_arn.is_some());
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
            IdentityCenterErrorKind::NoUser => Self::NoUser { why },
            IdentityCenterErrorKind::Denied => Self::Failed(Trouble::Denied { why }),
            IdentityCenterErrorKind::Invalid => Self::Failed(Trouble::Refused { why }),
            IdentityCenterErrorKind::Conflict
            | IdentityCenterErrorKind::Throttled
            | IdentityCenterErrorKind::NoAnswer
            | IdentityCenterErrorKind::NoSuchSet => Self::Failed(Trouble::Passing { why }),
        }
    }
}

pub(super) fn refused(why: &str) -> Outcome {
    let why = Text::clip(why);
    Outcome::Failed(Trouble::Refused { why })
}

pub(super) fn passing(why: &str) -> Outcome {
    let why = Text::clip(why);
    Outcome::Failed(Trouble::Passing { why })
}

/// K7: an operation that AWS does not finish is reported as such, and looked at again later.
pub(super) fn unfinished(what: &str, operation: &str) -> Outcome {
    passing(&format!(
        "AWS has not finished the {what} operation {operation} in two minutes; \
         open a support case with AWS if this lasts"
    ))
}

fn still_present() -> Outcome {
    passing("AWS still shows the assignment after the delete")
}

/// The store failed before a call was sent.
fn unreadable(error: &ServiceError) -> Outcome {
    passing(&error.to_string())
}
