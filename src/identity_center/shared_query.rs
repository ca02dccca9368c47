//! Shared queries: one call serves all callers with the same question.
//!
//! An answer serves the callers that began to wait before its call was sent, so it is never
//! older than their question.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::clock::Uptime;
use crate::lock::locked;

pub struct SharedQuery<K, T> {
    topics: Mutex<HashMap<K, Topic<T>>>,
    moments: AtomicU64,
}

/// A point in the order of all queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

type Topic<T> = watch::Sender<LastAnswer<T>>;

struct LastAnswer<T> {
    last: Option<SharedAnswer<T>>,
    /// The last call that was sent and has no answer yet.
    on_its_way: Option<Tick>,
}

pub struct SharedAnswer<T> {
    /// When its call was sent.
    pub sent: Tick,
    pub sent_at: Uptime,
    pub value: Arc<T>,
}

impl<T> Clone for SharedAnswer<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            ..*self
        }
    }
}

impl<K, T> Default for SharedQuery<K, T> {
    fn default() -> Self {
        Self {
            topics: Mutex::default(),
            moments: AtomicU64::new(0),
        }
    }
}

impl<K: Eq + Hash + Clone, T> SharedQuery<K, T> {
    pub fn moment(&self) -> Tick {
        Tick(self.moments.fetch_add(1, Ordering::SeqCst))
    }

    /// Waits for an answer that is new enough, from the first caller that gets one: `ask` is
    /// dropped if that is another caller. Only the caller that sent a call gets its error.
    pub async fn query<E>(
        &self,
        key: &K,
        will_do: impl Fn(&SharedAnswer<T>) -> bool,
        ask: impl Future<Output = Result<SharedAnswer<T>, E>>,
    ) -> Result<Arc<T>, E> {
        let topic = self.topic(key);
        let mut heard = topic.subscribe();
        let from_another = async {
            let known = heard.wait_for(|known| known.last.as_ref().is_some_and(&will_do));
            known.await.ok().and_then(|known| known.last.clone())
        };
        let answer = tokio::select! {
            biased;
            Some(answer) = from_another => answer,
            answer = ask => {
                let answer = answer?;
                topic.send_modify(|known| known.last = Some(answer.clone()));
                answer
            }
        };
        Ok(answer.value)
    }

    /// Waits while a call is in flight that was sent after `since`: if its answer comes, no other
    /// call is needed.
    pub async fn let_answer_come(&self, key: &K, since: Tick) {
        let mut heard = self.topic(key).subscribe();
        let none = heard.wait_for(|known| known.on_its_way.is_none_or(|sent| sent < since));
        // A topic exists as long as a caller listens to it.
        none.await.map(drop).ok();
    }

    /// Marks that a call is sent now; it is in flight until the returned value is dropped.
    pub fn send(&self, key: &K) -> OnItsWay<T> {
        let (topic, sent) = (self.topic(key), self.moment());
        topic.send_modify(|known| known.on_its_way = Some(sent));
        OnItsWay { topic, sent }
    }

    fn topic(&self, key: &K) -> Topic<T> {
        let mut topics = locked(&self.topics);
        // Topics without waiting callers are removed.
        if topics.len() > 1000 {
            topics.retain(|_, topic| topic.receiver_count() > 0);
        }
        let fresh = || {
            watch::Sender::new(LastAnswer {
                last: None,
                on_its_way: None,
            })
        };
        topics.entry(key.clone()).or_insert_with(fresh).clone()
    }
}

pub struct OnItsWay<T> {
    topic: Topic<T>,
    pub sent: Tick,
}

impl<T> Drop for OnItsWay<T> {
    fn drop(&mut self) {
        let sent = Some(self.sent);
        self.topic.send_if_modified(|known| {
            let last = known.on_its_way == sent;
            if last {
                known.on_its_way = None;
            }
            last
        });
    }
}
