//! What a state says about the beginning and the end of the access.

use super::State;

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
}
