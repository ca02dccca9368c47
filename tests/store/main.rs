//! Every store is held to the same promises: one named test for each promise and store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod build;
#[path = "../common/cast.rs"]
mod cast;
#[macro_use]
mod conformance;
mod memory;
mod sqlite;

use async_trait::async_trait;
use conformance::Subject;
use jit::domain::{RequestId, Status, Timestamp};
use jit::store::Store;
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
    /// As an operator does it, with a client of their own.
    async fn write_status(&self, id: RequestId, said: &str, at: Option<Timestamp>) {
        let db = rusqlite::Connection::open(self.folder.path().join("jit.db")).unwrap();
        let sql = "UPDATE jit_requests SET status = ?2, revoked_at = ?3 WHERE request_id = ?1";
        let at = at.map(|at| at.to_string());
        assert_eq!(db.execute(sql, (id.to_string(), said, at)), Ok(1));
    }
}

conformance!(in_memory, InMemory);
conformance!(in_one_file, InOneFile);
