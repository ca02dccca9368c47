//! Checks of an operator's command before it changes a record: whether an assignment is
//! gone, or exists without a holder.

use super::assignment::presence;
use super::{LOOKS_AGAIN, Worker};
use crate::domain::{
    AssignmentProof, Command, HoldingKey, Lane, LeaseToken, Millis, Outcome, Presence, Proof,
    Refusal, Request, RequestId,
};
use crate::identity_center::IdentityCenterError;
use crate::service::{Handled, ServiceError};
use crate::store::StoreError;

/// The most due removals of a lane that an operator's command reads.
const MOST_REMOVALS: usize = 10_000;

#[derive(Debug)]
pub enum Proven {
    /// AWS shows no assignment. The caller has the lease until it gives the command, or calls
    /// `let_go`.
    Gone(Proof),
    StillThere,
    /// The request is settled already.
    Over(Box<Request>),
}

/// The assignment that AWS shows, and its holders.
#[derive(Debug)]
pub enum Remains {
    Nothing,
    /// The assignment exists, and no request holds it.
    Unheld {
        /// The revision of the holding after the look.
        revision: u64,
    },
    /// These requests hold the assignment, whether AWS shows it yet or not.
    HeldBy(Vec<RequestId>),
}

#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error("{0}")]
    Service(#[from] ServiceError),
    #[error("{0}")]
    IdentityCenter(#[from] IdentityCenterError),
}

impl Worker {
    /// Looks for the assignment of a request that is not settled, under the lease of the request:
    /// while another worker has it, a look proves nothing. `waits` is called meanwhile.
    pub async fn prove_gone(
        &self,
        id: RequestId,
        waits: impl FnMut(),
    ) -> Result<Proven, ProveError> {
        let (lease, handled) = match self.hold(id, waits).await {
            Ok(leased) => leased,
            Err(ServiceError::Refused(_)) => {
                let request = self.service.request(id).await?;
                return Ok(Proven::Over(Box::new(request)));
            }
            Err(error) => return Err(error.into()),
        };
        let proven = match self.presence_of(&handled.request).await {
            Ok((Presence::Absent, revision)) => {
                let proof = AssignmentProof { lease, revision };
                return Ok(Proven::Gone(Proof::Assignment(proof)));
            }
            Ok((Presence::Present, _)) => Ok(Proven::StillThere),
            Err(error) => Err(error),
        };
        self.let_go(id, lease).await;
        proven
    }

    /// The presence that AWS shows, and the revision of the holding before the look.
    async fn presence_of(&self, request: &Request) -> Result<(Presence, Option<u64>), ProveError> {
        let Some(key) = request.holding_key() else {
            return Ok((Presence::Absent, None));
        };
        let holding = self.service.holding(key.clone()).await;
        let holding = holding.map_err(ServiceError::from)?;
        let seen = self.identity_center.look(Lane::Revoke, &key).await;
        Ok((presence(seen, Some(&holding))?, Some(holding.revision)))
    }

    /// Whether the assignment exists, and who holds it.
    pub async fn remains_of(&self, lane: Lane, key: &HoldingKey) -> Result<Remains, ProveError> {
        // In this order: a request that joins after the look has looked at AWS itself.
        let seen = self.identity_center.look(lane, key).await?;
        let holding = self.service.holding(key.clone()).await;
        let holding = holding.map_err(ServiceError::from)?;
        // A holder whose create is in flight has the access soon, although AWS does not show it.
        if !holding.holders.is_empty() {
            return Ok(Remains::HeldBy(holding.holders.into_iter().collect()));
        }
        Ok(match seen {
            Presence::Absent => Remains::Nothing,
            Presence::Present => Remains::Unheld {
                revision: holding.revision,
            },
        })
    }

    /// The requests whose removal is due within this time, also of those with a lease.
    pub async fn removals_within(&self, span: Millis) -> Result<Vec<RequestId>, StoreError> {
        let by = self.service.clock().now() + span;
        let mut all = Vec::new();
        for lane in [Lane::Revoke, Lane::Remove] {
            let due = self.service.store().due(lane, by, MOST_REMOVALS).await?;
            all.extend(due.ready);
        }
        Ok(all)
    }

    /// Gives the lease back after a check that is not used. If that fails, the lease lapses.
    pub async fn let_go(&self, id: RequestId, lease: LeaseToken) {
        let finished = Command::Finished {
            lease,
            outcome: Outcome::Interrupted,
            calls: None,
        };
        if let Err(error) = self.service.handle(id, finished, None).await {
            tracing::debug!(request_id = %id, %error, "lease not given back; it lapses by itself");
        }
    }

    /// Takes the lease on a request that is not settled, due or not, when no other worker has it.
    async fn hold(
        &self,
        id: RequestId,
        mut waits: impl FnMut(),
    ) -> Result<(LeaseToken, Handled), ServiceError> {
        let clock = self.service.clock();
        loop {
            let claim = self.claim(id, clock.now());
            match self.service.handle(id, Command::Hold { claim }, None).await {
                Ok(handled) => return Ok((claim.lease.token, handled)),
                Err(ServiceError::Refused(Refusal::Leased { lease: Some(other) })) => {
                    self.watch.see_lease(id, other, clock.uptime());
                }
                Err(error) => return Err(error),
            }
            waits();
            clock.sleep(LOOKS_AGAIN).await;
        }
    }
}
