//! The forms of access: how AWS gives it.
//!
//! Each type here has one variant for each form, and a variant has the facts that only this form
//! needs. Requests, approvals, schedules and the audit are the same for every form.

mod assignment;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    AssignmentCalls, AssignmentChange, AssignmentFacts, AssignmentOutcome, AssignmentProof,
    AssignmentRecord, AssignmentWork, Text, Timestamp,
};

/// How AWS gives an access. The configured permission set decides it, and the record of a request
/// keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessForm {
    /// Identity Center assigns the permission set to the user.
    Assignment,
}

/// The facts about the access in the record of a request. The store has them as fields of the
/// request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFacts {
    Assignment(AssignmentFacts),
}

/// The record of the access that the store keeps beside the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessRecord {
    Assignment(AssignmentRecord),
}

/// The change that a decision makes to the record of the access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessChange {
    Assignment(AssignmentChange),
}

/// The next work of the worker that has the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Assignment(AssignmentWork),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assignment(work) => work.fmt(f),
        }
    }
}

/// The result of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work for an assignment came to its end.
    Assignment(AssignmentOutcome),
    /// The work failed and is tried again later, or given up.
    Failed(WorkFailure),
    /// A shutdown or a revoke stopped the work before its end.
    Interrupted,
}

/// Why work failed; the kind decides how soon jit tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkFailure {
    /// No answer, throttling or a conflict: the next try may succeed.
    Passing { why: Text },
    /// AWS carried the operation out, and it ended in FAILED; or AWS does not accept the call.
    Refused { why: Text },
    /// AWS denied the call to jit: retries are slow, because fast ones would not help.
    Denied { why: Text },
}

/// The knowledge of a worker about calls that may still take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calls {
    Assignment(AssignmentCalls),
}

/// The evidence of a cleanup that the access is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The command asked AWS, and AWS shows no assignment.
    Assignment(AssignmentProof),
    /// The command did not ask AWS; the next worker does.
    None,
}

impl AccessFacts {
    /// The facts of a request that has not begun.
    pub fn new(form: AccessForm) -> Self {
        match form {
            AccessForm::Assignment => Self::Assignment(AssignmentFacts::default()),
        }
    }

    pub fn form(&self) -> AccessForm {
        match self {
            Self::Assignment(_) => AccessForm::Assignment,
        }
    }

    /// Whether jit has asked AWS for the access, or was about to ask.
    pub fn was_begun(&self) -> bool {
        match self {
            Self::Assignment(facts) => facts.user.is_some(),
        }
    }

    /// When a request that is settled at this time needs work next; absent if never.
    pub(super) fn due_after_end(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Assignment(facts) => facts.old_credentials.map(|old| old.due_at(now)),
        }
    }

    /// Whether a worker still has to end something at AWS after the request is settled.
    pub(super) fn has_more_to_end(&self) -> bool {
        match self {
            Self::Assignment(facts) => facts.has_credentials_to_deny(),
        }
    }
}

impl AccessRecord {
    /// For decisions that need nothing of it.
    pub fn unread(form: AccessForm) -> Self {
        match form {
            AccessForm::Assignment => Self::Assignment(AssignmentRecord::default()),
        }
    }

    /// The record after a decision.
    #[must_use]
    pub fn after(self, change: &AccessChange) -> Self {
        match change {
            AccessChange::Assignment(change) => match &change.holding {
                Some(holding) => Some(holding.clone()).into(),
                None => self,
            },
        }
    }
}

impl AccessChange {
    pub fn is_none(&self) -> bool {
        match self {
            Self::Assignment(change) => *change == AssignmentChange::default(),
        }
    }
}

impl Outcome {
    /// B1: whether a decision about this outcome may begin the access.
    pub fn may_begin_access(&self) -> bool {
        match self {
            Self::Assignment(outcome) => outcome.preparation().is_some(),
            Self::Failed(_) | Self::Interrupted => false,
        }
    }
}

impl WorkFailure {
    pub fn passing(why: &str) -> Self {
        let why = Text::clip(why);
        Self::Passing { why }
    }

    pub fn refused(why: &str) -> Self {
        let why = Text::clip(why);
        Self::Refused { why }
    }

    pub fn denied(why: &str) -> Self {
        let why = Text::clip(why);
        Self::Denied { why }
    }

    pub fn why(&self) -> &Text {
        match self {
            Self::Passing { why } | Self::Refused { why } | Self::Denied { why } => why,
        }
    }
}

impl Serialize for AccessFacts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Assignment(facts) => facts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for AccessFacts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AssignmentFacts::deserialize(deserializer).map(Self::Assignment)
    }
}

impl From<AssignmentWork> for Work {
    fn from(work: AssignmentWork) -> Self {
        Self::Assignment(work)
    }
}

impl From<AssignmentOutcome> for Outcome {
    fn from(outcome: AssignmentOutcome) -> Self {
        Self::Assignment(outcome)
    }
}

impl From<WorkFailure> for Outcome {
    fn from(failure: WorkFailure) -> Self {
        Self::Failed(failure)
    }
}
