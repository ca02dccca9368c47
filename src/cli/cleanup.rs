//! `jit cleanup`: corrects the record and the audit after an assignment was removed by hand.

use serde_json::json;

use super::arguments::Cleanup;
use super::operator::{self, OperatorTools};
use super::output::tell;
use super::serve::failed;
use super::unwritten::{Row, UnrecordedRemoval};
use super::{CliContext, Failure, short_id};
use crate::app::Purpose;
use crate::domain::{
    AssignmentProof, Command, EventKind, Lane, Presence, Proof, Request, RequestId, RequestObject,
    Status, Text,
};
use crate::identity_center::Paced;
use crate::service::ServiceError;
use crate::store::StoreError;
use crate::worker::{ProveError, Proven};

pub(super) async fn cleanup(context: &CliContext, asked: &Cleanup) -> Result<(), Failure> {
    let reason = operator::reason(&asked.reason)?;
    let config = context.config_without_secrets()?;
    let id = short_id::in_store(&config, &asked.id).await?;
    let identity_center = operator::identity_center(&config).await?;
    let credentials = credentials(context, &identity_center).await?;
    let operator = Operator {
        removal: UnrecordedRemoval {
            identity_center: identity_center.clone(),
            // The audit needs an actor: without --as, jit takes the name from the credentials.
            by: operator::operator(context, &credentials)?,
            reason,
        },
        credentials,
    };
    let unread = |why: &str| operator.print_row(id, None, "no", &unread(id, why));
    let tools = match OperatorTools::with_identity_center(config, identity_center, Purpose::Operate)
        .await
    {
        Ok(tools) => tools,
        Err(why) => return unread(&why.to_string()),
    };
    let request = match tools.app.service.request(id).await {
        Err(ServiceError::Store(why)) => return unread(&why.to_string()),
        found => found.map_err(failed)?,
    };
    if request.state.is_settled() && request.status() == Status::Revoked {
        return print_request(context, &request, "already REVOKED");
    }
    let proof = match asked.unverified || request.state.is_settled() {
        true => Proof::None,
        false => match seen_gone(&tools, &request).await? {
            CleanupCheck::Proven(Proven::Gone(proof)) => proof,
            CleanupCheck::Proven(Proven::Over(request)) if request.status() == Status::Revoked => {
                return print_request(context, &request, "already REVOKED");
            }
            CleanupCheck::Proven(Proven::Over(_) | Proven::StillThere) => Proof::None,
            CleanupCheck::Unwritten(why) => {
                return operator.print_row(id, Some(&request), "yes", &unrecorded(&why));
            }
        },
    };
    record(context, &tools, &operator, &request, proof).await
}

/// B4: the audit records them beside the name, because anyone can write a name after `--as`. The
/// cleanup needs nothing of STS, so with `--as` its failure is only recorded.
async fn credentials(context: &CliContext, identity_center: &Paced) -> Result<Text, Failure> {
    match operator::credentials(identity_center).await {
        Err(why) if context.acting.person_if_said()?.is_some() => {
            Ok(Text::clip(&format!("unknown: {why}")))
        }
        known => known,
    }
}

/// The operator, their reason and their AWS credentials.
struct Operator {
    removal: UnrecordedRemoval,
    credentials: Text,
}

impl Operator {
    /// Prints the audit row that the store did not accept.
    fn print_row(
        &self,
        id: RequestId,
        request: Option<&Request>,
        verified: &str,
        why: &str,
    ) -> Result<(), Failure> {
        let row = Row {
            kind: EventKind::CleanedUp,
            id: Some(id),
            key: request.and_then(Request::holding_key),
            user: request.map(|request| request.requester_email().to_string()),
            details: vec![
                ("verified", verified.to_owned()),
                ("credentials", self.credentials.to_string()),
            ],
        };
        self.removal.print_rows(&[row], why)
    }
}

/// Records the request as REVOKED, or prints the audit row if the store does not accept it.
async fn record(
    context: &CliContext,
    tools: &OperatorTools,
    operator: &Operator,
    request: &Request,
    proof: Proof,
) -> Result<(), Failure> {
    let id = request.id;
    let (lease, asked_aws, verified) = match &proof {
        Proof::Assignment(AssignmentProof { lease, .. }) => {
            let told = "AWS shows that its assignment is gone";
            (Some(*lease), told, "yes")
        }
        Proof::None => (None, "jit did not ask AWS", "no"),
    };
    let (said, by) = (done(&proof), &operator.removal.by);
    let cleaned = Command::CleanedUp {
        by: by.clone(),
        reason: operator.removal.reason.clone(),
        credentials: operator.credentials.clone(),
        proof,
    };
    match tools.app.service.handle(id, cleaned, None).await {
        Ok(handled) => {
            tell(&format!(
                "{id} was {}; {asked_aws}; jit recorded REVOKED by {}",
                request.status(),
                by.email
            ));
            print_request(context, &handled.request, said)
        }
        Err(ServiceError::Store(why)) => {
            operator.print_row(id, Some(request), verified, &unrecorded(&why))
        }
        Err(error) => {
            if let Some(lease) = lease {
                tools.app.worker.let_go(id, lease).await;
            }
            Err(Failure::Failed(format!("{id}: {error}")))
        }
    }
}

fn done(proof: &Proof) -> &'static str {
    match proof {
        Proof::Assignment(_) => "REVOKED: AWS shows that the access is gone",
        Proof::None => {
            "REVOKED, and not verified: the next worker asks AWS, and removes an assignment that \
             it finds; to ask AWS now, run jit cleanup without --unverified"
        }
    }
}

fn unread(id: RequestId, why: &str) -> String {
    format!(
        "the store cannot read {id}, so jit did not ask AWS and did not record the cleanup: {why}"
    )
}

fn unrecorded(why: &StoreError) -> String {
    format!("the store did not record the cleanup: {why}")
}

/// The answer of AWS.
enum CleanupCheck {
    Proven(Proven),
    /// AWS shows no assignment, and the store gives no lease.
    Unwritten(StoreError),
}

async fn seen_gone(tools: &OperatorTools, request: &Request) -> Result<CleanupCheck, Failure> {
    let id = request.id;
    let mut told = false;
    let waits = || {
        if !std::mem::replace(&mut told, true) {
            tell(&format!(
                "{id}: a worker works on this request; jit waits until the worker is done or \
                 its lease has ended"
            ));
        }
    };
    let still_there = || {
        Err(Failure::Failed(format!(
            "{id}: AWS still shows the assignment; nothing was changed. Remove the access first: \
             jit break-glass revoke {id} --reason TEXT"
        )))
    };
    match tools.app.worker.prove_gone(id, waits).await {
        Ok(Proven::StillThere) => still_there(),
        Err(ProveError::Service(ServiceError::Store(why))) => {
            let seen = match request.holding_key() {
                Some(key) => tools.app.identity_center.look(Lane::Revoke, &key).await,
                None => Ok(Presence::Absent),
            };
            match seen.map_err(failed)? {
                Presence::Absent => Ok(CleanupCheck::Unwritten(why)),
                Presence::Present => still_there(),
            }
        }
        proven => proven.map(CleanupCheck::Proven).map_err(failed),
    }
}

fn print_request(context: &CliContext, request: &Request, done: &str) -> Result<(), Failure> {
    let object = RequestObject {
        message: Some(done),
        ..request.into()
    };
    let text = || format!("{} {done}", request.id);
    context.output.print(text, &json!(object))
}
