//! `jit store`: copies one store into another and compares both; backs up the SQLite file.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use serde_json::json;

use super::arguments::{StoreCopy, StoreLocation};
use super::output::{one_line, progress, tell};
use super::serve::failed;
use super::{CliContext, Failure};
use crate::app;
use crate::clock::{Clock, SystemClock};
use crate::config::{StoreConfig as Which, StoreKind};
use crate::domain::AuditKey;
use crate::domain::audit::verify_against;
use crate::files;
use crate::signature::WINDOW;
use crate::store::portable::{Copied, Portable, Took};
use crate::store::sqlite::SqliteStore;
use crate::store::{Head, StoreError};

const PAGE: usize = 200;
/// The number of histories that jit copies at the same time.
const AT_ONCE: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct CopyCounts {
    requests: u64,
    channels: u64,
    events: u64,
    outbox_entries: u64,
    /// The histories that the target store had already.
    before: u64,
}

pub(super) async fn back_up(context: &CliContext, file: &Path) -> Result<(), Failure> {
    let which = context.config_of_store()?.store;
    if which.kind != StoreKind::Sqlite {
        let why = "store.kind is dynamodb: use its point-in-time recovery, see runbooks/restore.md";
        return Err(Failure::Usage(why.into()));
    }
    let store = SqliteStore::open_read_only(&which.path).map_err(failed)?;
    create_backup(file)?;
    if let Err(why) = store.back_up_to(file).await {
        return Err(without_backup(file, &which, &why));
    }
    // jit opens the backup to check that it can be read.
    SqliteStore::open_read_only(file).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let text = || format!("{} is a backup of {which} ({bytes} bytes)", file.display());
    context
        .output
        .print(text, &json!({"file": file, "bytes": bytes}))
}

/// H6: the store is not the cause if the file of the backup cannot be made.
fn create_backup(file: &Path) -> Result<(), Failure> {
    let made = files::options().write(true).create_new(true).open(file);
    let Err(why) = made else { return Ok(()) };
    let name = file.display();
    Err(Failure::Failed(match why.kind() {
        // A link without a target exists too.
        ErrorKind::AlreadyExists => format!("{name} exists already: name another file"),
        ErrorKind::NotFound => format!(
            "the backup {name} cannot be created, because its folder does not exist: create the \
             folder, or name a file in another one"
        ),
        _ => format!(
            "the backup {name} cannot be created: {why}; name a file in a folder in which you may \
             create files"
        ),
    }))
}

/// Removes the incomplete file, which would look like a backup.
fn without_backup(file: &Path, which: &Which, why: &StoreError) -> Failure {
    let name = file.display();
    let left = match std::fs::remove_file(file) {
        Ok(()) => String::new(),
        Err(why) => format!("; {name} is incomplete and cannot be removed: {why}"),
    };
    Failure::Failed(format!(
        "{which} could not be copied to {name}: {why}{left}; check that the disk of {name} has \
         enough space, and run the command again"
    ))
}

pub(super) async fn copy(context: &CliContext, asked: &StoreCopy) -> Result<(), Failure> {
    let config = context.config_of_store()?;
    let (from, to) = (
        place(&config.store, &asked.from),
        place(&config.store, &asked.to),
    );
    if from.to_string() == to.to_string() {
        return Err(Failure::Usage("--from and --to name the same store".into()));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    if from.kind == StoreKind::Sqlite && !from.path.exists() {
        let path = from.path.display();
        return Err(Failure::Failed(format!(
            "the source store {path} does not exist"
        )));
    }
    let source = app::portable(&from, &clock).await.map_err(failed)?;
    let target = app::portable(&to, &clock).await.map_err(failed)?;
    let (source, target) = (source.as_ref(), target.as_ref());
    tell(&format!("copies {from} into {to}"));
    let bar = progress(0);
    let told = walk(source, &bar, "copied", |head| take(source, target, head)).await;
    // Also after an interruption: the target must not accept calls as if it were the source.
    let copied_at = clock.now();
    target.note_copied(copied_at).await.map_err(failed)?;
    let told = told?;
    let same = walk(source, &bar, "compared", |head| {
        compare(source, target, head)
    })
    .await?;
    bar.finish_and_clear();
    copy_heads(source, target, &to).await?;
    let extra = extra(target, &told).await?;
    if extra > 0 {
        tell(&format!(
            "{extra} histories exist only in {to}; jit did not change them"
        ));
    }
    let from_when = copied_at + WINDOW;
    let value = json!({
        "requests": told.requests, "channels": told.channels, "events": same.events,
        "notices": told.outbox_entries, "were_there": told.before, "only_in_target": extra,
        "takes_calls_signed_after": from_when,
    });
    let text = || {
        format!(
            "{} requests, {} channels, {} events and {} notices are equal in both stores\n\
             the target store accepts signed calls from {from_when} on, and revokes at once; due work starts at once",
            told.requests, told.channels, same.events, told.outbox_entries
        )
    };
    context.output.print(text, &value)
}

/// Copies the head log, with its seals, if the log of the target is a beginning of it.
async fn copy_heads(
    source: &dyn Portable,
    target: &dyn Portable,
    to: &Which,
) -> Result<(), Failure> {
    let (mut after, there) = (0, target.last_head_entry().await.map_err(failed)?);
    let behind = there.as_ref().map_or(0, |last| last.number);
    loop {
        let entries = source.head_entries(after, PAGE).await.map_err(failed)?;
        let Some(last) = entries.last() else { break };
        after = last.number;
        for entry in entries {
            if there
                .as_ref()
                .is_some_and(|last| last.number == entry.number && *last != entry)
            {
                tell(&format!(
                    "{to} has a head log of its own, which jit keeps; jit audit verify names \
                     the histories that are not in it"
                ));
                return Ok(());
            }
            if entry.number > behind {
                target.add_head_entry(&entry).await.map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn place(configured: &Which, asked: &StoreLocation) -> Which {
    let mut which = configured.clone();
    match asked {
        StoreLocation::Sqlite(path) => {
            which.kind = StoreKind::Sqlite;
            which.path = path.clone().unwrap_or(which.path);
        }
        StoreLocation::Dynamodb => which.kind = StoreKind::Dynamodb,
    }
    which
}

/// Calls `act` for every history of the source, several at the same time.
async fn walk<F>(
    source: &dyn Portable,
    bar: &ProgressBar,
    word: &'static str,
    act: impl Fn(Head) -> F,
) -> Result<CopyCounts, Failure>
where
    F: Future<Output = Result<CopyCounts, Failure>>,
{
    let mut all = CopyCounts::default();
    let mut after: Option<AuditKey> = None;
    bar.set_message(word);
    loop {
        let heads = source.heads(after.as_ref(), PAGE).await.map_err(failed)?;
        // jit does not copy a store with a record that it cannot read.
        if let Some(one) = heads.unreadable.first() {
            let (name, why) = (one_line(&one.name), one_line(&one.why));
            let next = "correct the record or delete it, then run the same command again";
            let why = format!("jit cannot read {name}: {why}; {next}");
            return Err(Failure::Failed(why));
        }
        let Some(last) = heads.last() else {
            return Ok(all);
        };
        after = Some(last.key.clone());
        bar.inc_length(heads.len() as u64);
        let acts = stream::iter(heads.into_iter().map(&act)).buffer_unordered(AT_ONCE);
        let done: Vec<CopyCounts> = acts.inspect_ok(|_| bar.inc(1)).try_collect().await?;
        for one in done {
            all.requests += one.requests;
            all.channels += one.channels;
            all.events += one.events;
            all.outbox_entries += one.outbox_entries;
            all.before += one.before;
        }
    }
}

async fn take(
    source: &dyn Portable,
    target: &dyn Portable,
    head: Head,
) -> Result<CopyCounts, Failure> {
    let name = head.key.to_string();
    let copied = whole(source, head.key).await.map_err(failed)?;
    let Some(copied) = copied else {
        return Err(Failure::Failed(format!(
            "{name} was deleted during the copy: run the same command again"
        )));
    };
    let took = target.take_over(&copied).await.map_err(failed)?;
    let mut tally = CopyCounts {
        events: copied.events().len() as u64,
        before: u64::from(took == Took::Before),
        ..CopyCounts::default()
    };
    match &copied {
        Copied::Request { outbox_entries, .. } => {
            (tally.requests, tally.outbox_entries) = (1, outbox_entries.len() as u64);
        }
        Copied::Channel { .. } => tally.channels = 1,
    }
    Ok(tally)
}

async fn whole(source: &dyn Portable, key: AuditKey) -> Result<Option<Copied>, StoreError> {
    let events = source.audit(&key).await?;
    Ok(match key {
        AuditKey::Request(id) => {
            let Some(request) = source.request(id).await? else {
                return Ok(None);
            };
            let holding = match request.holding_key() {
                Some(key) => source.holding(&key).await?,
                None => None,
            };
            Some(Copied::Request {
                holding,
                outbox_entries: source.outbox_entries(id).await?,
                parked: source.parked(id).await?,
                request: Box::new(request),
                events,
            })
        }
        AuditKey::Config(id) => {
            let bindings = source.bindings(&id).await?.whole()?;
            let channel = source.channel(&id).await?;
            channel.map(|channel| Copied::Channel {
                channel,
                bindings,
                events,
            })
        }
    })
}

/// Compares record, hash chain and notices of one history in both stores.
async fn compare(
    source: &dyn Portable,
    target: &dyn Portable,
    head: Head,
) -> Result<CopyCounts, Failure> {
    let (name, chain, status) = (head.key.to_string(), head.chain, head.status);
    let here = whole(source, head.key.clone()).await.map_err(failed)?;
    let there = whole(target, head.key).await.map_err(failed)?;
    if here != there {
        let why = "differs between the stores: stop every jit that serves one of them, then run the same \
                   command again";
        return Err(Failure::Failed(format!("{name} {why}")));
    }
    let events = there.as_ref().map(Copied::events).unwrap_or_default();
    verify_against(events, &chain, status)
        .map_err(|why| Failure::Failed(format!("{name} failed the audit check: {why}")))?;
    Ok(CopyCounts {
        events: events.len() as u64,
        ..CopyCounts::default()
    })
}

/// The number of histories that only the target has.
async fn extra(target: &dyn Portable, told: &CopyCounts) -> Result<u64, Failure> {
    let mut all = 0_u64;
    let mut after: Option<AuditKey> = None;
    loop {
        let heads = target.heads(after.as_ref(), PAGE).await.map_err(failed)?;
        let Some(last) = heads.last() else {
            return Ok(all.saturating_sub(told.requests + told.channels));
        };
        after = Some(last.key.clone());
        all += heads.len() as u64;
    }
}
