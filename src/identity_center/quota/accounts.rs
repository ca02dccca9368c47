//! One operation at a time in an account: AWS runs only one, and answers a second with a
//! conflict. A revoke does not wait for a running operation: it is sent at once, and after a
//! conflict it is the next one to be retried.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::domain::{AccountId, Lane};
use crate::lock::locked;

#[derive(Default)]
pub struct Accounts(Mutex<HashMap<AccountId, Queue>>);

#[derive(Default)]
struct Queue {
    inside: usize,
    revokes_inside: usize,
    waiting: BTreeMap<AccountArrival, Arc<Notify>>,
    arrivals: u64,
}

/// By lane, and in one lane in the order of arrival.
type AccountArrival = (Lane, u64);

/// The slot of an account, or the wait for it; dropping it gives it back.
pub struct AccountSlot<'a> {
    accounts: &'a Accounts,
    account: AccountId,
    arrival: AccountArrival,
    is_reserved: bool,
}

impl Accounts {
    pub async fn enter(&self, lane: Lane, account: &AccountId) -> AccountSlot<'_> {
        let (mut slot, called) = self.queue_up(lane, account);
        while !slot.reserve() {
            called.notified().await;
        }
        slot
    }

    fn queue_up(&self, lane: Lane, account: &AccountId) -> (AccountSlot<'_>, Arc<Notify>) {
        let called = Arc::new(Notify::new());
        let mut all = self.all();
        let queue = all.entry(account.clone()).or_default();
        queue.arrivals += 1;
        let arrival = (lane, queue.arrivals);
        queue.waiting.insert(arrival, called.clone());
        let slot = AccountSlot {
            accounts: self,
            account: account.clone(),
            arrival,
            is_reserved: false,
        };
        (slot, called)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<AccountId, Queue>> {
        locked(&self.0)
    }
}

impl Queue {
    fn admits(&self, arrival: AccountArrival) -> bool {
        let first = self.waiting.first_key_value().map(|(first, _)| *first);
        let free = match arrival.0 {
            Lane::Revoke => self.revokes_inside == 0,
            Lane::Remove | Lane::Other => self.inside == 0,
        };
        free && first == Some(arrival)
    }

    fn call_first(&self) {
        if let Some((_, first)) = self.waiting.first_key_value() {
            first.notify_one();
        }
    }
}

impl AccountSlot<'_> {
    fn reserve(&mut self) -> bool {
        let mut all = self.accounts.all();
        let Some(queue) = all.get_mut(&self.account) else {
            return false;
        };
        if !queue.admits(self.arrival) {
            return false;
        }
        queue.waiting.remove(&self.arrival);
        queue.inside += 1;
        queue.revokes_inside += usize::from(self.arrival.0 == Lane::Revoke);
        self.is_reserved = true;
        true
    }
}

impl Drop for AccountSlot<'_> {
    fn drop(&mut self) {
        let mut all = self.accounts.all();
        let Some(queue) = all.get_mut(&self.account) else {
            return;
        };
        if self.is_reserved {
            queue.inside -= 1;
            queue.revokes_inside -= usize::from(self.arrival.0 == Lane::Revoke);
        } else {
            queue.waiting.remove(&self.arrival);
        }
        queue.call_first();
        if queue.inside == 0 && queue.waiting.is_empty() {
            all.remove(&self.account);
        }
    }
}
