//! What was found, and what stands there and cannot be read: one bad record hides no other.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use metrics::counter;

use super::StoreError;

/// As many as were asked for, unless there are no more: who reads page by page is not
/// stopped by a page that is all unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    pub items: Vec<T>,
    pub unreadable: Vec<Unreadable>,
}

/// A record, an event or a notice that jit did not write so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its key: of a request or a notice the request's id.
    pub name: String,
    pub why: String,
}

/// What cannot be read, for the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Request,
    Channel,
    Binding,
    Event,
    Notice,
}

impl RecordKind {
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
    /// Only if nothing is left out: for what has to be whole.
    pub fn whole(self) -> Result<Vec<T>, StoreError> {
        match self.unreadable.into_iter().next() {
            Some(one) => Err(StoreError::Corrupt(one.why)),
            None => Ok(self.items),
        }
    }

    /// Keeps what was read, and the name of what cannot be; any other fault is one of the
    /// whole question.
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

/// What was read; or nothing, and it is noted what could not be.
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

/// Counted each time that it is met, and logged the first time in this process: a look for
/// work meets it every few seconds.
pub(super) fn note(kind: RecordKind, one: &Unreadable) {
    const MOST_SAID: usize = 1000;
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    counter!("jit_unreadable_records_total", "kind" => kind.as_str()).increment(1);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() < MOST_SAID && said.insert(format!("{} {}", kind.as_str(), one.name)) {
        let (kind, name, why) = (kind.as_str(), &one.name, &one.why);
        tracing::error!(kind, %name, %why, "what the store holds there cannot be read; it is passed over");
    }
}
