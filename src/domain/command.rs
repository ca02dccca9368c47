//! Everything that can be said to a request, and by whom.
//!
//! A person, the clock and the worker each have their own words: a person
//! cannot express a worker's result.

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
    /// An operator takes access away without asking jit's rules who may: whoever has
    /// AWS's own permission to do it could do it without jit as well.
    BrokenGlass {
        by: Person,
        reason: Option<Text>,
        /// Whose permission that is.
        credentials: Text,
    },
    /// An operator removed the assignment by hand, and says so.
    CleanedUp {
        by: Person,
        reason: Text,
        proof: Proof,
    },
    /// AWS shows the assignment of a request that is over.
    FoundStanding {
        by: Option<Person>,
    },
    /// Its account was taken out of the channel.
    Unbound {
        by: Option<Person>,
    },
    /// Somebody revoked a request that shares its assignment.
    RevokedWithCoHolder {
        with: RequestId,
        by: Option<Person>,
        reason: Option<Text>,
    },
    /// Its time has come, and a worker offers to do the work.
    Due {
        claim: Claim,
    },
    /// An operator's command wants to be alone with it for a moment, due or not.
    Hold {
        claim: Claim,
    },
    /// The holder of a lease needs longer.
    Renew {
        lease: Lease,
    },
    /// The holder of a lease did the work.
    Finished {
        lease: LeaseToken,
        outcome: Outcome,
        calls: Calls,
    },
    /// Its card was posted in its channel.
    CardPosted {
        post: PostId,
    },
    /// Whoever asked for it was told that its end is near.
    ReminderPosted {
        reminder: Reminder,
    },
    /// A notice could not be delivered and is no longer tried.
    NoticeParked {
        seq: u64,
        why: Text,
    },
}

/// A worker's offer to work on a request under a lease of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub lease: Lease,
    /// Another's lease that this worker has seen unchanged for as long as a lease lasts, by
    /// a time that nobody can set: its holder sends nothing any more.
    pub lapsed: Option<Lease>,
    /// Until when the worker looks: now, or ahead of it, so that what a clock that was wrong
    /// has put off is not put off. Dates that people were told of are not brought forward.
    pub as_of: Timestamp,
}

/// What a worker knows of calls that AWS may still carry out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// It sent one under its own lease, and heard no answer.
    pub unanswered: Option<AssignmentCall>,
    /// The leases of earlier ones, known to it for so long that they have reached AWS or
    /// never will, before it asked AWS for what it reports.
    pub waited_out: BTreeSet<LeaseToken>,
}

/// A call that changes an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentCall {
    Create,
    Delete,
}

/// What an operator's word that access is gone rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// AWS was asked under this lease, and shows none.
    SeenGone { lease: LeaseToken },
    /// AWS was not asked: it will be.
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

/// What the holder of a lease is to do next: one operation in AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Find the user, and see whether the assignment is there already.
    Prepare,
    /// Make the assignment, and wait until AWS has.
    Create(HoldingKey),
    /// Remove the assignment, and wait until AWS shows it absent.
    Remove(HoldingKey),
    /// See whether the assignment is there; touch nothing.
    Look(HoldingKey),
    /// Deny everything to credentials that were fetched before then.
    EndSessions(HoldingKey, Timestamp),
    /// Take that deny out again.
    LiftDeny(HoldingKey),
}

/// What came of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The user, and whether the assignment stood when its holding was at `revision`; and
    /// what AWS calls the permission set.
    Prepared {
        user: UserId,
        presence: Presence,
        revision: u64,
        permission_set_arn: String,
    },
    /// No such user, or several: asking again will not help.
    NoUser {
        why: Text,
    },
    Created,
    /// AWS shows no assignment.
    Gone,
    /// AWS shows an assignment (the answer to `Work::Look`).
    StillThere,
    /// Older credentials are denied everything; the deny is of no more use after `until`.
    /// Those of other requests had to make room for it.
    SessionsDenied {
        until: Timestamp,
        dropped: Vec<RequestId>,
    },
    /// Older credentials are worth nothing: the role is gone that they were for.
    SessionsGone,
    DenyLifted,
    Failed(Trouble),
    /// Stopped on purpose before it was done, by a shutdown.
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    Present,
}

/// Why work failed, and how that bears on trying again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, throttled, in conflict: the next try may well do.
    Passing { why: Text },
    /// AWS carried the operation out and it FAILED.
    Refused { why: Text },
    /// jit itself may not: trying fast only adds noise.
    Denied { why: Text },
}

impl Trouble {
    pub fn why(&self) -> &Text {
        match self {
            Self::Passing { why } | Self::Refused { why } | Self::Denied { why } => why,
        }
    }
}
