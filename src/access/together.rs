//! One question for everybody who wants the same answer.
//!
//! An answer serves whoever began to wait before the question was sent: it cannot be
//! older than what they want to know.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::domain::Timestamp;

pub struct Together<K, T> {
    answers: Mutex<HashMap<K, watch::Sender<Option<Answer<T>>>>>,
    moments: AtomicU64,
}

/// A point in the order of everything that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

#[derive(Debug)]
pub struct Answer<T> {
    /// When its question was sent.
    pub sent: Moment,
    pub sent_at: Timestamp,
    pub value: Arc<T>,
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            ..*self
        }
    }
}

impl<K, T> Default for Together<K, T> {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            moments: AtomicU64::new(0),
        }
    }
}

impl<K: Eq + Hash + Clone, T> Together<K, T> {
    pub fn moment(&self) -> Moment {
        Moment(self.moments.fetch_add(1, Ordering::SeqCst))
    }

    /// Waits for an answer that will do, from whoever gets it first: `ask` is dropped
    /// when somebody else has. An error is its asker's own.
    pub async fn ask<E>(
        &self,
        key: &K,
        will_do: impl Fn(&Answer<T>) -> bool,
        ask: impl Future<Output = Result<Answer<T>, E>>,
    ) -> Result<Arc<T>, E> {
        let mut heard = self.channel(key).subscribe();
        let from_another = async {
            let answered = heard.wait_for(|answer| answer.as_ref().is_some_and(&will_do));
            answered.await.ok().and_then(|answer| answer.clone())
        };
        let answer = tokio::select! {
            biased;
            Some(answer) = from_another => answer,
            answer = ask => {
                let answer = answer?;
                self.channel(key).send_replace(Some(answer.clone()));
                answer
            }
        };
        Ok(answer.value)
    }

    fn channel(&self, key: &K) -> watch::Sender<Option<Answer<T>>> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody waits for any more is old news.
        if answers.len() > 1000 {
            answers.retain(|_, answer| answer.receiver_count() > 0);
        }
        let channel = answers.entry(key.clone());
        channel.or_insert_with(|| watch::Sender::new(None)).clone()
    }
}
