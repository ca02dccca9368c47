//! Reads the lists of the server to their last page.

use serde_json::{Value, json};

use super::Failure;
use super::client::Caller;
use crate::signature::percent_encoded;

/// The most items of one page of an array, and of one page of requests.
const ARRAY: usize = 1000;
const REQUESTS: u32 = 200;

/// All items of a list that answers with an array. `place` names an item for the next page.
pub(super) async fn array(
    caller: &Caller,
    path: &str,
    query: &[(&str, &str)],
    place: fn(&Value) -> String,
) -> Result<Vec<Value>, Failure> {
    let mut items: Vec<Value> = Vec::new();
    loop {
        let mut pairs = given(query.iter().copied());
        pairs.push(format!("limit={ARRAY}"));
        if let Some(last) = items.last() {
            pairs.push(format!("after={}", percent_encoded(&place(last))));
        }
        let answer = caller.get(&format!("{path}?{}", pairs.join("&"))).await?;
        let Value::Array(page) = answer.value else {
            return Err(Failure::Failed(format!("GET {path} answered with no list")));
        };
        let is_last = page.len() != ARRAY;
        items.extend(page);
        if is_last {
            return Ok(items);
        }
    }
}

/// The history of a request or a channel.
pub(super) async fn history(caller: &Caller, id: &str) -> Result<Vec<Value>, Failure> {
    let path = format!("/requests/{}/audit", percent_encoded(id));
    array(caller, &path, &[], |event| {
        let word = |name: &str| event[name].as_str().unwrap_or_default();
        format!("{}#{}", word("event_time"), word("event_id"))
    })
    .await
}

/// All requests that match the filters, in the form of one page.
pub(super) async fn requests(caller: &Caller, filters: &[(&str, &str)]) -> Result<Value, Failure> {
    let (mut items, mut unreadable) = (Vec::new(), Vec::new());
    let mut token: Option<String> = None;
    loop {
        let mut pairs = given(filters.iter().copied());
        pairs.push(format!("limit={REQUESTS}"));
        pairs.extend(token.map(|token| format!("next_token={}", percent_encoded(&token))));
        let answer = caller
            .get(&format!("/requests?{}", pairs.join("&")))
            .await?;
        let mut page = answer.value;
        items.append(&mut taken(&mut page["items"]));
        unreadable.append(&mut taken(&mut page["unreadable"]));
        token = page["next_token"].as_str().map(str::to_owned);
        if token.is_none() {
            let mut whole = json!({"items": items, "filters": page["filters"]});
            if !unreadable.is_empty() {
                whole["unreadable"] = unreadable.into();
            }
            return Ok(whole);
        }
    }
}

/// One page of requests, which a person reads page by page.
pub(super) async fn one(
    caller: &Caller,
    filters: &[(&str, &str)],
    limit: Option<u32>,
    token: Option<&str>,
) -> Result<Value, Failure> {
    let mut pairs = given(
        filters
            .iter()
            .copied()
            .chain(token.map(|token| ("next_token", token))),
    );
    pairs.extend(limit.map(|limit| format!("limit={limit}")));
    let answer = caller
        .get(&format!("/requests?{}", pairs.join("&")))
        .await?;
    Ok(answer.value)
}

fn given<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Vec<String> {
    pairs
        .map(|(name, value)| format!("{name}={}", percent_encoded(value)))
        .collect()
}

fn taken(list: &mut Value) -> Vec<Value> {
    match list.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
