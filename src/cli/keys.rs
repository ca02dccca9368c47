//! `jit keys generate`: prints a new key, or writes it into jit.toml.

use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};
use toml::Table;

use super::output::{Output, tell};
use super::{CliContext, Failure};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, OF_THE_EXAMPLE};
use crate::files;

pub(super) fn generate(context: &CliContext, id: &str, write: bool) -> Result<(), Failure> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if id.is_empty() || !id.bytes().all(is_plain) {
        let why = format!("{id:?} is not a key id: use letters, digits, - and _");
        return Err(Failure::Usage(why));
    }
    // Three draws have more random bits than the digest.
    let mut chance = Sha256::new();
    for _ in 0..3 {
        chance.update(SystemClock.draw());
    }
    let secret = hex::encode(chance.finalize());
    if write {
        return write_key(context, id, &secret);
    }
    // Before the output: the shell may append it to this file.
    let repeated = repeated(context, id);
    let value = json!({"key_id": id, "secret": secret});
    let section = || format!("[keys.{id}]\nsecret = \"{secret}\"");
    context.output.print(section, &value)?;
    if let (Some(file), Output::Text) = (repeated, context.output) {
        let file = file.display();
        tell(&format!(
            "{file} has a section [keys.{id}] already: put the secret there, not the section; \
             `jit keys generate {id} --write` does this if the section has no secret of its own"
        ));
    }
    Ok(())
}

/// Returns the configuration file if it has a section for this key.
fn repeated(context: &CliContext, id: &str) -> Option<PathBuf> {
    let found = config::find(context.config_path.as_deref(), &context.variables);
    let (file, text) = found.ok()?;
    section_of(&text, &["keys", id]).map(|_| file)
}

fn write_key(context: &CliContext, id: &str, secret: &str) -> Result<(), Failure> {
    let (file, text) = config::find(context.config_path.as_deref(), &context.variables)?;
    let (text, with_client) = edited(&text, id, secret)
        .map_err(|why| Failure::Failed(format!("{}: {why}", file.display())))?;
    // The operator may be in another folder than jit.
    let is_new = !file.exists();
    put(&file, &text)?;
    let value = json!({"key_id": id, "file": file, "client": with_client, "made_file": is_new});
    let told = || {
        let also = if with_client { " and of [client]" } else { "" };
        let into = if is_new { "the new file " } else { "" };
        format!(
            "wrote the secret of [keys.{id}]{also} into {into}{}",
            file.display()
        )
    };
    context.output.print(told, &value)?;
    if let Some(warning) = config::loose_file(&file) {
        tell(&format!("warning: {warning}"));
    }
    Ok(())
}

/// Writes the file. A file that exists keeps its mode.
fn put(file: &Path, text: &str) -> Result<(), Failure> {
    // The new file must not take the place of a link.
    let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    files::replace(&target, text)
        .map_err(|why| Failure::Failed(format!("{} cannot be written: {why}", file.display())))
}

/// Returns the text with the secret of the key, and of the client if it signs with this key; and
/// whether it does. All other lines stay as they are.
fn edited(text: &str, id: &str, secret: &str) -> Result<(String, bool), String> {
    let by_hand = |section: &str| {
        format!(
            "jit cannot change its section [{section}]: make the secret with `jit keys generate {id}` and put it there"
        )
    };
    let header = format!("keys.{id}");
    let mut changed = match section_of(text, &["keys", id]) {
        None if text.is_empty() => format!("[{header}]\nsecret = \"{secret}\"\n"),
        None => format!("{}\n\n[{header}]\nsecret = \"{secret}\"\n", text.trim_end()),
        Some(section) if !takes_a_secret(&section) => {
            return Err(format!(
                "[{header}] has a secret already, which callers may use: make a key with another id, \
                 `jit keys generate {id}-2 --write`, and then remove this one"
            ));
        }
        Some(_) => with_secret(text, &header, secret).ok_or_else(|| by_hand(&header))?,
    };
    let client = section_of(text, &["client"]);
    let signs = |client: &Table| client.get("key_id").and_then(|id| id.as_str()) == Some(id);
    let with_client = client.is_some_and(|client| signs(&client) && takes_a_secret(&client));
    if with_client {
        changed = with_secret(&changed, "client", secret).ok_or_else(|| by_hand("client"))?;
    }
    let has = |path: &[&str]| {
        let section = section_of(&changed, path);
        section
            .is_some_and(|section| section.get("secret").and_then(|s| s.as_str()) == Some(secret))
    };
    if !has(&["keys", id]) || (with_client && !has(&["client"])) {
        return Err(by_hand(&header));
    }
    Ok((changed, with_client))
}

/// Reports whether a section has no secret yet, or only the one of jit.example.toml.
fn takes_a_secret(section: &Table) -> bool {
    let is_open = |text: &str| text.is_empty() || text.starts_with(OF_THE_EXAMPLE);
    let secret = section.get("secret");
    let elsewhere = ["secret_file", "secret_id"]
        .iter()
        .any(|key| section.contains_key(*key));
    !elsewhere && secret.is_none_or(|secret| secret.as_str().is_some_and(is_open))
}

fn section_of(text: &str, path: &[&str]) -> Option<Table> {
    let mut at: Table = text.parse().ok()?;
    for name in path {
        at = match at.remove(*name)? {
            toml::Value::Table(section) => section,
            _ => return None,
        };
    }
    Some(at)
}

/// Returns the text with the line `secret = "…"` in the section with this header.
fn with_secret(text: &str, header: &str, secret: &str) -> Option<String> {
    let header_of = |line: &str| {
        let line = line.trim().strip_prefix('[')?;
        Some(line.split_once(']')?.0.trim().to_owned())
    };
    let lines: Vec<&str> = text.lines().collect();
    let start = lines
        .iter()
        .position(|line| header_of(line).as_deref() == Some(header))?
        + 1;
    let length = lines[start..]
        .iter()
        .position(|line| line.trim().starts_with('['));
    let end = length.map_or(lines.len(), |length| start + length);
    let is_secret = |line: &&str| {
        let name = line.split_once('=').map(|(name, _)| name.trim());
        name == Some("secret")
    };
    let old = lines[start..end]
        .iter()
        .position(is_secret)
        .map(|at| start + at);
    let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let new = format!("secret = \"{secret}\"");
    match old {
        Some(at) => changed[at] = new,
        None => changed.insert(start, new),
    }
    Some(changed.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    // D1: a full disk left an empty file, without the keys of all callers.
    #[test]
    fn d1_a_file_that_cannot_be_written_keeps_its_keys() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("jit.toml"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        put(&link, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert!(link.is_symlink());
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        // A folder has the name of the temporary file.
        std::fs::create_dir(files::beside(&file, ".jit-new")).unwrap();
        let why = put(&file, "other").unwrap_err().to_string();
        assert!(why.contains("cannot be written"), "{why}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
    }

    // H5
    #[test]
    fn a_key_is_written_once_and_everything_else_stays() {
        let example = include_str!("../../jit.example.toml");
        let (first, with_client) = edited(example, "plugin", "s1").unwrap();
        assert!(with_client);
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let (before, after) = (lines(example), lines(&first));
        assert_eq!(before.len(), after.len());
        let changed = before.iter().zip(&after).filter(|(old, new)| old != new);
        let changed: Vec<&str> = changed.map(|(_, new)| new.as_str()).collect();
        assert_eq!(changed, ["secret = \"s1\""; 2]);
        // A key that callers may use is not replaced.
        assert!(
            edited(&first, "plugin", "s2")
                .unwrap_err()
                .contains("plugin-2")
        );
        let (second, with_client) = edited(&first, "plugin-2", "s2").unwrap();
        assert!(!with_client && second.starts_with(&first));
    }

    // H5
    #[test]
    fn a_file_that_jit_cannot_edit_stays_as_it_is() {
        for text in ["keys = { a = { scopes = [] } }", "keys.a.require_v2 = true"] {
            assert!(
                edited(text, "a", "s").unwrap_err().contains("[keys.a]"),
                "{text}"
            );
        }
        assert_eq!(
            edited("", "a", "s").unwrap().0,
            "[keys.a]\nsecret = \"s\"\n"
        );
        let empty = "[keys.a] # the key\n\n[log]\nlevel = \"info\"\n";
        let filled = "[keys.a] # the key\nsecret = \"s\"\n\n[log]\nlevel = \"info\"\n";
        assert_eq!(edited(empty, "a", "s").unwrap(), (filled.to_owned(), false));
    }
}
