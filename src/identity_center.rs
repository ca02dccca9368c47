//! Identity Center, as far as jit uses it, and the meaning of its answers.
//!
//! One method of `IdentityCenter` is one AWS call. Create and delete are asynchronous: AWS
//! accepts the call, and `poll` tells how the operation ended. Only `Paced` calls these
//! methods, at the pace that AWS allows.

mod causes;
pub mod deny;
mod paced;
mod quota;
pub mod sandbox;
pub mod sdk;
mod shared_query;

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;

pub use causes::{aws_causes, causes, unsent};
pub use paced::{Gate, OperationResult, Paced, PendingCall};
pub use quota::{Limits, Room};

use crate::domain::{AccountId, Email, HoldingKey, Millis, PermissionSet, UserId};

/// A call that has not taken effect after this time never does: an implementation of
/// `IdentityCenter` gives up on it before that. Workers rely on this, because AWS cannot take
/// a call back.
pub const CALL_PATIENCE: Millis = Millis::seconds(10);

#[async_trait]
pub trait IdentityCenter: Send + Sync + 'static {
    /// The AWS identity of jit's credentials.
    async fn caller(&self) -> Result<String, IdentityCenterError>;
    /// The ARN that the configuration has for this name; a name can be given to another ARN.
    fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError>;
    /// The user with this attribute; none if there is no such user.
    async fn find_user(
        &self,
        email: &Email,
        by: UserAttribute,
    ) -> Result<Option<UserId>, IdentityCenterError>;
    /// A page of the assignees of this permission set in this account; `after` is the token of
    /// the page before.
    async fn assigned(
        &self,
        place: &AssignmentPlace,
        after: Option<&str>,
    ) -> Result<Page<Assignee>, IdentityCenterError>;
    /// Starts to make an assignment. If it exists already, the operation succeeds.
    async fn create(&self, key: &HoldingKey) -> Result<Operation, IdentityCenterError>;
    /// Starts to remove an assignment, unless AWS answers that there is none.
    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, IdentityCenterError>;
    /// The present state of an operation; the caller repeats the call until it has ended.
    async fn poll(&self, operation: &Operation) -> Result<Progress, IdentityCenterError>;
    /// The session duration of this set: how long its credentials last at most.
    async fn session_duration(&self, set: &PermissionSet) -> Result<Millis, IdentityCenterError>;
    /// The inline policy of this set as JSON text; none if the set has no inline policy.
    async fn inline_policy(
        &self,
        set: &PermissionSet,
    ) -> Result<Option<String>, IdentityCenterError>;
    /// Replaces the inline policy of this set; none removes it.
    async fn set_inline_policy(
        &self,
        set: &PermissionSet,
        policy: Option<&str>,
    ) -> Result<(), IdentityCenterError>;
    /// Starts to provision a changed set in an account.
    async fn provision(&self, place: &AssignmentPlace)
    -> Result<Provisioning, IdentityCenterError>;
    /// The present state of a provisioning; the caller repeats the call until it has ended.
    async fn provisioned(
        &self,
        provisioning: &Provisioning,
    ) -> Result<Progress, IdentityCenterError>;
    /// A page of the ids of all running operations of this kind, also those that jit did not
    /// start; `after` is the token of the page before.
    async fn under_way(
        &self,
        kind: OperationKind,
        after: Option<&str>,
    ) -> Result<Page<String>, IdentityCenterError>;
}

/// The attributes by which jit looks up a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserAttribute {
    UserName,
    Email,
}

/// An account and a permission set: AWS lists the assignees of this pair.
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

    /// The key of this user's assignment here.
    pub fn key_of(&self, user: &UserId) -> HoldingKey {
        HoldingKey {
            account_id: self.account_id.clone(),
            permission_set: self.permission_set.clone(),
            user: user.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignee {
    User(UserId),
    /// Never made by jit, which assigns only users.
    Group(String),
}

pub type Assignees = BTreeSet<Assignee>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The token with which the caller gets the next page; none on the last page.
    pub next: Option<String>,
}

/// An operation of an accepted create or delete, to be polled until it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub kind: OperationKind,
    /// The id that AWS gave the operation.
    pub id: String,
}

/// The id of an accepted provisioning, to be polled until it has ended.
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
    /// ResourceNotFoundException: there is no assignment.
    NothingThere,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    InProgress,
    Succeeded,
    /// FAILED, with the FailureReason. A delete that failed because there was no assignment
    /// counts as succeeded.
    Failed {
        why: String,
    },
}

/// Why a call was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", kind.prefix())]
pub struct IdentityCenterError {
    pub kind: IdentityCenterErrorKind,
    /// The text that the log and people see.
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
    /// Another operation on the same assignment or account is running. It never means that the
    /// call is done.
    Conflict,
    Throttled,
    /// No answer, or one that jit cannot understand: AWS may have carried the call out.
    NoAnswer,
    /// jit's credentials do not allow the call.
    Denied,
    /// jit sent no call, because it has no credentials or no region.
    Unsent,
    /// No such user, or several.
    NoUser,
    /// The instance has no permission set of this ARN.
    NoSuchSet,
    /// AWS will never accept this call as it is.
    Invalid,
}

impl IdentityCenterErrorKind {
    /// The beginning of the text of an error; empty if the reason says it all.
    fn prefix(self) -> String {
        match self {
            Self::Unsent | Self::NoUser => String::new(),
            Self::Conflict
            | Self::Throttled
            | Self::NoAnswer
            | Self::Denied
            | Self::NoSuchSet
            | Self::Invalid => format!("{self}: "),
        }
    }
}

impl fmt::Display for IdentityCenterErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict => "ConflictException",
            Self::Throttled => "ThrottlingException",
            Self::NoAnswer => "no answer",
            Self::Denied => "AccessDeniedException",
            Self::Unsent => "not sent",
            Self::NoUser => "no such user",
            Self::NoSuchSet => "no such permission set",
            Self::Invalid => "ValidationException",
        })
    }
}

/// The meaning of a FAILED operation. A delete that found no assignment has succeeded; every
/// other one has failed, whatever its text.
pub fn progress_of_failure(kind: OperationKind, why: String) -> Progress {
    let absent = why.contains("404") && why.contains("Assignment not found");
    if kind == OperationKind::Delete && absent {
        return Progress::Succeeded;
    }
    Progress::Failed { why }
}
