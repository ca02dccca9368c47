//! The store in one SQLite file, which is the default of `jit serve`.
//!
//! One thread (`writer`) commits all queued writes with one wait for the disk, and `checkpoint`
//! empties the write-ahead log; reads use connections of their own (`reader`). `writes` contains
//! the statements of a commit, and `queries` those of the reads. Spent nonces have their own log
//! (`nonces`), and `unchanged` avoids a second read of unchanged requests. Only this module
//! contains SQL.

mod checkpoint;
mod fault;
mod head_log;
mod inspect;
mod nonces;
mod notices;
#[cfg(test)]
mod plans;
mod portable;
mod queries;
mod reader;
mod rows;
mod schema;
mod unchanged;
mod writer;
mod writes;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub use schema::OpenError;

use super::{
    Answered, AuditFilter, ClaimEnd, ClaimedNotice, Commit, Cursor, Due, Filter, Found, Freshness,
    Gauges, Head, Inspected, Left, Nonce, NoticePlace, PendingOf, Store, StoreError, Taken,
};
use crate::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Event, EventPlace, HeadEntry, Holding,
    HoldingKey, Lane, Lease, LeaseToken, Notice, Request, RequestId, Timestamp,
};
use checkpoint::Checkpointer;
use nonces::Nonces;
use reader::Readers;
use unchanged::Unchanged;
use writer::Writer;
use writes::{Prepared, Tidied};

pub struct SqliteStore {
    readers: Readers,
    writer_parts: Option<WriterParts>,
}

/// The parts of a process that may write. The order of the fields is the order in which they
/// are dropped: the writer must finish its last write before anything else is closed.
struct WriterParts {
    writer: Writer,
    unchanged: Unchanged,
    server_parts: Option<ServerParts>,
}

/// The parts that only the serving process has.
struct ServerParts {
    nonces: Arc<Nonces>,
    _lock: schema::Lock,
}

impl SqliteStore {
    /// Opens the file for this process only, and creates it if it does not exist.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = schema::Lock::take(path)?;
        let db = schema::open_for_writing(path)?;
        let cannot = |why| OpenError::CannotOpen {
            path: path.into(),
            why,
        };
        let nonces = Arc::new(Nonces::open(path).map_err(cannot)?);
        nonces::ownership::check(&db, &nonces).map_err(cannot)?;
        let failed = |why: std::io::Error| cannot(StoreError::Unavailable(why.to_string()));
        let unchanged = Unchanged::open(path).map_err(failed)?;
        // The nonces must be durable before the commit: otherwise a call whose change
        // survived a power failure could be replayed.
        let spent = nonces.clone();
        let log = Checkpointer::start(schema::open_beside(path)?).map_err(failed)?;
        let writer =
            Writer::start(db, move || spent.sync(), move || log.request()).map_err(failed)?;
        Ok(Self {
            readers: Readers::new(path.into()),
            writer_parts: Some(WriterParts {
                writer,
                unchanged,
                server_parts: Some(ServerParts {
                    nonces,
                    _lock: lock,
                }),
            }),
        })
    }

    /// Opens a file for an operator's command: for this process only if no server uses the file,
    /// else beside the server. Leases then decide between the two, as between replicas.
    pub fn open_for_operator(path: &Path) -> Result<Self, OpenError> {
        schema::check_for_reading(path)?;
        match Self::open(path) {
            Err(OpenError::InUse { .. }) => Self::open_beside(path),
            opened => opened,
        }
    }

    /// Opens the file beside a server. This process spends no nonces, because the memory of the
    /// server decides about them.
    fn open_beside(path: &Path) -> Result<Self, OpenError> {
        let db = schema::open_beside(path)?;
        let failed = |why: std::io::Error| OpenError::CannotOpen {
            path: path.into(),
            why: StoreError::Unavailable(why.to_string()),
        };
        let unchanged = Unchanged::open(path).map_err(failed)?;
        let writer = Writer::start(db, || Ok(()), || {}).map_err(failed)?;
        Ok(Self {
            readers: Readers::new(path.into()),
            writer_parts: Some(WriterParts {
                writer,
                unchanged,
                server_parts: None,
            }),
        })
    }

    /// Opens a file that a server may be using for reading only; every write fails.
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        let readers = Readers::new(path.into());
        readers.give_back(schema::check_for_reading(path)?);
        Ok(Self {
            readers,
            writer_parts: None,
        })
    }

    /// Writes a consistent copy of the store into another file; writes may go on meanwhile.
    /// The file is new and empty.
    pub async fn back_up_to(&self, file: &Path) -> Result<(), StoreError> {
        let file = file.to_owned();
        let copy = move |db: &rusqlite::Connection| {
            // SQLite writes into an empty file, which keeps its mode.
            db.execute("VACUUM INTO ?1", [&file.to_string_lossy()])?;
            // Only a file that survives a power failure is a backup.
            let synced = std::fs::File::open(&file).and_then(|file| file.sync_all());
            synced.map_err(|why| StoreError::Unavailable(why.to_string()))
        };
        self.readers.scan(copy).await
    }

    /// Runs statements on the writing connection, so that a test can simulate a full or
    /// read-only disk.
    #[doc(hidden)]
    pub async fn on_writer(&self, sql: &'static str) -> Result<(), StoreError> {
        self.write(move |db| Ok(db.execute_batch(sql)?)).await
    }

    async fn write<W, T>(&self, work: W) -> Result<T, StoreError>
    where
        W: Fn(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.writer_parts()?.writer.write(work).await
    }

    fn writer_parts(&self) -> Result<&WriterParts, StoreError> {
        let why = || StoreError::Unavailable("it was opened for reading only".into());
        self.writer_parts.as_ref().ok_or_else(why)
    }

    fn server_parts(&self) -> Result<&ServerParts, StoreError> {
        let why = || StoreError::Unavailable("another jit process is serving it".into());
        self.writer_parts()?.server_parts.as_ref().ok_or_else(why)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        let read = || self.readers.query(|db| queries::request(db, id));
        match &self.writer_parts {
            Some(writer_parts) => writer_parts.unchanged.request(id, read),
            None => read(),
        }
    }

    async fn holding(&self, key: &HoldingKey) -> Result<Option<Holding>, StoreError> {
        self.readers.query(|db| queries::holding(db, key))
    }

    async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError> {
        self.readers.query(|db| queries::binding(db, account))
    }

    async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, StoreError> {
        self.readers.query(|db| queries::channel(db, id))
    }

    async fn bindings_page(
        &self,
        channel: &ChannelId,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        self.readers
            .query(|db| queries::bindings(db, channel, after, limit))
    }

    async fn bound(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        self.readers.query(|db| queries::bound(db, after, limit))
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        let Commit { writes, nonce } = commit;
        let prepared = writes.into_iter().map(Prepared::new);
        let writes: Vec<Prepared> = prepared.collect::<Result<_, _>>()?;
        let Some(nonce) = nonce else {
            return self.write(move |db| writes::commit(db, &writes)).await;
        };
        // The nonce is spent in memory first, so a concurrent call with it is refused. The job
        // writes it to the log, and no batch commits before the log is on the disk.
        let nonces = self.server_parts()?.nonces.clone();
        let Some(claimed) = nonces.claim(&nonce)? else {
            return Err(StoreError::Replayed);
        };
        let (log, of_job) = (nonces.clone(), claimed.clone());
        let written = self.write(move |db| {
            log.write(&of_job)?;
            writes::commit(db, &writes)
        });
        let written = written.await;
        // A change that failed does not use up its nonce.
        if written
            .as_ref()
            .is_err_and(|why| !matches!(why, StoreError::Unsure(_)))
        {
            nonces.give_back(&claimed);
        }
        written
    }

    async fn answered(&self, key: &str, now: Timestamp) -> Result<Option<Answered>, StoreError> {
        self.readers.query(|db| queries::answered(db, key, now))
    }

    async fn spend_nonce(&self, nonce: &Nonce) -> Result<Freshness, StoreError> {
        let nonces = &self.server_parts()?.nonces;
        let Some(claimed) = nonces.claim(nonce)? else {
            return Ok(Freshness::Spent);
        };
        // The other calls that have arrived claim their nonces too, and one write is for all.
        tokio::task::yield_now().await;
        nonces.write(&claimed)?;
        Ok(Freshness::Fresh)
    }

    async fn take_lease(
        &self,
        name: &str,
        lease: Lease,
        lapsed: Option<Lease>,
    ) -> Result<Taken, StoreError> {
        let name = name.to_owned();
        self.write(move |db| writes::take_lease(db, &name, lease, lapsed))
            .await
    }

    async fn give_lease(&self, name: &str, token: LeaseToken) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |db| writes::give_lease(db, &name, token))
            .await
    }

    async fn due(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError> {
        self.readers.query(|db| queries::due(db, lane, now, limit))
    }

    async fn claim_notices(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError> {
        // Usually no notice is due, and a read finds that out without a write.
        let next = self.readers.query(queries::next_notice)?;
        if next.is_none_or(|next| next > now) {
            let ready = Vec::new();
            return Ok(Due { ready, next });
        }
        self.write(move |db| notices::claim_notices(db, now, lease, lease_until, limit))
            .await
    }

    async fn claim_notice(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError> {
        self.write(move |db| notices::claim_notice(db, id, now, lease, lease_until))
            .await
    }

    async fn undelivered(&self, id: RequestId) -> Result<Vec<Notice>, StoreError> {
        self.readers.query(|db| notices::undelivered(db, id))
    }

    async fn end_pauses(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |db| notices::end_pauses(db, now)).await
    }

    async fn end_claim(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        end: ClaimEnd,
    ) -> Result<Left, StoreError> {
        self.write(move |db| writes::end_claim(db, place, lease, &end))
            .await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        let (filter, after) = (filter.clone(), after.copied());
        self.readers
            .scan(move |db| queries::list(db, &filter, after.as_ref(), limit))
            .await
    }

    async fn audit_page(
        &self,
        key: &AuditKey,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let key = key.clone();
        self.readers
            .scan(move |db| queries::audit(db, &key, after, limit))
            .await
    }

    async fn count_pending(&self, of: &PendingOf, limit: usize) -> Result<usize, StoreError> {
        self.readers
            .query(|db| queries::count_pending(db, of, limit))
    }

    async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError> {
        let (filter, after) = (filter.clone(), after.map(str::to_owned));
        self.readers
            .scan(move |db| queries::export(db, &filter, after.as_deref(), limit))
            .await
    }

    async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        let after = after.cloned();
        self.readers
            .scan(move |db| queries::heads(db, after.as_ref(), limit))
            .await
    }

    async fn inspect(&self, key: &AuditKey) -> Result<Inspected, StoreError> {
        self.readers.query(|db| inspect::inspect(db, key))
    }

    async fn audit_keys(&self) -> Result<BTreeSet<String>, StoreError> {
        self.readers.scan(inspect::audit_keys).await
    }

    async fn last_head_entry(&self) -> Result<Option<HeadEntry>, StoreError> {
        self.readers.query(head_log::last)
    }

    async fn head_entries(&self, after: u64, limit: usize) -> Result<Vec<HeadEntry>, StoreError> {
        self.readers
            .scan(move |db| head_log::entries(db, after, limit))
            .await
    }

    async fn add_head_entry(&self, entry: &HeadEntry) -> Result<(), StoreError> {
        let (number, doc) = (entry.number, rows::doc_of(entry)?);
        self.write(move |db| head_log::add(db, number, &doc)).await
    }

    async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.readers.query(portable::copied_at)
    }

    async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        self.readers.scan(move |db| queries::gauges(db, now)).await
    }

    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        self.server_parts()?.nonces.tidy(now)?;
        while let Tidied::MoreIsLeft = self.write(move |db| writes::tidy(db, now)).await? {}
        Ok(())
    }
}
