//! A cache of requests, which is valid until the next commit of any process.
//!
//! The index of SQLite's write-ahead log is a file that all processes share, and its first
//! bytes change with every commit (sqlite.org/walformat.html, 2.2). While they are the same as
//! before a read, a second read would find the same record. So jit sees an operator's own
//! statement as soon as one of its own commits.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{Request, RequestId};
use crate::store::StoreError;

/// The header of the index. SQLite writes it last in a commit.
type IndexHeader = [u8; 48];

/// The largest number of cached requests; only lists read more.
const MOST: usize = 1024;

pub(super) struct Unchanged {
    /// This handle stays open until no connection is left: when a process closes any handle of
    /// the file, it loses SQLite's locks on it.
    index: File,
    seen: Mutex<Cached>,
}

struct Cached {
    state: IndexHeader,
    requests: HashMap<RequestId, Arc<Request>>,
}

impl Unchanged {
    /// Opens the index. A connection must be open, because SQLite deletes the index otherwise.
    pub fn open(store: &Path) -> io::Result<Self> {
        let mut path = store.as_os_str().to_owned();
        path.push("-shm");
        let index = File::open(path)?;
        let seen = Mutex::new(Cached {
            state: [0; 48],
            requests: HashMap::new(),
        });
        Ok(Self { index, seen })
    }

    pub fn request(
        &self,
        id: RequestId,
        read: impl FnOnce() -> Result<Option<Request>, StoreError>,
    ) -> Result<Option<Request>, StoreError> {
        // The state is read before the record, so a cached record is never older than its state.
        let state = self.state()?;
        if let Some(known) = self.seen().find(&state, id) {
            return Ok(Some(Request::clone(&known)));
        }
        let found = read()?;
        if let Some(request) = &found {
            let request = Arc::new(request.clone());
            self.seen().remember(state, id, request);
        }
        Ok(found)
    }

    fn state(&self) -> Result<IndexHeader, StoreError> {
        let mut state = [0; 48];
        match self.index.read_exact_at(&mut state, 0) {
            Ok(()) => Ok(state),
            Err(why) => Err(StoreError::Unavailable(format!("its WAL index: {why}"))),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Cached> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cached {
    fn find(&self, state: &IndexHeader, id: RequestId) -> Option<Arc<Request>> {
        let known = self.requests.get(&id)?;
        (self.state == *state).then(|| known.clone())
    }

    fn remember(&mut self, state: IndexHeader, id: RequestId, request: Arc<Request>) {
        if self.state != state || self.requests.len() >= MOST {
            self.requests.clear();
            self.state = state;
        }
        self.requests.insert(id, request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::record;

    /// An index file that a test changes in the way of a commit.
    fn index() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("jit.db");
        std::fs::write(folder.path().join("jit.db-shm"), [0; 48]).unwrap();
        (folder, store)
    }

    fn commit(store: &Path, number: u8) {
        let mut index = store.as_os_str().to_owned();
        index.push("-shm");
        std::fs::write(index, [number; 48]).unwrap();
    }

    #[test]
    fn a_commit_during_a_read_invalidates_the_cached_record() {
        let (_folder, store) = index();
        let unchanged = Unchanged::open(&store).unwrap();
        let old = record("Pending").request;
        let new = old.at_revision(old.version.revision + 1);
        let read = unchanged.request(old.id, || {
            let found = old.clone();
            // Another process commits after the row was read and before it is cached.
            commit(&store, 1);
            Ok(Some(found))
        });
        assert_eq!(read, Ok(Some(old.clone())));
        let read = unchanged.request(old.id, || Ok(Some(new.clone())));
        assert_eq!(read, Ok(Some(new)));
    }

    #[test]
    fn an_unchanged_request_is_read_once() {
        let (_folder, store) = index();
        let unchanged = Unchanged::open(&store).unwrap();
        let known = record("Pending").request;
        for _ in 0..2 {
            let read = unchanged.request(known.id, || Ok(Some(known.clone())));
            assert_eq!(read, Ok(Some(known.clone())));
        }
        let read = unchanged.request(known.id, || panic!("it was read again"));
        assert_eq!(read, Ok(Some(known)));
    }
}
