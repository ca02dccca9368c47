//! What AWS lets us do: so many calls a second, one operation at a time in an account,
//! ten creates under way. Who may go first is decided here and nowhere else.

mod accounts;
mod bucket;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{IdentityCenterError, IdentityCenterErrorKind};
use crate::clock::Clock;
use crate::domain::{AccountId, Lane};
use accounts::{AccountSlot, Accounts};
use bucket::Bucket;

/// What AWS allows at once, to everybody in the organisation.
const MOST_OUTSTANDING_CREATES: usize = 10;

/// What is to be kept to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// AWS's own, with as many calls a second as the configuration leaves to jit.
    Aws { calls_per_second: u32 },
    /// The simulated one says no by itself.
    None,
}

/// A call's place in the queue: what somebody revokes before what expires before what is
/// to be given. Within that, an answer that lets the next begin before a change, and a
/// change before the look that only confirms one: access ends sooner, for everybody.
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
    creates: Semaphore,
}

/// What an operation occupies for as long as it is under way.
pub struct Room<'a> {
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
                creates: Semaphore::new(MOST_OUTSTANDING_CREATES),
            }),
        })
    }

    /// Whether calls are worth saving at all.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until this call may be made.
    pub async fn turn(&self, turn: Turn) {
        if let Some(kept) = &self.0 {
            kept.bucket.take(turn).await;
        }
    }

    /// Waits until a create may be under way in this account.
    pub async fn room_to_create(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        let Some(kept) = &self.0 else {
            return Room::anywhere();
        };
        // Never closed, so there always is a permit to come. And first: who waits for one
        // of ten must not keep a removal out of its account meanwhile.
        let create = kept.creates.acquire().await.ok();
        Room {
            _create: create,
            _account: Some(kept.accounts.enter(lane, account).await),
        }
    }

    /// Waits until a removal may be under way in this account.
    pub async fn room_to_remove(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        match &self.0 {
            None => Room::anywhere(),
            Some(kept) => Room {
                _create: None,
                _account: Some(kept.accounts.enter(lane, account).await),
            },
        }
    }

    /// Hears what came of a call: when AWS says that it is too much, all slow down.
    pub fn hear<T>(&self, answer: &Result<T, IdentityCenterError>) {
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
            _create: None,
            _account: None,
        }
    }
}
