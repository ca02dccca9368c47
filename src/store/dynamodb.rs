//! The store on DynamoDB, which any number of replicas share, as servers or under Lambda.
//! Conditional writes decide between them.
//!
//! `tables` and `items` define the tables and the records. A commit is one transaction
//! (`commit`). Sparse indexes find due work (`due`, `outbox`) and give the gauges (`gauges`);
//! other indexes give lists and histories (`lists`). `calls` calls DynamoDB and interprets its
//! errors. jit never scans a table.

mod calls;
mod commit;
mod due;
mod gauges;
mod head_log;
mod inspect;
mod items;
mod lists;
mod outbox;
mod portable;
pub mod setup;
mod sizes;
mod tables;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};
use futures_util::future::try_join_all;

pub use tables::{
    Attribute, AttributeKind, Definition, Index, Keeping, KeySchema, Shows, Table, TableNames,
};

use super::portable::COPIED;
use super::{
    Answered, AuditFilter, ClaimEnd, ClaimedNotice, Commit, Cursor, Due, Filter, Found, Freshness,
    Gauges, Head, Inspected, Left, Nonce, NoticePlace, Store, StoreError, Taken,
};
use crate::clock::Clock;
use crate::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Event, EventPlace, HeadEntry, Holding,
    HoldingKey, Lane, Lease, LeaseHolder, LeaseToken, Millis, Notice, Request, RequestId,
    Timestamp,
};
use calls::{Condition, WriteResult};
use items::{Item, millis, s};

/// The time limit of one attempt.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The time limit of a call with all its attempts.
const CALL: Duration = Duration::from_secs(9);
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct DynamoStore {
    client: Client,
    names: TableNames,
    clock: Arc<dyn Clock>,
}

impl DynamoStore {
    /// Connects with the region, credentials and endpoint of the AWS environment variables.
    pub async fn connect(names: TableNames, clock: Arc<dyn Clock>) -> Self {
        let environment = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
        Self::new(Builder::from(&environment), names, clock)
    }

    pub fn new(config: Builder, names: TableNames, clock: Arc<dyn Clock>) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(ATTEMPT / 3)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(CALL)
            .build();
        // Retries are safe for writes as well: each has a condition or a token by which a
        // repeat is recognised.
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_PAUSE)
            .with_max_backoff(LONGEST_PAUSE);
        // The calls share no retry budget: failures of other calls must not use up the
        // attempts of a revoke.
        let own = RetryPartition::custom("jit").token_bucket(TokenBucket::unlimited());
        let config = config
            .timeout_config(timeouts)
            .retry_config(retries)
            .retry_partition(own.build());
        let client = Client::from_conf(config.build());
        Self {
            client,
            names,
            clock,
        }
    }
}

impl DynamoStore {
    pub fn names(&self) -> &TableNames {
        &self.names
    }
}

/// A key that no item has.
const MISSING_KEY: &str = "nobody";

impl DynamoStore {
    /// Checks that every table exists and that jit may read it, so that a missing table is
    /// found at the start and not by the first revoke.
    pub async fn check_tables(&self) -> Result<(), StoreError> {
        let check_tables = |table: Table| {
            let attributes = table.definition().key.attributes();
            let key = attributes.map(|attribute| (attribute.name.to_owned(), s(MISSING_KEY)));
            self.get(table, key.collect())
        };
        try_join_all(Table::ALL.map(check_tables)).await.map(drop)
    }
}

#[async_trait]
impl Store for DynamoStore {
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        self.find_request(id).await
    }

    async fn holding(&self, key: &HoldingKey) -> Result<Option<Holding>, StoreError> {
        let key = Item::from([("holding_key".into(), s(key))]);
        let item = self.get(Table::Assignments, key).await?;
        item.map(|item| items::read_holding(&item)).transpose()
    }

    async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError> {
        let key = items::binding_key(&items::account_key(account));
        let item = self.get(Table::Bindings, key).await?;
        item.map(|item| items::from_doc(&item, "binding_key"))
            .transpose()
    }

    async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, StoreError> {
        let item = self.find_channel(id).await?;
        let item = item.filter(|item| item.contains_key("doc"));
        item.map(|item| items::from_doc(&item, "binding_key"))
            .transpose()
    }

    async fn bindings_page(
        &self,
        channel: &ChannelId,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        self.bindings_of(channel, after, limit).await
    }

    async fn bound(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        self.all_bindings(after, limit).await
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.write(commit).await
    }

    async fn renew(&self, request: Request) -> Result<(), StoreError> {
        self.write_alone(&request).await
    }

    async fn answered(&self, key: &str, now: Timestamp) -> Result<Option<Answered>, StoreError> {
        let key = Item::from([("answer_key".into(), s(key))]);
        let item = self.get(Table::Answers, key).await?;
        let answered = item.map(|item| items::read_answered(&item)).transpose()?;
        Ok(answered.filter(|answered| now - answered.at <= Millis::DAY))
    }

    async fn spend_nonce(&self, nonce: &Nonce) -> Result<Freshness, StoreError> {
        let spent_by = s(self.clock.draw());
        let (mut item, condition) = (items::nonce(nonce), commit::is_fresh(nonce));
        item.insert("spent_by".into(), spent_by.clone());
        Ok(match self.put(Table::Nonces, item, &condition).await? {
            WriteResult::Yes => Freshness::Fresh,
            // This same call wrote the nonce, and the answer to its first attempt was lost.
            WriteResult::No(Some(found)) if found.get("spent_by") == Some(&spent_by) => {
                Freshness::Fresh
            }
            WriteResult::No(_) => Freshness::Spent,
        })
    }

    async fn take_lease(
        &self,
        name: &str,
        lease: Lease,
        lapsed: Option<Lease>,
    ) -> Result<Taken, StoreError> {
        let mut item = Item::from([
            ("lease_name".into(), s(name)),
            ("lease_token".into(), s(lease.token.0)),
            ("lease_until".into(), millis(lease.until)),
        ]);
        items::forget_after(&mut item, lease.until + Millis::DAY);
        let mut condition = Condition::that(match lapsed {
            None => "attribute_not_exists(lease_name) OR lease_token = :token",
            Some(_) => {
                "attribute_not_exists(lease_name) OR lease_token = :token \
                 OR lease_token = :lapsed AND lease_until = :since"
            }
        })
        .with(":token", s(lease.token.0));
        if let Some(lapsed) = lapsed {
            condition = condition
                .with(":lapsed", s(lapsed.token.0))
                .with(":since", millis(lapsed.until));
        }
        Ok(match self.put(Table::Leases, item, &condition).await? {
            WriteResult::Yes => Taken::Yes,
            WriteResult::No(Some(found)) => Taken::ByAnother(Lease {
                token: LeaseToken(items::parsed(&found, "lease_token")?),
                until: items::time(&found, "lease_until")?,
                by: LeaseHolder::Server,
            }),
            // The lease was released between the write and the read of its holder.
            WriteResult::No(None) => {
                return Err(StoreError::Unavailable(
                    "another process released the lease at the same moment".into(),
                ));
            }
        })
    }

    async fn give_lease(&self, name: &str, token: LeaseToken) -> Result<(), StoreError> {
        let key = Item::from([("lease_name".into(), s(name))]);
        let held = Condition::that("lease_token = :token").with(":token", s(token.0));
        self.delete(Table::Leases, key, &held).await.map(drop)
    }

    async fn due(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError> {
        self.due_requests(lane, now, limit).await
    }

    async fn claim_notices(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError> {
        self.claim(now, lease, lease_until, limit).await
    }

    async fn claim_notice(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError> {
        self.claim_of(id, now, lease, lease_until).await
    }

    async fn undelivered(&self, id: RequestId) -> Result<Vec<Notice>, StoreError> {
        let item = self.get(Table::Outbox, items::request_key(id)).await?;
        Ok(outbox::readable_pending(&item.unwrap_or_default()))
    }

    async fn end_pauses(&self, now: Timestamp) -> Result<(), StoreError> {
        self.end_all_pauses(now).await
    }

    async fn end_claim(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        end: ClaimEnd,
    ) -> Result<Left, StoreError> {
        self.end_claim_at(place, lease, end).await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        self.requests(filter, after, limit).await
    }

    async fn audit_page(
        &self,
        key: &AuditKey,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.history(key, after, limit).await
    }

    async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError> {
        self.events(filter, after, limit).await
    }

    async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        self.chains(after, limit).await
    }

    async fn inspect(&self, key: &AuditKey) -> Result<Inspected, StoreError> {
        self.inspected(key).await
    }

    async fn audit_keys(&self) -> Result<BTreeSet<String>, StoreError> {
        self.keys_of_events().await
    }

    async fn last_head_entry(&self) -> Result<Option<HeadEntry>, StoreError> {
        self.last_entry().await
    }

    async fn head_entries(&self, after: u64, limit: usize) -> Result<Vec<HeadEntry>, StoreError> {
        self.entries_after(after, limit).await
    }

    async fn add_head_entry(&self, entry: &HeadEntry) -> Result<(), StoreError> {
        self.add_entry(entry).await
    }

    async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let key = Item::from([("lease_name".into(), s(COPIED))]);
        let item = self.get(Table::Leases, key).await?;
        item.map(|item| items::time(&item, "lease_until"))
            .transpose()
    }

    async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        self.count(now).await
    }

    /// Does nothing: DynamoDB deletes expired items itself, by their TTL attribute.
    async fn tidy(&self, _now: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
}
