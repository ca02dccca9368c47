//! Writes a commit as one transaction, under the condition that every record follows the stored
//! one.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};

use super::DynamoStore;
use super::calls::{Condition, ConditionResult, ConditionalUpdate, Transacted, WriteResult};
use super::items::{self, Item, n, s};
use super::tables::Table;
use super::{outbox, sizes};
use crate::domain::{
    Binding, Channel, ChannelId, Event, Holding, Millis, Notice, Request, RequestId,
};
use crate::store::{Answered, Commit, Guard, Nonce, NoticePlace, StoreError, Write};

impl DynamoStore {
    pub(super) async fn write(&self, commit: Commit) -> Result<(), StoreError> {
        let plan = self.plan(&commit).await?;
        sizes::check(&plan.actions)?;
        let mut sends = 0;
        loop {
            let checked = match self.transact(&plan.actions).await? {
                Transacted::Yes => return Ok(()),
                Transacted::No(checked) => checked,
            };
            let mut full = Vec::new();
            for (place, notices) in &plan.outboxes {
                if let Some(ConditionResult::Failed(found)) = checked.get(*place) {
                    full.push((found.clone().unwrap_or_default(), notices));
                }
            }
            let failed = |one: &&ConditionResult| matches!(one, ConditionResult::Failed(_));
            if checked.iter().filter(failed).count() > full.len() {
                return plan.refused(&checked);
            }
            // Only full outboxes failed. A notice worker may deliver at the same time, so the
            // loop tries the whole commit again.
            for (found, notices) in full {
                self.make_room(found, notices).await?;
            }
            sends += 1;
            let why = || "the outbox of the request changes too fast to make room in it".into();
            self.pause(sends, why).await?;
        }
    }

    async fn plan<'c>(&self, commit: &'c Commit) -> Result<Plan<'_, 'c>, StoreError> {
        let mut plan = Plan {
            store: self,
            actions: Vec::new(),
            requests: Vec::new(),
            outboxes: Vec::new(),
            nonce: None,
        };
        // A transaction has at most one action for each item. So the notices of a request, which
        // are in one item, become one action, and so do a channel and the set of its accounts.
        let mut outboxes: BTreeMap<RequestId, Vec<&Notice>> = BTreeMap::new();
        let mut channels: BTreeMap<&ChannelId, ChannelChange<'_>> = BTreeMap::new();
        for write in &commit.writes {
            match write {
                Write::Request(request) => plan.request(request)?,
                Write::Holding(holding) => plan.holding(holding)?,
                Write::Channel(channel) => {
                    channels.entry(&channel.id).or_default().record = Some(channel);
                }
                Write::Binding(binding) => {
                    plan.binding(binding)?;
                    if binding.revision == 1 {
                        let change = channels.entry(&binding.channel_id).or_default();
                        change.bound.push(binding);
                    }
                }
                Write::Unbind(binding) => {
                    plan.unbind(binding)?;
                    channels.entry(&binding.channel_id).or_default().unbound = Some(binding);
                }
                Write::Guard(guard) => plan.guard(guard)?,
                Write::Event(event) => plan.event(event)?,
                Write::Notice(notice) => {
                    outboxes.entry(notice.request_id).or_default().push(notice);
                }
                Write::Park(place) => plan.park(*place).await?,
                Write::Answer(answered) => plan.answer(answered)?,
            }
        }
        for (id, change) in &channels {
            plan.channel(id, change)?;
        }
        for (id, notices) in outboxes {
            plan.notices(id, notices)?;
        }
        if let Some(nonce) = &commit.nonce {
            plan.nonce = Some(plan.actions.len());
            plan.put(Table::Nonces, items::nonce(nonce), &is_fresh(nonce))?;
        }
        Ok(plan)
    }

    /// Writes a single request, which costs half of a transaction. If the answer is lost, the
    /// second attempt finds the record of the first and reports a conflict.
    pub(super) async fn write_alone(&self, request: &Request) -> Result<(), StoreError> {
        let condition = follows(request)?;
        let written = self
            .put(Table::Requests, items::request(request)?, &condition)
            .await?;
        match written {
            WriteResult::Yes => Ok(()),
            WriteResult::No(found) => conflict(found.as_ref()),
        }
    }
}

/// G20a, P8: the condition compares times, because DynamoDB deletes expired items late.
pub(super) fn is_fresh(nonce: &Nonce) -> Condition {
    Condition::that("attribute_not_exists(nonce) OR keep_until < :now")
        .with(":now", items::millis(nonce.at))
}

fn conflict(found: Option<&Item>) -> Result<(), StoreError> {
    let winner = found.map(items::read_request).transpose()?;
    Err(StoreError::Conflict(winner.map(Box::new)))
}

/// Returns the revision that a record of this revision must replace; 0 means none.
fn before(revision: u64) -> Result<u64, StoreError> {
    revision.checked_sub(1).ok_or(StoreError::Conflict(None))
}

/// A change from outside counts as one write: a caller that read the record before it gets a
/// conflict, and a record that was read after it is one revision above the stored number.
fn follows(request: &Request) -> Result<Condition, StoreError> {
    Ok(match before(request.version.revision)? {
        0 => Condition::that("attribute_not_exists(request_id)"),
        before => Condition::that(
            "revision = :before AND #status = written_status \
             OR revision = :unheard AND #status <> written_status",
        )
        .naming("#status", "status")
        .with(":before", n(before))
        .with(":unheard", n(before.saturating_sub(1))),
    })
}

fn follows_on(key: &str, revision: u64) -> Result<Condition, StoreError> {
    Ok(match before(revision)? {
        0 => Condition::that(&format!("attribute_not_exists({key})")),
        before => Condition::that("revision = :before").with(":before", n(before)),
    })
}

/// The condition that the binding of an account is unchanged. An item of an older jit has no
/// `bound_seq`, so the condition accepts its absence.
fn unchanged(guard: &Guard) -> Condition {
    let Some(made) = &guard.made else {
        return Condition::that("attribute_not_exists(binding_key)");
    };
    let condition = Condition::that("revision = :now").with(":now", n(guard.revision));
    match made.bound_seq {
        0 => condition
            .and("(attribute_not_exists(bound_seq) OR bound_seq = :seq)")
            .with(":seq", n(0)),
        seq => condition
            .and("bound_seq = :seq AND channel_id = :channel")
            .with(":seq", n(seq))
            .with(":channel", s(&made.channel_id)),
    }
}

/// The actions of a commit.
struct Plan<'s, 'c> {
    store: &'s DynamoStore,
    actions: Vec<TransactWriteItem>,
    /// The indexes of the actions that write requests.
    requests: Vec<usize>,
    /// The indexes of the actions that add notices to an outbox.
    outboxes: Vec<(usize, Vec<&'c Notice>)>,
    /// The index of the action that spends the nonce.
    nonce: Option<usize>,
}

/// The changes of a channel's item.
#[derive(Default)]
struct ChannelChange<'c> {
    record: Option<&'c Channel>,
    bound: Vec<&'c Binding>,
    unbound: Option<&'c Binding>,
}

impl<'c> Plan<'_, 'c> {
    /// Converts failed conditions to an error.
    fn refused(&self, checked: &[ConditionResult]) -> Result<(), StoreError> {
        let failed = |place: &usize| match checked.get(*place) {
            Some(ConditionResult::Failed(found)) => Some(found),
            Some(ConditionResult::Held) | None => None,
        };
        if self.nonce.as_ref().and_then(failed).is_some() {
            return Err(StoreError::Replayed);
        }
        let mut stored = self.requests.iter().filter_map(failed).flatten();
        conflict(stored.next())
    }

    fn request(&mut self, request: &Request) -> Result<(), StoreError> {
        self.requests.push(self.actions.len());
        let condition = follows(request)?;
        self.put(Table::Requests, items::request(request)?, &condition)
    }

    fn holding(&mut self, holding: &Holding) -> Result<(), StoreError> {
        let condition = follows_on("holding_key", holding.revision)?;
        self.put(Table::Assignments, items::holding(holding)?, &condition)
    }

    fn binding(&mut self, binding: &Binding) -> Result<(), StoreError> {
        let condition = follows_on("binding_key", binding.revision)?;
        self.put(Table::Bindings, items::binding(binding)?, &condition)
    }

    fn unbind(&mut self, binding: &Binding) -> Result<(), StoreError> {
        let key = items::account_key(&binding.account_id);
        let condition = Condition::that("revision = :now").with(":now", n(binding.revision));
        self.delete(Table::Bindings, items::binding_key(&key), &condition)
    }

    fn channel(&mut self, id: &ChannelId, change: &ChannelChange<'_>) -> Result<(), StoreError> {
        let key = items::binding_key(&items::channel_key(id));
        self.update(Table::Bindings, key, &channel_update(change)?)
    }

    fn event(&mut self, event: &Event) -> Result<(), StoreError> {
        let condition = Condition::that("attribute_not_exists(request_id)");
        self.put(Table::Audit, items::event(event)?, &condition)
    }

    fn notices(&mut self, id: RequestId, notices: Vec<&'c Notice>) -> Result<(), StoreError> {
        let adding = outbox::adding(&notices)?;
        self.outboxes.push((self.actions.len(), notices));
        self.update(Table::Outbox, items::request_key(id), &adding)
    }

    async fn park(&mut self, place: NoticePlace) -> Result<(), StoreError> {
        let parking = self.store.parking(place).await?;
        self.update(
            Table::Outbox,
            items::request_key(place.request_id),
            &parking,
        )
    }

    fn answer(&mut self, answered: &Answered) -> Result<(), StoreError> {
        let mut item = items::answered(answered);
        items::forget_after(&mut item, answered.at + Millis::DAY);
        let day_ago = answered.at.millis() - Millis::DAY.0;
        let condition = Condition::that("attribute_not_exists(answer_key) OR answered_at < :old")
            .with(":old", n(day_ago));
        self.put(Table::Answers, item, &condition)
    }

    fn guard(&mut self, guard: &Guard) -> Result<(), StoreError> {
        let condition = unchanged(guard);
        let key = items::binding_key(&items::account_key(&guard.account_id));
        let check = ConditionCheck::builder()
            .table_name(self.store.names.of(Table::Bindings))
            .set_key(Some(key))
            .condition_expression(&condition.text)
            .set_expression_attribute_values(condition.values())
            .build()?;
        let action = TransactWriteItem::builder().condition_check(check).build();
        self.actions.push(action);
        Ok(())
    }

    fn put(&mut self, table: Table, item: Item, condition: &Condition) -> Result<(), StoreError> {
        let put = Put::builder()
            .table_name(self.store.names.of(table))
            .set_item(Some(item))
            .condition_expression(&condition.text)
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        self.actions
            .push(TransactWriteItem::builder().put(put).build());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: Item, condition: &Condition) -> Result<(), StoreError> {
        let delete = Delete::builder()
            .table_name(self.store.names.of(table))
            .set_key(Some(key))
            .condition_expression(&condition.text)
            .set_expression_attribute_values(condition.values())
            .build()?;
        let action = TransactWriteItem::builder().delete(delete).build();
        self.actions.push(action);
        Ok(())
    }

    fn update(
        &mut self,
        table: Table,
        key: Item,
        change: &ConditionalUpdate,
    ) -> Result<(), StoreError> {
        let condition = &change.condition;
        let update = Update::builder()
            .table_name(self.store.names.of(table))
            .set_key(Some(key))
            .update_expression(&change.text)
            .set_condition_expression(condition.text())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        let action = TransactWriteItem::builder().update(update).build();
        self.actions.push(action);
        Ok(())
    }
}

/// Updates the record of a channel and the set of its accounts. The item has this set because
/// an index shows a new account only after a delay.
fn channel_update(change: &ChannelChange<'_>) -> Result<ConditionalUpdate, StoreError> {
    let mut text = "SET kind = :kind".to_owned();
    let mut condition = match change.record {
        Some(channel) => {
            text.push_str(", revision = :revision, doc = :doc");
            let mut item = items::channel(channel)?;
            let mut take = |name: &str| item.remove(name).unwrap_or(AttributeValue::Null(true));
            follows_on("revision", channel.revision)?
                .with(":revision", take("revision"))
                .with(":doc", take("doc"))
        }
        None => Condition::default(),
    };
    condition = condition.with(":kind", s("channel"));
    let accounts = |bindings: &[&Binding]| {
        let ids = bindings
            .iter()
            .map(|binding| binding.account_id.to_string());
        AttributeValue::Ss(ids.collect())
    };
    if !change.bound.is_empty() {
        text.push_str(" ADD accounts :accounts");
        condition = condition.with(":accounts", accounts(&change.bound));
    } else if let Some(binding) = change.unbound {
        text.push_str(" DELETE accounts :accounts");
        condition = condition.with(":accounts", accounts(&[binding]));
    }
    Ok(ConditionalUpdate { text, condition })
}
