//! The record of an access for a decision, the decisions about other requests in the same commit,
//! and the comparison of the stored record with the requests. All depend on the form of the access.

use std::collections::BTreeMap;

use super::{Service, ServiceError};
use crate::domain::replay::{FactMismatch, compare_holding};
use crate::domain::{
    self, AccessChange, AccessForm, AccessRecord, CoHolders, Command, Decision, Event, Request,
    RequestId, Timestamp,
};
use crate::store::StoreError;

impl Service {
    /// The record of the access of this request, for a decision about this command.
    pub(super) async fn access_of(
        &self,
        request: &Request,
        command: &Command,
    ) -> Result<AccessRecord, StoreError> {
        match request.access.form() {
            AccessForm::Assignment => {
                let holding = match request.holding_key_for(command.outcome()) {
                    Some(key) => Some(self.holding(key).await?),
                    None => None,
                };
                Ok(holding.into())
            }
        }
    }

    /// Compares what the store keeps about the access of this request with the requests that have
    /// it.
    pub(super) async fn compare_access(
        &self,
        request: &Request,
        events: &[Event],
    ) -> Result<Vec<FactMismatch>, StoreError> {
        match request.access.form() {
            AccessForm::Assignment => {
                let holding = match request.holding_key() {
                    Some(key) => self.store.holding(&key).await?,
                    None => return Ok(Vec::new()),
                };
                let mut others = BTreeMap::new();
                for id in holding.iter().flat_map(|one| one.named_beside(request.id)) {
                    match self.store.request(id).await {
                        // K12: it stays a holder, and has a finding of its own.
                        Err(StoreError::Corrupt(_)) => {}
                        other => drop(others.insert(id, other?)),
                    }
                }
                Ok(compare_holding(request, events, holding.as_ref(), &others))
            }
        }
    }

    /// The decisions about other requests that the commit of this change must contain.
    pub(super) async fn decide_along(
        &self,
        id: RequestId,
        change: &AccessChange,
        now: Timestamp,
    ) -> Result<Vec<Decision>, ServiceError> {
        match change {
            AccessChange::Assignment(change) => match &change.co_holders {
                Some(co_holders) => self.revoke_co_holders(id, co_holders, now).await,
                None => Ok(Vec::new()),
            },
        }
    }

    /// Revokes the other holders of an assignment. A holder whose removal runs already, or that
    /// has ended meanwhile, refuses the command and needs no other work.
    async fn revoke_co_holders(
        &self,
        with: RequestId,
        co_holders: &CoHolders,
        now: Timestamp,
    ) -> Result<Vec<Decision>, ServiceError> {
        let mut decisions = Vec::new();
        for &id in &co_holders.requests {
            let (by, reason) = (co_holders.by.clone(), co_holders.reason.clone());
            let command = Command::RevokedWithCoHolder { with, by, reason };
            let record = match self.load(id, &command, None).await {
                Ok(record) => record,
                // K12: it stays a holder, so no request joins the assignment again.
                Err(ServiceError::Store(StoreError::Corrupt(why))) => {
                    tracing::error!(
                        request_id = %id, error = %why,
                        "co-holder is unreadable and keeps its status; its access is removed"
                    );
                    continue;
                }
                Err(error) => return Err(error),
            };
            match domain::decide(record, &self.policy, command, now) {
                Ok(decision) => decisions.push(decision),
                Err(refusal) => {
                    tracing::debug!(
                        request_id = %id, %refusal,
                        "co-holder not revoked: its removal runs already, or it has ended"
                    );
                }
            }
        }
        Ok(decisions)
    }
}
