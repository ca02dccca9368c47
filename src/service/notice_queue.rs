//! The queue between the service and the notice worker of the same process. It holds the
//! requests that have a new notice, so that the notice worker need not search for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::domain::{RequestId, Timestamp};
use crate::lock::locked;

#[derive(Debug, Default)]
pub(crate) struct NoticeQueue {
    /// Whether a notice worker of this process runs until the process ends.
    is_open: AtomicBool,
    ids: Mutex<VecDeque<RequestId>>,
    /// When the next failed delivery is due again.
    again_at: Mutex<Option<Timestamp>>,
    /// Notified when a request was put in, or when a delivery has ended.
    pub bell: Notify,
}

impl NoticeQueue {
    pub fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    pub fn put(&self, ids: impl Iterator<Item = RequestId>) {
        if self.is_open.load(Ordering::SeqCst) {
            self.ids().extend(ids);
            self.bell.notify_one();
        }
    }

    pub fn take(&self) -> Option<RequestId> {
        self.ids().pop_front()
    }

    pub fn try_again(&self, at: Timestamp) {
        let mut again_at = locked(&self.again_at);
        *again_at = again_at.iter().copied().chain([at]).min();
    }

    pub fn take_again_at(&self) -> Option<Timestamp> {
        locked(&self.again_at).take()
    }

    fn ids(&self) -> MutexGuard<'_, VecDeque<RequestId>> {
        locked(&self.ids)
    }
}
