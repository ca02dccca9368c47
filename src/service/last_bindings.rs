//! The binding of each account, as this process read it last. It may be old, so only a decision whose
//! commit checks the binding may use it.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::domain::{AccountId, Binding};
use crate::lock::locked;

/// The number of accounts that one process remembers.
const MOST_ACCOUNTS: usize = 1000;

#[derive(Default)]
pub(super) struct LastBindings(Mutex<HashMap<AccountId, Binding>>);

impl LastBindings {
    pub fn last_read(&self, account: &AccountId) -> Option<Binding> {
        locked(&self.0).get(account).cloned()
    }

    pub fn note(&self, account: &AccountId, read: Option<&Binding>) {
        let mut bindings = locked(&self.0);
        let Some(read) = read else {
            bindings.remove(account);
            return;
        };
        if bindings.len() >= MOST_ACCOUNTS && !bindings.contains_key(account) {
            bindings.clear();
        }
        bindings.insert(account.clone(), read.clone());
    }
}
