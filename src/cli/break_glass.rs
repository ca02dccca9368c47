//! Access is taken away with no server: straight to AWS with the operator's own
//! credentials, and recorded as it would be otherwise. Beside a server that runs, leases
//! see to it that the two do not get into each other's way.

use std::io::{BufRead, IsTerminal};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arguments::BreakGlass;
use super::operator::{self, OperatorTools};
use super::requests::page;
use super::serve::failed;
use super::unwritten::{Keeper, Row};
use super::{CliContext, Failure};
use crate::domain::{
    Command, EventKind, HoldingKey, Lane, PermissionSet, Request, RequestId, RequestObject, State,
    Status, Text,
};
use crate::serve::Purpose;
use crate::service::ServiceError;
use crate::store::{Filter, StoreError};
use crate::worker::Worker;

pub(super) async fn revoke(context: &CliContext, asked: &BreakGlass) -> Result<(), Failure> {
    let reason = operator::reason(&asked.reason)?;
    let config = context.config_without_secrets()?;
    let sets: Vec<PermissionSet> = config.policy.permission_sets.keys().cloned().collect();
    let access = operator::access(&config).await?;
    let credentials = operator::credentials(&access).await?;
    let operator = Operator {
        keeper: Keeper {
            by: operator::operator(context, &credentials)?,
            access: access.clone(),
            reason,
        },
        credentials: credentials.to_string(),
    };
    let tools = match OperatorTools::with_access(config, access, Purpose::Operate).await {
        Ok(tools) => tools,
        Err(why) => return operator.go_by_aws(asked, sets, &why.to_string()).await,
    };
    let meant = match meant(&tools, asked).await? {
        Ok(meant) => meant,
        Err(why) => return operator.go_by_aws(asked, sets, &why.to_string()).await,
    };
    if meant.is_empty() {
        let nothing = || "nothing is live there".into();
        return context.output.say(nothing, &json!([]));
    }
    operator.announce(&listed(&meant));
    if asked.id.is_none() && !asked.yes {
        confirm(meant.len())?;
    }
    let glass = Glass {
        tools: &tools,
        operator: Arc::new(operator),
    };
    let ends = glass.take_away(&meant).await;
    glass.tell(context, ends)
}

/// How one of them ended.
enum RemovalEnd {
    Over(Box<Request>),
    /// It is gone, and the store could not be told.
    Unwritten(Row),
}

/// Why nothing was written before AWS was to be asked.
enum Unsaid {
    Unwritten(StoreError),
    Failed(Failure),
}

impl From<ServiceError> for Unsaid {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Store(why) => Self::Unwritten(why),
            error => Self::Failed(failed(error)),
        }
    }
}

/// Who breaks it, with what.
struct Operator {
    keeper: Keeper,
    credentials: String,
}

impl Operator {
    fn announce(&self, what: &str) {
        let (credentials, by) = (&self.credentials, &self.keeper.by.email);
        eprintln!("jit: with the credentials of {credentials}, recorded as {by}:\n{what}");
    }

    /// Nobody can say what was given: what AWS shows of somebody, somewhere, is taken away.
    async fn go_by_aws(
        &self,
        asked: &BreakGlass,
        sets: Vec<PermissionSet>,
        why: &str,
    ) -> Result<(), Failure> {
        let (Some(user), Some(account)) = (&asked.user, &asked.account) else {
            return Err(Failure::Failed(format!(
                "{why}. What a request stands for is written only there: say it yourself, with \
                 --user EMAIL and --account ID (and --permission-set NAME), and AWS is asked alone"
            )));
        };
        eprintln!("jit: {why}; going by what AWS shows");
        let wanted = asked.permission_set.as_ref();
        let sets = sets
            .into_iter()
            .filter(|set| wanted.is_none_or(|wanted| wanted == set));
        let standing = self.keeper.standing(user, account, sets).await?;
        if standing.is_empty() {
            eprintln!("jit: AWS shows nothing of {user} in {account}, and nothing was done");
            return Ok(());
        }
        let list = standing
            .iter()
            .map(|key| format!("{} in {account}", key.permission_set));
        self.announce(&list.collect::<Vec<_>>().join("\n"));
        if !asked.yes {
            confirm(standing.len())?;
        }
        let mut rows = Vec::new();
        for key in standing {
            self.keeper.take_away(&key).await?;
            let user = Some(user.to_string());
            rows.push(self.row(None, Some(key), user));
        }
        self.keeper.keep(
            &rows,
            &format!("AWS shows that it is gone, and it is not written down: {why}"),
        )
    }

    /// The store does not take it: what its record says is taken away all the same. P4: if
    /// jit never made anything, what stands there is somebody else's.
    async fn without_writing(
        &self,
        request: &Request,
        why: &StoreError,
    ) -> Result<RemovalEnd, Failure> {
        let (id, email) = (request.id, request.requester_email());
        eprintln!("jit: {id}: {why}; going on without writing it down");
        let key = request.holding_key();
        if let Some(key) = &key {
            self.keeper.take_away(key).await?;
        }
        Ok(RemovalEnd::Unwritten(self.row(
            Some(id),
            key,
            Some(email.to_string()),
        )))
    }

    fn row(&self, id: Option<RequestId>, key: Option<HoldingKey>, user: Option<String>) -> Row {
        Row {
            kind: EventKind::Revoked,
            id,
            key,
            user,
            details: vec![("break_glass", self.credentials.clone())],
        }
    }
}

/// One by its id, or everything that is live for somebody or somewhere.
async fn meant(
    tools: &OperatorTools,
    asked: &BreakGlass,
) -> Result<Result<Vec<Request>, StoreError>, Failure> {
    if let Some(id) = &asked.id {
        let found = tools.service.request(operator::id(id)?).await;
        return match found {
            Err(ServiceError::Store(why)) => Ok(Err(why)),
            found => Ok(Ok(vec![found.map_err(failed)?])),
        };
    }
    let filter = |status| Filter {
        requester_email: asked.user.clone(),
        account_id: asked.account.clone(),
        status: Some(status),
        ..Filter::default()
    };
    let mut live = Vec::new();
    for status in [Status::Granted, Status::Approved, Status::Error] {
        match tools.every(&filter(status)).await {
            Ok(found) => live.extend(found),
            Err(why) => return Ok(Err(why)),
        }
    }
    let set = asked.permission_set.as_ref();
    // Approved and not yet begun is to come; an error that is over is over.
    live.retain(|request| {
        !request.state.is_settled() && set.is_none_or(|set| request.permission_set == *set)
    });
    Ok(Ok(live))
}

struct Glass<'a> {
    tools: &'a OperatorTools,
    operator: Arc<Operator>,
}

type RemovalEnds = Vec<(RequestId, Result<RemovalEnd, Failure>)>;

impl Glass<'_> {
    async fn take_away(&self, meant: &[Request]) -> RemovalEnds {
        let tasks = TaskTracker::new();
        let mut begun = Vec::new();
        for request in meant {
            let said = self.say(request).await;
            let (operator, worker) = (self.operator.clone(), self.tools.worker.clone());
            let (id, request) = (request.id, request.clone());
            // The next is said while AWS is at work on this one.
            let end = async move {
                let gone = match said {
                    Ok(()) => until_gone(worker, request.id).await.map_err(Unsaid::from),
                    Err(unsaid) => Err(unsaid),
                };
                match gone {
                    Ok(gone) => Ok(RemovalEnd::Over(Box::new(gone))),
                    Err(Unsaid::Unwritten(why)) => operator.without_writing(&request, &why).await,
                    Err(Unsaid::Failed(failure)) => Err(failure),
                }
            };
            begun.push((id, tasks.spawn(end)));
        }
        let mut ends = Vec::new();
        for (id, end) in begun {
            ends.push((id, end.await.map_err(failed).flatten()));
        }
        ends
    }

    /// Intent before action: what is to be done is written before AWS hears of it.
    async fn say(&self, request: &Request) -> Result<(), Unsaid> {
        if request.state.is_settled() && !is_in_doubt(request) {
            return self.say_if_it_stands(request).await;
        }
        let keeper = &self.operator.keeper;
        let broken = Command::BrokenGlass {
            by: keeper.by.clone(),
            reason: Some(keeper.reason.clone()),
            credentials: Text::clip(&self.operator.credentials),
        };
        self.say_once(request.id, broken).await
    }

    /// It is over; if AWS shows otherwise, that is put right.
    async fn say_if_it_stands(&self, request: &Request) -> Result<(), Unsaid> {
        let Some(key) = request.holding_key() else {
            return Ok(());
        };
        let stands = self.tools.stands_unheld(Lane::Revoke, &key).await;
        if !stands.map_err(Unsaid::Failed)? {
            return Ok(());
        }
        let by = Some(self.operator.keeper.by.clone());
        self.say_once(request.id, Command::FoundStanding { by })
            .await
    }

    async fn say_once(&self, id: RequestId, command: Command) -> Result<(), Unsaid> {
        let service = &self.tools.service;
        match service.handle(id, command).await {
            // Somebody else was first, and it has come to its end.
            Err(ServiceError::Refused(_)) if service.request(id).await?.state.is_settled() => {
                Ok(())
            }
            said => Ok(said.map(drop)?),
        }
    }

    /// What came of each; done is only what AWS shows to be gone.
    fn tell(&self, context: &CliContext, ends: RemovalEnds) -> Result<(), Failure> {
        let (mut lines, mut values, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let (mut left, all) = (0, ends.len());
        for (id, end) in ends {
            match end {
                Ok(RemovalEnd::Over(request)) => {
                    let object = RequestObject::from(&*request);
                    let how = match (request.status(), object.error_details) {
                        (Status::Error, Some(why)) => why.as_str(),
                        _ => "AWS shows that it is gone",
                    };
                    lines.push(format!("{id} {}: {how}", request.status()));
                    left += usize::from(request.status() == Status::Error);
                    values.push(json!(object));
                }
                Ok(RemovalEnd::Unwritten(row)) => rows.push(row),
                Err(failure) => {
                    lines.push(format!("{id}: {failure}"));
                    values.push(json!({"request_id": id, "message": failure.to_string()}));
                    left += 1;
                }
            }
        }
        if !values.is_empty() {
            context
                .output
                .say(|| lines.join("\n"), &Value::Array(values))?;
        }
        match (left, rows.is_empty()) {
            (0, true) => Ok(()),
            (0, false) => {
                let gone = "nothing of it is left at AWS, and the store could not be told";
                self.operator.keeper.keep(&rows, gone)
            }
            (left, _) => {
                let failure = format!("{left} of {all} not taken away");
                match rows.is_empty() {
                    true => Err(Failure::Failed(failure)),
                    false => self.operator.keeper.keep(&rows, &failure),
                }
            }
        }
    }
}

async fn until_gone(worker: Worker, id: RequestId) -> Result<Request, ServiceError> {
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
    worker.see_through(id, &never, told).await
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
