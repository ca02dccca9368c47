//! Refuses secrets that are easy to guess or that two parties share, and collects warnings about
//! settings that are accepted but unsafe.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use reqwest::Url;
use toml::{Table, Value};

use super::{Config, ConfigError};
use crate::files;
use crate::signature::Secret;

/// The shortest secret that jit accepts, in bytes. `jit keys generate` makes 64.
const SHORTEST: usize = 8;

/// The beginning of the secrets in jit.example.toml, which are public.
pub const OF_THE_EXAMPLE: &str = "change-me";

/// A secret with fewer different characters than this is no random text.
const FEWEST_DIFFERENT: usize = 5;

/// The words that people often use as secrets; digits and signs may follow.
const USUAL_WORDS: [&str; 16] = [
    "password",
    "passwort",
    "passw0rd",
    "secret",
    "changeme",
    "changeit",
    "letmein",
    "iloveyou",
    "qwerty",
    "qwertz",
    "admin",
    "administrator",
    "welcome",
    "default",
    "qwertyui",
    "qwertyuiop",
];
const USUAL_NUMBERS: &str = "12345678901234567890";

/// Refuses a secret that is too short or public.
pub(super) fn check(key: &str, secret: &Secret, made: &str) -> Result<(), ConfigError> {
    let plain = secret.expose().to_lowercase().replace('_', "-");
    if plain.starts_with(OF_THE_EXAMPLE) {
        let why = format!("is the value of jit.example.toml, which is public{made}");
        return Err(ConfigError::new(key, why));
    }
    if secret.expose().len() < SHORTEST {
        let why = format!("is shorter than {SHORTEST} bytes, so it can be guessed{made}");
        return Err(ConfigError::new(key, why));
    }
    Ok(())
}

fn is_usual(secret: &str) -> bool {
    let different: BTreeSet<char> = secret.chars().collect();
    let word = secret.trim_end_matches(|c: char| !c.is_alphabetic());
    different.len() < FEWEST_DIFFERENT
        || USUAL_WORDS.contains(&word.to_lowercase().as_str())
        || USUAL_NUMBERS.contains(secret)
}

/// Refuses a secret that two parties know: each could sign as the other. The secrets of the client
/// are those of a key.
pub(super) fn distinct(config: &Config) -> Result<(), ConfigError> {
    let mut known: Vec<(String, &Secret)> = Vec::new();
    for (name, secret) in named(config) {
        let same = known.iter().find(|(_, other)| other.is_same_as(secret));
        if let Some((other, _)) = same.filter(|(other, _)| *other != name) {
            let why = format!("has the same secret as {other}: give each one of its own");
            return Err(ConfigError::new(name, why));
        }
        known.push((name, secret));
    }
    Ok(())
}

/// Every secret that lets its holder act, with the name of its section or key.
fn named(config: &Config) -> Vec<(String, &Secret)> {
    let keys = config.keys.iter();
    let mut all: Vec<(String, &Secret)> = keys
        .map(|(id, key)| (format!("keys.{id}"), &key.secret))
        .collect();
    if let Some(webhook) = &config.webhook {
        all.push(("webhook".into(), &webhook.secret));
    }
    if let Some(token) = &config.server.metrics_token {
        all.push(("server.metrics_token".into(), token));
    }
    if let Some(seal_key) = config.seal_keys.present() {
        all.push(("audit.seal_key".into(), seal_key));
    }
    let older = config.seal_keys.older();
    all.extend(older.map(|key| ("audit.old_seal_keys".into(), key)));
    if let Some(mattermost) = &config.mattermost {
        all.push(("mattermost.bot_token".into(), &mattermost.bot_token));
        let tokens = mattermost.command_tokens.iter();
        all.extend(tokens.map(|token| ("mattermost.command_tokens".into(), token)));
    }
    all
}

/// Returns a line for each setting that is accepted although other people could use it. `client` is
/// the address of the section `[client]`.
pub(super) fn warnings(config: &Config, client: Option<&Url>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, secret) in named(config) {
        let next = match name.starts_with("mattermost.") {
            true => "regenerate it in Mattermost",
            false => "`jit keys generate` makes one",
        };
        // jit refuses a short secret that Mattermost does not make.
        if secret.expose().len() < SHORTEST {
            let why = format!("is shorter than {SHORTEST} bytes, so it can be guessed");
            found.push(format!("{name}: {why}: {next}"));
        } else if is_usual(secret.expose()) {
            let why = "is one of the secrets that are guessed first";
            found.push(format!("{name}: {why}: {next}"));
        }
    }
    let listen = config.server.listen;
    if !listen.ip().is_loopback() {
        found.push(format!(
            "server.listen: {listen} can be reached from outside, and jit has no TLS: put a proxy with \
             TLS in front of it, or listen on 127.0.0.1"
        ));
    }
    if let Some(own) = config.server.metrics_listen
        && !own.ip().is_loopback()
    {
        found.push(format!(
            "server.metrics_listen: {own} can be reached from outside, and /metrics needs no token \
             there: listen on 127.0.0.1, or set server.metrics_token instead"
        ));
    }
    let webhook = config.webhook.as_ref().map(|webhook| &webhook.url);
    let mattermost = config.mattermost.as_ref();
    let addresses = [
        ("webhook.url", webhook),
        ("client.url", client),
        ("mattermost.url", mattermost.map(|section| &section.url)),
        (
            "mattermost.public_url",
            mattermost.map(|section| &section.public_url),
        ),
    ];
    for (key, url) in addresses {
        found.extend(url.and_then(|url| unencrypted(key, url)));
    }
    found
}

/// Returns a warning about an address to which jit sends texts without TLS.
fn unencrypted(key: &str, url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| is_public(host))?;
    (url.scheme() == "http").then(|| {
        format!("{key}: http:// to {host} can be read and changed on the way: use https://")
    })
}

/// Returns a warning about a file that contains a secret and that more users than its group may
/// read.
pub fn loose_file(file: &Path) -> Option<String> {
    let mode = files::too_loose_for_a_secret(file)?;
    let file = file.display();
    Some(format!(
        "{file} contains a secret and has the mode {mode:04o}, so other users can read or change it: \
         chmod 640 {file}"
    ))
}

/// The keys under which a jit.toml has a secret itself.
const SECRET_KEYS: [&str; 6] = [
    "secret",
    "metrics_token",
    "bot_token",
    "command_tokens",
    "seal_key",
    "old_seal_keys",
];

/// Reports whether a jit.toml itself contains a secret.
pub(super) fn holds_secret(text: &str) -> bool {
    fn inside(table: &Table) -> bool {
        table.iter().any(|(name, value)| match value {
            Value::Table(section) => inside(section),
            Value::String(_) | Value::Array(_) => SECRET_KEYS.contains(&name.as_str()),
            _ => false,
        })
    }
    text.parse().is_ok_and(|table: Table| inside(&table))
}

/// Reports whether a host is outside of the own network, as far as its name tells.
fn is_public(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse();
    match address.map(|address: IpAddr| address.to_canonical()) {
        Ok(IpAddr::V4(ip)) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        Ok(IpAddr::V6(ip)) => {
            !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
        Err(_) => {
            let inside = [
                ".local",
                ".localhost",
                ".internal",
                ".lan",
                ".svc",
                ".home.arpa",
            ];
            host.contains('.') && !inside.iter().any(|end| host.ends_with(end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D1
    #[test]
    fn a_file_with_a_secret_that_more_than_its_group_may_read_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, is_loose) in [
            (0o600, false),
            (0o640, false),
            (0o644, true),
            (0o660, true),
            (0o604, true),
        ] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), mode.clone()).unwrap();
            let told = loose_file(file.path());
            assert_eq!(told.is_some(), is_loose, "{mode:?}: {told:?}");
            let next = format!("chmod 640 {}", file.path().display());
            assert!(told.is_none_or(|told| told.ends_with(&next)));
        }
        assert_eq!(loose_file(Path::new("/no/such/file")), None);
    }

    // D4
    #[test]
    fn only_http_to_another_network_is_warned_about() {
        for (address, public) in [
            ("http://jit.example.com", true),
            ("http://8.8.8.8:8080/webhook", true),
            ("http://[2001:db8::1]/", true),
            ("https://jit.example.com", false),
            ("http://127.0.0.1:8065", false),
            ("http://[::1]:8065", false),
            ("http://[::ffff:127.0.0.1]:8065", false),
            ("http://[::ffff:8.8.8.8]:8065", true),
            ("http://10.1.2.3", false),
            ("http://mattermost:8065", false),
            ("http://mattermost.team.svc", false),
        ] {
            let url = Url::parse(address).unwrap();
            let warned = unencrypted("webhook.url", &url);
            assert_eq!(warned.is_some(), public, "{address}: {warned:?}");
        }
    }
}
