//! Checks the sections of jit.toml, and computes the values that depend on others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use reqwest::Url;
use tracing::Level;

use super::audit::{seal_keys, sealed_since};
use super::file::{
    ClientSection, File, IdentityCenterSection, KeySection, MattermostSection, Mode, PolicySection,
    SandboxSection, SetKind, SetSection, WebhookSection,
};
use super::secret::{self, Elsewhere, Sources};
use super::server::server;
use super::strength;
use super::{
    Client, Config, ConfigError, IdentityCenterConfig, KeyConfig, LogConfig, MattermostConfig,
    StoreConfig, Webhook,
};
use crate::domain::{
    AccessForm, AccountId, Admins, Millis, OldCredentialsRule, PermissionSet, Policy, SetRule,
};
use crate::identity_center::sandbox::{Rates, SandboxOptions, Standing};
use crate::identity_center::sdk::IdentityCenterOptions;
use crate::store::dynamodb::{Table, TableNames};

/// The permitted range of a longest duration, in hours: at most a leap year.
const HOURS: std::ops::RangeInclusive<u32> = 1..=8784;

type CheckResult<T> = Result<T, ConfigError>;

fn wrong<T>(key: impl Into<String>, why: impl Into<String>) -> CheckResult<T> {
    Err(ConfigError::new(key, why))
}

pub(super) fn checked(mut file: File, elsewhere: Elsewhere<'_>) -> CheckResult<Config> {
    let listen = file.server.listen;
    let client = client_and_file(file.client.take(), &listen, elsewhere)?;
    let mut config = sections(file, elsewhere)?;
    strength::distinct(&config)?;
    let (client, file) = client.unzip();
    let client = client.and_then(|client: Client| Url::parse(&client.url).ok());
    config.warnings = strength::warnings(&config, client.as_ref());
    let secrets = config.files.iter().chain(file.iter().flatten());
    let loose = secrets.filter_map(|file| strength::loose_file(file));
    config.warnings.extend(loose);
    Ok(config)
}

fn sections(file: File, elsewhere: Elsewhere<'_>) -> CheckResult<Config> {
    let mut files = Vec::new();
    let kept_elsewhere = file.secret_ids().next().is_some();
    let keys = keys(file.keys, elsewhere, &mut files)?;
    if keys.is_empty() && !file.server.listen.ip().is_loopback() {
        let why = format!(
            "{} can be reached from outside, and there are no keys: add a [keys.…] section \
             (`jit keys generate` makes one) or listen on 127.0.0.1",
            file.server.listen
        );
        return wrong("server.listen", why);
    }
    let tables = tables(&file.store.tables)?;
    let mode = file.identity_center.mode;
    let (permission_sets, rules) = permission_sets(file.permission_sets, mode)?;
    let identity_center = identity_center(file.identity_center, &permission_sets)?;
    let default_set_is_configured = file.policy.default_permission_set.is_some();
    let (end_sessions, chat) = (file.revocation.end_sessions, file.mattermost.as_ref());
    let policy = policy(file.policy, rules, end_sessions, chat)?;
    let webhook = match file.webhook {
        Some(section) => Some(webhook(section, elsewhere, &mut files)?),
        None => None,
    };
    let mattermost = match file.mattermost {
        Some(section) => Some(MattermostConfig {
            default_set_is_configured,
            ..mattermost(section, elsewhere, &mut files)?
        }),
        None => None,
    };
    let server = server(file.server, elsewhere, &mut files)?;
    let sealed_since = sealed_since(&file.audit)?;
    let seal_keys = seal_keys(file.audit, elsewhere, &mut files)?;
    Ok(Config {
        sandbox: sandbox(file.sandbox, &file.store.path, &permission_sets)?,
        server,
        store: StoreConfig {
            kind: file.store.kind,
            path: file.store.path,
            tables,
        },
        identity_center,
        keys,
        log: LogConfig {
            format: file.log.format,
            level: level(&file.log.level)?,
        },
        policy,
        files,
        warnings: Vec::new(),
        kept_elsewhere,
        webhook,
        mattermost,
        accounts: accounts(file.accounts)?,
        seal_keys,
        sealed_since,
    })
}

fn keys(
    sections: BTreeMap<String, KeySection>,
    elsewhere: Elsewhere<'_>,
    files: &mut Vec<PathBuf>,
) -> CheckResult<BTreeMap<String, KeyConfig>> {
    let mut keys: BTreeMap<String, KeyConfig> = BTreeMap::new();
    for (id, section) in sections {
        let name = format!("keys.{id}");
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return wrong(
                name,
                "a key id is 1 to 64 letters, digits and signs, without spaces",
            );
        }
        let sources = Sources {
            section: &name,
            name: "secret",
            secret: section.secret,
            secret_file: section.secret_file,
            secret_id: section.secret_id,
        };
        let (secret, file) = sources.read(elsewhere)?;
        files.extend(file);
        if let Some((other, _)) = keys.iter().find(|(_, key)| key.secret.is_same_as(&secret)) {
            let why =
                format!("has the same secret as keys.{other}: give each key id one of its own");
            return wrong(name, why);
        }
        if section.scopes.is_empty() {
            let why = "is empty, so the key could do nothing; leave it out for all scopes";
            return wrong(format!("{name}.scopes"), why);
        }
        let key = KeyConfig {
            secret,
            scopes: section.scopes.into_iter().collect(),
            require_v2: section.require_v2,
            expires: section.expires.map(|end| end.0),
        };
        keys.insert(id, key);
    }
    Ok(keys)
}

fn tables(given: &BTreeMap<String, String>) -> CheckResult<TableNames> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let known = Table::ALL.map(Table::as_str);
    for (table, name) in given {
        if !known.contains(&table.as_str()) {
            let why = format!("is not a table of jit: the tables are {}", known.join(", "));
            return wrong(format!("store.tables.{table}"), why);
        }
        if !(3..=255).contains(&name.len()) || !name.bytes().all(plain) {
            let why = "is not a DynamoDB table name: use 3 to 255 letters, digits, _ . -";
            return wrong(format!("store.tables.{table}"), why);
        }
    }
    let names = TableNames::named(given);
    for table in Table::ALL {
        let mut others = Table::ALL.into_iter().filter(|other| *other < table);
        if let Some(other) = others.find(|other| names.of(*other) == names.of(table)) {
            let why = format!(
                "is the table of {} as well: give each a name of its own",
                other.as_str()
            );
            return wrong(format!("store.tables.{}", table.as_str()), why);
        }
    }
    Ok(names)
}

fn identity_center(
    section: IdentityCenterSection,
    sets: &BTreeMap<PermissionSet, String>,
) -> CheckResult<IdentityCenterConfig> {
    let like_arn = "expected an ARN like arn:aws:sso:::instance/ssoins-1111111111111111";
    let like_id = "expected an id like d-1111111111";
    let is_arn = |arn: &String| arn.starts_with("arn:aws") && arn.contains(":instance/");
    let instance_arn = section.instance_arn;
    if instance_arn.as_ref().is_some_and(|arn| !is_arn(arn)) {
        return wrong("identity_center.instance_arn", like_arn);
    }
    let is_id = |id: &String| !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic());
    let identity_store_id = section.identity_store_id;
    if identity_store_id.as_ref().is_some_and(|id| !is_id(id)) {
        return wrong("identity_center.identity_store_id", like_id);
    }
    if !(1..=20).contains(&section.calls_per_second) {
        let why = "expected 1 to 20: AWS allows about 20 calls a second to the whole organisation";
        return wrong("identity_center.calls_per_second", why);
    }
    if section.mode == Mode::Sandbox {
        return Ok(IdentityCenterConfig::Sandbox);
    }
    let Some(instance_arn) = instance_arn else {
        let why = format!("is missing; {like_arn} (`aws sso-admin list-instances` shows it)");
        return wrong("identity_center.instance_arn", why);
    };
    let Some(identity_store_id) = identity_store_id else {
        let why = format!("is missing; {like_id} (`aws sso-admin list-instances` shows it)");
        return wrong("identity_center.identity_store_id", why);
    };
    Ok(IdentityCenterConfig::Aws {
        options: IdentityCenterOptions {
            instance_arn,
            identity_store_id,
            permission_sets: sets.clone(),
        },
        calls_per_second: section.calls_per_second,
    })
}

/// The ARNs of the permission sets of Identity Center, and the rules of every permission set.
type Sets = (
    BTreeMap<PermissionSet, String>,
    BTreeMap<PermissionSet, SetRule>,
);

fn permission_sets(named: BTreeMap<PermissionSet, SetSection>, mode: Mode) -> CheckResult<Sets> {
    let named = match (named.is_empty(), mode) {
        (false, _) => named,
        (true, Mode::Aws) => {
            let why = "has no entry: add a line like admin = \"arn:aws:sso:::permissionSet/…\"";
            return wrong("permission_sets", why);
        }
        (true, Mode::Sandbox) => made_up_sets()?,
    };
    let (mut arns, mut rules) = Sets::default();
    for (name, section) in named {
        let form = match section.kind {
            SetKind::IdentityCenter { arn } => {
                check_arn(&name, &arn, &arns, mode)?;
                arns.insert(name.clone(), arn);
                AccessForm::Assignment
            }
        };
        let max_request_hours = section.max_request_hours;
        if max_request_hours.is_some_and(|hours| !HOURS.contains(&hours)) {
            let key = format!("permission_sets.{name}.max_request_hours");
            return wrong(key, "expected 1 to 8784 hours");
        }
        let rule = SetRule {
            form,
            max_request_hours,
        };
        rules.insert(name, rule);
    }
    Ok((arns, rules))
}

fn check_arn(
    name: &PermissionSet,
    arn: &str,
    others: &BTreeMap<PermissionSet, String>,
    mode: Mode,
) -> CheckResult<()> {
    let is_set = arn.contains(":permissionSet/") || arn.contains("/ps-");
    if !arn.starts_with("arn:aws") || !is_set {
        let why = "expected an ARN like \
                   arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111";
        return wrong(format!("permission_sets.{name}"), why);
    }
    // jit would treat two names as two assignments, and AWS as one.
    let same = others.iter().find(|(_, known)| *known == arn);
    if let (Some((other, _)), Mode::Aws) = (same, mode) {
        let why = format!("is the same set as permission_sets.{other}: keep one of the names");
        return wrong(format!("permission_sets.{name}"), why);
    }
    Ok(())
}

/// Returns example permission sets for the sandbox, so that a first try needs none.
fn made_up_sets() -> CheckResult<BTreeMap<PermissionSet, SetSection>> {
    let made = ["admin", "readonly"].iter().zip(1..).map(|(name, number)| {
        let arn = format!("arn:aws:sso:::permissionSet/ssoins-0000000000000000/ps-{number:016}");
        let name = name
            .parse()
            .map_err(|why| ConfigError::new("permission_sets", format!("{why}")))?;
        let max_request_hours = None;
        Ok((
            name,
            SetSection {
                kind: SetKind::IdentityCenter { arn },
                max_request_hours,
            },
        ))
    });
    made.collect()
}

fn policy(
    section: PolicySection,
    sets: BTreeMap<PermissionSet, SetRule>,
    end_sessions: OldCredentialsRule,
    mattermost: Option<&MattermostSection>,
) -> CheckResult<Policy> {
    let known = || {
        let names: Vec<&str> = sets.keys().map(PermissionSet::as_str).collect();
        names.join(", ")
    };
    let key = "policy.default_permission_set";
    let default = match (section.default_permission_set, sets.len()) {
        (Some(set), _) if sets.contains_key(&set) => set,
        (Some(set), _) => {
            let why = format!(
                "{set} is not among the permission_sets; known are {}",
                known()
            );
            return wrong(key, why);
        }
        (None, _) => match sets
            .keys()
            .find(|set| sets.len() == 1 || set.as_str() == "admin")
        {
            Some(set) => set.clone(),
            None => {
                let why = format!("is missing: name one of the permission_sets: {}", known());
                return wrong(key, why);
            }
        },
    };
    if !HOURS.contains(&section.max_request_hours) {
        return wrong("policy.max_request_hours", "expected 1 to 8784 hours");
    }
    if !(1..=100_000).contains(&section.max_pending_requests) {
        return wrong("policy.max_pending_requests", "expected 1 to 100000");
    }
    Ok(Policy {
        permission_sets: sets,
        end_sessions,
        default_permission_set: default,
        pending_lifetime: section.pending_lifetime.0,
        max_request_hours: section.max_request_hours,
        max_start_ahead: section.max_start_ahead.0,
        extension: section.extension,
        grant_patience: section.grant_patience.0,
        max_pending_requests: section.max_pending_requests,
        admins: Admins::of_policy(section.admins)
            .and_of_mattermost(mattermost.iter().flat_map(|section| section.admins.clone())),
        // Without Mattermost there is no chat to which jit could send a reminder.
        remind_before: mattermost.map(|section| section.remind_before.0),
    })
}

fn sandbox(
    section: SandboxSection,
    store: &Path,
    sets: &BTreeMap<PermissionSet, String>,
) -> CheckResult<SandboxOptions> {
    let rate = |name: &str, rate: f64| {
        if (0.0..=1.0).contains(&rate) {
            return Ok(rate);
        }
        wrong(
            format!("sandbox.{name}_rate"),
            "expected a number from 0 to 1",
        )
    };
    let standing = section.standing.iter().map(|text| {
        standing(text)
            .filter(|one| sets.contains_key(&one.permission_set))
            .ok_or_else(|| {
                let why = format!("{text:?} is not account/permission_set/email with a known set");
                ConfigError::new("sandbox.standing", why)
            })
    });
    Ok(SandboxOptions {
        standing: standing.collect::<CheckResult<_>>()?,
        // The file is beside the store, because the state of the simulated AWS must survive a
        // crash too.
        path: Some(
            section
                .path
                .unwrap_or_else(|| store.with_added_extension("sandbox")),
        ),
        latency: Millis(i64::from(section.latency_ms)),
        users: section.users,
        seed: section.seed,
        rates: Rates {
            conflict: rate("conflict", section.conflict_rate)?,
            throttle: rate("throttle", section.throttle_rate)?,
            fail: rate("fail", section.fail_rate)?,
            lost: rate("lost", section.lost_rate)?,
        },
    })
}

fn standing(text: &str) -> Option<Standing> {
    let (account, rest) = text.split_once('/')?;
    let (set, email) = rest.split_once('/')?;
    Some(Standing {
        account_id: account.parse().ok()?,
        permission_set: set.parse().ok()?,
        email: email.parse().ok()?,
    })
}

fn address(key: &str, text: &str, like: &str) -> CheckResult<Url> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => wrong(key, format!("expected an address like {like}")),
    }
}

fn webhook(
    section: WebhookSection,
    elsewhere: Elsewhere<'_>,
    files: &mut Vec<PathBuf>,
) -> CheckResult<Webhook> {
    let like = "https://mattermost.example.com/plugins/com.example.jit/webhook";
    let url = address("webhook.url", &section.url, like)?;
    let sources = Sources {
        section: "webhook",
        name: "secret",
        secret: section.secret,
        secret_file: section.secret_file,
        secret_id: section.secret_id,
    };
    let (secret, file) = sources.read(elsewhere)?;
    files.extend(file);
    let signed_path = match section.signed_path {
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            return wrong(
                "webhook.signed_path",
                "must begin with a slash, like \"/webhook\"",
            );
        }
        None => seen_by_plugin(url.path()),
    };
    Ok(Webhook {
        url,
        key_id: section.key_id,
        secret,
        signed_path,
    })
}

fn mattermost(
    section: MattermostSection,
    elsewhere: Elsewhere<'_>,
    files: &mut Vec<PathBuf>,
) -> CheckResult<MattermostConfig> {
    let like = "https://mattermost.example.com";
    let url = address("mattermost.url", &section.url, like)?;
    let like = "https://jit.example.com, where Mattermost reaches jit";
    let public_url = address("mattermost.public_url", &section.public_url, like)?;
    let is_id =
        section.team_id.len() == 26 && section.team_id.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_id {
        let why = "expected the 26 letters and digits of a team's id: commands of other teams are refused";
        return wrong("mattermost.team_id", why);
    }
    let bot = Sources {
        section: "mattermost",
        name: "bot_token",
        secret: section.bot_token,
        secret_file: section.bot_token_file,
        secret_id: section.bot_token_id,
    };
    let (bot_token, file) = bot.read(elsewhere)?;
    files.extend(file);
    let tokens = Sources {
        section: "mattermost",
        name: "command_tokens",
        secret: section.command_tokens.lines(),
        secret_file: section.command_tokens_file,
        secret_id: section.command_tokens_id,
    };
    let (tokens, file) = tokens.read(elsewhere)?;
    files.extend(file);
    let command_tokens = secret::tokens(&tokens);
    if command_tokens.is_empty() {
        return wrong(
            "mattermost.command_tokens",
            "is empty: add the token of the slash command /jit",
        );
    }
    let email_domain = section
        .email_domain
        .map(|domain| domain.trim_matches(['@', '.']).to_lowercase());
    Ok(MattermostConfig {
        url,
        public_url,
        team_id: section.team_id,
        bot_token,
        command_tokens,
        email_domain,
        tell_requester: section.tell_requester,
        default_set_is_configured: false,
    })
}

/// Checks that each name is one word and belongs to one account only.
pub(super) fn accounts(
    names: BTreeMap<AccountId, String>,
) -> CheckResult<BTreeMap<AccountId, String>> {
    let mut known = BTreeSet::new();
    for (id, name) in &names {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        let has_letter = name.chars().any(char::is_alphabetic);
        if name.len() > 64 || !has_letter || !name.chars().all(is_word) {
            let why = "expected a name of one word, with letters, like \"acme-prod\"";
            return wrong(format!("accounts.{id}"), why);
        }
        if !known.insert(name.to_lowercase()) {
            let why = format!("{name} is already the name of another account");
            return wrong(format!("accounts.{id}"), why);
        }
    }
    Ok(names)
}

/// Returns the path that the plugin sees: Mattermost removes `/plugins/<plugin id>`.
pub(super) fn seen_by_plugin(path: &str) -> String {
    let inside = path
        .strip_prefix("/plugins/")
        .map(|rest| rest.split_once('/').map_or("", |(_, inside)| inside));
    match inside {
        Some(inside) => format!("/{inside}"),
        None => path.to_owned(),
    }
}

pub(super) fn client(
    section: Option<ClientSection>,
    listen: &std::net::SocketAddr,
    elsewhere: Elsewhere<'_>,
) -> CheckResult<Option<Client>> {
    let found = client_and_file(section, listen, elsewhere)?;
    Ok(found.map(|(client, _)| client))
}

/// Returns the client and the file of its secret.
fn client_and_file(
    section: Option<ClientSection>,
    listen: &std::net::SocketAddr,
    elsewhere: Elsewhere<'_>,
) -> CheckResult<Option<(Client, Option<PathBuf>)>> {
    let Some(section) = section else {
        return Ok(None);
    };
    let url = section.url.unwrap_or_else(|| format!("http://{listen}"));
    address("client.url", &url, "https://jit.example.com")?;
    let Some(key_id) = section.key_id else {
        return wrong(
            "client.key_id",
            "is missing: give the id of the key with which to sign",
        );
    };
    let sources = Sources {
        section: "client",
        name: "secret",
        secret: section.secret,
        secret_file: section.secret_file,
        secret_id: section.secret_id,
    };
    let (secret, file) = sources.read(elsewhere)?;
    let url = url.trim_end_matches('/').to_owned();
    let client = Client {
        url,
        key_id,
        secret,
    };
    Ok(Some((client, file)))
}

fn level(text: &str) -> CheckResult<Level> {
    let known = ["error", "warn", "info", "debug", "trace"];
    match text.parse() {
        Ok(level) if known.contains(&text) => Ok(level),
        _ => wrong(
            "log.level",
            format!("{text:?} is not one of {}", known.join(", ")),
        ),
    }
}
