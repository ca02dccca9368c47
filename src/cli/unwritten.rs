//! Without a usable store, jit still ends access. It prints the audit rows that it could not
//! write, so that the operator can write them later.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Failure;
use super::output::{print, tell};
use super::serve::failed;
use crate::clock::{Clock, SystemClock};
use crate::domain::{
    AccountId, Email, EventKind, HoldingKey, Lane, PermissionSet, Person, Presence, RequestId,
    Text, UserId,
};
use crate::identity_center::{IdentityCenterErrorKind, Paced};
use crate::worker::remove_unrecorded;

/// A row of `jit_audit` that the store did not accept.
pub(super) struct Row {
    pub kind: EventKind,
    /// None if the store could not name the request.
    pub id: Option<RequestId>,
    pub key: Option<HoldingKey>,
    /// The e-mail address of the requester, if it is known.
    pub user: Option<String>,
    pub details: Vec<(&'static str, String)>,
}

/// A removal that the store may not record: the actor, the reason, and the client of Identity
/// Center.
pub(super) struct UnrecordedRemoval {
    pub identity_center: Arc<Paced>,
    pub by: Person,
    pub reason: Text,
}

impl UnrecordedRemoval {
    async fn user(&self, email: &Email) -> Result<UserId, Failure> {
        let found = self.identity_center.find_user(Lane::Revoke, email).await;
        found.map_err(|why| match why.kind == IdentityCenterErrorKind::NoUser {
            true => Failure::Unconfirmed(format!(
                "{why}; nothing was changed; check the spelling of {email}, or search the user in \
                 the console of IAM Identity Center"
            )),
            false => failed(why),
        })
    }

    /// The permission sets that the user has in the account now.
    pub async fn present_assignments(
        &self,
        user: &Email,
        account: &AccountId,
        sets: impl Iterator<Item = PermissionSet>,
    ) -> Result<Vec<HoldingKey>, Failure> {
        let user = self.user(user).await?;
        let mut present_assignments = Vec::new();
        for permission_set in sets {
            let key = HoldingKey {
                account_id: account.clone(),
                permission_set,
                user: user.clone(),
            };
            let seen = self.identity_center.look(Lane::Revoke, &key).await;
            if seen.map_err(failed)? == Presence::Present {
                present_assignments.push(key);
            }
        }
        Ok(present_assignments)
    }

    /// Removes the access without a record, until AWS shows that it is gone.
    pub async fn remove(&self, key: &HoldingKey) -> Result<(), Failure> {
        let (account, set) = (&key.account_id, &key.permission_set);
        let told = |what: &str| tell(&format!("{set} in {account}: {what}"));
        let gone = remove_unrecorded(&self.identity_center, &SystemClock, key, told);
        gone.await.map_err(failed)
    }

    /// Prints the rows and the command that writes them later. A row that was not written is
    /// a failure, also if the access is gone.
    pub fn print_rows(&self, rows: &[Row], why: &str) -> Result<(), Failure> {
        for row in rows {
            print(&self.json(row).to_string())?;
        }
        let reason = self.reason.as_str().replace('\'', "'\\''");
        let commands: Vec<String> = rows
            .iter()
            .filter_map(|row| row.id)
            .map(|id| {
                format!(
                    "jit cleanup {id} --reason '{reason}' --as {}",
                    self.by.email
                )
            })
            .collect();
        // Without an id, `why` says what to repeat.
        let later = match commands.is_empty() {
            true => String::new(),
            false => format!(
                " When the store works again, write them with: {}",
                commands.join("; ")
            ),
        };
        Err(Failure::Failed(format!(
            "{why}. Keep the rows on stdout.{later}"
        )))
    }

    fn json(&self, row: &Row) -> Value {
        let mut details = json!({"reason": self.reason});
        let key = row.key.as_ref();
        let known = [
            (
                "permission_set",
                key.map(|key| key.permission_set.to_string()),
            ),
            (
                "identity_store_user_id",
                key.map(|key| key.user.to_string()),
            ),
            ("requester_email", row.user.clone()),
        ];
        let known = known
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in known.chain(row.details.iter().cloned()) {
            details[name] = value.into();
        }
        json!({
            "request_id": row.id,
            "event_type": row.kind,
            "event_time": SystemClock.now(),
            "account_id": key.map(|key| &key.account_id),
            "actor_email": self.by.email,
            "actor_mm_user_id": self.by.id,
            "details": details,
        })
    }
}
