//! All commands that can be given to a request.
//!
//! People, the time and workers have different commands: a person cannot report a worker's
//! outcome.

use std::collections::BTreeSet;

use super::{
    HoldingKey, Lease, LeaseToken, Minutes, Person, PostId, Reminder, RequestId, Text, Timestamp,
    UserId,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Asked {
        by: Person,
        ask: Ask,
    },
    /// An operator ends the access with `jit break-glass`. jit's rules about revokers do not
    /// apply: the operator's AWS credentials already allow the removal.
    BrokenGlass {
        by: Person,
        reason: Option<Text>,
        /// The AWS identity whose permission was used.
        credentials: Text,
    },
    /// An operator removed the assignment by hand and gives the command `jit cleanup`.
    CleanedUp {
        by: Person,
        reason: Text,
        proof: Proof,
    },
    /// AWS shows the assignment of a settled request.
    FoundStanding {
        by: Option<Person>,
    },
    /// The request's account was unbound from the channel.
    Unbound {
        by: Option<Person>,
    },
    /// Another request with the same assignment was revoked.
    RevokedWithCoHolder {
        with: RequestId,
        by: Option<Person>,
        reason: Option<Text>,
    },
    /// The request is due, and a worker offers to work on it.
    Due {
        claim: Claim,
    },
    /// An operator's command takes the lease, whether the request is due or not.
    Hold {
        claim: Claim,
    },
    /// The worker that has the lease renews it.
    Renew {
        lease: Lease,
    },
    /// The worker that has the lease reports the outcome of its work.
    Finished {
        lease: LeaseToken,
        outcome: Outcome,
        calls: Calls,
    },
    /// The notice worker posted the request's card.
    CardPosted {
        post: PostId,
    },
    /// The notice worker posted a reminder to the requester.
    ReminderPosted {
        reminder: Reminder,
    },
    /// The notice worker gave up a notice that it could not deliver.
    NoticeParked {
        seq: u64,
        why: Text,
    },
}

/// A worker's offer to work on a request under a lease of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub lease: Lease,
    /// The lease of another worker, if this worker has seen it unchanged for as long as a lease
    /// lasts, by its own uptime: the other worker sends no more calls.
    pub lapsed: Option<Lease>,
    /// The worker looks for due times up to this one: now, or a later time, so that it finds next
    /// tries that a wrong clock put too late. Dates that people know are not brought forward.
    pub as_of: Timestamp,
}

/// What a worker knows about calls that may still take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// A call that it sent under its own lease without an answer.
    pub unanswered: Option<AssignmentCall>,
    /// The lease may have lapsed before that call ended, because the process was suspended. The
    /// call may take effect after the next worker has looked at AWS.
    pub overran: bool,
    /// The leases of earlier unanswered calls that cannot take effect any more: this worker had
    /// known of them for `CALL_PATIENCE` before it asked AWS for what it reports.
    pub waited_out: BTreeSet<LeaseToken>,
}

/// A call that changes an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentCall {
    Create,
    Delete,
}

/// The evidence of a cleanup that the assignment is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The command asked AWS while it had this lease, and AWS shows no assignment.
    SeenGone { lease: LeaseToken },
    /// The command did not ask AWS; the next worker does.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Approve,
    Deny { reason: Option<Text> },
    Revoke { reason: Option<Text> },
    Cancel,
    Extend { minutes: Minutes },
}

/// The next work of the worker that has the lease: one operation in AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Find the user, and look whether the assignment exists already.
    Prepare,
    /// Create the assignment, and wait until the operation has ended.
    Create(HoldingKey),
    /// Delete the assignment, and wait until AWS shows that it is gone.
    Remove(HoldingKey),
    /// Look whether the assignment exists; change nothing.
    Look(HoldingKey),
    /// Deny everything to credentials that were fetched before this time.
    EndSessions(HoldingKey, Timestamp),
    /// Remove that deny statement.
    LiftDeny(HoldingKey),
}

/// The result of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The user, whether the assignment existed when the holding had `revision`, and the ARN of
    /// the permission set.
    Prepared {
        user: UserId,
        presence: Presence,
        revision: u64,
        permission_set_arn: String,
    },
    /// Identity Center has no such user, or several; a retry does not help.
    NoUser {
        why: Text,
    },
    Created,
    /// AWS shows no assignment.
    Gone,
    /// AWS shows an assignment (the answer to `Work::Look`).
    StillThere,
    /// Old credentials are denied everything; the deny statement can be removed after `until`.
    /// The deny statements of the `dropped` requests were removed to make room for it.
    SessionsDenied {
        until: Timestamp,
        dropped: Vec<RequestId>,
    },
    /// Old credentials do not work any more, because the IAM role of the permission set is gone.
    SessionsGone,
    DenyLifted,
    Failed(Trouble),
    /// A shutdown or a revoke stopped the work before its end.
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    Present,
}

/// Why work failed; the kind decides how soon jit tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, throttling or a conflict: the next try may succeed.
    Passing { why: Text },
    /// AWS carried the operation out, and it ended in FAILED; or AWS does not accept the call.
    Refused { why: Text },
    /// AWS denied the call to jit: retries are slow, because fast ones would not help.
    Denied { why: Text },
}

impl Trouble {
    pub fn why(&self) -> &Text {
        match self {
            Self::Passing { why } | Self::Refused { why } | Self::Denied { why } => why,
        }
    }
}
