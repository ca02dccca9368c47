//! The keys and tokens that jit verifies calls with.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{Config, KeyConfig};
use crate::signature::Secret;

/// The current keys and tokens. A rotation replaces all of them at once.
#[derive(Debug)]
pub struct Keyring {
    known: RwLock<Arc<KnownSecrets>>,
    /// Verifies a call of an unknown key, which is refused in any case.
    decoy: Secret,
}

/// The keys and tokens of one configuration.
#[derive(Debug, Default)]
pub struct KnownSecrets {
    pub keys: BTreeMap<String, Arc<KeyConfig>>,
    /// The tokens of Mattermost's slash command.
    pub command_tokens: Vec<Secret>,
    /// The token of `/metrics`, if the main listener answers it.
    pub metrics_token: Option<Secret>,
}

impl KnownSecrets {
    /// Takes the secrets out of the configuration.
    pub fn take(config: &mut Config) -> Self {
        let keys = std::mem::take(&mut config.keys).into_iter();
        let tokens = config.mattermost.as_mut();
        let tokens = tokens.map(|mattermost| std::mem::take(&mut mattermost.command_tokens));
        Self {
            keys: keys.map(|(id, key)| (id, Arc::new(key))).collect(),
            command_tokens: tokens.unwrap_or_default(),
            metrics_token: config.server.metrics_token.take(),
        }
    }
}

impl Keyring {
    pub fn new(known: KnownSecrets) -> Self {
        Self {
            known: RwLock::new(Arc::new(known)),
            decoy: Secret::new("the secret of no key".into()),
        }
    }

    pub fn decoy(&self) -> &Secret {
        &self.decoy
    }

    /// Replaces all keys and tokens; calls in progress keep the key that they were checked with.
    pub fn replace(&self, known: KnownSecrets) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    pub fn key(&self, id: &str) -> Option<Arc<KeyConfig>> {
        self.known().keys.get(id).cloned()
    }

    /// Reports whether `text` is one of the tokens. There are two while an operator rotates them.
    pub fn is_command_token(&self, text: &str) -> bool {
        let known = self.known();
        let hits = known.command_tokens.iter().filter(|token| token.is(text));
        hits.count() > 0
    }

    /// Reports whether `text` is the token of `/metrics`; `None` if there is no such token.
    pub fn is_metrics_token(&self, text: &str) -> Option<bool> {
        let known = self.known();
        known.metrics_token.as_ref().map(|token| token.is(text))
    }

    fn known(&self) -> Arc<KnownSecrets> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }
}
