//! The same tests run on every store: one named test for each promise of `Store` and each store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod build;
mod checked_ends;
mod configure;
#[path = "../common/fixtures.rs"]
mod fixtures;
#[macro_use]
mod conformance;
#[path = "../common/dynamo/mod.rs"]
mod dynamo;
mod dynamodb;
mod memory;
mod on_shown;
mod other_key;
mod portable;
mod sqlite;
mod unreadable;
mod verify;
#[path = "../common/wire.rs"]
mod wire;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use conformance::Subject;
use dynamo::Tables;
use dynamo::proxy::{Mood, Proxy};
use jit::domain::{RequestId, Status, Timestamp};
use jit::store::Store;
use jit::store::dynamodb::{DynamoStore, Table};
use jit::store::sqlite::SqliteStore;
use memory::MemoryStore;

struct InMemory(MemoryStore);

#[async_trait]
impl Subject for InMemory {
    async fn fresh() -> Self {
        Self(MemoryStore::default())
    }
    fn store(&self) -> &dyn Store {
        &self.0
    }
    async fn write_status(&self, id: RequestId, said: &str, at: Option<Timestamp>) {
        self.0
            .write_status(id, said.parse().unwrap_or(Status::Error), at);
    }
}

struct InOneFile {
    store: SqliteStore,
    folder: tempfile::TempDir,
}

#[async_trait]
impl Subject for InOneFile {
    async fn fresh() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
        Self { store, folder }
    }
    fn store(&self) -> &dyn Store {
        &self.store
    }
    /// Writes the status as an operator does, with another SQLite client.
    async fn write_status(&self, id: RequestId, said: &str, at: Option<Timestamp>) {
        let db = rusqlite::Connection::open(self.folder.path().join("jit.db")).unwrap();
        let sql = "UPDATE jit_requests SET status = ?2, revoked_at = ?3 WHERE request_id = ?1";
        let at = at.map(|at| at.to_string());
        assert_eq!(db.execute(sql, (id.to_string(), said, at)), Ok(1));
    }
}

struct InDynamo {
    store: DynamoStore,
    tables: Tables,
}

impl InDynamo {
    /// A store behind a proxy with faults.
    async fn through(mood: Mood) -> Self {
        let tables = Tables::fresh().await;
        let proxy = Proxy::open(&tables.url, mood).await;
        let store = tables.through(&proxy.url).store();
        Self { store, tables }
    }

    /// Writes the status as the runbook does.
    async fn update(&self, id: RequestId, said: &str, at: Option<Timestamp>) {
        let text = |text: String| AttributeValue::S(text);
        let at = at.map_or_else(String::new, |at| at.to_string());
        let call = self.tables.client().update_item();
        call.table_name(self.tables.name(Table::Requests))
            .key("request_id", text(id.to_string()))
            .update_expression("SET #s = :s, revoked_at = :t")
            .expression_attribute_names("#s", "status")
            .expression_attribute_values(":s", text(said.to_owned()))
            .expression_attribute_values(":t", text(at))
            .send()
            .await
            .unwrap();
    }
}

/// The same store, behind a proxy in some mode.
macro_rules! in_dynamodb {
    ($name:ident: $fresh:expr) => {
        struct $name(InDynamo);

        #[async_trait]
        impl Subject for $name {
            async fn fresh() -> Self {
                Self($fresh.await)
            }
            fn store(&self) -> &dyn Store {
                &self.0.store
            }
            async fn write_status(&self, id: RequestId, said: &str, at: Option<Timestamp>) {
                self.0.update(id, said, at).await;
            }
        }
    };
}

in_dynamodb!(Well: InDynamo::through(Mood::Well));
in_dynamodb!(LosesFirstAnswers: InDynamo::through(Mood::LosesFirstAnswers));
in_dynamodb!(RefusesFirstCalls: InDynamo::through(Mood::RefusesFirstCalls));

conformance!(in_memory, InMemory);
conformance!(in_one_file, InOneFile);
conformance!(in_dynamodb, Well);
conformance!(in_dynamodb_with_lost_answers, LosesFirstAnswers);
conformance!(in_dynamodb_with_refused_calls, RefusesFirstCalls);
