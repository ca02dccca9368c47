//! Access was removed by hand, at AWS: the record follows, and the audit with it.

use serde_json::json;

use super::arguments::Cleanup;
use super::hands::{self, Hands};
use super::serve::failed;
use super::unwritten::{Keeper, Row};
use super::{Context, Failure};
use crate::domain::{
    Command, EventKind, Lane, Presence, Proof, Request, RequestId, RequestObject, Status,
};
use crate::serve::Purpose;
use crate::service::ServiceError;

pub(super) async fn cleanup(context: &Context, asked: &Cleanup) -> Result<(), Failure> {
    let (reason, id) = (hands::reason(&asked.reason)?, hands::id(&asked.id)?);
    let config = context.config_without_secrets()?;
    let access = hands::access(&config).await?;
    let by = match context.acting.person_if_said()? {
        Some(person) => person,
        // As the credentials say; somebody has to answer for it.
        None => hands::operator(context, &hands::credentials(&access).await?)?,
    };
    let keeper = Keeper {
        access: access.clone(),
        by: by.clone(),
        reason: reason.clone(),
    };
    let unread = |why: &str| keeper.keep(&[row(id, None, Proof::None)], &unread(id, why));
    let hands = match Hands::with_access(config, access, Purpose::Operate).await {
        Ok(hands) => hands,
        Err(why) => return unread(&why.to_string()),
    };
    let request = match hands.service.request(id).await {
        Err(ServiceError::Store(why)) => return unread(&why.to_string()),
        found => found.map_err(failed)?,
    };
    if request.state.is_settled() && request.status() == Status::Revoked {
        return tell(context, &request, "already REVOKED");
    }
    let proof = match asked.unverified {
        true => Proof::None,
        false => seen_gone(&hands, &request).await?,
    };
    eprintln!(
        "jit: {id} is {}; {}, it is recorded as REVOKED by {}",
        request.status(),
        match proof {
            Proof::SeenGone => "AWS shows that its assignment is gone",
            Proof::None => "without asking AWS",
        },
        by.email
    );
    let cleaned = Command::CleanedUp { by, reason, proof };
    match hands.service.handle(id, cleaned).await {
        Ok(handled) => tell(context, &handled.request, done(proof)),
        Err(ServiceError::Store(why)) => {
            let rows = [row(id, Some(&request), proof)];
            keeper.keep(&rows, &format!("nothing is written down: {why}"))
        }
        Err(error) => Err(Failure::Failed(format!("{id}: {error}"))),
    }
}

fn done(proof: Proof) -> &'static str {
    match proof {
        Proof::SeenGone => "REVOKED: AWS shows that it is gone",
        Proof::None => {
            "REVOKED, and not verified: the next worker asks AWS, and removes what it finds; \
             jit cleanup without --unverified asks now"
        }
    }
}

fn unread(id: RequestId, why: &str) -> String {
    format!(
        "{id} cannot be read, so AWS was not asked about it, and nothing is written down: {why}"
    )
}

fn row(id: RequestId, request: Option<&Request>, proof: Proof) -> Row {
    let verified = match proof {
        Proof::SeenGone => "yes",
        Proof::None => "no",
    };
    Row {
        kind: EventKind::CleanedUp,
        id: Some(id),
        key: request.and_then(Request::holding_key),
        user: request.map(|request| request.requester_email().to_string()),
        details: vec![("verified", verified.into())],
    }
}

async fn seen_gone(hands: &Hands, request: &Request) -> Result<Proof, Failure> {
    let Some(key) = request.holding_key() else {
        return Ok(Proof::SeenGone);
    };
    let seen = hands.access.look(Lane::Revoke, &key).await;
    match seen.map_err(failed)? {
        Presence::Absent => Ok(Proof::SeenGone),
        Presence::Present => Err(Failure::Failed(format!(
            "{}: AWS still shows the assignment, and nothing was changed; remove it with: \
             jit break-glass revoke {} --reason …",
            request.id, request.id
        ))),
    }
}

fn tell(context: &Context, request: &Request, done: &str) -> Result<(), Failure> {
    let object = RequestObject {
        message: Some(done),
        ..request.into()
    };
    let text = || format!("{} {done}", request.id);
    context.output.say(text, &json!(object))
}
