//! Converts rows to records, and handles the columns that an operator may change.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fault::unreadable;
use crate::domain::{Doubt, Request, State, Status, Timestamp};
use crate::store::found::{RecordKind, StoredKey, under_its_key};
use crate::store::{Found, StoreError};

/// The columns that a request is read from, in the order of `RequestRow`.
macro_rules! request_columns {
    () => {
        "request_id, doc, status, revoked_at, revision, created_at"
    };
}
pub(super) use request_columns;

/// A request as stored in its row.
pub(super) struct RequestRow {
    id: String,
    doc: String,
    status: String,
    revoked_at: Option<String>,
    revision: u64,
    created_at: String,
}

impl RequestRow {
    pub fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            doc: row.get(1)?,
            status: row.get(2)?,
            revoked_at: row.get(3)?,
            revision: count(row.get(4)?),
            created_at: row.get(5)?,
        })
    }

    /// Returns the record. A status that differs from the document was written from outside and
    /// is applied as such. There is no clock here: the end has the time that the row names, or gets
    /// one when jit settles it, and the request is due since its last event.
    pub fn read(self) -> Result<Request, StoreError> {
        let mut request: Request = from_doc(&format!("request {}", self.id), &self.doc)?;
        if request.id.to_string() != self.id {
            let why = format!(
                "request {}: its row contains the document of {}",
                self.id, request.id
            );
            return Err(StoreError::Corrupt(why));
        }
        let said = self.status.parse().unwrap_or(Status::Error);
        let at = self.revoked_at.as_deref().and_then(Timestamp::parse);
        let since = request.version.chain.last_at;
        request.apply_outside_status(said, at, since);
        request.version.revision = self.revision;
        Ok(request)
    }

    /// Returns the record for a list, which is sorted by the column `created_at`. The next page
    /// begins after the record, so both must be the same.
    pub fn read_in_list(self) -> Result<Request, StoreError> {
        let (id, listed_at) = (self.id.clone(), self.created_at.clone());
        let request = self.read()?;
        let created_at = request.asked.created_at.to_string();
        match created_at == listed_at {
            true => Ok(request),
            false => Err(StoreError::Corrupt(format!(
                "request {id}: the column created_at is {listed_at}, and its document says {created_at}"
            ))),
        }
    }
}

/// Returns the value of the column `revoked_at`, which the runbook reads.
pub(super) fn revoked_at(state: &State) -> Option<Timestamp> {
    match state {
        State::Revoked { at, .. } => Some(*at),
        // A status that is written over this one later has no time either.
        State::Unsettled {
            doubt: Doubt::OutsideWithoutTime,
            ..
        } => None,
        State::Unsettled { end, .. } => revoked_at(end),
        _ => None,
    }
}

/// Converts to SQLite's signed integers. No revision or count comes near the limit.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn doc_of<T: Serialize>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|why| unreadable(std::any::type_name::<T>(), &why))
}

pub(super) fn from_doc<T: DeserializeOwned>(what: &str, doc: &str) -> Result<T, StoreError> {
    serde_json::from_str(doc).map_err(|why| unreadable(what, &why))
}

/// Returns the document of the one row that a statement finds, if any.
pub(super) fn one_doc<T: DeserializeOwned>(
    db: &Connection,
    sql: &str,
    key: impl Params,
    what: impl FnOnce() -> String,
) -> Result<Option<T>, StoreError> {
    let doc: Option<String> = db
        .prepare_cached(sql)?
        .query_row(key, |row| row.get(0))
        .optional()?;
    doc.map(|doc| from_doc(&what(), &doc)).transpose()
}

/// Returns the documents that a statement finds, up to the limit; the second column is the key of
/// the record. It skips an unreadable document, and one that belongs to another key.
pub(super) fn readable_docs<T: DeserializeOwned + StoredKey>(
    db: &Connection,
    kind: RecordKind,
    sql: &str,
    params: impl Params,
    most: usize,
) -> Result<Found<T>, StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Found::default();
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        let key = text_of(row, 1);
        let name = || kind.name(&key);
        let doc: rusqlite::Result<String> = row.get(0);
        let read = doc
            .map_err(StoreError::from)
            .and_then(|doc| from_doc(&name(), &doc))
            .and_then(|record| under_its_key(record, &key));
        found.take(kind, name, read)?;
    }
    Ok(found)
}

/// Returns the value of a column as a text that names the row, whatever its type.
pub(super) fn text_of(row: &Row<'_>, column: usize) -> String {
    match row.get_ref(column) {
        Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        Ok(ValueRef::Integer(number)) => number.to_string(),
        Ok(other) => format!("a key of type {}", other.data_type()),
        Err(why) => why.to_string(),
    }
}
