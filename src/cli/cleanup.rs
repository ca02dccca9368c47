//! Access was removed by hand, at AWS: the record follows, and the audit with it.

use serde_json::json;

use super::arguments::Cleanup;
use super::hands::Hands;
use super::serve::failed;
use super::{Context, Failure};
use crate::domain::{
    Command, Lane, Person, Presence, Proof, Request, RequestId, RequestObject, Status, Text,
};

pub(super) async fn cleanup(context: &Context, asked: &Cleanup) -> Result<(), Failure> {
    let reason: Text = asked
        .reason
        .parse()
        .map_err(|why| Failure::Usage(format!("--reason {why}")))?;
    let id: RequestId = asked
        .id
        .parse()
        .map_err(|why| Failure::Usage(format!("{:?} {why}", asked.id)))?;
    let hands = Hands::take(context).await?;
    let request = hands.service.request(id).await.map_err(failed)?;
    if request.state.is_settled() && request.status() == Status::Revoked {
        return tell(context, &request, "already REVOKED");
    }
    let by = who(context, &hands).await?;
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
    let handled = hands.service.handle(id, cleaned).await;
    let request = handled
        .map_err(|error| Failure::Failed(format!("{id}: {error}")))?
        .request;
    let done = match proof {
        Proof::SeenGone => "REVOKED: AWS shows that it is gone",
        Proof::None => {
            "REVOKED, and not verified: the next worker asks AWS, and removes what it finds; \
             jit cleanup without --unverified asks now"
        }
    };
    tell(context, &request, done)
}

/// As said, or as the credentials say; somebody has to answer for it.
async fn who(context: &Context, hands: &Hands) -> Result<Person, Failure> {
    match context.acting.person_if_said()? {
        Some(person) => Ok(person),
        None => hands.operator(context, &hands.credentials().await?),
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
