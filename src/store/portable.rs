//! Copies one store into another, for a change between SQLite and DynamoDB.
//!
//! The copy takes each history completely, with its record, events and outbox, and takes it
//! once: after an interruption the operator starts the copy again and it continues. Spent
//! nonces and leases are not copied, because they expire within minutes; because of
//! `copied_at` the new store accepts no call that the old one may have accepted.

use async_trait::async_trait;

use super::{Store, StoreError};
use crate::domain::{Binding, Channel, Event, Holding, Notice, Request, RequestId, Timestamp};

/// Everything that belongs to one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    Request {
        request: Box<Request>,
        holding: Option<Holding>,
        outbox_entries: Vec<OutboxEntry>,
        events: Vec<Event>,
    },
    Channel {
        channel: Channel,
        bindings: Vec<Binding>,
        events: Vec<Event>,
    },
}

/// An undelivered notice, with its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    pub notice: Notice,
    pub attempts: u32,
    pub next_at: Timestamp,
    pub parked: bool,
}

/// The result of `take_over`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// This call wrote the history.
    Now,
    /// The store had the complete history already.
    Before,
}

/// A store that can be the source or the target of a copy.
#[async_trait]
pub trait Portable: Store {
    /// Returns the outbox of a request, parked notices included, in order.
    async fn outbox_entries(&self, id: RequestId) -> Result<Vec<OutboxEntry>, StoreError>;
    /// Writes a history from another store. An older state of the same history is brought up to
    /// date; a history that continued differently is `Diverged`.
    async fn take_over(&self, copied: &Copied) -> Result<Took, StoreError>;
    /// Records the time of the copy, which `copied_at` returns.
    async fn note_copied(&self, at: Timestamp) -> Result<(), StoreError>;
}

impl Copied {
    pub fn events(&self) -> &[Event] {
        match self {
            Self::Request { events, .. } | Self::Channel { events, .. } => events,
        }
    }
}

/// Reports whether the history `here` is a beginning of the history `there`.
pub(super) fn is_behind(here: &[Event], there: &[Event]) -> bool {
    there.get(..here.len()) == Some(here)
}

/// The name of the lease entry that stores the time of a copy. No process takes this lease.
pub(super) const COPIED: &str = "copied";
