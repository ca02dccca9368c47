//! The configuration, and keys for it.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::output::facts;
use super::{Context, Failure};
use crate::clock::{Clock, SystemClock};
use crate::config::{Key, Scope};
use crate::domain::PermissionSet;

pub(super) fn check(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    config.check_supported()?;
    let sets: Vec<&str> = config
        .permission_sets
        .keys()
        .map(PermissionSet::as_str)
        .collect();
    let listen = config.server.listen.to_string();
    let store = config.store.path.display().to_string();
    let webhook = config
        .webhook
        .as_ref()
        .map(|webhook| webhook.url.to_string());
    let keys = config.keys.iter().map(|(id, key)| describe(id, key));
    let keys = keys.collect::<Vec<_>>().join("; ");
    let value = json!({
        "ok": true,
        "listen": listen,
        "store": store,
        "permission_sets": sets,
        "keys": config.keys.keys().collect::<Vec<_>>(),
        "webhook": webhook,
    });
    let text = || {
        let told = facts(&[
            ("listens on", listen.clone()),
            ("store", store.clone()),
            ("permission sets", sets.join(", ")),
            (
                "keys",
                if keys.is_empty() {
                    "none: nobody can call".into()
                } else {
                    keys.clone()
                },
            ),
            (
                "webhook",
                webhook
                    .clone()
                    .unwrap_or_else(|| "none: nobody is told".into()),
            ),
        ]);
        format!("{told}\njit could start with this.")
    };
    context.output.say(text, &value)
}

fn describe(id: &str, key: &Key) -> String {
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

pub(super) fn generate_key(context: &Context, id: &str) -> Result<(), Failure> {
    if id.is_empty()
        || !id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        let why = format!("{id:?} is no key id: letters, digits, - and _");
        return Err(Failure::Usage(why));
    }
    // Three draws hold more chance than a digest has room for.
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
