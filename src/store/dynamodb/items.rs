//! Converts records to items and back.
//!
//! An item has the attributes that docs/contract.md promises to the operator's tools, and the
//! whole record as one document, which jit reads. An operator may change only `status` and
//! `revoked_at`; jit notices a change of these.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::shard_of;
use crate::domain::{
    AccountId, Binding, Channel, ChannelId, Event, Holding, Lane, Request, RequestId,
    RequestObject, State, Status, Timestamp,
};
use crate::store::found::{check_key, under_its_key};
use crate::store::{Answered, Cursor, Nonce, StoreError};

pub(super) type Item = HashMap<String, AttributeValue>;

#[expect(
    clippy::needless_pass_by_value,
    reason = "a literal, a reference or a value"
)]
pub(super) fn s(text: impl ToString) -> AttributeValue {
    AttributeValue::S(text.to_string())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a literal, a reference or a value"
)]
pub(super) fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn millis(at: Timestamp) -> AttributeValue {
    n(at.millis())
}

pub(super) fn text<'i>(item: &'i Item, name: &str) -> Result<&'i str, StoreError> {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .map(String::as_str)
        .ok_or_else(|| missing(name))
}

/// Returns the value of an attribute as a text that names the item.
pub(super) fn name(item: &Item, key: &str) -> String {
    text(item, key).map_or_else(|_| format!("an item without {key}"), str::to_owned)
}

pub(super) fn number(item: &Item, name: &str) -> Result<i64, StoreError> {
    number_if_any(item, name).ok_or_else(|| missing(name))
}

pub(super) fn number_if_any(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

pub(super) fn count(item: &Item, name: &str) -> u64 {
    let number = number_if_any(item, name);
    number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

pub(super) fn time(item: &Item, name: &str) -> Result<Timestamp, StoreError> {
    number(item, name).map(Timestamp::from_millis)
}

pub(super) fn parsed<T>(item: &Item, name: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text(item, name)?
        .parse()
        .map_err(|why| StoreError::Corrupt(format!("{name} {why}")))
}

fn missing(name: &str) -> StoreError {
    StoreError::Corrupt(format!("an item without {name}"))
}

pub(super) fn unreadable(what: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {why}"))
}

pub(super) fn doc<T: Serialize>(record: &T) -> Result<AttributeValue, StoreError> {
    let written = serde_json::to_string(record);
    written
        .map(AttributeValue::S)
        .map_err(|why| unreadable(std::any::type_name::<T>(), why))
}

pub(super) fn from_doc<T: DeserializeOwned>(item: &Item, key: &str) -> Result<T, StoreError> {
    let name = text(item, key)?;
    serde_json::from_str(text(item, "doc")?).map_err(|why| unreadable(name, why))
}

pub(super) fn request(request: &Request) -> Result<Item, StoreError> {
    let object = RequestObject::from(request);
    let mut item: Item =
        serde_dynamo::to_item(object).map_err(|why| unreadable("a request", why))?;
    let id = request.id.to_string();
    let (status, shard) = (request.status(), shard_of(&id));
    item.insert("doc".into(), doc(request)?);
    item.insert("revision".into(), n(request.version.revision));
    item.insert("written_status".into(), s(status));
    item.insert("shard".into(), n(shard));
    item.insert("created_at_request_id".into(), s(listed(request)));
    item.insert("status_shard".into(), s(status_shard(status, shard)));
    if let Some(at) = request.claimable_at() {
        item.insert("due_lane".into(), s(due_lane(request.lane(), shard)));
        item.insert("claimable_at".into(), millis(at));
        if let Some(end) = request.overdue_at() {
            item.insert("end_at".into(), millis(end));
        }
        if let Some(since) = request.failing_since() {
            item.insert("failing".into(), millis(since));
        }
    }
    if is_at_hand(request) {
        item.insert("at_hand".into(), s("yes"));
    }
    if is_watched(status) {
        item.insert("watch_shard".into(), n(shard));
    }
    Ok(item)
}

/// Returns the record. A status that jit did not write is applied as a change from outside, and
/// counts as one write.
pub(super) fn read_request(item: &Item) -> Result<Request, StoreError> {
    let mut request: Request = from_doc(item, "request_id")?;
    let said = text(item, "status")?;
    if said != text(item, "written_status")? {
        let at = text(item, "revoked_at").ok().and_then(Timestamp::parse);
        let since = request.version.chain.last_at;
        request.apply_outside_status(said.parse().unwrap_or(Status::Error), at, since);
        request.version.revision += 1;
    }
    Ok(request)
}

/// Reports whether the table's stream must invoke jit for this write. A request that only waits
/// for an approval or for its end needs no invocation now.
fn is_at_hand(request: &Request) -> bool {
    let waits = matches!(request.state, State::Pending | State::Granted);
    request.schedule.due_at.is_some() && request.schedule.lease.is_none() && !waits
}

/// The statuses that an operator may still change from outside.
pub(super) fn is_watched(status: Status) -> bool {
    match status {
        Status::Pending | Status::Approved | Status::Granted => true,
        Status::Denied | Status::Revoked | Status::Expired | Status::Cancelled | Status::Error => {
            false
        }
    }
}

pub(super) fn status_shard(status: Status, shard: u8) -> String {
    format!("{status}#{shard}")
}

pub(super) fn due_lane(lane: Lane, shard: u8) -> String {
    format!("{}{shard}", due_lane_prefix(lane))
}

pub(super) fn due_lane_prefix(lane: Lane) -> String {
    format!("{}#", lane.number())
}

/// Returns the sort key of a request in every list.
pub(super) fn listed(request: &Request) -> String {
    place(&Cursor::from(request))
}

pub(super) fn place(cursor: &Cursor) -> String {
    format!("{}#{}", cursor.created_at, cursor.id)
}

pub(super) fn event(event: &Event) -> Result<Item, StoreError> {
    let mut item: Item = serde_dynamo::to_item(event).map_err(|why| unreadable("an event", why))?;
    item.insert("event_time_event_id".into(), s(event.sort_key()));
    let shard = shard_of(&event.request_id.to_string());
    item.insert("shard".into(), n(shard));
    Ok(item)
}

pub(super) fn read_event(item: Item) -> Result<Event, StoreError> {
    let name = text(&item, "event_time_event_id")?.to_owned();
    serde_dynamo::from_item(item).map_err(|why| unreadable(&name, why))
}

/// Returns an event of a list. The next page begins after the event, so its key must be its own.
pub(super) fn read_event_in_place(item: Item) -> Result<Event, StoreError> {
    let key = text(&item, "event_time_event_id")?.to_owned();
    under_its_key(read_event(item)?, &key)
}

/// Returns a request of a list, whose key must be its own for the same reason.
pub(super) fn read_listed(item: &Item) -> Result<Request, StoreError> {
    let (request, key) = (read_request(item)?, text(item, "created_at_request_id")?);
    check_key(&listed(&request), key)?;
    Ok(request)
}

pub(super) fn read_binding(item: &Item) -> Result<Binding, StoreError> {
    let key = text(item, "binding_key")?;
    let account = key.strip_prefix("account#").unwrap_or(key);
    under_its_key(from_doc(item, "binding_key")?, account)
}

pub(super) fn read_channel(item: &Item) -> Result<Channel, StoreError> {
    let key = text(item, "binding_key")?.replacen("channel#", "config#", 1);
    under_its_key(from_doc(item, "binding_key")?, &key)
}

pub(super) fn holding(holding: &Holding) -> Result<Item, StoreError> {
    record("holding_key", &holding.key, holding.revision, holding)
}

/// Reads a holding. The condition of the next write compares the attribute `revision`.
pub(super) fn read_holding(item: &Item) -> Result<Holding, StoreError> {
    let holding: Holding = from_doc(item, "holding_key")?;
    let revision = count(item, "revision");
    Ok(Holding {
        revision,
        ..holding
    })
}

pub(super) fn account_key(account: &AccountId) -> String {
    format!("account#{account}")
}

pub(super) fn channel_key(channel: &ChannelId) -> String {
    format!("channel#{channel}")
}

pub(super) fn binding(binding: &Binding) -> Result<Item, StoreError> {
    let key = account_key(&binding.account_id);
    let mut item = record("binding_key", &key, binding.revision, binding)?;
    item.insert("kind".into(), s("account"));
    item.insert("channel_id".into(), s(&binding.channel_id));
    item.insert("bound_seq".into(), n(binding.bound_seq));
    Ok(item)
}

pub(super) fn binding_key(key: &str) -> Item {
    Item::from([("binding_key".into(), s(key))])
}

/// Returns the attributes of a channel that a commit sets; the set of its accounts is separate.
pub(super) fn channel(channel: &Channel) -> Result<Item, StoreError> {
    let key = channel_key(&channel.id);
    record("binding_key", &key, channel.revision, channel)
}

fn record<T: Serialize>(
    name: &str,
    key: &impl ToString,
    revision: u64,
    record: &T,
) -> Result<Item, StoreError> {
    Ok(Item::from([
        (name.to_owned(), s(key.to_string())),
        ("revision".into(), n(revision)),
        ("doc".into(), doc(record)?),
    ]))
}

pub(super) fn nonce(nonce: &Nonce) -> Item {
    let mut item = Item::from([
        ("nonce".into(), s(&nonce.text)),
        ("keep_until".into(), millis(nonce.keep_until)),
    ]);
    forget_after(&mut item, nonce.keep_until);
    item
}

pub(super) fn answered(answered: &Answered) -> Item {
    Item::from([
        ("answer_key".into(), s(&answered.key)),
        ("fingerprint".into(), s(&answered.fingerprint)),
        ("request_id".into(), s(answered.request_id)),
        ("answered_at".into(), millis(answered.at)),
    ])
}

pub(super) fn read_answered(item: &Item) -> Result<Answered, StoreError> {
    Ok(Answered {
        key: text(item, "answer_key")?.to_owned(),
        fingerprint: text(item, "fingerprint")?.to_owned(),
        request_id: parsed(item, "request_id")?,
        at: time(item, "answered_at")?,
    })
}

/// Sets the TTL attribute: DynamoDB deletes the item some time after it has expired.
pub(super) fn forget_after(item: &mut Item, at: Timestamp) {
    const AN_HOUR: i64 = 3600;
    item.insert("expires_at".into(), n(at.seconds() + AN_HOUR));
}

pub(super) fn request_key(id: RequestId) -> Item {
    Item::from([("request_id".into(), s(id))])
}
