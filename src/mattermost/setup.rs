//! Makes or corrects what jit needs in Mattermost: a bot and its token, a slash command and
//! its token. It keeps what exists.

use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};

use super::client::api::{Api, ApiError};
use super::commands::words::VERBS;

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const NAME: &str = "jit";
const DESCRIPTION: &str = "Just-in-time AWS access";
/// The description of each token that the setup makes.
const TOKEN_DESCRIPTION: &str = "jit";
const NOT_JIT: &str = "the answer is not from jit";
/// Mattermost lists at most this number of tokens in one answer.
const MOST_LISTED: u32 = 200;

/// The result, for the configuration.
pub struct SetupResult {
    pub team_id: String,
    pub bot_id: String,
    /// None if the stored token works.
    pub bot_token: Option<BotToken>,
    pub command_token: String,
    /// The steps, as text for people.
    pub steps: Vec<String>,
}

/// A new token of the bot.
pub struct BotToken {
    /// The id with which an admin can revoke the token.
    pub id: String,
    pub token: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{what}: {why}")]
    Api {
        /// The step that failed, such as `jit cannot look up the bot`.
        what: &'static str,
        why: ApiError,
    },
    #[error("{0}")]
    Wrong(String),
}

fn at(what: &'static str) -> impl FnOnce(ApiError) -> SetupError {
    move |why| SetupError::Api { what, why }
}

fn text(value: &Value, name: &str) -> Result<String, SetupError> {
    let missing = || SetupError::Wrong(format!("Mattermost's answer has no {name}"));
    value[name].as_str().map(str::to_owned).ok_or_else(missing)
}

/// `known_bot` is the user id that the configured bot token belongs to, if the token works.
pub async fn set_up(
    admin: &Api,
    team: &str,
    reach: &str,
    known_bot: Option<&str>,
) -> Result<SetupResult, SetupError> {
    let me = whose_token(admin, "--url", "the token of the admin").await?;
    let roles = me["roles"].as_str().unwrap_or_default();
    if !roles.split_whitespace().any(|role| role == "system_admin") {
        let why = "this token is not the token of a system admin; only a system admin can make bots and commands";
        return Err(SetupError::Wrong(why.into()));
    }
    let team = team_named(admin, team).await?;
    let team_id = text(&team, "id")?;
    let mut steps = Vec::new();
    let bot_id = bot(admin, &mut steps).await?;
    let member = json!({"team_id": team_id, "user_id": bot_id});
    let joined = admin
        .post(&format!("teams/{team_id}/members"), &member)
        .await;
    joined.map_err(at("the bot cannot join the team"))?;
    let bot_token = match known_bot == Some(bot_id.as_str()) {
        true => {
            steps.push("the token of the bot works".into());
            None
        }
        false => {
            let asked = json!({"description": TOKEN_DESCRIPTION});
            let made = admin.post(&format!("users/{bot_id}/tokens"), &asked).await;
            let made = made.map_err(at("Mattermost made no token for the bot"))?;
            steps.push("made a token for the bot".into());
            Some(BotToken {
                id: text(&made, "id")?,
                token: text(&made, "token")?,
            })
        }
    };
    let command_token = command(admin, &team_id, reach, &mut steps).await?;
    Ok(SetupResult {
        team_id,
        bot_id,
        bot_token,
        command_token,
        steps,
    })
}

/// The user of the token. Only a refusal of the token is about the token; each other error is about
/// the address.
async fn whose_token(api: &Api, address: &str, token: &'static str) -> Result<Value, SetupError> {
    api.get("users/me").await.map_err(|why| match why {
        ApiError::NoAnswer(cause) | ApiError::NotThere(cause) | ApiError::Refused(cause) => {
            SetupError::Wrong(format!(
                "{address}: no Mattermost answers at {}: {cause}",
                api.shown_url()
            ))
        }
        ApiError::NotAllowed(_) | ApiError::Forbidden(_) => at(token)(why),
    })
}

async fn team_named(admin: &Api, name: &str) -> Result<Value, SetupError> {
    let found = admin.get(&format!("teams/name/{name}")).await;
    found.map_err(|why| match why {
        ApiError::NotThere(_) => SetupError::Wrong(format!(
            "--team: Mattermost has no team {name}; type the name that the addresses of the team contain, like {}/{name}",
            admin.shown_url().trim_end_matches('/')
        )),
        why @ (ApiError::NotAllowed(_)
        | ApiError::Forbidden(_)
        | ApiError::Refused(_)
        | ApiError::NoAnswer(_)) => at("--team")(why),
    })
}

/// The ids of the tokens of the bot that the setup made before this one. Each of them works until
/// an admin revokes it.
pub async fn older_tokens(
    admin: &Api,
    bot_id: &str,
    current: &str,
) -> Result<Vec<String>, SetupError> {
    let path = format!("users/{bot_id}/tokens?per_page={MOST_LISTED}");
    let listed = admin.get(&path).await;
    let listed = listed.map_err(at("jit cannot list the tokens of the bot"))?;
    let made = listed.as_array().into_iter().flatten();
    let made = made.filter(|token| token["description"] == TOKEN_DESCRIPTION);
    let ids: Result<Vec<String>, SetupError> = made.map(|token| text(token, "id")).collect();
    let (current, older) = ids?.into_iter().partition::<Vec<_>, _>(|id| id == current);
    match current.is_empty() {
        true => Err(SetupError::Wrong(
            "the stored token of the bot is not among the tokens that jit mattermost setup made: jit revokes none".into(),
        )),
        false => Ok(older),
    }
}

/// Revokes the older tokens of the bot, and returns their number.
pub async fn revoke_older_tokens(
    admin: &Api,
    bot_id: &str,
    current: &str,
) -> Result<usize, SetupError> {
    let older = older_tokens(admin, bot_id, current).await?;
    for id in &older {
        let revoked = json!({"token_id": id});
        let revoked = admin.post("users/tokens/revoke", &revoked).await;
        revoked.map_err(at("jit cannot revoke an older token of the bot"))?;
    }
    Ok(older.len())
}

async fn bot(admin: &Api, steps: &mut Vec<String>) -> Result<String, SetupError> {
    let found = match admin.get(&format!("users/username/{NAME}")).await {
        Err(ApiError::NotThere(_)) => {
            let wanted =
                json!({"username": NAME, "display_name": NAME, "description": DESCRIPTION});
            let made = admin
                .post("bots", &wanted)
                .await
                .map_err(at("jit cannot make the bot"))?;
            steps.push(format!("made the bot {NAME}"));
            return text(&made, "user_id");
        }
        found => found.map_err(at("jit cannot look up the bot"))?,
    };
    let id = text(&found, "id")?;
    if found["is_bot"] != true {
        let why = format!(
            "the user {NAME} is a person, not a bot: rename this user, or make the bot and the command by hand (docs/mattermost.md)"
        );
        return Err(SetupError::Wrong(why));
    }
    if found["delete_at"].as_i64().unwrap_or(0) == 0 {
        steps.push(format!("the bot {NAME} exists already"));
        return Ok(id);
    }
    let enabled = admin.post(&format!("bots/{id}/enable"), &json!({})).await;
    enabled.map_err(at("jit cannot enable the bot"))?;
    steps.push(format!("enabled the bot {NAME}, which was disabled"));
    Ok(id)
}

/// The URL that the slash command must have.
fn command_url(reach: &str) -> String {
    format!("{}{}", reach.trim_end_matches('/'), super::COMMAND)
}

/// Makes or corrects the slash command.
async fn command(
    admin: &Api,
    team_id: &str,
    reach: &str,
    steps: &mut Vec<String>,
) -> Result<String, SetupError> {
    let verbs: Vec<&str> = VERBS.iter().map(|(verb, _, _)| *verb).collect();
    let wanted = json!({
        "team_id": team_id,
        "trigger": NAME,
        // POST: with GET, the token would be in the address.
        "method": "P",
        "url": command_url(reach),
        "username": NAME,
        "display_name": DESCRIPTION,
        "description": DESCRIPTION,
        "auto_complete": true,
        "auto_complete_desc": DESCRIPTION,
        "auto_complete_hint": verbs.join(" | "),
    });
    let path = format!("commands?team_id={team_id}&custom_only=true");
    let all = admin
        .get(&path)
        .await
        .map_err(at("jit cannot list the slash commands"))?;
    let all = all.as_array().cloned().unwrap_or_default();
    let found = all
        .into_iter()
        .find(|one| one["trigger"] == NAME && one["team_id"] == team_id);
    let Some(found) = found else {
        let made = admin.post("commands", &wanted).await;
        steps.push(format!("made the command /{NAME}"));
        return text(&made.map_err(at("jit cannot make the command"))?, "token");
    };
    let is_as_wanted = |(name, value): (&String, &Value)| found[name] == *value;
    if wanted
        .as_object()
        .is_some_and(|wanted| wanted.iter().all(is_as_wanted))
    {
        steps.push(format!("the command /{NAME} exists already"));
        return text(&found, "token");
    }
    let mut changed = found.clone();
    for (name, value) in wanted.as_object().into_iter().flatten() {
        changed[name] = value.clone();
    }
    let id = text(&found, "id")?;
    let put = admin.put(&format!("commands/{id}"), &changed).await;
    steps.push(format!("corrected the command /{NAME}"));
    text(&put.map_err(at("jit cannot correct the command"))?, "token")
}

/// Checks the configuration as far as the bot can see it, and that a typed command reaches jit.
pub async fn check(bot: &Api, team_id: &str, public_url: &Url) -> Result<Vec<String>, SetupError> {
    let mut found = Vec::new();
    let me = whose_token(bot, "mattermost.url", "mattermost.bot_token").await?;
    if me["is_bot"] != true {
        let why = "mattermost.bot_token: this is the token of a person; make a bot with: jit mattermost setup --url URL --team NAME --public-url URL";
        return Err(SetupError::Wrong(why.into()));
    }
    found.push("the token of the bot works".to_owned());
    let id = text(&me, "id")?;
    let member = bot.get(&format!("teams/{team_id}/members/{id}")).await;
    member.map_err(at("mattermost.team_id: the bot is not in that team"))?;
    found.push("the bot is in the team".to_owned());
    let path = format!("teams/{team_id}/commands/autocomplete");
    let commands = bot
        .get(&path)
        .await
        .map_err(at("jit cannot list the commands of the team"))?;
    let mut commands = commands.as_array().into_iter().flatten();
    let Some(command) = commands.find(|one| one["trigger"] == NAME) else {
        let why = format!("the team has no command /{NAME}: make it with jit mattermost setup");
        return Err(SetupError::Wrong(why));
    };
    check_url(command, public_url)?;
    found.push(format!("the command /{NAME} exists"));
    let config = bot.get("config/client?format=old").await;
    let config = config.map_err(at("jit cannot read the public key of the server"))?;
    if config["AsymmetricSigningPublicKey"].as_str().is_none() {
        let why = "the server does not publish its signing key, so jit cannot verify clicks on its buttons";
        return Err(SetupError::Wrong(why.into()));
    }
    found.push("jit can verify clicks".to_owned());
    if config["RequireEmailVerification"] == "false" {
        found.push(
            "warning: Mattermost does not verify e-mail addresses, so users can take any unused address: turn on EmailSettings.RequireEmailVerification and set mattermost.email_domain".to_owned(),
        );
    }
    round_trip(bot, &id, team_id, public_url).await?;
    found.push("a typed /jit command reaches jit, and jit accepts its token".to_owned());
    Ok(found)
}

/// Mattermost shows the URL of a command only to users who may change it, so it can be absent.
fn check_url(command: &Value, public_url: &Url) -> Result<(), SetupError> {
    let wanted = command_url(public_url.as_str());
    match command["url"].as_str() {
        None | Some("") => Ok(()),
        Some(url) if url == wanted => Ok(()),
        Some(url) => Err(SetupError::Wrong(format!(
            "the command /{NAME} has the URL {url}, and mattermost.public_url needs {wanted}: correct the command with jit mattermost setup, or correct mattermost.public_url"
        ))),
    }
}

/// The bot types `/jit help` in a direct message with itself: Mattermost calls jit.
async fn round_trip(
    bot: &Api,
    bot_id: &str,
    team_id: &str,
    public_url: &Url,
) -> Result<(), SetupError> {
    let alone = bot.post("channels/direct", &json!([bot_id, bot_id])).await;
    let alone = alone.map_err(at("the bot cannot open a direct message with itself"))?;
    let typed = json!({
        "channel_id": text(&alone, "id")?,
        "command": format!("/{NAME} help"),
        "team_id": team_id,
    });
    let why = match bot.post("commands/execute", &typed).await {
        Ok(answer) => {
            let shown = answer["text"].as_str().unwrap_or_default();
            if shown.contains("/jit request") {
                return Ok(());
            }
            NOT_JIT.to_owned()
        }
        Err(why @ (ApiError::Forbidden(_) | ApiError::NotThere(_) | ApiError::NotAllowed(_))) => {
            return Err(at("the bot cannot type a command")(why));
        }
        Err(why) => why.to_string(),
    };
    // The text of the error has the language of the server; the status is in all of them.
    let mut numbers = why.split(|c: char| !c.is_ascii_digit());
    if numbers.any(|number| number == "401") {
        return Err(SetupError::Wrong(format!(
            "mattermost.command_tokens: jit refuses the token of the command /{NAME}: the token was regenerated in Mattermost, or jit serves another team. Write the current token with jit mattermost setup ({why})"
        )));
    }
    let wanted = command_url(public_url.as_str());
    let corrects = format!("jit mattermost setup corrects it if it is not {wanted}");
    Err(SetupError::Wrong(match answers(public_url).await {
        true if is_from_another_server(&why) => format!(
            "jit answers at {public_url}, and Mattermost gets the answer of another server: check the URL of the command /{NAME}; {corrects} ({why})"
        ),
        true => format!(
            "Mattermost does not reach jit at {public_url}, and jit answers there from this machine: check the URL of the command /{NAME} ({corrects}), name the host in ServiceSettings.AllowedUntrustedInternalConnections of Mattermost (System Console, Environment, Developer) if its address is private, and check the firewall and the certificate ({why})"
        ),
        false => format!(
            "mattermost.public_url: jit does not answer at {public_url}: start it with jit serve, or correct the address ({why})"
        ),
    }))
}

/// A server that is not jit answers with another text, or with the status of a page that it does not
/// have.
fn is_from_another_server(why: &str) -> bool {
    let mut numbers = why.split(|c: char| !c.is_ascii_digit());
    why == NOT_JIT || numbers.any(|number| matches!(number, "404" | "405"))
}

/// Whether jit answers at this address from here.
async fn answers(public_url: &Url) -> bool {
    let health = super::at(public_url, "/healthz");
    let Ok(http) = reqwest::Client::builder().timeout(PROBE_TIMEOUT).build() else {
        return false;
    };
    let answer = http.get(health).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}
