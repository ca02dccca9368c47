//! Copies histories out of the tables and into them. The record of a history is written last,
//! so a reader that finds the record finds the complete history.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoStore;
use super::calls::{Condition, WriteResult};
use super::items::{self, Item, millis, n, s};
use super::outbox;
use super::tables::Table;
use crate::domain::{AuditKey, Binding, Channel, Event, Holding, Request, RequestId, Timestamp};
use crate::store::portable::{COPIED, Copied, OutboxEntry, Portable, Took, is_behind};
use crate::store::{Store, StoreError};

#[async_trait]
impl Portable for DynamoStore {
    async fn outbox_entries(&self, id: RequestId) -> Result<Vec<OutboxEntry>, StoreError> {
        let item = self.get(Table::Outbox, items::request_key(id)).await?;
        outbox::outbox_entries(&item.unwrap_or_default())
    }

    async fn parked(&self, id: RequestId) -> Result<u64, StoreError> {
        let item = self.get(Table::Outbox, items::request_key(id)).await?;
        Ok(items::count(&item.unwrap_or_default(), "parked"))
    }

    async fn take_over(&self, copied: &Copied) -> Result<Took, StoreError> {
        match copied {
            Copied::Request {
                request,
                holding,
                outbox_entries,
                parked,
                events,
            } => {
                let outbox = (outbox_entries.as_slice(), *parked);
                self.take_request(request, holding.as_ref(), outbox, events)
                    .await
            }
            Copied::Channel {
                channel,
                bindings,
                events,
            } => self.take_channel(channel, bindings, events).await,
        }
    }

    async fn note_copied(&self, at: Timestamp) -> Result<(), StoreError> {
        let mut item = Item::from([
            ("lease_name".into(), s(COPIED)),
            ("lease_until".into(), millis(at)),
        ]);
        items::forget_after(&mut item, at);
        let any = Condition::default();
        self.put(Table::Leases, item, &any).await.map(drop)
    }
}

impl DynamoStore {
    async fn take_request(
        &self,
        request: &Request,
        holding: Option<&Holding>,
        (outbox_entries, parked): (&[OutboxEntry], u64),
        events: &[Event],
    ) -> Result<Took, StoreError> {
        let key = AuditKey::Request(request.id);
        let here = self.find_request(request.id).await?;
        if here.as_ref() == Some(request) {
            return Ok(Took::Before);
        }
        if here
            .as_ref()
            .is_some_and(|here| here.version.revision >= request.version.revision)
        {
            return Err(StoreError::Diverged(key.to_string()));
        }
        self.take_events(&key, events).await?;
        if let Some(holding) = holding {
            let further = Condition::that("attribute_not_exists(holding_key) OR revision <= :this")
                .with(":this", n(holding.revision));
            let item = items::holding(holding)?;
            self.put(Table::Assignments, item, &further).await?;
        }
        if here.is_some() || !outbox_entries.is_empty() || parked > 0 {
            let item = outbox::whole(request.id, outbox_entries, parked)?;
            self.put(Table::Outbox, item, &Condition::default()).await?;
        }
        let unchanged = match here {
            None => Condition::that("attribute_not_exists(request_id)"),
            Some(here) => {
                Condition::that("revision = :here").with(":here", n(here.version.revision))
            }
        };
        let item = items::request(request)?;
        match self.put(Table::Requests, item, &unchanged).await? {
            WriteResult::Yes => Ok(Took::Now),
            // This same call wrote it, and the answer to its first attempt was lost.
            WriteResult::No(Some(found)) if items::read_request(&found)? == *request => {
                Ok(Took::Now)
            }
            WriteResult::No(_) => Err(StoreError::Diverged(key.to_string())),
        }
    }

    async fn take_channel(
        &self,
        channel: &Channel,
        bindings: &[Binding],
        events: &[Event],
    ) -> Result<Took, StoreError> {
        let key = AuditKey::Config(channel.id.clone());
        let here = self.channel(&channel.id).await?;
        let bound = self.bindings(&channel.id).await?.whole()?;
        if here.as_ref() == Some(channel) && bound == bindings {
            return Ok(Took::Before);
        }
        if here
            .as_ref()
            .is_some_and(|here| here.revision > channel.revision)
        {
            return Err(StoreError::Diverged(key.to_string()));
        }
        self.take_events(&key, events).await?;
        let any = Condition::default();
        for gone in bound
            .iter()
            .filter(|here| !bindings.iter().any(|b| b.account_id == here.account_id))
        {
            let key = items::binding_key(&items::account_key(&gone.account_id));
            let same = Condition::that("revision = :here").with(":here", n(gone.revision));
            self.delete(Table::Bindings, key, &same).await?;
        }
        for binding in bindings {
            let item = items::binding(binding)?;
            self.put(Table::Bindings, item, &any).await?;
        }
        let mut item = items::channel(channel)?;
        item.insert("kind".into(), s("channel"));
        if !bindings.is_empty() {
            let accounts = bindings
                .iter()
                .map(|binding| binding.account_id.to_string());
            item.insert("accounts".into(), AttributeValue::Ss(accounts.collect()));
        }
        self.put(Table::Bindings, item, &any).await?;
        Ok(Took::Now)
    }

    /// Adds the events that are missing. Fails if the stored events are not a beginning of these.
    async fn take_events(&self, key: &AuditKey, events: &[Event]) -> Result<(), StoreError> {
        let here = self.history(key, None, usize::MAX).await?;
        if !is_behind(&here, events) {
            return Err(StoreError::Diverged(key.to_string()));
        }
        let none = Condition::that("attribute_not_exists(request_id)");
        for event in events.iter().skip(here.len()) {
            match self.put(Table::Audit, items::event(event)?, &none).await? {
                WriteResult::Yes => {}
                // This same call wrote it, and the answer to its first attempt was lost.
                WriteResult::No(Some(found)) if items::read_event(found.clone())? == *event => {}
                WriteResult::No(_) => return Err(StoreError::Diverged(key.to_string())),
            }
        }
        Ok(())
    }
}
