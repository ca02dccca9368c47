//! `jit config check`.

use std::path::Path;

use serde_json::{Value, json};

use super::output::{facts, tell};
use super::{CliContext, Failure};
use crate::app::{self, Purpose};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, IdentityCenterConfig, KeyConfig, Scope, StoreKind};
use crate::domain::{OldCredentialsRule, PermissionSet};
use crate::files;
use crate::identity_center::sdk::{SsoIdentityCenter, Verdict};
use crate::store::sqlite::{OpenError, SqliteStore};

pub(super) async fn check(context: &CliContext, offline: bool) -> Result<(), Failure> {
    let config = match offline {
        true => context.config_offline()?,
        false => context.config().await?,
    };
    let mut asked = match offline {
        true => AwsFindings::default(),
        false => check_aws(&config).await,
    };
    asked.wrong.extend(files_of_jit(&config));
    for warning in &config.warnings {
        tell(&format!("warning: {warning}"));
    }
    let mut value = settings_json(&config);
    value["ok"] = asked.wrong.is_empty().into();
    if asked.identity_center || !asked.wrong.is_empty() {
        value["wrong"] = json!(asked.wrong);
    }
    let mut told = settings(&config);
    let good = asked.good.iter();
    told.extend(good.map(|(name, text)| (name.as_str(), text.clone())));
    let end = match asked.wrong.is_empty() {
        true => "\njit can start with this configuration.",
        false => "",
    };
    context
        .output
        .print(|| format!("{}{end}", facts(&told)), &value)?;
    match asked.wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::Failed(asked.wrong.join("\n"))),
    }
}

/// The answers of AWS about the configuration.
#[derive(Default)]
struct AwsFindings {
    /// Whether jit asked Identity Center.
    identity_center: bool,
    /// A name and a text for each setting that works.
    good: Vec<(String, String)>,
    /// A line for each setting that does not work.
    wrong: Vec<String>,
}

async fn check_aws(config: &Config) -> AwsFindings {
    let mut asked = AwsFindings::default();
    if config.store.kind == StoreKind::Dynamodb {
        match app::service(config, Purpose::Read).await {
            Ok(_) => {
                let good = ("tables".into(), "exist, and jit may read them".into());
                asked.good.push(good);
            }
            Err(error) => asked.wrong.push(format!("store.tables: {error}")),
        }
    }
    if let IdentityCenterConfig::Aws { options, .. } = &config.identity_center {
        asked.identity_center = true;
        let center = SsoIdentityCenter::connect(options.clone()).await;
        for finding in center.inspect(config.policy.end_sessions).await {
            match finding.verdict {
                Verdict::Good { what } => asked.good.push((finding.key, what)),
                Verdict::Bad { why } => asked.wrong.push(format!("{}: {why}", finding.key)),
            }
        }
    }
    asked
}

/// Why jit cannot use its own files; empty if it can.
fn files_of_jit(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    if config.store.kind == StoreKind::Sqlite {
        wrong.extend(store_file(&config.store.path));
    }
    if let (IdentityCenterConfig::Sandbox, Some(path)) =
        (&config.identity_center, &config.sandbox.path)
    {
        wrong.extend(usable_file("sandbox.path", path));
    }
    wrong
}

/// `jit serve` brings an older file up to date, so that one is usable.
fn store_file(path: &Path) -> Option<String> {
    if let Some(why) = usable_file("store.path", path) {
        return Some(why);
    }
    if !path.exists() {
        return None;
    }
    match SqliteStore::open_read_only(path) {
        Ok(_) | Err(OpenError::Older { .. }) => None,
        Err(why) => Some(format!("store.path: {why}")),
    }
}

/// Why jit cannot create or write the file of this key; none if it can.
fn usable_file(key: &str, path: &Path) -> Option<String> {
    files::why_unusable(path).map(|why| format!("{key}: {why}"))
}

fn settings(config: &Config) -> Vec<(&str, String)> {
    let keys: Vec<String> = config
        .keys
        .iter()
        .map(|(id, key)| describe(id, key))
        .collect();
    let keys = match keys.is_empty() {
        true => "none: jit accepts no signed calls".into(),
        false => keys.join("; "),
    };
    let mut told = vec![
        ("listens on", config.server.listen.to_string()),
        ("store", config.store.to_string()),
        ("permission sets", permission_sets(config).join(", ")),
        ("keys", keys),
        ("webhook", webhook(config).unwrap_or_else(|| "none".into())),
    ];
    if config.policy.end_sessions == OldCredentialsRule::PermissionSet {
        let needs = "denied in the inline policy of the permission set; jit needs the statement \
                     EndSessions of infra/iam-policy.json";
        told.push(("old credentials", needs.into()));
    }
    told
}

fn settings_json(config: &Config) -> Value {
    json!({
        "ok": true,
        "listen": config.server.listen,
        "store": config.store.to_string(),
        "permission_sets": permission_sets(config),
        "keys": config.keys.keys().collect::<Vec<_>>(),
        "webhook": webhook(config),
        "warnings": config.warnings,
    })
}

fn permission_sets(config: &Config) -> Vec<&str> {
    let sets = config.policy.permission_sets.keys();
    sets.map(PermissionSet::as_str).collect()
}

fn webhook(config: &Config) -> Option<String> {
    let webhook = config.webhook.as_ref()?;
    Some(config::shown(&webhook.url))
}

fn describe(id: &str, key: &KeyConfig) -> String {
    let scopes: Vec<&str> = key.scopes.iter().copied().map(Scope::as_str).collect();
    let mut told = format!("{id} ({})", scopes.join(" "));
    if key.require_v2 {
        told.push_str(", v2 only");
    }
    if let Some(end) = key.expires {
        let over = if end <= SystemClock.now() {
            "ended"
        } else {
            "ends"
        };
        told.push_str(&format!(", {over} {end}"));
    }
    told
}
