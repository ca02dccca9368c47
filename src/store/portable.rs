//! From one store into another: a small installation grows, or moves back.
//!
//! A history is taken over whole, record and events and what is still to be told, and once:
//! whoever was interrupted begins again and goes on. What is over in minutes is left
//! behind, spent nonces and leases; `copied_at` sees to it that no call counts twice.

use async_trait::async_trait;

use super::{Store, StoreError};
use crate::domain::{Binding, Channel, Event, Holding, Notice, Request, RequestId, Timestamp};

/// All that belongs to one history.
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

/// A notice that was not delivered, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    pub notice: Notice,
    pub attempts: u32,
    pub next_at: Timestamp,
    pub parked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    Now,
    Before,
}

#[async_trait]
pub trait Portable: Store {
    /// What a request has still to tell, and what of it was given up, in order.
    async fn outbox_entries(&self, id: RequestId) -> Result<Vec<OutboxEntry>, StoreError>;
    /// Writes a history as it is elsewhere. One that is here in an older state is brought
    /// up to it; one that went another way is `Diverged`.
    async fn take_over(&self, copied: &Copied) -> Result<Took, StoreError>;
    async fn note_copied(&self, at: Timestamp) -> Result<(), StoreError>;
}

impl Copied {
    pub fn events(&self) -> &[Event] {
        match self {
            Self::Request { events, .. } | Self::Channel { events, .. } => events,
        }
    }
}

/// Whether what is here is where the other's history once was.
pub(super) fn is_behind(here: &[Event], there: &[Event]) -> bool {
    there.get(..here.len()) == Some(here)
}

/// The name under which the moment of a copy stands among the leases; nobody takes it.
pub(super) const COPIED: &str = "copied";
