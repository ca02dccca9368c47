//! Reads lists and histories in the order of an index. jit reads the records that the index
//! finds again from the table, so that a list shows the same as a read of each record.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use futures_util::future::try_join_all;

use super::DynamoStore;
use super::due::{Partition, shards};
use super::items::{self, Item, parsed, s, text};
use super::tables::{
    BY_ACCOUNT, BY_CHANNEL, BY_KIND, BY_REQUESTER, BY_STATUS, BY_TIME, SHARDS, Table,
};
use crate::domain::{
    AccountId, AuditKey, Binding, ChannelId, Event, EventPlace, Request, RequestId, Status,
};
use crate::store::found::{RecordKind, readable};
use crate::store::{AuditFilter, Cursor, Filter, Found, Head, StoreError, Unreadable};

const LISTED: &str = "created_at_request_id";
/// Texts that sort before and after every time and key. DynamoDB permits no empty key.
const START: &str = " ";
const END: &str = "~";

/// The number of events that a walk over all of them reads at the same time.
const KEYS_AT_ONCE: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    OldestFirst,
    NewestFirst,
}

/// A range of an index, in one or more of its partitions.
struct IndexSpan {
    table: Table,
    index: &'static str,
    sort: &'static str,
    order: Order,
    /// The range includes both ends. A caller that has seen the item at an end skips it.
    from: String,
    to: String,
    /// Further conditions on the attributes of the index.
    only: Vec<(&'static str, String)>,
}

/// One partition of a range, and how far it was read.
struct Stream {
    partition: Partition,
    read: VecDeque<Item>,
    from: Option<Item>,
    is_over: bool,
}

impl Stream {
    fn new(partition: Partition) -> Self {
        Self {
            partition,
            read: VecDeque::new(),
            from: None,
            is_over: false,
        }
    }
}

/// Reads the partitions of a range at the same time and merges them in order.
struct Walk {
    span: IndexSpan,
    streams: Vec<Stream>,
}

impl Walk {
    fn new(span: IndexSpan, partitions: Vec<Partition>) -> Self {
        // A range that ends before it begins is empty, and DynamoDB refuses a query for it.
        let partitions = partitions.into_iter().filter(|_| span.from <= span.to);
        let streams = partitions.map(Stream::new).collect();
        Self { span, streams }
    }

    /// Returns the next items: at least one unless the range has ended, usually up to `about`.
    async fn next(&mut self, store: &DynamoStore, about: usize) -> Result<Vec<Item>, StoreError> {
        let page = about / self.streams.len().max(1) + 8;
        let span = &self.span;
        let reads = self
            .streams
            .iter_mut()
            .map(|stream| stream.fill(store, span, page));
        try_join_all(reads).await?;
        let mut found = Vec::new();
        while found.len() < about {
            let more = |stream: &&mut Stream| !stream.read.is_empty() || !stream.is_over;
            let waiting = self.streams.iter_mut().filter(more);
            let key = |item: &Item| text(item, span.sort).map(str::to_owned).unwrap_or_default();
            let heads = waiting.map(|stream| (stream.read.front().map(key), stream));
            let first = match span.order {
                Order::OldestFirst => heads.min_by(|one, other| one.0.cmp(&other.0)),
                // A partition that must be read further comes before all others.
                Order::NewestFirst => heads.max_by_key(|(key, _)| (key.is_none(), key.clone())),
            };
            match first.and_then(|(_, stream)| stream.read.pop_front()) {
                Some(item) => found.push(item),
                None => break,
            }
        }
        Ok(found)
    }
}

impl Stream {
    /// Reads pages until a partition has an item or has ended.
    async fn fill(
        &mut self,
        store: &DynamoStore,
        span: &IndexSpan,
        page: usize,
    ) -> Result<(), StoreError> {
        while self.read.is_empty() && !self.is_over {
            let (name, value) = &self.partition;
            let mut call = store
                .query_of(span.table)
                .index_name(span.index)
                .key_condition_expression("#partition = :here AND #sort BETWEEN :from AND :to")
                .expression_attribute_names("#partition", *name)
                .expression_attribute_names("#sort", span.sort)
                .expression_attribute_values(":here", value.clone())
                .expression_attribute_values(":from", s(&span.from))
                .expression_attribute_values(":to", s(&span.to))
                .scan_index_forward(span.order == Order::OldestFirst)
                .limit(i32::try_from(page).unwrap_or(i32::MAX))
                .set_exclusive_start_key(self.from.take());
            let mut conditions = Vec::new();
            for (place, (name, value)) in span.only.iter().enumerate() {
                conditions.push(format!("#only{place} = :only{place}"));
                call = call
                    .expression_attribute_names(format!("#only{place}"), *name)
                    .expression_attribute_values(format!(":only{place}"), s(value));
            }
            if !conditions.is_empty() {
                call = call.filter_expression(conditions.join(" AND "));
            }
            let answer = store.query(call).await?;
            self.read.extend(answer.items.unwrap_or_default());
            self.from = answer.last_evaluated_key;
            self.is_over = self.from.is_none();
        }
        Ok(())
    }
}

impl DynamoStore {
    pub(super) async fn requests(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        if let Some(id) = filter.request_id {
            let mut found = self.all_of(&[id], filter, after).await?;
            found.items.truncate(limit);
            return Ok(found);
        }
        let (index, partitions, only) = narrowest(filter);
        let span = IndexSpan {
            table: Table::Requests,
            index,
            sort: LISTED,
            order: Order::NewestFirst,
            from: filter
                .from
                .map_or_else(|| START.into(), |at| at.to_string()),
            to: end_of(filter, after),
            only,
        };
        let mut walk = Walk::new(span, partitions);
        let mut found = self.of_outside_status(filter, after).await?;
        let mut seen: HashSet<RequestId> = found.iter().map(|request| request.id).collect();
        let mut named: HashSet<String> = found.unreadable.iter().map(|u| u.name.clone()).collect();
        let said = found.len();
        while found.len() < limit + said {
            let items = walk.next(self, limit + said - found.len()).await?;
            if items.is_empty() {
                break;
            }
            let ids = ids_of(&items, &mut found.unreadable)?;
            let some = self.all_of(&ids, filter, after).await?;
            let unreadable = some.unreadable.into_iter();
            let new = unreadable.filter(|one| named.insert(one.name.clone()));
            found.unreadable.extend(new);
            let new = some.items.into_iter().filter(|one| seen.insert(one.id));
            found.items.extend(new);
        }
        let place = |request: &Request| std::cmp::Reverse((request.asked.created_at, request.id));
        found.items.sort_by_cached_key(place);
        found.items.truncate(limit);
        Ok(found)
    }

    /// Returns the requests that got this status from outside, which the index of jit's own
    /// statuses does not show.
    async fn of_outside_status(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
    ) -> Result<Found<Request>, StoreError> {
        let Some(status) = filter.status.filter(|status| !items::is_watched(*status)) else {
            return Ok(Found::default());
        };
        let ids = self.ids_of_outside_status(status).await?;
        self.all_of(&ids, filter, after).await
    }

    pub(super) async fn find_request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        let item = self.get(Table::Requests, items::request_key(id)).await?;
        item.map(|item| items::read_request(&item)).transpose()
    }

    /// Reads these requests, and returns those that match the filter, in the same order.
    async fn all_of(
        &self,
        ids: &[RequestId],
        filter: &Filter,
        after: Option<&Cursor>,
    ) -> Result<Found<Request>, StoreError> {
        let keys = ids.iter().map(|id| items::request_key(*id)).collect();
        let mut items: HashMap<String, Item> = HashMap::new();
        for item in self.get_all(Table::Requests, keys).await? {
            items.insert(items::name(&item, "request_id"), item);
        }
        let mut found = Found::default();
        for id in ids {
            let Some(item) = items.remove(&id.to_string()) else {
                continue;
            };
            match items::read_listed(&item) {
                Ok(request) if is_wanted(&request, filter, after) => found.items.push(request),
                Ok(_) => {}
                // The other attributes show whether an unreadable record could match the filter.
                Err(_) if !may_be_wanted(&item, filter, after) => {}
                read => found.take(RecordKind::Request, || id.to_string(), read)?,
            }
        }
        Ok(found)
    }

    pub(super) async fn history(
        &self,
        key: &AuditKey,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let after = after.map_or_else(|| START.into(), |place| place.sort_key(key));
        let call = self
            .query_of(Table::Audit)
            .key_condition_expression("request_id = :here AND event_time_event_id > :after")
            .expression_attribute_values(":here", s(key))
            .expression_attribute_values(":after", s(after))
            .consistent_read(true);
        let items = self.query_up_to(call, limit).await?;
        items.into_iter().map(items::read_event_in_place).collect()
    }

    pub(super) async fn events(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError> {
        let from = filter
            .from
            .map_or_else(|| START.into(), |at| at.to_string());
        let from = from.as_str().max(after.unwrap_or_default()).to_owned();
        let account = filter.account_id.as_ref().map(ToString::to_string);
        let channel = filter.channel_id.as_ref().map(ToString::to_string);
        let span = IndexSpan {
            table: Table::Audit,
            index: BY_TIME,
            sort: "event_time_event_id",
            order: Order::OldestFirst,
            from,
            to: filter
                .before
                .map_or_else(|| END.into(), |at| at.to_string()),
            only: given([("account_id", account), ("channel_id", channel)]),
        };
        let mut walk = Walk::new(span, shards("shard").collect());
        let mut found = Found::default();
        while found.is_empty() {
            let items = walk.next(self, limit).await?;
            if items.is_empty() {
                break;
            }
            for item in items {
                let name = items::name(&item, "event_time_event_id");
                // The range begins with the last item of the previous page.
                if found.len() < limit && after.is_none_or(|after| name.as_str() > after) {
                    found.take(RecordKind::Event, || name, items::read_event_in_place(item))?;
                }
            }
        }
        Ok(found)
    }

    /// Returns the keys of all events that the index of an export shows.
    pub(super) async fn keys_of_events(&self) -> Result<BTreeSet<String>, StoreError> {
        let span = IndexSpan {
            table: Table::Audit,
            index: BY_TIME,
            sort: "event_time_event_id",
            order: Order::OldestFirst,
            from: START.into(),
            to: END.into(),
            only: Vec::new(),
        };
        let mut walk = Walk::new(span, shards("shard").collect());
        let mut keys = BTreeSet::new();
        loop {
            let items = walk.next(self, KEYS_AT_ONCE).await?;
            if items.is_empty() {
                return Ok(keys);
            }
            keys.extend(items.iter().map(|item| items::name(item, "request_id")));
        }
    }

    /// Returns the heads of the requests in the order of creation, then of the channels.
    pub(super) async fn chains(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        let mut heads = match after {
            None => self.request_chains(None, limit).await?,
            Some(AuditKey::Request(id)) => {
                let last = self.find_request(*id).await?;
                let last = last.as_ref().map(items::listed);
                self.request_chains(last, limit).await?
            }
            Some(AuditKey::Config(_)) => Found::default(),
        };
        let mut after = match after {
            Some(AuditKey::Config(channel)) => items::channel_key(channel),
            _ => START.into(),
        };
        while heads.len() < limit {
            let channels = self.kind("channel", &after, limit - heads.len()).await?;
            let Some(last) = channels.last() else { break };
            after = items::name(last, "binding_key");
            for item in &channels {
                let channel = items::read_channel(item);
                let name = || {
                    let key = items::name(item, "binding_key");
                    key.replacen("channel#", "config#", 1)
                };
                heads.take(RecordKind::Channel, name, channel.map(Head::from))?;
            }
        }
        Ok(heads)
    }

    async fn request_chains(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        let after = after.unwrap_or_else(|| START.into());
        let span = IndexSpan {
            table: Table::Requests,
            index: BY_TIME,
            sort: LISTED,
            order: Order::OldestFirst,
            from: after.clone(),
            to: END.into(),
            only: Vec::new(),
        };
        let mut walk = Walk::new(span, shards("shard").collect());
        let mut heads = Found::default();
        while heads.len() < limit {
            let mut items = walk.next(self, limit - heads.len()).await?;
            if items.is_empty() {
                break;
            }
            items.retain(|item| text(item, LISTED).is_ok_and(|key| key > after.as_str()));
            let ids = ids_of(&items, &mut heads.unreadable)?;
            let some = self.all_of(&ids, &Filter::default(), None).await?;
            heads.unreadable.extend(some.unreadable);
            heads.items.extend(some.items.into_iter().map(Head::from));
        }
        Ok(heads)
    }

    pub(super) async fn find_channel(&self, id: &ChannelId) -> Result<Option<Item>, StoreError> {
        let key = items::binding_key(&items::channel_key(id));
        self.get(Table::Bindings, key).await
    }

    /// Finds the bindings by the channel's own item, because an index shows a new binding only
    /// after a delay.
    pub(super) async fn bindings_of(
        &self,
        channel: &ChannelId,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        let item = self.find_channel(channel).await?.unwrap_or_default();
        let accounts = item.get("accounts").and_then(|set| set.as_ss().ok());
        let accounts = accounts.into_iter().flatten().map(String::as_str);
        let after = after.map_or("", AccountId::as_str);
        let mut accounts: Vec<&str> = accounts.filter(|account| *account > after).collect();
        accounts.sort_unstable();
        let mut bindings = Found::default();
        // An account that was unbound since leaves a place in the page.
        while bindings.len() < limit && !accounts.is_empty() {
            let next = accounts.len().min(limit - bindings.len());
            let keys = accounts.drain(..next);
            let keys = keys.map(|account| items::binding_key(&format!("account#{account}")));
            let found = self.get_all(Table::Bindings, keys.collect()).await?;
            let some = read_bindings(&found)?;
            let here = some.items.into_iter();
            let here = here.filter(|binding| binding.channel_id == *channel);
            bindings.items.extend(here);
            bindings.unreadable.extend(some.unreadable);
        }
        Ok(bindings)
    }

    pub(super) async fn all_bindings(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        let mut after = after.map_or_else(|| START.into(), items::account_key);
        let mut bindings = Found::default();
        while bindings.len() < limit {
            let found = self.kind("account", &after, limit - bindings.len()).await?;
            let Some(last) = found.last() else { break };
            after = items::name(last, "binding_key");
            let some = read_bindings(&found)?;
            bindings.items.extend(some.items);
            bindings.unreadable.extend(some.unreadable);
        }
        Ok(bindings)
    }

    /// Returns the next items of one kind in the table of bindings, in the order of their keys.
    async fn kind(&self, kind: &str, after: &str, limit: usize) -> Result<Vec<Item>, StoreError> {
        let call = self
            .query_of(Table::Bindings)
            .index_name(BY_KIND)
            .key_condition_expression("kind = :kind AND binding_key > :after")
            .expression_attribute_values(":kind", s(kind))
            .expression_attribute_values(":after", s(after))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let answer = self.query(call).await?;
        let keys = answer.items().iter().map(|item| {
            let key = item.get("binding_key").cloned();
            Item::from_iter(key.map(|key| ("binding_key".to_owned(), key)))
        });
        let mut found = self.get_all(Table::Bindings, keys.collect()).await?;
        found.sort_by_cached_key(|item| text(item, "binding_key").map(str::to_owned).ok());
        Ok(found)
    }
}

fn read_bindings(found: &[Item]) -> Result<Found<Binding>, StoreError> {
    let mut bindings: Found<Binding> = Found::default();
    for item in found {
        let name = || items::name(item, "binding_key");
        bindings.take(RecordKind::Binding, name, items::read_binding(item))?;
    }
    let account = |binding: &Binding| binding.account_id.clone();
    bindings.items.sort_by_cached_key(account);
    Ok(bindings)
}

/// Returns the ids that an index found. Keys that are not ids are added to `unreadable`.
fn ids_of(found: &[Item], unreadable: &mut Vec<Unreadable>) -> Result<Vec<RequestId>, StoreError> {
    let mut ids = Vec::new();
    for item in found {
        let name = || items::name(item, "request_id");
        let id = parsed::<RequestId>(item, "request_id");
        ids.extend(readable(RecordKind::Request, name, id, unreadable)?);
    }
    Ok(ids)
}

type IndexChoice = (&'static str, Vec<Partition>, Vec<(&'static str, String)>);

/// Chooses the narrowest index for a filter. Few requests are in a status that does not last, or
/// in one that ends a request early; jit checks the other conditions on each record.
fn narrowest(filter: &Filter) -> IndexChoice {
    let passes = filter.status.is_some_and(items::is_watched);
    let is_usual_end = filter.status == Some(Status::Expired);
    let one = |name, value: &dyn std::fmt::Display| vec![(name, s(value))];
    match (filter.status, &filter.requester_email) {
        (Some(status), _) if passes => by_status(status, filter),
        (_, Some(email)) => (BY_REQUESTER, one("requester_email", email), Vec::new()),
        (Some(status), None) if !is_usual_end => by_status(status, filter),
        (status, None) => match (&filter.account_id, &filter.channel_id, status) {
            (Some(account), _, _) => (BY_ACCOUNT, one("account_id", account), Vec::new()),
            (None, Some(channel), _) => (BY_CHANNEL, one("channel_id", channel), Vec::new()),
            (None, None, Some(status)) => by_status(status, filter),
            (None, None, None) => (BY_TIME, shards("shard").collect(), Vec::new()),
        },
    }
}

fn by_status(status: Status, filter: &Filter) -> IndexChoice {
    let partition = |shard| ("status_shard", s(items::status_shard(status, shard)));
    let only = given([
        (
            "account_id",
            filter.account_id.as_ref().map(ToString::to_string),
        ),
        (
            "channel_id",
            filter.channel_id.as_ref().map(ToString::to_string),
        ),
        (
            "requester_email",
            filter.requester_email.as_ref().map(ToString::to_string),
        ),
    ]);
    (BY_STATUS, (0..SHARDS).map(partition).collect(), only)
}

/// Returns the conditions that are set.
fn given<const N: usize>(
    pairs: [(&'static str, Option<String>); N],
) -> Vec<(&'static str, String)> {
    let asked = pairs.into_iter();
    asked
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// `before` and the cursor both end the range, one without and one with an id. The stricter of
/// the two is its end.
fn end_of(filter: &Filter, after: Option<&Cursor>) -> String {
    let before = filter.before.map(|at| at.to_string());
    let after = after.map(items::place);
    match (before, after) {
        (Some(before), Some(after)) => before.min(after),
        (before, after) => before.or(after).unwrap_or_else(|| END.into()),
    }
}

fn is_wanted(request: &Request, filter: &Filter, after: Option<&Cursor>) -> bool {
    fn is<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
        wanted.is_none_or(|wanted| wanted == found)
    }
    is(filter.channel_id.as_ref(), &request.asked.channel_id)
        && is(filter.account_id.as_ref(), &request.asked.account_id)
        && is(filter.requester_email.as_ref(), request.requester_email())
        && is(filter.status.as_ref(), &request.status())
        && filter
            .from
            .is_none_or(|from| request.asked.created_at >= from)
        && filter
            .before
            .is_none_or(|before| request.asked.created_at < before)
        && after
            .is_none_or(|last| (request.asked.created_at, request.id) < (last.created_at, last.id))
}

/// Reports whether an unreadable record could match the filter, by its other attributes. A
/// missing attribute does not exclude it.
fn may_be_wanted(item: &Item, filter: &Filter, after: Option<&Cursor>) -> bool {
    let is = |name: &str, wanted: Option<String>| match (text(item, name), wanted) {
        (Ok(found), Some(wanted)) => found == wanted,
        _ => true,
    };
    let listed = text(item, LISTED).unwrap_or_default();
    is(
        "channel_id",
        filter.channel_id.as_ref().map(ToString::to_string),
    ) && is(
        "account_id",
        filter.account_id.as_ref().map(ToString::to_string),
    ) && is(
        "requester_email",
        filter.requester_email.as_ref().map(ToString::to_string),
    ) && is("status", filter.status.map(|status| status.to_string()))
        && filter
            .from
            .is_none_or(|from| listed >= from.to_string().as_str())
        && listed < end_of(filter, after).as_str()
}
