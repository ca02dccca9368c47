//! Reads `[audit]`: the keys that seal the head log, and since which entry it is sealed.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use super::secret::{Elsewhere, SecretSource, Sources};
use crate::signature::{SealKeys, Secret};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditSection {
    pub seal_key: SecretSource<String>,
    pub seal_key_file: SecretSource<PathBuf>,
    pub seal_key_id: SecretSource<String>,
    /// The keys before this one, newest first: they check the seals that they made.
    pub old_seal_keys: SecretSource<Vec<String>>,
    /// A file with one key per line.
    pub old_seal_keys_file: SecretSource<PathBuf>,
    pub old_seal_keys_id: SecretSource<String>,
    pub sealed_since: Option<u64>,
}

/// A guess of a short key could be checked with the seals in the store.
const SHORTEST: usize = 16;

/// The first entry of the head log that must have a seal.
pub(super) fn sealed_since(section: &AuditSection) -> Result<Option<u64>, ConfigError> {
    let wrong = |why: &str| Err(ConfigError::new("audit.sealed_since", why));
    match section.sealed_since {
        Some(0) => wrong("is the number of an entry; the first entry of the head log is 1"),
        Some(_) if !section.has_key() => {
            wrong("needs audit.seal_key, audit.seal_key_file or audit.seal_key_id")
        }
        since => Ok(since),
    }
}

impl AuditSection {
    fn has_key(&self) -> bool {
        self.seal_key.is_given() || self.seal_key_file.is_given() || self.seal_key_id.is_given()
    }
}

pub(super) fn seal_keys(
    section: AuditSection,
    elsewhere: Elsewhere<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<SealKeys, ConfigError> {
    let present = Sources {
        section: "audit",
        name: "seal_key",
        secret: section.seal_key,
        secret_file: section.seal_key_file,
        secret_id: section.seal_key_id,
    };
    let older = Sources {
        section: "audit",
        name: "old_seal_keys",
        secret: section.old_seal_keys.lines(),
        secret_file: section.old_seal_keys_file,
        secret_id: section.old_seal_keys_id,
    };
    if !present.is_given() {
        if older.is_given() {
            let why = "checks only the seals of earlier entries: set audit.seal_key_file too";
            return Err(ConfigError::new("audit.old_seal_keys", why));
        }
        return Ok(SealKeys::default());
    }
    let mut read = |sources: Sources<'_>| -> Result<Secret, ConfigError> {
        let (secret, file) = sources.read(elsewhere)?;
        files.extend(file);
        Ok(secret)
    };
    let present = read(present)?;
    check("audit.seal_key", &present)?;
    let older = match older.is_given() {
        true => each(&read(older)?, &present)?,
        false => Vec::new(),
    };
    Ok(SealKeys::new(present, older))
}

/// The older keys, one per line.
fn each(lines: &Secret, present: &Secret) -> Result<Vec<Secret>, ConfigError> {
    let name = "audit.old_seal_keys";
    let mut older: Vec<Secret> = Vec::new();
    for line in lines.expose().split_whitespace() {
        let key = Secret::new(line.to_owned());
        check(name, &key)?;
        if older
            .iter()
            .chain([present])
            .any(|known| known.is_same_as(&key))
        {
            let why = "has audit.seal_key itself or a key twice: keep only the keys before it";
            return Err(ConfigError::new(name, why));
        }
        older.push(key);
    }
    Ok(older)
}

fn check(name: &str, key: &Secret) -> Result<(), ConfigError> {
    if key.expose().len() < SHORTEST {
        let why =
            format!("is shorter than {SHORTEST} characters; `openssl rand -hex 32` makes a key");
        return Err(ConfigError::new(name, why));
    }
    Ok(())
}
