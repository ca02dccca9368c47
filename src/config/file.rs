//! The sections of jit.toml as they are written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::ServerConfig;
use super::audit::AuditSection;
use super::secret::SecretSource;
use crate::domain::{
    AccountId, Email, ExtensionRule, Millis, OldCredentialsRule, PermissionSet, Timestamp,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub server: ServerSection,
    pub store: StoreSection,
    pub identity_center: IdentityCenterSection,
    pub sandbox: SandboxSection,
    pub permission_sets: BTreeMap<PermissionSet, SetSection>,
    pub policy: PolicySection,
    pub revocation: RevocationSection,
    pub keys: BTreeMap<String, KeySection>,
    pub webhook: Option<WebhookSection>,
    pub mattermost: Option<MattermostSection>,
    /// The names of the accounts.
    pub accounts: BTreeMap<AccountId, String>,
    pub client: Option<ClientSection>,
    pub log: LogSection,
    pub audit: AuditSection,
}

impl File {
    /// Replaces the secrets by placeholders, for an operator's command that signs nothing.
    pub fn without_secrets(mut self) -> Self {
        self.keys.clear();
        self.audit = AuditSection::default();
        self.client = None;
        if let Some(mattermost) = &mut self.mattermost {
            mattermost.bot_token = SecretSource::unread("bot-token");
            mattermost.bot_token_file = SecretSource::default();
            mattermost.bot_token_id = SecretSource::default();
            mattermost.command_tokens = SecretSource::unread_list("command-token");
            mattermost.command_tokens_file = SecretSource::default();
            mattermost.command_tokens_id = SecretSource::default();
        }
        self.server = ServerSection::default();
        if let Some(webhook) = &mut self.webhook {
            webhook.secret = SecretSource::unread("webhook-secret");
            webhook.secret_file = SecretSource::default();
            webhook.secret_id = SecretSource::default();
        }
        self
    }

    /// Replaces the settings of Identity Center by those of the sandbox.
    pub fn without_permission_sets(mut self) -> Self {
        self.identity_center = IdentityCenterSection {
            mode: Mode::Sandbox,
            ..IdentityCenterSection::default()
        };
        self.permission_sets.clear();
        self.policy.default_permission_set = None;
        self.sandbox.standing.clear();
        self
    }

    /// Like `without_secrets`, but with the key that `jit audit verify` checks seals with.
    pub fn with_seal_key_only(mut self) -> Self {
        let audit = std::mem::take(&mut self.audit);
        Self {
            audit,
            ..self.without_secrets()
        }
    }

    /// Returns the ids of all secrets that jit must fetch from Secrets Manager before it starts.
    pub fn secret_ids(&self) -> impl Iterator<Item = &str> {
        let keys = self.keys.values().map(|section| &section.secret_id);
        let mattermost = self.mattermost.as_ref();
        let others = [
            self.webhook.as_ref().map(|section| &section.secret_id),
            self.client.as_ref().map(|section| &section.secret_id),
            mattermost.map(|section| &section.bot_token_id),
            mattermost.map(|section| &section.command_tokens_id),
            Some(&self.audit.seal_key_id),
            Some(&self.audit.old_seal_keys_id),
        ];
        keys.chain(others.into_iter().flatten())
            .filter_map(SecretSource::named)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServerSection {
    pub listen: SocketAddr,
    pub metrics_listen: Option<SocketAddr>,
    pub metrics_token: SecretSource<String>,
    pub metrics_token_file: SecretSource<PathBuf>,
    pub creates_per_second: u32,
    pub create_burst: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StoreSection {
    pub kind: StoreKind,
    pub path: PathBuf,
    pub tables: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Sqlite,
    Dynamodb,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IdentityCenterSection {
    pub mode: Mode,
    pub instance_arn: Option<String>,
    pub identity_store_id: Option<String>,
    pub calls_per_second: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Aws,
    Sandbox,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SandboxSection {
    pub latency_ms: u32,
    pub users: Vec<Email>,
    /// The file of the sandbox's state; by default beside the store.
    pub path: Option<PathBuf>,
    pub seed: u64,
    pub conflict_rate: f64,
    pub throttle_rate: f64,
    pub fail_rate: f64,
    pub lost_rate: f64,
    /// Assignments from outside, each as `account/permission_set/email`.
    pub standing: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PolicySection {
    pub default_permission_set: Option<PermissionSet>,
    pub pending_lifetime: DurationText,
    pub max_request_hours: u32,
    pub max_start_ahead: DurationText,
    pub extension: ExtensionRule,
    pub grant_patience: DurationText,
    pub max_pending_requests: u32,
    pub admins: Vec<String>,
}

/// A permission set: what it is in AWS, and the rules of its own.
#[derive(Debug)]
pub(super) struct SetSection {
    pub kind: SetKind,
    pub max_request_hours: Option<u32>,
}

/// The kind of a permission set in AWS; it decides the form of the access.
#[derive(Debug)]
pub(super) enum SetKind {
    /// A permission set of Identity Center.
    IdentityCenter { arn: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RevocationSection {
    pub end_sessions: OldCredentialsRule,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeySection {
    #[serde(default)]
    pub secret: SecretSource<String>,
    #[serde(default)]
    pub secret_file: SecretSource<PathBuf>,
    #[serde(default)]
    pub secret_id: SecretSource<String>,
    #[serde(default = "every_scope")]
    pub scopes: Vec<Scope>,
    #[serde(default)]
    pub require_v2: bool,
    pub expires: Option<EndDate>,
}

/// A use that a key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Request,
    Approve,
    Revoke,
    Config,
    Read,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookSection {
    pub url: String,
    #[serde(default = "backend")]
    pub key_id: String,
    #[serde(default)]
    pub secret: SecretSource<String>,
    #[serde(default)]
    pub secret_file: SecretSource<PathBuf>,
    #[serde(default)]
    pub secret_id: SecretSource<String>,
    pub signed_path: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MattermostSection {
    pub url: String,
    pub public_url: String,
    pub team_id: String,
    #[serde(default)]
    pub bot_token: SecretSource<String>,
    #[serde(default)]
    pub bot_token_file: SecretSource<PathBuf>,
    #[serde(default)]
    pub bot_token_id: SecretSource<String>,
    #[serde(default)]
    pub command_tokens: SecretSource<Vec<String>>,
    /// A file with one token per line.
    #[serde(default)]
    pub command_tokens_file: SecretSource<PathBuf>,
    #[serde(default)]
    pub command_tokens_id: SecretSource<String>,
    #[serde(default)]
    pub admins: Vec<String>,
    pub email_domain: Option<String>,
    #[serde(default = "ten_minutes")]
    pub remind_before: DurationText,
    #[serde(default = "yes")]
    pub tell_requester: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientSection {
    pub url: Option<String>,
    pub key_id: Option<String>,
    #[serde(default)]
    pub secret: SecretSource<String>,
    #[serde(default)]
    pub secret_file: SecretSource<PathBuf>,
    #[serde(default)]
    pub secret_id: SecretSource<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSection {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// A duration: `90s`, `15m`, `8h` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DurationText(pub Millis);

/// A day or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndDate(pub Timestamp);

impl Scope {
    pub const ALL: [Self; 5] = [
        Self::Request,
        Self::Approve,
        Self::Revoke,
        Self::Config,
        Self::Read,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Approve => "approve",
            Self::Revoke => "revoke",
            Self::Config => "config",
            Self::Read => "read",
        }
    }
}

fn every_scope() -> Vec<Scope> {
    Scope::ALL.into()
}

fn yes() -> bool {
    true
}

fn ten_minutes() -> DurationText {
    DurationText(Millis::minutes(10))
}

fn backend() -> String {
    "backend".into()
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics_listen: None,
            metrics_token: SecretSource::default(),
            metrics_token_file: SecretSource::default(),
            creates_per_second: ServerConfig::CREATES_PER_SECOND,
            create_burst: ServerConfig::CREATE_BURST,
        }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            kind: StoreKind::Sqlite,
            path: "jit.db".into(),
            tables: BTreeMap::new(),
        }
    }
}

impl Default for IdentityCenterSection {
    fn default() -> Self {
        Self {
            mode: Mode::Aws,
            instance_arn: None,
            identity_store_id: None,
            calls_per_second: 10,
        }
    }
}

impl Default for SandboxSection {
    fn default() -> Self {
        Self {
            latency_ms: 300,
            users: Vec::new(),
            path: None,
            seed: 0,
            conflict_rate: 0.0,
            throttle_rate: 0.0,
            fail_rate: 0.0,
            lost_rate: 0.0,
            standing: Vec::new(),
        }
    }
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            default_permission_set: None,
            pending_lifetime: DurationText(Millis::hours(8)),
            max_request_hours: 4,
            max_start_ahead: DurationText(Millis::hours(24 * 30)),
            extension: ExtensionRule::NeedsApproval,
            grant_patience: DurationText(Millis::minutes(15)),
            max_pending_requests: 500,
            admins: Vec::new(),
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".into(),
        }
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        span(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(
                "expected a duration like \"90s\", \"15m\", \"8h\" or \"1h30m\"",
            )
        })
    }
}

impl<'de> Deserialize<'de> for SetSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Ruled {
            arn: String,
            max_request_hours: Option<u32>,
        }
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(arn) => Ok(Self {
                kind: SetKind::IdentityCenter { arn },
                max_request_hours: None,
            }),
            other => {
                let ruled: Ruled = other.try_into().map_err(|error: toml::de::Error| {
                    let rule = "expected an ARN, or { arn = \"…\", max_request_hours = 2 }";
                    serde::de::Error::custom(format!("{rule}: {}", error.message()))
                })?;
                Ok(Self {
                    kind: SetKind::IdentityCenter { arn: ruled.arn },
                    max_request_hours: ruled.max_request_hours,
                })
            }
        }
    }
}

/// Numbers with a unit, the largest unit first: `8h`, `1h30m`, `19m50s`.
fn span(text: &str) -> Option<Millis> {
    let units = [
        ('h', Millis::hours as fn(i64) -> Millis),
        ('m', Millis::minutes),
        ('s', Millis::seconds),
    ];
    let (mut rest, mut all) = (text, 0);
    for (unit, of) in units {
        let Some((number, after)) = rest.split_once(unit) else {
            continue;
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number: u32 = number.parse().ok()?;
        all += of(i64::from(number)).0;
        rest = after;
    }
    (rest.is_empty() && all > 0).then_some(Millis(all))
}

impl<'de> Deserialize<'de> for EndDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text,
            other => other.to_string(),
        };
        Timestamp::parse_first(&text).map(Self).ok_or_else(|| {
            let rule = "expected a day like \"2027-01-31\" or a time like \"2027-01-31T12:00:00Z\"";
            serde::de::Error::custom(rule)
        })
    }
}
