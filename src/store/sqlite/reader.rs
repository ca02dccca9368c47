//! The read-only connections. With SQLite's write-ahead log they read while the writer writes,
//! and a read that starts after a commit sees it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::schema;
use crate::store::StoreError;

/// The number of connections that stay open. More concurrent reads open further connections
/// and close them again.
const KEPT: usize = 8;

#[derive(Clone)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Arc::default(),
        }
    }

    /// Reads a few rows by their key. This takes microseconds, so it runs on the caller's thread.
    pub fn query<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let db = match self.take() {
            Some(db) => db,
            None => schema::open_for_reading(&self.path)?,
        };
        let found = read(&db)?;
        // After an error the connection is dropped instead, and the next read opens a new one.
        self.give_back(db);
        Ok(found)
    }

    /// Reads possibly many rows, on a thread for blocking work.
    pub async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.clone();
        tokio::task::spawn_blocking(move || readers.query(read))
            .await
            .unwrap_or_else(|why| Err(StoreError::Unavailable(why.to_string())))
    }

    pub fn give_back(&self, db: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(db);
        }
    }

    fn take(&self) -> Option<Connection> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }
}
