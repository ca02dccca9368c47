//! `jit reconcile`: compares the records with Identity Center.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::operator::OperatorTools;
use super::output::{one_line, progress, table};
use super::serve::failed;
use super::{CliContext, Failure};
use crate::domain::{
    AccountId, Command, HoldingKey, Lane, Presence, Request, RequestId, State, Status, UserId,
};
use crate::identity_center::{Assignee, AssignmentPlace};
use crate::store::{Filter, Found};
use crate::worker::Remains;

const PAGE: usize = 200;

/// A difference between the records and Identity Center.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Difference {
    /// Live in jit, gone in AWS.
    Missing { request: RequestId },
    /// Over in jit, still in AWS.
    Left { request: RequestId },
    /// Removed by this command.
    Removed { request: RequestId },
    /// jit is removing it, and the last attempt failed.
    Failing {
        request: RequestId,
        attempts: u32,
        why: String,
    },
    /// An assignment from outside.
    Foreign {
        place: AssignmentPlace,
        who: Assignee,
    },
}

pub(super) async fn reconcile(context: &CliContext, fix: bool) -> Result<(), Failure> {
    let tools = match fix {
        true => OperatorTools::open(context).await?,
        false => OperatorTools::open_read_only(context).await?,
    };
    let live = live(&tools).await?;
    let places = places(&tools, &live).await?;
    let bar = progress(places.len());
    let mut findings = failing(&tools).await?;
    for place in &places {
        bar.set_message(format!("{} {}", place.account_id, place.permission_set));
        findings.extend(compare(&tools, place, &live).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if fix {
        for finding in &mut findings {
            if let Difference::Left { request } = *finding {
                remove(context, &tools, request).await?;
                *finding = Difference::Removed { request };
            }
        }
    }
    print_findings(context, places.len(), &findings)
}

/// Every granted request, by its assignment.
type Live = BTreeMap<HoldingKey, Request>;

async fn live(tools: &OperatorTools) -> Result<Live, Failure> {
    let filter = Filter {
        status: Some(Status::Granted),
        ..Filter::default()
    };
    let granted = tools.every(&filter).await.map_err(failed)?;
    let keyed = granted
        .into_iter()
        .filter_map(|request| Some((request.holding_key()?, request)));
    Ok(keyed.collect())
}

/// The removals whose last attempt failed. A request that jit checks has the status ERROR.
async fn failing(tools: &OperatorTools) -> Result<Vec<Difference>, Failure> {
    let mut findings = Vec::new();
    for status in [Status::Granted, Status::Error] {
        let filter = Filter {
            status: Some(status),
            ..Filter::default()
        };
        let found = tools.every(&filter).await.map_err(failed)?;
        let is_removing = |request: &&Request| {
            matches!(
                request.state,
                State::Removing { .. } | State::Checking { .. }
            )
        };
        findings.extend(found.iter().filter(is_removing).filter_map(|request| {
            let trouble = request.schedule.trouble.as_ref()?;
            Some(Difference::Failing {
                request: request.id,
                attempts: trouble.attempts,
                why: trouble.why.to_string(),
            })
        }));
    }
    Ok(findings)
}

/// Every account that is bound to a channel.
pub(super) async fn bound_accounts(tools: &OperatorTools) -> Result<BTreeSet<AccountId>, Failure> {
    let mut accounts = BTreeSet::new();
    let mut after: Option<AccountId> = None;
    loop {
        let page = tools.app.service.all_bindings(after.as_ref(), PAGE).await;
        let page = page.and_then(Found::whole).map_err(failed)?;
        let Some(last) = page.last() else {
            return Ok(accounts);
        };
        after = Some(last.account_id.clone());
        accounts.extend(page.into_iter().map(|binding| binding.account_id));
    }
}

/// Every bound account and every account with live access, with every known permission set.
async fn places(tools: &OperatorTools, live: &Live) -> Result<Vec<AssignmentPlace>, Failure> {
    let mut accounts = bound_accounts(tools).await?;
    accounts.extend(live.keys().map(|key| key.account_id.clone()));
    let sets = tools.config.policy.permission_sets.keys();
    let everywhere = accounts.iter().flat_map(|account| {
        sets.clone().map(|set| AssignmentPlace {
            account_id: account.clone(),
            permission_set: set.clone(),
        })
    });
    Ok(everywhere.collect())
}

async fn compare(
    tools: &OperatorTools,
    place: &AssignmentPlace,
    live: &Live,
) -> Result<Vec<Difference>, Failure> {
    let there = tools
        .app
        .identity_center
        .assignees(Lane::Other, place)
        .await;
    let there = there.map_err(failed)?;
    let mut findings = Vec::new();
    for who in there.iter() {
        findings.extend(match who {
            Assignee::User(user) => unheld(tools, place, user).await?,
            Assignee::Group(_) => Some(foreign(place, who)),
        });
    }
    let here = live
        .iter()
        .filter(|(key, _)| AssignmentPlace::of(key) == *place);
    for (key, request) in here {
        let shown = there.contains(&Assignee::User(key.user.clone()));
        if !shown && is_missing(tools, key, request.id).await? {
            let request = request.id;
            findings.push(Difference::Missing { request });
        }
    }
    Ok(findings)
}

fn foreign(place: &AssignmentPlace, who: &Assignee) -> Difference {
    Difference::Foreign {
        place: place.clone(),
        who: who.clone(),
    }
}

/// For an assignment that AWS shows: none if a request holds it, else the last holder.
async fn unheld(
    tools: &OperatorTools,
    place: &AssignmentPlace,
    user: &UserId,
) -> Result<Option<Difference>, Failure> {
    let key = place.key_of(user);
    let held = tools
        .app
        .service
        .holding(key.clone())
        .await
        .map_err(failed)?;
    if !held.holders.is_empty() {
        return Ok(None);
    }
    let who = Assignee::User(user.clone());
    if held.revision == 0 {
        return Ok(Some(foreign(place, &who)));
    }
    // A grant that ended during the comparison existed when AWS answered.
    let remains = tools.app.worker.remains_of(Lane::Other, &key).await;
    if !matches!(remains.map_err(failed)?, Remains::Unheld) {
        return Ok(None);
    }
    let filter = Filter {
        account_id: Some(key.account_id.clone()),
        ..Filter::default()
    };
    let all = tools.every(&filter).await.map_err(failed)?;
    let last = all
        .iter()
        .find(|request| request.holding_key().as_ref() == Some(&key));
    Ok(Some(match last {
        Some(request) => Difference::Left {
            request: request.id,
        },
        None => foreign(place, &who),
    }))
}

/// Not for a grant that was made just now, or that is being removed.
async fn is_missing(
    tools: &OperatorTools,
    key: &HoldingKey,
    id: RequestId,
) -> Result<bool, Failure> {
    let now = tools.app.service.request(id).await.map_err(failed)?;
    if now.state != State::Granted {
        return Ok(false);
    }
    let again = tools
        .app
        .identity_center
        .look(Lane::Other, key)
        .await
        .map_err(failed)?;
    Ok(again == Presence::Absent)
}

async fn remove(context: &CliContext, tools: &OperatorTools, id: RequestId) -> Result<(), Failure> {
    let by = context.acting.person_if_said()?;
    let found = Command::FoundPresent { by };
    tools
        .app
        .service
        .handle(id, found, None)
        .await
        .map_err(failed)?;
    let never = CancellationToken::new();
    let told = |_: &Request| {};
    let end = tools.app.worker.see_through(id, &never, told).await;
    end.map(drop).map_err(failed)
}

impl Difference {
    fn row(&self) -> Vec<String> {
        let of = |word: &str, request: &RequestId, next: String| {
            vec![word.to_owned(), request.to_string(), next]
        };
        match self {
            Self::Missing { request } => {
                let next = format!("live in jit, gone in AWS; end it: jit revoke {request}");
                of("missing", request, next)
            }
            Self::Left { request } => {
                let next = "over in jit, still in AWS; remove it: jit reconcile --fix".to_owned();
                of("left", request, next)
            }
            Self::Removed { request } => {
                let next = format!("removed; see: jit audit show {request}");
                of("removed", request, next)
            }
            Self::Failing {
                request,
                attempts,
                why,
            } => {
                let why = one_line(why);
                let next = format!(
                    "the removal failed {attempts} times, and jit goes on: {why}; see: jit status \
                     {request}"
                );
                of("failing", request, next)
            }
            Self::Foreign { place, who } => {
                let whose = match who {
                    Assignee::User(user) => format!("user {user}"),
                    Assignee::Group(group) => format!("group {group}"),
                };
                let where_ = format!("{}/{}", place.account_id, place.permission_set);
                vec![
                    "foreign".into(),
                    where_,
                    format!("{whose}; not made by jit, not changed"),
                ]
            }
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Missing { request } => json!({"finding": "missing", "request_id": request}),
            Self::Left { request } => json!({"finding": "left", "request_id": request}),
            Self::Removed { request } => json!({"finding": "removed", "request_id": request}),
            Self::Failing {
                request,
                attempts,
                why,
            } => json!({
                "finding": "failing",
                "request_id": request,
                "attempts": attempts,
                "why": why,
            }),
            Self::Foreign { place, who } => {
                let (kind, id) = match who {
                    Assignee::User(user) => ("user", user.as_str()),
                    Assignee::Group(group) => ("group", group.as_str()),
                };
                json!({
                    "finding": "foreign",
                    "account_id": place.account_id,
                    "permission_set": place.permission_set,
                    kind: id,
                })
            }
        }
    }

    /// Whether an operator must act.
    fn is_wrong(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. } | Self::Left { .. } | Self::Failing { .. }
        )
    }
}

fn print_findings(
    context: &CliContext,
    places: usize,
    findings: &[Difference],
) -> Result<(), Failure> {
    let wrong = findings.iter().filter(|one| one.is_wrong()).count();
    let values: Vec<Value> = findings.iter().map(Difference::value).collect();
    let value = json!({"compared": places, "findings": values, "ok": wrong == 0});
    let text = || {
        let compared = format!("{places} pairs of account and permission set compared");
        if findings.is_empty() {
            return format!("{compared}: no differences");
        }
        let rows: Vec<Vec<String>> = findings.iter().map(Difference::row).collect();
        format!(
            "{}\n{compared}",
            table(&["FINDING", "ACCESS", "DETAILS"], &rows)
        )
    };
    context.output.print(text, &value)?;
    match wrong {
        0 => Ok(()),
        wrong => Err(Failure::Failed(format!(
            "differences between the records and AWS: {wrong}"
        ))),
    }
}
