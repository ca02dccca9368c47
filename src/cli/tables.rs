//! `jit tables`: creates and checks the DynamoDB tables.

use std::sync::Arc;

use serde_json::{Value, json};

use super::output::table;
use super::serve::failed;
use super::{CliContext, Failure};
use crate::clock::SystemClock;
use crate::config::StoreKind;
use crate::store::dynamodb::setup::{TableResult, Wrong};
use crate::store::dynamodb::{DynamoStore, Table};

pub(super) async fn create(context: &CliContext) -> Result<(), Failure> {
    let store = store(context).await?;
    let mut rows = Vec::new();
    for table in Table::ALL {
        let result = store.create_table(table).await.map_err(failed)?;
        rows.push((store.names().of(table), result));
    }
    let value: Vec<Value> = rows
        .iter()
        .map(|(name, result)| json!({"table": name, "made": *result == TableResult::Now}))
        .collect();
    let row = |(name, result): &(&str, TableResult)| {
        let told = match result {
            TableResult::Now => "created",
            TableResult::Before => "exists already",
        };
        vec![(*name).to_owned(), told.to_owned()]
    };
    let lines = || table(&["TABLE", ""], &rows.iter().map(row).collect::<Vec<_>>());
    context.output.print(lines, &json!({ "tables": value }))
}

pub(super) async fn check(context: &CliContext) -> Result<(), Failure> {
    let store = store(context).await?;
    let mut all: Vec<Wrong> = Vec::new();
    for table in Table::ALL {
        all.extend(store.check_table(table).await.map_err(failed)?);
    }
    let wrong: Vec<Value> = all
        .iter()
        .map(|wrong| json!({"table": wrong.table, "what": wrong.what}))
        .collect();
    let value = json!({"ok": all.is_empty(), "wrong": wrong});
    let lines = || match all.is_empty() {
        true => format!("all {} tables are correct", Table::ALL.len()),
        false => {
            let lines = all
                .iter()
                .map(|wrong| format!("{} {}", wrong.table, wrong.what));
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    context.output.print(lines, &value)?;
    match all.len() {
        0 => Ok(()),
        1 => Err(Failure::Failed(
            "1 problem: correct it, then run jit tables check again".into(),
        )),
        many => Err(Failure::Failed(format!(
            "{many} problems: correct them, then run jit tables check again"
        ))),
    }
}

async fn store(context: &CliContext) -> Result<DynamoStore, Failure> {
    let store = context.config_without_secrets()?.store;
    match store.kind {
        StoreKind::Dynamodb => Ok(DynamoStore::connect(store.tables, Arc::new(SystemClock)).await),
        StoreKind::Sqlite => {
            let path = store.path.display();
            let why = format!(
                "the store is the SQLite file {path}, which needs no tables: set store.kind = \"dynamodb\" first"
            );
            Err(Failure::Usage(why))
        }
    }
}
