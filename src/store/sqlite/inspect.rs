//! Reads one history with its record in one snapshot, and compares the columns of each row with
//! its document.

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows};

use super::rows::{from_doc, int, revoked_at};
use super::{queries, rows};
use crate::domain::{
    AccountId, AuditKey, Binding, Channel, Event, Holding, HoldingKey, Request, Timestamp,
};
use crate::store::StoreError;
use crate::store::inspect::{AuditedRecord, Fit, Inspected, Misfit, record_name};

pub(super) fn inspect(db: &Connection, key: &AuditKey) -> Result<Inspected, StoreError> {
    // All reads see the same state of the file.
    let snapshot = db.unchecked_transaction()?;
    let mut found = Inspected::default();
    match key {
        AuditKey::Request(id) => {
            if let Some(request) = queries::request(&snapshot, *id)? {
                check_request(&snapshot, key, &mut found.misfits)?;
                if let Some(holding_key) = request.holding_key() {
                    check_holding(&snapshot, &holding_key, &mut found.misfits)?;
                }
                found.record = Some(AuditedRecord::Request(Box::new(request)));
            }
        }
        AuditKey::Config(channel) => {
            if let Some(channel) = queries::channel(&snapshot, channel)? {
                check_channel(&snapshot, key, &channel, &mut found.misfits)?;
                found.record = Some(AuditedRecord::Channel(channel));
            }
            found.bindings = bindings(&snapshot, channel.as_str(), &mut found.misfits)?;
        }
    }
    found.events = events(&snapshot, key, &mut found.misfits)?;
    Ok(found)
}

/// Steps from key to key in the primary key, so the cost depends on the number of histories.
pub(super) const AUDIT_KEYS: &str = "WITH RECURSIVE keys (name) AS (
       SELECT min(request_id) FROM jit_audit
       UNION ALL
       SELECT (SELECT min(request_id) FROM jit_audit WHERE request_id > keys.name) FROM keys
       WHERE keys.name IS NOT NULL)
     SELECT name FROM keys WHERE name IS NOT NULL";

pub(super) fn audit_keys(db: &Connection) -> Result<BTreeSet<String>, StoreError> {
    let mut statement = db.prepare_cached(AUDIT_KEYS)?;
    let mut rows = statement.query([])?;
    let mut keys = BTreeSet::new();
    while let Some(row) = rows.next()? {
        keys.insert(rows::text_of(row, 0));
    }
    Ok(keys)
}

pub(super) const REQUEST_COLUMNS: &str = "SELECT doc, status, account_id, channel_id,
       requester_email, created_at, revoked_at, revision, written_status, written_lane,
       written_claimable_at, written_end_at, lease_until, failing IS NOT NULL
     FROM jit_requests WHERE request_id = ?1";

/// A status that an operator wrote is not a misfit: the check of the chain reports it.
fn check_request(
    db: &Connection,
    key: &AuditKey,
    misfits: &mut Vec<Misfit>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(REQUEST_COLUMNS)?;
    let mut found = statement.query([key.to_string()])?;
    let Some(row) = found.next()? else {
        return Ok(());
    };
    let name = record_name(key);
    let request: Request = from_doc(&name, &row.get::<_, String>(0)?)?;
    let status = request.status().to_string();
    let is_written_outside = value(row, 1) != value(row, 8);
    let mut fit = Fit { of: name, misfits };
    let text = |value: &dyn ToString| Some(value.to_string());
    let millis = |at: Option<Timestamp>| at.map(|at| at.millis().to_string());
    let asked = &request.asked;
    fit.check("account_id", value(row, 2), text(&asked.account_id));
    fit.check("channel_id", value(row, 3), text(&asked.channel_id));
    let email = text(request.requester_email());
    fit.check("requester_email", value(row, 4), email);
    fit.check("created_at", value(row, 5), text(&asked.created_at));
    if !is_written_outside {
        fit.check("status", value(row, 1), text(&status));
        let revoked_at = revoked_at(&request.state).map(|at| at.to_string());
        fit.check("revoked_at", value(row, 6), revoked_at);
        let revision = text(&int(request.version.revision));
        fit.check("revision", value(row, 7), revision);
    }
    fit.check("written_status", value(row, 8), text(&status));
    fit.check(
        "written_lane",
        value(row, 9),
        text(&request.lane().number()),
    );
    let claimable = millis(request.claimable_at());
    fit.check("written_claimable_at", value(row, 10), claimable);
    fit.check(
        "written_end_at",
        value(row, 11),
        millis(request.overdue_at()),
    );
    let lease = request.schedule.lease.map(|lease| lease.until);
    fit.check("lease_until", value(row, 12), millis(lease));
    // A row of an older jit has another number here.
    let failing = i64::from(request.failing_since().is_some());
    fit.check("failing", value(row, 13), text(&failing));
    Ok(())
}

fn check_holding(
    db: &Connection,
    key: &HoldingKey,
    misfits: &mut Vec<Misfit>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(queries::HOLDING)?;
    let mut found = statement.query([key.to_string()])?;
    let Some(row) = found.next()? else {
        return Ok(());
    };
    let of = format!("the assignment {key}");
    let holding: Holding = from_doc(&of, &row.get::<_, String>(0)?)?;
    let mut fit = Fit { of, misfits };
    fit.check(
        "revision",
        value(row, 1),
        Some(holding.revision.to_string()),
    );
    Ok(())
}

pub(super) const CHANNEL_COLUMNS: &str = "SELECT revision FROM jit_channels WHERE request_id = ?1";

fn check_channel(
    db: &Connection,
    key: &AuditKey,
    channel: &Channel,
    misfits: &mut Vec<Misfit>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(CHANNEL_COLUMNS)?;
    let mut found = statement.query([key.to_string()])?;
    if let Some(row) = found.next()? {
        let of = record_name(key);
        let mut fit = Fit { of, misfits };
        let own = AuditKey::Config(channel.id.clone()).to_string();
        fit.check("request_id", Some(key.to_string()), Some(own));
        let revision = Some(channel.revision.to_string());
        fit.check("revision", value(row, 0), revision);
    }
    Ok(())
}

pub(super) const BINDING_COLUMNS: &str = "SELECT doc, account_id, channel_id, revision
     FROM jit_bindings INDEXED BY jit_bindings_by_channel
     WHERE channel_id = ?1 ORDER BY account_id";

fn bindings(
    db: &Connection,
    channel: &str,
    misfits: &mut Vec<Misfit>,
) -> Result<Vec<Binding>, StoreError> {
    let mut statement = db.prepare_cached(BINDING_COLUMNS)?;
    let mut found: Rows<'_> = statement.query([channel])?;
    let mut bindings = Vec::new();
    while let Some(row) = found.next()? {
        let of = format!("the binding of {}", rows::text_of(row, 1));
        let binding: Binding = from_doc(&of, &row.get::<_, String>(0)?)?;
        let mut fit = Fit { of, misfits };
        let text = |value: &dyn ToString| Some(value.to_string());
        fit.check("account_id", value(row, 1), text(&binding.account_id));
        fit.check("channel_id", value(row, 2), text(&binding.channel_id));
        fit.check("revision", value(row, 3), text(&binding.revision));
        bindings.push(binding);
    }
    Ok(bindings)
}

pub(super) const EVENT_COLUMNS: &str = "SELECT doc, request_id, event_time_event_id, seq,
       event_time, event_type, account_id, channel_id
     FROM jit_audit WHERE request_id = ?1 ORDER BY seq";

fn events(
    db: &Connection,
    key: &AuditKey,
    misfits: &mut Vec<Misfit>,
) -> Result<Vec<Event>, StoreError> {
    let mut statement = db.prepare_cached(EVENT_COLUMNS)?;
    let mut found = statement.query([key.to_string()])?;
    let mut events = Vec::new();
    while let Some(row) = found.next()? {
        let of = format!("event {}", rows::text_of(row, 2));
        let event: Event = from_doc(&of, &row.get::<_, String>(0)?)?;
        let mut fit = Fit { of, misfits };
        let text = |value: &dyn ToString| Some(value.to_string());
        fit.check("request_id", value(row, 1), text(&event.request_id));
        fit.check("event_time_event_id", value(row, 2), Some(event.sort_key()));
        fit.check("seq", value(row, 3), text(&event.seq));
        fit.check("event_time", value(row, 4), text(&event.event_time));
        fit.check("event_type", value(row, 5), text(&event.event_type));
        let account = event.account_id.as_ref().map(AccountId::to_string);
        fit.check("account_id", value(row, 6), account);
        fit.check("channel_id", value(row, 7), text(&event.channel_id));
        events.push(event);
    }
    Ok(events)
}

/// The value of a column as text; none for NULL.
fn value(row: &Row<'_>, column: usize) -> Option<String> {
    match row.get_ref(column) {
        Ok(ValueRef::Null) => None,
        Ok(ValueRef::Integer(number)) => Some(number.to_string()),
        Ok(ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_)) | Err(_) => {
            Some(rows::text_of(row, column))
        }
    }
}
