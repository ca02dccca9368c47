//! How the file comes to be: its lock, its schema and its connections.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{queries, rows, writes};
use crate::domain::{LeaseHolder, Request};
use crate::store::StoreError;

/// In order; a file that was brought to number *n* has `user_version` *n*. One that has
/// been released is never changed, another is added.
const MIGRATIONS: &[(u32, &str)] = &[
    (1, include_str!("schema_1.sql")),
    (2, include_str!("schema_2.sql")),
];
const KNOWN: u32 = 2;

/// Long enough for an operator's own statement; a longer one is reported as a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// FULL: what was committed survives the loss of power, not just of the process. The log is
/// brought into the file beside this (`checkpoint`); here only what is left when it has
/// grown large.
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
        found: u32,
        known: u32,
    },
    #[error(
        "{} was written by an older jit (schema {found}, this one wants {known}): \
         start `jit serve` on it once",
        path.display()
    )]
    Older {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("{} may only be read: make it and its folder writable for this user", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} cannot be opened: {why}", path.display())]
    CannotOpen { path: PathBuf, why: StoreError },
}

/// The right to be the only jit on a file; ends with the process, however that ends.
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
        let file = File::options()
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

/// The one connection that writes, on a file of this schema in which nobody holds a lease:
/// with the lock taken, whoever held one is dead.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, OpenError> {
    let cannot = |why: StoreError| OpenError::CannotOpen {
        path: path.into(),
        why,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
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

/// Another connection that may write, on a file that has been opened for it.
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

/// A connection that cannot write, on a file that is known to be of this schema.
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
    db.busy_timeout(PATIENCE)?;
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

/// With the lock taken, every server that held a lease on this file is dead, and sends
/// nothing any more; what it sent may still be on its way, which the assignment remembers.
/// K13: an operator's command may be at work beside; its leases stay, and so do leases by
/// name, of which a record does not say whose they are: both lapse by themselves.
fn clear_leases(db: &mut Connection) -> Result<(), StoreError> {
    let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for read in rows::leased(&all)? {
        match read {
            Ok(request) => clear_lease(&all, request)?,
            // It stays as it is, and is reported whenever it is read.
            Err(why) => tracing::error!(%why, "a lease could not be cleared"),
        }
    }
    writes::release_notices(&all)?;
    Ok(all.commit()?)
}

fn clear_lease(db: &Connection, mut request: Request) -> Result<(), StoreError> {
    let Some(lease) = request
        .lease
        .filter(|lease| lease.by == LeaseHolder::Server)
    else {
        return Ok(());
    };
    if let Some(key) = request.holding_key()
        && let Some(held) = queries::holding(db, &key)?
    {
        let orphaned = rows::Serialized::new(held.orphaned(lease.token))?;
        writes::put_holding(db, &orphaned)?;
    }
    request.lease = None;
    request.revision += 1;
    writes::put_request(db, &rows::Serialized::new(request)?)
}
