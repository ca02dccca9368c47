//! The assignment of a request: the holding that it needs, and what people see of it.

use super::{LeaseHolder, Period, Request, State};
use crate::domain::{Holding, HoldingKey, Outcome, UserId};

impl Request {
    /// The server that had the lease is dead. It sends no more calls; those in flight may still
    /// take effect, and the holding records them. Only the worker of a holder sends a create or a
    /// delete. K13: an operator's command may still run, so its lease stays until it lapses.
    pub fn without_its_server(&self, holding: Option<&Holding>) -> Option<(Self, Option<Holding>)> {
        let lease = self
            .schedule
            .lease
            .filter(|lease| lease.by == LeaseHolder::Server)?;
        let holding = holding.filter(|holding| holding.holds(self.id));
        let mut request = self.at_revision(self.version.revision + 1);
        request.schedule.lease = None;
        Some((request, holding.map(|one| one.orphaned(lease.token))))
    }

    /// The key of the assignment that this request holds or asks for, once the user is known.
    pub fn holding_key(&self) -> Option<HoldingKey> {
        let user = self.access.user()?;
        Some(self.holding_key_of(user.clone()))
    }

    /// The same key for a user that the record does not name yet.
    pub fn holding_key_of(&self, user: UserId) -> HoldingKey {
        HoldingKey {
            account_id: self.asked.account_id.clone(),
            permission_set: self.asked.permission_set.clone(),
            user,
        }
    }

    /// The key of the holding that a decision about a command with this outcome needs.
    pub fn holding_key_for(&self, outcome: Option<&Outcome>) -> Option<HoldingKey> {
        let prepared = match outcome {
            Some(Outcome::Assignment(outcome)) => outcome.preparation(),
            Some(Outcome::Failed(_) | Outcome::Interrupted) | None => None,
        };
        match prepared {
            Some(prepared) => Some(self.holding_key_of(prepared.user.clone())),
            None => self.holding_key(),
        }
    }
}

impl State {
    /// The state of the assignment; absent if jit never asked AWS to make one.
    pub fn assignment_status(&self, granted: Option<Period>) -> Option<&'static str> {
        match self {
            Self::Pending | Self::Approved | Self::Denied { .. } | Self::Cancelled { .. } => None,
            Self::Assigning => Some("CREATING"),
            Self::Granted => Some("PROVISIONED"),
            Self::Removing { .. } => Some("DELETING"),
            Self::Checking { .. } | Self::Unsettled { .. } => Some("CHECKING"),
            Self::Expired { .. } | Self::Revoked { .. } | Self::Error(_) => {
                granted.map(|_| "DELETED")
            }
        }
    }
}
