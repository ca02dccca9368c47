//! Whole outboxes, for `jit store copy`.

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::items::{self, Item, millis, n, number_if_any};
use super::super::tables::shard_of;
use super::{element, read_element};
use crate::domain::{RequestId, Timestamp};
use crate::store::StoreError;
use crate::store::portable::OutboxEntry;

/// Converts the outbox of a request to an item. It has given up this many notices.
pub(in crate::store::dynamodb) fn whole(
    id: RequestId,
    outbox_entries: &[OutboxEntry],
    parked: u64,
) -> Result<Item, StoreError> {
    let listed = |parked| {
        let some = outbox_entries.iter().filter(|entry| entry.parked == parked);
        let all = some
            .map(|entry| element(&entry.notice))
            .collect::<Result<Vec<_>, _>>();
        all.map(AttributeValue::L)
    };
    let mut item = items::request_key(id);
    let shard = n(shard_of(&id.to_string()));
    let kept = outbox_entries.iter().filter(|entry| entry.parked).count();
    if parked > 0 {
        item.insert("parked".into(), n(parked));
        item.insert("parked_shard".into(), shard.clone());
        item.insert("parked_notices".into(), listed(true)?);
    }
    if let Some(first) = outbox_entries.iter().find(|entry| !entry.parked) {
        item.insert("notices".into(), listed(false)?);
        item.insert("pending".into(), n(outbox_entries.len() - kept));
        item.insert("attempts".into(), n(first.attempts));
        item.insert("oldest_at".into(), millis(first.notice.created_at));
        item.insert("next_at".into(), millis(first.next_at));
        item.insert("claimable_at".into(), millis(first.next_at));
        item.insert("due_shard".into(), shard);
    }
    Ok(item)
}

/// Converts an item to the outbox of a request. Only the first notice can have attempts.
pub(in crate::store::dynamodb) fn outbox_entries(
    item: &Item,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut outbox_entries = Vec::new();
    for (list, parked) in [("parked_notices", true), ("notices", false)] {
        let listed = item.get(list).and_then(|list| list.as_l().ok());
        for (place, element) in listed.into_iter().flatten().enumerate() {
            let notice = read_element(item, element)?;
            let is_first = place == 0 && !parked;
            let next_at = number_if_any(item, "next_at").filter(|_| is_first);
            let attempts = number_if_any(item, "attempts").filter(|_| is_first);
            outbox_entries.push(OutboxEntry {
                attempts: attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                next_at: next_at.map_or(notice.created_at, Timestamp::from_millis),
                notice,
                parked,
            });
        }
    }
    outbox_entries.sort_by_key(|entry| entry.notice.seq);
    Ok(outbox_entries)
}
