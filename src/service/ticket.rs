//! A signed call counts once: what it may change, it changes in the same write that
//! spends its nonce.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Service, ServiceError};
use crate::store::{Freshness, Nonce, StoreError};

/// The right of a call to be taken, as long as it has not been.
#[derive(Debug)]
pub struct Ticket {
    nonce: Nonce,
    used: AtomicBool,
}

impl Ticket {
    pub fn new(nonce: Nonce) -> Self {
        let used = AtomicBool::new(false);
        Self { nonce, used }
    }

    /// What the next commit is to spend.
    pub(super) fn nonce(&self) -> Option<Nonce> {
        (!self.used.load(Ordering::SeqCst)).then(|| self.nonce.clone())
    }

    /// A commit was made with it, or may have been.
    pub(super) fn note<T>(&self, written: &Result<T, StoreError>) {
        if !matches!(written, Err(StoreError::Conflict(_))) {
            self.used.store(true, Ordering::SeqCst);
        }
    }
}

impl Service {
    /// Whatever came of the call, it is not taken again: if nothing was written for it, its
    /// nonce is spent by itself.
    pub async fn use_up(&self, ticket: &Ticket) -> Result<(), ServiceError> {
        let Some(nonce) = ticket.nonce() else {
            return Ok(());
        };
        let spent = self.store.spend_nonce(&nonce).await;
        ticket.note(&spent);
        match spent? {
            Freshness::Fresh => Ok(()),
            Freshness::Spent => Err(StoreError::Replayed.into()),
        }
    }
}
