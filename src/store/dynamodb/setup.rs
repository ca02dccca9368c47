//! Creates the tables, and checks existing ones.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, GlobalSecondaryIndexDescription,
    IndexStatus, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    PointInTimeRecoveryStatus, Projection, ProjectionType, ScalarAttributeType, TableDescription,
    TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};

use super::DynamoStore;
use super::calls::counted;
use super::tables::{
    Attribute, AttributeKind, Definition, Index, Keeping, KeySchema, Shows, Table,
};
use crate::domain::Millis;
use crate::store::StoreError;

const LOOK_AGAIN: Millis = Millis(500);
/// How long jit waits for a table. DynamoDB creates a table in seconds, and adds an index to a
/// large table in minutes.
const TIMEOUT: Millis = Millis::minutes(10);

/// Whether `create_table` created the table or found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableResult {
    Now,
    Before,
}

/// A difference between a table and its definition, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub table: String,
    pub what: String,
}

impl DynamoStore {
    /// Creates a table unless it exists, and turns on recovery and TTL. It changes nothing else
    /// of an existing table; `check_table` reports the differences.
    pub async fn create_table(&self, table: Table) -> Result<TableResult, StoreError> {
        let made = match self.describe(table).await? {
            Some(_) => TableResult::Before,
            None => self.create(table).await?,
        };
        self.wait_until_active(table).await?;
        let definition = table.definition();
        if definition.keeping == Keeping::ForGood {
            self.keep_for_restoring(table).await?;
        }
        if let Some(attribute) = definition.forgets_by {
            self.forget_by(table, attribute).await?;
        }
        Ok(made)
    }

    /// Returns all differences between a table and its definition.
    pub async fn check_table(&self, table: Table) -> Result<Vec<Wrong>, StoreError> {
        let name = self.names.of(table);
        let wrong = |what: String| Wrong {
            table: name.to_owned(),
            what,
        };
        let Some(found) = self.describe(table).await? else {
            let what = "is not there: `jit tables create` makes it";
            return Ok(vec![wrong(what.into())]);
        };
        let definition = table.definition();
        let mut all: Vec<String> = differences(&definition, &found);
        if definition.keeping == Keeping::ForGood && !self.is_kept(table).await? {
            all.push("cannot be restored: turn on point-in-time recovery".into());
        }
        if let Some(attribute) = definition.forgets_by
            && self.forgets_by(table).await?.as_deref() != Some(attribute)
        {
            all.push(format!("grows for ever: turn on TTL by {attribute}"));
        }
        Ok(all.into_iter().map(wrong).collect())
    }

    async fn describe(&self, table: Table) -> Result<Option<TableDescription>, StoreError> {
        let name = self.names.of(table);
        let answer = self.client.describe_table().table_name(name).send().await;
        match answer {
            Err(error)
                if matches!(
                    error.as_service_error(),
                    Some(DescribeTableError::ResourceNotFoundException(_))
                ) =>
            {
                Ok(None)
            }
            answer => Ok(counted("DescribeTable", answer)?.table),
        }
    }

    async fn create(&self, table: Table) -> Result<TableResult, StoreError> {
        let definition = table.definition();
        let mut call = self
            .client
            .create_table()
            .table_name(self.names.of(table))
            .billing_mode(BillingMode::PayPerRequest)
            .deletion_protection_enabled(definition.keeping == Keeping::ForGood)
            .set_key_schema(Some(schema(definition.key)?));
        for attribute in attributes(&definition) {
            call = call.attribute_definitions(defined(attribute)?);
        }
        for index in definition.indexes {
            call = call.global_secondary_indexes(built(index)?);
        }
        match call.send().await {
            Err(error)
                if matches!(
                    error.as_service_error(),
                    Some(CreateTableError::ResourceInUseException(_))
                ) =>
            {
                Ok(TableResult::Before)
            }
            answer => counted("CreateTable", answer).map(|_| TableResult::Now),
        }
    }

    async fn wait_until_active(&self, table: Table) -> Result<(), StoreError> {
        let until = self.clock.now() + TIMEOUT;
        loop {
            let found = self.describe(table).await?;
            if found.as_ref().is_some_and(is_active) {
                return Ok(());
            }
            let now = self.clock.now();
            if now >= until {
                let name = self.names.of(table);
                let why = format!(
                    "{name} is not active yet; run `jit tables create` again in a few minutes"
                );
                return Err(StoreError::Unavailable(why));
            }
            self.clock.wait_until(now + LOOK_AGAIN).await;
        }
    }

    async fn keep_for_restoring(&self, table: Table) -> Result<(), StoreError> {
        if self.is_kept(table).await? {
            return Ok(());
        }
        let on = PointInTimeRecoverySpecification::builder()
            .point_in_time_recovery_enabled(true)
            .build()?;
        let call = self
            .client
            .update_continuous_backups()
            .table_name(self.names.of(table))
            .point_in_time_recovery_specification(on);
        let until = self.clock.now() + TIMEOUT;
        loop {
            let answer = call.clone().send().await;
            let now = self.clock.now();
            match answer {
                // A new table accepts this call only after a short time.
                Err(error) if is_too_early(&error) && now < until => {
                    self.clock.wait_until(now + LOOK_AGAIN).await;
                }
                answer => return counted("UpdateContinuousBackups", answer).map(drop),
            }
        }
    }

    async fn is_kept(&self, table: Table) -> Result<bool, StoreError> {
        let call = self
            .client
            .describe_continuous_backups()
            .table_name(self.names.of(table));
        let answer = match call.send().await {
            // DynamoDB Local has no backups and needs none.
            Err(error) if is_unknown_there(&error) => return Ok(true),
            answer => counted("DescribeContinuousBackups", answer)?,
        };
        let status = answer
            .continuous_backups_description
            .and_then(|backups| backups.point_in_time_recovery_description)
            .and_then(|recovery| recovery.point_in_time_recovery_status);
        Ok(status == Some(PointInTimeRecoveryStatus::Enabled))
    }

    async fn forget_by(&self, table: Table, attribute: &str) -> Result<(), StoreError> {
        if self.forgets_by(table).await?.as_deref() == Some(attribute) {
            return Ok(());
        }
        let by = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name(attribute)
            .build()?;
        let call = self
            .client
            .update_time_to_live()
            .table_name(self.names.of(table))
            .time_to_live_specification(by);
        counted("UpdateTimeToLive", call.send().await).map(drop)
    }

    async fn forgets_by(&self, table: Table) -> Result<Option<String>, StoreError> {
        let call = self
            .client
            .describe_time_to_live()
            .table_name(self.names.of(table));
        let answer = counted("DescribeTimeToLive", call.send().await)?;
        let found = answer.time_to_live_description;
        let on = found.filter(|ttl| {
            matches!(
                ttl.time_to_live_status,
                Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
            )
        });
        Ok(on.and_then(|ttl| ttl.attribute_name))
    }
}

fn is_too_early(error: &impl ProvideErrorMetadata) -> bool {
    error.code() == Some("ContinuousBackupsUnavailableException")
}

fn is_unknown_there(error: &impl ProvideErrorMetadata) -> bool {
    matches!(
        error.code(),
        Some("UnknownOperationException" | "UnknownOperation")
    )
}

fn is_active(found: &TableDescription) -> bool {
    let indexes = found.global_secondary_indexes();
    found.table_status == Some(TableStatus::Active)
        && indexes
            .iter()
            .all(|index| index.index_status == Some(IndexStatus::Active))
}

/// Returns each attribute that is part of a key, once.
fn attributes(definition: &Definition) -> Vec<Attribute> {
    let keys = definition.indexes.iter().map(|index| index.key);
    let mut all: Vec<Attribute> = Vec::new();
    for attribute in std::iter::once(definition.key)
        .chain(keys)
        .flat_map(KeySchema::attributes)
    {
        if !all.contains(&attribute) {
            all.push(attribute);
        }
    }
    all
}

fn defined(attribute: Attribute) -> Result<AttributeDefinition, StoreError> {
    AttributeDefinition::builder()
        .attribute_name(attribute.name)
        .attribute_type(match attribute.kind {
            AttributeKind::Text => ScalarAttributeType::S,
            AttributeKind::Number => ScalarAttributeType::N,
        })
        .build()
        .map_err(StoreError::from)
}

fn schema(key: KeySchema) -> Result<Vec<KeySchemaElement>, StoreError> {
    key.attributes()
        .zip([KeyType::Hash, KeyType::Range])
        .map(|(attribute, kind)| {
            KeySchemaElement::builder()
                .attribute_name(attribute.name)
                .key_type(kind)
                .build()
                .map_err(StoreError::from)
        })
        .collect()
}

fn built(index: &Index) -> Result<GlobalSecondaryIndex, StoreError> {
    GlobalSecondaryIndex::builder()
        .index_name(index.name)
        .set_key_schema(Some(schema(index.key)?))
        .projection(projection(index.shows))
        .build()
        .map_err(StoreError::from)
}

fn projection(shows: Shows) -> Projection {
    let projection = Projection::builder();
    match shows {
        Shows::Keys => projection.projection_type(ProjectionType::KeysOnly),
        Shows::Everything => projection.projection_type(ProjectionType::All),
        Shows::Also(names) => projection
            .projection_type(ProjectionType::Include)
            .set_non_key_attributes(Some(names.iter().map(ToString::to_string).collect())),
    }
    .build()
}

fn differences(definition: &Definition, found: &TableDescription) -> Vec<String> {
    let mut wrong = Vec::new();
    let types = found.attribute_definitions();
    if let Some(why) = key_difference(definition.key, found.key_schema(), types) {
        wrong.push(format!(
            "{why}: it is not a table of jit; set another name in [store.tables]"
        ));
    }
    for index in definition.indexes {
        let name = index.name;
        let mut all = found.global_secondary_indexes().iter();
        match all.find(|found| found.index_name() == Some(name)) {
            None => wrong.push(format!(
                "lacks the index {name}: add it as defined in infra/"
            )),
            Some(found) => {
                let why = key_difference(index.key, found.key_schema(), types)
                    .or_else(|| shown_difference(index.shows, found));
                wrong.extend(
                    why.map(|why| format!("index {name} {why}: delete it and create it again")),
                );
            }
        }
    }
    let is_protected = found.deletion_protection_enabled == Some(true);
    if definition.keeping == Keeping::ForGood && !is_protected {
        wrong.push("can be deleted by mistake: turn on deletion protection".into());
    }
    let billing = found.billing_mode_summary.as_ref();
    let billing = billing.and_then(|summary| summary.billing_mode.clone());
    if billing != Some(BillingMode::PayPerRequest) {
        let why = "has provisioned capacity, which peak load exceeds: switch it to on-demand";
        wrong.push(why.into());
    }
    wrong
}

fn key_difference(
    key: KeySchema,
    found: &[KeySchemaElement],
    types: &[AttributeDefinition],
) -> Option<String> {
    let kind = |name: &str| {
        let mut types = types.iter();
        let found = types.find(|defined| defined.attribute_name() == name)?;
        Some(found.attribute_type().clone())
    };
    let wanted: Vec<String> = key
        .attributes()
        .map(|attribute| match attribute.kind {
            AttributeKind::Text => format!("{} (S)", attribute.name),
            AttributeKind::Number => format!("{} (N)", attribute.name),
        })
        .collect();
    let there: Vec<String> = found
        .iter()
        .map(|element| {
            let name = element.attribute_name();
            let kind = kind(name).map_or_else(|| "?".into(), |kind| kind.to_string());
            format!("{name} ({kind})")
        })
        .collect();
    let (wanted, there) = (wanted.join(", "), there.join(", "));
    (wanted != there).then(|| format!("has the key {there} instead of {wanted}"))
}

fn shown_difference(shows: Shows, found: &GlobalSecondaryIndexDescription) -> Option<String> {
    let found = found.projection()?;
    let wanted = projection(shows);
    let names = |projection: &Projection| {
        let mut names = projection.non_key_attributes().to_vec();
        names.sort();
        names
    };
    let same =
        found.projection_type() == wanted.projection_type() && names(found) == names(&wanted);
    (!same).then(|| "does not project the attributes that jit reads".to_owned())
}
