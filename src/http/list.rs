//! GET /requests: the filters of a list, and the token of its next page.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::reply::{Problem, json};
use super::signed::{Signed, ToRead};
use super::{HttpState, pages};
use crate::domain::{Request, RequestId, RequestObject, Timestamp};
use crate::signature::{self, Secret};
use crate::store::{Cursor, Filter, Found};

/// The only `assignment_status` that is a filter.
const CHECKING: &str = "CHECKING";
const USUAL: usize = 50;
const MOST: usize = 200;

#[derive(Serialize)]
struct ListPage<'a> {
    items: Vec<RequestObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    filters: &'a BTreeMap<String, String>,
    /// The ids of unreadable records that belong to this page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
}

/// A parsed query. jit refuses an unknown name instead of ignoring it: a mistyped filter would
/// otherwise return too much.
#[derive(Debug, Default)]
struct ListQuery {
    filter: Filter,
    /// Only requests whose end a worker checks at AWS.
    is_checked: bool,
    limit: Option<usize>,
    next_token: Option<String>,
    /// The filters as the caller gave them. The reply repeats them, and the seal of the token
    /// covers them.
    given: BTreeMap<String, String>,
}

pub(super) async fn list(
    State(app): State<Arc<HttpState>>,
    call: Signed<ToRead>,
) -> Result<Response, Problem> {
    let asked = understand(call.query())?;
    if asked.given.is_empty() {
        let message = "name at least one filter: channel_id, account_id, requester_email, \
                       status, assignment_status, request_id, start_date or end_date";
        return Err(Problem::malformed(message));
    }
    let secret = &call.key.secret;
    let after = match &asked.next_token {
        Some(token) => Some(open_token(secret, token, &asked.given)?),
        None => None,
    };
    let limit = asked.limit.unwrap_or(USUAL);
    // One request more than asked for shows whether there is a next page.
    let mut found = match asked.is_checked {
        true => checked_ends(&app, &asked.filter, after.as_ref()).await?,
        false => {
            let page = app.service.list(&asked.filter, after.as_ref(), limit + 1);
            page.await?
        }
    };
    let more = found.len() > limit;
    found.items.truncate(limit);
    let last = found.last().filter(|_| more);
    let next_token = last.map(|last| seal_token(secret, Cursor::from(last), &asked.given));
    let items = found.iter().map(RequestObject::from).collect();
    Ok(json(
        200,
        &ListPage {
            items,
            next_token,
            filters: &asked.given,
            unreadable: found
                .unreadable
                .iter()
                .map(|one| one.name.clone())
                .collect(),
        },
    ))
}

/// The requests whose end a worker checks at AWS, after this place.
async fn checked_ends(
    app: &HttpState,
    filter: &Filter,
    after: Option<&Cursor>,
) -> Result<Found<Request>, Problem> {
    let mut found = app.service.checked_ends(filter).await?;
    if let Some(after) = after {
        found.items.retain(|one| Cursor::from(one) < *after);
    }
    Ok(found)
}

fn understand(query: &str) -> Result<ListQuery, Problem> {
    let mut asked = ListQuery::default();
    for (name, value) in pages::parameters(query)? {
        match name.as_str() {
            "limit" => asked.limit = Some(pages::limit(&value, MOST)?),
            "next_token" => asked.next_token = Some(value),
            "assignment_status" if value != CHECKING => {
                let message = format!("{name} must be {CHECKING}");
                return Err(Problem::malformed(message));
            }
            "assignment_status" => {
                asked.is_checked = true;
                asked.given.insert(name, value);
            }
            _ => {
                narrow(&mut asked.filter, &name, &value)?;
                asked.given.insert(name, value);
            }
        }
    }
    Ok(asked)
}

fn narrow(filter: &mut Filter, name: &str, value: &str) -> Result<(), Problem> {
    match name {
        "channel_id" => filter.channel_id = Some(parsed(name, value)?),
        "account_id" => filter.account_id = Some(parsed(name, value)?),
        "requester_email" => filter.requester_email = Some(parsed(name, value)?),
        "status" => filter.status = Some(parsed(name, value)?),
        "request_id" => filter.request_id = Some(parsed::<RequestId>(name, value)?),
        "start_date" => filter.from = Some(date(name, Timestamp::parse_first(value))?),
        "end_date" => filter.before = Some(date(name, Timestamp::parse_after(value))?),
        _ => return Err(Problem::malformed(format!("{name} is not a filter"))),
    }
    Ok(())
}

pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    value: &str,
) -> Result<T, Problem> {
    value
        .parse()
        .map_err(|error| Problem::malformed(format!("{name} {error}")))
}

fn date(name: &str, time: Option<Timestamp>) -> Result<Timestamp, Problem> {
    time.ok_or_else(|| {
        let example = "a date like 2026-01-15, or a time like 2026-01-15T10:00:00Z";
        Problem::malformed(format!("{name} must be {example}"))
    })
}

/// Makes the token of the next page. It is sealed, and is valid for these filters only.
fn seal_token(secret: &Secret, cursor: Cursor, given: &BTreeMap<String, String>) -> String {
    let place = format!("{}.{}", cursor.created_at.millis(), cursor.id);
    let mac = signature::seal(secret, &sealed_text(&place, given));
    URL_SAFE_NO_PAD.encode(format!("{place}.{mac}"))
}

fn open_token(
    secret: &Secret,
    token: &str,
    given: &BTreeMap<String, String>,
) -> Result<Cursor, Problem> {
    let open = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (place, mac) = text.rsplit_once('.')?;
        signature::is_seal(secret, &sealed_text(place, given), mac).then_some(())?;
        let (millis, id) = place.split_once('.')?;
        Some(Cursor {
            created_at: Timestamp::from_millis(millis.parse().ok()?),
            id: id.parse().ok()?,
        })
    };
    let message = "next_token does not belong to these filters; ask for the first page again";
    open().ok_or_else(|| Problem::malformed(message))
}

fn sealed_text(place: &str, given: &BTreeMap<String, String>) -> String {
    let mut text = format!("JIT-PAGE\n{place}");
    for (name, value) in given {
        text.push_str(&format!("\n{name}={}", hex::encode(value)));
    }
    text
}
