//! Questions about the state of a request. Each names every state, so that the compiler reports
//! a new state here.

use super::{Ending, State};

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

    /// Whether jit removes the access of a request in this state.
    pub fn is_removing(&self) -> bool {
        match self {
            Self::Removing { .. } => true,
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
            | Self::Error(_) => false,
        }
    }

    /// Whether jit removes the access because a person asked for it.
    pub fn is_being_revoked(&self) -> bool {
        match self {
            Self::Removing {
                ending: Ending::Revoked { .. },
            } => true,
            Self::Removing {
                ending: Ending::Expired | Ending::Failed { .. },
            }
            | Self::Pending
            | Self::Approved
            | Self::Assigning
            | Self::Granted
            | Self::Checking { .. }
            | Self::Unsettled { .. }
            | Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::Error(_) => false,
        }
    }

    pub fn is_revoked(&self) -> bool {
        match self {
            Self::Revoked { .. } => true,
            Self::Pending
            | Self::Approved
            | Self::Assigning
            | Self::Granted
            | Self::Removing { .. }
            | Self::Checking { .. }
            | Self::Unsettled { .. }
            | Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Error(_) => false,
        }
    }

    /// Whether the request ended in ERROR.
    pub fn is_error(&self) -> bool {
        match self {
            Self::Error(_) => true,
            Self::Pending
            | Self::Approved
            | Self::Assigning
            | Self::Granted
            | Self::Removing { .. }
            | Self::Checking { .. }
            | Self::Unsettled { .. }
            | Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. } => false,
        }
    }
}
