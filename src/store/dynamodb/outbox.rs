//! The outbox: one item for each request, with its notices in order.
//!
//! One item keeps the order, only its first notice can be claimed, and the pending notices
//! behind it cost nothing. The index `by_due` contains only items with pending notices. The
//! number of notices in an item is bounded, because DynamoDB limits the size of an item, and an
//! outbox that is too large would make the commit of a removal fail.

mod whole;

pub(super) use whole::{outbox_entries, whole};

use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoStore;
use super::calls::{Condition, ConditionalUpdate, Updated, WriteResult};
use super::due::{IndexEntry, shards};
use super::items::{self, Item, millis, n, number_if_any, s, text};
use super::tables::{Table, shard_of};
use crate::domain::{LeaseToken, Millis, Notice, RequestId, Timestamp};
use crate::store::found::{RecordKind, readable};
use crate::store::outbox::{
    MOST_PARKED, MOST_PENDING, NoticeChange, NoticeClaim, PendingNotice, forgotten, note_parked,
    notice_changes,
};
use crate::store::{ClaimEnd, ClaimedNotice, Due, Left, NoticePlace, StoreError};

/// Adds notices to an outbox that has room. They make it due at once, also while a receiver that
/// refused an earlier notice has a pause: the others need not wait. A claim stays as it is.
pub(super) fn adding(notices: &[&Notice]) -> Result<ConditionalUpdate, StoreError> {
    let listed = notices.iter().map(|notice| element(notice));
    let listed = listed.collect::<Result<Vec<_>, _>>()?;
    let since = notices.iter().map(|notice| notice.created_at).min();
    let since = since.unwrap_or_default();
    let shard = notices.first().map_or(0, |notice| shard(notice));
    let text = "SET notices = list_append(if_not_exists(notices, :none), :new), \
                pending = if_not_exists(pending, :zero) + :many, \
                attempts = if_not_exists(attempts, :zero), \
                oldest_at = if_not_exists(oldest_at, :since), \
                next_at = :since, claimable_at = :since, \
                due_shard = :shard";
    let room = MOST_PENDING.saturating_sub(listed.len());
    let condition = Condition::that("(attribute_not_exists(pending) OR pending <= :room)")
        .and("(attribute_not_exists(parked_notices) OR size(parked_notices) <= :kept)")
        .with(":room", n(room))
        .with(":kept", n(MOST_PARKED))
        .with(":none", AttributeValue::L(Vec::new()))
        .with(":many", n(listed.len()))
        .with(":new", AttributeValue::L(listed))
        .with(":zero", n(0))
        .with(":since", millis(since))
        .with(":shard", n(shard));
    Ok(ConditionalUpdate {
        text: text.into(),
        condition,
    })
}

fn shard(notice: &Notice) -> u8 {
    shard_of(&notice.request_id.to_string())
}

fn element(notice: &Notice) -> Result<AttributeValue, StoreError> {
    Ok(AttributeValue::M(Item::from([
        ("seq".into(), n(notice.seq)),
        ("created_at".into(), millis(notice.created_at)),
        ("doc".into(), items::doc(notice)?),
    ])))
}

fn read_element(item: &Item, element: &AttributeValue) -> Result<Notice, StoreError> {
    let name = text(item, "request_id")?;
    let no_map = |_| items::unreadable(name, "a notice that is no map");
    let doc = text(element.as_m().map_err(no_map)?, "doc")?;
    serde_json::from_str(doc).map_err(|why| items::unreadable(name, why))
}

fn list<'i>(item: &'i Item, name: &str) -> &'i [AttributeValue] {
    let list = item.get(name).and_then(|list| list.as_l().ok());
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Returns the pending notices of an item.
pub(super) fn readable_pending(item: &Item) -> Vec<Notice> {
    let pending = list(item, "notices").iter();
    let read = pending.map(|element| read_element(item, element));
    read.filter_map(Result::ok).collect()
}

/// Returns the first pending notice.
fn first(item: &Item) -> Result<Option<ClaimedNotice>, StoreError> {
    let Some(element) = list(item, "notices").first() else {
        return Ok(None);
    };
    let attempts = u32::try_from(items::count(item, "attempts"));
    Ok(Some(ClaimedNotice {
        notice: read_element(item, element)?,
        attempts: attempts.unwrap_or(0),
        parked: items::count(item, "parked"),
    }))
}

fn number_of(element: &AttributeValue, name: &str) -> Option<i64> {
    number_if_any(element.as_m().ok()?, name)
}

/// Returns the pending notices and the notices to add, in the form of the rule.
fn waiting_in(item: &Item, adding: &[&Notice]) -> Vec<PendingNotice> {
    let is_claimed = item.contains_key("lease_token");
    let there = list(item, "notices").iter().enumerate();
    let there = there.map(|(place, element)| PendingNotice {
        audience: read_element(item, element).ok().map(|one| one.audience),
        claim: match is_claimed && place == 0 {
            true => NoticeClaim::Claimed,
            false => NoticeClaim::Free,
        },
    });
    let added = adding.iter().map(|notice| PendingNotice {
        audience: Some(notice.audience),
        claim: NoticeClaim::Free,
    });
    there.chain(added).collect()
}

/// Returns the parked notices with these added, without those that are only counted.
fn given_up(item: &Item, these: &[AttributeValue]) -> AttributeValue {
    let all = [list(item, "parked_notices"), these].concat();
    AttributeValue::L(all[forgotten(all.len())..].to_vec())
}

/// The condition that no notice was added, delivered, claimed, attempted or parked since the
/// item was read.
fn untouched(item: &Item) -> Condition {
    let pending = list(item, "notices");
    let mut condition = match pending.len() {
        0 => Condition::that("attribute_not_exists(pending)"),
        many => Condition::that("pending = :was").with(":was", n(many)),
    };
    for (place, name, edge) in [
        (0, ":first", pending.first()),
        (pending.len().saturating_sub(1), ":last", pending.last()),
    ] {
        if let Some(seq) = edge.and_then(|element| number_of(element, "seq")) {
            condition = condition
                .and(&format!("notices[{place}].seq = {name}"))
                .with(name, n(seq));
        }
    }
    for (name, short) in [
        ("attempts", ":attempts"),
        ("lease_token", ":token"),
        ("parked", ":parked_before"),
    ] {
        condition = match item.get(name) {
            Some(value) => condition
                .and(&format!("{name} = {short}"))
                .with(short, value.clone()),
            None => condition.and(&format!("attribute_not_exists({name})")),
        };
    }
    condition
}

/// Returns the update that makes room for these notices, and what happens to the old ones.
fn room_for(item: &Item, adding: &[&Notice]) -> (ConditionalUpdate, Vec<NoticeChange>) {
    let changes = notice_changes(&waiting_in(item, adding));
    let pending = list(item, "notices");
    let of = |wanted: NoticeChange| -> Vec<AttributeValue> {
        let with_change = pending.iter().zip(&changes);
        let those = with_change.filter(|(_, change)| **change == wanted);
        those.map(|(element, _)| element.clone()).collect()
    };
    let (stay, park) = (of(NoticeChange::Stays), of(NoticeChange::Parked));
    let mut condition = untouched(item);
    let mut sets = Vec::new();
    let parked = items::count(item, "parked") + park.len() as u64;
    if parked > 0 {
        sets.push("parked = :parked, parked_shard = :shard, parked_notices = :kept");
        condition = condition
            .with(":parked", n(parked))
            .with(":shard", n(text(item, "request_id").map_or(0, shard_of)))
            .with(":kept", given_up(item, &park));
    }
    let seq = |one: Option<&AttributeValue>| one.and_then(|one| number_of(one, "seq"));
    match stay.first() {
        // Every pending notice is merged with the notices to add.
        None => {
            let text = match sets.is_empty() {
                true => NOTHING_TO_TELL.to_owned(),
                false => format!("{NOTHING_TO_TELL} SET {}", sets.join(", ")),
            };
            return (ConditionalUpdate { text, condition }, changes);
        }
        Some(next) if seq(Some(next)) != seq(pending.first()) => {
            let since = number_of(next, "created_at").unwrap_or_default();
            sets.push("attempts = :zero, oldest_at = :since, next_at = :since");
            sets.push("claimable_at = :since");
            condition = condition.with(":zero", n(0)).with(":since", n(since));
        }
        Some(_) => {}
    }
    sets.push("notices = :stay, pending = :left");
    let condition = condition
        .with(":left", n(stay.len()))
        .with(":stay", AttributeValue::L(stay));
    let text = format!("SET {}", sets.join(", "));
    (ConditionalUpdate { text, condition }, changes)
}

/// Removes the first notice and makes the next one claimable, with no attempts.
const NEXT_IN_LINE: &str = "REMOVE notices[0], lease_token, lease_until \
     SET pending = pending - :one, attempts = :zero, oldest_at = notices[1].created_at, \
         next_at = notices[1].created_at, claimable_at = notices[1].created_at";

/// The number of attempts to write the result of a delivery beside commits that add notices.
const KEPT_AT_MOST: usize = 8;
/// The largest number of outboxes whose pauses a start ends; the others wait at most five minutes.
const MOST_RESUMED: usize = 1000;

const NOTHING_TO_TELL: &str = "REMOVE notices, pending, attempts, oldest_at, next_at, \
     claimable_at, due_shard, lease_token, lease_until";

impl DynamoStore {
    pub(super) async fn claim(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError> {
        let due = self.due_notices(now, limit).await?;
        let mut ready = Vec::with_capacity(due.ready.len());
        // Another notice worker may hold the claim of one that is due.
        let lapses = (!due.ready.is_empty()).then_some(until);
        let next = due.next.into_iter().chain(lapses).min();
        let claims = due
            .ready
            .iter()
            .map(|entry| self.claim_of(entry.id, now, lease, until));
        let claimed = futures_util::future::try_join_all(claims).await?;
        ready.extend(claimed.into_iter().flatten());
        Ok(Due { ready, next })
    }

    async fn due_notices(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<IndexEntry>, StoreError> {
        self.due_in(Table::Outbox, shards("due_shard"), now, limit)
            .await
    }

    /// Claims the first notice of a request. The condition fails if another notice worker has
    /// claimed it.
    pub(super) async fn claim_of(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError> {
        let condition = Condition::that("claimable_at <= :now")
            .and("(attribute_not_exists(lease_until) OR lease_until <= :now)")
            .with(":now", millis(now))
            .with(":token", s(lease.0))
            .with(":until", millis(until));
        let text = "SET lease_token = :token, lease_until = :until, claimable_at = :until";
        let claim = ConditionalUpdate {
            text: text.into(),
            condition,
        };
        let key = items::request_key(id);
        let item = match self.update(Table::Outbox, key, &claim).await? {
            Updated::To(item) => item,
            // This same call made the claim, and the answer to its first attempt was lost.
            Updated::Not(Some(item)) if is_leased(&item, lease) => item,
            Updated::Not(_) => return Ok(None),
        };
        let mut unreadable = Vec::new();
        let name = || id.to_string();
        let claimed = readable(RecordKind::Notice, name, first(&item), &mut unreadable)?;
        if !unreadable.is_empty() {
            // An unreadable notice must not block the next one: it is parked, so that the metrics
            // count it.
            let held = Condition::that("lease_token = :token").with(":token", s(lease.0));
            let change = parking(&item, id, held);
            let key = items::request_key(id);
            self.update(Table::Outbox, key, &change).await?;
        }
        Ok(claimed.flatten())
    }

    pub(super) async fn end_claim_at(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        end: ClaimEnd,
    ) -> Result<Left, StoreError> {
        let held = Condition::that("lease_token = :token AND notices[0].seq = :seq")
            .with(":token", s(lease.0))
            .with(":seq", n(place.seq));
        let key = items::request_key(place.request_id);
        let (text, condition) = match end {
            ClaimEnd::Delivered { ahead } if ahead.is_empty() => {
                return self.delivered(&key, &held).await;
            }
            ClaimEnd::Delivered { ahead } => {
                return self.keep_receivers(place, lease, None, &ahead).await;
            }
            ClaimEnd::TryAgain { at, tried } => {
                return self.keep_receivers(place, lease, Some(at), &tried).await;
            }
            ClaimEnd::Released => (
                "REMOVE lease_token, lease_until SET claimable_at = next_at",
                held,
            ),
        };
        let change = ConditionalUpdate {
            text: text.into(),
            condition,
        };
        // If the claim was lost, the condition fails: another notice worker delivers it now.
        self.update(Table::Outbox, key, &change).await?;
        Ok(Left::Nothing)
    }

    /// Ends a claim and keeps which receivers have the notices. Without a time of the next
    /// attempt, the claimed notice is delivered. A notice may be added meanwhile; then this reads
    /// the outbox again.
    async fn keep_receivers(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        again: Option<Timestamp>,
        notices: &[Notice],
    ) -> Result<Left, StoreError> {
        let key = items::request_key(place.request_id);
        for _ in 0..KEPT_AT_MOST {
            let Some(item) = self.get(Table::Outbox, key.clone()).await? else {
                return Ok(Left::Nothing);
            };
            // The claim was lost, or this same call ended it and its answer was lost. The item still
            // shows whether notices are left that were not tried.
            if !is_leased(&item, lease) {
                let is_free = !item.contains_key("lease_token");
                let next_at = number_if_any(&item, "next_at");
                let is_before = |at: Timestamp| next_at.is_some_and(|next| next < at.millis());
                let is_due = again.map_or(next_at.is_some(), is_before);
                return Ok(match is_free && is_due {
                    true => Left::More,
                    false => Left::Nothing,
                });
            }
            let (change, left) = match again {
                Some(at) => keeping(&item, at, notices)?,
                None => delivering(&item, place, notices)?,
            };
            match self.update(Table::Outbox, key.clone(), &change).await? {
                Updated::To(_) => return Ok(left),
                Updated::Not(_) => {}
            }
        }
        // The claim lapses, and the delivery is repeated.
        Err(StoreError::Conflict(None))
    }

    /// Makes the outboxes due that no worker has claimed.
    pub(super) async fn end_all_pauses(&self, now: Timestamp) -> Result<(), StoreError> {
        let paused = self.due_notices(now + Millis::DAY, MOST_RESUMED).await?;
        let is_paused =
            Condition::that("attribute_not_exists(lease_token) AND claimable_at > :now")
                .with(":now", millis(now));
        let change = ConditionalUpdate {
            text: "SET next_at = :now, claimable_at = :now".into(),
            condition: is_paused,
        };
        for entry in paused.ready.iter().filter(|entry| entry.at > now) {
            self.update(Table::Outbox, items::request_key(entry.id), &change)
                .await?;
        }
        Ok(())
    }

    async fn delivered(&self, key: &Item, held: &Condition) -> Result<Left, StoreError> {
        let alone = held
            .clone()
            .and("pending = :one AND attribute_not_exists(parked)")
            .with(":one", n(1));
        let found = match self.delete(Table::Outbox, key.clone(), &alone).await? {
            WriteResult::Yes | WriteResult::No(None) => return Ok(Left::Nothing),
            WriteResult::No(Some(found)) => found,
        };
        let change = passing(&found, held.clone());
        // After a lost claim or a lost answer, the item still shows what is left.
        let item = match self.update(Table::Outbox, key.clone(), &change).await? {
            Updated::To(item) => item,
            Updated::Not(item) => item.unwrap_or_default(),
        };
        let is_free = !item.contains_key("lease_token");
        Ok(match items::count(&item, "pending") {
            1.. if is_free => Left::More,
            _ => Left::Nothing,
        })
    }

    /// Makes room in an outbox as it was read. If it changed in the meantime, also by this call
    /// when its answer was lost, nothing happens and the caller reads it again.
    pub(super) async fn make_room(
        &self,
        found: Item,
        adding: &[&Notice],
    ) -> Result<(), StoreError> {
        let Some(id) = adding.first().map(|notice| notice.request_id) else {
            return Ok(());
        };
        let (change, changes) = room_for(&found, adding);
        match self
            .update(Table::Outbox, items::request_key(id), &change)
            .await?
        {
            Updated::To(_) => note_parked(id, &changes),
            Updated::Not(_) => {}
        }
        Ok(())
    }

    /// Parks a notice: it does not block the next one, and stays visible.
    pub(super) async fn parking(
        &self,
        place: NoticePlace,
    ) -> Result<ConditionalUpdate, StoreError> {
        let key = items::request_key(place.request_id);
        let found = self.get(Table::Outbox, key).await?.unwrap_or_default();
        let first = Condition::that("notices[0].seq = :seq").with(":seq", n(place.seq));
        Ok(parking(&found, place.request_id, first))
    }
}

/// Parks the first notice, under the condition that it is still the first.
fn parking(found: &Item, id: RequestId, first: Condition) -> ConditionalUpdate {
    let first = match found.get("parked") {
        Some(parked) => first
            .and("parked = :parked")
            .with(":parked", parked.clone()),
        None => first.and("attribute_not_exists(parked)"),
    };
    let mut change = passing(found, first);
    let parked = " parked = if_not_exists(parked, :nil) + :this, parked_shard = :shard, \
         parked_notices = :kept";
    let joint = if change.text.contains(" SET ") {
        ","
    } else {
        " SET"
    };
    change.text.push_str(joint);
    change.text.push_str(parked);
    let this = list(found, "notices").get(..1).unwrap_or_default();
    change.condition = change
        .condition
        .with(":nil", n(0))
        .with(":this", n(1))
        .with(":kept", given_up(found, this))
        .with(":shard", n(shard_of(&id.to_string())));
    change
}

/// Whether a notice in an item has this number.
fn has_seq(there: &AttributeValue, seq: u64) -> bool {
    number_of(there, "seq").is_some_and(|there| u64::try_from(there) == Ok(seq))
}

/// Returns the update that ends a claim, removes the claimed notice, and writes these notices in
/// place of the stored ones.
fn delivering(
    item: &Item,
    claimed: NoticePlace,
    ahead: &[Notice],
) -> Result<(ConditionalUpdate, Left), StoreError> {
    let pending = list(item, "notices").iter();
    let left = pending.filter(|there| !has_seq(there, claimed.seq));
    let left = left.map(|there| {
        let kept = ahead.iter().find(|notice| has_seq(there, notice.seq));
        kept.map_or_else(|| Ok(there.clone()), element)
    });
    let left = left.collect::<Result<Vec<_>, _>>()?;
    let condition = untouched(item);
    let Some(next) = left.first() else {
        let text = NOTHING_TO_TELL.into();
        return Ok((ConditionalUpdate { text, condition }, Left::Nothing));
    };
    let since = number_of(next, "created_at").unwrap_or_default();
    let condition = condition
        .with(":since", n(since))
        .with(":zero", n(0))
        .with(":left", n(left.len()))
        .with(":all", AttributeValue::L(left));
    let text = "REMOVE lease_token, lease_until SET notices = :all, pending = :left, \
                attempts = :zero, oldest_at = :since, next_at = :since, claimable_at = :since";
    let text = text.to_owned();
    Ok((ConditionalUpdate { text, condition }, Left::More))
}

/// Returns the update that ends a claim and writes these notices in place of the stored ones,
/// and whether notices are left that were not tried.
fn keeping(
    item: &Item,
    at: Timestamp,
    tried: &[Notice],
) -> Result<(ConditionalUpdate, Left), StoreError> {
    let (mut all, mut new_since) = (Vec::new(), None);
    for there in list(item, "notices") {
        match tried.iter().find(|notice| has_seq(there, notice.seq)) {
            Some(notice) => all.push(element(notice)?),
            None => {
                new_since = new_since.or(number_of(there, "created_at"));
                all.push(there.clone());
            }
        }
    }
    let (next, left) = match new_since {
        Some(since) => (n(since), Left::More),
        None => (millis(at), Left::Nothing),
    };
    let condition = untouched(item)
        .with(":all", AttributeValue::L(all))
        .with(":one", n(1))
        .with(":next", next);
    let text = "REMOVE lease_token, lease_until SET notices = :all, \
                attempts = attempts + :one, next_at = :next, claimable_at = :next";
    let text = text.into();
    Ok((ConditionalUpdate { text, condition }, left))
}

fn is_leased(item: &Item, lease: LeaseToken) -> bool {
    text(item, "lease_token").is_ok_and(|token| token == lease.0.to_string())
}

/// Removes the first notice. If a notice was added in the meantime, the condition fails.
fn passing(found: &Item, condition: Condition) -> ConditionalUpdate {
    let pending = items::count(found, "pending");
    let condition = condition
        .and("pending = :pending")
        .with(":pending", n(pending));
    match pending {
        0 | 1 => ConditionalUpdate {
            text: NOTHING_TO_TELL.into(),
            condition,
        },
        _ => ConditionalUpdate {
            text: NEXT_IN_LINE.into(),
            condition: condition.with(":one", n(1)).with(":zero", n(0)),
        },
    }
}
