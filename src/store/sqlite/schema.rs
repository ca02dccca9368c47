//! Opens the file: its lock, its schema and its connections.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::nonces::NONCE_LOGS;
use super::{queries, rows, writes};
use crate::domain::Request;
use crate::files;
use crate::store::StoreError;

/// The migrations, in order. A file after migration *n* has `user_version` *n*. A released
/// migration is never changed; a change of the schema needs a new one.
const MIGRATIONS: &[(u32, &str)] = &[
    (1, include_str!("schema_1.sql")),
    (2, include_str!("schema_2.sql")),
    (3, include_str!("schema_3.sql")),
    (4, include_str!("schema_4.sql")),
    (5, include_str!("schema_5.sql")),
];
const KNOWN: u32 = 5;

/// How long a statement waits for the lock of an operator's own statement before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// FULL: a commit survives a power failure, and not only a crash of the process. `checkpoint`
/// copies the log into the file; the writer does it only when the log has become large.
const DURABLE: &str = "PRAGMA synchronous = FULL;
     PRAGMA wal_autocheckpoint = 16000; PRAGMA journal_size_limit = 67108864";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{} is in use by another jit: stop that one, or give this one a store.path of its own",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error("{} cannot be locked: {why}", path.display())]
    CannotLock { path: PathBuf, why: io::Error },
    #[error(
        "{} was written by a newer jit (schema {found}, this one knows {known}): upgrade jit",
        path.display()
    )]
    Newer {
        path: PathBuf,
        /// The schema of the file.
        found: u32,
        /// The schema that this version of jit writes.
        known: u32,
    },
    #[error(
        "{} was written by an older jit (schema {found}, this one wants {known}): \
         start `jit serve` on it once",
        path.display()
    )]
    Older {
        path: PathBuf,
        /// The schema of the file.
        found: u32,
        /// The schema that this version of jit writes.
        known: u32,
    },
    #[error("{} may only be read: make it and its folder writable for this user", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} cannot be opened: {why}", path.display())]
    CannotOpen { path: PathBuf, why: StoreError },
}

/// The lock that makes this process the only jit on a file. It ends with the process, even
/// after a crash.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let name = path.with_added_extension("lock");
        let cannot = |why| OpenError::CannotLock {
            path: name.clone(),
            why,
        };
        let mut beside = files::of_sqlite(path);
        beside.extend(NONCE_LOGS.map(|log| path.with_added_extension(log)));
        beside.push(name.clone());
        files::tighten(&beside);
        let file = files::options()
            .create(true)
            .append(true)
            .open(&name)
            .map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
            Err(TryLockError::Error(why)) => Err(cannot(why)),
        }
    }
}

/// Opens the writing connection, migrates the file and clears the leases of earlier servers:
/// this process has the lock, so those servers have ended.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, OpenError> {
    let cannot = |why: StoreError| OpenError::CannotOpen {
        path: path.into(),
        why,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // SQLite's other files get the mode of this one. If it cannot be created, the error of SQLite
    // says why.
    files::create(path).ok();
    let mut db = connect(path, flags).map_err(|why| cannot(why.into()))?;
    if schema_of(&db, path)? > KNOWN {
        return Err(newer(&db, path));
    }
    if db.is_readonly("main").map_err(|why| cannot(why.into()))? {
        return Err(OpenError::ReadOnly { path: path.into() });
    }
    set_up(&mut db).map_err(cannot)?;
    Ok(db)
}

/// Opens another writing connection, on a file that a server has already opened.
pub(super) fn open_beside(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = connect(path, flags).and_then(|db| {
        db.execute_batch(DURABLE)?;
        Ok(db)
    });
    db.map_err(|why| OpenError::CannotOpen {
        path: path.into(),
        why: why.into(),
    })
}

/// Opens a read-only connection, on a file whose schema was checked before.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(connect(path, flags)?)
}

pub(super) fn check_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let db = open_for_reading(path).map_err(|why| OpenError::CannotOpen {
        path: path.into(),
        why,
    })?;
    let (found, known) = (schema_of(&db, path)?, KNOWN);
    match found {
        _ if found > known => Err(newer(&db, path)),
        _ if found < known => Err(OpenError::Older {
            path: path.into(),
            found,
            known,
        }),
        _ => Ok(db),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

fn schema_of(db: &Connection, path: &Path) -> Result<u32, OpenError> {
    user_version(db).map_err(|why| OpenError::CannotOpen {
        path: path.into(),
        why: why.into(),
    })
}

fn user_version(db: &Connection) -> rusqlite::Result<u32> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn newer(db: &Connection, path: &Path) -> OpenError {
    OpenError::Newer {
        path: path.into(),
        found: user_version(db).unwrap_or(u32::MAX),
        known: KNOWN,
    }
}

fn set_up(db: &mut Connection) -> Result<(), StoreError> {
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let why = format!("no write-ahead log is possible there (SQLite offers {mode:?})");
        return Err(StoreError::Unavailable(why));
    }
    db.execute_batch(DURABLE)?;
    migrate(db)?;
    clear_leases(db)
}

fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    let found = user_version(db)?;
    for (number, migration) in MIGRATIONS.iter().filter(|(number, _)| *number > found) {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(migration)?;
        step.pragma_update(None, "user_version", number)?;
        step.commit()?;
    }
    Ok(())
}

/// Clears the leases of earlier servers. This process has the lock, so they have ended. Named
/// leases do not record their holder, so they stay and lapse by themselves.
fn clear_leases(db: &mut Connection) -> Result<(), StoreError> {
    let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // K12: an unreadable record stays as it is, and every read of it reports it.
    for request in queries::leased(&all)?.items {
        match clear_lease(&all, &request) {
            Err(StoreError::Corrupt(error)) => tracing::error!(
                request_id = %request.id, %error,
                "assignment unreadable at the start; the lease of its request lapses by itself"
            ),
            cleared => cleared?,
        }
    }
    writes::release_notices(&all)?;
    Ok(all.commit()?)
}

fn clear_lease(db: &Connection, leased: &Request) -> Result<(), StoreError> {
    let held = match leased.holding_key() {
        Some(key) => queries::holding(db, &key)?,
        None => None,
    };
    let Some((request, orphaned)) = leased.without_its_server(held.as_ref()) else {
        return Ok(());
    };
    if let Some(held) = orphaned {
        writes::put_holding(db, &held, &rows::doc_of(&held)?)?;
    }
    writes::put_request(db, &request, &rows::doc_of(&request)?)
}
