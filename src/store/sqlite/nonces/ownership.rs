//! Detects that the logs of spent nonces are missing, or that they are logs of another database.
//!
//! A database has an id, and each log has a mark made of this id and of its own inode number, and a
//! stamp with the time of its last change. A backup, a copied folder and a database whose logs were
//! removed have no logs with these marks. Logs that were copied back to their place have an older
//! stamp than the time at which the kernel says that they were changed (D5).
//! jit then does what it does after `jit store copy`: it refuses the calls that were signed before,
//! because it does not know which of them were accepted.

use rusqlite::{Connection, OptionalExtension};

use super::Nonces;
use crate::clock::{Clock, SystemClock};
use crate::store::StoreError;
use crate::store::sqlite::portable;

/// The row of `jit_leases` with the id of the database.
const DATABASE: &str = "the database of the nonce logs";

/// Notes the time if the logs do not have all nonces that this database has seen, and marks the
/// logs as those of this database.
pub fn check(db: &Connection, nonces: &Nonces) -> Result<(), StoreError> {
    let known = id_of(db)?;
    let lost = match &known {
        Some(id) => !nonces.are_continued(id)?,
        // An earlier jit made no marks: a database with a history and without logs lost them.
        None => !nonces.were_there() && has_history(db)?,
    };
    if lost {
        tracing::warn!(
            "the logs of spent nonces are missing, were restored, or belong to another database: jit \
             refuses calls signed before now, except revokes"
        );
        // Before the logs are marked: a crash in between must not make them look complete.
        portable::note_copied(db, SystemClock.now())?;
    }
    match known {
        Some(id) if lost => nonces.mark(&id),
        Some(_) => Ok(()),
        None => {
            let id = SystemClock.draw().to_string();
            nonces.mark(&id)?;
            let sql = "INSERT INTO jit_leases (name, token, until) VALUES (?1, ?2, 0)";
            db.execute(sql, [DATABASE, &id])?;
            Ok(())
        }
    }
}

fn id_of(db: &Connection) -> Result<Option<String>, StoreError> {
    let sql = "SELECT token FROM jit_leases WHERE name = ?1";
    Ok(db.query_row(sql, [DATABASE], |row| row.get(0)).optional()?)
}

fn has_history(db: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM jit_audit)";
    Ok(db.query_row(sql, [], |row| row.get(0))?)
}
