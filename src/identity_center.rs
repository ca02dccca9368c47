//! Identity Center, as far as jit needs it, and what its answers really mean.
//!
//! `IdentityCenter` is what AWS can be asked: one method, one call. Making and removing an
//! assignment are asynchronous: an accepted call is a promise, and `poll` tells what
//! became of it. Nobody calls it but `Paced`, which asks at the pace that AWS allows.

pub mod deny;
mod paced;
mod quota;
pub mod sandbox;
pub mod sdk;
mod shared_query;

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;

pub use paced::{Gate, OperationResult, Paced, PendingCall};
pub use quota::{Limits, Room};

use crate::domain::{AccountId, Email, HoldingKey, Millis, PermissionSet, UserId};

/// A call that has not arrived after this long never does: whoever implements `IdentityCenter`
/// gives up on it. A worker counts on it, because AWS lets nobody take back a call.
pub const CALL_PATIENCE: Millis = Millis::seconds(10);

#[async_trait]
pub trait IdentityCenter: Send + Sync + 'static {
    /// Whom AWS takes jit for.
    async fn caller(&self) -> Result<String, IdentityCenterError>;
    /// What AWS calls the set of this name; a name can be given to another set.
    fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError>;
    /// The user whose attribute this is; none, if nobody has it.
    async fn find_user(
        &self,
        email: &Email,
        by: UserAttribute,
    ) -> Result<Option<UserId>, IdentityCenterError>;
    /// Who has this permission set in this account now; `after` is the page before.
    async fn assigned(
        &self,
        place: &AssignmentPlace,
        after: Option<&str>,
    ) -> Result<Page<Assignee>, IdentityCenterError>;
    /// Starts to make an assignment. One that exists already succeeds.
    async fn create(&self, key: &HoldingKey) -> Result<Operation, IdentityCenterError>;
    /// Starts to remove an assignment, unless AWS says that there is none.
    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, IdentityCenterError>;
    async fn poll(&self, operation: &Operation) -> Result<Progress, IdentityCenterError>;
    /// How long credentials of this set last at most.
    async fn session_duration(&self, set: &PermissionSet) -> Result<Millis, IdentityCenterError>;
    async fn inline_policy(
        &self,
        set: &PermissionSet,
    ) -> Result<Option<String>, IdentityCenterError>;
    /// None takes it away.
    async fn set_inline_policy(
        &self,
        set: &PermissionSet,
        policy: Option<&str>,
    ) -> Result<(), IdentityCenterError>;
    /// Starts to bring a changed set into an account.
    async fn provision(&self, place: &AssignmentPlace)
    -> Result<Provisioning, IdentityCenterError>;
    async fn provisioned(
        &self,
        provisioning: &Provisioning,
    ) -> Result<Progress, IdentityCenterError>;
    /// The ids of all operations of this kind that are not over, whoever began them.
    async fn under_way(
        &self,
        kind: OperationKind,
        after: Option<&str>,
    ) -> Result<Page<String>, IdentityCenterError>;
}

/// What a person can be known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserAttribute {
    UserName,
    Email,
}

/// Where an assignment is made: AWS lists who has one there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentPlace {
    pub account_id: AccountId,
    pub permission_set: PermissionSet,
}

impl AssignmentPlace {
    pub fn of(key: &HoldingKey) -> Self {
        Self {
            account_id: key.account_id.clone(),
            permission_set: key.permission_set.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignee {
    User(UserId),
    /// Never jit's: it assigns to users alone.
    Group(String),
}

pub type Assignees = BTreeSet<Assignee>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// An accepted call, to be asked about until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub kind: OperationKind,
    pub id: String,
}

/// An accepted provisioning, to be asked about until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioning(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    Create,
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    Started(Operation),
    /// ResourceNotFoundException: gone already.
    NothingThere,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    InProgress,
    Succeeded,
    /// FAILED, with the FailureReason. A delete that failed because there was nothing to
    /// delete has succeeded, and says so.
    Failed {
        why: String,
    },
}

/// Why a call was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {why}")]
pub struct IdentityCenterError {
    pub kind: IdentityCenterErrorKind,
    pub why: String,
}

impl IdentityCenterError {
    pub fn new(kind: IdentityCenterErrorKind, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { kind, why }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityCenterErrorKind {
    /// Another operation on the same thing is under way. Never means that it is done.
    Conflict,
    Throttled,
    /// No answer, or none that can be understood: the call may have been carried out.
    NoAnswer,
    /// jit's own credentials do not allow it.
    Denied,
    /// No such user, or more than one.
    NoUser,
    /// The instance has no permission set of this ARN.
    NoSuchSet,
    /// AWS will never accept this call as it is.
    Invalid,
}

impl fmt::Display for IdentityCenterErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict => "ConflictException",
            Self::Throttled => "ThrottlingException",
            Self::NoAnswer => "no answer",
            Self::Denied => "AccessDeniedException",
            Self::NoUser => "no such user",
            Self::NoSuchSet => "no such permission set",
            Self::Invalid => "ValidationException",
        })
    }
}

/// What a FAILED operation comes to. A removal that found nothing to remove has
/// succeeded; everything else has failed, whatever it sounds like.
pub fn progress_of_failure(kind: OperationKind, why: String) -> Progress {
    let absent = why.contains("404") && why.contains("Assignment not found");
    if kind == OperationKind::Delete && absent {
        return Progress::Succeeded;
    }
    Progress::Failed { why }
}
