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
    Status,
};
use crate::service::ServiceError;
use crate::store::StoreError;
use crate::worker::{ProveError, Proven};

pub(super) async fn cleanup(context: &CliContext, asked: &Cleanup) -> Result<(), Failure> {
    let reason = operator::reason(&asked.reason)?;
    let config = context.config_without_secrets()?;
    let id = short_id::in_store(&config, &asked.id).await?;
    let identity_center = operator::identity_center(&config).await?;
    let by = match context.acting.person_if_said()? {
        Some(person) => person,
        // The audit needs an actor: jit takes the name from the credentials.
        None => operator::operator(context, &operator::credentials(&identity_center).await?)?,
    };
    let removal = UnrecordedRemoval {
        identity_center: identity_center.clone(),
        by,
        reason,
    };
    let unread = |why: &str| removal.print_rows(&[row(id, None, "no")], &unread(id, why));
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
                return removal.print_rows(&[row(id, Some(&request), "yes")], &unrecorded(&why));
            }
        },
    };
    record(context, &tools, &removal, &request, proof).await
}

/// Records the request as REVOKED, or prints the audit row if the store does not accept it.
async fn record(
    context: &CliContext,
    tools: &OperatorTools,
    removal: &UnrecordedRemoval,
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
    tell(&format!(
        "{id} is {}; {asked_aws}; jit records REVOKED by {}",
        request.status(),
        removal.by.email
    ));
    let said = done(&proof);
    let cleaned = Command::CleanedUp {
        by: removal.by.clone(),
        reason: removal.reason.clone(),
        proof,
    };
    match tools.app.service.handle(id, cleaned, None).await {
        Ok(handled) => print_request(context, &handled.request, said),
        Err(ServiceError::Store(why)) => {
            removal.print_rows(&[row(id, Some(request), verified)], &unrecorded(&why))
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

fn row(id: RequestId, request: Option<&Request>, verified: &str) -> Row {
    Row {
        kind: EventKind::CleanedUp,
        id: Some(id),
        key: request.and_then(Request::holding_key),
        user: request.map(|request| request.requester_email().to_string()),
        details: vec![("verified", verified.to_owned())],
    }
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
