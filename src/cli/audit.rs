//! What happened: one history over HTTP, all of them from the store itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::arguments::Export;
use super::client::Caller;
use super::output::{one_line, print, table};
use super::serve::failed;
use super::{Context, Failure};
use crate::clock::{Clock, SystemClock};
use crate::domain::audit::verify_against;
use crate::domain::{AuditKey, Event, Timestamp};
use crate::serve::{self, Purpose};
use crate::signature::percent_encoded;
use crate::store::{AuditFilter, Head, Store};

const PAGE: usize = 500;
/// A history that is being written to is read again before it is called tampered with.
const LOOKS: u32 = 3;

pub(super) async fn show(context: &Context, id: &str) -> Result<(), Failure> {
    let events = if context.client_if_any().await?.is_some() {
        let path = format!("/requests/{}/audit", percent_encoded(id));
        Caller::new(context).await?.get(&path).await?.value
    } else {
        let events = store(context)
            .await?
            .audit(&key(id)?)
            .await
            .map_err(failed)?;
        if events.is_empty() {
            return Err(Failure::Failed(format!("there is no history of {id}")));
        }
        json!(events)
    };
    context.output.say(|| history(&events), &events)
}

fn history(events: &Value) -> String {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            let word = |name: &str| one_line(event[name].as_str().unwrap_or_default());
            let details = event["details"].as_object().cloned().unwrap_or_default();
            let details = details
                .iter()
                .map(|(name, value)| format!("{name}={}", one_line(value.as_str().unwrap_or("?"))));
            vec![
                event["seq"].to_string(),
                word("event_time"),
                word("event_type"),
                word("actor_email"),
                details.collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    table(&["#", "TIME", "EVENT", "WHO", "DETAILS"], &rows)
}

pub(super) async fn export(context: &Context, export: &Export) -> Result<(), Failure> {
    let moment = |text: &Option<String>, parse: fn(&str) -> Option<Timestamp>| {
        let text = text.as_deref();
        text.map(|text| parse(text).ok_or_else(|| no_moment(text)))
            .transpose()
    };
    let filter = AuditFilter {
        account_id: export.account.clone(),
        channel_id: export.channel.clone(),
        from: moment(&export.from, Timestamp::parse_first)?,
        before: moment(&export.to, Timestamp::parse_after)?,
    };
    let store = store(context).await?;
    let mut last: Option<String> = None;
    loop {
        let events = store
            .export(&filter, last.as_deref(), PAGE)
            .await
            .map_err(failed)?;
        let Some(end) = events.last() else {
            return Ok(());
        };
        last = Some(end.sort_key());
        for event in &events {
            print(&json!(event).to_string())?;
        }
    }
}

fn no_moment(text: &str) -> Failure {
    let rule = "is neither a day like 2026-01-31 nor a time like 2026-01-31T12:00:00Z";
    Failure::Usage(format!("{text:?} {rule}"))
}

pub(super) async fn verify(context: &Context, id: Option<&str>) -> Result<(), Failure> {
    let store = store(context).await?;
    let store = store.as_ref();
    let mut only = match id {
        Some(id) => {
            let head = head_of(store, &key(id)?).await?;
            let unknown = || Failure::Failed(format!("there is no history of {id}"));
            Some(vec![head.ok_or_else(unknown)?])
        }
        None => None,
    };
    let (mut histories, mut events) = (0_u64, 0_u64);
    let mut broken: Vec<Value> = Vec::new();
    let mut after: Option<AuditKey> = None;
    loop {
        let heads = match (&mut only, &after) {
            (Some(only), _) => std::mem::take(only),
            (None, after) => store.heads(after.as_ref(), PAGE).await.map_err(failed)?,
        };
        let Some(last) = heads.last() else { break };
        after = Some(last.key.clone());
        for head in heads {
            histories += 1;
            let key = head.key.clone();
            match check(store, head).await? {
                Ok(count) => events += count,
                Err(why) => broken.push(json!({"request_id": key, "why": why})),
            }
        }
    }
    let value = json!({"histories": histories, "events": events, "broken": broken});
    let text = || match broken.is_empty() {
        true => format!("{histories} histories with {events} events are whole"),
        false => {
            let lines = broken.iter().map(|one| {
                let word = |name: &str| one_line(one[name].as_str().unwrap_or_default());
                format!("{}: {}", word("request_id"), word("why"))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    context.output.say(text, &value)?;
    if broken.is_empty() {
        return Ok(());
    }
    let (count, all) = (broken.len(), histories);
    Err(Failure::Failed(format!(
        "{count} of {all} histories cannot be believed; keep a copy of the store before anything \
         else is done to it"
    )))
}

/// How many events a history has, or what is wrong with it.
async fn check(store: &dyn Store, mut head: Head) -> Result<Result<u64, String>, Failure> {
    let mut looks = 0;
    loop {
        let events: Vec<Event> = store.audit(&head.key).await.map_err(failed)?;
        let Err(tampered) = verify_against(&events, &head.chain, head.status) else {
            return Ok(Ok(head.chain.version));
        };
        looks += 1;
        if looks == LOOKS {
            return Ok(Err(tampered.to_string()));
        }
        head = head_of(store, &head.key).await?.unwrap_or(head);
    }
}

/// Where a history must end, as the record says.
async fn head_of(store: &dyn Store, key: &AuditKey) -> Result<Option<Head>, Failure> {
    Ok(match key {
        AuditKey::Request(id) => store.request(*id).await.map_err(failed)?.map(Head::from),
        AuditKey::Config(id) => store.channel(id).await.map_err(failed)?.map(Head::from),
    })
}

fn key(id: &str) -> Result<AuditKey, Failure> {
    id.parse()
        .map_err(|_| Failure::Usage(format!("{id:?} is neither a request id nor config#CHANNEL")))
}

async fn store(context: &Context) -> Result<Arc<dyn Store>, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = context.config_without_secrets()?;
    serve::store(&config.store, Purpose::Look, &clock)
        .await
        .map_err(failed)
}
