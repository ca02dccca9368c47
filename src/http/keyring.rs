//! The keys and tokens that jit verifies calls with, and those with which jit itself calls
//! Mattermost and the webhook. An operator can replace each of them while jit runs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::config::{Config, KeyConfig};
use crate::signature::{CurrentSecret, Secret};

/// The current keys and tokens. A rotation replaces all of them at once.
#[derive(Debug)]
pub struct Keyring {
    known: RwLock<KnownSecrets>,
    /// Verifies a call of an unknown key, which is refused in any case.
    decoy: Secret,
    bot_token: Option<CurrentSecret>,
    webhook_secret: Option<CurrentSecret>,
}

/// The keys and tokens of one configuration.
#[derive(Debug, Default)]
pub struct KnownSecrets {
    pub keys: BTreeMap<String, Arc<KeyConfig>>,
    /// The tokens of Mattermost's slash command.
    pub command_tokens: Vec<Secret>,
    /// The token of `/metrics`, if the main listener answers it.
    pub metrics_token: Option<Secret>,
    /// The token with which jit calls Mattermost.
    pub bot_token: Option<Secret>,
    /// The secret with which jit signs its notices to the webhook.
    pub webhook_secret: Option<Secret>,
}

impl KnownSecrets {
    /// Takes the secrets out of the configuration.
    pub fn take(config: &mut Config) -> Self {
        let keys = std::mem::take(&mut config.keys).into_iter();
        let bot_token = config.mattermost.as_ref();
        let bot_token = bot_token.map(|mattermost| mattermost.bot_token.clone());
        let webhook_secret = config.webhook.as_ref();
        let webhook_secret = webhook_secret.map(|webhook| webhook.secret.clone());
        let tokens = config.mattermost.as_mut();
        let tokens = tokens.map(|mattermost| std::mem::take(&mut mattermost.command_tokens));
        Self {
            keys: keys.map(|(id, key)| (id, Arc::new(key))).collect(),
            command_tokens: tokens.unwrap_or_default(),
            metrics_token: config.server.metrics_token.take(),
            bot_token,
            webhook_secret,
        }
    }

    /// The configuration keys whose secrets differ from those before.
    fn changed_since(&self, before: &Self) -> Vec<&'static str> {
        let changed = |now: &Option<Secret>, before: &Option<Secret>| match (now, before) {
            (Some(now), Some(before)) => !now.is_same_as(before),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        // A new or removed section needs a restart in any case.
        let changed_in_use = |now: &Option<Secret>, before: &Option<Secret>| {
            now.is_some() && before.is_some() && changed(now, before)
        };
        let keys = self.keys.iter().zip(&before.keys);
        let mut keys = keys.map(|((id, key), (old_id, old))| id == old_id && is_same(key, old));
        let mut tokens = self.command_tokens.iter().zip(&before.command_tokens);
        let compared = [
            (
                "keys",
                self.keys.len() != before.keys.len() || !keys.all(|is_same| is_same),
            ),
            (
                "mattermost.command_tokens",
                self.command_tokens.len() != before.command_tokens.len()
                    || !tokens.all(|(token, old)| token.is_same_as(old)),
            ),
            (
                "mattermost.bot_token",
                changed_in_use(&self.bot_token, &before.bot_token),
            ),
            (
                "webhook.secret",
                changed_in_use(&self.webhook_secret, &before.webhook_secret),
            ),
            (
                "server.metrics_token",
                changed(&self.metrics_token, &before.metrics_token),
            ),
        ];
        let changed = compared.into_iter().filter(|(_, is_changed)| *is_changed);
        changed.map(|(name, _)| name).collect()
    }
}

fn is_same(key: &KeyConfig, other: &KeyConfig) -> bool {
    key.secret.is_same_as(&other.secret)
        && key.scopes == other.scopes
        && key.require_v2 == other.require_v2
        && key.expires == other.expires
}

impl Keyring {
    pub fn new(known: KnownSecrets) -> Self {
        Self {
            decoy: Secret::new("the secret of no key".into()),
            bot_token: known.bot_token.clone().map(CurrentSecret::new),
            webhook_secret: known.webhook_secret.clone().map(CurrentSecret::new),
            known: RwLock::new(known),
        }
    }

    pub fn decoy(&self) -> &Secret {
        &self.decoy
    }

    /// Replaces all keys and tokens, and returns the configuration keys of those that changed.
    /// Calls in progress keep the key that they were checked with.
    pub fn replace(&self, known: KnownSecrets) -> Vec<&'static str> {
        let changed = known.changed_since(&self.known());
        for (current, new) in [
            (&self.bot_token, &known.bot_token),
            (&self.webhook_secret, &known.webhook_secret),
        ] {
            if let (Some(current), Some(new)) = (current, new) {
                current.replace(new.clone());
            }
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        changed
    }

    /// The token of the bot; `None` if jit started without Mattermost.
    pub fn bot_token(&self) -> Option<CurrentSecret> {
        self.bot_token.clone()
    }

    /// The secret of the webhook; `None` if jit started without a webhook.
    pub fn webhook_secret(&self) -> Option<CurrentSecret> {
        self.webhook_secret.clone()
    }

    pub fn key(&self, id: &str) -> Option<Arc<KeyConfig>> {
        self.known().keys.get(id).cloned()
    }

    pub fn has(&self, id: &str) -> bool {
        self.known().keys.contains_key(id)
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

    fn known(&self) -> RwLockReadGuard<'_, KnownSecrets> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text.into()))
    }

    fn known(bot_token: &str, webhook_secret: &str) -> KnownSecrets {
        KnownSecrets {
            command_tokens: secret("typed").into_iter().collect(),
            bot_token: secret(bot_token),
            webhook_secret: secret(webhook_secret),
            ..KnownSecrets::default()
        }
    }

    /// W13: jit read the token of the bot and the secret of the webhook only when it started.
    #[test]
    fn a_replaced_token_is_used_by_all_who_have_it_and_its_key_is_named() {
        let keyring = Keyring::new(known("bot 1", "hook 1"));
        let (bot, hook) = (keyring.bot_token().unwrap(), keyring.webhook_secret());
        assert!(keyring.replace(known("bot 1", "hook 1")).is_empty());
        assert_eq!(
            keyring.replace(known("bot 2", "hook 1")),
            ["mattermost.bot_token"]
        );
        assert!(bot.get().is("bot 2"));
        assert_eq!(
            keyring.replace(known("bot 2", "hook 2")),
            ["webhook.secret"]
        );
        assert!(hook.unwrap().get().is("hook 2"));
        // A configuration without the section changes nothing for jit as it runs.
        let changed = keyring.replace(KnownSecrets::default());
        assert_eq!(changed, ["mattermost.command_tokens"]);
        assert!(bot.get().is("bot 2"));
    }
}
