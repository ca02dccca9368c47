//! The limits of AWS: calls per second, one operation at a time in an account, and ten running
//! creates. The order of the waiting calls is decided only here.

mod accounts;
mod bucket;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{IdentityCenterError, IdentityCenterErrorKind};
use crate::clock::Clock;
use crate::domain::{AccountId, Lane};
use accounts::{AccountSlot, Accounts};
use bucket::Bucket;

/// The limit of AWS for the whole organisation.
const MOST_OUTSTANDING_CREATES: usize = 10;

/// The limits to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Those of AWS, with the calls per second that the configuration gives to jit.
    Aws { calls_per_second: u32 },
    /// The sandbox refuses calls by itself.
    None,
}

/// The order of a call in the queue: first by lane. Within a lane, a poll that lets the next
/// operation begin comes before a change, and a change before a look that only confirms one:
/// so access ends sooner for all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    pub lane: Lane,
    step: CallKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CallKind {
    Poll,
    Change,
    Look,
}

impl Turn {
    pub fn poll(lane: Lane) -> Self {
        let step = CallKind::Poll;
        Self { lane, step }
    }

    pub fn change(lane: Lane) -> Self {
        let step = CallKind::Change;
        Self { lane, step }
    }

    pub fn look(lane: Lane) -> Self {
        let step = CallKind::Look;
        Self { lane, step }
    }
}

pub struct Quota(Option<Limiter>);

struct Limiter {
    bucket: Bucket,
    accounts: Accounts,
    /// One create of each account may take one of the ten slots for creates.
    creating: Accounts,
    creates: Semaphore,
}

/// The slots that an operation has while it runs: that of its account, and for a create one of
/// the ten slots for creates.
pub struct Room<'a> {
    _creating: Option<AccountSlot<'a>>,
    _create: Option<SemaphorePermit<'a>>,
    _account: Option<AccountSlot<'a>>,
}

impl Quota {
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self(match limits {
            Limits::None => None,
            Limits::Aws { calls_per_second } => Some(Limiter {
                bucket: Bucket::new(calls_per_second, clock),
                accounts: Accounts::default(),
                creating: Accounts::default(),
                creates: Semaphore::new(MOST_OUTSTANDING_CREATES),
            }),
        })
    }

    /// Whether there is a limit, so that it helps to save calls.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until this call may be sent.
    pub async fn turn(&self, turn: Turn) {
        if let Some(kept) = &self.0 {
            kept.bucket.take(turn).await;
        }
    }

    /// Waits until a create may run in this account.
    pub async fn room_to_create(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        let Some(kept) = &self.0 else {
            return Room::anywhere();
        };
        // K7: many creates of one account need only one of the ten slots, because they run one
        // after another.
        let creating = kept.creating.enter(lane, account).await;
        // The semaphore is never closed, so this always gets a permit. It comes first, because a
        // create that waits for one of the ten slots must not keep a removal out of its account.
        let create = kept.creates.acquire().await.ok();
        Room {
            _creating: Some(creating),
            _create: create,
            _account: Some(kept.accounts.enter(lane, account).await),
        }
    }

    /// Waits until a removal may run in this account.
    pub async fn room_to_remove(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        match &self.0 {
            None => Room::anywhere(),
            Some(kept) => Room {
                _creating: None,
                _create: None,
                _account: Some(kept.accounts.enter(lane, account).await),
            },
        }
    }

    /// Notes the result of a call: throttling slows all calls down.
    pub fn note_result<T>(&self, answer: &Result<T, IdentityCenterError>) {
        let throttled =
            matches!(answer, Err(error) if error.kind == IdentityCenterErrorKind::Throttled);
        if let (Some(kept), true) = (&self.0, throttled) {
            kept.bucket.slow_down();
        }
    }
}

impl Room<'_> {
    pub(super) fn anywhere() -> Self {
        Self {
            _creating: None,
            _create: None,
            _account: None,
        }
    }
}
