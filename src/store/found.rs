//! The result of a read that finds many records: the readable ones, and the names of the
//! unreadable ones. One unreadable record does not hide the others.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use metrics::counter;

use super::StoreError;
use crate::domain::{AuditKey, Binding, Channel, Event, HeadEntry};

/// One page. `items` has as many entries as were asked for, unless there are no more, so a
/// caller that reads page by page does not stop at a page of unreadable records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The readable records, in the order of the read.
    pub items: Vec<T>,
    /// The records that the read skipped, because jit cannot understand them.
    pub unreadable: Vec<Unreadable>,
}

/// An unreadable record, event or notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The key of the record; for a request or a notice the id of the request.
    pub name: String,
    /// The defect of the record, as text for the log and the operator.
    pub why: String,
}

/// The kind of an unreadable record, as the metric shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Request,
    Channel,
    Binding,
    Event,
    Notice,
}

impl RecordKind {
    /// The name of the record under this key.
    pub(super) fn name(self, key: &str) -> String {
        match self {
            Self::Request | Self::Channel | Self::Notice => key.to_owned(),
            Self::Binding => format!("binding of {key}"),
            Self::Event => format!("event {key}"),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Channel => "channel",
            Self::Binding => "binding",
            Self::Event => "event",
            Self::Notice => "notice",
        }
    }
}

/// A record that the store keeps under a key that is computed from it.
pub(super) trait StoredKey {
    fn stored_key(&self) -> String;
}

impl StoredKey for Event {
    fn stored_key(&self) -> String {
        self.sort_key()
    }
}

impl StoredKey for Binding {
    fn stored_key(&self) -> String {
        self.account_id.to_string()
    }
}

impl StoredKey for Channel {
    fn stored_key(&self) -> String {
        AuditKey::Config(self.id.clone()).to_string()
    }
}

impl StoredKey for HeadEntry {
    fn stored_key(&self) -> String {
        self.number.to_string()
    }
}

/// Returns the record if it belongs to the key under which it was found. A caller that reads page
/// by page takes the place of the next page from the last record, so a record under another key
/// would repeat a page for ever.
pub(super) fn under_its_key<T: StoredKey>(record: T, key: &str) -> Result<T, StoreError> {
    check_key(&record.stored_key(), key)?;
    Ok(record)
}

/// Compares the key that a record has by its document with the one under which it was found.
pub(super) fn check_key(own: &str, key: &str) -> Result<(), StoreError> {
    match own == key {
        true => Ok(()),
        false => Err(StoreError::Corrupt(format!(
            "{key}: the document under this key belongs to {own}"
        ))),
    }
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl<T> From<Vec<T>> for Found<T> {
    fn from(items: Vec<T>) -> Self {
        let unreadable = Vec::new();
        Self { items, unreadable }
    }
}

impl<T> Deref for Found<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T: PartialEq> PartialEq<Vec<T>> for Found<T> {
    fn eq(&self, items: &Vec<T>) -> bool {
        self.unreadable.is_empty() && self.items == *items
    }
}

impl<T> IntoIterator for Found<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<T> Found<T> {
    /// Returns the items if all are readable. For callers that need a complete result.
    pub fn whole(self) -> Result<Vec<T>, StoreError> {
        match self.unreadable.into_iter().next() {
            Some(one) => Err(StoreError::Corrupt(one.why)),
            None => Ok(self.items),
        }
    }

    /// Adds a readable item, or the name of an unreadable one. Any other error is an error of
    /// the whole read.
    pub(super) fn take(
        &mut self,
        kind: RecordKind,
        name: impl FnOnce() -> String,
        read: Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(item) = readable(kind, name, read, &mut self.unreadable)? {
            self.items.push(item);
        }
        Ok(())
    }
}

/// Returns a readable item. For an unreadable one it returns `None` and adds its name to
/// `unreadable`.
pub(super) fn readable<T>(
    kind: RecordKind,
    name: impl FnOnce() -> String,
    read: Result<T, StoreError>,
    unreadable: &mut Vec<Unreadable>,
) -> Result<Option<T>, StoreError> {
    match read {
        Ok(item) => Ok(Some(item)),
        Err(StoreError::Corrupt(why)) => {
            let one = Unreadable { name: name(), why };
            note(kind, &one);
            unreadable.push(one);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Counts an unreadable record each time, and logs it once per process, because the search for
/// work finds it every few seconds.
pub(super) fn note(kind: RecordKind, one: &Unreadable) {
    const MOST_SAID: usize = 1000;
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    counter!("jit_unreadable_records_total", "kind" => kind.as_str()).increment(1);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() < MOST_SAID && said.insert(format!("{} {}", kind.as_str(), one.name)) {
        let name = one.name.as_str();
        let (request_id, name) = match kind {
            RecordKind::Request | RecordKind::Notice => (Some(name), None),
            RecordKind::Channel | RecordKind::Binding | RecordKind::Event => (None, Some(name)),
        };
        tracing::error!(
            kind = kind.as_str(), request_id, name, error = %one.why,
            "a stored record cannot be read; jit skips it"
        );
    }
}
