//! No command prints a value of a key that can hold a secret, whatever is wrong with it.

use std::path::Path;
use std::process::Command;

use crate::common::binary;

/// Stands for a secret.
const MARKER: &str = "marker-7f3a9c51e2d84b60";

/// Every key that can hold a secret, and every key beside one that a secret could be typed into.
const KEYS: [&str; 44] = [
    "keys",
    "keys.plugin",
    "keys.plugin.secret",
    "keys.plugin.secret_file",
    "keys.plugin.secret_id",
    "keys.plugin.scopes",
    "keys.plugin.require_v2",
    "keys.plugin.expires",
    "webhook",
    "webhook.url",
    "webhook.secret",
    "webhook.secret_file",
    "webhook.secret_id",
    "client",
    "client.url",
    "client.secret",
    "client.secret_file",
    "client.secret_id",
    "server",
    "server.metrics_token",
    "server.metrics_token_file",
    "mattermost",
    "mattermost.url",
    "mattermost.public_url",
    "mattermost.bot_token",
    "mattermost.bot_token_file",
    "mattermost.bot_token_id",
    "mattermost.command_tokens",
    "mattermost.command_tokens_file",
    "mattermost.command_tokens_id",
    "mattermost.remind_before",
    "mattermost.tell_requester",
    "audit",
    "audit.seal_key",
    "audit.seal_key_file",
    "audit.seal_key_id",
    "audit.sealed_since",
    "permission_sets.admin",
    "audit.seal_key",
    "audit.seal_key_file",
    "audit.seal_key_id",
    "audit.old_seal_keys",
    "audit.old_seal_keys_file",
    "audit.old_seal_keys_id",
];

/// The other keys of the section, so that jit comes to the key.
fn rest(key: &str) -> Vec<(&'static str, &'static str)> {
    let whole: &[(&str, &str)] = match key.split('.').next().unwrap() {
        "webhook" => &[
            ("url", "\"http://127.0.0.1:1/webhook\""),
            ("secret", "\"of-the-webhook-0123\""),
        ],
        "client" => &[
            ("url", "\"http://127.0.0.1:1\""),
            ("key_id", "\"plugin\""),
            ("secret", "\"of-the-client-0123\""),
        ],
        "mattermost" => &[
            ("url", "\"http://127.0.0.1:1\""),
            ("public_url", "\"http://127.0.0.1:1\""),
            ("team_id", "\"w1gu5cusqjgfppy84xsohzij6o\""),
            ("bot_token", "\"the-token-of-the-bot\""),
            ("command_tokens", "[\"the-token-of-the-command\"]"),
        ],
        "keys" => &[("secret", "\"of-the-key-0123456\"")],
        "audit" => &[("seal_key", "\"of-the-seal-0123456\"")],
        _ => &[],
    };
    let last = key.rsplit('.').next().unwrap();
    let source = ["_file", "_id"]
        .iter()
        .find_map(|end| last.strip_suffix(end));
    let other = |name: &str| name != last && Some(name) != source;
    whole
        .iter()
        .copied()
        .filter(|(name, _)| other(name))
        .collect()
}

/// The section with the key, written with this value; none if the key is a whole section.
fn section(key: &str, value: Option<&str>) -> String {
    let Some((header, name)) = key.rsplit_once('.') else {
        return value.map_or_else(String::new, |value| format!("{key} = {value}\n"));
    };
    let lines = rest(key);
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    let line = value.map_or_else(String::new, |value| format!("{name} = {value}\n"));
    match key.matches('.').count() {
        1 if header == "keys" => format!("[keys]\n{line}"),
        _ => format!("[{header}]\n{line}{lines}"),
    }
}

fn shows(folder: &Path, variable: Option<(&str, &str)>, words: &[&str]) -> (bool, String) {
    let mut jit: Command = binary();
    jit.args(words)
        .arg("--config")
        .arg(folder.join("jit.toml"))
        .env("JIT_IDENTITY_CENTER__MODE", "sandbox")
        .env("JIT_STORE__PATH", folder.join("jit.db"))
        .env("AWS_ACCESS_KEY_ID", "example")
        .env("AWS_SECRET_ACCESS_KEY", "example")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    if let Some((name, value)) = variable {
        jit.env(name, value);
    }
    let ran = jit.output().unwrap();
    let out = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8(out).unwrap())
}

/// Runs commands that read the configuration; `serve` only if it cannot start.
fn check(folder: &Path, variable: Option<(&str, &str)>, what: &str) {
    let commands: [&[&str]; 6] = [
        &["config", "check", "--offline"],
        &["config", "check"],
        &["config", "check", "-o", "json"],
        &["list", "--status", "PENDING"],
        &["audit", "verify"],
        &["mattermost", "check"],
    ];
    let mut can_start = true;
    for words in commands {
        let (good, shown) = shows(folder, variable, words);
        assert!(!shown.contains(MARKER), "{what}: {words:?}: {shown}");
        if words == ["config", "check"] {
            can_start = good;
        }
    }
    if !can_start {
        let (_, shown) = shows(folder, variable, &["serve"]);
        assert!(!shown.contains(MARKER), "{what}: serve: {shown}");
    }
}

// D3
#[test]
fn no_command_shows_the_value_of_a_key_that_can_hold_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let url = format!("https://user:{MARKER}@127.0.0.1:1/{MARKER}?token={MARKER}");
    for key in KEYS {
        for value in [
            format!("\"{MARKER}\""),
            format!("[\"{MARKER}\"]"),
            format!("{{ a = \"{MARKER}\" }}"),
            MARKER.to_owned(),
            format!("\"{MARKER}"),
            format!("\"{url}\""),
            format!("\"/run/secrets/{MARKER}, expected `{MARKER}`\""),
        ] {
            let text = section(key, Some(&value));
            std::fs::write(folder.join("jit.toml"), &text).unwrap();
            check(folder, None, &text);
        }
        std::fs::write(folder.join("jit.toml"), section(key, None)).unwrap();
        let variable = format!("JIT_{}", key.to_uppercase().replace('.', "__"));
        for value in [MARKER, &url, &format!("[\"{MARKER}\"]")] {
            check(
                folder,
                Some((&variable, value)),
                &format!("{variable}={value}"),
            );
        }
    }
}
