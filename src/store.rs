//! The store: the interface to SQLite and DynamoDB, with one atomic write operation.
//!
//! Every store keeps these promises, and `tests/store` checks each store against them:
//!
//! - `commit` writes everything or nothing. It writes only if every record in it directly
//!   follows the stored one: a record of revision *n* replaces revision *n − 1*, and a record
//!   of revision 1 replaces nothing. Otherwise it returns `Conflict` and changes nothing.
//! - A commit that returned `Ok` survives a power failure.
//! - A read that starts after a commit returned sees that commit.
//! - The outbox of a request has a bounded size (`outbox`), and the store refuses no commit
//!   because an outbox is full.
//! - An unreadable record hides no other record: a read that finds many records skips and
//!   names it, and a read by its key fails with `Corrupt`.
//! - A nonce is fresh exactly once, for all callers and replicas together.
//! - A read takes account of a status that an operator changed directly in the store
//!   (`Request::apply_outside_status`).

pub mod dynamodb;
mod found;
pub mod inspect;
pub mod outbox;
pub mod portable;
pub mod sqlite;

use std::collections::BTreeSet;

use async_trait::async_trait;

pub use found::{Found, Unreadable};
pub use inspect::{AuditedRecord, Inspected, Misfit};

use crate::domain::{
    AccessChange, AccountId, AuditKey, Binding, Chain, Channel, ChannelId, Decision, Email, Event,
    EventPlace, HeadEntry, Holding, HoldingKey, Lane, Lease, LeaseToken, Millis, Notice, Rebinding,
    Request, RequestId, Status, Timestamp,
};

/// The operations that the service and the workers need from a store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the request with this id. A status that was changed from outside is already
    /// applied to it.
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError>;
    /// Returns the holding of one assignment.
    async fn holding(&self, key: &HoldingKey) -> Result<Option<Holding>, StoreError>;
    /// Returns the binding of an account.
    async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError>;
    /// Returns a channel with its approvers.
    async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, StoreError>;
    /// Returns up to `limit` bindings of a channel, ordered by account; the first is the one that
    /// follows `after`.
    async fn bindings_page(
        &self,
        channel: &ChannelId,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError>;
    /// Returns all bindings of a channel, ordered by account. `limits` bounds their number.
    async fn bindings(&self, channel: &ChannelId) -> Result<Found<Binding>, StoreError> {
        self.bindings_page(channel, None, usize::MAX).await
    }

    /// Returns up to `limit` bindings of all channels, ordered by account; the first is the
    /// one that follows `after`.
    async fn bound(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError>;

    /// Writes everything in `commit`, or nothing. On success the data survives a power
    /// failure, and every later read sees it. Fails with `Conflict` if another write came
    /// first: the caller reads again and decides again.
    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;
    /// Writes a request in which only the lease changed. A worker renews its lease repeatedly
    /// while it waits for AWS, so a store may implement this more cheaply than `commit`.
    async fn renew(&self, request: Request) -> Result<(), StoreError> {
        self.commit(Commit::of([Write::Request(request)])).await
    }

    /// Returns the answer that was stored for this idempotency key, unless it is older than
    /// one day.
    async fn answered(&self, key: &str, now: Timestamp) -> Result<Option<Answered>, StoreError>;
    /// Spends a nonce outside a commit, in one conditional write. The store compares times,
    /// so an expired nonce is fresh again even before `tidy` deletes it.
    async fn spend_nonce(&self, nonce: &Nonce) -> Result<Freshness, StoreError>;

    /// Takes the lease with this name if it is free, if the caller holds it already, or if it
    /// is still exactly `lapsed`, which the caller saw lapse. Such a lease protects something
    /// outside the store that only one process may change at a time.
    async fn take_lease(
        &self,
        name: &str,
        lease: Lease,
        lapsed: Option<Lease>,
    ) -> Result<Taken, StoreError>;
    /// Releases a named lease if `token` still holds it; otherwise changes nothing.
    async fn give_lease(&self, name: &str, token: LeaseToken) -> Result<(), StoreError>;

    /// Returns up to `limit` requests of a lane that a worker may claim now, the one that has
    /// been due longest first, and the time at which the next one becomes due.
    async fn due(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError>;

    /// Claims up to `limit` due notices. Of each request the store offers only the oldest
    /// undelivered notice, so the notices of a request are delivered in order. A request is due
    /// when any of its notices is due.
    async fn claim_notices(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError>;
    /// Claims the oldest undelivered notice of one request, for a caller that knows that this
    /// request has a new notice.
    async fn claim_notice(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError>;
    /// Returns the readable undelivered notices of one request, oldest first: the holder of the
    /// claim gives the later ones to the receivers that have the oldest.
    async fn undelivered(&self, id: RequestId) -> Result<Vec<Notice>, StoreError>;
    /// Makes all notices that no worker has claimed due at `now`: a server that starts does not
    /// wait for the pauses of an earlier one.
    async fn end_pauses(&self, now: Timestamp) -> Result<(), StoreError>;
    /// Records the result of a delivery and ends the claim. If the claim was lost in the
    /// meantime, this changes nothing.
    async fn end_claim(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        end: ClaimEnd,
    ) -> Result<Left, StoreError>;

    /// Returns up to `limit` requests that match `filter`, newest first, starting after the
    /// request at `after`.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError>;
    /// Returns up to `limit` events of one history, oldest first; the first is the one that
    /// follows `after`. Fails with `Corrupt` if any of them is unreadable.
    async fn audit_page(
        &self,
        key: &AuditKey,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError>;
    /// Returns one complete history. Only for the commands of an operator: the length of a
    /// history has no limit, and a server reads pages.
    async fn audit(&self, key: &AuditKey) -> Result<Vec<Event>, StoreError> {
        self.audit_page(key, None, usize::MAX).await
    }
    /// Counts the PENDING requests of one person by one key, up to `limit`.
    async fn count_pending(&self, of: &PendingOf, limit: usize) -> Result<usize, StoreError> {
        let filter = Filter {
            requester_email: Some(of.requester_email.clone()),
            status: Some(Status::Pending),
            from: Some(of.from),
            ..Filter::default()
        };
        let (mut count, mut after) = (0, None);
        while count < limit {
            let page = self.list(&filter, after.as_ref(), limit).await?;
            let Some(last) = page.items.last() else {
                break;
            };
            after = Some(Cursor::from(last));
            let of_key = page
                .items
                .iter()
                .filter(|one| one.asked.key_id == of.key_id);
            count += of_key.count();
        }
        Ok(count.min(limit))
    }
    /// Returns up to `limit` events of all histories that match `filter`, ordered by time.
    /// `after` is the sort key of the last event of the previous page.
    async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError>;
    /// Returns the expected end of each history, ordered by the text of the audit key, so
    /// that `jit audit verify` can compare it with the stored events.
    async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError>;

    /// Returns everything that the store has about one history, and the columns or attributes
    /// that differ from their documents.
    async fn inspect(&self, key: &AuditKey) -> Result<Inspected, StoreError>;
    /// Returns the text of every audit key that has an event, also of those without a record.
    async fn audit_keys(&self) -> Result<BTreeSet<String>, StoreError>;

    /// Returns the last entry of the head log.
    async fn last_head_entry(&self) -> Result<Option<HeadEntry>, StoreError>;
    /// Returns up to `limit` entries of the head log that follow the entry `after`, in order.
    async fn head_entries(&self, after: u64, limit: usize) -> Result<Vec<HeadEntry>, StoreError>;
    /// Adds an entry to the head log. Fails with `Conflict` if the log has this number already.
    async fn add_head_entry(&self, entry: &HeadEntry) -> Result<(), StoreError>;

    /// Returns the time at which another store was last copied into this one.
    async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Returns the numbers that `/metrics` and the alarms show.
    async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError>;
    /// Deletes expired nonces and expired answers.
    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError>;
}

/// Writes that the store makes in one atomic write: all of them, or none if the condition of one
/// fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// No two of them write the same record.
    pub writes: Vec<Write>,
    /// The nonce of the call that asked for this commit. A successful commit spends it; a
    /// `Conflict` does not, so the same call can be decided again. If the nonce was spent before,
    /// the commit is `Replayed`, whatever else fails.
    pub nonce: Option<Nonce>,
}

/// One write of a commit. If its condition fails, the commit is a `Conflict`.
#[expect(
    clippy::large_enum_variant,
    reason = "a commit has few writes, and most of them are large"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The new revision of a request, which must be one higher than the stored revision.
    Request(Request),
    /// The new revision of a holding, by the same rule.
    Holding(Holding),
    /// The new revision of a channel, by the same rule.
    Channel(Channel),
    /// The new revision of a binding, by the same rule.
    Binding(Binding),
    /// Deletes a binding, if its stored revision is this one.
    Unbind(Binding),
    /// Writes nothing: the binding under which the decision was made must be unchanged.
    Guard(Guard),
    /// Adds an event to the audit.
    Event(Event),
    /// Adds a notice to the outbox.
    Notice(Notice),
    /// Gives up a pending notice: the notice worker does not deliver it any more.
    Park(NoticePlace),
    /// Stores the answer for an `Idempotency-Key`, which must have none yet.
    Answer(Answered),
}

impl Commit {
    pub fn of(writes: impl IntoIterator<Item = Write>) -> Self {
        Self::default().with(writes)
    }

    pub fn with(mut self, writes: impl IntoIterator<Item = Write>) -> Self {
        self.writes.extend(writes);
        self
    }
}

impl Write {
    pub fn of_decision(decision: Decision) -> impl Iterator<Item = Self> {
        let of_access = match decision.access {
            AccessChange::Assignment(change) => change.holding.map(Self::Holding),
        };
        let record = [Self::Request(decision.request)].into_iter();
        record
            .chain(of_access)
            .chain(decision.events.into_iter().map(Self::Event))
            .chain(decision.notices.into_iter().map(Self::Notice))
    }

    pub fn of_rebinding(rebinding: Rebinding) -> impl Iterator<Item = Self> {
        let record = [Self::Channel(rebinding.channel)].into_iter();
        record
            .chain(rebinding.unbound.map(Self::Unbind))
            .chain(rebinding.bindings.into_iter().map(Self::Binding))
            .chain(rebinding.events.into_iter().map(Self::Event))
    }
}

/// A nonce to spend. The store accepts each text once until `keep_until`, for all key ids
/// together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// The nonce of a signed call, or the trigger id of a click after `mattermost:`.
    pub text: String,
    /// The time of the call; an earlier entry that expired before it does not count.
    pub at: Timestamp,
    /// When the entry expires; by then jit refuses the same call as too old.
    pub keep_until: Timestamp,
}

/// The binding under which a decision was made. `revision` 0 means that the account had no
/// binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The AWS account whose binding must be unchanged.
    pub account_id: AccountId,
    /// The [`Binding::revision`] under which the decision was made.
    pub revision: u64,
    /// The origin of the binding. The revision alone is not enough: an account that is unbound
    /// and bound again starts at revision 1 again.
    pub made: Option<BindingOrigin>,
}

/// The channel and the event that created a binding. No two bindings have the same origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingOrigin {
    /// The Mattermost channel whose history contains the BOUND event.
    pub channel_id: ChannelId,
    /// The sequence number of the BOUND event in the channel's history.
    pub bound_seq: u64,
}

impl Guard {
    /// Returns the guard for a binding that was just read, or for its absence.
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

    /// Reports whether the stored binding is still the one that was read.
    pub fn holds(&self, stored: Option<&Binding>) -> bool {
        *self == Self::of(&self.account_id, stored)
    }
}

/// The stored answer to a call with an `Idempotency-Key`: the request that it created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The idempotency key with the key id that sent it; jit makes one for a command or a dialog
    /// in Mattermost.
    pub key: String,
    /// The fingerprint of the call that carried the key. The service refuses the same key in
    /// a different call.
    pub fingerprint: String,
    /// The request that the call created.
    pub request_id: RequestId,
    /// When the call created the request; the answer counts for one day.
    pub at: Timestamp,
}

/// The entries that can be claimed now, and the time at which the next one becomes due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due<T> {
    /// The entries that can be claimed, or that the call has claimed, at most `limit`.
    pub ready: Vec<T>,
    /// The time at which the first entry outside `ready` can be claimed. It may be in the
    /// past, if `limit` cut `ready` short.
    pub next: Option<Timestamp>,
}

/// Whether a nonce was spent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    Spent,
}

/// The result of `take_lease`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    /// Another process holds the lease; this is the lease as stored.
    ByAnother(Lease),
}

/// The key of a notice in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoticePlace {
    /// The request that the notice is about.
    pub request_id: RequestId,
    /// The [`Notice::seq`] of the notice.
    pub seq: u64,
}

/// A notice that the caller may deliver until its claim ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedNotice {
    /// The oldest undelivered notice of its request.
    pub notice: Notice,
    /// The number of earlier delivery attempts.
    pub attempts: u32,
    /// How many notices of the request were parked so far.
    pub parked: u64,
}

/// The result of a delivery attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimEnd {
    /// All receivers accepted the notice; the store deletes it, and keeps which receivers have
    /// the later notices in `ahead`.
    Delivered { ahead: Vec<Notice> },
    /// A receiver did not accept the notice. It and the others in `tried` become due again at
    /// `at`, with one attempt more; the store keeps which receivers have them.
    TryAgain { at: Timestamp, tried: Vec<Notice> },
    /// No delivery was attempted: the notice can be claimed again at once.
    Released,
}

/// Whether the request has another notice that can be claimed after one claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    More,
}

/// The conditions of a list. A request must meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The request has this id.
    pub request_id: Option<RequestId>,
    /// The request was made in this Mattermost channel.
    pub channel_id: Option<ChannelId>,
    /// The request is for access in this AWS account.
    pub account_id: Option<AccountId>,
    /// The requester has this e-mail address.
    pub requester_email: Option<Email>,
    /// The request has this status now.
    pub status: Option<Status>,
    /// The request was created at or after this time.
    pub from: Option<Timestamp>,
    /// The request was created before this time.
    pub before: Option<Timestamp>,
}

/// The PENDING requests that a limit counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingOf {
    /// The requester has this e-mail address.
    pub requester_email: Email,
    /// This key signed the calls; `None` for requests from Mattermost.
    pub key_id: Option<String>,
    /// The requests were created at or after this time.
    pub from: Timestamp,
}

/// The position of a request in a list: the last one of the previous page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The time at which that request was created.
    pub created_at: Timestamp,
    /// The id of that request, which orders requests of the same time.
    pub id: RequestId,
}

impl From<&Request> for Cursor {
    fn from(request: &Request) -> Self {
        Self {
            created_at: request.asked.created_at,
            id: request.id,
        }
    }
}

/// The conditions of an audit export. An event must meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The event is about this AWS account.
    pub account_id: Option<AccountId>,
    /// The event is about a request or the configuration of this channel.
    pub channel_id: Option<ChannelId>,
    /// The event happened at or after this time.
    pub from: Option<Timestamp>,
    /// The event happened before this time.
    pub before: Option<Timestamp>,
}

/// The end that a history must have, according to the record that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The owner of the history: a request or a channel.
    pub key: AuditKey,
    /// The number, hash and time that the last event must have.
    pub chain: Chain,
    /// The status of the request; `None` for the history of a channel.
    pub status: Option<Status>,
}

impl From<Request> for Head {
    fn from(request: Request) -> Self {
        Self {
            key: AuditKey::Request(request.id),
            status: Some(request.status()),
            chain: request.version.chain,
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

/// After this time a request counts as stuck: work that has failed for this long seldom
/// succeeds without an operator.
pub const STUCK_AFTER: Millis = Millis::minutes(5);

/// The numbers that `/metrics` and the alarms show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Requests that a worker could claim now.
    pub backlog: u64,
    /// The time since which the first request of the backlog has been due.
    pub oldest_due: Option<Timestamp>,
    /// Requests with the status GRANTED.
    pub live_grants: u64,
    /// Grants past their end whose removal has not begun, and removals that are not finished two
    /// minutes after their beginning.
    pub overdue_grants: u64,
    /// Removals that failed at their last attempt.
    pub failing_removals: u64,
    /// Requests whose work at AWS has failed, or has not ended, for `STUCK_AFTER`.
    pub stuck_requests: u64,
    /// Notices that wait for delivery.
    pub undelivered_notices: u64,
    /// The creation time of the oldest notice that waits for delivery.
    pub oldest_undelivered: Option<Timestamp>,
    /// Notices that jit gave up.
    pub parked_notices: u64,
}

/// The ways in which a store operation can fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another write came first, and this one changed nothing. Carries the request as it is
    /// stored now, if the request caused the conflict, so the caller need not read it again.
    #[error("another write changed the record first")]
    Conflict(Option<Box<Request>>),
    /// The nonce was spent before; nothing was written.
    #[error("the nonce of this call was used before")]
    Replayed,
    /// The store wrote nothing: the disk is full, the file is read-only, or DynamoDB cannot be
    /// reached.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store did not answer, so the write may or may not have happened.
    #[error("the store did not answer and may have made the change: {0}")]
    Unsure(String),
    /// The store wrote nothing: a record or a commit is larger than the store accepts.
    #[error("the change is too large for the store: {0}")]
    TooLarge(String),
    /// Both stores contain this history, and neither version continues the other.
    #[error("{0} is in both stores, with different histories")]
    Diverged(String),
    /// A stored record or event is unreadable.
    #[error("the store contains data that jit cannot read: {0}")]
    Corrupt(String),
}
