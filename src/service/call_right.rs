//! A signed call counts once: one commit makes its change and spends its nonce.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Service, ServiceError};
use crate::store::{Freshness, Nonce, StoreError};

/// The right of one verified call to make one change.
#[derive(Debug)]
pub struct CallRight {
    nonce: Nonce,
    /// The key that signed the call; absent for a click in Mattermost.
    key_id: Option<String>,
    used: AtomicBool,
    /// A rate refused the call.
    refused: AtomicBool,
}

impl CallRight {
    pub fn new(nonce: Nonce, key_id: Option<String>) -> Self {
        Self {
            nonce,
            key_id,
            used: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The nonce that the next commit spends.
    pub fn nonce(&self) -> Option<&Nonce> {
        let is_fresh = !self.used.load(Ordering::SeqCst) && !self.is_refused();
        is_fresh.then_some(&self.nonce)
    }

    /// The call changed nothing and a rate refuses it: its nonce is not spent.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::SeqCst);
    }

    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    /// Notes the result of a commit: the nonce is spent, or the change failed at the store and the
    /// same signed call may come again. After a conflict the next commit spends the nonce.
    pub(super) fn note<T>(&self, written: &Result<T, StoreError>) {
        if !matches!(written, Err(StoreError::Conflict(_))) {
            self.used.store(true, Ordering::SeqCst);
        }
    }
}

impl Service {
    /// Makes sure that the call cannot be repeated: if no commit spent the nonce, this does.
    pub async fn use_up(&self, right: &CallRight) -> Result<(), ServiceError> {
        let Some(nonce) = right.nonce() else {
            return Ok(());
        };
        let spent = self.store.spend_nonce(nonce).await;
        right.note(&spent);
        match spent? {
            Freshness::Fresh => Ok(()),
            Freshness::Spent => Err(StoreError::Replayed.into()),
        }
    }
}
