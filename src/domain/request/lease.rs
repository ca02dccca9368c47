//! Leases, and when a request can be claimed.

use serde::{Deserialize, Serialize};

use super::{Request, State};
use crate::domain::{LeaseToken, Millis, Timestamp};

/// The right of one worker to work on a request, for as long as it renews the lease.
///
/// Another worker takes the lease over after it has seen the lease unchanged for
/// `Lease::LASTS` of its own uptime: the clocks of two processes need not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Stays the same when the lease is renewed.
    pub token: LeaseToken,
    /// The worker renews the lease before this time. After it, other workers watch whether the
    /// lease changes.
    pub until: Timestamp,
    /// The kind of process that holds the lease; absent in the store for a server.
    #[serde(default, skip_serializing_if = "LeaseHolder::is_server")]
    pub by: LeaseHolder,
}

/// The kind of process that holds a lease. A server that starts knows that the server before
/// it on the same file is dead; it does not know whether an operator's command still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseHolder {
    #[default]
    Server,
    Operator,
}

impl LeaseHolder {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_server(&self) -> bool {
        *self == Self::Server
    }
}

/// A worker's offer to work on a request under a lease of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease that the worker takes.
    pub lease: Lease,
    /// The lease of another worker, if this worker has seen it unchanged for as long as a lease
    /// lasts, by its own uptime: the other worker sends no more calls.
    pub lapsed: Option<Lease>,
    /// The worker searches for due times up to this one: now, or a later time, so that it finds
    /// next tries that a wrong clock put too late. Dates that people know are not brought forward.
    pub as_of: Timestamp,
}

impl Lease {
    /// How long a worker may act after it took or renewed the lease.
    pub const LASTS: Millis = Millis::seconds(24);
    /// How often a worker renews its lease.
    pub const RENEWED_EVERY: Millis = Millis::seconds(8);
    /// Other workers watch a lease that was not renewed for this long.
    pub const TRUSTED_FOR: Millis = Millis::seconds(12);
}

impl Request {
    /// When a worker has to work on this request next; absent if never. P1: a grant is due at its
    /// end at the latest, whatever its record has as the due time.
    pub fn due_at(&self) -> Option<Timestamp> {
        let due = self.schedule.due_at;
        let is_granted = self.state == State::Granted;
        match self.grant.period.filter(|_| is_granted) {
            Some(period) => Some(due.map_or(period.until, |due| due.min(period.until))),
            None => due,
        }
    }

    /// The earliest time at which a worker may claim this request: it is due, and its lease is
    /// over. C: a lease that no worker would take for so long does not hide a date that people
    /// know; whether the lease has lapsed is for the worker to see.
    pub fn claimable_at(&self) -> Option<Timestamp> {
        let due = self.due_at()?;
        let latest = self.is_dated().then(|| due + Lease::LASTS);
        let free = self.schedule.lease.map_or(due, |lease| {
            latest.map_or(lease.until, |latest| lease.until.min(latest))
        });
        Some(due.max(free))
    }

    /// The lease of another worker, unless the claim says that this lease has lapsed.
    pub fn leased_to_another(&self, claim: &Claim) -> Option<Lease> {
        self.schedule
            .lease
            .filter(|lease| lease.token != claim.lease.token && Some(*lease) != claim.lapsed)
    }

    /// Whether the due time is a date that people know. All other due times are times of a next
    /// try.
    pub fn is_dated(&self) -> bool {
        match &self.state {
            State::Pending | State::Granted => true,
            State::Approved => {
                self.asked.start_at.is_some() && self.schedule.due_at == self.asked.start_at
            }
            State::Assigning
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. } => false,
            State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_) => !self.access.has_more_to_end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{at_the_end, record};

    fn until(at: Timestamp) -> Option<Lease> {
        let token = LeaseToken(uuid::Uuid::from_u128(9));
        let by = LeaseHolder::Operator;
        let until = at;
        Some(Lease { token, until, by })
    }

    // C
    #[test]
    fn no_lease_and_no_due_time_hides_a_grant_for_longer_than_a_lease_lasts() {
        let mut request = record("Granted").request;
        let far = at_the_end() + Millis::hours(24 * 365);
        request.schedule.lease = until(far);
        for due in [Some(at_the_end()), Some(far), None] {
            request.schedule.due_at = due;
            assert_eq!(request.due_at(), Some(at_the_end()));
            let most = at_the_end() + Lease::LASTS;
            assert_eq!(request.claimable_at(), Some(most));
        }
        request.schedule.lease = None;
        assert_eq!(request.claimable_at(), Some(at_the_end()));
    }

    /// A worker renews the lease of its removal for as long as AWS needs.
    #[test]
    fn a_lease_on_work_without_a_date_postpones_it_to_its_own_end() {
        let mut request = record("Revoking").request;
        let far = at_the_end() + Millis::hours(1);
        request.schedule.lease = until(far);
        assert_eq!(request.claimable_at(), Some(far));
    }
}
