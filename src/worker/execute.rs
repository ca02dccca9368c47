//! One execution: a piece of work at AWS, from its first call to its outcome. Each form of
//! access has its own.

use super::Worker;
use super::assignment::{self, SentCalls};
use crate::domain::{Holding, Outcome, Request, Work};
use crate::service::work_queue::LeaseDeadline;

pub(super) async fn execute(
    worker: &Worker,
    work: &Work,
    request: &Request,
    holding: Option<&Holding>,
    deadline: &LeaseDeadline,
    sent: &SentCalls,
) -> Outcome {
    match work {
        Work::Assignment(work) => {
            assignment::execute(worker, work, request, holding, deadline, sent).await
        }
    }
}
