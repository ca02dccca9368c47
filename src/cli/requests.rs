//! The commands for requests and bindings; they call the server over HTTP.

#[cfg(test)]
mod starts;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::already::{self, Aim};
use super::arguments::{BindArguments, CliCommand, List, NewRequest};
use super::client::{Caller, HttpAnswer};
use super::output::{clipped, facts, one_line, table};
use super::{CliContext, Failure, pages, short_id, typed};
use crate::clock::{Clock, SystemClock};
use crate::domain::{Millis, Person, Timestamp, status_in_words};
use crate::signature::percent_encoded;

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
            or_reached(answer, &Aim::ApprovedBy(&person))?
        }
        CliCommand::Deny { id, reason } => {
            let person = context.acting.person()?;
            let body = acting("denier", &person, json!({"reason": reason}));
            let path = path(&caller, &id, "/deny").await?;
            let answer = by_address(context, &caller, &path, body, "denier").await;
            or_reached(answer, &Aim::Denied)?
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
        CliCommand::Extend { id, minutes } => {
            let body = actor(json!({"additional_minutes": minutes}))?;
            caller
                .post(&path(&caller, &id, "/extend").await?, &body)
                .await?
        }
        CliCommand::Status { id } => caller.get(&path(&caller, &id, "").await?).await?,
        CliCommand::List(list) => return self::list(context, &caller, &list).await,
        CliCommand::Bind(bind) => return self::bind(context, &caller, &bind).await,
        CliCommand::Unbind { channel, account } => {
            unbind(context, &caller, &channel, &account).await?
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
    eprintln!("jit: {said}");
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
    message.contains("is not an approver") || message.contains("may not revoke this request")
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
                eprintln!("jit: {said}");
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
) -> Result<HttpAnswer, Failure> {
    let account = account_id(context, account)?;
    let body = json!({"channel_id": channel, "account_id": account});
    let body = admin(context, body)?;
    caller.post("/config/unbind", &body).await
}

/// The policy of the server may allow less than the binding.
async fn bind(context: &CliContext, caller: &Caller, asked: &BindArguments) -> Result<(), Failure> {
    let answer = caller.post("/config/bind", &terms(context, asked)?).await?;
    let value = &answer.value;
    context.output.print(|| describe(value), value)?;
    let most = value["max_request_hours"].as_u64();
    if let (Some(wanted), Some(most)) = (asked.max_hours, most)
        && most < u64::from(wanted)
    {
        eprintln!(
            "jit: the longest duration here is {most} hours, not {wanted}: policy.max_request_hours \
             of the server allows no more"
        );
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
    let wanted = json!({
        "account_id": account_id(context, &new.account)?,
        "channel_id": new.channel,
        "requested_duration_minutes": new.minutes,
        "reason": new.reason,
        "jira": new.jira,
        "permission_set": new.permission_set,
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

fn terms(context: &CliContext, bind: &BindArguments) -> Result<Value, Failure> {
    admin(
        context,
        json!({
            "channel_id": bind.channel,
            "account_id": account_id(context, &bind.account)?,
            "approvals_required": bind.approvals_required,
            "allow_self_approval": bind.allow_self_approval,
            "max_request_hours": bind.max_hours,
            "permission_sets": bind.permission_sets,
        }),
    )
}

/// The request, if jit removes its access already: the command can wait for that as well.
async fn under_way(caller: &Caller, id: &str) -> Result<Option<HttpAnswer>, Failure> {
    let answer = caller.get(&of(id, "")).await?;
    Ok(Some(answer).filter(|answer| answer.value["assignment_status"] == "DELETING"))
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
            let message = answer.value["message"].as_str().unwrap_or_default();
            return Err(Failure::Failed(format!(
                "the access is not gone yet: {message}. The removal continues in the server; see \
                 `jit status {id}`, or wait with `jit revoke {id} --wait`"
            )));
        }
        if !told {
            eprintln!("jit: AWS is still removing the access; jit waits until it is gone");
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

/// The statuses of open requests.
const OPEN: [&str; 3] = ["PENDING", "APPROVED", "GRANTED"];

/// All open requests that the key may read, for a list without a filter.
async fn list_open(
    context: &CliContext,
    caller: &Caller,
    limit: Option<u32>,
) -> Result<(), Failure> {
    // A request whose status changes meanwhile is in two of the lists; the later one is right.
    let mut open: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut unreadable = BTreeSet::new();
    for status in OPEN {
        let whole = pages::requests(caller, &[("status", status)]).await?;
        unreadable.extend(unread(&whole));
        for item in whole["items"].as_array().into_iter().flatten() {
            let place = (word(item, "created_at"), word(item, "request_id"));
            open.insert(place, item.clone());
        }
    }
    let all = open.len();
    let shown = limit.map_or(all, |limit| usize::try_from(limit).unwrap_or(all));
    let items: Vec<Value> = open.into_values().rev().take(shown).collect();
    let value = json!({"items": items, "filters": {"status": OPEN}});
    let text = || match items.is_empty() {
        true => "no requests are open".to_owned(),
        false => page(&value),
    };
    context.output.print(text, &value)?;
    if let Some(more) = all.checked_sub(items.len()).filter(|more| *more > 0) {
        eprintln!("jit: {more} more requests are open: leave out --limit to see all");
    }
    report_unread(unreadable);
    Ok(())
}

async fn list(context: &CliContext, caller: &Caller, list: &List) -> Result<(), Failure> {
    let account = list.account.as_deref();
    let account = account.map(|word| account_id(context, word)).transpose()?;
    let filters = [
        ("channel_id", &list.channel),
        ("account_id", &account),
        ("requester_email", &list.requester),
        ("status", &list.status),
        ("start_date", &list.from),
        ("end_date", &list.to),
    ];
    let filters = filters.iter();
    let filters = filters.filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let filters: Vec<(&str, &str)> = filters.collect();
    let value = match (list.limit, list.next_token.as_deref()) {
        (limit, None) if filters.is_empty() => return list_open(context, caller, limit).await,
        (None, None) => pages::requests(caller, &filters).await?,
        (limit, token) => pages::one(caller, filters, limit, token).await?,
    };
    context.output.print(|| page(&value), &value)?;
    report_unread(unread(&value).collect());
    Ok(())
}

/// The ids of the requests that the server could not read.
fn unread(list: &Value) -> impl Iterator<Item = String> {
    let ids = list["unreadable"].as_array().into_iter().flatten();
    ids.filter_map(Value::as_str).map(one_line)
}

fn report_unread(ids: BTreeSet<String>) {
    if ids.is_empty() {
        return;
    }
    let ids = ids.into_iter().collect::<Vec<_>>().join(", ");
    eprintln!(
        "jit: the list leaves out requests whose records cannot be read: {ids}; jit audit verify says why"
    );
}

/// The length of a reason in a list; `jit status` shows the whole reason.
const WHY_SHOWN: usize = 60;

pub(super) fn page(value: &Value) -> String {
    let items = value["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if items.is_empty() {
        return "no requests match".into();
    }
    let word = |item: &Value, name: &str| one_line(item[name].as_str().unwrap_or_default());
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            let why = if item["reason"].is_null() {
                "jira"
            } else {
                "reason"
            };
            vec![
                word(item, "request_id"),
                one_line(&shown_status(item)),
                word(item, "account_id"),
                word(item, "permission_set"),
                word(item, "requester_email"),
                time_left(item)
                    .or_else(|| Some(format!("starts {}", start(item)?)))
                    .unwrap_or_else(|| word(item, "created_at")),
                clipped(&word(item, why), WHY_SHOWN),
            ]
        })
        .collect();
    let head = [
        "REQUEST",
        "STATUS",
        "ACCOUNT",
        "PERMISSION SET",
        "REQUESTER",
        "TIME",
        "REASON",
    ];
    let mut text = table(&head, &rows);
    if let Some(token) = value["next_token"].as_str() {
        text.push_str(&format!(
            "\nmore requests: add --next-token {}",
            one_line(token)
        ));
    }
    text
}

/// Any answer of jit as text.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => {
            "no account is bound to this channel: bind one with `jit bind --channel CHANNEL --account ACCOUNT`".into()
        }
        Value::Array(items) => items.iter().map(describe).collect::<Vec<_>>().join("\n\n"),
        _ if value["request_id"].is_string() => describe_request(value),
        _ => describe_binding(value),
    }
}

/// A field as text; empty if it is absent.
fn word(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            words.join(", ")
        }
        other => other.to_string(),
    }
}

fn describe_request(value: &Value) -> String {
    let word = |name: &str| word(value, name);
    let status = match time_left(value) {
        Some(left) => format!("GRANTED, {left}"),
        None => shown_status(value),
    };
    // Before the grant, the end is only a guess; afterwards, the access has ended otherwise.
    let is_granted = value["status"] == "GRANTED";
    let end = if is_granted {
        word("end_time")
    } else {
        String::new()
    };
    let person = |role: &str| match (
        word(&format!("{role}_email")),
        word(&format!("{role}_mm_user_id")),
    ) {
        (email, id) if id.is_empty() => email,
        (email, id) => format!("{email} ({id})"),
    };
    facts(&[
        ("request", word("request_id")),
        ("status", status),
        ("account", word("account_id")),
        ("permission set", word("permission_set")),
        ("channel", word("channel_id")),
        ("requester", person("requester")),
        ("reason", word("reason")),
        ("jira", word("jira")),
        ("minutes", word("requested_duration_minutes")),
        ("starts", word("start_at")),
        ("created", word("created_at")),
        ("starts", start(value).unwrap_or_default()),
        ("approved", word("approved_at")),
        ("approver", person("approver")),
        ("granted", word("grant_time")),
        ("ends", end),
        ("extension requested", word("extension_minutes")),
        ("denied", word("denied_at")),
        ("deny reason", word("deny_reason")),
        ("cancelled", word("cancelled_at")),
        ("expired", word("expired_at")),
        ("revoked", word("revoked_at")),
        ("revoked by", word("revoked_by")),
        ("revoke reason", word("revoke_reason")),
        (
            "old credentials denied until",
            word("sessions_denied_until"),
        ),
        ("error", word("error_details")),
        ("parked notices", word("undelivered_notices")),
        ("note", word("message")),
    ])
}

/// The status, and what jit is doing at AWS.
fn shown_status(value: &Value) -> String {
    status_in_words(&word(value, "status"), value["assignment_status"].as_str())
}

/// The time that is left of a grant.
fn time_left(value: &Value) -> Option<String> {
    if value["status"] != "GRANTED" || value["assignment_status"] == "DELETING" {
        return None;
    }
    let end = Timestamp::parse(value["end_time"].as_str()?)?;
    let left = end - SystemClock.now();
    Some(match left.0 {
        ..=0 => "past its end".into(),
        _ => format!("{left} left"),
    })
}

/// When the access is to begin, if it has not begun.
fn start(value: &Value) -> Option<String> {
    let is_ahead = ["PENDING", "APPROVED"].contains(&value["status"].as_str()?);
    value["start_at"]
        .as_str()
        .filter(|_| is_ahead)
        .map(one_line)
}

fn describe_binding(value: &Value) -> String {
    let word = |name: &str| word(value, name);
    let approvers = match word("approver_mm_user_ids") {
        none if none.is_empty() => {
            "no approvers yet: name them with `jit approvers --channel CHANNEL USER_ID`".into()
        }
        some => some,
    };
    facts(&[
        ("channel", word("channel_id")),
        ("account", word("account_id")),
        ("approvers", approvers),
        ("policy", word("approval_policy")),
        ("self approval", word("allow_self_approval")),
        ("longest duration, hours", word("max_request_hours")),
        ("permission sets", word("allowed_permission_sets")),
        ("changed", word("updated_at")),
        ("note", word("message")),
    ])
}
