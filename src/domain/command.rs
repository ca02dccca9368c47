//! All commands that can be given to a request.
//!
//! People, the time and workers have different commands: a person cannot report a worker's
//! outcome.

use super::{
    Calls, Claim, Lease, LeaseToken, Minutes, Outcome, Person, PostId, Proof, Reminder, RequestId,
    Subject, Text,
};

/// A command to one request; [`decide`](super::decide()) accepts or refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A person asks for a step of a request.
    Asked { by: Person, ask: Ask },
    /// An approver decides on what a card or a dialog showed.
    DecidedOnShown {
        by: Person,
        ask: Ask,
        /// The subject that the card or the dialog showed.
        shown: Subject,
    },
    /// An operator ends the access with `jit break-glass`. jit's rules about revokers do not
    /// apply: the operator's AWS credentials already allow the removal.
    BreakGlassRevoked {
        /// The operator, from `--as` or from the name in the AWS credentials.
        by: Person,
        /// Why the operator ends the access.
        reason: Option<Text>,
        /// The AWS identity whose permission was used.
        credentials: Text,
    },
    /// An operator removed the access by hand and gives the command `jit cleanup`.
    CleanedUp {
        /// The operator, from `--as` or from the name in the AWS credentials.
        by: Person,
        /// Why the operator removed the access by hand.
        reason: Text,
        /// The AWS identity of the command, because anyone can write a name after `--as`.
        credentials: Text,
        /// Whether the command asked AWS before it reports the access as gone.
        proof: Proof,
    },
    /// AWS shows the access of a settled request.
    FoundPresent {
        /// The operator who asked AWS; absent if `jit reconcile` got no `--as`.
        by: Option<Person>,
        /// The AWS identity that asked.
        credentials: Text,
        /// The [`Holding::revision`](super::Holding::revision) that the operator saw.
        revision: u64,
    },
    /// The request's account was unbound from the channel.
    Unbound {
        /// The admin who unbound the account; absent if the signed call names no person.
        by: Option<Person>,
    },
    /// The approvers or the terms of the request's account were set. B1: an approved request
    /// whose access may not begin any more ends now, and its requester learns why.
    RulesChanged {
        /// The admin who set them; absent if the signed call names no person.
        by: Option<Person>,
    },
    /// Another request with the same access was revoked.
    RevokedWithCoHolder {
        /// The other request.
        with: RequestId,
        /// See [`CoHolders::by`](super::CoHolders::by).
        by: Option<Person>,
        /// See [`CoHolders::reason`](super::CoHolders::reason).
        reason: Option<Text>,
    },
    /// The request is due, and a worker offers to work on it.
    Due { claim: Claim },
    /// An operator's command takes the lease, whether the request is due or not.
    Hold { claim: Claim },
    /// The worker that has the lease renews it.
    Renew {
        /// The lease with the same token and a later end.
        lease: Lease,
    },
    /// The worker that has the lease reports the outcome of its work.
    Finished {
        /// The token of the lease under which the worker did the work.
        lease: LeaseToken,
        /// The result of the work, or why the worker stopped.
        outcome: Outcome,
        /// The calls of the work that may still take effect; absent if there was no work.
        calls: Option<Calls>,
    },
    /// The notice worker posted the request's card.
    CardPosted {
        /// The post of the card.
        post: PostId,
        /// See [`Chat::button_key`](super::Chat::button_key).
        key: String,
    },
    /// The notice worker posted buttons with seals of another key than before.
    ButtonsSealed {
        /// See [`Chat::button_key`](super::Chat::button_key).
        key: String,
    },
    /// The notice worker posted a reminder to the requester.
    ReminderPosted { reminder: Reminder },
    /// The notice worker gave up a notice that it could not deliver.
    NoticeParked {
        /// The [`Notice::seq`](super::Notice::seq) of the notice.
        seq: u64,
        /// Why the last delivery failed.
        why: Text,
    },
    /// The notice worker saw in the outbox that notices of the request were parked early.
    NoticesParked {
        /// How many notices of the request were parked so far, with those that the audit has.
        total: u32,
    },
}

/// Each question is about one command, so no new command changes its answer.
impl Command {
    /// Whether a person asks for a step, or decides on what was shown.
    pub fn is_asked(&self) -> bool {
        matches!(self, Self::Asked { .. } | Self::DecidedOnShown { .. })
    }

    /// Whether a worker offers to work on the due request.
    pub fn is_due(&self) -> bool {
        matches!(self, Self::Due { .. })
    }

    /// The [`Notice::seq`](super::Notice::seq) of the notice that the notice worker gave up.
    pub fn parked_notice(&self) -> Option<u64> {
        let Self::NoticeParked { seq, .. } = self else {
            return None;
        };
        Some(*seq)
    }

    /// The result that a worker reports.
    pub fn outcome(&self) -> Option<&Outcome> {
        let Self::Finished { outcome, .. } = self else {
            return None;
        };
        Some(outcome)
    }
}

/// A step that a person asks for. Approve and Deny also decide an extension that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Approve,
    Deny {
        /// Why the approver denies; absent if the approver gives no reason.
        reason: Option<Text>,
    },
    Revoke {
        /// Why the person revokes; absent if the person gives no reason.
        reason: Option<Text>,
    },
    Cancel,
    Extend {
        /// See [`Extension::minutes`](super::Extension::minutes).
        minutes: Minutes,
    },
}
