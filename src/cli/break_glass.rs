//! `jit break-glass`: an operator ends access without the server, with their own AWS
//! credentials. jit records it like any other revoke. The command also works beside a
//! running server: leases prevent that both work on one request.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::access_left::{self, NamedAccess};
use super::arguments::BreakGlass;
use super::operator::{self, OperatorTools};
use super::output::{one_line, tell};
use super::requests::page;
use super::serve::failed;
use super::unwritten::{Row, UnrecordedRemoval};
use super::{CliContext, Failure, short_id};
use crate::app::Purpose;
use crate::config::Config;
use crate::domain::{
    EventKind, HoldingKey, Lane, PermissionSet, Request, RequestId, RequestObject, State, Status,
    Text,
};
use crate::identity_center::Paced;
use crate::service::ServiceError;
use crate::store::{Filter, StoreError, Unreadable};
use crate::worker::{BreakGlassError, BreakGlassOperator, BreakGlassResult, Remains, Worker};

pub(super) async fn revoke(context: &CliContext, asked: &BreakGlass) -> Result<(), Failure> {
    let reason = operator::reason(&asked.reason)?;
    let config = context.config_without_secrets()?;
    let named = NamedAccess::of(asked, &config)?;
    let sets: Vec<PermissionSet> = config.policy.permission_sets.keys().cloned().collect();
    let identity_center = operator::identity_center(&config).await?;
    let credentials = operator::credentials(&identity_center).await?;
    let operator = Operator {
        removal: UnrecordedRemoval {
            by: operator::operator(context, &credentials)?,
            identity_center: identity_center.clone(),
            reason,
        },
        credentials: credentials.to_string(),
    };
    let (tools, selected) = match opened(config, identity_center, asked, &named).await? {
        Ok(opened) => opened,
        Err(why) => {
            return operator
                .remove_without_store(&named, asked.yes, sets, &why)
                .await;
        }
    };
    let operator = Arc::new(operator);
    let unread = selected.unread();
    if selected.live.is_empty() && unread.is_none() {
        return print_nothing(context, &tools, &named).await;
    }
    // H1: each step is done, and its result told, whatever the steps before it say.
    let mut results = Vec::new();
    if !selected.live.is_empty() {
        operator.announce(&listed(&selected.live));
        if asked.id.is_none() && !asked.yes {
            operator::confirm(&format!(
                "end these requests and their access ({})",
                selected.live.len()
            ))?;
        }
        let run = BreakGlassRun {
            tools: &tools,
            operator: operator.clone(),
        };
        let ends = run.remove_each(&selected.live).await;
        results.push(run.print(context, ends));
    }
    // K12: the store does not say whose access an unreadable record is, but AWS does.
    if let Some(why) = unread {
        let ended = operator.remove_without_store(&named, asked.yes, sets, &why);
        results.push(ended.await);
    }
    if asked.id.is_none() {
        let clear = access_left::check_none(&tools, &named).await;
        results.push(clear.map(|clear| tell(&clear)));
    }
    strongest(results)
}

/// All failures in one message, with the highest of their exit codes: 3 is the strongest, because
/// access may be left.
fn strongest(results: impl IntoIterator<Item = Result<(), Failure>>) -> Result<(), Failure> {
    let mut failures: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.exit()));
    let said: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let said = said.join("\n");
    match failures.into_iter().next() {
        None => Ok(()),
        Some(Failure::Unconfirmed(_)) => Err(Failure::Unconfirmed(said)),
        Some(Failure::Usage(_)) => Err(Failure::Usage(said)),
        Some(Failure::Failed(_) | Failure::Config(_) | Failure::Refused { .. }) => {
            Err(Failure::Failed(said))
        }
    }
}

/// The opened store, and what the command ends; the inner error tells why jit cannot use the store.
async fn opened(
    config: Config,
    identity_center: Arc<Paced>,
    asked: &BreakGlass,
    named: &NamedAccess,
) -> Result<Result<(OperatorTools, Selected), String>, Failure> {
    let purpose = Purpose::Operate;
    let tools = match OperatorTools::with_identity_center(config, identity_center, purpose).await {
        Ok(tools) => tools,
        Err(why) => return Ok(Err(why.to_string())),
    };
    Ok(match selected(&tools, asked, named).await? {
        Ok(selected) => Ok((tools, selected)),
        Err(why) => Err(why.to_string()),
    })
}

async fn print_nothing(
    context: &CliContext,
    tools: &OperatorTools,
    named: &NamedAccess,
) -> Result<(), Failure> {
    access_left::check_names(tools, named).await?;
    let clear = access_left::check_none(tools, named).await?;
    let nothing = || format!("no live access matches, and {clear}; nothing was changed");
    context.output.print(nothing, &json!([]))
}

const GONE: &str = "AWS shows that the access is gone, but the store did not record it. A server \
                    that can use the store may grant the access again: repeat this command when \
                    the store works";

/// How one removal ended.
enum RemovalEnd {
    /// AWS shows no access of the request.
    Over(Box<Request>),
    /// The request ended in ERROR, and AWS shows access that it did not make.
    Left(Box<Request>),
    /// The request has no access, and these requests have the same access.
    HeldBy(Vec<RequestId>),
    /// AWS shows that the access is gone; the store did not record it.
    Unwritten(Row),
}

/// The operator and their credentials.
struct Operator {
    removal: UnrecordedRemoval,
    credentials: String,
}

impl Operator {
    fn who(&self) -> BreakGlassOperator {
        BreakGlassOperator {
            by: self.removal.by.clone(),
            reason: self.removal.reason.clone(),
            credentials: Text::clip(&self.credentials),
        }
    }

    fn announce(&self, what: &str) {
        let (credentials, by) = (&self.credentials, &self.removal.by.email);
        tell(&format!(
            "uses the credentials of {credentials}, and records {by} as the actor:\n{what}"
        ));
    }

    /// The store records the revoke before the call to AWS.
    async fn end(&self, worker: &Worker, request: &Request) -> Result<RemovalEnd, Failure> {
        match worker.record_broken_glass(request, &self.who()).await {
            Ok(BreakGlassResult::Recorded) => {
                let ended = until_gone(worker, request.id).await.map_err(failed)?;
                after_end(worker, ended).await
            }
            Ok(BreakGlassResult::Gone(request)) => Ok(RemovalEnd::Over(request)),
            Ok(BreakGlassResult::HeldBy(ids)) => Ok(RemovalEnd::HeldBy(ids)),
            Err(BreakGlassError::Unrecorded(why)) => self.without_writing(request, &why).await,
            Err(error) => Err(failed(error)),
        }
    }

    /// Without the store, jit ends the access that AWS shows for one person in one account.
    async fn remove_without_store(
        &self,
        named: &NamedAccess,
        yes: bool,
        sets: Vec<PermissionSet>,
        why: &str,
    ) -> Result<(), Failure> {
        let (Some(user), Some(account)) = (&named.user, &named.account) else {
            return Err(Failure::Failed(format!(
                "{why}. Only the store maps a request to its access. Name the access instead, and \
                 jit asks only AWS: jit break-glass revoke --user EMAIL --account ID \
                 [--permission-set NAME] --reason TEXT"
            )));
        };
        tell(&format!("{why}; jit ends the access that AWS shows"));
        let wanted = named.permission_set.as_ref();
        access_left::check_set(wanted, &sets)?;
        let sets: Vec<PermissionSet> = sets
            .into_iter()
            .filter(|set| wanted.is_none_or(|wanted| wanted == set))
            .collect();
        let names: Vec<String> = sets.iter().map(PermissionSet::to_string).collect();
        let present = self
            .removal
            .present_assignments(user, account, sets.into_iter())
            .await?;
        if present.is_empty() {
            return Err(Failure::Unconfirmed(format!(
                "AWS shows no access of {user} in {account} with {}; nothing was changed. Without \
                 the store jit cannot tell whether these are the right names, and does not see \
                 access by groups: check the names, and run this again in ten seconds, because a \
                 server may have granted the access a moment ago",
                names.join(", ")
            )));
        }
        let list = present
            .iter()
            .map(|key| format!("{} in {account}", key.permission_set));
        self.announce(&list.collect::<Vec<_>>().join("\n"));
        if !yes {
            operator::confirm(&format!("end this access ({})", present.len()))?;
        }
        let mut rows = Vec::new();
        for key in present {
            self.removal.remove(&key).await?;
            let user = Some(user.to_string());
            rows.push(self.row(None, Some(key), user));
        }
        self.removal.print_rows(&rows, &format!("{GONE}: {why}"))
    }

    /// The store does not record the revoke: jit ends the access of its record anyway.
    async fn without_writing(
        &self,
        request: &Request,
        why: &StoreError,
    ) -> Result<RemovalEnd, Failure> {
        let (id, email) = (request.id, request.requester_email());
        tell(&format!(
            "{id}: {why}; jit removes the access without a record in the store"
        ));
        let Some(key) = request.holding_key() else {
            return Err(Failure::Failed(format!("{id} names no user of AWS")));
        };
        self.removal.remove(&key).await?;
        let row = self.row(Some(id), Some(key), Some(email.to_string()));
        Ok(RemovalEnd::Unwritten(row))
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

/// The requests that the command ends, and the records that it cannot end.
struct Selected {
    live: Vec<Request>,
    unreadable: Vec<Unreadable>,
}

impl Selected {
    /// The records that the command cannot end, in one sentence.
    fn unread(&self) -> Option<String> {
        let each = self.unreadable.iter();
        let each = each.map(|one| format!("{}: {}", one_line(&one.name), one_line(&one.why)));
        let each = each.collect::<Vec<_>>().join("; ");
        let count = self.unreadable.len();
        (count > 0).then(|| format!("{count} records cannot be read, and may have access: {each}"))
    }
}

/// One request by its id, or all live access of a person or in an account, with the requests that
/// wait for an approval (H2): an approval would give the access later.
async fn selected(
    tools: &OperatorTools,
    asked: &BreakGlass,
    named: &NamedAccess,
) -> Result<Result<Selected, StoreError>, Failure> {
    let mut selected = Selected {
        live: Vec::new(),
        unreadable: Vec::new(),
    };
    if let Some(id) = &asked.id {
        let id = short_id::in_store(&tools.config, id).await?;
        let found = tools.app.service.request(id).await;
        return match found {
            Err(ServiceError::Store(why)) => Ok(Err(why)),
            found => {
                selected.live.push(found.map_err(failed)?);
                Ok(Ok(selected))
            }
        };
    }
    for status in [
        Status::Granted,
        Status::Approved,
        Status::Error,
        Status::Pending,
    ] {
        let filter = Filter {
            status: Some(status),
            ..named.filter()
        };
        match tools.every(&filter).await {
            Ok(found) => {
                selected.live.extend(found.items);
                selected.unreadable.extend(found.unreadable);
            }
            Err(why) => return Ok(Err(why)),
        }
    }
    let set = named.permission_set.as_ref();
    // An approved request may still get access; a settled ERROR has none.
    selected.live.retain(|request| {
        !request.state.is_settled() && set.is_none_or(|set| request.asked.permission_set == *set)
    });
    Ok(Ok(selected))
}

struct BreakGlassRun<'a> {
    tools: &'a OperatorTools,
    operator: Arc<Operator>,
}

type RemovalEnds = Vec<(RequestId, Result<RemovalEnd, Failure>)>;

impl BreakGlassRun<'_> {
    /// All at the same time: a store that fails delays no removal by the pause of another.
    async fn remove_each(&self, selected: &[Request]) -> RemovalEnds {
        let tasks = TaskTracker::new();
        let begun: Vec<_> = selected
            .iter()
            .map(|request| {
                let (operator, worker) = (self.operator.clone(), self.tools.app.worker.clone());
                let (id, request) = (request.id, request.clone());
                let end = async move { operator.end(&worker, &request).await };
                (id, tasks.spawn(end))
            })
            .collect();
        let mut ends = Vec::new();
        for (id, end) in begun {
            ends.push((id, end.await.map_err(failed).flatten()));
        }
        ends
    }

    /// Prints the result of each removal; done means that AWS shows no access.
    fn print(&self, context: &CliContext, ends: RemovalEnds) -> Result<(), Failure> {
        let (mut lines, mut values, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let (mut left, all) = (0, ends.len());
        for (id, end) in ends {
            let why = match end {
                Ok(RemovalEnd::Over(request)) => {
                    lines.push(format!("{id} {}: {}", request.status(), result(&request)));
                    values.push(json!(RequestObject::from(&*request)));
                    continue;
                }
                Ok(RemovalEnd::Left(request)) => {
                    lines.push(format!(
                        "{id} {}: {}",
                        request.status(),
                        why_in_error(&request)
                    ));
                    values.push(json!(RequestObject::from(&*request)));
                    left += 1;
                    continue;
                }
                Ok(RemovalEnd::Unwritten(row)) => {
                    rows.push(row);
                    continue;
                }
                Ok(RemovalEnd::HeldBy(ids)) => held_by(&ids),
                Err(failure) => one_line(&failure.to_string()),
            };
            lines.push(format!("{id}: {why}"));
            values.push(json!({"request_id": id, "message": why}));
            left += 1;
        }
        let shown = match values.is_empty() {
            true => Ok(()),
            false => {
                let values = Value::Array(values);
                context.output.print(|| lines.join("\n"), &values)
            }
        };
        let unwritten = match rows.is_empty() {
            true => Ok(()),
            false => self.operator.removal.print_rows(&rows, GONE),
        };
        let left = match left {
            0 => Ok(()),
            left => Err(Failure::Unconfirmed(format!(
                "{left} of {all} accesses were not removed"
            ))),
        };
        strongest([left, unwritten, shown])
    }
}

/// Whether the access of an ended request is gone, and how jit knows it.
fn result(request: &Request) -> String {
    match (&request.state, request.access.was_begun()) {
        (State::Error(_), true) => format!("{}; AWS shows no access", why_in_error(request)),
        (State::Error(_), false) => why_in_error(request),
        (State::Cancelled { .. }, false) => {
            "it waited for an approval, and had no access".to_owned()
        }
        (_, true) => "AWS shows that the access is gone".to_owned(),
        (_, false) => "jit never asked AWS for this access".to_owned(),
    }
}

fn why_in_error(request: &Request) -> String {
    let State::Error(end) = &request.state else {
        return String::new();
    };
    one_line(end.why.as_str())
}

/// An end in ERROR does not say what AWS shows, so jit asks.
async fn after_end(worker: &Worker, request: Request) -> Result<RemovalEnd, Failure> {
    let key = request.holding_key();
    let Some(key) = key.filter(|_| request.status() == Status::Error) else {
        return Ok(RemovalEnd::Over(Box::new(request)));
    };
    let remains = worker
        .remains_of(Lane::Revoke, &key)
        .await
        .map_err(failed)?;
    Ok(match remains {
        Remains::Nothing => RemovalEnd::Over(Box::new(request)),
        Remains::HeldBy(ids) => RemovalEnd::HeldBy(ids),
        Remains::Unheld { .. } => RemovalEnd::Left(Box::new(request)),
    })
}

fn held_by(ids: &[RequestId]) -> String {
    let commands = ids
        .iter()
        .map(|id| format!("jit break-glass revoke {id} --reason TEXT"));
    format!(
        "it has ended, but another request has the same access or gets it: {}",
        commands.collect::<Vec<_>>().join("; ")
    )
}

async fn until_gone(worker: &Worker, id: RequestId) -> Result<Request, BreakGlassError> {
    let mut heard = 0;
    let told = |request: &Request| {
        if let Some(failing) = &request.schedule.failures
            && failing.attempts != heard
        {
            heard = failing.attempts;
            tell(&format!(
                "{id}: {}; jit tries again, Ctrl-C stops waiting",
                failing.why
            ));
        }
    };
    worker.until_gone(id, told).await
}

fn listed(requests: &[Request]) -> String {
    let items: Vec<RequestObject> = requests.iter().map(RequestObject::from).collect();
    page(&json!({"items": items}))
}
