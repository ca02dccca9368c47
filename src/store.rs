//! Where everything is kept. One atomic write, and reads that see every write before them.
//!
//! A store promises, and `tests/store` holds each one to it:
//!
//! - `commit` writes all or nothing, and only if every record in it follows directly on
//!   what is stored: a record of revision *n* replaces revision *n − 1*, and revision 1
//!   replaces nothing. Otherwise `Conflict`, and nothing has changed.
//! - After `commit` returned, it survives the loss of power.
//! - A read that starts after a commit returned sees it.
//! - What a request still has to tell is bounded (`outbox`), and no commit is refused
//!   because of it.
//! - A record that cannot be read keeps no other from being found: what finds many passes
//!   it over and names it, what asks for it by its key fails with `Corrupt`.
//! - A nonce is fresh once, for all callers together.
//! - A status that was changed in the store from outside is heard (`Request::hear_outside`).

pub mod dynamodb;
mod found;
pub mod outbox;
pub mod portable;
pub mod sqlite;

use async_trait::async_trait;

pub use found::{Found, Unreadable};

use crate::domain::{
    AccountId, AuditKey, Binding, Chain, Channel, ChannelId, Email, Event, Holding, HoldingKey,
    Lane, Lease, LeaseToken, Millis, Notice, Request, RequestId, Status, Timestamp,
};

#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError>;
    async fn holding(&self, key: &HoldingKey) -> Result<Option<Holding>, StoreError>;
    async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError>;
    async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, StoreError>;
    /// A channel's bindings, by account.
    async fn bindings(&self, channel: &ChannelId) -> Result<Found<Binding>, StoreError>;

    /// Everybody's bindings, by account, from the first after `after`.
    async fn bound(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError>;

    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;
    /// Writes a request of which nothing but the lease was renewed. Holders do this again
    /// and again while they wait for AWS, so a store may have a cheaper way than a commit.
    async fn renew(&self, request: Request) -> Result<(), StoreError> {
        self.commit(Commit {
            requests: vec![request],
            ..Commit::default()
        })
        .await
    }

    /// What was answered to this key before, if it is not older than a day.
    async fn answered(&self, key: &str, now: Timestamp) -> Result<Option<Answered>, StoreError>;
    /// Spends a nonce by itself. One conditional write; times are compared, so a
    /// forgotten nonce never waits for a clean-up.
    async fn spend_nonce(&self, nonce: &Nonce) -> Result<Freshness, StoreError>;

    /// Takes a lease by name, if no other holder has it, or only the one that is known to
    /// have lapsed: for what may be changed by one at a time and is not in the store.
    async fn take_lease(
        &self,
        name: &str,
        lease: Lease,
        lapsed: Option<Lease>,
    ) -> Result<Taken, StoreError>;
    /// Gives it back, if it is still the holder's.
    async fn give_lease(&self, name: &str, token: LeaseToken) -> Result<(), StoreError>;

    /// Requests of a lane that may be claimed now, the longest due first.
    async fn due(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError>;

    /// Takes up to `limit` notices that are due: of each request only the oldest that is
    /// not delivered, so that what happened first is told first.
    async fn claim_notices(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError>;
    /// The same for one request, by whoever knows that it has something to tell.
    async fn claim_notice(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError>;
    /// Ends the claim. A claim that was lost meanwhile changes nothing.
    async fn settle_notice(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        settled: Settled,
    ) -> Result<Left, StoreError>;

    /// Newest first.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError>;
    /// One history, oldest first.
    async fn audit(&self, key: &AuditKey) -> Result<Vec<Event>, StoreError>;
    /// Everybody's history by time; `after` is the sort key of the last event seen.
    async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError>;
    /// Where each history must end, in the order of their keys' text.
    async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError>;

    /// When this was last copied into from another store.
    async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError>;

    async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError>;
    /// Forgets spent nonces, delivered notices and old answers whose time is over.
    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError>;
}

/// Everything that becomes true together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    pub requests: Vec<Request>,
    pub holdings: Vec<Holding>,
    pub channel: Option<Channel>,
    pub bindings: Vec<Binding>,
    /// To be removed, if it is still at this revision.
    pub unbound: Option<Binding>,
    /// What must not have changed since it was read.
    pub guard: Option<Guard>,
    pub events: Vec<Event>,
    pub notices: Vec<Notice>,
    /// A notice that is no longer tried.
    pub parked: Option<NoticePlace>,
    /// Remembers the answer to an `Idempotency-Key`; a second one is a `Conflict`.
    pub answered: Option<Answered>,
    /// Of the call that asked for it: spent in the same write, and not by a `Conflict`.
    pub nonce: Option<Nonce>,
}

/// What makes a signed call count once, for all keys together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce {
    pub text: String,
    pub at: Timestamp,
    pub keep_until: Timestamp,
}

/// The binding that a decision was made under: `revision` 0 says that there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub account_id: AccountId,
    pub revision: u64,
    /// Which binding of the account that was: an account that is unbound and bound again
    /// begins at revision 1 again.
    pub made: Option<BindingOrigin>,
}

/// Where a binding was made, which tells it apart from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingOrigin {
    pub channel_id: ChannelId,
    /// The number of its BOUND event in the channel's history.
    pub bound_seq: u64,
}

impl Guard {
    pub fn of(account_id: &AccountId, binding: Option<&Binding>) -> Self {
        Self {
            account_id: account_id.clone(),
            revision: binding.map_or(0, |binding| binding.revision),
            made: binding.map(|binding| BindingOrigin {
                channel_id: binding.channel_id.clone(),
                bound_seq: binding.bound_seq,
            }),
        }
    }

    /// Whether nothing has changed since: what stands there is what was read.
    pub fn holds(&self, stored: Option<&Binding>) -> bool {
        *self == Self::of(&self.account_id, stored)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub key: String,
    /// Of the call that the key came with: the same key with another call is a mistake.
    pub fingerprint: String,
    pub request_id: RequestId,
    pub at: Timestamp,
}

/// What can be taken now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due<T> {
    pub ready: Vec<T>,
    /// When the first that is not among it can be taken, past or future.
    pub next: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    Spent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    ByAnother(Lease),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoticePlace {
    pub request_id: RequestId,
    pub seq: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedNotice {
    pub notice: Notice,
    /// How often it was tried before.
    pub attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Delivered,
    /// Not delivered: to be tried again then, one attempt more.
    TryAgain {
        at: Timestamp,
    },
    /// Not tried at all: to be taken by the next who asks.
    Released,
}

/// Whether a request has another notice that can be claimed, now that one is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    More,
}

/// What a list is narrowed to; everything given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub request_id: Option<RequestId>,
    pub channel_id: Option<ChannelId>,
    pub account_id: Option<AccountId>,
    pub requester_email: Option<Email>,
    pub status: Option<Status>,
    /// Created at or after.
    pub from: Option<Timestamp>,
    /// Created before.
    pub before: Option<Timestamp>,
}

/// The last request of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub created_at: Timestamp,
    pub id: RequestId,
}

impl From<&Request> for Cursor {
    fn from(request: &Request) -> Self {
        Self {
            created_at: request.created_at,
            id: request.id,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub account_id: Option<AccountId>,
    pub channel_id: Option<ChannelId>,
    pub from: Option<Timestamp>,
    pub before: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub key: AuditKey,
    pub chain: Chain,
    /// Of a request; configuration has none.
    pub status: Option<Status>,
}

impl From<Request> for Head {
    fn from(request: Request) -> Self {
        Self {
            key: AuditKey::Request(request.id),
            status: Some(request.status()),
            chain: request.chain,
        }
    }
}

impl From<Channel> for Head {
    fn from(channel: Channel) -> Self {
        Self {
            key: AuditKey::Config(channel.id),
            chain: channel.chain,
            status: None,
        }
    }
}

/// What has gone wrong for so long does not pass by itself.
pub const STUCK_AFTER: Millis = Millis::minutes(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Requests that could be claimed now.
    pub backlog: u64,
    /// Since when the first of them could.
    pub oldest_due: Option<Timestamp>,
    pub live_grants: u64,
    /// Grants whose end has come and whose removal nobody has begun.
    pub overdue_grants: u64,
    /// Removals that went wrong the last time they were tried.
    pub failing_removals: u64,
    /// Requests whose work at AWS has gone wrong, or not ended, since `STUCK_AFTER` ago.
    pub stuck_requests: u64,
    pub undelivered_notices: u64,
    pub oldest_undelivered: Option<Timestamp>,
    pub parked_notices: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// With the request as it stands there now, if that was in the way: whoever lost need
    /// not ask who won.
    #[error("somebody else changed it first")]
    Conflict(Option<Box<Request>>),
    /// The nonce was spent before, and nothing has changed.
    #[error("the call was taken before")]
    Replayed,
    /// Nothing was written. Full disk, read-only file, no connection.
    #[error("the store cannot be used just now: {0}")]
    Unavailable(String),
    /// It did not answer: whether it was written is not known.
    #[error("the store did not answer, and may have done it: {0}")]
    Unsure(String),
    /// Nothing was written: a record or a write would be larger than the store takes.
    #[error("this is too much to keep: {0}")]
    TooLarge(String),
    /// What was to be copied is here already, and went another way.
    #[error("{0} is in both, and each has a history of its own")]
    Diverged(String),
    /// What is stored cannot be understood.
    #[error("the store holds something that jit did not write: {0}")]
    Corrupt(String),
}
