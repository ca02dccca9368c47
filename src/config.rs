//! What jit.toml and the environment say, checked as a whole before anything starts.
//!
//! What depends on nothing but text and variables is checked as a whole; secrets that are
//! kept elsewhere are fetched before. What is wrong is told in one line that names the key.
//! No secret is in any message or `Debug`.

mod check;
mod environment;
mod file;
mod manager;
mod secret;

pub use file::{LogFormat, Scope, StoreKind};
use manager::FetchedSecrets;
use secret::Elsewhere;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::domain::{AccountId, Policy, Timestamp};
use crate::identity_center::sandbox::SandboxOptions;
use crate::identity_center::sdk::IdentityCenterOptions;
use crate::signature::Secret;
use crate::store::dynamodb::{Table, TableNames};

#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub store: StoreConfig,
    pub identity_center: IdentityCenterConfig,
    pub keys: BTreeMap<String, KeyConfig>,
    pub log: LogConfig,
    pub policy: Policy,
    /// What this was read from: a change there is a change of configuration.
    pub files: Vec<PathBuf>,
    /// Whether any secret is kept in Secrets Manager, where a change shows only by asking.
    pub kept_elsewhere: bool,
    pub webhook: Option<Webhook>,
    pub mattermost: Option<MattermostConfig>,
    /// What people call them.
    pub accounts: BTreeMap<AccountId, String>,
    pub sandbox: SandboxOptions,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
}

/// Where everything is kept; and where it would be otherwise, for who copies it there.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub kind: StoreKind,
    pub path: PathBuf,
    pub tables: TableNames,
}

#[derive(Clone, Debug)]
pub enum IdentityCenterConfig {
    Sandbox,
    Aws {
        options: IdentityCenterOptions,
        calls_per_second: u32,
    },
}

/// A key that callers sign with.
#[derive(Clone, Debug)]
pub struct KeyConfig {
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

/// The server whose people type `/jit`.
#[derive(Clone, Debug)]
pub struct MattermostConfig {
    pub url: Url,
    /// Where Mattermost reaches jit.
    pub public_url: Url,
    /// Whose command it is: any team's admin can make one that calls jit.
    pub team_id: String,
    pub bot_token: Secret,
    pub command_tokens: Vec<Secret>,
    /// Besides the system's own: user ids or addresses.
    pub admins: BTreeSet<String>,
    pub email_domain: Option<String>,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
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

/// Reads what the command line or the environment points to, else `./jit.toml`. A file
/// that nobody asked for need not exist: the environment may say it all.
pub async fn read(path: Option<&Path>, variables: &Variables) -> Result<Config, ConfigError> {
    let (path, text) = find(path, variables)?;
    let file = environment::overlay(&text, variables)?;
    let kept = FetchedSecrets::fetch(file.secret_ids()).await;
    let mut config = check::checked(file, Elsewhere::with(&kept))?;
    config.files.push(path);
    Ok(config)
}

/// The same for who only looks it over: whatever Secrets Manager keeps is taken to be there.
pub fn read_offline(path: Option<&Path>, variables: &Variables) -> Result<Config, ConfigError> {
    let (_, text) = find(path, variables)?;
    let file = environment::overlay(&text, variables)?;
    let kept = FetchedSecrets::unread(file.secret_ids());
    check::checked(file, Elsewhere::with(&kept))
}

/// The same without anybody's secrets, for an operator's own hands.
pub fn read_without_secrets(
    path: Option<&Path>,
    variables: &Variables,
) -> Result<Config, ConfigError> {
    let (_, text) = find(path, variables)?;
    let file = environment::overlay(&text, variables)?.without_secrets();
    check::checked(file, Elsewhere::with(&FetchedSecrets::default()))
}

/// The client's part alone: who only calls need not know how jit is served.
pub async fn read_client(
    path: Option<&Path>,
    variables: &Variables,
) -> Result<Option<Client>, ConfigError> {
    let (_, text) = find(path, variables)?;
    let file = environment::overlay(&text, variables)?;
    let section = file.client.as_ref();
    let kept = FetchedSecrets::fetch(section.and_then(|section| section.secret_id.named())).await;
    check::client(file.client, &file.server.listen, Elsewhere::with(&kept))
}

fn find(path: Option<&Path>, variables: &Variables) -> Result<(PathBuf, String), ConfigError> {
    let asked = path
        .map(PathBuf::from)
        .or_else(|| variables.get("JIT_CONFIG").map(PathBuf::from));
    let path = asked.clone().unwrap_or_else(|| "jit.toml".into());
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(why) if why.kind() == io::ErrorKind::NotFound && asked.is_none() => {
            Ok((path, String::new()))
        }
        Err(why) => {
            let why = format!("cannot be read: {why}; name another with --config or JIT_CONFIG");
            Err(ConfigError::new(path.display().to_string(), why))
        }
    }
}

impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            StoreKind::Sqlite => self.path.display().fmt(f),
            StoreKind::Dynamodb => {
                write!(
                    f,
                    "DynamoDB, {} and others",
                    self.tables.of(Table::Requests)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
