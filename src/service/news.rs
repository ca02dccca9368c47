//! Notifications about one request to the listeners in this process. A listener is woken only
//! by its own request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::work_queue::locked;
use crate::domain::RequestId;

#[derive(Debug, Default)]
pub(crate) struct News(Mutex<HashMap<RequestId, watch::Sender<()>>>);

/// A task of this process that waits for news of one request.
pub(crate) struct Listener<'n> {
    news: &'n News,
    id: RequestId,
    heard: watch::Receiver<()>,
}

impl News {
    /// Returns a listener that gets all news from now on.
    pub fn listen(&self, id: RequestId) -> Listener<'_> {
        let mut all = self.all();
        let sender = all.entry(id).or_insert_with(|| watch::Sender::new(()));
        Listener {
            news: self,
            id,
            heard: sender.subscribe(),
        }
    }

    pub fn tell(&self, id: RequestId) {
        if let Some(sender) = self.all().get(&id) {
            sender.send_replace(());
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RequestId, watch::Sender<()>>> {
        locked(&self.0)
    }
}

impl Listener<'_> {
    /// Returns when there is news since the last call.
    pub async fn hear(&mut self) {
        // The sender exists as long as this listener, so this cannot fail.
        self.heard.changed().await.ok();
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut all = self.news.all();
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
    fn news_of_one_request_wakes_only_its_own_listeners() {
        let (one, other) = (1, 2);
        let id = |n| RequestId::from_uuid(Uuid::from_u128(n));
        let news = News::default();
        let (mut first, mut second) = (news.listen(id(one)), news.listen(id(other)));
        news.tell(id(one));
        assert!(is_ready(first.hear()));
        assert!(!is_ready(first.hear()), "one notification wakes it once");
        assert!(!is_ready(second.hear()));
        let third = news.listen(id(other));
        drop(second);
        assert_eq!(news.all().len(), 2, "the other listener keeps its entry");
        drop((first, third));
        assert!(
            news.all().is_empty(),
            "an entry without listeners is removed"
        );
    }
}
