//! One question for everybody who wants the same answer.
//!
//! An answer serves whoever began to wait before the question was sent: it cannot be
//! older than what they want to know.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::clock::Uptime;

pub struct SharedQuery<K, T> {
    topics: Mutex<HashMap<K, Topic<T>>>,
    moments: AtomicU64,
}

/// A point in the order of everything that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

type Topic<T> = watch::Sender<LastAnswer<T>>;

struct LastAnswer<T> {
    last: Option<SharedAnswer<T>>,
    /// The last question that was sent and has no answer yet.
    on_its_way: Option<Tick>,
}

pub struct SharedAnswer<T> {
    /// When its question was sent.
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

    /// Waits for an answer that will do, from whoever gets it first: `ask` is dropped
    /// when somebody else has. An error is its asker's own.
    pub async fn ask<E>(
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

    /// Waits while a question is on its way that was sent after `since`: if its answer
    /// comes, nobody needs to ask again.
    pub async fn let_answer_come(&self, key: &K, since: Tick) {
        let mut heard = self.topic(key).subscribe();
        let none = heard.wait_for(|known| known.on_its_way.is_none_or(|sent| sent < since));
        // A topic lives as long as somebody listens to it.
        none.await.map(drop).ok();
    }

    /// A question is sent now; on its way until what comes back is dropped.
    pub fn send(&self, key: &K) -> OnItsWay<T> {
        let (topic, sent) = (self.topic(key), self.moment());
        topic.send_modify(|known| known.on_its_way = Some(sent));
        OnItsWay { topic, sent }
    }

    fn topic(&self, key: &K) -> Topic<T> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody waits for any more is old news.
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
