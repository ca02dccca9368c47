//! Calls DynamoDB, counts the calls and interprets the errors.
//!
//! A read on which a decision depends is strongly consistent. Reads of an index cannot be, so
//! jit reads the records that an index finds again. A write whose answer was lost is
//! distinguished from a write by another process.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity, ReturnValue,
    TransactWriteItem,
};
use metrics::counter;

use super::DynamoStore;
use super::items::Item;
use super::tables::Table;
use crate::domain::Millis;
use crate::identity_center::{aws_causes, unsent};
use crate::store::StoreError;

/// How often jit sends a write again after a conflict with another transaction or a throttled
/// partition.
const MOST_SENDS: u32 = 8;
const FIRST_PAUSE: Millis = Millis(25);
/// The most characters of an unknown answer that an error shows.
const MOST_SAID: usize = 200;
/// DynamoDB's limit for the items of one BatchGetItem.
const BATCH: usize = 100;

/// The result of a conditional write.
#[derive(Debug)]
pub(super) enum WriteResult {
    Yes,
    /// The condition did not hold. Carries the stored item, if there is one.
    No(Option<Item>),
}

/// The result of an update: the new item, or the stored item that did not meet the condition.
pub(super) enum Updated {
    To(Item),
    Not(Option<Item>),
}

/// The result of a transaction.
pub(super) enum Transacted {
    Yes,
    /// At least one condition did not hold. Carries the result of each, in the order of the
    /// actions.
    No(Vec<ConditionResult>),
}

/// The result of the condition of one action in a transaction.
#[derive(Debug)]
pub(super) enum ConditionResult {
    Held,
    /// Carries the stored item, if there is one and the action asked for it.
    Failed(Option<Item>),
}

impl DynamoStore {
    pub(super) async fn get(&self, table: Table, key: Item) -> Result<Option<Item>, StoreError> {
        let call = self
            .client
            .get_item()
            .table_name(self.names.of(table))
            .set_key(Some(key))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = counted("GetItem", call.send().await)?;
        note_read(answer.consumed_capacity());
        Ok(answer.item)
    }

    /// Returns the items that exist, in any order.
    pub(super) async fn get_all(
        &self,
        table: Table,
        keys: Vec<Item>,
    ) -> Result<Vec<Item>, StoreError> {
        let name = self.names.of(table);
        let mut found = Vec::with_capacity(keys.len());
        for batch in keys.chunks(BATCH) {
            let mut left = batch.to_vec();
            let mut sends = 0;
            while !left.is_empty() {
                let wanted = KeysAndAttributes::builder()
                    .set_keys(Some(left))
                    .consistent_read(true)
                    .build()?;
                let call = self
                    .client
                    .batch_get_item()
                    .request_items(name, wanted)
                    .return_consumed_capacity(ReturnConsumedCapacity::Total);
                let answer = counted("BatchGetItem", call.send().await)?;
                note_read(answer.consumed_capacity());
                let mut items = answer.responses.unwrap_or_default();
                found.extend(items.remove(name).unwrap_or_default());
                let mut unread = answer.unprocessed_keys.unwrap_or_default();
                left = unread.remove(name).map_or_else(Vec::new, |keys| keys.keys);
                if !left.is_empty() {
                    sends += 1;
                    self.pause(sends, || "DynamoDB throttles reads".into())
                        .await?;
                }
            }
        }
        Ok(found)
    }

    pub(super) fn query_of(&self, table: Table) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(self.names.of(table))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    pub(super) async fn query(&self, call: QueryFluentBuilder) -> Result<QueryOutput, StoreError> {
        let answer = counted("Query", call.send().await)?;
        note_read(answer.consumed_capacity());
        Ok(answer)
    }

    /// Reads a query to its last page; for results that are known to be short.
    pub(super) async fn query_all(
        &self,
        call: QueryFluentBuilder,
    ) -> Result<Vec<Item>, StoreError> {
        self.query_up_to(call, usize::MAX).await
    }

    /// Reads the first items of a query, in several calls if DynamoDB answers with fewer.
    pub(super) async fn query_up_to(
        &self,
        call: QueryFluentBuilder,
        limit: usize,
    ) -> Result<Vec<Item>, StoreError> {
        let (mut found, mut from) = (Vec::new(), None);
        while found.len() < limit {
            let left = i32::try_from(limit - found.len()).ok();
            let page = call.clone().set_limit(left).set_exclusive_start_key(from);
            let answer = self.query(page).await?;
            found.extend(answer.items.unwrap_or_default());
            from = answer.last_evaluated_key;
            if from.is_none() {
                break;
            }
        }
        Ok(found)
    }

    pub(super) async fn put(
        &self,
        table: Table,
        item: Item,
        condition: &Condition,
    ) -> Result<WriteResult, StoreError> {
        let call = self
            .client
            .put_item()
            .table_name(self.names.of(table))
            .set_item(Some(item))
            .set_condition_expression(condition.text())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let done = self.carried_out("PutItem", || call.clone().send()).await?;
        Ok(match done {
            Ok(answer) => {
                note_write(answer.consumed_capacity());
                WriteResult::Yes
            }
            Err(found) => WriteResult::No(found),
        })
    }

    pub(super) async fn update(
        &self,
        table: Table,
        key: Item,
        change: &ConditionalUpdate,
    ) -> Result<Updated, StoreError> {
        let call = self
            .client
            .update_item()
            .table_name(self.names.of(table))
            .set_key(Some(key))
            .update_expression(&change.text)
            .set_condition_expression(change.condition.text())
            .set_expression_attribute_names(change.condition.names())
            .set_expression_attribute_values(change.condition.values())
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let done = self
            .carried_out("UpdateItem", || call.clone().send())
            .await?;
        Ok(match done {
            Ok(answer) => {
                note_write(answer.consumed_capacity());
                Updated::To(answer.attributes.unwrap_or_default())
            }
            Err(found) => Updated::Not(found),
        })
    }

    pub(super) async fn delete(
        &self,
        table: Table,
        key: Item,
        condition: &Condition,
    ) -> Result<WriteResult, StoreError> {
        let call = self
            .client
            .delete_item()
            .table_name(self.names.of(table))
            .set_key(Some(key))
            .set_condition_expression(condition.text())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let done = self
            .carried_out("DeleteItem", || call.clone().send())
            .await?;
        Ok(match done {
            Ok(answer) => {
                note_write(answer.consumed_capacity());
                WriteResult::Yes
            }
            Err(found) => WriteResult::No(found),
        })
    }

    /// Sends one conditional write, and returns its answer or the stored item that did not meet
    /// the condition. Sends it again after a conflict with a transaction.
    async fn carried_out<T, E, F>(
        &self,
        operation: &'static str,
        send: impl Fn() -> F,
    ) -> Result<Result<T, Option<Item>>, StoreError>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: RefusedBy + ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut sends = 0;
        loop {
            let error = match send().await {
                Ok(answer) => {
                    count(operation, "ok");
                    return Ok(Ok(answer));
                }
                Err(error) => error,
            };
            match error.as_service_error().map(E::refused) {
                Some(Refused::Condition(found)) => {
                    count(operation, "refused");
                    return Ok(Err(found));
                }
                Some(Refused::Transaction) => {
                    count(operation, "conflict");
                    sends += 1;
                    self.pause(sends, || refusal(&error)).await?;
                }
                Some(Refused::SomethingElse) | None => return counted(operation, Err(error)),
            }
        }
    }

    /// Sends a transaction, which DynamoDB applies at most once: the token identifies a repeat
    /// after a lost answer. Sends it again after a passing error, under the same conditions.
    pub(super) async fn transact(
        &self,
        actions: &[TransactWriteItem],
    ) -> Result<Transacted, StoreError> {
        let token = self.clock.draw().to_string();
        // An earlier attempt of this transaction is still running and may be carried out.
        let mut may_run = false;
        let mut sends = 0;
        loop {
            let call = self
                .client
                .transact_write_items()
                .set_transact_items(Some(actions.to_vec()))
                .client_request_token(&token)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let error = match call.send().await {
                Ok(answer) => {
                    count("TransactWriteItems", "ok");
                    answer
                        .consumed_capacity()
                        .iter()
                        .for_each(|used| note_write(Some(used)));
                    return Ok(Transacted::Yes);
                }
                Err(error) => error,
            };
            let runs = matches!(
                error.as_service_error(),
                Some(TransactWriteItemsError::TransactionInProgressException(_))
            );
            may_run |= runs;
            let passing = match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                    let reasons = canceled.cancellation_reasons();
                    if let Some(checked) = refused_conditions(reasons) {
                        count("TransactWriteItems", "refused");
                        return Ok(Transacted::No(checked));
                    }
                    reasons.iter().any(is_passing)
                }
                _ => runs,
            };
            if !passing {
                let unsure = may_run || !is_refused(&error);
                let failed = counted("TransactWriteItems", Err(error));
                return failed.map_err(|why| match why {
                    StoreError::Unavailable(why) if unsure => StoreError::Unsure(why),
                    why => why,
                });
            }
            count("TransactWriteItems", "conflict");
            sends += 1;
            let paused = self.pause(sends, || refusal(&error)).await;
            paused.map_err(|why| match why {
                StoreError::Unavailable(why) if may_run => StoreError::Unsure(why),
                why => why,
            })?;
        }
    }

    /// Waits before the next attempt, longer each time and with jitter, so that concurrent
    /// writers do not collide again. Fails after `MOST_SENDS` attempts.
    pub(super) async fn pause(
        &self,
        sends: u32,
        why: impl FnOnce() -> String,
    ) -> Result<(), StoreError> {
        if sends >= MOST_SENDS {
            return Err(StoreError::Unavailable(why()));
        }
        let whole = FIRST_PAUSE.0 << sends;
        let chance = i64::from(self.clock.draw().as_fields().0) % whole;
        self.clock.sleep(Millis(whole / 2 + chance / 2)).await;
        Ok(())
    }
}

/// The reason for which a write was not applied.
enum Refused {
    Condition(Option<Item>),
    Transaction,
    SomethingElse,
}

trait RefusedBy {
    fn refused(&self) -> Refused;
}

macro_rules! refused_by {
    ($($error:ident),+) => {
        $(impl RefusedBy for $error {
            fn refused(&self) -> Refused {
                match self {
                    Self::ConditionalCheckFailedException(found) => Refused::Condition(found.item.clone()),
                    Self::TransactionConflictException(_) => Refused::Transaction,
                    _ => Refused::SomethingElse,
                }
            }
        })+
    };
}
refused_by!(PutItemError, UpdateItemError, DeleteItemError);

/// The condition of a write, with its names and values.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub text: String,
    names: HashMap<String, String>,
    values: Item,
}

/// An update expression with its condition.
#[derive(Clone, Debug)]
pub(super) struct ConditionalUpdate {
    pub text: String,
    pub condition: Condition,
}

impl Condition {
    pub fn that(text: &str) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub fn and(mut self, text: &str) -> Self {
        self.text = format!("{} AND {text}", self.text);
        self
    }

    /// Gives an attribute whose name is a reserved word of DynamoDB a placeholder.
    pub fn naming(mut self, short: &str, name: &str) -> Self {
        self.names.insert(short.into(), name.into());
        self
    }

    pub fn with(mut self, name: &str, value: aws_sdk_dynamodb::types::AttributeValue) -> Self {
        self.values.insert(name.into(), value);
        self
    }

    pub fn text(&self) -> Option<String> {
        Some(self.text.clone()).filter(|text| !text.is_empty())
    }

    pub fn names(&self) -> Option<HashMap<String, String>> {
        Some(self.names.clone()).filter(|names| !names.is_empty())
    }

    pub fn values(&self) -> Option<Item> {
        Some(self.values.clone()).filter(|values| !values.is_empty())
    }
}

fn is(reason: &CancellationReason, code: &str) -> bool {
    reason.code() == Some(code)
}

/// The result of each condition, if any failed.
fn refused_conditions(reasons: &[CancellationReason]) -> Option<Vec<ConditionResult>> {
    let failed = |reason: &CancellationReason| is(reason, "ConditionalCheckFailed");
    let checked = reasons.iter().map(|reason| match failed(reason) {
        true => ConditionResult::Failed(reason.item.clone()),
        false => ConditionResult::Held,
    });
    reasons.iter().any(failed).then(|| checked.collect())
}

/// Reports whether an error is passing, so that the same write can succeed later.
fn is_passing(reason: &CancellationReason) -> bool {
    [
        "TransactionConflict",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
    ]
    .iter()
    .any(|code| is(reason, code))
}

pub(super) fn counted<T, E>(
    operation: &'static str,
    answer: Result<T, SdkError<E>>,
) -> Result<T, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(answer) => {
            count(operation, "ok");
            Ok(answer)
        }
        Err(error) => {
            count(operation, "failed");
            Err(StoreError::Unavailable(refusal(&error)))
        }
    }
}

fn count(operation: &'static str, outcome: &'static str) {
    counter!("jit_store_calls_total", "operation" => operation, "outcome" => outcome).increment(1);
}

fn note_read<'c>(used: impl IntoIterator<Item = &'c ConsumedCapacity>) {
    note("read", used);
}

fn note_write<'c>(used: impl IntoIterator<Item = &'c ConsumedCapacity>) {
    note("write", used);
}

/// Counts in tenths, because a read may cost half a unit and a counter has whole numbers.
fn note<'c>(kind: &'static str, used: impl IntoIterator<Item = &'c ConsumedCapacity>) {
    let units: f64 = used
        .into_iter()
        .filter_map(ConsumedCapacity::capacity_units)
        .sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a call costs a few units, never less than none"
    )]
    counter!("jit_store_tenth_units_total", "kind" => kind).increment((units * 10.0) as u64);
}

/// Describes an error of DynamoDB, and what to do about it where that is known.
pub(super) fn refusal<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Some(answered) = error.as_service_error() else {
        return match unsent(error) {
            Some(why) => format!("jit cannot call DynamoDB: {why}"),
            None => format!("DynamoDB does not answer: {}", aws_causes(error)),
        };
    };
    let Some(code) = answered.code() else {
        return unnamed(error, answered.message());
    };
    let said = answered.message().unwrap_or("no message");
    let next = match code {
        "ResourceNotFoundException" => {
            "; `jit tables check` names the missing table or index, `jit tables create` makes it"
        }
        "AccessDeniedException" => "; the role needs what infra/iam-policy.json allows",
        _ => "",
    };
    format!("DynamoDB: {code}: {said}{next}")
}

/// Describes an error that names no error of DynamoDB: another server or a proxy may have answered.
fn unnamed<E>(error: &SdkError<E>, message: Option<&str>) -> String {
    let raw = error.raw_response();
    let status = raw.map_or(0, |raw| raw.status().as_u16());
    let body = raw.and_then(|raw| raw.body().bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    let words: Vec<&str> = message.unwrap_or(&body).split_whitespace().collect();
    let said = match words.join(" ") {
        none if none.is_empty() => "nothing else".to_owned(),
        said => said.chars().take(MOST_SAID).collect(),
    };
    format!(
        "the answer is not from DynamoDB: HTTP status {status} and {said}; check AWS_REGION and \
         AWS_ENDPOINT_URL_DYNAMODB"
    )
}

/// Reports whether DynamoDB refused the call and so changed nothing. After any other error the
/// change may have been made.
fn is_refused<E>(error: &SdkError<E>) -> bool {
    let answered = matches!(error, SdkError::ServiceError(_));
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    answered && status.is_some_and(|status| (400..500).contains(&status))
}

impl From<BuildError> for StoreError {
    fn from(why: BuildError) -> Self {
        Self::Unavailable(format!("a call to DynamoDB is incomplete: {why}"))
    }
}
