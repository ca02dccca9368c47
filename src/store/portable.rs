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
        /// The record of the request, as the source has it.
        request: Box<Request>,
        /// The holding of its assignment; absent if the source has none.
        holding: Option<Holding>,
        /// Its undelivered notices, parked ones included, in order.
        outbox_entries: Vec<OutboxEntry>,
        /// How many of its notices were parked, also those that the source only counts.
        parked: u64,
        /// Its complete history, oldest event first.
        events: Vec<Event>,
    },
    Channel {
        /// The record of the channel, with the end of its audit chain.
        channel: Channel,
        /// All bindings of the channel.
        bindings: Vec<Binding>,
        /// Its complete history, oldest event first.
        events: Vec<Event>,
    },
}

/// An undelivered notice, with its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The notice that waits for delivery, or that jit gave up.
    pub notice: Notice,
    /// The number of attempts that failed; 0 if the store did not keep it.
    pub attempts: u32,
    /// When the next attempt is due; without meaning for a parked notice.
    pub next_at: Timestamp,
    /// Whether jit gave the notice up.
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
    /// Returns how many notices of a request were parked so far.
    async fn parked(&self, id: RequestId) -> Result<u64, StoreError>;
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
