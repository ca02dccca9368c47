//! The assignment, a form of access: Identity Center assigns a permission set to a user.
//!
//! Here is what only this form needs: the work of a worker and what it finds, the calls in
//! flight, the holding, and the old credentials after the end.

mod holding;

pub(super) use holding::{ARN_DETAIL, MOST_HOLDERS};
pub use holding::{Holding, HoldingKey};

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    AccessChange, AccessFacts, AccessRecord, EventKind, LeaseToken, Period, Person, RequestId,
    State, Text, Timestamp, UserId,
};

/// The events after which the record may have other old credentials than before: those about them,
/// and each end of an access.
pub(super) const CHANGES_OLD_CREDENTIALS: [EventKind; 10] = [
    EventKind::SessionsDenied,
    EventKind::SessionsEnded,
    EventKind::SessionsNotEnded,
    EventKind::SessionDenyLifted,
    EventKind::StrayAccessFound,
    EventKind::StrayAccessRemoved,
    EventKind::CleanedUp,
    EventKind::Revoked,
    EventKind::Expired,
    EventKind::Error,
];
/// The details of these events that say which old credentials the record has after the event.
pub(super) const ENDING_DETAIL: &str = "sessions_ending_before";
pub(super) const DENIED_DETAIL: &str = "sessions_denied_until";

/// The next work for an assignment: one operation at Identity Center.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignmentWork {
    /// Find the user, and look whether the assignment exists already.
    Prepare,
    /// Create the assignment, and wait until the operation has ended.
    Create(HoldingKey),
    /// Delete the assignment, and wait until AWS shows that it is gone.
    Remove(HoldingKey),
    /// Look whether the assignment exists; change nothing.
    Look(HoldingKey),
    /// Deny everything to credentials that were fetched before this time.
    DenyOldCredentials(HoldingKey, Timestamp),
    /// Remove that deny statement.
    LiftDeny(HoldingKey),
}

impl fmt::Display for AssignmentWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare => f.write_str("prepare the assignment"),
            Self::Create(key) => write!(f, "create {key}"),
            Self::Remove(key) => write!(f, "remove {key}"),
            Self::Look(key) => write!(f, "look at {key}"),
            Self::DenyOldCredentials(key, _) => write!(f, "deny old credentials of {key}"),
            Self::LiftDeny(key) => write!(f, "lift the deny for {key}"),
        }
    }
}

/// The result of the work of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignmentOutcome {
    /// The grant can be decided.
    Prepared(Preparation),
    /// Identity Center has no such user, or several; a retry does not help.
    NoUser {
        /// Becomes the [`ErrorEnd::why`](super::ErrorEnd::why) of the request.
        why: Text,
    },
    /// AWS made the assignment.
    Created,
    /// AWS shows no assignment.
    Gone,
    /// AWS shows an assignment (the answer to [`AssignmentWork::Look`]).
    StillThere,
    /// Old credentials are denied everything; the deny statement can be removed after `until`.
    /// The deny statements of the `dropped` requests were removed to make room for it.
    OldCredentialsDenied {
        /// When the last of these credentials has expired.
        until: Timestamp,
        /// The requests whose deny statements were removed.
        dropped: Vec<RequestId>,
    },
    /// Old credentials do not work any more, because the IAM role of the permission set is gone.
    OldCredentialsGone,
    /// The deny statement was removed.
    DenyLifted,
}

impl AssignmentOutcome {
    /// What a worker knows before the create, if this outcome comes before it.
    pub fn preparation(&self) -> Option<&Preparation> {
        match self {
            Self::Prepared(preparation) => Some(preparation),
            Self::NoUser { .. }
            | Self::Created
            | Self::Gone
            | Self::StillThere
            | Self::OldCredentialsDenied { .. }
            | Self::OldCredentialsGone
            | Self::DenyLifted => None,
        }
    }
}

/// What a worker knows before the create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// The user in Identity Center with the requester's e-mail address.
    pub user: UserId,
    /// Whether the assignment existed when its holding had this `revision`.
    pub presence: Presence,
    /// The [`Holding::revision`] before the look.
    pub revision: u64,
    /// The ARN of the permission set.
    pub permission_set_arn: String,
}

/// Whether AWS shows an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    Present,
}

/// A call that changes an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentCall {
    Create,
    Delete,
}

/// What a worker knows about calls that may still take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentCalls {
    /// A call that it sent under its own lease without an answer.
    pub unanswered: Option<AssignmentCall>,
    /// The lease may have lapsed before that call ended, because the process was suspended. The
    /// call may take effect after the next worker has looked at AWS.
    pub overran: bool,
    /// The leases of earlier unanswered calls that cannot take effect any more: this worker had
    /// known of them for `CALL_PATIENCE` before it asked AWS for what it reports.
    pub waited_out: BTreeSet<LeaseToken>,
}

impl AssignmentCalls {
    /// A call of this kind has no answer.
    pub(super) fn unanswered(call: AssignmentCall) -> Self {
        Self {
            unanswered: Some(call),
            ..Self::default()
        }
    }
}

/// AWS showed no assignment to a cleanup that had a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignmentProof {
    /// The token of the lease that the cleanup took before the look.
    pub lease: LeaseToken,
    /// The [`Holding::revision`] before the look; absent if the request has no assignment.
    pub revision: Option<u64>,
}

/// What the store keeps about an assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentRecord {
    /// The holding of the assignment that a request holds or asks for.
    pub holding: Option<Holding>,
}

/// What a decision changes about an assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentChange {
    /// The holding, if the decision changes it.
    pub holding: Option<Holding>,
    /// The other holders of the assignment; the service revokes them in the same commit.
    pub co_holders: Option<CoHolders>,
}

/// A revoke removes the assignment, so it also ends every other holder's access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoHolders {
    /// The other holders, without the request of the decision.
    pub requests: Vec<RequestId>,
    /// The person who revoked; absent if an operator wrote the status into the store.
    pub by: Option<Person>,
    /// Why that person revoked; absent if the person gave no reason.
    pub reason: Option<Text>,
}

/// What the record of a request keeps about its assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentFacts {
    /// The user in Identity Center. A worker looks it up once; the removal uses the same id.
    pub user: Option<UserId>,
    /// The work that a settled request may still have with old credentials.
    #[serde(default, rename = "sessions", skip_serializing_if = "Option::is_none")]
    pub old_credentials: Option<OldCredentials>,
}

/// Credentials that a person fetched before the end of the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "are", rename_all = "snake_case")]
pub enum OldCredentials {
    /// To be denied, if they were fetched before this time.
    Ending { before: Timestamp },
    /// Denied by a deny statement; the last of them expires at this time.
    Denied { until: Timestamp },
}

impl OldCredentials {
    /// When a worker has to deny them, or to remove the deny statement.
    pub fn due_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ending { .. } => now,
            Self::Denied { until } => until,
        }
    }
}

impl AssignmentFacts {
    /// Whether a worker has yet to deny old credentials.
    pub(super) fn has_credentials_to_deny(&self) -> bool {
        matches!(self.old_credentials, Some(OldCredentials::Ending { .. }))
    }
}

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

    pub(super) fn set_user(&mut self, user: UserId) {
        match self {
            Self::Assignment(facts) => facts.user = Some(user),
        }
    }

    /// C: what an event of this kind says of the old credentials, so that the history shows that the
    /// record must have them.
    pub(super) fn old_credentials_detail(&self, kind: EventKind) -> Option<(&'static str, String)> {
        // SESSIONS_DENIED has its `until`.
        if kind == EventKind::SessionsDenied || !CHANGES_OLD_CREDENTIALS.contains(&kind) {
            return None;
        }
        Some(match self.old_credentials()? {
            OldCredentials::Ending { before } => (ENDING_DETAIL, before.to_string()),
            OldCredentials::Denied { until } => (DENIED_DETAIL, until.to_string()),
        })
    }

    pub(super) fn set_old_credentials(&mut self, old: Option<OldCredentials>) {
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

impl State {
    /// Whether a worker that has the lease may have sent a create or a delete.
    pub fn may_have_sent_calls(&self) -> bool {
        match self {
            Self::Assigning | Self::Removing { .. } | Self::Unsettled { .. } => true,
            Self::Pending
            | Self::Approved
            | Self::Granted
            | Self::Checking { .. }
            | Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::Error(_) => false,
        }
    }

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
