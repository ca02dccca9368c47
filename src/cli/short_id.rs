//! Finds the request that a person names by the beginning of its id, at the server or in the
//! store. The digits of an id tell the time of the request, so one list finds it.

use serde_json::Value;

use super::Failure;
use super::client::Caller;
use super::serve::failed;
use crate::app::{self, Purpose};
use crate::config::Config;
use crate::domain::{RequestId, ShortId};
use crate::signature::percent_encoded;
use crate::store::Filter;

/// A message names at most so many candidates.
const NAMED: usize = 5;
const MOST: usize = 200;

fn parsed(text: &str) -> Result<ShortId, Failure> {
    text.parse()
        .map_err(|why| Failure::Usage(format!("{text:?} {why}; `jit list` shows the ids")))
}

/// The whole id of a request, by the list of the server.
pub(super) async fn at_server(caller: &Caller, text: &str) -> Result<String, Failure> {
    if let Ok(id) = text.parse::<RequestId>() {
        return Ok(id.to_string());
    }
    let short = parsed(text)?;
    let (from, to) = short.created_between();
    let path = format!(
        "/requests?start_date={}&end_date={}&limit={MOST}",
        percent_encoded(&from.to_string()),
        percent_encoded(&to.to_string())
    );
    let answer = caller.get(&path).await.map_err(|failure| match failure {
        Failure::Refused { message, code, .. } if code == "not_allowed" => Failure::Failed(
            format!("{message}; the beginning of an id needs the scope read: type the whole id"),
        ),
        other => other,
    })?;
    let items = answer.value["items"].as_array();
    let ids = items.into_iter().flatten().filter_map(|item| {
        let id = item["request_id"].as_str().and_then(|id| id.parse().ok());
        id.map(|id| (id, about(item)))
    });
    let names = answer.value["unreadable"].as_array();
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    let is_all = answer.value["next_token"].is_null();
    one(text, &short, ids.chain(unreadable(names)), is_all).map(|id| id.to_string())
}

/// The whole id of a request, by the store.
pub(super) async fn in_store(config: &Config, text: &str) -> Result<RequestId, Failure> {
    if let Ok(id) = text.parse::<RequestId>() {
        return Ok(id);
    }
    let short = parsed(text)?;
    let unread = |why: String| Failure::Failed(format!("{why}; type the whole id of the request"));
    let service = app::service(config, Purpose::Read).await;
    let service = service.map_err(|why| unread(why.to_string()))?;
    let (from, before) = short.created_between();
    let filter = Filter {
        from: Some(from),
        before: Some(before),
        ..Filter::default()
    };
    let found = service.list(&filter, None, MOST).await.map_err(failed)?;
    let ids = found.items.iter().map(|request| {
        let asked = &request.asked;
        let about = format!("{}, {}", request.status(), asked.requester.email);
        (request.id, about)
    });
    let names = found.unreadable.iter().map(|one| one.name.as_str());
    let is_all = found.items.len() < MOST;
    one(text, &short, ids.chain(unreadable(names)), is_all)
}

/// K12: a person can name a request also if jit cannot read its record.
fn unreadable<'n>(
    names: impl Iterator<Item = &'n str>,
) -> impl Iterator<Item = (RequestId, String)> {
    names.filter_map(|name| Some((name.parse().ok()?, "its record cannot be read".to_owned())))
}

fn about(item: &Value) -> String {
    let word = |name: &str| item[name].as_str().unwrap_or_default();
    format!("{}, {}", word("status"), word("requester_email"))
}

/// The only request whose id begins so. With several, the person must type more. `is_all`: no
/// other request was created at that time.
fn one(
    text: &str,
    short: &ShortId,
    ids: impl Iterator<Item = (RequestId, String)>,
    is_all: bool,
) -> Result<RequestId, Failure> {
    let found: Vec<(RequestId, String)> = ids.filter(|(id, _)| short.begins(*id)).collect();
    match found.as_slice() {
        [] | [_] if !is_all => Err(Failure::Failed(format!(
            "many requests were made at the time of {text}; type the whole id"
        ))),
        [] => Err(Failure::Failed(format!(
            "no request has an id that begins with {text}; `jit list` shows the open requests"
        ))),
        [(id, _)] => Ok(*id),
        several => {
            let lines = several.iter().take(NAMED);
            let lines: Vec<String> = lines.map(|(id, about)| format!("  {id} {about}")).collect();
            let more = match several.len() > NAMED {
                true => "\n  and more",
                false => "",
            };
            Err(Failure::Failed(format!(
                "several requests begin with {text}; type more of the id:\n{}{more}",
                lines.join("\n")
            )))
        }
    }
}
