//! The commands for requests and bindings; they call the server over HTTP.

mod list;
#[cfg(test)]
mod starts;
mod text;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::already::{self, Aim};
use super::arguments::{Acting, BindArguments, CliCommand, NewRequest};
use super::client::{Caller, HttpAnswer};
use super::output::tell;
use super::{CliContext, Failure, pages, short_id, typed};
use crate::clock::{Clock, SystemClock};
use crate::domain::{Millis, Minutes, Person, Refusal};
use crate::signature::percent_encoded;
pub(super) use text::{describe, page};
use text::{lowered_limits, word};

pub(super) async fn run(context: &CliContext, command: CliCommand) -> Result<(), Failure> {
    let caller = Caller::new(context).await?;
    let actor = |extra: Value| -> Result<Value, Failure> {
        Ok(acting("actor", &context.acting.person()?, extra))
    };
    let answer = match command {
        CliCommand::Request(new) => request(context, &caller, new).await?,
        CliCommand::Approve { id } => {
            let person = context.acting.person()?;
            let body = acting("approver", &person, json!({}));
            let path = path(&caller, &id, "/approve").await?;
            let answer = by_address(context, &caller, &path, body, "approver").await;
            or_decided(&caller, answer, &Aim::ApprovedBy(&person)).await?
        }
        CliCommand::Deny { id, reason } => {
            let person = context.acting.person()?;
            let body = acting("denier", &person, json!({"reason": reason}));
            let path = path(&caller, &id, "/deny").await?;
            let answer = by_address(context, &caller, &path, body, "denier").await;
            or_decided(&caller, answer, &Aim::Denied).await?
        }
        CliCommand::Revoke { id, reason, wait } => {
            let body = actor(json!({"reason": reason}))?;
            let id = short_id::at_server(&caller, &id).await?;
            return revoke(context, &caller, &id, body, wait).await;
        }
        CliCommand::Cancel { id } => {
            let body = actor(json!({}))?;
            let path = path(&caller, &id, "/cancel").await?;
            or_reached(caller.post(&path, &body).await, &Aim::Cancelled)?
        }
        CliCommand::Extend { id, minutes } => extend(context, &caller, &id, minutes).await?,
        CliCommand::Status { id } => caller.get(&path(&caller, &id, "").await?).await?,
        CliCommand::List(list) => return list::list(context, &caller, &list).await,
        CliCommand::Bind(bind) => return self::bind(context, &caller, &bind).await,
        CliCommand::Unbind { channel, account } => {
            return unbind(context, &caller, &channel, &account).await;
        }
        CliCommand::Approvers { channel, ids } => {
            let body = admin(context, json!({"channel_id": channel, "approver_ids": ids}))?;
            caller.post("/config/approvers", &body).await?
        }
        CliCommand::Accounts { channel } => accounts(&caller, &channel).await?,
        // The caller handles every other command.
        _ => {
            return Err(Failure::Usage(
                "this command is not called over HTTP".into(),
            ));
        }
    };
    context
        .output
        .print(|| describe(&answer.value), &answer.value)
}

fn of(id: &str, step: &str) -> String {
    format!("/requests/{}{step}", percent_encoded(id))
}

/// The path of a request, which may be named by the beginning of its id.
async fn path(caller: &Caller, id: &str, step: &str) -> Result<String, Failure> {
    Ok(of(&short_id::at_server(caller, id).await?, step))
}

/// The server checks the twelve digits; only a name must be known here.
fn account_id(context: &CliContext, word: &str) -> Result<String, Failure> {
    if word.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(word.to_owned());
    }
    typed::account(word, &context.account_names()?).map(|id| id.to_string())
}

/// A refusal whose aim is reached counts as an answer.
fn or_reached(answer: Result<HttpAnswer, Failure>, aim: &Aim<'_>) -> Result<HttpAnswer, Failure> {
    let refused = match answer {
        Ok(answer) => return Ok(answer),
        Err(refused) => refused,
    };
    let (value, said) = already::reached(&refused, aim).ok_or(refused)?;
    tell(&said);
    Ok(HttpAnswer { status: 200, value })
}

/// H3: the same for a decision, which may be one about an extension.
async fn or_decided(
    caller: &Caller,
    answer: Result<HttpAnswer, Failure>,
    aim: &Aim<'_>,
) -> Result<HttpAnswer, Failure> {
    let refused = match or_reached(answer, aim) {
        Ok(answer) => return Ok(answer),
        Err(refused) => refused,
    };
    let decided = already::decided_extension(caller, &refused, aim).await;
    let (value, said) = decided.ok_or(refused)?;
    tell(&said);
    Ok(HttpAnswer { status: 200, value })
}

/// Sends a command. An approver who was named in Mattermost has a user id that no address
/// contains: if the server knows no approver with the id that jit took from the address, the
/// command names the person by the address alone, and the server asks Mattermost.
async fn by_address(
    context: &CliContext,
    caller: &Caller,
    path: &str,
    mut body: Value,
    role: &str,
) -> Result<HttpAnswer, Failure> {
    let (first, code) = match caller.post(path, &body).await {
        Err(Failure::Refused { message, code, .. })
            if context.acting.id.is_none()
                && code == "not_allowed"
                && is_about_person(&message) =>
        {
            (message, code)
        }
        answer => return answer,
    };
    let id = body[format!("{role}_mm_user_id")].take();
    let email = word(&body, &format!("{role}_email"));
    let answer = caller.post(path, &given(body)).await;
    answer.map_err(|refused| match refused {
        Failure::Refused {
            message,
            request: None,
            ..
        } => Failure::Refused {
            message: format!(
                "{first}. jit took the user id {} from the address {email}; an approver who was \
                 named in Mattermost has another id, and the address did not help: {message}. \
                 `jit accounts --channel CHANNEL` shows the ids, --as-id ID names yours",
                id.as_str().unwrap_or_default()
            ),
            code,
            request: None,
        },
        refused => refused,
    })
}

/// Whether another user id of the same person may have a right that this one lacks.
fn is_about_person(message: &str) -> bool {
    message.contains(Refusal::NOT_AN_APPROVER) || message.contains(Refusal::NOT_A_REVOKER)
}

async fn revoke(
    context: &CliContext,
    caller: &Caller,
    id: &str,
    body: Value,
    wait: bool,
) -> Result<(), Failure> {
    let path = of(id, "/revoke");
    let answer = match by_address(context, caller, &path, body, "actor").await {
        Err(refused @ Failure::Refused { .. }) => {
            if let Some((value, said)) = already::reached(&refused, &Aim::NoAccess) {
                tell(&said);
                return context.output.print(|| describe(&value), &value);
            }
            match wait {
                true => under_way(caller, id).await?.ok_or(refused)?,
                false => return Err(refused),
            }
        }
        answer => answer?,
    };
    revoked(context, caller, id, answer, wait).await
}

async fn extend(
    context: &CliContext,
    caller: &Caller,
    id: &str,
    minutes: u32,
) -> Result<HttpAnswer, Failure> {
    let by = context.acting.person()?;
    let body = acting("actor", &by, json!({"additional_minutes": minutes}));
    let path = path(caller, id, "/extend").await?;
    let minutes = Minutes::new(minutes.into());
    let minutes = minutes.map_err(|why| Failure::Usage(format!("--minutes {why}")))?;
    let aim = Aim::ExtensionOf { minutes, by: &by };
    or_reached(caller.post(&path, &body).await, &aim)
}

async fn accounts(caller: &Caller, channel: &str) -> Result<HttpAnswer, Failure> {
    let (path, place) = ("/config/accounts", |binding: &Value| {
        word(binding, "account_id")
    });
    let bindings = pages::array(caller, path, &[("channel_id", channel)], place).await?;
    Ok(HttpAnswer {
        status: 200,
        value: bindings.into(),
    })
}

async fn unbind(
    context: &CliContext,
    caller: &Caller,
    channel: &str,
    account: &str,
) -> Result<(), Failure> {
    let account = account_id(context, account)?;
    let body = json!({"channel_id": channel, "account_id": account});
    let body = admin(context, body)?;
    let value = match caller.post("/config/unbind", &body).await {
        Ok(answer) => answer.value,
        Err(refused) => {
            let said = already::unbound(caller, &refused, channel, &account).await;
            let said = said.ok_or(refused)?;
            let value = json!({"channel_id": channel, "account_id": account, "message": said});
            return context.output.print(|| said, &value);
        }
    };
    let text = || {
        format!(
            "removed: account {account} is no longer bound to channel {channel}; jit cancels its \
             pending requests. The binding was:\n{}",
            describe(&value)
        )
    };
    context.output.print(text, &value)
}

/// H7: the server may allow less than the binding.
async fn bind(context: &CliContext, caller: &Caller, asked: &BindArguments) -> Result<(), Failure> {
    let answer = caller
        .post("/config/bind", &terms(context, caller, asked).await?)
        .await?;
    let value = &answer.value;
    context.output.print(|| describe(value), value)?;
    let lowered = asked
        .max_hours
        .map(|wanted| lowered_limits(value, wanted))
        .unwrap_or_default();
    for limit in lowered {
        tell(&limit);
    }
    Ok(())
}

/// A body with the acting person and without null fields.
fn acting(role: &str, person: &Person, extra: Value) -> Value {
    let mut body = given(extra);
    body[format!("{role}_mm_user_id")] = person.id.as_str().into();
    body[format!("{role}_email")] = person.email.as_str().into();
    body
}

fn given(mut body: Value) -> Value {
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

fn admin(context: &CliContext, body: Value) -> Result<Value, Failure> {
    Ok(match context.acting.person_if_said()? {
        Some(person) => acting("actor", &person, body),
        None => given(body),
    })
}

async fn request(
    context: &CliContext,
    caller: &Caller,
    new: NewRequest,
) -> Result<HttpAnswer, Failure> {
    if new.permission_set.is_none() {
        choose(&context.sets_to_choose()?)?;
    }
    let set = match &new.permission_set {
        Some(word) => {
            let sets = known_sets(context, caller, &new.channel).await?;
            Some(typed::permission_set(word, &sets))
        }
        None => None,
    };
    let wanted = json!({
        "account_id": account_id(context, &new.account)?,
        "channel_id": new.channel,
        "requested_duration_minutes": new.minutes,
        "reason": new.reason,
        "jira": new.jira,
        "permission_set": set,
        "start_at": new.start_at,
    });
    let body = acting("requester", &context.acting.person()?, wanted);
    let key = new.idempotency_key.as_deref();
    caller.post_once("/requests", &body, key).await
}

/// W1: jit does not choose one of several permission sets.
fn choose(sets: &[String]) -> Result<(), Failure> {
    let Some(first) = sets.first() else {
        return Ok(());
    };
    Err(Failure::Usage(format!(
        "the permission set is missing, and the configuration has {}: add one, for example --permission-set {first}, or set policy.default_permission_set",
        sets.join(", ")
    )))
}

/// H4: the permission sets of this `jit.toml`; else those of the channel, if the key may read them.
async fn known_sets(
    context: &CliContext,
    caller: &Caller,
    channel: &str,
) -> Result<Vec<String>, Failure> {
    let own = context.sets()?;
    if !own.is_empty() {
        return Ok(own);
    }
    let bindings = accounts(caller, channel).await.ok();
    let bindings = bindings.map(|answer| answer.value);
    let bindings = bindings.iter().filter_map(Value::as_array).flatten();
    let sets = bindings.filter_map(|binding| binding["allowed_permission_sets"].as_array());
    let sets: BTreeSet<&str> = sets.flatten().filter_map(Value::as_str).collect();
    Ok(sets.into_iter().map(str::to_owned).collect())
}

async fn terms(
    context: &CliContext,
    caller: &Caller,
    bind: &BindArguments,
) -> Result<Value, Failure> {
    let sets = match &bind.permission_sets {
        Some(words) => {
            let known = known_sets(context, caller, &bind.channel).await?;
            let meant = words.iter().map(|word| typed::permission_set(word, &known));
            Some(meant.collect::<Vec<_>>())
        }
        None => None,
    };
    admin(
        context,
        json!({
            "channel_id": bind.channel,
            "account_id": account_id(context, &bind.account)?,
            "approvals_required": bind.approvals_required,
            "allow_self_approval": bind.allow_self_approval,
            "max_request_hours": bind.max_hours,
            "permission_sets": sets,
        }),
    )
}

/// The request, if jit removes its access already: the command can wait for that as well.
async fn under_way(caller: &Caller, id: &str) -> Result<Option<HttpAnswer>, Failure> {
    let answer = caller.get(&of(id, "")).await?;
    Ok(Some(answer).filter(|answer| answer.value["assignment_status"] == "DELETING"))
}

/// The options that name the acting person, for a command that the person can paste.
fn again(acting: &Acting) -> String {
    let email = acting.email.iter().map(|email| format!("--as {email}"));
    let id = acting.id.iter().map(|id| format!("--as-id {id}"));
    email.chain(id).collect::<Vec<_>>().join(" ")
}

/// H6: the advised command works when it is pasted, so it names the person again.
fn not_gone_yet(id: &str, acting: &Acting) -> Failure {
    let acting = again(acting);
    Failure::Failed(format!(
        "the access is not gone yet: AWS has not confirmed the removal, which continues in the \
         server; see `jit status {id}`, or wait with `jit revoke {id} --wait {acting}`"
    ))
}

/// Only REVOKED is done. The command waits for a removal that continues, or reports it.
async fn revoked(
    context: &CliContext,
    caller: &Caller,
    id: &str,
    mut answer: HttpAnswer,
    wait: bool,
) -> Result<(), Failure> {
    let mut told = false;
    while answer.status == 202 || answer.value["status"] == "GRANTED" {
        if !wait {
            return Err(not_gone_yet(id, &context.acting));
        }
        if !told {
            tell("AWS is still removing the access; jit waits until it is gone");
            told = true;
        }
        SystemClock
            .wait_until(SystemClock.now() + Millis::seconds(1))
            .await;
        answer = caller.get(&of(id, "")).await?;
    }
    context
        .output
        .print(|| describe(&answer.value), &answer.value)?;
    if answer.value["status"] == "REVOKED" {
        return Ok(());
    }
    let status = answer.value["status"].as_str().unwrap_or_default();
    let why = answer.value["error_details"].as_str().unwrap_or_default();
    Err(Failure::Failed(format!(
        "the request ended {status}, not REVOKED {why}"
    )))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::arguments::Arguments;

    // H6
    #[test]
    fn the_advised_revoke_names_the_person_again() {
        for words in [
            &["--as", "sec@example.com"][..],
            &["--as", "sec@example.com", "--as-id", "u-1"],
        ] {
            let typed = [&["jit", "revoke", "01a1fd36"][..], words].concat();
            let typed = Arguments::try_parse_from(typed).unwrap();
            let told = not_gone_yet("01a1fd36", &typed.acting).to_string();
            let advised = format!("`jit revoke 01a1fd36 --wait {}`", words.join(" "));
            assert!(told.contains(&advised), "{told}");
            assert!(!told.contains("GET /requests"), "{told}");
        }
    }
}
