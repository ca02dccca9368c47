//! The inline policy of a permission set, at the pace that AWS allows.

use super::{Gate, OPERATION_TIMEOUT, OperationResult, Paced, between_polls, through};
use crate::domain::{Lane, Millis, PermissionSet};
use crate::identity_center::quota::Turn;
use crate::identity_center::{AssignmentPlace, IdentityCenterError, Progress};

impl Paced {
    pub async fn session_duration(
        &self,
        lane: Lane,
        set: &PermissionSet,
    ) -> Result<Millis, IdentityCenterError> {
        let ask = || self.access.session_duration(set);
        self.with_retries(Turn::look(lane), ask).await
    }

    pub async fn inline_policy(
        &self,
        lane: Lane,
        set: &PermissionSet,
    ) -> Result<Option<String>, IdentityCenterError> {
        let ask = || self.access.inline_policy(set);
        self.with_retries(Turn::look(lane), ask).await
    }

    /// Changes a set's policy, unless the gate refuses it at its turn.
    pub async fn set_inline_policy<'c>(
        &'c self,
        lane: Lane,
        set: &'c PermissionSet,
        policy: Option<&'c str>,
        gate: &'c dyn Gate<'c>,
    ) -> Result<(), IdentityCenterError> {
        let call = || through(gate, self.access.set_inline_policy(set, policy));
        self.with_retries(Turn::change(lane), call).await
    }

    /// Provisions a changed set in an account, and waits until the operation has ended.
    pub async fn provision(
        &self,
        lane: Lane,
        place: &AssignmentPlace,
    ) -> Result<OperationResult, IdentityCenterError> {
        let mut room = Some(self.room_to_remove(lane, &place.account_id).await);
        let begun = self.clock.uptime();
        let call = || self.access.provision(place);
        let under_way = self.with_retries(Turn::change(lane), call).await?;
        loop {
            let now = self.clock.uptime();
            self.clock.sleep(between_polls(now - begun)).await;
            room = room.filter(|_| now - begun < self.room_timeout.get());
            if now - begun >= OPERATION_TIMEOUT {
                return Ok(OperationResult::NotYet);
            }
            let ask = || self.access.provisioned(&under_way);
            match self.with_retries(Turn::poll(lane), ask).await? {
                Progress::InProgress => {}
                Progress::Succeeded => return Ok(OperationResult::Well),
                Progress::Failed { why } => return Ok(OperationResult::Badly { why }),
            }
        }
    }
}
