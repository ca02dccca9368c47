//! Old credentials: a deny statement in the permission set's inline policy ends them, until
//! the last of them has expired.
//!
//! A policy has no revision, so only one process at a time may read, change and write it. A
//! lease in the store ensures that across all replicas, and a worker writes the policy only if
//! the write takes effect while its lease lasts.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{AssignmentExecution, Done, not_sent, unfinished};
use crate::domain::{
    AssignmentOutcome, HoldingKey, Lease, LeaseHolder, LeaseToken, Millis, PermissionSet,
    RequestId, Timestamp, WorkFailure,
};
use crate::identity_center::deny::{self, DenyError, PolicyDeny};
use crate::identity_center::{AssignmentPlace, CALL_PATIENCE, Gate, OperationResult, PendingCall};
use crate::service::work_queue::{BothClocks, LeaseDeadline, lease_again};
use crate::store::Taken;

/// How long a worker waits for the lease on a policy: longer than the lease of a dead worker
/// lasts.
const LEASE_TIMEOUT: Millis = Millis(Lease::LASTS.0 + Millis::seconds(6).0);
const PAUSE: Millis = Millis(200);

impl AssignmentExecution<'_> {
    pub(super) async fn deny_old_credentials(&self, key: &HoldingKey, before: Timestamp) -> Done {
        let place = AssignmentPlace::of(key);
        if self
            .identity_center
            .assignees(self.lane, &place)
            .await?
            .is_empty()
        {
            // An earlier worker may have placed the statement and died before its report.
            self.remove_statement(key).await?;
            return Ok(AssignmentOutcome::OldCredentialsGone);
        }
        let set = &key.permission_set;
        let lasting = self
            .identity_center
            .session_duration(self.lane, set)
            .await?;
        let deny = PolicyDeny {
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
        self.provision(&place).await?;
        let until = before + lasting;
        Ok(AssignmentOutcome::OldCredentialsDenied { until, dropped })
    }

    pub(super) async fn lift_deny(&self, key: &HoldingKey) -> Done {
        let place = AssignmentPlace::of(key);
        self.remove_statement(key).await?;
        // Without assignees the role is gone, so there is no account to provision.
        if !self
            .identity_center
            .assignees(self.lane, &place)
            .await?
            .is_empty()
        {
            self.provision(&place).await?;
        }
        Ok(AssignmentOutcome::DenyLifted)
    }

    async fn remove_statement(&self, key: &HoldingKey) -> Done<()> {
        let request: RequestId = self.id;
        let without = |policy: Option<&str>| deny::without(policy, request);
        self.change_policy(&key.permission_set, without).await
    }

    async fn provision(&self, place: &AssignmentPlace) -> Done<()> {
        let set = &place.permission_set;
        match self.identity_center.provision(self.lane, place).await? {
            OperationResult::Badly { why } => {
                let why = format!("the permission set could not be provisioned: {why}");
                Err(WorkFailure::refused(&why).into())
            }
            OperationResult::NotYet => Err(unfinished("provisioning", set.as_str()).into()),
            OperationResult::Well | OperationResult::Somehow => Ok(()),
        }
    }

    /// Reads, changes and writes the policy under a lease.
    async fn change_policy(
        &self,
        set: &PermissionSet,
        change: impl FnOnce(Option<&str>) -> Result<Option<String>, DenyError>,
    ) -> Done<()> {
        let name = format!("inline-policy/{set}");
        let (lease, deadline) = self.take_policy_lease(&name).await?;
        let put = Put {
            execution: self,
            deadline: &deadline,
            is_unanswered: AtomicBool::new(false),
        };
        let changed = self.change_under_lease(set, &put, change).await;
        // An unanswered write must not overwrite the policy of the next lease, so the lease is
        // kept: it lapses after the call can take effect.
        if !put.is_unanswered.load(Ordering::SeqCst)
            && let Err(error) = self.service.store().give_lease(&name, lease).await
        {
            tracing::warn!(%error, %name, "lease not given back; it lapses by itself");
        }
        changed
    }

    /// Takes the lease on the policy, or fails after `LEASE_TIMEOUT`.
    async fn take_policy_lease(&self, name: &str) -> Done<(LeaseToken, LeaseDeadline)> {
        let (clock, store) = (self.service.clock(), self.service.store());
        let token = LeaseToken(clock.draw());
        let until = clock.uptime() + LEASE_TIMEOUT;
        let mut lapsed = None;
        loop {
            let since = BothClocks::now(clock);
            let lease = lease_again(token, clock, LeaseHolder::Server);
            let taken = store.take_lease(name, lease, lapsed).await;
            match taken.map_err(|error| WorkFailure::passing(&error.to_string()))? {
                Taken::Yes => return Ok((token, LeaseDeadline::since(since))),
                Taken::ByAnother(other) => {
                    lapsed = self.watch.see_named_lease(name, other, clock.uptime());
                }
            }
            if clock.uptime() >= until {
                let why = format!("another worker is changing {name}");
                return Err(WorkFailure::passing(&why).into());
            }
            clock.sleep(PAUSE).await;
        }
    }

    async fn change_under_lease(
        &self,
        set: &PermissionSet,
        put: &Put<'_>,
        change: impl FnOnce(Option<&str>) -> Result<Option<String>, DenyError>,
    ) -> Done<()> {
        let before = self.identity_center.inline_policy(self.lane, set).await?;
        let after = change(before.as_deref());
        let after = after.map_err(|error| WorkFailure::denied(&error.to_string()))?;
        if before == after {
            return Ok(());
        }
        let put = self
            .identity_center
            .set_inline_policy(self.lane, set, after.as_deref(), put);
        Ok(put.await?)
    }
}

/// Writes the policy only if the lease certainly lasts longer than the call.
struct Put<'h> {
    execution: &'h AssignmentExecution<'h>,
    deadline: &'h LeaseDeadline,
    is_unanswered: AtomicBool,
}

impl<'h> Gate<'h> for Put<'h> {
    fn may_be_sent(&self) -> PendingCall<'h, ()> {
        let lasts = self
            .deadline
            .lasts_for(CALL_PATIENCE, self.execution.service.clock());
        self.is_unanswered.fetch_or(lasts, Ordering::SeqCst);
        Box::pin(async move {
            match lasts {
                true => Ok(()),
                false => Err(not_sent("the lease on the policy may not last long enough")),
            }
        })
    }

    fn was_answered(&self) {
        self.is_unanswered.store(false, Ordering::SeqCst);
    }
}
