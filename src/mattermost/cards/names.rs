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
    /// The name that a person probably meant.
    pub fn nearest(&self, word: &str) -> Option<&str> {
        nearest(word, self.0.values().map(String::as_str))
    }
}

/// The known word that differs from the typed one by a few letters.
pub fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let typed = typed.to_lowercase();
    let most = (typed.chars().count() / 4).clamp(1, 3);
    known
        .map(|word| {
            let distance = strsim::damerau_levenshtein(&typed, &word.to_lowercase());
            (distance, word)
        })
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_differs_by_a_few_letters() {
        let known = ["alice@example.com", "bob@example.com"];
        let near = |typed| nearest(typed, known.into_iter());
        assert_eq!(near("alcie@example.com"), Some("alice@example.com"));
        assert_eq!(near("alice@exmaple.con"), Some("alice@example.com"));
        assert_eq!(near("dave@elsewhere.org"), None);
        assert_eq!(
            nearest("amdin", ["admin", "readonly"].into_iter()),
            Some("admin")
        );
        assert_eq!(nearest("ro", ["readonly"].into_iter()), None);
    }
}
