//! A request for access: the record, and the states it lives through.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    AccountId, Chain, ChannelId, Claim, Email, HoldingKey, Invalid, LeaseToken, Millis, Minutes,
    PermissionSet, Person, PostId, RequestId, Text, Timestamp, UserId,
};

/// What somebody asks for, checked but not yet allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub id: RequestId,
    pub account_id: AccountId,
    pub channel_id: ChannelId,
    pub requester: Person,
    pub reason: Option<Text>,
    pub jira: Option<Text>,
    pub duration: Minutes,
    pub permission_set: Option<PermissionSet>,
    pub start_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: RequestId,
    pub account_id: AccountId,
    pub channel_id: ChannelId,
    pub requester: Person,
    pub permission_set: PermissionSet,
    pub reason: Option<Text>,
    pub jira: Option<Text>,
    pub duration: Minutes,
    pub start_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub approvals: Vec<Approval>,
    /// When the last approval that was needed came.
    pub approved_at: Option<Timestamp>,
    /// Known from the moment that Identity Center named the user; the duty to
    /// remove is about this user.
    pub user: Option<UserId>,
    pub granted: Option<Period>,
    pub extension: Option<Extension>,
    pub state: State,
    /// What is still to be done about credentials that were fetched meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<OldCredentials>,
    pub trouble: Option<Failing>,
    pub parked_notices: u32,
    /// Where the bot posted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<PostId>,
    /// What whoever asked for it was told last of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminder: Option<Reminder>,
    /// When this needs work next; absent if never.
    pub due_at: Option<Timestamp>,
    pub lease: Option<Lease>,
    pub chain: Chain,
    /// Grows with every write, also those that are nobody's news, such as a lease.
    pub revision: u64,
}

/// Where a request stands, with the evidence for it. The states between
/// `Approved` and the end are those in which AWS may hold the access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    Pending,
    /// Approved, and AWS has not been asked for anything yet.
    Approved,
    /// The duty to remove is stored; the assignment may be there already.
    Assigning,
    Granted,
    /// Nothing but proof that the assignment is gone leads out of here.
    Removing {
        ending: Ending,
    },
    /// A revoke of a request that ended in ERROR: AWS is asked whether anything is left.
    Checking {
        by: Person,
        reason: Option<Text>,
        error: ErrorEnd,
    },
    /// An end that is in doubt until AWS has been asked.
    Unsettled {
        end: Box<State>,
        doubt: Doubt,
    },
    Denied {
        by: Person,
        reason: Option<Text>,
        at: Timestamp,
    },
    Cancelled {
        by: Option<Person>,
        at: Timestamp,
    },
    Expired {
        at: Timestamp,
    },
    Revoked {
        by: Option<Person>,
        reason: Option<Text>,
        at: Timestamp,
    },
    Error(ErrorEnd),
}

/// Why an end is not believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Somebody wrote it into the store, the way the runbook does it.
    Outside,
    /// A worker that had lost its lease said afterwards that it made the assignment.
    LateAnswer,
}

/// Why an assignment is being removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Ending {
    Expired,
    Revoked {
        by: Option<Person>,
        reason: Option<Text>,
        asked_at: Timestamp,
    },
    /// The grant was given up; what may exist of it goes.
    Failed {
        why: Text,
    },
}

/// An end in ERROR: nothing of the request is left in AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnd {
    pub at: Timestamp,
    pub why: Text,
}

/// The word that the outside knows a state by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Pending,
    Approved,
    Granted,
    Denied,
    Revoked,
    Expired,
    Cancelled,
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: Person,
    pub at: Timestamp,
}

/// From the grant to the moment access must begin to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// A post that says when access ends, to who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reminder {
    pub post: PostId,
    /// The number of the event that it was posted for.
    pub of: u64,
}

/// More time, asked for and not yet approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub by: Person,
    pub minutes: Minutes,
    pub approvals: Vec<Approval>,
}

/// Credentials that outlive the access they were fetched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "are", rename_all = "snake_case")]
pub enum OldCredentials {
    /// To be denied, as far as they began before then.
    Ending { before: Timestamp },
    /// Denied; the last of them is over then by itself.
    Denied { until: Timestamp },
}

/// A run of failures of the same work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    pub since: Timestamp,
    pub attempts: u32,
    /// How many of them AWS itself refused, as opposed to not answering.
    pub refusals: u32,
    pub why: Text,
}

/// The right to do the one next action of a record, for as long as it is renewed.
///
/// Another worker takes it over after it has seen the lease unchanged for `Lease::LASTS` of
/// its own uptime: no two clocks need to agree on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub token: LeaseToken,
    /// Renewed before then; from then on others watch whether it still is.
    pub until: Timestamp,
    #[serde(default, skip_serializing_if = "LeaseHolder::is_server")]
    pub by: LeaseHolder,
}

/// Which kind of process holds a lease: a server that starts knows that the one before it
/// on the same file is dead, and knows nothing of operators' commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseHolder {
    #[default]
    Server,
    Operator,
}

impl LeaseHolder {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde hands it over like this
    fn is_server(&self) -> bool {
        *self == Self::Server
    }
}

impl Lease {
    /// How long the holder of a lease may act after it was taken or renewed.
    pub const LASTS: Millis = Millis::seconds(24);
    /// How often a holder that lives renews it.
    pub const RENEWED_EVERY: Millis = Millis::seconds(8);
    /// A lease that was not renewed for so long is watched by others.
    pub const TRUSTED_FOR: Millis = Millis::seconds(12);
}

/// Which work is claimed first. The order is the promise: an incident does not
/// wait behind a Monday morning's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Revoke,
    Remove,
    Other,
}

impl OldCredentials {
    pub fn due_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ending { .. } => now,
            Self::Denied { until } => until,
        }
    }
}

impl Lane {
    pub const ALL: [Self; 3] = [Self::Revoke, Self::Remove, Self::Other];

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

    /// When access ends, or would end if the next step were taken at once.
    pub fn end_time(&self) -> Timestamp {
        match (self.granted, self.start_at) {
            (Some(period), _) => period.until,
            (None, Some(start)) => start.max(self.created_at) + self.duration.span(),
            (None, None) => self.approved_at.unwrap_or(self.created_at) + self.duration.span(),
        }
    }

    /// What this request holds in AWS or would hold, once its user is known.
    pub fn holding_key(&self) -> Option<HoldingKey> {
        self.user.clone().map(|user| self.holding_key_of(user))
    }

    /// The same, of a user that the record does not name yet.
    pub fn holding_key_of(&self, user: UserId) -> HoldingKey {
        HoldingKey {
            account_id: self.account_id.clone(),
            permission_set: self.permission_set.clone(),
            user,
        }
    }

    pub fn requester_email(&self) -> &Email {
        &self.requester.email
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
            | State::Error(_) => match self.sessions {
                Some(OldCredentials::Ending { .. }) => Lane::Remove,
                Some(OldCredentials::Denied { .. }) | None => Lane::Other,
            },
        }
    }

    /// Nothing is left to do but what time does by itself.
    pub fn is_over(&self) -> bool {
        self.state.is_settled() && !matches!(self.sessions, Some(OldCredentials::Ending { .. }))
    }

    /// AWS was asked to take it away, and has not been seen to.
    pub fn is_failing_removal(&self) -> bool {
        self.trouble.is_some() && self.lane() != Lane::Other
    }

    /// Since when the same work of this request has gone wrong, time after time.
    pub fn troubled_since(&self) -> Option<Timestamp> {
        self.trouble.as_ref().map(|failing| failing.since)
    }

    /// The first moment a worker may take this: when it is due and nobody holds it.
    pub fn claimable_at(&self) -> Option<Timestamp> {
        let due = self.due_at?;
        Some(self.lease.map_or(due, |lease| due.max(lease.until)))
    }

    /// Another's lease that this claim knows nothing against.
    pub fn leased_to_another(&self, claim: &Claim) -> Option<Lease> {
        self.lease
            .filter(|lease| lease.token != claim.lease.token && Some(*lease) != claim.lapsed)
    }

    /// What is due at a date that people were told of; anything else is due for its next try.
    pub fn is_dated(&self) -> bool {
        match &self.state {
            State::Pending | State::Granted => true,
            State::Approved => self.start_at.is_some() && self.due_at == self.start_at,
            State::Assigning
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. } => false,
            State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_) => match self.sessions {
                Some(OldCredentials::Ending { .. }) => false,
                Some(OldCredentials::Denied { .. }) | None => true,
            },
        }
    }

    /// Takes a status that was written from outside, the way the runbook does it,
    /// for what it is: somebody's word that AWS has yet to confirm. A word that is
    /// no end at all gives nobody access: it ends the request in ERROR.
    pub fn hear_outside(&mut self, said: Status, at: Option<Timestamp>, now: Timestamp) {
        if said == self.status() {
            return;
        }
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
            doubt: Doubt::Outside,
        };
        self.extension = None;
        // The lease stays: its holder may have sent calls that nobody can take back.
        self.due_at = Some(now);
    }
}

impl State {
    pub fn status(&self) -> Status {
        match self {
            Self::Pending => Status::Pending,
            Self::Approved | Self::Assigning => Status::Approved,
            // While AWS may still hold the access, GRANTED is the truth.
            Self::Granted | Self::Removing { .. } => Status::Granted,
            Self::Denied { .. } => Status::Denied,
            Self::Cancelled { .. } => Status::Cancelled,
            Self::Expired { .. } => Status::Expired,
            Self::Revoked { .. } => Status::Revoked,
            Self::Checking { .. } | Self::Error(_) => Status::Error,
            Self::Unsettled { end, .. } => end.status(),
        }
    }

    /// Over, and nothing left to do.
    pub fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. }
                | Self::Cancelled { .. }
                | Self::Expired { .. }
                | Self::Revoked { .. }
                | Self::Error(_)
        )
    }

    /// What is known of the assignment itself; absent where none was ever asked for.
    pub fn assignment_status(&self, granted: Option<Period>) -> Option<&'static str> {
        match self {
            Self::Pending | Self::Approved | Self::Denied { .. } | Self::Cancelled { .. } => None,
            Self::Assigning => Some("CREATING"),
            Self::Granted => Some("PROVISIONED"),
            Self::Removing { .. } => Some("DELETING"),
            Self::Checking { .. } | Self::Unsettled { .. } => Some("CHECKING"),
            Self::Expired { .. } | Self::Revoked { .. } | Self::Error(_) => {
                granted.map(|_| "DELETED")
            }
        }
    }
}

impl Status {
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Approved,
        Self::Granted,
        Self::Denied,
        Self::Revoked,
        Self::Expired,
        Self::Cancelled,
        Self::Error,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Granted => "GRANTED",
            Self::Denied => "DENIED",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or(Invalid(
                "must be PENDING, APPROVED, GRANTED, DENIED, REVOKED, EXPIRED, CANCELLED or ERROR",
            ))
    }
}
