//! One execution: a piece of work at AWS, from its first call to its outcome. Each form of
//! access has its own.

use super::Worker;
use super::assignment::{self, SentCalls};
use crate::clock::Clock;
use crate::domain::{AccessRecord, AssignmentWork, Calls, Outcome, Request, Work};
use crate::service::work_queue::LeaseDeadline;

/// A piece of work and the calls that were sent for it. The calls are known also if the execution
/// is stopped.
pub(super) enum Execution<'w> {
    Assignment(&'w AssignmentWork, SentCalls),
}

impl<'w> Execution<'w> {
    pub fn of(work: &'w Work) -> Self {
        match work {
            Work::Assignment(work) => Self::Assignment(work, SentCalls::default()),
        }
    }

    /// Carries the work out. `access` is what the store had at the claim.
    pub async fn carry_out(
        &self,
        worker: &Worker,
        request: &Request,
        access: &AccessRecord,
        deadline: &LeaseDeadline,
    ) -> Outcome {
        match self {
            Self::Assignment(work, sent) => {
                let holding = access.holding();
                assignment::execute(worker, work, request, holding, deadline, sent).await
            }
        }
    }

    /// The calls of an execution that has ended.
    pub fn calls(&self, deadline: &LeaseDeadline, clock: &dyn Clock) -> Calls {
        match self {
            Self::Assignment(_, sent) => Calls::Assignment(sent.calls(deadline, clock)),
        }
    }
}
