//! The pending requests of one person: their number is limited, and jit finds the one that a
//! command in Mattermost would repeat.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{Idempotency, PAGE, Service, ServiceError};
use crate::domain::{self, Draft, Email, Millis, Refusal, Request, Status};
use crate::lock::locked;
use crate::store::{Cursor, Filter, StoreError};

/// jit counts the requests of a person only after this many in one process, because few people
/// make more.
const UNCOUNTED: u32 = 16;
/// The number of people that one process counts for.
const MOST_PEOPLE: usize = 10_000;

/// How many pending requests each person has at most. In the store it can be fewer: a request can
/// be decided or expire, and then jit counts again before it refuses.
#[derive(Default)]
pub(super) struct PendingCounts(Mutex<HashMap<Email, u32>>);

impl PendingCounts {
    /// Counts one request more; fails if the person may have the most already.
    fn add(&self, person: &Email, most: u32) -> bool {
        let mut counts = locked(&self.0);
        if counts.len() >= MOST_PEOPLE && !counts.contains_key(person) {
            counts.clear();
        }
        let first = most.saturating_sub(UNCOUNTED);
        let count = counts.entry(person.clone()).or_insert(first);
        let is_below = *count < most;
        *count += u32::from(is_below);
        is_below
    }

    fn set(&self, person: &Email, count: u32) {
        let mut counts = locked(&self.0);
        counts.insert(person.clone(), count);
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
    pub(super) async fn check_pending(&self, person: &Email) -> Result<(), ServiceError> {
        let most = self.policy.max_pending_requests;
        if self.pending.add(person, most) {
            return Ok(());
        }
        let pending = self.pending_of(person, most).await?;
        let count = u32::try_from(pending.len()).unwrap_or(u32::MAX);
        if count >= most {
            return Err(Refusal::TooManyPending {
                person: person.clone(),
                most,
            }
            .into());
        }
        self.pending.set(person, count + 1);
        Ok(())
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
        let email = &wanted.requester.email;
        let pending = self
            .pending_of(email, self.policy.max_pending_requests)
            .await?;
        Ok(pending.into_iter().find(|one| {
            let asked = &one.asked;
            asked.requester == wanted.requester
                && asked.channel_id == wanted.channel_id
                && asked.account_id == wanted.account_id
                && asked.permission_set == wanted.permission_set
                && asked.start_at == wanted.start_at
        }))
    }

    /// The pending requests of a person, newest first; not many more than `most`. The others of
    /// that time are read as well, and no older ones: a request is pending for a limited time.
    async fn pending_of(&self, person: &Email, most: u32) -> Result<Vec<Request>, StoreError> {
        let lifetime = Millis(-self.policy.pending_lifetime.0);
        let filter = Filter {
            requester_email: Some(person.clone()),
            from: Some(self.clock.now() + lifetime),
            ..Filter::default()
        };
        let (mut pending, mut after) = (Vec::new(), None);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        while pending.len() < most {
            let page = self.store.list(&filter, after.as_ref(), PAGE).await?;
            let Some(last) = page.items.last() else {
                break;
            };
            after = Some(Cursor::from(last));
            let is_pending = |one: &Request| one.status() == Status::Pending;
            pending.extend(page.items.into_iter().filter(is_pending));
        }
        Ok(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A6
    #[test]
    fn a6_a_person_is_counted_only_after_some_requests() {
        let counts = PendingCounts::default();
        let [alice, bob] =
            ["alice", "bob"].map(|name| format!("{name}@example.com").parse().unwrap());
        let added = |person: &Email, most| (0..100).filter(|_| counts.add(person, most)).count();
        assert_eq!(added(&alice, 500), 16);
        counts.set(&alice, 498);
        assert_eq!(added(&alice, 500), 2);
        assert_eq!(added(&bob, 3), 3, "a small limit is exact in one process");
    }
}
