//! The audit: one history over HTTP, or the events of all histories from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::arguments::Export;
use super::client::Caller;
use super::output::{one_line, print, table, tell};
use super::serve::failed;
use super::typed::nearest;
use super::{CliContext, Failure, pages, short_id, typed};
use crate::app::{self, Purpose};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::{AuditKey, ChannelId, Event, Millis, Timestamp};
use crate::service::Service;
use crate::store::AuditFilter;

const PAGE: usize = 500;
/// The store may receive an event this long after the time of the event, because the clocks
/// of replicas differ and a write may be slow.
const LATE: Millis = Millis::minutes(5);
/// How often an export reads the recent events again for late ones.
const MOST_LOOKS_BACK: u32 = 5;

pub(super) async fn show(context: &CliContext, id: &str) -> Result<(), Failure> {
    let events = if context.client_if_any().await?.is_some() {
        let caller = Caller::new(context).await?;
        let id = match id.parse::<AuditKey>() {
            Ok(key) => key.to_string(),
            Err(_) => short_id::at_server(&caller, id).await?,
        };
        json!(pages::history(&caller, &id).await?)
    } else {
        let config = context.config_of_store()?;
        let key = key(&config, id).await?;
        let service = app::service(&config, Purpose::Read).await.map_err(failed)?;
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map(Event::place);
            let page = service.history(&key, after, PAGE).await.map_err(failed)?;
            if page.is_empty() {
                break;
            }
            events.extend(page);
        }
        if events.is_empty() {
            return Err(Failure::Failed(format!(
                "there is no history of {id}; jit list shows the requests"
            )));
        }
        json!(events)
    };
    context.output.print(|| history(&events), &events)
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
    table(&["#", "TIME", "EVENT", "ACTOR", "DETAILS"], &rows)
}

pub(super) async fn export(context: &CliContext, export: &Export) -> Result<(), Failure> {
    let moment = |text: &Option<String>, parse: fn(&str) -> Option<Timestamp>| {
        let text = text.as_deref();
        text.map(|text| parse(text).ok_or_else(|| no_moment(text)))
            .transpose()
    };
    let account_id = match &export.account {
        Some(word) => Some(typed::account(word, &context.account_names()?)?),
        None => None,
    };
    let filter = AuditFilter {
        account_id,
        channel_id: export.channel.clone(),
        from: moment(&export.from, Timestamp::parse_first)?,
        before: moment(&export.to, Timestamp::parse_after)?,
    };
    let service = service(context).await?;
    let mut is_empty = true;
    let mut write = |event: &Event| {
        is_empty = false;
        print(&json!(event).to_string())
    };
    let mut run = Exporting::new(&service, &filter, SystemClock.now(), PAGE);
    run.all(&SystemClock, &mut write).await?;
    let from = run.go_on_from;
    tell(&format!(
        "to miss no event, start the next export with --from {from}; an event that both \
         exports contain has the same event_id"
    ));
    if run.unreadable.is_empty() {
        return match is_empty {
            true => report_unknown(&service, &filter).await,
            false => Ok(()),
        };
    }
    let each = run.unreadable.iter();
    let lines = each.map(|(name, why)| format!("{}: {}", one_line(name), one_line(why)));
    let (count, lines) = (run.unreadable.len(), lines.collect::<Vec<_>>().join("\n"));
    Err(Failure::Failed(format!(
        "the export left out {count} events that cannot be read; jit audit verify checks all:\n{lines}"
    )))
}

/// H1: an export is also empty if a name is misspelt, so the command says which name has no event.
async fn report_unknown(service: &Service, filter: &AuditFilter) -> Result<(), Failure> {
    if let Some(channel) = &filter.channel_id {
        let all = AuditFilter {
            channel_id: Some(channel.clone()),
            ..AuditFilter::default()
        };
        if has_no_event(service, &all).await? {
            let known = service.bound_channels().await.map_err(failed)?;
            let near = nearest(channel.as_str(), known.keys().map(ChannelId::as_str));
            let near = near.map_or_else(String::new, |near| format!("; nearest: {near}"));
            tell(&format!(
                "no event of the channel {channel} is stored{near}"
            ));
        }
    }
    if let Some(account) = &filter.account_id {
        let all = AuditFilter {
            account_id: Some(account.clone()),
            ..AuditFilter::default()
        };
        if has_no_event(service, &all).await? {
            tell(&format!("no event of the account {account} is stored"));
        }
    }
    Ok(())
}

async fn has_no_event(service: &Service, filter: &AuditFilter) -> Result<bool, Failure> {
    let first = service.export(filter, None, 1).await.map_err(failed)?;
    Ok(first.is_empty())
}

/// One export: it contains each event once, also an event that the store receives late.
struct Exporting<'s> {
    service: &'s Service,
    filter: &'s AuditFilter,
    page: usize,
    /// The store had received older events before the export began.
    recent: Timestamp,
    /// The recent events that the export has printed.
    told: BTreeSet<String>,
    unreadable: BTreeMap<String, String>,
    /// Events that the store receives from now on have no earlier time.
    go_on_from: Timestamp,
}

impl<'s> Exporting<'s> {
    fn new(service: &'s Service, filter: &'s AuditFilter, now: Timestamp, page: usize) -> Self {
        let recent = now + Millis(-LATE.0);
        Self {
            service,
            filter,
            page,
            recent,
            told: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            go_on_from: recent,
        }
    }

    async fn all(&mut self, clock: &dyn Clock, tell: &mut Tell<'_>) -> Result<(), Failure> {
        self.pass(self.filter, tell).await?;
        let recent = AuditFilter {
            from: self.filter.from.max(Some(self.recent)),
            ..self.filter.clone()
        };
        for _ in 0..MOST_LOOKS_BACK {
            self.go_on_from = clock.now() + Millis(-LATE.0);
            if self.pass(&recent, tell).await? == 0 {
                break;
            }
        }
        let end = self.filter.before.unwrap_or(self.go_on_from);
        self.go_on_from = self.go_on_from.min(end);
        Ok(())
    }

    /// Prints the new events, and returns their number.
    async fn pass(&mut self, filter: &AuditFilter, tell: &mut Tell<'_>) -> Result<u64, Failure> {
        let (mut new, mut last) = (0, None::<String>);
        loop {
            let found = self
                .service
                .export(filter, last.as_deref(), self.page)
                .await;
            let found = found.map_err(failed)?;
            for one in found.unreadable.iter().cloned() {
                self.unreadable.insert(one.name, one.why);
            }
            let Some(end) = found.last() else {
                return Ok(new);
            };
            last = Some(end.sort_key());
            for event in &found.items {
                let is_recent = event.event_time >= self.recent;
                if !is_recent || self.told.insert(event.sort_key()) {
                    tell(event)?;
                    new += 1;
                }
            }
        }
    }
}

type Tell<'t> = dyn FnMut(&Event) -> Result<(), Failure> + Send + 't;

fn no_moment(text: &str) -> Failure {
    let rule = "is not a day like 2026-01-31 and not a time like 2026-01-31T12:00:00Z";
    Failure::Usage(format!("{text:?} {rule}"))
}

/// A request by its id or the beginning of its id, or the configuration of a channel.
pub(super) async fn key(config: &Config, id: &str) -> Result<AuditKey, Failure> {
    if id.starts_with("config#") {
        return id.parse().map_err(|why| {
            Failure::Usage(format!(
                "{id:?} {why}; type config#CHANNEL, as in config#town-square"
            ))
        });
    }
    short_id::in_store(config, id).await.map(AuditKey::Request)
}

async fn service(context: &CliContext) -> Result<Arc<Service>, Failure> {
    let config = context.config_of_store()?;
    app::service(&config, Purpose::Read).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Channel;
    use crate::domain::decide::fixtures::policy;
    use crate::service::Announce;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Commit, Store, Write};

    fn event(channel: &str, at: Timestamp) -> (Channel, Event) {
        let channel = Channel::unknown(channel.parse().unwrap());
        channel.refused(BTreeMap::new(), at)
    }

    /// Writes an event like another process does, between two pages.
    fn write(path: &std::path::Path, event: &Event) {
        let db = rusqlite::Connection::open(path).unwrap();
        let given = [
            event.request_id.to_string(),
            event.sort_key(),
            event.event_time.to_string(),
            event.channel_id.to_string(),
            json!(event).to_string(),
        ];
        let sql = "INSERT INTO jit_audit (request_id, event_time_event_id, seq, event_time,
                   event_type, channel_id, doc) VALUES (?1, ?2, 1, ?3, 'x', ?4, ?5)";
        db.execute(sql, given).unwrap();
    }

    // K15
    #[tokio::test]
    async fn an_event_that_is_stored_late_is_exported_and_each_event_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jit.db");
        let store = Arc::new(SqliteStore::open(&path).unwrap());
        let clock = Arc::new(SystemClock);
        let service = Service::new(store.clone(), clock, policy(), Announce::None);
        let (now, long_ago) = (SystemClock.now(), Millis::DAY);
        for number in 0..8 {
            let age = if number < 4 {
                long_ago
            } else {
                Millis::minutes(1)
            };
            let at = now + Millis(number - age.0);
            let (channel, event) = event(&format!("c{number}"), at);
            let commit = Commit::of([Write::Channel(channel), Write::Event(event)]);
            store.commit(commit).await.unwrap();
        }
        let (_, late) = event("late", now + Millis::minutes(-2));
        let mut told: Vec<String> = Vec::new();
        let all = AuditFilter::default();
        let mut run = Exporting::new(&service, &all, now, 2);
        let mut tell = |event: &Event| {
            told.push(event.channel_id.to_string());
            if told.len() == 7 {
                write(&path, &late);
            }
            Ok(())
        };
        run.all(&SystemClock, &mut tell).await.unwrap();
        let missed_nothing = run.go_on_from <= now && run.go_on_from >= now + Millis(-LATE.0);
        assert!(missed_nothing, "{}", run.go_on_from);
        let mut wanted: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
        wanted.push("late".into());
        assert_eq!(told, wanted);
        // The next export after a past period begins at the end of that period.
        let span = AuditFilter {
            before: Some(now + Millis(-Millis::hours(1).0)),
            ..AuditFilter::default()
        };
        let mut run = Exporting::new(&service, &span, now, 2);
        let mut count = 0;
        let mut tell = |_: &Event| {
            count += 1;
            Ok(())
        };
        run.all(&SystemClock, &mut tell).await.unwrap();
        assert_eq!(Some(run.go_on_from), span.before);
        assert_eq!(count, 4);
    }
}
