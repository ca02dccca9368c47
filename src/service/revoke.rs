//! Waiting for the end of a revoke, and its result.

use crate::clock::Uptime;
use crate::domain::{Millis, Request, RequestId, State};

use super::{Service, ServiceError};

impl Service {
    /// Returns when this process revokes the request. If another process does, it may return late
    /// or never.
    pub(crate) async fn until_revoked(&self, id: RequestId) {
        let mut changes = self.changes.listen(id);
        while !matches!(self.request(id).await, Ok(request) if request.state.is_being_revoked()) {
            changes.changed().await;
        }
    }

    /// Waits for the end of a revoke, or until `deadline`; returns the request as it is then.
    pub async fn follow(&self, id: RequestId, deadline: Uptime) -> Result<Request, ServiceError> {
        // Another replica may finish the removal, and does not notify this process.
        const LOOK_AGAIN: Millis = Millis::seconds(1);
        let mut changes = self.changes.listen(id);
        loop {
            let request = self.request(id).await?;
            let now = self.clock.uptime();
            if request.state.is_settled() || now >= deadline {
                return Ok(request);
            }
            let again = deadline.min(now + LOOK_AGAIN);
            tokio::select! {
                biased;
                () = changes.changed() => {}
                () = self.clock.sleep_until(again) => {}
            }
        }
    }
}

/// The result of a revoke that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeResult {
    /// The request is REVOKED: AWS shows that the access is gone.
    Revoked(Request),
    /// The removal continues.
    Continues(Request),
    /// The request ended as DENIED, CANCELLED or EXPIRED, or in ERROR because AWS shows an
    /// assignment that this request did not make.
    EndedOtherwise(Request),
}

impl RevokeResult {
    pub fn of(request: Request) -> Self {
        match request.state {
            State::Revoked { .. } => Self::Revoked(request),
            State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Error(_) => Self::EndedOtherwise(request),
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Granted
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. } => Self::Continues(request),
        }
    }
}
