//! What can be read: every query of the rooms above, so that none of them holds the store.

use super::{PAGE, Service, ServiceError};
use crate::domain::{
    AccountId, AuditKey, Binding, ChannelId, Event, Holding, HoldingKey, Request, RequestId,
};
use crate::store::{Cursor, Filter, Found, Gauges, StoreError};

impl Service {
    pub async fn request(&self, id: RequestId) -> Result<Request, ServiceError> {
        self.store
            .request(id)
            .await?
            .ok_or(ServiceError::Unknown(id))
    }

    /// Those that were made last, page by page, and not many more than `most`.
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

    pub async fn holding(&self, key: HoldingKey) -> Result<Holding, StoreError> {
        let stored = self.store.holding(&key).await?;
        Ok(stored.unwrap_or_else(|| Holding::unheld(key)))
    }

    /// As `request`, for a caller to whom a missing record is no error.
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

    /// The audit events of a request, or of a channel's configuration.
    pub async fn history(&self, key: &AuditKey) -> Result<Vec<Event>, StoreError> {
        self.store.audit(key).await
    }

    pub async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError> {
        self.store.binding(account).await
    }

    /// The bindings of one channel, by account.
    pub async fn bindings(&self, channel: &ChannelId) -> Result<Found<Binding>, StoreError> {
        self.store.bindings(channel).await
    }

    /// The bindings of all channels, by account, page by page.
    pub async fn all_bindings(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        self.store.bound(after, limit).await
    }

    pub async fn gauges(&self) -> Result<Gauges, StoreError> {
        self.store.gauges(self.clock.now()).await
    }

    /// Whether the store answers a read. No request has the id that is read.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        self.store.request(RequestId::NIL).await.map(drop)
    }
}
