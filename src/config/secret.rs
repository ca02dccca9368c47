//! Reads a secret from its place: a value, a file, or Secrets Manager.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::ConfigError;
use super::manager::FetchedSecrets;
use super::strength;
use crate::signature::Secret;

pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<String>;

/// The sources of secrets that are not in jit.toml itself.
#[derive(Clone, Copy)]
pub(super) struct Elsewhere<'a> {
    pub read_file: ReadFile<'a>,
    pub kept: &'a FetchedSecrets,
}

impl<'a> Elsewhere<'a> {
    pub fn with(kept: &'a FetchedSecrets) -> Self {
        let read_file: ReadFile<'_> = &|file| std::fs::read_to_string(file);
        Self { read_file, kept }
    }
}

/// A value that must not appear in a `Debug` or an error.
#[derive(Clone)]
pub(super) struct SecretSource<T>(Option<T>);

impl<T> Default for SecretSource<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> std::fmt::Debug for SecretSource<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "…" } else { "none" })
    }
}

impl SecretSource<Vec<String>> {
    pub fn unread_list(name: &str) -> Self {
        Self(Some(vec![unread(name)]))
    }

    /// Joins the values with line breaks, in the form of a file with one value per line.
    pub fn lines(self) -> SecretSource<String> {
        SecretSource(self.0.map(|all| all.join("\n")))
    }
}

impl<T> SecretSource<T> {
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

impl SecretSource<String> {
    /// A placeholder, for a process that does not sign with this secret.
    pub fn unread(name: &str) -> Self {
        Self(Some(unread(name)))
    }

    pub fn named(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for SecretSource<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde's own error for a wrong type would quote the value.
        T::deserialize(deserializer)
            .map(|value| Self(Some(value)))
            .map_err(|_| serde::de::Error::custom("expected a text in quotes"))
    }
}

/// Returns a different placeholder for each name, because two parties may not share a secret.
fn unread(name: &str) -> String {
    format!("the-unread-{name}")
}

/// The three ways that a section can name its secret.
pub(super) struct Sources<'a> {
    pub section: &'a str,
    /// The name of the key, usually `secret`.
    pub name: &'a str,
    pub secret: SecretSource<String>,
    pub secret_file: SecretSource<PathBuf>,
    pub secret_id: SecretSource<String>,
}

impl Sources<'_> {
    pub fn is_given(&self) -> bool {
        self.secret.is_given() || self.secret_file.is_given() || self.secret_id.is_given()
    }

    /// Returns the secret, and the file from which it was read.
    pub fn read(self, elsewhere: Elsewhere<'_>) -> Result<(Secret, Option<PathBuf>), ConfigError> {
        let (section, name) = (self.section, self.name);
        let key = |kind: &str| format!("{section}.{name}{kind}");
        let (secret, file) = match (self.secret.0, self.secret_file.0, self.secret_id.0) {
            (Some(secret), None, None) => (secret, None),
            (None, Some(file), None) => {
                let text = read_secret(&key("_file"), &file, elsewhere.read_file)?;
                (text, Some(file))
            }
            (None, None, Some(id)) => {
                let kept = elsewhere.kept.of(&id);
                let text = kept.map_err(|why| ConfigError::new(key("_id"), why))?;
                (text.to_owned(), None)
            }
            (None, None, None) => {
                let why = format!("has no {name}: set {}{}", ways(name, " or "), made(name));
                return Err(ConfigError::new(section, why));
            }
            _ => {
                let ways = ways(name, ", ");
                let why = format!("has more than one {name}: keep one of {ways}");
                return Err(ConfigError::new(section, why));
            }
        };
        let secret = Secret::new(secret);
        if secret.is_empty() {
            return Err(ConfigError::new(key(""), format!("is empty{}", made(name))));
        }
        // Mattermost makes the other secrets, and older seal keys were in use.
        if matches!(name, "secret" | "metrics_token" | "seal_key") {
            strength::check(&key(""), &secret, made(name))?;
        }
        Ok((secret, file))
    }
}

/// The tokens of a list.
pub(super) fn tokens(list: &Secret) -> Vec<Secret> {
    let each = list.expose().split_whitespace();
    each.map(|one| Secret::new(one.to_owned())).collect()
}

/// The keys that can name this secret.
fn ways(name: &str, last: &str) -> String {
    match name {
        "metrics_token" => format!("{name}{last}{name}_file"),
        _ => format!("{name}, {name}_file{last}{name}_id"),
    }
}

/// Returns a hint for a key's secret, which jit can generate; other secrets come from outside.
fn made(name: &str) -> &'static str {
    match name {
        "secret" => "; `jit keys generate` makes one",
        _ => "",
    }
}

fn read_secret(key: &str, file: &Path, read_file: ReadFile<'_>) -> Result<String, ConfigError> {
    // The error does not show the path: it may be the secret itself, under the wrong key.
    let text = read_file(file)
        .map_err(|why| ConfigError::new(key, format!("names a file that cannot be read: {why}")))?;
    // Editors add a line break at the end of the file.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
