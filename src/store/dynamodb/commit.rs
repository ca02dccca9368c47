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
use crate::domain::{Binding, Channel, Millis, Notice, Request, RequestId};
use crate::store::{Answered, Commit, Guard, Nonce, StoreError};

/// DynamoDB's limit for the items of one transaction.
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
            let why = format!(
                "the commit changes {many} items, and a DynamoDB transaction has at most {MOST}"
            );
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
}

impl DynamoStore {
    /// Writes a single request, which costs half of a transaction. If the answer is lost, the
    /// second attempt finds the record of the first and reports a conflict.
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

/// Converts failed conditions to an error. In every plan the requests are first and the nonce is
/// last.
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

/// G20a, P8: the condition compares times, because DynamoDB deletes expired items late.
pub(super) fn is_fresh(nonce: &Nonce) -> Condition {
    Condition::that("attribute_not_exists(nonce) OR keep_until < :now")
        .with(":now", items::millis(nonce.at))
}

fn conflict(found: Option<Item>) -> Result<(), StoreError> {
    let winner = found.map(|item| items::read_request(&item)).transpose()?;
    Err(StoreError::Conflict(winner.map(Box::new)))
}

/// Returns the revision that a record of this revision must replace; 0 means none.
fn before(revision: u64) -> Result<u64, StoreError> {
    revision.checked_sub(1).ok_or(StoreError::Conflict(None))
}

/// A change from outside counts as one write: a caller that read the record before it gets a
/// conflict, and a record that was read after it is one revision above the stored number.
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

struct Plan<'s, 'c> {
    store: &'s DynamoStore,
    actions: Vec<TransactWriteItem>,
    /// The indexes of the actions that add notices to an outbox.
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

/// Returns the bindings that belong to the channel after this commit.
fn bound(commit: &Commit) -> Vec<&Binding> {
    let all = commit.bindings.iter();
    all.filter(|binding| binding.revision == 1).collect()
}

/// Updates the record of a channel and the set of its accounts. The item has this set because
/// an index shows a new account only after a delay.
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
