//! The keys and tokens that jit verifies calls with.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::KeyConfig;
use crate::signature::Secret;

/// The current keys, and the tokens of Mattermost's slash command. A rotation replaces all of
/// them at once.
#[derive(Debug)]
pub struct Keyring {
    held: RwLock<Arc<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    keys: BTreeMap<String, Arc<KeyConfig>>,
    command_tokens: Vec<Secret>,
}

impl Keyring {
    pub fn new(keys: BTreeMap<String, KeyConfig>, command_tokens: Vec<Secret>) -> Self {
        let held = RwLock::default();
        let keyring = Self { held };
        keyring.replace(keys, command_tokens);
        keyring
    }

    /// Replaces all keys and tokens; calls in progress keep the key that they were checked with.
    pub fn replace(&self, keys: BTreeMap<String, KeyConfig>, command_tokens: Vec<Secret>) {
        let keys = keys
            .into_iter()
            .map(|(id, key)| (id, Arc::new(key)))
            .collect();
        let held = Held {
            keys,
            command_tokens,
        };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
    }

    pub fn key(&self, id: &str) -> Option<Arc<KeyConfig>> {
        self.held().keys.get(id).cloned()
    }

    /// Reports whether `text` is one of the tokens. There are two while an operator rotates them.
    pub fn is_command_token(&self, text: &str) -> bool {
        let held = self.held();
        let hits = held.command_tokens.iter().filter(|token| token.is(text));
        hits.count() > 0
    }

    fn held(&self) -> Arc<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}
