//! `jit config check` and `jit keys generate`.

use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::output::facts;
use super::{CliContext, Failure};
use crate::app::{self, Purpose};
use crate::clock::{Clock, SystemClock};
use crate::config::{IdentityCenterConfig, KeyConfig, Scope, StoreKind};
use crate::domain::{EndSessions, PermissionSet};
use crate::identity_center::sdk::{SsoIdentityCenter, Verdict};

pub(super) async fn check(context: &CliContext, offline: bool) -> Result<(), Failure> {
    let config = match offline {
        true => context.config_offline()?,
        false => context.config().await?,
    };
    let sets: Vec<&str> = config
        .policy
        .permission_sets
        .keys()
        .map(PermissionSet::as_str)
        .collect();
    let webhook = config.webhook.as_ref().map(|webhook| webhook.url.as_str());
    let mut value = json!({
        "ok": true,
        "listen": config.server.listen,
        "store": config.store.to_string(),
        "permission_sets": sets,
        "keys": config.keys.keys().collect::<Vec<_>>(),
        "webhook": webhook,
    });
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
        ("permission sets", sets.join(", ")),
        ("keys", keys),
        ("webhook", webhook.unwrap_or("none").to_owned()),
    ];
    if config.policy.end_sessions == EndSessions::PermissionSet {
        let needs = "denied in the inline policy of the permission set; jit needs the statement \
                     EndSessions of infra/iam-policy.json";
        told.push(("old credentials", needs.into()));
    }
    let found = match &config.identity_center {
        IdentityCenterConfig::Aws { options, .. } if !offline => {
            let center = SsoIdentityCenter::connect(options.clone()).await;
            center.inspect(config.policy.end_sessions).await
        }
        _ => Vec::new(),
    };
    let mut wrong = Vec::new();
    if config.store.kind == StoreKind::Dynamodb && !offline {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        match app::store(&config.store, Purpose::Look, &clock).await {
            Ok(_) => told.push(("tables", "exist, and jit may read them".into())),
            Err(error) => wrong.push(format!("store.tables: {error}")),
        }
    }
    for finding in &found {
        match &finding.verdict {
            Verdict::Good { what } => told.push((&finding.key, what.clone())),
            Verdict::Bad { why } => wrong.push(format!("{}: {why}", finding.key)),
        }
    }
    value["ok"] = wrong.is_empty().into();
    if !found.is_empty() || !wrong.is_empty() {
        value["wrong"] = json!(wrong);
    }
    let end = match wrong.is_empty() {
        true => "\njit can start with this configuration.",
        false => "",
    };
    context
        .output
        .say(|| format!("{}{end}", facts(&told)), &value)?;
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::Failed(wrong.join("\njit: "))),
    }
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

pub(super) fn generate_key(context: &CliContext, id: &str) -> Result<(), Failure> {
    if id.is_empty()
        || !id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        let why = format!("{id:?} is not a key id: use letters, digits, - and _");
        return Err(Failure::Usage(why));
    }
    // Three draws have more random bits than the digest.
    let mut chance = Sha256::new();
    for _ in 0..3 {
        chance.update(SystemClock.draw());
    }
    let secret = hex::encode(chance.finalize());
    let value = json!({"key_id": id, "secret": secret});
    context
        .output
        .say(|| format!("[keys.{id}]\nsecret = \"{secret}\""), &value)
}
