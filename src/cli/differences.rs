//! The differences that `jit reconcile` finds, as rows and as JSON.

use serde_json::{Value, json};

use super::output::{one_line, table};
use super::{CliContext, Failure};
use crate::domain::{
    AccountId, Email, PermissionSet, Request, RequestId, RequestObject, Status, Timestamp,
};
use crate::identity_center::{Assignee, AssignmentPlace};

/// A difference between the records and Identity Center.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Live in jit, gone in AWS.
    Missing { request: RequestId },
    /// Over in jit, still in AWS.
    Left(LeftAccess),
    /// Removed by this command.
    Removed { request: RequestId },
    /// This command should have removed it, but its record changed meanwhile.
    NotRemoved { request: RequestId, why: String },
    /// jit is removing it, and the last attempt failed.
    Failing {
        request: RequestId,
        attempts: u32,
        why: String,
    },
    /// Its end is over, and no worker has begun to remove it.
    Overdue {
        request: RequestId,
        until: Timestamp,
    },
    /// It must go, no attempt failed, and AWS still shows it.
    Ending { request: RequestId, status: Status },
    /// An assignment from outside.
    Foreign {
        place: AssignmentPlace,
        who: Assignee,
    },
    /// An assignment that may belong to a record that jit cannot read.
    Unclear {
        place: AssignmentPlace,
        who: Assignee,
    },
    /// A record that jit cannot read.
    Unreadable { name: String, why: String },
    /// AWS does not say who has this permission set in this account.
    NotCompared { place: AssignmentPlace, why: String },
}

/// An assignment that AWS shows, and the settled request that had it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftAccess {
    pub request: RequestId,
    /// The revision of the holding when AWS was asked.
    pub revision: u64,
    requester: Email,
    account_id: AccountId,
    permission_set: PermissionSet,
    status: Status,
    ended: Option<String>,
}

impl LeftAccess {
    pub fn of(last: &Request, revision: u64) -> Self {
        let shown = RequestObject::from(last);
        let ended = shown.revoked_at.or(shown.expired_at);
        Self {
            request: last.id,
            revision,
            requester: last.asked.requester.email.clone(),
            account_id: last.asked.account_id.clone(),
            permission_set: last.asked.permission_set.clone(),
            status: last.status(),
            ended: ended.map(|at| at.to_string()),
        }
    }

    fn advice(&self) -> String {
        let (who, set, account) = (&self.requester, &self.permission_set, &self.account_id);
        format!(
            "over in jit, still in AWS: {who} has {set} in {account}; remove it: jit reconcile --fix"
        )
    }

    /// The access that the removal ends, in one line.
    pub fn described(&self) -> String {
        let (id, status) = (self.request, self.status);
        let (who, set, account) = (&self.requester, &self.permission_set, &self.account_id);
        let since = self.ended.as_ref();
        let since = since.map_or_else(String::new, |at| format!(" since {at}"));
        format!("{id}: {who} has {set} in {account}, and the request is {status}{since}")
    }
}

impl Difference {
    fn row(&self) -> Vec<String> {
        let (word, about, next) = match self {
            Self::Missing { request } => (
                "missing",
                request.to_string(),
                format!("live in jit, gone in AWS; end it: jit revoke {request}"),
            ),
            Self::Left(left) => ("left", left.request.to_string(), left.advice()),
            Self::Removed { request } => {
                let next = format!("removed; see: jit audit show {request}");
                ("removed", request.to_string(), next)
            }
            Self::NotRemoved { request, why } => {
                let why = one_line(why);
                ("left", request.to_string(), format!("not removed: {why}"))
            }
            Self::Failing {
                request,
                attempts,
                why,
            } => {
                let why = one_line(why);
                let next = format!(
                    "the removal failed {attempts} times, will be retried: {why}; see: jit status \
                     {request}"
                );
                ("failing", request.to_string(), next)
            }
            Self::Overdue { request, until } => {
                let why = format!("its end was {until}, and its removal has not begun");
                ("overdue", request.to_string(), by_hand(&why, request))
            }
            Self::Ending { request, status } => {
                let why = format!("{status} in jit, still in AWS");
                ("ending", request.to_string(), by_hand(&why, request))
            }
            Self::Foreign { place, who } => {
                let next = format!("{}; not made by jit, not changed", shown(who));
                ("foreign", pair(place), next)
            }
            Self::Unclear { place, who } => {
                let next = format!(
                    "{}; it may belong to a record that jit cannot read, not changed; see: jit \
                     audit verify",
                    shown(who)
                );
                ("unclear", pair(place), next)
            }
            Self::Unreadable { name, why } => {
                let next = format!("skipped: {}; see: jit audit verify", one_line(why));
                ("unreadable", one_line(name), next)
            }
            Self::NotCompared { place, why } => {
                let next = format!("AWS says: {}", one_line(why));
                ("not compared", pair(place), next)
            }
        };
        vec![word.to_owned(), about, next]
    }

    fn value(&self) -> Value {
        match self {
            Self::Missing { request } => json!({"finding": "missing", "request_id": request}),
            Self::Left(left) => json!({
                "finding": "left",
                "request_id": left.request,
                "requester_email": left.requester,
                "account_id": left.account_id,
                "permission_set": left.permission_set,
                "status": left.status,
            }),
            Self::Removed { request } => json!({"finding": "removed", "request_id": request}),
            Self::NotRemoved { request, why } => {
                json!({"finding": "left", "request_id": request, "why": why})
            }
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
            Self::Overdue { request, until } => {
                json!({"finding": "overdue", "request_id": request, "end_time": until})
            }
            Self::Ending { request, status } => {
                json!({"finding": "ending", "request_id": request, "status": status})
            }
            Self::Foreign { place, who } => of_place("foreign", place, who),
            Self::Unclear { place, who } => of_place("unclear", place, who),
            Self::Unreadable { name, why } => {
                json!({"finding": "unreadable", "name": name, "why": why})
            }
            Self::NotCompared { place, why } => json!({
                "finding": "not_compared",
                "account_id": place.account_id,
                "permission_set": place.permission_set,
                "why": why,
            }),
        }
    }

    /// Whether an operator must act.
    fn is_wrong(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Left(_)
            | Self::NotRemoved { .. }
            | Self::Failing { .. }
            | Self::Overdue { .. }
            | Self::Ending { .. }
            | Self::Unclear { .. }
            | Self::Unreadable { .. }
            | Self::NotCompared { .. } => true,
            Self::Removed { .. } | Self::Foreign { .. } => false,
        }
    }
}

fn by_hand(why: &str, request: &RequestId) -> String {
    format!(
        "{why}; a running jit serve removes it; without one: jit break-glass revoke {request} \
         --reason TEXT"
    )
}

fn pair(place: &AssignmentPlace) -> String {
    format!("{}/{}", place.account_id, place.permission_set)
}

fn named(who: &Assignee) -> (&'static str, &str) {
    match who {
        Assignee::User(user) => ("user", user.as_str()),
        Assignee::Group(group) => ("group", group.as_str()),
    }
}

fn shown(who: &Assignee) -> String {
    let (kind, id) = named(who);
    format!("{kind} {id}")
}

fn of_place(finding: &str, place: &AssignmentPlace, who: &Assignee) -> Value {
    let (kind, id) = named(who);
    json!({
        "finding": finding,
        "account_id": place.account_id,
        "permission_set": place.permission_set,
        kind: id,
    })
}

pub(super) fn print_findings(
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
    let skipped = |one: &&Difference| {
        matches!(
            one,
            Difference::Unreadable { .. } | Difference::NotCompared { .. }
        )
    };
    let skipped = findings.iter().filter(skipped).count();
    let skipped = match skipped {
        0 => String::new(),
        many => format!("; {many} records or pairs were skipped, so more may differ"),
    };
    match wrong {
        0 => Ok(()),
        wrong => Err(Failure::Failed(format!(
            "differences between the records and AWS: {wrong}{skipped}"
        ))),
    }
}
