//! Finds due work at a cost that depends on the amount of due work.
//!
//! An idle search reads the first few entries of each partition of an index, however much is
//! stored.

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;

use super::DynamoStore;
use super::items::{self, Item, due_lane, n, parsed, s, time};
use super::tables::{BY_DUE, BY_WATCH, SHARDS, Table};
use crate::domain::{Lane, RequestId, Status, Timestamp};
use crate::store::found::{RecordKind, readable};
use crate::store::{Due, StoreError};

/// The number of entries that an idle search reads from a partition.
const A_FEW: usize = 8;
pub(super) const A_PAGE: usize = 256;

/// The entry of an index for a due item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexEntry {
    pub at: Timestamp,
    pub id: RequestId,
}

/// The key of one partition of an index.
pub(super) type Partition = (&'static str, AttributeValue);

/// Returns every partition of an index whose partition key is the shard number.
pub(super) fn shards(name: &'static str) -> impl Iterator<Item = Partition> {
    (0..SHARDS).map(move |shard| (name, n(shard)))
}

/// The ranges of statuses that only a change from outside can write. The statuses of jit's own
/// records in this index are between these ranges.
const WORDS_OF_OTHERS: [(&str, &str); 2] = [("APPROVED ", "GRANTE"), ("PENDING ", "~")];

impl DynamoStore {
    pub(super) async fn due_requests(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError> {
        let partitions = (0..SHARDS).map(|shard| ("due_lane", s(due_lane(lane, shard))));
        let due = self.due_in(Table::Requests, partitions, now, limit);
        let due = match lane {
            // A request that was changed from outside is due at once, with the removals.
            Lane::Remove => {
                let (mut due, words) = tokio::try_join!(due, self.words_of_others(limit))?;
                due.ready.retain(|entry| !words.contains(&entry.id));
                let first = words.into_iter().map(|id| IndexEntry {
                    at: Timestamp::default(),
                    id,
                });
                due.ready.splice(..0, first);
                cut(due, limit)
            }
            Lane::Revoke | Lane::Other => due.await?,
        };
        Ok(Due {
            ready: due.ready.into_iter().map(|entry| entry.id).collect(),
            next: due.next,
        })
    }

    /// Returns the due entries of these partitions, and the time of the next one.
    pub(super) async fn due_in(
        &self,
        table: Table,
        partitions: impl Iterator<Item = Partition>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<IndexEntry>, StoreError> {
        let asked = partitions.map(|partition| self.due_here(table, partition, now, limit));
        let mut all = Due {
            ready: Vec::new(),
            next: None,
        };
        for here in try_join_all(asked).await? {
            all.ready.extend(here.ready);
            all.next = all.next.into_iter().chain(here.next).min();
        }
        all.ready.sort_unstable();
        Ok(cut(all, limit))
    }

    async fn due_here(
        &self,
        table: Table,
        (name, value): Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<IndexEntry>, StoreError> {
        let mut ready = Vec::new();
        let (mut from, mut page) = (None, A_FEW);
        loop {
            let call = self
                .query_of(table)
                .index_name(BY_DUE)
                .key_condition_expression("#partition = :here")
                .expression_attribute_names("#partition", name)
                .expression_attribute_values(":here", value.clone())
                .limit(i32::try_from(page).unwrap_or(i32::MAX))
                .set_exclusive_start_key(from);
            let answer = self.query(call).await?;
            for item in answer.items() {
                // K12: an entry with an unreadable time counts as due, so that it hides no other
                // entry and its own request is not forgotten. The record says what is due.
                let at = readable_entry(item, time(item, "claimable_at"))?.unwrap_or(now);
                if at > now || ready.len() == limit {
                    let next = Some(at);
                    return Ok(Due { ready, next });
                }
                let entry = parsed(item, "request_id").map(|id| IndexEntry { at, id });
                ready.extend(readable_entry(item, entry)?);
            }
            (from, page) = (answer.last_evaluated_key, limit.clamp(A_FEW, A_PAGE));
            if from.is_none() {
                return Ok(Due { ready, next: None });
            }
        }
    }

    /// Returns requests whose status was changed from outside and that no worker has processed.
    pub(super) async fn words_of_others(&self, limit: usize) -> Result<Vec<RequestId>, StoreError> {
        let asked = (0..SHARDS).flat_map(|shard| {
            WORDS_OF_OTHERS.map(|between| self.words_here(shard, between, limit))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    async fn words_here(
        &self,
        shard: u8,
        (after, before): (&str, &str),
        limit: usize,
    ) -> Result<Vec<RequestId>, StoreError> {
        let call = self
            .query_of(Table::Requests)
            .index_name(BY_WATCH)
            .key_condition_expression("watch_shard = :here AND #status BETWEEN :after AND :before")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":here", n(shard))
            .expression_attribute_values(":after", s(after))
            .expression_attribute_values(":before", s(before))
            .limit(i32::try_from(limit.max(1)).unwrap_or(i32::MAX));
        let answer = self.query(call).await?;
        let mut ids = Vec::new();
        for item in answer.items() {
            ids.extend(readable_entry(
                item,
                parsed::<RequestId>(item, "request_id"),
            )?);
        }
        Ok(ids)
    }

    /// Returns requests that got this status from outside.
    pub(super) async fn ids_of_outside_status(
        &self,
        status: Status,
    ) -> Result<Vec<RequestId>, StoreError> {
        let word = status.as_str();
        let asked = (0..SHARDS).map(|shard| self.words_here(shard, (word, word), A_PAGE));
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }
}

/// Skips and counts an entry whose key is not a request's id, so that it does not hide others.
fn readable_entry<T>(item: &Item, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    let name = || items::name(item, "request_id");
    readable(RecordKind::Request, name, read, &mut Vec::new())
}

/// Moves the entries above `limit` out of `ready`; the first of them gives `next`.
fn cut(mut due: Due<IndexEntry>, limit: usize) -> Due<IndexEntry> {
    if let Some(left) = due.ready.get(limit) {
        due.next = due.next.into_iter().chain([left.at]).min();
    }
    due.ready.truncate(limit);
    due
}
