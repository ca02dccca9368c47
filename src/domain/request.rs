//! A request for access: the record and its states.

mod assignment;
mod lease;
mod phase;
mod start;
mod subject;
#[cfg(test)]
mod tests;

pub use lease::{Claim, Lease, LeaseHolder};
use serde::{Deserialize, Serialize};
pub use subject::Subject;

use super::{
    AccessFacts, AccountId, Chain, ChannelId, Email, Minutes, PermissionSet, Person, PostId,
    RequestId, Status, Text, Timestamp,
};

/// The wish of a requester: valid values, but the policy has not allowed them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The id that the request gets.
    pub id: RequestId,
    /// The AWS account in which the access is given.
    pub account_id: AccountId,
    /// The Mattermost channel whose approvers decide about the request.
    pub channel_id: ChannelId,
    /// The person who asks for the access and gets it.
    pub requester: Person,
    /// Why the requester needs the access; a draft has a reason, a ticket or both.
    pub reason: Option<Text>,
    /// The ticket that belongs to the request.
    pub jira: Option<Text>,
    /// How long the access lasts, from the grant.
    pub duration: Minutes,
    /// If absent, the policy and the binding choose the permission set.
    pub permission_set: Option<PermissionSet>,
    /// The grant is not made before this time; if absent, it follows the approval.
    pub start_at: Option<Timestamp>,
}

/// The record of a request: everything that the store keeps of it, except its events. The store
/// keeps it as one flat JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The id of the request.
    pub id: RequestId,
    /// The access that the requester asked for.
    #[serde(flatten)]
    pub asked: Asked,
    /// The approvals that the request got.
    #[serde(flatten)]
    pub approvals: Approvals,
    /// The period of the access, and an extension that waits for approvals.
    #[serde(flatten)]
    pub grant: Grant,
    /// The status in detail, with its evidence.
    pub state: State,
    /// The facts that only the form of this access has.
    #[serde(flatten)]
    pub access: AccessFacts,
    /// When a worker has to work on the request, and how its work goes.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// The posts in Mattermost about the request, and the notices that jit gave up.
    #[serde(flatten)]
    pub chat: Chat,
    /// The end of the audit chain, and the revision.
    #[serde(flatten)]
    pub version: Version,
}

/// The access that the requester asked for. It does not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// See [`Draft::account_id`].
    pub account_id: AccountId,
    /// See [`Draft::channel_id`].
    pub channel_id: ChannelId,
    /// See [`Draft::requester`].
    pub requester: Person,
    /// The permission set of the draft, or the one that the policy and the binding chose.
    pub permission_set: PermissionSet,
    /// See [`Draft::reason`].
    pub reason: Option<Text>,
    /// See [`Draft::jira`].
    pub jira: Option<Text>,
    /// See [`Draft::duration`]; an extension does not change it.
    pub duration: Minutes,
    /// See [`Draft::start_at`].
    pub start_at: Option<Timestamp>,
    /// When jit made the request out of the draft.
    pub created_at: Timestamp,
    /// The key that signed the call; absent for a request from Mattermost, or of an earlier jit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// The approvals of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// All approvals so far, also those that do not count any more.
    #[serde(rename = "approvals")]
    pub given: Vec<Approval>,
    /// The time of the approval that completed the quorum.
    #[serde(rename = "approved_at")]
    pub complete_at: Option<Timestamp>,
}

/// The access that the requester got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// When the access began and when it ends; absent if it was never granted.
    #[serde(rename = "granted")]
    pub period: Option<Period>,
    /// The extension that waits for its approvals.
    pub extension: Option<Extension>,
}

/// When which worker works on the request, and how its last attempts went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// When a worker has to work on this request next; absent if never.
    pub due_at: Option<Timestamp>,
    /// The lease of the worker that works on this request, or that has not given it back.
    pub lease: Option<Lease>,
    /// The failures of the present work, if its last attempt failed.
    #[serde(rename = "trouble")]
    pub failures: Option<Failing>,
}

/// The messages that the channel and the requester have got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// How many notices could not be delivered and were given up.
    pub parked_notices: u32,
    /// The post of the request's card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<PostId>,
    /// The name of the key that sealed the last buttons of these posts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button_key: Option<String>,
    /// The last reminder that the requester got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminder: Option<Reminder>,
}

/// The version of the record, and the end of its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The end of the request's audit chain.
    pub chain: Chain,
    /// Grows with every write, also with those that record no event, such as a lease.
    pub revision: u64,
}

/// The stored form of the status, with its evidence. AWS may have given the access in the states
/// between [`State::Approved`] and the settled ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Waits for its approvals.
    Pending,
    /// Approved; no AWS call was made yet.
    Approved,
    /// The record has what the removal needs; AWS may have given the access already.
    Assigning,
    /// The access exists, until the end of [`Grant::period`].
    Granted,
    /// A request leaves this state only when AWS shows that the access is gone.
    Removing {
        /// Why the access is removed; it decides the state after the removal.
        ending: Ending,
    },
    /// A revoke of a request that ended in ERROR: a worker asks AWS whether its access is left.
    Checking {
        /// The person who asked for the revoke.
        by: Person,
        /// Why that person revoked; absent if the person gave no reason.
        reason: Option<Text>,
        /// The end in ERROR from before the revoke.
        error: ErrorEnd,
    },
    /// An end that a worker has yet to verify at AWS.
    Unsettled {
        /// The state that the request gets after a worker has asked AWS.
        end: Box<State>,
        /// Why the end is not certain.
        doubt: Doubt,
    },
    Denied {
        /// The approver who denied the request.
        by: Person,
        /// Why the approver denied the request; absent if the approver gave no reason.
        reason: Option<Text>,
        /// When the approver denied the request.
        at: Timestamp,
    },
    /// Taken back before its approval, by its requester or because the account was unbound.
    Cancelled {
        /// The requester, or the admin who unbound; absent if no person is known.
        by: Option<Person>,
        /// When the requester, an unbind or an operator cancelled the request.
        at: Timestamp,
    },
    /// The time for the approvals or the access is over.
    Expired {
        /// When the request became EXPIRED; a removal makes this later than [`Period::until`].
        at: Timestamp,
    },
    Revoked {
        /// Absent if an operator wrote the status into the store.
        by: Option<Person>,
        /// Why that person revoked; absent if the person gave no reason.
        reason: Option<Text>,
        /// When the request became REVOKED; a removal makes this later than the command.
        at: Timestamp,
    },
    Error(ErrorEnd),
}

/// Why jit has to verify an end at AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// An operator wrote the status into the store, as the runbook describes.
    Outside,
    /// The same without a time: the end gets the time at which jit settles it.
    OutsideWithoutTime,
    /// A worker that had lost its lease reported that AWS gave the access.
    LateAnswer,
}

/// Why an access is being removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Ending {
    /// The time of the access is over.
    Expired,
    /// A person asked for the end.
    Revoked {
        /// The person who revoked; absent if an operator wrote the status into the store.
        by: Option<Person>,
        /// Why that person revoked; absent if the person gave no reason.
        reason: Option<Text>,
        /// When the revoke was accepted.
        asked_at: Timestamp,
    },
    /// A worker gave the grant up; the access may exist and is removed.
    Failed {
        /// Why the grant failed; it becomes [`ErrorEnd::why`].
        why: Text,
    },
}

/// An end in ERROR: AWS has no access of this request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnd {
    /// When the request ended in ERROR.
    pub at: Timestamp,
    /// Why the request ended in ERROR, as text for people and programs.
    pub why: Text,
}

/// The yes of one approver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The approver who gave the approval.
    pub by: Person,
    /// When the approver gave it.
    pub at: Timestamp,
}

/// The time from the grant to the end of the access, when the removal must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// When jit recorded that AWS gave the access.
    pub from: Timestamp,
    /// When the access ends; an extension moves this time.
    pub until: Timestamp,
}

/// The post that reminds the requester of the end of the access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reminder {
    /// The post in Mattermost; its buttons ask for an extension.
    pub post: PostId,
    /// The number of the audit event for which it was posted.
    pub of: u64,
}

/// An extension that waits for its approvals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The requester, the only person who can ask for an extension.
    pub by: Person,
    /// How much later the access would end.
    pub minutes: Minutes,
    /// The approvals of the extension so far.
    pub approvals: Vec<Approval>,
}

/// Consecutive failures of the same work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// The time of the first of them.
    pub since: Timestamp,
    /// How many attempts failed.
    pub attempts: u32,
    /// How many of them AWS refused; the others got no answer.
    pub refusals: u32,
    /// Why the last attempt failed.
    pub why: Text,
}

/// The urgency of work; workers claim the first lane first, so that a revoke does not wait
/// behind many new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Removals that a person asked for.
    Revoke,
    /// All other removals, and what is to be ended after them.
    Remove,
    /// Grants, and all else.
    Other,
}

impl Lane {
    /// The length is taken from the last lane, so a lane that is missing here does not compile.
    pub const ALL: [Self; Self::Other as usize + 1] = [Self::Revoke, Self::Remove, Self::Other];

    pub fn number(self) -> u8 {
        match self {
            Self::Revoke => 0,
            Self::Remove => 1,
            Self::Other => 2,
        }
    }
}

impl Request {
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// The same record with another revision.
    pub fn at_revision(&self, revision: u64) -> Self {
        let mut request = self.clone();
        request.version.revision = revision;
        request
    }

    /// The end of the access, or the end it would have if the next step happened now.
    pub fn end_time(&self) -> Timestamp {
        match (self.grant.period, self.asked.start_at) {
            (Some(period), _) => period.until,
            (None, Some(start)) => start.max(self.asked.created_at) + self.asked.duration.span(),
            (None, None) => {
                self.approvals.complete_at.unwrap_or(self.asked.created_at)
                    + self.asked.duration.span()
            }
        }
    }

    pub fn requester_email(&self) -> &Email {
        &self.asked.requester.email
    }

    pub fn lane(&self) -> Lane {
        match &self.state {
            State::Removing {
                ending: Ending::Revoked { .. },
            }
            | State::Checking { .. } => Lane::Revoke,
            State::Granted | State::Removing { .. } | State::Unsettled { .. } => Lane::Remove,
            State::Pending | State::Approved | State::Assigning => Lane::Other,
            State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_) => match self.access.has_more_to_end() {
                true => Lane::Remove,
                false => Lane::Other,
            },
        }
    }

    /// The request is settled, and a worker has nothing more to end at AWS.
    pub fn is_over(&self) -> bool {
        self.state.is_settled() && !self.access.has_more_to_end()
    }

    /// A removal of this request failed at its last attempt.
    pub fn is_failing_removal(&self) -> bool {
        self.schedule.failures.is_some() && self.lane() != Lane::Other
    }

    /// When the consecutive failures of this request's work began.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.schedule.failures.as_ref().map(|failing| failing.since)
    }

    /// Applies a status that an operator wrote into the store, as the runbook describes: it is an
    /// unverified end until a worker has asked AWS. A status that is not an end gives no access:
    /// it ends the request in ERROR.
    pub fn apply_outside_status(&mut self, said: Status, at: Option<Timestamp>, now: Timestamp) {
        if said == self.status() {
            return;
        }
        let doubt = match at {
            Some(_) => Doubt::Outside,
            None => Doubt::OutsideWithoutTime,
        };
        let at = at.unwrap_or(now);
        let end = match said {
            Status::Revoked => State::Revoked {
                by: None,
                reason: None,
                at,
            },
            Status::Expired => State::Expired { at },
            Status::Cancelled => State::Cancelled { by: None, at },
            Status::Pending
            | Status::Approved
            | Status::Granted
            | Status::Denied
            | Status::Error => State::Error(ErrorEnd {
                at,
                why: Text::clip(&format!(
                    "the record was changed to {said} from outside jit"
                )),
            }),
        };
        self.state = State::Unsettled {
            end: Box::new(end),
            doubt,
        };
        self.grant.extension = None;
        // The lease stays: the worker that has it may have sent calls that still take effect.
        self.schedule.due_at = Some(now);
    }
}

impl State {
    /// The same end at another time; a state that is no end stays as it is.
    #[must_use]
    pub fn ended_at(mut self, now: Timestamp) -> Self {
        match &mut self {
            Self::Denied { at, .. }
            | Self::Cancelled { at, .. }
            | Self::Expired { at }
            | Self::Revoked { at, .. }
            | Self::Error(ErrorEnd { at, .. }) => *at = now,
            Self::Pending
            | Self::Approved
            | Self::Assigning
            | Self::Granted
            | Self::Removing { .. }
            | Self::Checking { .. }
            | Self::Unsettled { .. } => {}
        }
        self
    }

    pub fn status(&self) -> Status {
        match self {
            Self::Pending => Status::Pending,
            Self::Approved | Self::Assigning => Status::Approved,
            // AWS may still hold the access, so the status is GRANTED.
            Self::Granted | Self::Removing { .. } => Status::Granted,
            Self::Denied { .. } => Status::Denied,
            Self::Cancelled { .. } => Status::Cancelled,
            Self::Expired { .. } => Status::Expired,
            Self::Revoked { .. } => Status::Revoked,
            Self::Checking { .. } | Self::Error(_) => Status::Error,
            Self::Unsettled { end, .. } => end.status(),
        }
    }

    /// Whether the state is final.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Denied { .. }
            | Self::Cancelled { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::Error(_) => true,
            Self::Pending
            | Self::Approved
            | Self::Assigning
            | Self::Granted
            | Self::Removing { .. }
            | Self::Checking { .. }
            | Self::Unsettled { .. } => false,
        }
    }
}
