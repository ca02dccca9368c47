//! The start that a requester named.

use super::{Request, State};
use crate::domain::Timestamp;

impl Request {
    /// When the access is to begin, if the requester named a time and it has not begun or ended.
    pub fn starts_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Pending | State::Approved | State::Assigning => self.asked.start_at,
            State::Granted
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. }
            | State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_) => None,
        }
    }
}
