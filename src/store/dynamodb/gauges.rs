//! Computes the gauges at a cost that depends on the number of problems, not on the amount of
//! stored data.
//!
//! The search for due requests ends 90 seconds in the future, because a lease or a pause delays
//! due work by at most that. Live grants and pending notices can be many in normal operation, so
//! they are counted up to a limit.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::Select;
use futures_util::future::try_join_all;

use super::DynamoStore;
use super::due::{A_PAGE, Partition, shards};
use super::items::{self, Item, due_lane, due_lane_prefix, millis, number_if_any, s, text};
use super::tables::{BY_DUE, BY_PARKED, BY_STATUS, SHARDS, Table};
use crate::domain::{Lane, Millis, Status, Timestamp};
use crate::store::{Gauges, STUCK_AFTER, StoreError};

/// The longest time by which a lease or a pause delays due work.
const NEARLY: Millis = Millis::seconds(90);
/// The limit up to which live grants are counted, and about the number of outboxes that are
/// read.
const COUNTED: usize = 1_000;
const OF_A_SHARD: usize = COUNTED / SHARDS as usize + 1;
/// The number of outboxes that are read from the end of each partition. The notices with the
/// most attempts have the longest pause, so the oldest notices are there.
const OF_THE_LAST: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IndexEnd {
    First,
    Last,
}

impl DynamoStore {
    pub(super) async fn count(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        let (due, live, words, waiting, parked) = tokio::try_join!(
            self.nearly_due(now + NEARLY),
            self.live_grants(),
            self.words_of_others(A_PAGE),
            self.waiting(),
            self.some_of(Table::Outbox, BY_PARKED, "parked_shard", IndexEnd::First),
        )?;
        let is_over = |item: &&Item, name: &str| {
            number_if_any(item, name).is_some_and(|at| at <= now.millis())
        };
        let many = |count: usize| count as u64;
        let sum = |items: &[Item], name: &str| items.iter().map(|i| items::count(i, name)).sum();
        let least = |items: &[Item], name: &str| {
            let all = items.iter().filter_map(|item| number_if_any(item, name));
            all.min().map(Timestamp::from_millis)
        };
        let backlog = due.iter().filter(|item| is_over(item, "claimable_at"));
        let is_removal = |item: &&Item| {
            let lane = text(item, "due_lane").unwrap_or_default();
            !lane.starts_with(&due_lane_prefix(Lane::Other))
        };
        let failing = |item: &&Item| item.contains_key("failing") && is_removal(item);
        let stuck = |item: &&Item| {
            let since = number_if_any(item, "failing");
            since.is_some_and(|since| since <= now.millis() - STUCK_AFTER.0)
        };
        Ok(Gauges {
            backlog: many(backlog.count() + words.len()),
            oldest_due: least(&due, "claimable_at").filter(|at| *at <= now),
            live_grants: many(live),
            overdue_grants: many(due.iter().filter(|item| is_over(item, "end_at")).count()),
            failing_removals: many(due.iter().filter(failing).count()),
            stuck_requests: many(due.iter().filter(stuck).count()),
            undelivered_notices: sum(&waiting, "pending"),
            oldest_undelivered: least(&waiting, "oldest_at"),
            parked_notices: sum(&parked, "parked"),
        })
    }

    async fn nearly_due(&self, until: Timestamp) -> Result<Vec<Item>, StoreError> {
        let lanes = Lane::ALL.into_iter();
        let partitions =
            lanes.flat_map(|lane| (0..SHARDS).map(move |shard| (lane, due_lane(lane, shard))));
        let asked = partitions.map(|(lane, partition)| {
            let call = self
                .query_of(Table::Requests)
                .index_name(BY_DUE)
                .expression_attribute_values(":here", s(partition));
            // A wrong clock may have put the next try of a revoke far ahead: there are few, and
            // all are counted.
            let call = match lane {
                Lane::Revoke => call.key_condition_expression("due_lane = :here"),
                Lane::Remove | Lane::Other => call
                    .key_condition_expression("due_lane = :here AND claimable_at <= :until")
                    .expression_attribute_values(":until", millis(until)),
            };
            self.query_all(call)
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// Counts live grants page by page in every shard, up to `COUNTED`.
    async fn live_grants(&self) -> Result<usize, StoreError> {
        let status = |shard| items::status_shard(Status::Granted, shard);
        let mut open: Vec<(String, Option<Item>)> =
            (0..SHARDS).map(|shard| (status(shard), None)).collect();
        let mut live = 0;
        while !open.is_empty() && live < COUNTED {
            let asked = open.into_iter().map(|(partition, from)| async move {
                let call = self
                    .query_of(Table::Requests)
                    .index_name(BY_STATUS)
                    .key_condition_expression("status_shard = :here")
                    .expression_attribute_values(":here", s(&partition))
                    .select(Select::Count)
                    .limit(i32::try_from(OF_A_SHARD).unwrap_or(i32::MAX))
                    .set_exclusive_start_key(from);
                let answer = self.query(call).await?;
                Ok::<_, StoreError>((partition, answer.count, answer.last_evaluated_key))
            });
            open = Vec::new();
            for (partition, count, from) in try_join_all(asked).await? {
                live += usize::try_from(count).unwrap_or(0);
                if from.is_some() {
                    open.push((partition, from));
                }
            }
        }
        Ok(live.min(COUNTED))
    }

    /// Returns the first and the last pending outboxes of each shard, by the time of their next
    /// attempt.
    async fn waiting(&self) -> Result<Vec<Item>, StoreError> {
        let (first, last) = tokio::try_join!(
            self.some_of(Table::Outbox, BY_DUE, "due_shard", IndexEnd::First),
            self.some_of(Table::Outbox, BY_DUE, "due_shard", IndexEnd::Last),
        )?;
        let named = first.into_iter().chain(last).filter_map(|item| {
            let id = text(&item, "request_id").ok()?.to_owned();
            Some((id, item))
        });
        let each: HashMap<String, Item> = named.collect();
        Ok(each.into_values().collect())
    }

    async fn some_of(
        &self,
        table: Table,
        index: &str,
        shard: &'static str,
        end: IndexEnd,
    ) -> Result<Vec<Item>, StoreError> {
        let most = match end {
            IndexEnd::First => OF_A_SHARD,
            IndexEnd::Last => OF_THE_LAST,
        };
        let asked = shards(shard).map(|(name, value): Partition| {
            let call = self
                .query_of(table)
                .index_name(index)
                .key_condition_expression("#partition = :here")
                .expression_attribute_names("#partition", name)
                .expression_attribute_values(":here", value)
                .scan_index_forward(end == IndexEnd::First)
                .limit(i32::try_from(most).unwrap_or(i32::MAX));
            self.query(call)
        });
        let pages = try_join_all(asked).await?.into_iter();
        Ok(pages
            .flat_map(|page| page.items.unwrap_or_default())
            .collect())
    }
}
