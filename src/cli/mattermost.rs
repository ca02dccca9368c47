//! `jit mattermost`: sets up and checks the bot and the slash command.

use std::fs::Permissions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde_json::json;

use super::arguments::MattermostSetup;
use super::serve::failed;
use super::{CliContext, Failure};
use crate::clock::SystemClock;
use crate::files;
use crate::mattermost::Api;
use crate::mattermost::setup::{self, BotToken, SetupResult};
use crate::signature::{self, CurrentSecret, Secret};

const TIMEOUT: Duration = Duration::from_secs(10);
const ADMIN_TOKEN: &str = "JIT_MATTERMOST_ADMIN_TOKEN";
const BOT_FILE: &str = "mattermost-bot-token";
/// The id of the token in `BOT_FILE`, and the fingerprint of that token.
const BOT_ID_FILE: &str = "mattermost-bot-token-id";
const COMMAND_FILE: &str = "mattermost-command-token";

pub(super) async fn check(context: &CliContext) -> Result<(), Failure> {
    let config = match context.config().await {
        Err(why) if !config_file(context).exists() => {
            return Err(Failure::Failed(format!(
                "{} does not exist: name the configuration with --config FILE ({why})",
                config_file(context).display()
            )));
        }
        config => config?,
    };
    let Some(mattermost) = config.mattermost else {
        let why = "the configuration has no [mattermost] section; write one with: jit mattermost setup --url URL --team NAME --public-url URL";
        return Err(Failure::Failed(why.into()));
    };
    let bot = api(mattermost.url, mattermost.bot_token).map_err(failed)?;
    let found = setup::check(&bot, &mattermost.team_id, &mattermost.public_url)
        .await
        .map_err(failed)?;
    context
        .output
        .print(|| found.join("\n"), &json!({"ok": true, "found": found}))
}

pub(super) async fn set_up(context: &CliContext, asked: &MattermostSetup) -> Result<(), Failure> {
    let wrong = |what: &str| {
        Failure::Usage(format!(
            "{what} must be an address like https://mattermost.example.com"
        ))
    };
    let url: Url = asked.url.parse().map_err(|_| wrong("--url"))?;
    let reach: Url = asked
        .public_url
        .parse()
        .map_err(|_| wrong("--public-url"))?;
    let admin = api(url.clone(), admin_token(asked)?).map_err(failed)?;
    let file = config_file(context);
    // Before the setup makes anything.
    has_section(&file)?;
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let known_bot = known_bot(&url, &folder.join(BOT_FILE)).await;
    let made = setup::set_up(&admin, &asked.team, reach.as_str(), known_bot.as_deref()).await;
    let mut made = made.map_err(failed)?;
    let bot_token = made.bot_token.take();
    if let Some(new) = &bot_token {
        let steps = &mut made.steps;
        keep(&folder.join(BOT_FILE), &new.token, &file, steps)?;
        let id = format!("{} {}", new.id, fingerprint(&new.token));
        keep(&folder.join(BOT_ID_FILE), &id, &file, &mut Vec::new())?;
    }
    let (command_token, steps) = (&made.command_token, &mut made.steps);
    keep(&folder.join(COMMAND_FILE), command_token, &file, steps)?;
    let section = section(&url, &reach, &made, &folder);
    let wrote = write_section(&file, &section, &mut made.steps)?;
    tell_next(&wrote, bot_token.as_ref(), &mut made.steps);
    let older = older_tokens(&admin, asked, &folder, &made.bot_id, bot_token.as_ref());
    made.steps.extend(older.await?);
    let value = json!({"team_id": made.team_id, "done": made.steps});
    context.output.print(|| made.steps.join("\n"), &value)
}

/// Whether the setup wrote the [mattermost] section of the configuration.
enum SectionOnDisk {
    Written,
    Kept,
}

fn write_section(
    file: &Path,
    section: &str,
    steps: &mut Vec<String>,
) -> Result<SectionOnDisk, Failure> {
    let (is_new, file_name) = (!file.exists(), file.display());
    let mut text = std::fs::read_to_string(file).unwrap_or_default();
    if has_section(file)? {
        steps.push(format!(
            "{file_name} has a [mattermost] section, and jit did not change it; it must contain:\n{section}"
        ));
        return Ok(SectionOnDisk::Kept);
    }
    text.push_str(&format!("\n{section}"));
    std::fs::write(file, text)
        .map_err(|why| Failure::Failed(format!("{file_name} cannot be written: {why}")))?;
    steps.push(format!("wrote the [mattermost] section of {file_name}"));
    if is_new {
        steps.push(format!(
            "{file_name} is a new file with this section only; `jit serve` also needs [identity_center] and [permission_sets] (see jit.example.toml). If the configuration is another file, name it with --config FILE"
        ));
    }
    Ok(SectionOnDisk::Written)
}

/// Reports whether the configuration has a section for Mattermost, in any form that TOML allows. A
/// second one would make the file invalid.
fn has_section(file: &Path) -> Result<bool, Failure> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    match text.parse::<toml::Table>() {
        Ok(table) => Ok(table.contains_key("mattermost")),
        // Without the text of the line, which can have a secret.
        Err(why) => {
            let before = why.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            Err(Failure::Failed(format!(
                "{} is no valid TOML in line {line}, so the setup cannot add its section: correct the line, and check it with jit config check",
                file.display()
            )))
        }
    }
}

fn tell_next(section: &SectionOnDisk, new: Option<&BotToken>, steps: &mut Vec<String>) {
    match (section, new) {
        (SectionOnDisk::Written, _) => steps.push(
            "restart jit serve: it reads the addresses and the team of [mattermost] only when it starts; then type jit mattermost check".into(),
        ),
        (SectionOnDisk::Kept, Some(_)) => steps.push(format!(
            "a running jit serve reads the new token from {BOT_FILE} within two seconds; if the configuration names another place (bot_token, bot_token_id), write the token there. Then type jit mattermost check"
        )),
        (SectionOnDisk::Kept, None) => {}
    }
}

/// Revokes the older tokens of the bot, or says which command does. The setup revokes nothing for a
/// token that it made just now: jit may run elsewhere, and use an older token until an operator
/// writes the new one there.
async fn older_tokens(
    admin: &Api,
    asked: &MattermostSetup,
    folder: &Path,
    bot_id: &str,
    new: Option<&BotToken>,
) -> Result<Option<String>, Failure> {
    let Some(new) = new else {
        if !asked.revoke_older_tokens {
            return Ok(None);
        }
        let current = stored_id(folder)?;
        let revoked = setup::revoke_older_tokens(admin, bot_id, &current).await;
        let revoked = revoked.map_err(failed)?;
        return Ok(Some(format!("revoked older tokens of the bot: {revoked}")));
    };
    let mut again = format!(
        "jit mattermost setup --url {} --team {} --public-url {} --revoke-older-tokens",
        asked.url, asked.team, asked.public_url
    );
    if let Some(file) = &asked.token_file {
        again.push_str(&format!(" --token-file {}", file.display()));
    }
    let then = format!("when jit uses the new token, revoke them with: {again}");
    Ok(match setup::older_tokens(admin, bot_id, &new.id).await {
        Ok(older) if older.is_empty() => None,
        Ok(older) => Some(format!(
            "older tokens of the bot: {}; they still work, and {then}",
            older.len()
        )),
        Err(why) => Some(format!(
            "jit does not know whether older tokens of the bot work ({why}); {then}"
        )),
    })
}

/// The id of the stored token. A token that an admin wrote by hand has no id here.
fn stored_id(folder: &Path) -> Result<String, Failure> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (token, known) = (read(BOT_FILE), read(BOT_ID_FILE));
    let of = fingerprint(token.trim());
    match known.trim().split_once(' ') {
        Some((id, found)) if found == of => Ok(id.to_owned()),
        Some(_) | None => Err(Failure::Failed(format!(
            "jit does not know the id of the token in {0}, so it revokes none: remove {0} and type the command without --revoke-older-tokens, which makes a token with a known id; then type it again with --revoke-older-tokens",
            folder.join(BOT_FILE).display()
        ))),
    }
}

/// Recognises a token without containing it.
fn fingerprint(token: &str) -> String {
    let token = Secret::new(token.to_owned());
    signature::seal(&token, "jit: the token with this id")
}

fn api(url: Url, token: Secret) -> reqwest::Result<Api> {
    let token = CurrentSecret::new(token);
    Api::new(url, token, TIMEOUT, Arc::new(SystemClock))
}

fn section(url: &Url, reach: &Url, made: &SetupResult, folder: &Path) -> String {
    let named = |name: &str| std::path::absolute(folder.join(name)).unwrap_or_else(|_| name.into());
    format!(
        "[mattermost]\nurl = {:?}\npublic_url = {:?}\nteam_id = {:?}\nbot_token_file = {:?}\ncommand_tokens_file = {:?}\n",
        url.as_str().trim_end_matches('/'),
        reach.as_str().trim_end_matches('/'),
        made.team_id,
        named(BOT_FILE),
        named(COMMAND_FILE),
    )
}

/// The user id that the stored bot token belongs to, if the token works.
async fn known_bot(url: &Url, file: &Path) -> Option<String> {
    let token = std::fs::read_to_string(file).ok()?;
    let bot = api(url.clone(), Secret::new(token.trim().to_owned())).ok()?;
    let me = bot.get("users/me").await.ok()?;
    me["id"].as_str().map(str::to_owned)
}

/// The token is never an argument: every user of the machine can see arguments.
fn admin_token(asked: &MattermostSetup) -> Result<Secret, Failure> {
    let token = match (&asked.token_file, std::env::var(ADMIN_TOKEN)) {
        (Some(file), _) => std::fs::read_to_string(file)
            .map_err(|why| Failure::Failed(format!("{} cannot be read: {why}", file.display())))?,
        (None, Ok(token)) => token,
        (None, Err(_)) if std::io::stdin().is_terminal() => {
            rpassword::prompt_password("token of a system admin: ").map_err(failed)?
        }
        (None, Err(_)) => {
            let why = format!(
                "the token of a system admin is missing: add --token-file FILE, or set {ADMIN_TOKEN}"
            );
            return Err(Failure::Usage(why));
        }
    };
    Ok(Secret::new(token.trim().to_owned()))
}

fn config_file(context: &CliContext) -> PathBuf {
    let named = context.config_path.clone();
    named.unwrap_or_else(|| "jit.toml".into())
}

/// Only the owner of the file can read it, and the group of the configuration file if that is
/// another one: jit serve runs as a user of that group.
fn keep(
    file: &PathBuf,
    token: &str,
    config: &Path,
    steps: &mut Vec<String>,
) -> Result<(), Failure> {
    files::tighten(std::slice::from_ref(file));
    let opened = files::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(file);
    let written = opened.and_then(|mut opened| {
        writeln!(opened, "{token}")?;
        let (own, like) = (opened.metadata()?, std::fs::metadata(config).ok());
        let like = like.filter(|like| (like.uid(), like.gid()) != (own.uid(), own.gid()));
        match like {
            Some(like) => {
                std::os::unix::fs::fchown(&opened, Some(like.uid()), Some(like.gid()))?;
                opened.set_permissions(Permissions::from_mode(0o640))?;
            }
            None if own.uid() == 0 => steps.push(format!(
                "only root can read {0}; if jit serve runs as the user jit: chgrp jit {0} && chmod 0640 {0}",
                file.display()
            )),
            None => {}
        }
        Ok(())
    });
    written.map_err(|why| Failure::Failed(format!("{} cannot be written: {why}", file.display())))
}
