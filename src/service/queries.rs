//! All queries: the modules above the service read through these, and have no access to the
//! store.

use std::cmp::Reverse;
use std::collections::HashSet;

use futures_util::future::join_all;

use super::{PAGE, Service, ServiceError};
use crate::domain::{
    AccountId, AuditKey, Binding, ChannelId, Event, EventPlace, Holding, HoldingKey, Lane, Millis,
    Request, RequestId, Timestamp,
};
use crate::store::{AuditFilter, Cursor, Filter, Found, Gauges, Head, StoreError, Unreadable};

/// A worker that checks an end at AWS tries again after two minutes at the latest, and the clocks of
/// two processes may differ by five.
const CHECKED_WITHIN: Millis = Millis::minutes(10);
/// The number of due records that are read at the same time.
const READ_AT_ONCE: usize = 32;

impl Service {
    pub async fn request(&self, id: RequestId) -> Result<Request, ServiceError> {
        self.find(id).await?.ok_or(ServiceError::Unknown(id))
    }

    /// The newest requests, read page by page; not many more than `most`.
    pub async fn newest(&self, filter: &Filter, most: usize) -> Result<Found<Request>, StoreError> {
        let (mut all, mut after) = (Found::default(), None);
        while all.len() < most {
            let page = self.store.list(filter, after.as_ref(), PAGE).await?;
            all.unreadable.extend(page.unreadable);
            let Some(last) = page.items.last() else {
                break;
            };
            after = Some(Cursor::from(last));
            all.items.extend(page.items);
        }
        Ok(all)
    }

    /// The requests whose end a worker has yet to check at AWS, newest first. W5: they are due soon,
    /// so this finds all of them without a read of the ended requests.
    pub async fn checked_ends(&self, filter: &Filter) -> Result<Found<Request>, StoreError> {
        let by = self.clock.now() + CHECKED_WITHIN;
        let mut found = Found::default();
        for lane in [Lane::Revoke, Lane::Remove] {
            let due = self.store.due(lane, by, usize::MAX).await?;
            for some in due.ready.chunks(READ_AT_ONCE) {
                let reads = some.iter().map(|id| self.store.request(*id));
                for (id, read) in some.iter().zip(join_all(reads).await) {
                    match read {
                        Ok(request) => found.items.extend(request),
                        Err(StoreError::Corrupt(why)) => {
                            let name = id.to_string();
                            found.unreadable.push(Unreadable { name, why });
                        }
                        Err(error) => return Err(error),
                    }
                }
                let is_checked = |one: &Request| one.state.is_checked_at_aws();
                let is_wanted = |one: &Request| is_checked(one) && matches_all(filter, one);
                found.items.retain(is_wanted);
            }
        }
        // A request that changed its lane meanwhile is in both.
        found.items.sort_by_key(|one| Reverse(Cursor::from(one)));
        found.items.dedup_by_key(|one| one.id);
        Ok(found)
    }

    pub async fn holding(&self, key: HoldingKey) -> Result<Holding, StoreError> {
        let stored = self.store.holding(&key).await?;
        Ok(stored.unwrap_or_else(|| Holding::unheld(key)))
    }

    /// Like `request`, but a missing request is not an error.
    pub async fn find(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        self.store.request(id).await
    }

    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        self.store.list(filter, after, limit).await
    }

    /// One page of the audit events of a request, or of a channel's configuration.
    pub async fn history(
        &self,
        key: &AuditKey,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.store.audit_page(key, after, limit).await
    }

    /// The event with this number, which is not older than `since`.
    pub async fn event(
        &self,
        key: &AuditKey,
        seq: u64,
        since: Timestamp,
    ) -> Result<Option<Event>, StoreError> {
        let mut after = EventPlace::before(seq, since);
        loop {
            // The time of an event is later than `since` if a clock was set back. Earlier events
            // can then come before it.
            let events = self.store.audit_page(key, Some(after), PAGE).await?;
            let Some(last) = events.last() else {
                return Ok(None);
            };
            after = last.place();
            if let Some(event) = events.into_iter().find(|event| event.seq == seq) {
                return Ok(Some(event));
            }
        }
    }

    /// The events from this number on. The first of them is not older than `since`.
    pub async fn events_from(
        &self,
        key: &AuditKey,
        seq: u64,
        since: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        let (mut found, mut after) = (Vec::new(), EventPlace::before(seq, since));
        loop {
            let events = self.store.audit_page(key, Some(after), PAGE).await?;
            let Some(last) = events.last() else {
                return Ok(found);
            };
            after = last.place();
            found.extend(events.into_iter().filter(|event| event.seq >= seq));
        }
    }

    /// One page of the audit events of all histories, by time.
    pub async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError> {
        self.store.export(filter, after, limit).await
    }

    /// The ends of all histories according to their records, page by page.
    pub async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        self.store.heads(after, limit).await
    }

    /// The end of one history according to its record.
    pub async fn head(&self, key: &AuditKey) -> Result<Option<Head>, StoreError> {
        Ok(match key {
            AuditKey::Request(id) => self.store.request(*id).await?.map(Head::from),
            AuditKey::Config(id) => self.store.channel(id).await?.map(Head::from),
        })
    }

    pub async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError> {
        self.store.binding(account).await
    }

    /// One page of the bindings of one channel, by account.
    pub async fn bindings(
        &self,
        channel: &ChannelId,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        self.store.bindings_page(channel, after, limit).await
    }

    /// The bindings of all channels, by account, page by page.
    pub async fn all_bindings(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        self.store.bound(after, limit).await
    }

    /// All channels that have a binding.
    pub async fn bound_channel_ids(&self) -> Result<HashSet<ChannelId>, StoreError> {
        let (mut channels, mut after) = (HashSet::new(), None);
        loop {
            let page = self.store.bound(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(channels);
            };
            after = Some(last.account_id.clone());
            channels.extend(page.into_iter().map(|binding| binding.channel_id));
        }
    }

    /// When this store was copied from another, if it was.
    pub async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.copied_at().await
    }

    pub async fn gauges(&self) -> Result<Gauges, StoreError> {
        self.store.gauges(self.clock.now()).await
    }

    /// Whether the store answers a read. The id that is read belongs to no request.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        self.store.request(RequestId::NIL).await.map(drop)
    }
}

/// Whether the request matches every given field of the filter.
fn matches_all(filter: &Filter, request: &Request) -> bool {
    fn is<T: PartialEq>(wanted: Option<&T>, value: &T) -> bool {
        wanted.is_none_or(|wanted| wanted == value)
    }
    let asked = &request.asked;
    is(filter.request_id.as_ref(), &request.id)
        && is(filter.channel_id.as_ref(), &asked.channel_id)
        && is(filter.account_id.as_ref(), &asked.account_id)
        && is(filter.requester_email.as_ref(), &asked.requester.email)
        && is(filter.status.as_ref(), &request.status())
        && filter.from.is_none_or(|from| asked.created_at >= from)
        && filter.before.is_none_or(|before| asked.created_at < before)
}
