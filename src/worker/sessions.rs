//! Credentials that were fetched while access lasted are denied in the permission set's
//! inline policy, until the last of them is over by itself.
//!
//! A policy has no revision: whoever reads it, changes it and puts it back must be alone
//! with it, across all replicas. The store's lease sees to that, and nothing is put back
//! that would not arrive while it lasts.

use super::LEASE;
use super::perform::{Done, Hand, passing, refused};
use crate::access::deny::{self, Deny, DenyError};
use crate::access::{AccessError, AccessErrorKind, CALL_PATIENCE, Call, Ended, Place};
use crate::domain::{
    HoldingKey, Lease, LeaseToken, Millis, Outcome, PermissionSet, RequestId, Text, Timestamp,
    Trouble,
};
use crate::store::{StoreError, Taken};

/// How long others are waited for.
const PATIENCE: Millis = Millis::seconds(8);
const PAUSE: Millis = Millis(200);

impl Hand<'_> {
    pub(super) async fn end_sessions(&self, key: &HoldingKey, before: Timestamp) -> Done {
        let place = Place::of(key);
        if self.access.assignees(self.lane, &place).await?.is_empty() {
            // Whoever tried before may have placed it, and not have lived to say so.
            self.take_out(key).await?;
            return Ok(Outcome::SessionsGone);
        }
        let set = &key.permission_set;
        let lasting = self.access.session_duration(self.lane, set).await?;
        let deny = Deny {
            request: self.id,
            user: key.user.clone(),
            before,
        };
        let mut dropped = Vec::new();
        self.change_policy(set, |policy| {
            let placed = deny::placed(policy, &deny)?;
            dropped = placed.dropped;
            Ok(Some(placed.policy))
        })
        .await?;
        self.bring_into(&place).await?;
        let until = before + lasting;
        Ok(Outcome::SessionsDenied { until, dropped })
    }

    pub(super) async fn lift_deny(&self, key: &HoldingKey) -> Done {
        let place = Place::of(key);
        self.take_out(key).await?;
        // Where nobody has the set any more, there is nothing to bring it to.
        if !self.access.assignees(self.lane, &place).await?.is_empty() {
            self.bring_into(&place).await?;
        }
        Ok(Outcome::DenyLifted)
    }

    async fn take_out(&self, key: &HoldingKey) -> Done<()> {
        let request: RequestId = self.id;
        let without = |policy: Option<&str>| deny::without(policy, request);
        self.change_policy(&key.permission_set, without).await
    }

    async fn bring_into(&self, place: &Place) -> Done<()> {
        match self.access.provision(self.lane, place).await? {
            Ended::Badly { why } => Err(refused(&format!(
                "the permission set could not be provisioned: {why}"
            ))),
            Ended::Well | Ended::Somehow => Ok(()),
        }
    }

    /// Reads, changes and puts back, alone.
    async fn change_policy(
        &self,
        set: &PermissionSet,
        change: impl FnOnce(Option<&str>) -> Result<Option<String>, DenyError>,
    ) -> Done<()> {
        let name = format!("inline-policy/{set}");
        let lease = self.be_alone_with(&name).await?;
        let store = self.service.store();
        let changed = self.change_alone(set, lease, change).await;
        // If it cannot be given back, it ends by itself.
        if let Err(error) = store.give_lease(&name, lease.token).await {
            tracing::warn!(%error, %name, "lease not given back");
        }
        changed
    }

    /// Others are soon done with it, or this is for later.
    async fn be_alone_with(&self, name: &str) -> Done<Lease> {
        let (clock, store) = (self.service.clock(), self.service.store());
        let token = LeaseToken(clock.draw());
        let patience = clock.now() + PATIENCE;
        loop {
            let now = clock.now();
            let until = now + LEASE;
            let lease = Lease { token, until };
            let taken = store.take_lease(name, lease, now).await;
            if taken.map_err(|error| unavailable(&error))? == Taken::Yes {
                return Ok(lease);
            }
            if now >= patience {
                return Err(passing(&format!(
                    "{name} is being changed by somebody else"
                )));
            }
            clock.wait_until(now + PAUSE).await;
        }
    }

    async fn change_alone(
        &self,
        set: &PermissionSet,
        lease: Lease,
        change: impl FnOnce(Option<&str>) -> Result<Option<String>, DenyError>,
    ) -> Done<()> {
        let before = self.access.inline_policy(self.lane, set).await?;
        let after = change(before.as_deref()).map_err(|error| {
            let why = Text::clip(&error.to_string());
            Outcome::Failed(Trouble::Denied { why })
        })?;
        if before == after {
            return Ok(());
        }
        let alone = || -> Call<'_, ()> {
            Box::pin(async {
                if self.service.clock().now() + CALL_PATIENCE <= lease.until {
                    return Ok(());
                }
                let why = "not asked: it took too long to be alone with the policy";
                Err(AccessError::new(AccessErrorKind::NoAnswer, why))
            })
        };
        let put = self
            .access
            .set_inline_policy(self.lane, set, after.as_deref(), &alone);
        Ok(put.await?)
    }
}

fn unavailable(error: &StoreError) -> Outcome {
    passing(&error.to_string())
}
