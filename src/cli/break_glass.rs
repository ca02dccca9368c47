//! Access is taken away with no server: straight to AWS with the operator's own
//! credentials, and recorded as it would be otherwise. Beside a server that runs, leases
//! see to it that the two do not get into each other's way.

use std::io::{BufRead, IsTerminal};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arguments::BreakGlass;
use super::hands::Hands;
use super::requests::page;
use super::serve::failed;
use super::{Context, Failure};
use crate::domain::{
    Command, Lane, Person, Request, RequestId, RequestObject, State, Status, Text,
};
use crate::service::ServiceError;
use crate::store::Filter;
use crate::worker::Worker;

pub(super) async fn revoke(context: &Context, asked: &BreakGlass) -> Result<(), Failure> {
    let reason: Text = asked
        .reason
        .parse()
        .map_err(|why| Failure::Usage(format!("--reason {why}")))?;
    let hands = Hands::take(context).await?;
    let credentials = hands.credentials().await?;
    let by = hands.operator(context, &credentials)?;
    let meant = meant(&hands, asked).await?;
    if meant.is_empty() {
        let nothing = || "nothing is live there".into();
        return context.output.say(nothing, &json!([]));
    }
    eprintln!(
        "jit: with the credentials of {credentials}, recorded as {}:",
        by.email
    );
    eprintln!("{}", listed(&meant));
    if asked.id.is_none() && !asked.yes {
        confirm(meant.len())?;
    }
    let glass = Glass {
        hands: &hands,
        by,
        reason,
        credentials,
    };
    let tasks = TaskTracker::new();
    let mut ends = Vec::new();
    for request in &meant {
        let id = request.id;
        let said = glass.say(request).await;
        // The next is said while AWS is at work on this one.
        ends.push((
            id,
            said.map(|()| tasks.spawn(until_gone(hands.worker.clone(), id))),
        ));
    }
    let mut over = Vec::new();
    for (id, end) in ends {
        let end = match end {
            Ok(end) => end.await.map_err(failed).flatten(),
            Err(failure) => Err(failure),
        };
        over.push((id, end));
    }
    tell(context, &over)
}

/// One by its id, or everything that is live for somebody or somewhere.
async fn meant(hands: &Hands, asked: &BreakGlass) -> Result<Vec<Request>, Failure> {
    if let Some(id) = &asked.id {
        let id: RequestId = id
            .parse()
            .map_err(|why| Failure::Usage(format!("{id:?} {why}")))?;
        let request = hands.service.request(id).await.map_err(failed)?;
        return Ok(vec![request]);
    }
    let filter = |status| Filter {
        requester_email: asked.user.clone(),
        account_id: asked.account.clone(),
        status: Some(status),
        ..Filter::default()
    };
    let mut live = Vec::new();
    for status in [Status::Granted, Status::Approved, Status::Error] {
        live.extend(hands.every(&filter(status)).await.map_err(failed)?);
    }
    // Approved and not yet begun is to come; an error that is over is over.
    live.retain(|request| !request.state.is_settled());
    Ok(live)
}

struct Glass<'a> {
    hands: &'a Hands,
    by: Person,
    reason: Text,
    credentials: Text,
}

impl Glass<'_> {
    /// Intent before action: what is to be done is written before AWS hears of it.
    async fn say(&self, request: &Request) -> Result<(), Failure> {
        let id = request.id;
        let broken = Command::BrokenGlass {
            by: self.by.clone(),
            reason: Some(self.reason.clone()),
            credentials: self.credentials.clone(),
        };
        let said = if request.state.is_settled() && !is_in_doubt(request) {
            self.say_if_it_stands(request).await?
        } else {
            self.hands.service.handle(id, broken).await.map(drop)
        };
        match said {
            // Somebody else was first, and it has come to its end.
            Err(ServiceError::Refused(_)) if self.is_over(id).await? => Ok(()),
            said => said.map_err(|error| Failure::Failed(format!("{id}: {error}"))),
        }
    }

    async fn is_over(&self, id: RequestId) -> Result<bool, Failure> {
        let now = self.hands.service.request(id).await.map_err(failed)?;
        Ok(now.state.is_settled())
    }

    /// It is over; if AWS shows otherwise, that is put right.
    async fn say_if_it_stands(
        &self,
        request: &Request,
    ) -> Result<Result<(), ServiceError>, Failure> {
        let Some(key) = request.holding_key() else {
            return Ok(Ok(()));
        };
        if !self.hands.stands_unheld(Lane::Revoke, &key).await? {
            return Ok(Ok(()));
        }
        let by = Some(self.by.clone());
        let found = Command::FoundStanding { by };
        Ok(self.hands.service.handle(request.id, found).await.map(drop))
    }
}

async fn until_gone(worker: Worker, id: RequestId) -> Result<Request, Failure> {
    let mut heard = 0;
    let told = |request: &Request| {
        if let Some(trouble) = &request.trouble
            && trouble.attempts != heard
        {
            heard = trouble.attempts;
            eprintln!(
                "jit: {id}: {}; trying again, Ctrl-C stops looking",
                trouble.why
            );
        }
    };
    let never = CancellationToken::new();
    worker.see_through(id, &never, told).await.map_err(failed)
}

/// An end in ERROR may have left something behind: AWS is asked.
fn is_in_doubt(request: &Request) -> bool {
    matches!(request.state, State::Error(_)) && request.user.is_some()
}

fn confirm(count: usize) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let why = "nobody is there to say yes: look at the list, then add --yes";
        return Err(Failure::Usage(why.into()));
    }
    eprint!("take away {count}? [y/N] ");
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(failed)?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was touched".into())),
    }
}

fn listed(requests: &[Request]) -> String {
    let items: Vec<RequestObject> = requests.iter().map(RequestObject::from).collect();
    page(&json!({"items": items}))
}

/// What came of each; done is only what AWS shows to be gone.
fn tell(context: &Context, over: &[(RequestId, Result<Request, Failure>)]) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut values = Vec::new();
    let mut left = 0;
    for (id, end) in over {
        match end {
            Ok(request) => {
                let object = RequestObject::from(request);
                let how = match (request.status(), object.error_details) {
                    (Status::Error, Some(why)) => why.as_str(),
                    _ => "AWS shows that it is gone",
                };
                lines.push(format!("{id} {}: {how}", request.status()));
                left += usize::from(request.status() == Status::Error);
                values.push(json!(object));
            }
            Err(failure) => {
                lines.push(format!("{failure}"));
                values.push(json!({"request_id": id, "message": failure.to_string()}));
                left += 1;
            }
        }
    }
    let all = Value::Array(values);
    context.output.say(|| lines.join("\n"), &all)?;
    match left {
        0 => Ok(()),
        left => Err(Failure::Failed(format!(
            "{left} of {} not taken away",
            over.len()
        ))),
    }
}
