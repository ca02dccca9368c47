//! What jit.toml and the environment say, checked as a whole before anything starts.
//!
//! `load` is pure: text, variables and a way to read files in, a `Config` out. What is
//! wrong is told in one line that names the key. No secret is in any message or `Debug`.

mod check;
mod environment;
mod file;
mod secret;

pub use file::{LogFormat, Mode, Scope, StoreKind};

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::access::sandbox::SandboxOptions;
use crate::domain::{PermissionSet, Policy, Timestamp};
use crate::signature::Secret;

#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub store: Store,
    pub identity_center: IdentityCenter,
    pub keys: BTreeMap<String, Key>,
    pub client: Option<Client>,
    pub log: Log,
    pub policy: Policy,
    /// Name and ARN of what can be asked for.
    pub permission_sets: BTreeMap<PermissionSet, String>,
    /// What this was read from: a change there is a change of configuration.
    pub files: Vec<PathBuf>,
    pub webhook: Option<Webhook>,
    pub sandbox: SandboxOptions,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
}

#[derive(Clone, Debug)]
pub struct Store {
    pub kind: StoreKind,
    pub path: PathBuf,
}

#[derive(Clone, Debug)]
pub struct IdentityCenter {
    pub mode: Mode,
}

/// A key that callers sign with.
#[derive(Clone, Debug)]
pub struct Key {
    pub secret: Secret,
    pub scopes: BTreeSet<Scope>,
    pub require_v2: bool,
    pub expires: Option<Timestamp>,
}

/// The key that jit's own commands sign with.
#[derive(Clone, Debug)]
pub struct Client {
    pub url: String,
    pub key_id: String,
    pub secret: Secret,
}

/// Who is told, and the key that the telling is signed with.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub url: Url,
    pub key_id: String,
    pub secret: Secret,
    /// The path that the receiver sees, which need not be the url's.
    pub signed_path: String,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    pub level: tracing::Level,
}

/// One line: which key, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct ConfigError {
    pub key: String,
    pub why: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, why: impl Into<String>) -> Self {
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            key: key.into(),
            why: one_line(why.into()),
        }
    }
}

/// The environment that jit was started with.
pub type Variables = BTreeMap<String, String>;
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Reads what the command line or the environment points to, else `./jit.toml`. A file
/// that nobody asked for need not exist: the environment may say it all.
pub fn read(path: Option<&Path>, variables: &Variables) -> Result<Config, ConfigError> {
    let asked = path
        .map(PathBuf::from)
        .or_else(|| variables.get("JIT_CONFIG").map(PathBuf::from));
    let path = asked.clone().unwrap_or_else(|| "jit.toml".into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound && asked.is_none() => String::new(),
        Err(why) => {
            let why = format!("cannot be read: {why}; name another with --config or JIT_CONFIG");
            return Err(ConfigError::new(path.display().to_string(), why));
        }
    };
    let mut config = load(&text, variables, &|file| std::fs::read_to_string(file))?;
    config.files.push(path);
    Ok(config)
}

pub fn load(
    text: &str,
    variables: &Variables,
    read_file: ReadFile<'_>,
) -> Result<Config, ConfigError> {
    let file = environment::overlay(text, variables)?;
    check::checked(file, read_file)
}

impl Config {
    /// What can be written down already, and is not served by this version.
    pub fn check_supported(&self) -> Result<(), ConfigError> {
        if self.store.kind == StoreKind::Dynamodb {
            let why = "\"dynamodb\" is not available in this version; use \"sqlite\"";
            return Err(ConfigError::new("store.kind", why));
        }
        if self.identity_center.mode == Mode::Aws {
            let why = "\"aws\" is not available in this version; use \"sandbox\"";
            return Err(ConfigError::new("identity_center.mode", why));
        }
        Ok(())
    }

    /// The client's part, which only its own commands need.
    pub fn client(&self) -> Result<&Client, ConfigError> {
        let why = "no key to sign with: set client.url, client.key_id and client.secret in \
                   jit.toml, or JIT_CLIENT__URL, JIT_CLIENT__KEY_ID and JIT_CLIENT__SECRET";
        self.client
            .as_ref()
            .ok_or_else(|| ConfigError::new("client", why))
    }
}

#[cfg(test)]
mod tests;
