//! Refusals: why a command changed nothing. Each message names the reason, and a next step if
//! there is one.

use super::{
    AccountId, ChannelId, Email, Lease, Millis, MmUserId, PermissionSet, Status, Timestamp, counted,
};

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // invalid or unknown values
    #[error("the reason is missing: give reason or jira")]
    NoReason,
    #[error("{wanted} minutes were asked for, but at most {most} are allowed here for {set}")]
    TooLong {
        /// The duration of the draft or of the extension, in minutes.
        wanted: u32,
        /// The permission set that the person named.
        set: PermissionSet,
        /// The longest duration by the policy, the binding and the set, in minutes.
        most: u32,
    },
    #[error(
        "start_at is {start_at}, and at most {most} ahead is allowed: name a time up to {latest}, or make the request later"
    )]
    StartTooFar {
        /// The start that the requester named.
        start_at: Timestamp,
        /// See [`Policy::max_start_ahead`](super::Policy::max_start_ahead).
        most: Millis,
        /// The last time that is allowed now.
        latest: Timestamp,
    },
    #[error(
        "start_at is {start_at}, and it is {now} now: name a later time, or leave start_at out to begin after the approval"
    )]
    StartInPast {
        /// The start that the requester named.
        start_at: Timestamp,
        /// The time of the command.
        now: Timestamp,
    },
    #[error("permission_set {set} is not configured; known: {}", listed(known))]
    UnknownPermissionSet {
        /// The permission set that the person named.
        set: PermissionSet,
        /// The configured permission sets.
        known: Vec<PermissionSet>,
    },
    #[error("approvals_required is {required}, but the number of approvers is {named}")]
    QuorumTooLarge {
        /// The account whose requests need so many approvals.
        account_id: AccountId,
        /// The number of approvals that the binding asks for.
        required: u32,
        /// How many names the command has.
        named: usize,
    },

    #[error("{named} approvers are named, and at most {most} are allowed; name fewer")]
    TooManyApprovers {
        /// How many names the command has.
        named: usize,
        /// The largest number or duration that is allowed.
        most: usize,
    },
    #[error("permission_sets has {named} names, and at most {most} are allowed; name fewer")]
    TooManySets {
        /// How many names the command has.
        named: usize,
        /// The largest number or duration that is allowed.
        most: usize,
    },

    // permissions
    #[error(
        "account {account_id} is not bound to channel {channel_id}; bind it with: jit bind --channel {channel_id} --account {account_id}"
    )]
    NotBound {
        /// The account that the command names.
        account_id: AccountId,
        /// The channel that the command names.
        channel_id: ChannelId,
    },
    #[error(
        "permission_set {set} is not allowed for this account; allowed: {}",
        listed(allowed)
    )]
    SetNotAllowed {
        /// The permission set that the person named.
        set: PermissionSet,
        /// The permission sets that the binding allows.
        allowed: Vec<PermissionSet>,
    },
    #[error(
        "channel {channel_id} has no approvers; name them with: jit approvers --channel {channel_id} USER_ID"
    )]
    NoApprovers {
        /// The channel that the command names.
        channel_id: ChannelId,
    },
    #[error("{person} {}; ask one of its approvers", Refusal::NOT_AN_APPROVER)]
    NotAnApprover {
        /// The person who is named or who acts.
        person: MmUserId,
    },
    #[error("self-approval is not allowed for this account; ask another approver")]
    SelfApproval,
    #[error(
        "the request is for {wanted} minutes, and at most {most} are allowed now; make a new request"
    )]
    NoLongerAllowed {
        /// The duration of the request, in minutes.
        wanted: u32,
        /// The largest number or duration that is allowed.
        most: u32,
    },
    #[error(
        "{counted} of {required} approvals count now, because approvers or terms of the account changed; make a new request"
    )]
    ApprovalsWithdrawn {
        /// The approvals that would be accepted now.
        counted: u32,
        /// The present quorum.
        required: u32,
    },
    #[error(
        "{person} {}; its requester, its approvers and the admins may",
        Refusal::NOT_A_REVOKER
    )]
    NotARevoker {
        /// The person who is named or who acts.
        person: MmUserId,
    },
    #[error("only its requester may {verb} this request")]
    NotTheRequester {
        /// The step that the person asked for, such as `cancel`.
        verb: &'static str,
    },
    #[error("only the admins named in policy.admins may change bindings")]
    NotAnAdmin,

    // wrong state or time, and limits
    #[error("this request is {status}: it cannot be {done}{hint}")]
    WrongState {
        /// The present status of the request.
        status: Status,
        /// The step of the command, as a participle such as `revoked`.
        done: &'static str,
        /// The end of the message: a next step or an explanation; empty if there is none.
        hint: &'static str,
    },
    #[error(
        "this request is {status}, and something else waits for a decision now than what was shown; look at the request, and decide again"
    )]
    NotWhatWasShown {
        /// The present status of the request.
        status: Status,
    },
    #[error("jit cannot confirm that the access is gone: {why}")]
    NotGone {
        /// The fact that jit does not know.
        why: &'static str,
    },
    #[error(
        "{person} has {} PENDING by this key, and no more are allowed; cancel one of them first", counted(*most, "request")
    )]
    TooManyPending {
        /// The person who is named or who acts.
        person: Email,
        /// The largest number or duration that is allowed.
        most: u32,
    },
    #[error("this request is {status}, and its removal is already under way{failures}")]
    BeingRemoved {
        /// The present status of the request.
        status: Status,
        /// The end of the message: the failures so far; empty if the last attempt did not fail.
        failures: String,
    },
    #[error(
        "this request is {status}, and the time for its approval ended at {until}; make a new request"
    )]
    WaitedTooLong {
        /// The present status of the request.
        status: Status,
        /// When that time ended.
        until: Timestamp,
    },
    #[error(
        "this request is {status}, and {person} has approved it already; it waits for another approver"
    )]
    AlreadyApproved {
        /// The present status of the request.
        status: Status,
        /// The person who is named or who acts.
        person: MmUserId,
    },
    #[error("this request is {status}, and an extension of it waits for approval already")]
    ExtensionWaiting {
        /// The present status of the request.
        status: Status,
    },
    #[error(
        "this request is {status}: it would last {total} minutes from its beginning with {} more, and at most {most} are allowed; {next}", counted(*minutes, "minute")
    )]
    ExtendedTooFar {
        /// The present status of the request.
        status: Status,
        /// The additional minutes that the requester asked for.
        minutes: u32,
        /// The time from the beginning of the grant to the end that it would have, in minutes.
        total: i64,
        /// See `most` of [`Refusal::TooLong`].
        most: u32,
        /// A next step for the requester.
        next: String,
    },
    #[error("account {account_id} is bound to channel {channel_id}; unbind it there first")]
    BoundElsewhere {
        /// The account that the command names.
        account_id: AccountId,
        /// The channel to which the account belongs now.
        channel_id: ChannelId,
    },
    #[error(
        "channel {channel_id} has {most} accounts, and a channel can have no more; bind the account to another channel"
    )]
    TooManyAccounts {
        /// The channel that the command names.
        channel_id: ChannelId,
        /// The largest number or duration that is allowed.
        most: usize,
    },
    #[error(
        "this request is {status}, and has {most} approvals, the most that jit stores, some by former approvers; make a new request"
    )]
    TooManyApprovals {
        /// The present status of the request.
        status: Status,
        /// The largest number or duration that is allowed.
        most: usize,
    },
    #[error(
        "no account is bound to channel {channel_id}; bind one with: jit bind --channel {channel_id} --account ACCOUNT"
    )]
    NothingBound {
        /// The channel that the command names.
        channel_id: ChannelId,
    },
    #[error("account {account_id} is not bound to channel {channel_id}")]
    NothingToUnbind {
        /// The account that the command names.
        account_id: AccountId,
        /// The channel that the command names.
        channel_id: ChannelId,
    },

    // only workers get these
    #[error("not due until {until:?}")]
    NotDue {
        /// When the request is due; absent if it needs no more work.
        until: Option<Timestamp>,
    },
    #[error("another worker holds the lease")]
    Leased {
        /// The lease that the request has now; absent if it has none.
        lease: Option<Lease>,
    },
}

/// Several refusals have one code. `jit` on the command line recognises two of them by these words,
/// which stand in their messages.
impl Refusal {
    pub const NOT_AN_APPROVER: &'static str = "is not an approver of this account";
    pub const NOT_A_REVOKER: &'static str = "may not revoke this request";
}

fn listed(sets: &[PermissionSet]) -> String {
    sets.iter()
        .map(PermissionSet::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
