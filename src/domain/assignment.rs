//! The assignment, a form of access: Identity Center assigns a permission set to a user.
//!
//! Here is what only this form needs: the work of a worker and what it finds, the calls in
//! flight, the holding, and the old credentials after the end.

mod holding;

pub(super) use holding::{ARN_DETAIL, MOST_HOLDERS, USER_DETAIL};
pub use holding::{Holding, HoldingKey};

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{LeaseToken, Person, RequestId, Text, Timestamp, UserId};

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
    /// The result of the preparation, if this outcome comes before the create.
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

/// The result of the preparation: the facts that a worker has before the create.
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

/// The knowledge of a worker about calls that may still take effect.
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

/// The record of an assignment that the store keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentRecord {
    /// The holding of the assignment that a request holds or asks for.
    pub holding: Option<Holding>,
}

/// The change that a decision makes to the record of an assignment.
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

/// The facts about the assignment in the record of a request.
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
