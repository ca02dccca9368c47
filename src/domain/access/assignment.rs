//! The facts of an access that only an assignment has.

use super::{AccessChange, AccessFacts, AccessRecord};
use crate::domain::{AssignmentRecord, CoHolders, Holding, OldCredentials, UserId};

impl AccessFacts {
    /// The user in Identity Center, once it is known.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Assignment(facts) => facts.user.as_ref(),
        }
    }

    pub fn old_credentials(&self) -> Option<OldCredentials> {
        match self {
            Self::Assignment(facts) => facts.old_credentials,
        }
    }

    pub(in crate::domain) fn set_user(&mut self, user: UserId) {
        match self {
            Self::Assignment(facts) => facts.user = Some(user),
        }
    }

    pub(in crate::domain) fn set_old_credentials(&mut self, old: Option<OldCredentials>) {
        match self {
            Self::Assignment(facts) => facts.old_credentials = old,
        }
    }
}

impl AccessRecord {
    pub fn holding(&self) -> Option<&Holding> {
        match self {
            Self::Assignment(record) => record.holding.as_ref(),
        }
    }
}

impl AccessChange {
    pub fn holding(&self) -> Option<&Holding> {
        match self {
            Self::Assignment(change) => change.holding.as_ref(),
        }
    }

    pub fn co_holders(&self) -> Option<&CoHolders> {
        match self {
            Self::Assignment(change) => change.co_holders.as_ref(),
        }
    }
}

impl From<Option<Holding>> for AccessRecord {
    fn from(holding: Option<Holding>) -> Self {
        Self::Assignment(AssignmentRecord { holding })
    }
}
