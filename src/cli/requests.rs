//! Requests and bindings, over HTTP.

use serde_json::{Value, json};

use super::arguments::{BindArguments, CliCommand, List, NewRequest};
use super::client::{Caller, HttpAnswer};
use super::output::{clipped, facts, one_line, table};
use super::{CliContext, Failure};
use crate::clock::{Clock, SystemClock};
use crate::domain::{Millis, Person, Timestamp};
use crate::signature::percent_encoded;

pub(super) async fn run(context: &CliContext, command: CliCommand) -> Result<(), Failure> {
    let caller = Caller::new(context).await?;
    let actor = |extra: Value| -> Result<Value, Failure> {
        Ok(acting("actor", &context.acting.person()?, extra))
    };
    let answer = match command {
        CliCommand::Request(new) => request(context, &caller, new).await?,
        CliCommand::Approve { id } => {
            let body = acting("approver", &context.acting.person()?, json!({}));
            caller.post(&of(&id, "/approve"), &body).await?
        }
        CliCommand::Deny { id, reason } => {
            let body = acting(
                "denier",
                &context.acting.person()?,
                json!({"reason": reason}),
            );
            caller.post(&of(&id, "/deny"), &body).await?
        }
        CliCommand::Revoke { id, reason, wait } => {
            let body = actor(json!({"reason": reason}))?;
            let answer = match caller.post(&of(&id, "/revoke"), &body).await {
                Err(refused @ Failure::Refused { .. }) if wait => {
                    under_way(&caller, &id).await?.ok_or(refused)?
                }
                answer => answer?,
            };
            return revoked(context, &caller, &id, answer, wait).await;
        }
        CliCommand::Cancel { id } => caller.post(&of(&id, "/cancel"), &actor(json!({}))?).await?,
        CliCommand::Extend { id, minutes } => {
            let body = actor(json!({"additional_minutes": minutes}))?;
            caller.post(&of(&id, "/extend"), &body).await?
        }
        CliCommand::Status { id } => caller.get(&of(&id, "")).await?,
        CliCommand::List(list) => return self::list(context, &caller, &list).await,
        CliCommand::Bind(bind) => caller.post("/config/bind", &terms(context, &bind)?).await?,
        CliCommand::Unbind { channel, account } => {
            let body = admin(
                context,
                json!({"channel_id": channel, "account_id": account}),
            )?;
            caller.post("/config/unbind", &body).await?
        }
        CliCommand::Approvers { channel, ids } => {
            let body = admin(context, json!({"channel_id": channel, "approver_ids": ids}))?;
            caller.post("/config/approvers", &body).await?
        }
        CliCommand::Accounts { channel } => {
            let path = format!("/config/accounts?channel_id={}", percent_encoded(&channel));
            caller.get(&path).await?
        }
        // Every other command has been run elsewhere.
        other => return Err(Failure::Usage(format!("{other:?} is not called over HTTP"))),
    };
    context
        .output
        .say(|| describe(&answer.value), &answer.value)
}

fn of(id: &str, step: &str) -> String {
    format!("/requests/{}{step}", percent_encoded(id))
}

/// A body that says who acts; what is null is left out.
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
    let wanted = json!({
        "account_id": new.account,
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

fn terms(context: &CliContext, bind: &BindArguments) -> Result<Value, Failure> {
    admin(
        context,
        json!({
            "channel_id": bind.channel,
            "account_id": bind.account,
            "approvals_required": bind.approvals_required,
            "allow_self_approval": bind.allow_self_approval,
            "max_request_hours": bind.max_hours,
            "permission_sets": bind.permission_sets,
        }),
    )
}

/// The request, if its access is being removed already: that can be waited for as well.
async fn under_way(caller: &Caller, id: &str) -> Result<Option<HttpAnswer>, Failure> {
    let answer = caller.get(&of(id, "")).await?;
    Ok(Some(answer).filter(|answer| answer.value["assignment_status"] == "DELETING"))
}

/// Only "gone" is done. A removal that goes on is followed, or said to go on.
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
                "not gone yet: {message}. It goes on by itself; watch it with `jit status {id}`, \
                 or wait for the end with `jit revoke --wait`"
            )));
        }
        if !told {
            eprintln!("jit: AWS is still removing it; waiting until it is gone");
            told = true;
        }
        SystemClock
            .wait_until(SystemClock.now() + Millis::seconds(1))
            .await;
        answer = caller.get(&of(id, "")).await?;
    }
    context
        .output
        .say(|| describe(&answer.value), &answer.value)?;
    if answer.value["status"] == "REVOKED" {
        return Ok(());
    }
    let status = answer.value["status"].as_str().unwrap_or_default();
    let why = answer.value["error_details"].as_str().unwrap_or_default();
    Err(Failure::Failed(format!(
        "it ended {status}, not REVOKED {why}"
    )))
}

async fn list(context: &CliContext, caller: &Caller, list: &List) -> Result<(), Failure> {
    let filters = [
        ("channel_id", &list.channel),
        ("account_id", &list.account),
        ("requester_email", &list.requester),
        ("status", &list.status),
        ("start_date", &list.from),
        ("end_date", &list.to),
        ("next_token", &list.next_token),
    ];
    let given = filters.iter().filter_map(|(name, value)| {
        let value = value.as_ref()?;
        Some(format!("{name}={}", percent_encoded(value)))
    });
    let mut query: Vec<String> = given.collect();
    query.push(format!("limit={}", list.limit));
    let answer = caller
        .get(&format!("/requests?{}", query.join("&")))
        .await?;
    context.output.say(|| page(&answer.value), &answer.value)?;
    if let Some(ids) = answer.value["unreadable"].as_array() {
        let ids = ids.iter().filter_map(Value::as_str).map(one_line);
        let ids = ids.collect::<Vec<_>>().join(", ");
        eprintln!(
            "jit: left out, because their records cannot be read: {ids}; jit audit verify says why"
        );
    }
    Ok(())
}

/// So much of a reason fits beside the rest; `jit status` shows all of it.
const WHY_SHOWN: usize = 60;

pub(super) fn page(value: &Value) -> String {
    let items = value["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if items.is_empty() {
        return "no such requests".into();
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
                word(item, "status"),
                word(item, "account_id"),
                word(item, "permission_set"),
                word(item, "requester_email"),
                time_left(item).unwrap_or_else(|| word(item, "created_at")),
                clipped(&word(item, why), WHY_SHOWN),
            ]
        })
        .collect();
    let head = [
        "REQUEST",
        "STATUS",
        "ACCOUNT",
        "SET",
        "REQUESTER",
        "WHEN",
        "WHY",
    ];
    let mut text = table(&head, &rows);
    if let Some(token) = value["next_token"].as_str() {
        text.push_str(&format!("\nmore: add --next-token {}", one_line(token)));
    }
    text
}

/// Anything that jit answers, in words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => "nothing is bound here".into(),
        Value::Array(items) => items.iter().map(describe).collect::<Vec<_>>().join("\n\n"),
        _ if value["request_id"].is_string() => describe_request(value),
        _ => describe_binding(value),
    }
}

/// A field as a person reads it; nothing if there is none.
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
    let status = match (time_left(value), value["assignment_status"].as_str()) {
        (_, Some("DELETING")) => "GRANTED, being removed".into(),
        (Some(left), _) => format!("GRANTED, {left}"),
        (None, _) => word("status"),
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
        ("created", word("created_at")),
        ("approved", word("approved_at")),
        ("approver", person("approver")),
        ("granted", word("grant_time")),
        ("ends", word("end_time")),
        ("extension asked", word("extension_minutes")),
        ("denied", word("denied_at")),
        ("deny reason", word("deny_reason")),
        ("cancelled", word("cancelled_at")),
        ("expired", word("expired_at")),
        ("revoked", word("revoked_at")),
        ("revoked by", word("revoked_by")),
        ("revoke reason", word("revoke_reason")),
        ("old sessions denied until", word("sessions_denied_until")),
        ("trouble", word("error_details")),
        ("notices given up", word("undelivered_notices")),
        ("note", word("message")),
    ])
}

/// How long a grant still lasts.
fn time_left(value: &Value) -> Option<String> {
    if value["status"] != "GRANTED" || value["assignment_status"] == "DELETING" {
        return None;
    }
    let end = Timestamp::parse(value["end_time"].as_str()?)?;
    let left = end - SystemClock.now();
    Some(match left.0 {
        ..=0 => "time is over".into(),
        _ => format!("{left} left"),
    })
}

fn describe_binding(value: &Value) -> String {
    let word = |name: &str| word(value, name);
    let approvers = match word("approver_mm_user_ids") {
        none if none.is_empty() => "nobody yet: name them with `jit approvers`".into(),
        some => some,
    };
    facts(&[
        ("channel", word("channel_id")),
        ("account", word("account_id")),
        ("approvers", approvers),
        ("policy", word("approval_policy")),
        ("self approval", word("allow_self_approval")),
        ("longest, hours", word("max_request_hours")),
        ("permission sets", word("permission_sets")),
        ("changed", word("updated_at")),
        ("note", word("message")),
    ])
}
