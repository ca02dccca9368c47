//! The record of an access, as a step reads and changes it.

use crate::domain::{
    AccessChange, AccessRecord, AssignmentChange, AssignmentRecord, CoHolders, Holding,
};

/// The record of an access, as read and as changed by a step.
pub(super) enum AccessStep {
    Assignment(AssignmentStep),
}

impl AccessStep {
    pub fn new(record: AccessRecord) -> Self {
        match record {
            AccessRecord::Assignment(record) => Self::Assignment(AssignmentStep::new(record)),
        }
    }

    pub fn into_change(self) -> AccessChange {
        match self {
            Self::Assignment(step) => AccessChange::Assignment(step.into_change()),
        }
    }
}

/// The record of an assignment, as read and as changed by a step.
pub(super) struct AssignmentStep {
    before: Option<Holding>,
    pub holding: Option<Holding>,
    pub co_holders: Option<CoHolders>,
}

impl AssignmentStep {
    fn new(record: AssignmentRecord) -> Self {
        Self {
            before: record.holding.clone(),
            holding: record.holding,
            co_holders: None,
        }
    }

    fn into_change(self) -> AssignmentChange {
        let before = self.before;
        let changed = self.holding.filter(|now| Some(now) != before.as_ref());
        AssignmentChange {
            holding: changed.map(|holding| Holding {
                revision: holding.revision + 1,
                ..holding
            }),
            co_holders: self.co_holders,
        }
    }
}
