//! Everything that a store has about one history, for `jit audit verify`.

use std::fmt;

use crate::domain::{AuditKey, Binding, Channel, Event, Request};

/// The record of a history, if there is one, and all that must agree with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Absent if the store has events without a record.
    pub record: Option<AuditedRecord>,
    /// The bindings of the channel; none for a request.
    pub bindings: Vec<Binding>,
    /// The stored history, oldest event first.
    pub events: Vec<Event>,
    /// The columns or attributes that differ from their document.
    pub misfits: Vec<Misfit>,
}

/// A record that has a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditedRecord {
    Request(Box<Request>),
    Channel(Channel),
}

/// A column or an attribute that differs from the document beside it. Lists and exports find a
/// record by these, so they may miss it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The row or item, such as `event 000001-…`.
    pub of: String,
    /// The column or the attribute.
    pub field: String,
    /// Its value, or `nothing`.
    pub stored: String,
    /// The value that follows from the document, or `nothing`.
    pub document: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, field) = (&self.of, &self.field);
        let (stored, document) = (&self.stored, &self.document);
        write!(
            f,
            "{of}: {field}: the store finds it by {stored}, but its document says {document}"
        )
    }
}

/// Compares the columns or attributes of one record with its document.
pub(super) struct Fit<'m> {
    pub of: String,
    pub misfits: &'m mut Vec<Misfit>,
}

impl Fit<'_> {
    pub fn check(&mut self, field: &str, stored: Option<String>, document: Option<String>) {
        if stored != document {
            let word = |value: Option<String>| value.unwrap_or_else(|| "nothing".into());
            self.misfits.push(Misfit {
                of: self.of.clone(),
                field: field.to_owned(),
                stored: word(stored),
                document: word(document),
            });
        }
    }
}

impl Inspected {
    /// Whether the store has nothing at all about this history.
    pub fn is_empty(&self) -> bool {
        self.record.is_none() && self.bindings.is_empty() && self.events.is_empty()
    }
}

/// The name of a row or item that belongs to a history.
pub(super) fn record_name(key: &AuditKey) -> String {
    match key {
        AuditKey::Request(id) => format!("request {id}"),
        AuditKey::Config(channel) => format!("channel {channel}"),
    }
}
