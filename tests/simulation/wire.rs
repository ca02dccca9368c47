//! The connection of one process to AWS.

use async_trait::async_trait;
use jit::clock::Clock;
use jit::domain::{Email, HoldingKey, Millis, PermissionSet, Timestamp, UserId};
use jit::identity_center::{
    Assignee, AssignmentPlace, CALL_PATIENCE, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Operation, OperationKind, Page, Progress, Provisioning, UserAttribute,
};

use crate::aws::{Answer, Aws, Question, Slot};
use crate::clock::ProcessClock;
use crate::faults::Faults;
use crate::memory::MemoryStore;
use crate::tries::Tries;

pub struct Wire {
    /// The name of the process, for the log.
    pub name: String,
    pub aws: Aws,
    pub clock: ProcessClock,
    pub faults: Faults,
    pub store: MemoryStore,
    pub tries: Tries,
}

/// The fate of a call, decided when it is made.
struct Fate {
    /// `None`: the call never arrives.
    arrives_at: Option<Timestamp>,
    /// When the sender gets the answer.
    heard_at: Option<Timestamp>,
    /// The error that the sender gets instead of the answer.
    error: Option<&'static str>,
}

impl Wire {
    fn fate(&self, question: &Question) -> Fate {
        let (time, now) = (&self.clock.time, self.clock.time.now());
        let at_once = Fate {
            arrives_at: Some(now),
            heard_at: Some(now),
            error: None,
        };
        if self.faults.strikes(time) {
            return match time.chance(2) {
                true => Fate {
                    arrives_at: None,
                    error: Some("the call was lost on its way"),
                    ..at_once
                },
                false => Fate {
                    error: Some("the answer was lost on its way"),
                    ..at_once
                },
            };
        }
        if !self.faults.is_wire_slow() {
            return at_once;
        }
        let often = if question.changes() { 2 } else { 30 };
        if !time.chance(often) {
            return at_once;
        }
        let arrives_at = now + time.span(CALL_PATIENCE);
        let (heard_at, error) = match time.below(4) {
            // The connection breaks while the call is in flight.
            0 => (
                Some(now + time.span(Millis(2000))),
                Some("the connection was closed"),
            ),
            // No answer comes: the sender gives up by itself.
            1 => (None, None),
            _ => (Some(arrives_at + time.span(Millis(500))), None),
        };
        Fate {
            arrives_at: Some(arrives_at),
            heard_at,
            error,
        }
    }

    async fn send(&self, question: Question) -> Result<Answer, IdentityCenterError> {
        self.faults.may_panic(&self.clock.time);
        let (process, now) = (self.clock.process, self.clock.time.now());
        self.tries
            .asks(process, &question, &self.store, &self.aws, now);
        let fate = self.fate(&question);
        // From here on the call is in flight: there is no await in between.
        let slot = fate
            .arrives_at
            .map(|at| self.aws.send(self.name.clone(), question, at));
        let gives_up = self.clock.uptime() + CALL_PATIENCE;
        self.clock.time.yield_here().await;
        let heard = async {
            match fate.heard_at {
                Some(at) => self.clock.until_true(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = heard => {}
            () = self.clock.sleep_until(gives_up) => return Err(lost("timed out")),
        }
        if let Some(why) = fate.error {
            return Err(lost(why));
        }
        self.faults.may_panic(&self.clock.time);
        answer_in(slot)
    }
}

fn answer_in(slot: Option<Slot>) -> Result<Answer, IdentityCenterError> {
    let answer = slot.and_then(|slot| slot.lock().unwrap().take());
    answer.unwrap_or_else(|| Err(lost("no answer")))
}

fn lost(why: &str) -> IdentityCenterError {
    IdentityCenterError::new(IdentityCenterErrorKind::NoAnswer, why)
}

/// The variant of the answer that belongs to the question.
macro_rules! ask {
    ($self:ident, $question:expr, $answer:ident) => {
        match $self.send($question).await? {
            Answer::$answer(answer) => Ok(answer),
            other => panic!("{other:?} answers another question"),
        }
    };
}

#[async_trait]
impl IdentityCenter for Wire {
    async fn caller(&self) -> Result<String, IdentityCenterError> {
        Ok("the simulated Identity Center".into())
    }
    fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError> {
        Ok(set.to_string())
    }
    async fn find_user(
        &self,
        email: &Email,
        _: UserAttribute,
    ) -> Result<Option<UserId>, IdentityCenterError> {
        ask!(self, Question::FindUser(email.clone()), User).map(Some)
    }
    async fn assigned(
        &self,
        place: &AssignmentPlace,
        after: Option<&str>,
    ) -> Result<Page<Assignee>, IdentityCenterError> {
        let after = after.map(str::to_owned);
        ask!(self, Question::Assigned(place.clone(), after), Assigned)
    }
    async fn under_way(
        &self,
        kind: OperationKind,
        after: Option<&str>,
    ) -> Result<Page<String>, IdentityCenterError> {
        let after = after.map(str::to_owned);
        ask!(self, Question::UnderWay(kind, after), UnderWay)
    }
    async fn session_duration(&self, _: &PermissionSet) -> Result<Millis, IdentityCenterError> {
        ask!(self, Question::SessionDuration, Duration)
    }
    async fn inline_policy(
        &self,
        set: &PermissionSet,
    ) -> Result<Option<String>, IdentityCenterError> {
        ask!(self, Question::InlinePolicy(set.clone()), Policy)
    }
    async fn set_inline_policy(
        &self,
        set: &PermissionSet,
        policy: Option<&str>,
    ) -> Result<(), IdentityCenterError> {
        let policy = policy.map(str::to_owned);
        let set = Question::SetInlinePolicy(set.clone(), policy);
        self.send(set).await.map(drop)
    }
    async fn provision(
        &self,
        place: &AssignmentPlace,
    ) -> Result<Provisioning, IdentityCenterError> {
        ask!(self, Question::Provision(place.clone()), Provisioning)
    }
    async fn provisioned(&self, _: &Provisioning) -> Result<Progress, IdentityCenterError> {
        ask!(self, Question::Provisioned, Progress)
    }
    async fn create(&self, key: &HoldingKey) -> Result<Operation, IdentityCenterError> {
        ask!(self, Question::Create(key.clone()), Created)
    }
    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, IdentityCenterError> {
        ask!(self, Question::Delete(key.clone()), Deleted)
    }
    async fn poll(&self, operation: &Operation) -> Result<Progress, IdentityCenterError> {
        ask!(self, Question::Poll(operation.clone()), Progress)
    }
}
