//! Questions about the state of a request. A question whose answer a new state can change names
//! every state, so that the compiler reports the new state here.

use super::{Ending, Request, State};
use crate::domain::{Millis, Timestamp};

/// AWS usually needs seconds for a removal. One that takes longer than this is overdue, whether it
/// waits for its turn, for other operations in its account or for AWS.
const REMOVED_WITHIN: Millis = Millis::minutes(2);

impl Request {
    /// When the request becomes overdue, if it goes on like this: the end of a grant, and some time
    /// after the beginning of a removal or of the check of an end at AWS.
    pub fn overdue_at(&self) -> Option<Timestamp> {
        let until = self.grant.period.map(|period| period.until);
        match &self.state {
            State::Granted => until,
            State::Removing { ending } => {
                let begun = match ending {
                    Ending::Expired => until.unwrap_or(self.version.chain.last_at),
                    Ending::Revoked { asked_at, .. } => *asked_at,
                    Ending::Failed { .. } => self.version.chain.last_at,
                };
                Some(begun + REMOVED_WITHIN)
            }
            // A failure makes it due later, and is counted as such.
            State::Checking { .. } | State::Unsettled { .. } => {
                self.schedule.due_at.map(|due_at| due_at + REMOVED_WITHIN)
            }
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_) => None,
        }
    }
}

impl State {
    /// Whether the access of a request in this state begins as soon as it is due.
    pub fn may_begin(&self) -> bool {
        match self {
            Self::Approved | Self::Assigning => true,
            Self::Pending
            | Self::Granted
            | Self::Removing { .. }
            | Self::Checking { .. }
            | Self::Unsettled { .. }
            | Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::Error(_) => false,
        }
    }

    /// Whether the access of a request in this state has to end, or may not begin.
    pub fn must_end(&self) -> bool {
        match self {
            Self::Removing { .. } | Self::Checking { .. } | Self::Unsettled { .. } => true,
            Self::Pending
            | Self::Approved
            | Self::Assigning
            | Self::Granted
            | Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::Error(_) => false,
        }
    }

    /// Why jit removes the access of a request in this state; absent if it removes none.
    fn ending(&self) -> Option<&Ending> {
        match self {
            Self::Removing { ending } => Some(ending),
            Self::Pending
            | Self::Approved
            | Self::Assigning
            | Self::Granted
            | Self::Checking { .. }
            | Self::Unsettled { .. }
            | Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::Error(_) => None,
        }
    }

    /// Whether jit removes the access of a request in this state.
    pub fn is_removing(&self) -> bool {
        self.ending().is_some()
    }

    /// Whether jit removes the access because a person asked for it.
    pub fn is_being_revoked(&self) -> bool {
        self.ending().is_some_and(|ending| match ending {
            Ending::Revoked { .. } => true,
            Ending::Expired | Ending::Failed { .. } => false,
        })
    }

    /// Whether a worker has yet to ask AWS whether the access of an ended request is left.
    pub fn is_checked_at_aws(&self) -> bool {
        matches!(self, Self::Checking { .. } | Self::Unsettled { .. })
    }

    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Revoked { .. })
    }

    /// Whether the request ended in ERROR.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}
