//! The pending requests of one person: their number is limited, and jit finds the one that a
//! command in Mattermost would repeat.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{Idempotency, PAGE, Service, ServiceError};
use crate::domain::{
    self, Asked, Draft, Email, Millis, Refusal, Request, State, Status, Timestamp,
};
use crate::lock::locked;
use crate::store::{Cursor, Filter, PendingOf};

/// jit counts the requests of a person only after this many in one process, because few people
/// make more.
const UNCOUNTED: u32 = 16;
/// The number of people that one process counts for.
const MOST_PEOPLE: usize = 10_000;

/// The requests of one person by one key are counted together. A15: a key names the
/// person itself, so it uses up no other key's number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    pub person: Email,
    /// `None` for requests from Mattermost.
    pub key_id: Option<String>,
}

impl From<&Asked> for Asker {
    fn from(asked: &Asked) -> Self {
        Self {
            person: asked.requester.email.clone(),
            key_id: asked.key_id.clone(),
        }
    }
}

/// How many pending requests each asker has at most. In the store it can be fewer: another
/// process can decide a request, and then jit counts again before it refuses.
#[derive(Default)]
pub(super) struct PendingCounts(Mutex<HashMap<Asker, u32>>);

impl PendingCounts {
    /// Counts one request more; fails if the asker may have the most already.
    fn add(&self, asker: &Asker, most: u32) -> bool {
        let mut counts = locked(&self.0);
        if counts.len() >= MOST_PEOPLE && !counts.contains_key(asker) {
            counts.clear();
        }
        let first = most.saturating_sub(UNCOUNTED);
        let count = counts.entry(asker.clone()).or_insert(first);
        let is_below = *count < most;
        *count += u32::from(is_below);
        is_below
    }

    fn set(&self, asker: Asker, count: u32) {
        locked(&self.0).insert(asker, count);
    }

    /// A8: counts one request less if this command ended its wait, so that many requests that are
    /// made and cancelled are not counted in the store each time.
    pub fn note(&self, before: &State, request: &Request) {
        let waited = before.status() == Status::Pending;
        if waited
            && request.status() != Status::Pending
            && let Some(count) = locked(&self.0).get_mut(&Asker::from(&request.asked))
        {
            *count = count.saturating_sub(1);
        }
    }
}

/// The result of a draft from Mattermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenedOrFound {
    Opened(Request),
    /// The requester has asked for the same already, and the request is still PENDING.
    Found(Request),
}

impl Service {
    /// A6: refuses a draft of a person who has too many pending requests.
    pub(super) async fn check_pending(&self, asker: Asker) -> Result<(), ServiceError> {
        let most = self.policy.max_pending_requests;
        if self.pending.add(&asker, most) {
            return Ok(());
        }
        let counted = PendingOf {
            requester_email: asker.person.clone(),
            key_id: asker.key_id.clone(),
            from: self.oldest_pending(),
        };
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        let count = self.store.count_pending(&counted, limit).await?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count >= most {
            let person = asker.person;
            return Err(Refusal::TooManyPending { person, most }.into());
        }
        self.pending.set(asker, count + 1);
        Ok(())
    }

    /// A request is pending for a limited time.
    fn oldest_pending(&self) -> Timestamp {
        self.clock.now() + Millis(-self.policy.pending_lifetime.0)
    }

    /// Opens a request, or finds the pending one that it would repeat. `POST /requests` does not use
    /// this: each of its calls makes a request.
    pub async fn open_or_find(
        &self,
        draft: Draft,
        once: Idempotency,
    ) -> Result<OpenedOrFound, ServiceError> {
        let now = self.clock.now();
        if let Some(earlier) = self.opened_before(Some(&once), now).await? {
            return Ok(OpenedOrFound::Opened(earlier));
        }
        if let Some(pending) = self.pending_like(&draft).await? {
            return Ok(OpenedOrFound::Found(pending));
        }
        let opened = self.open(draft, Some(once), None).await?;
        Ok(OpenedOrFound::Opened(opened))
    }

    /// Returns the pending request that this draft would repeat: of the same requester, for the
    /// same access from the same time. Fails if the draft is not allowed.
    async fn pending_like(&self, draft: &Draft) -> Result<Option<Request>, ServiceError> {
        let binding = self.store.binding(&draft.account_id).await?;
        let now = self.clock.now();
        let wanted = domain::open(draft.clone(), binding, &self.policy, now)?
            .request
            .asked;
        let filter = Filter {
            requester_email: Some(wanted.requester.email.clone()),
            channel_id: Some(wanted.channel_id.clone()),
            account_id: Some(wanted.account_id.clone()),
            status: Some(Status::Pending),
            from: Some(self.oldest_pending()),
            ..Filter::default()
        };
        let mut after = None;
        loop {
            let page = self.store.list(&filter, after.as_ref(), PAGE).await?;
            let Some(last) = page.items.last() else {
                return Ok(None);
            };
            after = Some(Cursor::from(last));
            let is_like = |one: &Request| {
                one.asked.requester == wanted.requester
                    && one.asked.permission_set == wanted.permission_set
                    && one.asked.start_at == wanted.start_at
            };
            if let Some(found) = page.items.into_iter().find(is_like) {
                return Ok(Some(found));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A6
    #[test]
    fn a6_a_person_is_counted_only_after_some_requests() {
        let counts = PendingCounts::default();
        let [alice, bob] = ["alice", "bob"].map(|name| Asker {
            person: format!("{name}@example.com").parse().unwrap(),
            key_id: None,
        });
        let added = |asker: &Asker, most| (0..100).filter(|_| counts.add(asker, most)).count();
        assert_eq!(added(&alice, 500), 16);
        counts.set(alice.clone(), 498);
        assert_eq!(added(&alice, 500), 2);
        assert_eq!(added(&bob, 3), 3, "a small limit is exact in one process");
    }
}
