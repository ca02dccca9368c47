//! Why nothing was changed. Each says what is so, and what can be done.

use crate::domain::{
    AccountId, ChannelId, Lease, Millis, MmUserId, PermissionSet, Status, Timestamp,
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // what was asked for cannot be had
    #[error("say why: reason or jira must be given")]
    NoReason,
    #[error("{wanted} minutes were asked for, but at most {most} are allowed here for {set}")]
    TooLong {
        wanted: u32,
        set: PermissionSet,
        most: u32,
    },
    #[error("permission_set {set} is not configured; known: {}", listed(known))]
    UnknownPermissionSet {
        set: PermissionSet,
        known: Vec<PermissionSet>,
    },
    #[error("approvals_required is {required}, but only {named} approver(s) are named")]
    QuorumTooLarge { required: u32, named: usize },

    #[error("{named} approvers are named, and at most {most} can be; name fewer")]
    TooManyApprovers { named: usize, most: usize },
    #[error("permission_sets has {named} names, and at most {most} can be had; name fewer")]
    TooManySets { named: usize, most: usize },

    // who may
    #[error(
        "account {account_id} is not bound to channel {channel_id}; bind it with: jit bind {account_id} --channel {channel_id}"
    )]
    NotBound {
        account_id: AccountId,
        channel_id: ChannelId,
    },
    #[error(
        "permission_set {set} is not allowed for this account; allowed: {}",
        listed(allowed)
    )]
    SetNotAllowed {
        set: PermissionSet,
        allowed: Vec<PermissionSet>,
    },
    #[error(
        "channel {channel_id} has no approvers; name them with: jit approvers USER_ID --channel {channel_id}"
    )]
    NoApprovers { channel_id: ChannelId },
    #[error("{person} is not an approver of this account")]
    NotAnApprover { person: MmUserId },
    #[error("nobody approves their own request here; ask another approver")]
    SelfApproval,
    #[error(
        "approving for {wanted} minutes is no longer allowed here (at most {most}); the request must be made anew"
    )]
    NoLongerAllowed { wanted: u32, most: u32 },
    #[error("{person} may not revoke this; its requester, its approvers and the admins may")]
    NotARevoker { person: MmUserId },
    #[error("only its requester may {verb} this request")]
    NotTheRequester { verb: &'static str },
    #[error("only the admins named in policy.admins may change bindings")]
    NotAnAdmin,

    // not now
    #[error("this request is {status}: it cannot be {done}{hint}")]
    WrongState {
        status: Status,
        done: &'static str,
        hint: &'static str,
    },
    #[error("it cannot be said to be gone: {why}")]
    NotGone { why: &'static str },
    #[error("this request is {status}, and its removal is already under way{trouble}")]
    BeingRemoved { status: Status, trouble: String },
    #[error(
        "this request is {status}, and waited for approval longer than allowed (until {until})"
    )]
    WaitedTooLong { status: Status, until: Timestamp },
    #[error(
        "this request is {status}, and {person} has approved it already; it waits for another approver"
    )]
    AlreadyApproved { status: Status, person: MmUserId },
    #[error("this request is {status}, and an extension of it waits for approval already")]
    ExtensionWaiting { status: Status },
    #[error(
        "this request is {status} until {until}: with that, {left} would be left, and at most {most} minutes are allowed"
    )]
    ExtendedTooFar {
        status: Status,
        until: Timestamp,
        left: Millis,
        most: u32,
    },
    #[error("account {account_id} is bound to channel {channel_id}; unbind it there first")]
    BoundElsewhere {
        account_id: AccountId,
        channel_id: ChannelId,
    },
    #[error(
        "channel {channel_id} has {most} accounts, and no channel has more; bind it to another channel"
    )]
    TooManyAccounts { channel_id: ChannelId, most: usize },
    #[error(
        "this request is {status}, and has {most} approvals, of approvers who are none any more; the request must be made anew"
    )]
    TooManyApprovals { status: Status, most: usize },
    #[error("no account is bound to channel {channel_id}; bind one first")]
    NothingBound { channel_id: ChannelId },
    #[error("account {account_id} is not bound to channel {channel_id}")]
    NothingToUnbind {
        account_id: AccountId,
        channel_id: ChannelId,
    },

    // for workers alone
    #[error("not due until {until:?}")]
    NotDue { until: Option<Timestamp> },
    #[error("another worker holds the lease")]
    Leased { lease: Option<Lease> },
}

fn listed(sets: &[PermissionSet]) -> String {
    sets.iter()
        .map(PermissionSet::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
