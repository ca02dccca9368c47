//! One step, one transaction: the record with all that becomes true with it, under the
//! condition that nobody was there before.

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
use crate::domain::{Binding, Channel, Millis, Notice, Request, RequestId};
use crate::store::{Answered, Commit, Guard, Nonce, StoreError};

/// What DynamoDB takes in one transaction.
const MOST: usize = 100;

impl DynamoStore {
    pub(super) async fn write(&self, commit: Commit) -> Result<(), StoreError> {
        let mut plan = Plan {
            store: self,
            actions: Vec::new(),
            outboxes: Vec::new(),
        };
        plan.commit(&commit)?;
        if let Some(place) = commit.parked {
            let parking = self.parking(place).await?;
            plan.update(
                Table::Outbox,
                items::request_key(place.request_id),
                &parking,
            )?;
        }
        if let Some(nonce) = &commit.nonce {
            plan.put(Table::Nonces, items::nonce(nonce), &is_fresh(nonce))?;
        }
        let (actions, outboxes) = (plan.actions, plan.outboxes);
        if actions.len() > MOST {
            let many = actions.len();
            let why = format!("{many} items would change together, and DynamoDB takes {MOST}");
            return Err(StoreError::TooLarge(why));
        }
        sizes::check(&actions)?;
        let mut sends = 0;
        loop {
            let checked = match self.transact(&actions).await? {
                Transacted::Yes => return Ok(()),
                Transacted::No(checked) => checked,
            };
            let mut full = Vec::new();
            for (place, notices) in &outboxes {
                if let Some(ConditionResult::Failed(found)) = checked.get(*place) {
                    full.push((found.clone().unwrap_or_default(), notices));
                }
            }
            let failed = |one: &&ConditionResult| matches!(one, ConditionResult::Failed(_));
            if checked.iter().filter(failed).count() > full.len() {
                return refused(&commit, checked);
            }
            // Nothing but room is missing. Somebody may deliver meanwhile: then look again.
            for (found, notices) in full {
                self.make_room(found, notices).await?;
            }
            sends += 1;
            let why = || "what is to be told changes too fast to make room there".into();
            self.pause(sends, why).await?;
        }
    }
}

impl DynamoStore {
    /// A request with nothing beside it: half of what a transaction costs. If the answer is
    /// lost, the second try finds what the first wrote and says that it came too late.
    pub(super) async fn write_alone(&self, request: &Request) -> Result<(), StoreError> {
        let condition = follows(request)?;
        let written = self
            .put(Table::Requests, items::request(request)?, &condition)
            .await?;
        match written {
            WriteResult::Yes => Ok(()),
            WriteResult::No(found) => conflict(found),
        }
    }
}

/// In every plan requests come first, and the nonce last.
fn refused(commit: &Commit, checked: Vec<ConditionResult>) -> Result<(), StoreError> {
    if commit.nonce.is_some() && matches!(checked.last(), Some(ConditionResult::Failed(_))) {
        return Err(StoreError::Replayed);
    }
    let requests = checked.into_iter().take(commit.requests.len());
    let mut found = requests.filter_map(|one| match one {
        ConditionResult::Failed(found) => found,
        ConditionResult::Held => None,
    });
    conflict(found.next())
}

/// G20a, P8: times are compared; that DynamoDB forgets is for room alone.
pub(super) fn is_fresh(nonce: &Nonce) -> Condition {
    Condition::that("attribute_not_exists(nonce) OR keep_until < :now")
        .with(":now", items::millis(nonce.at))
}

fn conflict(found: Option<Item>) -> Result<(), StoreError> {
    let winner = found.map(|item| items::read_request(&item)).transpose()?;
    Err(StoreError::Conflict(winner.map(Box::new)))
}

/// What a record of this revision must follow on; the first follows on nothing.
fn before(revision: u64) -> Result<u64, StoreError> {
    revision.checked_sub(1).ok_or(StoreError::Conflict(None))
}

/// A word from outside counts as a write: who has not heard it is too late, and who has
/// is one revision further than what jit wrote.
fn follows(request: &Request) -> Result<Condition, StoreError> {
    Ok(match before(request.revision)? {
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

/// That an account is bound as it was. An item that was written before bindings had a
/// number says nothing of it.
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

struct Plan<'s, 'c> {
    store: &'s DynamoStore,
    actions: Vec<TransactWriteItem>,
    /// Which of them add to what a request has to tell.
    outboxes: Vec<(usize, Vec<&'c Notice>)>,
}

impl<'c> Plan<'_, 'c> {
    fn commit(&mut self, commit: &'c Commit) -> Result<(), StoreError> {
        for request in &commit.requests {
            let condition = follows(request)?;
            self.put(Table::Requests, items::request(request)?, &condition)?;
        }
        for holding in &commit.holdings {
            let condition = follows_on("holding_key", holding.revision)?;
            self.put(Table::Assignments, items::holding(holding)?, &condition)?;
        }
        self.bindings(commit)?;
        if let Some(guard) = &commit.guard {
            self.check(guard)?;
        }
        for event in &commit.events {
            let condition = Condition::that("attribute_not_exists(request_id)");
            self.put(Table::Audit, items::event(event)?, &condition)?;
        }
        for (id, notices) in by_request(&commit.notices) {
            let adding = outbox::adding(&notices)?;
            self.outboxes.push((self.actions.len(), notices));
            self.update(Table::Outbox, items::request_key(id), &adding)?;
        }
        if let Some(answered) = &commit.answered {
            self.answered(answered)?;
        }
        Ok(())
    }

    fn bindings(&mut self, commit: &Commit) -> Result<(), StoreError> {
        for binding in &commit.bindings {
            let condition = follows_on("binding_key", binding.revision)?;
            self.put(Table::Bindings, items::binding(binding)?, &condition)?;
        }
        if let Some(binding) = &commit.unbound {
            let key = items::account_key(&binding.account_id);
            let condition = Condition::that("revision = :now").with(":now", n(binding.revision));
            self.delete(Table::Bindings, items::binding_key(&key), &condition)?;
        }
        let (more, fewer) = (bound(commit), commit.unbound.as_ref());
        let channel_id = commit.channel.as_ref().map(|channel| &channel.id);
        let moved = more.first().copied().or(fewer).map(|b| &b.channel_id);
        let Some(id) = channel_id.or(moved) else {
            return Ok(());
        };
        let change = channel_change(commit.channel.as_ref(), &more, fewer)?;
        let key = items::binding_key(&items::channel_key(id));
        self.update(Table::Bindings, key, &change)
    }

    fn answered(&mut self, answered: &Answered) -> Result<(), StoreError> {
        let mut item = items::answered(answered);
        items::forget_after(&mut item, answered.at + Millis::DAY);
        let day_ago = answered.at.millis() - Millis::DAY.0;
        let condition = Condition::that("attribute_not_exists(answer_key) OR answered_at < :old")
            .with(":old", n(day_ago));
        self.put(Table::Answers, item, &condition)
    }

    fn check(&mut self, guard: &Guard) -> Result<(), StoreError> {
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

/// Those that a channel has from now on.
fn bound(commit: &Commit) -> Vec<&Binding> {
    let all = commit.bindings.iter();
    all.filter(|binding| binding.revision == 1).collect()
}

/// A channel's own record, and beside it which accounts it has: what an index would know
/// only a little later.
fn channel_change(
    channel: Option<&Channel>,
    more: &[&Binding],
    fewer: Option<&Binding>,
) -> Result<ConditionalUpdate, StoreError> {
    let mut text = "SET kind = :kind".to_owned();
    let mut condition = match channel {
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
    if !more.is_empty() {
        text.push_str(" ADD accounts :accounts");
        condition = condition.with(":accounts", accounts(more));
    } else if let Some(binding) = fewer {
        text.push_str(" DELETE accounts :accounts");
        condition = condition.with(":accounts", accounts(&[binding]));
    }
    Ok(ConditionalUpdate { text, condition })
}

fn by_request(notices: &[Notice]) -> BTreeMap<RequestId, Vec<&Notice>> {
    let mut all: BTreeMap<RequestId, Vec<&Notice>> = BTreeMap::new();
    for notice in notices {
        all.entry(notice.request_id).or_default().push(notice);
    }
    all
}
