//! The statements of the head log.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{from_doc, int, limit};
use crate::domain::HeadEntry;
use crate::store::StoreError;
use crate::store::found::under_its_key;

pub(super) const LAST_ENTRY: &str =
    "SELECT doc, number FROM jit_head_log ORDER BY number DESC LIMIT 1";

pub(super) fn last(db: &Connection) -> Result<Option<HeadEntry>, StoreError> {
    let found = db.prepare_cached(LAST_ENTRY)?.query_row([], columns);
    found.optional()?.map(read).transpose()
}

fn columns(row: &Row<'_>) -> rusqlite::Result<(String, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn read((doc, number): (String, i64)) -> Result<HeadEntry, StoreError> {
    let entry = from_doc(&format!("entry {number} of the head log"), &doc)?;
    under_its_key(entry, &number.to_string())
}

pub(super) const ENTRIES: &str = "SELECT doc, number FROM jit_head_log
     WHERE number > ?1 ORDER BY number LIMIT ?2";

pub(super) fn entries(
    db: &Connection,
    after: u64,
    most: usize,
) -> Result<Vec<HeadEntry>, StoreError> {
    let mut statement = db.prepare_cached(ENTRIES)?;
    let mut rows = statement.query(params![int(after), limit(most)])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read(columns(row)?)?);
    }
    Ok(entries)
}

pub(super) fn add(db: &Connection, number: u64, doc: &str) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO jit_head_log (number, doc) VALUES (?1, ?2)")?
        .execute(params![int(number), doc])?;
    Ok(())
}
