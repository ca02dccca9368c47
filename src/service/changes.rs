//! Notifications about one request to the listeners in this process. A listener is woken only
//! by its own request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use crate::domain::RequestId;
use crate::lock::locked;

#[derive(Debug, Default)]
pub(crate) struct RequestChanges(Mutex<HashMap<RequestId, watch::Sender<()>>>);

/// A task of this process that waits for a change of one request.
pub(crate) struct Listener<'n> {
    changes: &'n RequestChanges,
    id: RequestId,
    receiver: watch::Receiver<()>,
}

impl RequestChanges {
    /// Returns a listener that gets all changes from now on.
    pub fn listen(&self, id: RequestId) -> Listener<'_> {
        let mut all = self.all();
        let sender = all.entry(id).or_insert_with(|| watch::Sender::new(()));
        Listener {
            changes: self,
            id,
            receiver: sender.subscribe(),
        }
    }

    pub fn notify(&self, id: RequestId) {
        if let Some(sender) = self.all().get(&id) {
            sender.send_replace(());
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RequestId, watch::Sender<()>>> {
        locked(&self.0)
    }
}

impl Listener<'_> {
    /// Returns when the request has changed since the last call.
    pub async fn changed(&mut self) {
        // The sender exists as long as this listener, so this cannot fail.
        self.receiver.changed().await.ok();
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut all = self.changes.all();
        if all
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            all.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn is_ready(hearing: impl Future<Output = ()>) -> bool {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        std::pin::pin!(hearing).poll(&mut context).is_ready()
    }

    // K15
    #[test]
    fn a_change_of_a_request_wakes_only_its_own_listeners() {
        let (one, other) = (1, 2);
        let id = |n| RequestId::from_uuid(Uuid::from_u128(n));
        let changes = RequestChanges::default();
        let (mut first, mut second) = (changes.listen(id(one)), changes.listen(id(other)));
        changes.notify(id(one));
        assert!(is_ready(first.changed()));
        assert!(!is_ready(first.changed()), "one notification wakes it once");
        assert!(!is_ready(second.changed()));
        let third = changes.listen(id(other));
        drop(second);
        assert_eq!(changes.all().len(), 2, "the other listener keeps its entry");
        drop((first, third));
        assert!(
            changes.all().is_empty(),
            "an entry without listeners is removed"
        );
    }
}
