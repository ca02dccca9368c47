//! The names of the accounts.

use std::collections::BTreeMap;

use super::text::plain;
use crate::domain::AccountId;

#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<AccountId, String>);

impl Names {
    pub fn new(names: BTreeMap<AccountId, String>) -> Self {
        Self(names)
    }

    /// The name and the number; only the number if the account has no name.
    pub fn shown(&self, account: &AccountId) -> String {
        match self.0.get(account) {
            Some(name) => format!("{} (`{account}`)", plain(name)),
            None => format!("`{account}`"),
        }
    }

    /// The same, without Markdown.
    pub fn label(&self, account: &AccountId) -> String {
        match self.0.get(account) {
            Some(name) => format!("{name} ({account})"),
            None => account.to_string(),
        }
    }

    /// The account with this number or name, as a person typed it.
    pub fn meant(&self, word: &str) -> Option<AccountId> {
        let named = |(_, name): &(&AccountId, &String)| name.to_lowercase() == word.to_lowercase();
        let found = self.0.iter().find(named);
        word.parse()
            .ok()
            .or_else(|| found.map(|(id, _)| id.clone()))
    }
}
