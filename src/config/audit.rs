//! Reads `[audit]`: the key that seals the head log.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use super::secret::{Elsewhere, SecretSource, Sources};
use crate::signature::Secret;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditSection {
    pub seal_key: SecretSource<String>,
    pub seal_key_file: SecretSource<PathBuf>,
    pub seal_key_id: SecretSource<String>,
}

/// A guess of a short key could be checked with the seals in the store.
const SHORTEST: usize = 16;

pub(super) fn seal_key(
    section: AuditSection,
    elsewhere: Elsewhere<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<Option<Secret>, ConfigError> {
    let is_given = section.seal_key.is_given()
        || section.seal_key_file.is_given()
        || section.seal_key_id.is_given();
    if !is_given {
        return Ok(None);
    }
    let sources = Sources {
        section: "audit",
        name: "seal_key",
        secret: section.seal_key,
        secret_file: section.seal_key_file,
        secret_id: section.seal_key_id,
    };
    let (key, file) = sources.read(elsewhere)?;
    if key.expose().len() < SHORTEST {
        let why =
            format!("is shorter than {SHORTEST} characters; `openssl rand -hex 32` makes a key");
        return Err(ConfigError::new("audit.seal_key", why));
    }
    files.extend(file);
    Ok(Some(key))
}
