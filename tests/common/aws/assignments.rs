//! The assignments, and the operations that make and remove them.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::actions::word;
use super::faults::{conflict, throttled};
use super::{Answer, Aws, Fault, Inner};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    pub account: String,
    pub set: String,
    pub principal: String,
    pub kind: &'static str,
}

#[derive(Clone)]
pub(super) struct Operation {
    kind: &'static str,
    about: Assignment,
    ready: Duration,
    /// Whether the operation takes effect when its time has come.
    effect: bool,
    failure: Option<String>,
    over: bool,
}

const NEVER: Duration = Duration::MAX;

impl Aws {
    pub fn assignments(&self) -> BTreeSet<Assignment> {
        let mut inner = self.inner();
        inner.settle();
        inner.assignments.clone()
    }

    /// Closes an account and removes its assignments.
    pub fn close(&self, account: &str) {
        let mut inner = self.inner();
        inner.assignments.retain(|one| one.account != account);
        inner.closed.insert(account.into());
    }

    /// Makes an assignment from outside, as in the AWS console.
    pub fn assign(&self, account: &str, set: &str, email: &str) {
        let principal = self.user_id(email);
        self.inner().assignments.insert(Assignment {
            account: account.into(),
            set: set.into(),
            principal,
            kind: "USER",
        });
    }

    pub fn assign_group(&self, account: &str, set: &str, group: &str) {
        self.inner().assignments.insert(Assignment {
            account: account.into(),
            set: set.into(),
            principal: group.into(),
            kind: "GROUP",
        });
    }

    pub fn unassign(&self, account: &str, set: &str, email: &str) {
        let principal = self.user_id(email);
        self.inner().assignments.remove(&Assignment {
            account: account.into(),
            set: set.into(),
            principal,
            kind: "USER",
        });
    }
}

impl Inner {
    pub(super) fn list(&self, input: &Value, account: &str, set: &str) -> Answer {
        let all: Vec<Value> = self
            .assignments
            .iter()
            .filter(|one| one.account == account && one.set == set)
            .map(|one| {
                json!({
                    "AccountId": one.account, "PermissionSetArn": one.set,
                    "PrincipalId": one.principal, "PrincipalType": one.kind,
                })
            })
            .collect();
        Ok(self.paged(input, "AccountAssignments", all))
    }

    /// Whether another operation runs that does not allow this one.
    fn is_busy(&self, about: &Assignment) -> bool {
        self.operations.values().any(|one| {
            let same = one.about == *about;
            let here = self.one_at_a_time_in_an_account
                && one.about.account == about.account
                && one.ready != NEVER;
            !one.over && (same || here)
        })
    }

    pub(super) fn begin(
        &mut self,
        kind: &'static str,
        input: &Value,
        fault: Option<&Fault>,
    ) -> Answer {
        let about = Assignment {
            account: word(input, "TargetId"),
            set: word(input, "PermissionSetArn"),
            principal: word(input, "PrincipalId"),
            kind: "USER",
        };
        if self.is_busy(&about) {
            return Err(conflict());
        }
        let creates = self
            .operations
            .values()
            .filter(|one| !one.over && one.kind == "CREATE");
        if kind == "CREATE" && creates.count() >= self.most_creates {
            return Err(throttled());
        }
        let there = self.assignments.contains(&about);
        let absent = kind == "DELETE" && !there;
        // AWS reports a missing assignment in two ways.
        if absent && self.random.random_bool(0.5) {
            return Err(("ResourceNotFoundException", "Assignment not found".into()));
        }
        let failure = match fault {
            Some(Fault::Fails(why)) => Some((*why).to_owned()),
            Some(Fault::FailsAfterEffect) => Some("Internal failure".to_owned()),
            _ if absent => Some("Received a 404 status error: Assignment not found".to_owned()),
            _ => None,
        };
        let id = uuid(&mut self.random);
        let operation = Operation {
            kind,
            ready: match self.stuck.remove(&about.account) {
                true => NEVER,
                false => self.now() + self.latency,
            },
            about,
            effect: match fault {
                Some(Fault::FailsAfterEffect) => true,
                Some(Fault::SucceedsWithoutEffect) => false,
                _ => failure.is_none(),
            },
            failure,
            over: false,
        };
        let status = status(&id, &operation);
        self.operations.insert(id, operation);
        let name = match kind {
            "CREATE" => "AccountAssignmentCreationStatus",
            _ => "AccountAssignmentDeletionStatus",
        };
        Ok(json!({ name: status }))
    }

    pub(super) fn describe(&self, kind: &str, id: &str) -> Answer {
        let found = self.operations.get(id).filter(|one| one.kind == kind);
        let Some(operation) = found else {
            return Err(("ResourceNotFoundException", "no such request".into()));
        };
        let name = match kind {
            "CREATE" => "AccountAssignmentCreationStatus",
            _ => "AccountAssignmentDeletionStatus",
        };
        Ok(json!({ name: status(id, operation) }))
    }

    pub(super) fn statuses(&self, kind: &str, input: &Value) -> Answer {
        let wanted = input["Filter"]["Status"].as_str();
        let all: Vec<Value> = self
            .operations
            .iter()
            .filter(|(_, one)| one.kind == kind)
            .map(|(id, one)| status(id, one))
            .filter(|one| wanted.is_none_or(|wanted| one["Status"] == wanted))
            .map(|one| json!({"RequestId": one["RequestId"], "Status": one["Status"]}))
            .collect();
        let name = match kind {
            "CREATE" => "AccountAssignmentsCreationStatus",
            _ => "AccountAssignmentsDeletionStatus",
        };
        Ok(self.paged(input, name, all))
    }

    /// AWS may return fewer entries than the caller requested.
    fn paged(&self, input: &Value, name: &str, all: Vec<Value>) -> Value {
        let token = input["NextToken"].as_str();
        let from = token.map_or(0, |token| token.parse().unwrap());
        let rest = all.len() > from + self.page;
        let items: Vec<Value> = all.into_iter().skip(from).take(self.page).collect();
        let mut page = json!({ name: items });
        if rest {
            page["NextToken"] = json!((from + self.page).to_string());
        }
        page
    }

    pub(super) fn settle(&mut self) {
        let now = self.now();
        let mut ready: Vec<&mut Operation> = self
            .operations
            .values_mut()
            .filter(|one| !one.over && one.ready <= now)
            .collect();
        ready.sort_by_key(|one| one.ready);
        for one in ready {
            one.over = true;
            match (one.effect, one.kind) {
                (false, _) => {}
                (true, "CREATE") => drop(self.assignments.insert(one.about.clone())),
                (true, _) => drop(self.assignments.remove(&one.about)),
            }
        }
    }
}

fn status(id: &str, operation: &Operation) -> Value {
    let word = match (operation.over, &operation.failure) {
        (false, _) => "IN_PROGRESS",
        (true, None) => "SUCCEEDED",
        (true, Some(_)) => "FAILED",
    };
    let mut status = json!({"RequestId": id, "Status": word, "TargetType": "AWS_ACCOUNT"});
    if let (true, Some(why)) = (operation.over, &operation.failure) {
        status["FailureReason"] = json!(why);
    }
    status
}

pub(super) fn uuid(random: &mut StdRng) -> String {
    ::uuid::Uuid::from_u128(random.random()).to_string()
}
