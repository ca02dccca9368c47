//! Checks the configuration against AWS: makes each call once that changes nothing, and names
//! the configuration key of each problem.

use crate::domain::{AccountId, HoldingKey, OldCredentialsRule, PermissionSet};
use crate::identity_center::{
    AssignmentPlace, IdentityCenter, IdentityCenterError, IdentityCenterErrorKind, Operation,
    OperationKind, UserAttribute,
};

use super::SsoIdentityCenter;

/// The result for one configuration key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub key: String,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good { what: String },
    Bad { why: String },
}

/// The id of a user and of an operation that do not exist: a call about it changes nothing.
const UNKNOWN_USER: &str = "00000000-0000-0000-0000-000000000000";

impl SsoIdentityCenter {
    pub async fn inspect(&self, end_sessions: OldCredentialsRule) -> Vec<Finding> {
        let (instance, account) = self.inspect_instance().await;
        let mut found = vec![instance];
        if matches!(found[0].verdict, Verdict::Bad { .. }) {
            // All other calls would be refused for the same reason.
            return found;
        }
        found.push(self.inspect_people().await);
        let account = account.unwrap_or_else(placeholder_account);
        for set in self.options.permission_sets.keys() {
            found.push(self.inspect_set(set, &account, end_sessions).await);
        }
        if let Some(set) = self.options.permission_sets.keys().next() {
            found.push(self.inspect_assignments(account, set).await);
        }
        found
    }

    /// The instance, and its account.
    async fn inspect_instance(&self) -> (Finding, Option<AccountId>) {
        let key = "identity_center.instance_arn";
        let (arn, store) = (&self.options.instance_arn, &self.options.identity_store_id);
        let Some(region) = self.region.as_deref() else {
            return (bad("AWS region", "is not set: AWS_REGION=…"), None);
        };
        let listed = match self.assignments.list_instances().send().await {
            Ok(listed) => listed,
            Err(error) if error.as_service_error().is_none() => {
                let error = IdentityCenterError::from(error);
                return (bad("AWS", format!("{error}; region: {region}")), None);
            }
            Err(error) => {
                let error = IdentityCenterError::from(error);
                let finding = match error.kind {
                    IdentityCenterErrorKind::Denied => bad("AWS permissions", error.to_string()),
                    // jit does not need this permission to serve; the needed ones are tried next.
                    _ => good(key, format!("{arn}; not listed in {region} ({error})")),
                };
                return (finding, None);
            }
        };
        let all = listed.instances();
        let Some(ours) = all.iter().find(|one| one.instance_arn() == Some(arn)) else {
            let known: Vec<&str> = all.iter().filter_map(|one| one.instance_arn()).collect();
            let known = match known.as_slice() {
                [] => "has none: is this the right region and account?".to_owned(),
                known => format!("has {}", known.join(", ")),
            };
            let why = format!("{arn} is not in {region}, which {known}");
            return (bad(key, why), None);
        };
        let account = ours.owner_account_id().and_then(|id| id.parse().ok());
        let finding = match ours.identity_store_id() {
            Some(real) if real != store => bad(
                "identity_center.identity_store_id",
                format!("{store} is not the store of this instance, which is {real}"),
            ),
            _ => good(key, format!("{arn} in {region}")),
        };
        (finding, account)
    }

    async fn inspect_people(&self) -> Finding {
        let key = "identity_center.identity_store_id";
        let Ok(nobody) = "jit-config-check@example.invalid".parse() else {
            return bad(key, "cannot be asked");
        };
        match self.find_user(&nobody, UserAttribute::UserName).await {
            Ok(_) => good(key, self.options.identity_store_id.clone()),
            Err(error) => bad(key, error.to_string()),
        }
    }

    async fn inspect_set(
        &self,
        set: &PermissionSet,
        account: &AccountId,
        end_sessions: OldCredentialsRule,
    ) -> Finding {
        let key = format!("permission_sets.{set}");
        let told = match self.session_duration(set).await {
            Ok(lasting) => format!("sessions of up to {lasting}"),
            Err(error) if is_unknown(&error) => return no_such_set(&key, &error),
            Err(error) if error.kind == IdentityCenterErrorKind::Denied => {
                return bad(key, error.to_string());
            }
            Err(_) => {
                let place = AssignmentPlace {
                    account_id: account.clone(),
                    permission_set: set.clone(),
                };
                match self.assigned(&place, None).await {
                    Err(error) if is_unknown(&error) => return no_such_set(&key, &error),
                    Err(error) => return bad(key, error.to_string()),
                    Ok(_) => "can be listed".to_owned(),
                }
            }
        };
        if end_sessions == OldCredentialsRule::PermissionSet
            && let Err(error) = self.inline_policy(set).await
        {
            let why = format!("revocation.end_sessions needs its inline policy: {error}");
            return bad(key, why);
        }
        good(key, told)
    }

    /// A list call, and even a delete, has no effect for a user that does not exist.
    async fn inspect_assignments(&self, account: AccountId, set: &PermissionSet) -> Finding {
        let key = "AWS permissions";
        let Ok(user) = UNKNOWN_USER.parse() else {
            return bad(key, "cannot be asked");
        };
        let holding = HoldingKey {
            account_id: account,
            permission_set: set.clone(),
            user,
        };
        let mut refusals = Vec::new();
        let mut hear = |answer: Result<(), IdentityCenterError>| {
            if let Err(error) = answer
                && error.kind == IdentityCenterErrorKind::Denied
            {
                refusals.push(error.why);
            }
        };
        hear(
            self.assigned(&AssignmentPlace::of(&holding), None)
                .await
                .map(drop),
        );
        hear(self.delete(&holding).await.map(drop));
        for kind in [OperationKind::Create, OperationKind::Delete] {
            let id = UNKNOWN_USER.into();
            hear(self.poll(&Operation { kind, id }).await.map(drop));
            hear(self.under_way(kind, None).await.map(drop));
        }
        if refusals.is_empty() {
            let checked = "all permissions that a call without effect can check; \
                           sso:CreateAccountAssignment is not checked";
            return good(key, checked.to_owned());
        }
        let why = refusals.join("; ");
        bad(
            key,
            format!("{why}; infra/iam-policy.json has what jit needs"),
        )
    }
}

fn no_such_set(key: &str, error: &IdentityCenterError) -> Finding {
    let why = format!("Identity Center has no such permission set ({error})");
    bad(key, why)
}

/// An account that does not exist.
fn placeholder_account() -> AccountId {
    "000000000000"
        .parse()
        .unwrap_or_else(|_| unreachable!("twelve digits"))
}

fn is_unknown(error: &IdentityCenterError) -> bool {
    error.why.contains("ResourceNotFoundException")
        || error.kind == IdentityCenterErrorKind::Invalid
}

fn good(key: impl Into<String>, what: String) -> Finding {
    let verdict = Verdict::Good { what };
    Finding {
        key: key.into(),
        verdict,
    }
}

fn bad(key: impl Into<String>, why: impl Into<String>) -> Finding {
    let verdict = Verdict::Bad { why: why.into() };
    Finding {
        key: key.into(),
        verdict,
    }
}
