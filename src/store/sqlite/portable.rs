//! Copies histories out of the file and into it.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::notices::parked;
use super::rows::{doc_of, int};
use super::{SqliteStore, queries, writes};
use crate::domain::{AuditKey, Binding, Channel, Event, Holding, Request, RequestId, Timestamp};
use crate::store::StoreError;
use crate::store::portable::{COPIED, Copied, OutboxEntry, Portable, Took, is_behind};

#[async_trait]
impl Portable for SqliteStore {
    async fn outbox_entries(&self, id: RequestId) -> Result<Vec<OutboxEntry>, StoreError> {
        self.readers.query(|db| outbox_entries(db, id))
    }

    async fn parked(&self, id: RequestId) -> Result<u64, StoreError> {
        self.readers.query(|db| parked(db, &id.to_string()))
    }

    async fn take_over(&self, copied: &Copied) -> Result<Took, StoreError> {
        let copied = copied.clone();
        self.write(move |db| match &copied {
            Copied::Request {
                request,
                holding,
                outbox_entries,
                parked,
                events,
            } => {
                let outbox = (outbox_entries.as_slice(), *parked);
                take_request(db, request, holding.as_ref(), outbox, events)
            }
            Copied::Channel {
                channel,
                bindings,
                events,
            } => take_channel(db, channel, bindings, events),
        })
        .await
    }

    async fn note_copied(&self, at: Timestamp) -> Result<(), StoreError> {
        self.write(move |db| note_copied(db, at)).await
    }
}

pub(super) fn note_copied(db: &Connection, at: Timestamp) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO jit_leases (name, token, until) VALUES (?1, '', ?2)";
    db.execute(sql, params![COPIED, at.millis()])?;
    Ok(())
}

pub(super) fn copied_at(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = db
        .prepare_cached("SELECT until FROM jit_leases WHERE name = ?1")?
        .query_row([COPIED], |row| row.get(0))
        .optional()?;
    Ok(at.map(Timestamp::from_millis))
}

fn outbox_entries(db: &Connection, id: RequestId) -> Result<Vec<OutboxEntry>, StoreError> {
    let sql = "SELECT doc, attempts, next_at, state = 'parked', request_id || '.' || seq
         FROM jit_notices WHERE request_id = ?1 AND state <> 'forgotten' ORDER BY seq";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([id.to_string()])?;
    let mut outbox_entries = Vec::new();
    while let Some(row) = rows.next()? {
        let (doc, name): (String, String) = (row.get(0)?, row.get(4)?);
        outbox_entries.push(OutboxEntry {
            notice: super::rows::from_doc(&format!("notice {name}"), &doc)?,
            attempts: row.get(1)?,
            next_at: Timestamp::from_millis(row.get(2)?),
            parked: row.get(3)?,
        });
    }
    Ok(outbox_entries)
}

fn take_request(
    db: &Connection,
    request: &Request,
    holding: Option<&Holding>,
    (outbox_entries, parked): (&[OutboxEntry], u64),
    events: &[Event],
) -> Result<Took, StoreError> {
    let key = AuditKey::Request(request.id);
    let here = queries::request(db, request.id)?;
    if let Some(here) = &here {
        if here == request {
            return Ok(Took::Before);
        }
        if !is_behind(&queries::audit(db, &key, None, usize::MAX)?, events)
            || here.version.revision >= request.version.revision
        {
            return Err(StoreError::Diverged(key.to_string()));
        }
        let id = request.id.to_string();
        db.execute("DELETE FROM jit_requests WHERE request_id = ?1", [&id])?;
        db.execute("DELETE FROM jit_notices WHERE request_id = ?1", [&id])?;
    }
    // A record of a later revision cannot be inserted, so it is inserted as the first one and
    // its revision is then corrected.
    let first = request.at_revision(1);
    writes::put_request(db, &first, &doc_of(&first)?)?;
    let sql = "UPDATE jit_requests SET revision = ?2, doc = ?3 WHERE request_id = ?1";
    let id = request.id.to_string();
    db.execute(
        sql,
        params![id, int(request.version.revision), doc_of(request)?],
    )?;
    put_events(db, &key, events)?;
    for entry in outbox_entries {
        put_letter(db, entry)?;
    }
    put_forgotten(db, request.id, outbox_entries, parked)?;
    if let Some(holding) = holding {
        let sql =
            "INSERT OR REPLACE INTO jit_holdings (holding_key, revision, doc) VALUES (?1, ?2, ?3)";
        let key = holding.key.to_string();
        db.execute(sql, params![key, int(holding.revision), doc_of(holding)?])?;
    }
    Ok(Took::Now)
}

fn take_channel(
    db: &Connection,
    channel: &Channel,
    bindings: &[Binding],
    events: &[Event],
) -> Result<Took, StoreError> {
    let key = AuditKey::Config(channel.id.clone());
    let here = queries::channel(db, &channel.id)?;
    let bound = queries::bindings(db, &channel.id, None, usize::MAX)?;
    if here.as_ref() == Some(channel) && bound == bindings.to_vec() {
        return Ok(Took::Before);
    }
    if here.is_some() && !is_behind(&queries::audit(db, &key, None, usize::MAX)?, events) {
        return Err(StoreError::Diverged(key.to_string()));
    }
    let sql = "INSERT OR REPLACE INTO jit_channels (request_id, revision, doc) VALUES (?1, ?2, ?3)";
    let name = key.to_string();
    db.execute(sql, params![name, int(channel.revision), doc_of(channel)?])?;
    let sql = "DELETE FROM jit_bindings WHERE channel_id = ?1";
    db.execute(sql, [channel.id.as_str()])?;
    let sql =
        "INSERT INTO jit_bindings (account_id, channel_id, revision, doc) VALUES (?1, ?2, ?3, ?4)";
    for binding in bindings {
        let (account, channel) = (binding.account_id.as_str(), channel.id.as_str());
        db.execute(
            sql,
            params![account, channel, int(binding.revision), doc_of(binding)?],
        )?;
    }
    put_events(db, &key, events)?;
    Ok(Took::Now)
}

fn put_events(db: &Connection, key: &AuditKey, events: &[Event]) -> Result<(), StoreError> {
    let name = key.to_string();
    db.execute("DELETE FROM jit_audit WHERE request_id = ?1", [name])?;
    for event in events {
        writes::add_event(db, event, &doc_of(event)?)?;
    }
    Ok(())
}

/// Counts the parked notices whose documents the source does not have any more. Their numbers are
/// not known either; no notice has one below zero.
fn put_forgotten(
    db: &Connection,
    id: RequestId,
    outbox_entries: &[OutboxEntry],
    parked: u64,
) -> Result<(), StoreError> {
    let kept = outbox_entries.iter().filter(|entry| entry.parked).count();
    let sql = "INSERT INTO jit_notices (request_id, seq, state, created_at, attempts, next_at, doc)
         VALUES (?1, -?2, 'forgotten', 0, 0, 0, '')";
    for number in 1..=parked.saturating_sub(kept as u64) {
        db.prepare_cached(sql)?
            .execute(params![id.to_string(), int(number)])?;
    }
    Ok(())
}

fn put_letter(db: &Connection, entry: &OutboxEntry) -> Result<(), StoreError> {
    writes::insert_notice(db, &entry.notice, &doc_of(&entry.notice)?)?;
    let sql = "UPDATE jit_notices SET attempts = ?3, next_at = ?4, state = ?5,
         claimable_at = CASE WHEN ?5 = 'pending' THEN claimable_at END
         WHERE request_id = ?1 AND seq = ?2";
    let (id, seq) = (entry.notice.request_id, int(entry.notice.seq));
    let state = if entry.parked { "parked" } else { "pending" };
    let next_at = entry.next_at.millis();
    db.execute(
        sql,
        params![id.to_string(), seq, entry.attempts, next_at, state],
    )?;
    writes::put_first_in_line(db, id)?;
    Ok(())
}
