//! The configuration: jit.toml and the environment, checked completely before anything starts.
//!
//! jit fetches the secrets from Secrets Manager first; the check itself then depends only on
//! texts. An error is one line that names the key. No message and no `Debug` contains a secret.

mod audit;
mod check;
mod environment;
mod file;
mod manager;
mod secret;
mod server;
mod strength;

pub use file::{LogFormat, Scope, StoreKind};
use manager::FetchedSecrets;
use secret::Elsewhere;
pub use strength::{OF_THE_EXAMPLE, loose_file};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::domain::{AccountId, Policy, Timestamp};
use crate::identity_center::sandbox::SandboxOptions;
use crate::identity_center::sdk::IdentityCenterOptions;
use crate::signature::{SealKeys, Secret};
use crate::store::dynamodb::{Table, TableNames};

/// A complete and checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub identity_center: IdentityCenterConfig,
    /// The keys with which callers sign, by key id.
    pub keys: BTreeMap<String, KeyConfig>,
    pub log: LogConfig,
    /// The rules that apply to all requests.
    pub policy: Policy,
    /// The files that this configuration was read from. A change of one changes the configuration.
    pub files: Vec<PathBuf>,
    /// One line for each setting that jit accepts although it is unsafe.
    pub warnings: Vec<String>,
    /// Whether Secrets Manager keeps any secret. jit must read it regularly to notice a change.
    pub kept_elsewhere: bool,
    /// None if the configuration names no webhook.
    pub webhook: Option<Webhook>,
    /// None if people do not use jit in Mattermost.
    pub mattermost: Option<MattermostConfig>,
    /// The names that people see and type in Mattermost beside the account numbers.
    pub accounts: BTreeMap<AccountId, String>,
    /// The settings of the simulated Identity Center; jit ignores them at AWS.
    pub sandbox: SandboxOptions,
    /// The keys that seal the head log of the audit; none if it is not sealed.
    pub seal_keys: SealKeys,
    /// The first entry of the head log with a seal; none if the configuration does not say it.
    pub sealed_since: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address on which the HTTP server listens.
    pub listen: SocketAddr,
    /// A second address, on which `/metrics` needs no token.
    pub metrics_listen: Option<SocketAddr>,
    /// The token with which `/metrics` answers on `listen`.
    pub metrics_token: Option<Secret>,
    /// How many requests, extensions and bindings each key may make in a second.
    pub creates_per_second: u32,
    /// How many of them a key may make at once, after a pause.
    pub create_burst: u32,
}

impl ServerConfig {
    pub const CREATES_PER_SECOND: u32 = 20;
    pub const CREATE_BURST: u32 = 2_000;
}

/// The store. It contains the settings of both kinds, because a copy needs both.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The store that jit uses.
    pub kind: StoreKind,
    /// The SQLite file.
    pub path: PathBuf,
    /// The names of the DynamoDB tables.
    pub tables: TableNames,
}

/// The Identity Center that jit uses: the sandbox, or the one at AWS.
#[derive(Clone, Debug)]
pub enum IdentityCenterConfig {
    Sandbox,
    Aws {
        options: IdentityCenterOptions,
        /// The number of calls that this process may send to AWS in one second.
        calls_per_second: u32,
    },
}

/// A key with which callers sign.
#[derive(Clone, Debug)]
pub struct KeyConfig {
    pub secret: Secret,
    /// The routes that the key may call.
    pub scopes: BTreeSet<Scope>,
    /// Whether jit refuses signatures of version 1 with this key.
    pub require_v2: bool,
    /// The time from which jit refuses this key; none if the key has no end.
    pub expires: Option<Timestamp>,
}

/// The key with which jit's own commands sign.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address of the server that the commands call.
    pub url: String,
    pub key_id: String,
    pub secret: Secret,
}

/// The receiver of notices, and the key with which jit signs them.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub url: Url,
    /// The key id that the header `X-JIT-KeyID` of a notice contains.
    pub key_id: String,
    pub secret: Secret,
    /// The path that the receiver sees. It can differ from the path of the url.
    pub signed_path: String,
}

/// The Mattermost server in which people use `/jit`.
#[derive(Clone, Debug)]
pub struct MattermostConfig {
    /// The address at which jit reaches Mattermost.
    pub url: Url,
    /// The address at which Mattermost reaches jit.
    pub public_url: Url,
    /// The team whose slash command jit accepts. The admin of any team could create a command that
    /// calls jit.
    pub team_id: String,
    /// The access token of the bot account, with which jit calls Mattermost.
    pub bot_token: Secret,
    /// The tokens that prove that a slash command comes from Mattermost. Several are valid while
    /// an operator replaces one.
    pub command_tokens: Vec<Secret>,
    /// If set, jit accepts only users whose e-mail address is in this domain.
    pub email_domain: Option<String>,
    /// Whether the requester gets a direct message about the decision and the end.
    pub tell_requester: bool,
    /// Whether `policy.default_permission_set` is in the configuration. If it is not, jit asks a
    /// user who names no permission set, unless only one is allowed.
    pub default_set_is_configured: bool,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: tracing::Level,
}

/// A configuration error in one line: the key, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct ConfigError {
    /// The key in jit.toml, an environment variable, or the path of the file.
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

/// The environment variables of the process.
pub type Variables = BTreeMap<String, String>;

/// Reads the file that the command line or the environment names, or else `./jit.toml`. The
/// default file need not exist, because the environment can contain all keys.
pub async fn read(path: Option<&Path>, variables: &Variables) -> Result<Config, ConfigError> {
    let (path, text) = find(path, variables)?;
    let file = environment::overlay(&path, &text, variables)?;
    let kept = FetchedSecrets::fetch(file.secret_ids()).await;
    let mut config = check::checked(file, Elsewhere::with(&kept))?;
    warn_of_loose(&path, &text, &mut config);
    config.files.push(path);
    Ok(config)
}

/// Adds a warning if the file contains a secret and other users can read it.
fn warn_of_loose(path: &Path, text: &str, config: &mut Config) {
    if strength::holds_secret(text) {
        config.warnings.extend(strength::loose_file(path));
    }
}

/// Returns an address as it may be shown: without password, path and query, which can be secret.
pub fn shown(url: &Url) -> String {
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}

/// Reads the configuration only to check it: jit assumes that Secrets Manager has the secrets.
pub fn read_offline(path: Option<&Path>, variables: &Variables) -> Result<Config, ConfigError> {
    let (path, text) = find(path, variables)?;
    let file = environment::overlay(&path, &text, variables)?;
    let kept = FetchedSecrets::unread(file.secret_ids());
    let mut config = check::checked(file, Elsewhere::with(&kept))?;
    warn_of_loose(&path, &text, &mut config);
    Ok(config)
}

/// Reads the configuration without any secret, for an operator's command that signs nothing.
pub fn read_without_secrets(
    path: Option<&Path>,
    variables: &Variables,
) -> Result<Config, ConfigError> {
    let file = file(path, variables)?.without_secrets();
    check::checked(file, Elsewhere::with(&FetchedSecrets::default()))
}

/// Reads the configuration for a command that needs only the store: neither secrets nor
/// permission sets.
pub fn read_store(path: Option<&Path>, variables: &Variables) -> Result<Config, ConfigError> {
    let file = file(path, variables)?;
    let file = file.without_secrets().without_permission_sets();
    check::checked(file, Elsewhere::with(&FetchedSecrets::default()))
}

/// Reads the configuration with no secret but the key that seals the audit.
pub async fn read_with_seal_key(
    path: Option<&Path>,
    variables: &Variables,
) -> Result<Config, ConfigError> {
    let file = file(path, variables)?.with_seal_key_only();
    let file = file.without_permission_sets();
    let kept = FetchedSecrets::fetch(file.secret_ids()).await;
    check::checked(file, Elsewhere::with(&kept))
}

/// Reads only the `[client]` section, because a client needs no other.
pub async fn read_client(
    path: Option<&Path>,
    variables: &Variables,
) -> Result<Option<Client>, ConfigError> {
    let file = file(path, variables)?;
    let section = file.client.as_ref();
    let kept = FetchedSecrets::fetch(section.and_then(|section| section.secret_id.named())).await;
    check::client(file.client, &file.server.listen, Elsewhere::with(&kept))
}

/// Reads only the names of the accounts.
pub fn read_account_names(
    path: Option<&Path>,
    variables: &Variables,
) -> Result<BTreeMap<AccountId, String>, ConfigError> {
    check::accounts(file(path, variables)?.accounts)
}

/// Reads the names of the permission sets of which a request must name one: none if there is only
/// one, if the file names a default, or if the file has no sets, like the one of a client.
pub fn read_sets_to_choose(
    path: Option<&Path>,
    variables: &Variables,
) -> Result<Vec<String>, ConfigError> {
    let file = file(path, variables)?;
    let has_default = file.policy.default_permission_set.is_some();
    let sets = file.permission_sets.keys().map(ToString::to_string);
    Ok(match has_default || file.permission_sets.len() < 2 {
        true => Vec::new(),
        false => sets.collect(),
    })
}

/// The permission sets that the file names. A client may have none.
pub fn read_sets(path: Option<&Path>, variables: &Variables) -> Result<Vec<String>, ConfigError> {
    let sets = file(path, variables)?.permission_sets;
    Ok(sets.keys().map(ToString::to_string).collect())
}

/// The configuration file with the environment variables, before the check.
fn file(path: Option<&Path>, variables: &Variables) -> Result<file::File, ConfigError> {
    let (path, text) = find(path, variables)?;
    environment::overlay(&path, &text, variables)
}

/// Returns the path and the text of the configuration file. The text is empty if no file was named
/// and `./jit.toml` does not exist.
pub fn find(path: Option<&Path>, variables: &Variables) -> Result<(PathBuf, String), ConfigError> {
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

impl Client {
    /// Returns the address of the server as it may be shown.
    pub fn shown_url(&self) -> String {
        Url::parse(&self.url).map_or_else(|_| "client.url".into(), |url| shown(&url))
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
