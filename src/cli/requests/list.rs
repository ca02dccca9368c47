//! `jit list`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::account_id;
use super::text::{page, word};
use crate::cli::arguments::List;
use crate::cli::client::Caller;
use crate::cli::output::{one_line, tell};
use crate::cli::typed::nearest;
use crate::cli::{CliContext, Failure, pages};
use crate::clock::{Clock, SystemClock};
use crate::domain::{Millis, Status};

/// The statuses of open requests.
const OPEN: [&str; 3] = ["PENDING", "APPROVED", "GRANTED"];
/// The assignment_status of an end that a worker checks at AWS: the access may exist.
const CHECKED: &str = "CHECKING";

/// All open requests that the key may read and those whose end is checked at AWS, for a list
/// without a filter.
async fn list_open(
    context: &CliContext,
    caller: &Caller,
    limit: Option<u32>,
) -> Result<(), Failure> {
    // A request whose status changes meanwhile is in two of the lists; the later one is right.
    let mut open: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut unreadable = BTreeSet::new();
    let by_status = OPEN.map(|status| ("status", status));
    // W5
    for filter in by_status
        .into_iter()
        .chain([("assignment_status", CHECKED)])
    {
        let found = pages::requests(caller, &[filter]).await?;
        unreadable.extend(unread(&found));
        for item in found["items"].as_array().into_iter().flatten() {
            let place = (word(item, "created_at"), word(item, "request_id"));
            open.insert(place, item.clone());
        }
    }
    let all = open.len();
    let shown = limit.map_or(all, |limit| usize::try_from(limit).unwrap_or(all));
    let items: Vec<Value> = open.into_values().rev().take(shown).collect();
    let filters = json!({"status": OPEN, "or_assignment_status": CHECKED});
    let value = json!({"items": items, "filters": filters});
    let text = || match items.is_empty() {
        true => "no requests are open".to_owned(),
        false => page(&value),
    };
    context.output.print(text, &value)?;
    if let Some(more) = all.checked_sub(items.len()).filter(|more| *more > 0) {
        tell(&format!(
            "{more} more requests are open: leave out --limit to see all"
        ));
    }
    report_unread(unreadable);
    Ok(())
}

pub(super) async fn list(
    context: &CliContext,
    caller: &Caller,
    list: &List,
) -> Result<(), Failure> {
    let account = list.account.as_deref();
    let account = account.map(|word| account_id(context, word)).transpose()?;
    let status = list.status.as_deref().map(status);
    let filters = [
        ("channel_id", &list.channel),
        ("account_id", &account),
        ("requester_email", &list.requester),
        ("status", &status),
        ("start_date", &list.from),
        ("end_date", &list.to),
    ];
    let filters = filters.iter();
    let filters = filters.filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let filters: Vec<(&str, &str)> = filters.collect();
    let value = match (list.limit, list.next_token.as_deref()) {
        (limit, None) if filters.is_empty() => return list_open(context, caller, limit).await,
        (None, None) => pages::requests(caller, &filters).await?,
        (limit, token) => pages::one(caller, &filters, limit, token).await?,
    };
    context.output.print(|| page(&value), &value)?;
    report_unread(unread(&value).collect());
    match list.next_token.is_none() && is_empty(&value) {
        true => report_unknown(caller, &filters).await,
        false => Ok(()),
    }
}

/// A status may be typed in lower case. The server refuses an unknown word, which stays as typed.
fn status(typed: &str) -> String {
    let status = typed.to_uppercase();
    match status.parse::<Status>() {
        Ok(_) => status,
        Err(_) => typed.to_owned(),
    }
}

fn is_empty(list: &Value) -> bool {
    list["items"].as_array().is_none_or(Vec::is_empty)
}

/// The filters that name something, and how a message names it.
const NAMES: [(&str, &str); 3] = [
    ("requester_email", "of"),
    ("channel_id", "in the channel"),
    ("account_id", "for the account"),
];
/// The age of the requests among whose names jit searches a similar one.
const COMPARED: Millis = Millis(30 * Millis::DAY.0);

/// H1: a list is also empty if a name is misspelt, so the command says which name no request has.
async fn report_unknown(caller: &Caller, filters: &[(&str, &str)]) -> Result<(), Failure> {
    let named = NAMES.iter().filter_map(|(field, words)| {
        let given = filters.iter().find(|(name, _)| name == field)?;
        Some((*given, words))
    });
    for (given, words) in named {
        let (field, value) = given;
        if filters.len() > 1 && !is_empty(&pages::one(caller, &[given], Some(1), None).await?) {
            continue;
        }
        let from = (SystemClock.now() + Millis(-COMPARED.0)).to_string();
        let recent = pages::one(caller, &[("start_date", &from)], Some(200), None).await?;
        let recent = recent["items"].as_array().into_iter().flatten();
        let known: BTreeSet<String> = recent.map(|item| word(item, field)).collect();
        let near = nearest(value, known.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!("; nearest: {near}"));
        tell(&format!("no request {words} {value} is stored{near}"));
    }
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
    tell(&format!(
        "the list leaves out requests whose records cannot be read: {ids}; jit audit verify says why"
    ));
}
