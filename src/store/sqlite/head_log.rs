//! The statements of the head log.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{from_doc, int, limit};
use crate::domain::HeadEntry;
use crate::store::StoreError;

pub(super) const LAST_ENTRY: &str = "SELECT doc FROM jit_head_log ORDER BY number DESC LIMIT 1";

pub(super) fn last(db: &Connection) -> Result<Option<HeadEntry>, StoreError> {
    let doc: Option<String> = db
        .prepare_cached(LAST_ENTRY)?
        .query_row([], |row| row.get(0))
        .optional()?;
    doc.map(|doc| from_doc("the last entry of the head log", &doc))
        .transpose()
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
        let number: i64 = row.get(1)?;
        let name = format!("entry {number} of the head log");
        entries.push(from_doc(&name, &row.get::<_, String>(0)?)?);
    }
    Ok(entries)
}

pub(super) fn add(db: &Connection, number: u64, doc: &str) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO jit_head_log (number, doc) VALUES (?1, ?2)")?
        .execute(params![int(number), doc])?;
    Ok(())
}
