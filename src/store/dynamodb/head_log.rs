//! The head log, in one partition of the audit table. Its items have no shard, so no export
//! shows them.

use super::DynamoStore;
use super::calls::{Condition, WriteResult};
use super::items::{self, Item, s};
use super::tables::Table;
use crate::domain::HeadEntry;
use crate::store::StoreError;
use crate::store::found::check_key;

/// The partition key; no audit key has this text.
const HEAD_LOG: &str = "head#log";
const SORT: &str = "event_time_event_id";
/// Sorts after every number.
const END: &str = "~";

impl DynamoStore {
    pub(super) async fn last_entry(&self) -> Result<Option<HeadEntry>, StoreError> {
        let call = self
            .query_of(Table::Audit)
            .key_condition_expression("request_id = :log")
            .expression_attribute_values(":log", s(HEAD_LOG))
            .consistent_read(true)
            .scan_index_forward(false)
            .limit(1);
        let answer = self.query(call).await?;
        answer.items().first().map(read).transpose()
    }

    pub(super) async fn entries_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<HeadEntry>, StoreError> {
        let (mut entries, mut after) = (Vec::new(), after);
        while entries.len() < limit {
            let left = limit - entries.len();
            let call = self
                .query_of(Table::Audit)
                .key_condition_expression(format!(
                    "request_id = :log AND {SORT} BETWEEN :from AND :to"
                ))
                .expression_attribute_values(":log", s(HEAD_LOG))
                .expression_attribute_values(":from", s(place(after + 1)))
                .expression_attribute_values(":to", s(END))
                .consistent_read(true)
                .limit(i32::try_from(left).unwrap_or(i32::MAX));
            // DynamoDB ends a page early when it is large.
            let answer = self.query(call).await?;
            let page: Vec<HeadEntry> = answer.items().iter().map(read).collect::<Result<_, _>>()?;
            let Some(last) = page.last() else { break };
            after = last.number;
            entries.extend(page);
        }
        Ok(entries)
    }

    pub(super) async fn add_entry(&self, entry: &HeadEntry) -> Result<(), StoreError> {
        let item = Item::from([
            ("request_id".to_owned(), s(HEAD_LOG)),
            (SORT.to_owned(), s(place(entry.number))),
            ("doc".to_owned(), items::doc(entry)?),
        ]);
        let none = Condition::that("attribute_not_exists(request_id)");
        match self.put(Table::Audit, item, &none).await? {
            WriteResult::Yes => Ok(()),
            // This same call wrote it, and the answer to its first attempt was lost.
            WriteResult::No(Some(found)) if read(&found)? == *entry => Ok(()),
            WriteResult::No(_) => Err(StoreError::Conflict(None)),
        }
    }
}

fn place(number: u64) -> String {
    format!("{number:016}")
}

fn read(item: &Item) -> Result<HeadEntry, StoreError> {
    let entry: HeadEntry = items::from_doc(item, SORT)?;
    // The next page begins after the number of the last entry.
    check_key(&place(entry.number), items::text(item, SORT)?)?;
    Ok(entry)
}
