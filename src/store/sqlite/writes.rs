//! The statements of a commit. They run as jobs of the writer, so a function that returns an
//! error leaves no change behind.

use rusqlite::{Connection, named_params, params};

use super::queries;
use super::rows::{doc_of, int, limit, revoked_at};
use crate::domain::{
    AuditKey, Binding, Channel, Event, Holding, Lease, LeaseHolder, LeaseToken, Millis, Notice,
    Request, RequestId, Timestamp,
};
use crate::store::outbox::{
    MOST_PARKED, MOST_PENDING, NoticeChange, NoticeClaim, PendingNotice, note_parked,
    notice_changes,
};
use crate::store::{Answered, ClaimEnd, Guard, Left, NoticePlace, StoreError, Taken, Write};

/// The number of rows that one clean-up deletes, so that it does not delay other writes.
const TIDIED_AT_ONCE: usize = 1000;

/// A write with the document of its record, which is empty if it stores none. The caller
/// serialises it, so that the writer thread need not.
pub(super) struct Prepared {
    write: Write,
    doc: String,
}

impl Prepared {
    pub fn new(write: Write) -> Result<Self, StoreError> {
        let doc = match &write {
            Write::Request(request) => doc_of(request)?,
            Write::Holding(holding) => doc_of(holding)?,
            Write::Channel(channel) => doc_of(channel)?,
            Write::Binding(binding) => doc_of(binding)?,
            Write::Event(event) => doc_of(event)?,
            Write::Notice(notice) => doc_of(notice)?,
            Write::Unbind(_) | Write::Guard(_) | Write::Park(_) | Write::Answer(_) => String::new(),
        };
        Ok(Self { write, doc })
    }
}

pub(super) fn commit(db: &Connection, writes: &[Prepared]) -> Result<(), StoreError> {
    for Prepared { write, doc } in writes {
        match write {
            Write::Request(request) => put_request(db, request, doc)?,
            Write::Holding(holding) => put_holding(db, holding, doc)?,
            Write::Channel(channel) => put_channel(db, channel, doc)?,
            Write::Binding(binding) => put_binding(db, binding, doc)?,
            Write::Unbind(binding) => unbind(db, binding)?,
            Write::Guard(guard) => check_guard(db, guard)?,
            Write::Event(event) => add_event(db, event, doc)?,
            Write::Notice(notice) => add_notice(db, notice, doc)?,
            Write::Park(place) => park_notice(db, *place)?,
            Write::Answer(answered) => remember_answer(db, answered)?,
        }
    }
    Ok(())
}

/// A write changes exactly one row if the stored revision is the expected one; otherwise it is a
/// conflict.
fn in_place(changed: usize) -> Result<(), StoreError> {
    match changed {
        0 => Err(StoreError::Conflict(None)),
        _ => Ok(()),
    }
}

/// Returns the revision that a record of this revision must replace; 0 means none.
fn before(revision: u64) -> Result<i64, StoreError> {
    revision
        .checked_sub(1)
        .map(int)
        .ok_or(StoreError::Conflict(None))
}

fn check_guard(db: &Connection, guard: &Guard) -> Result<(), StoreError> {
    let stored = queries::binding(db, &guard.account_id)?;
    match guard.holds(stored.as_ref()) {
        true => Ok(()),
        false => Err(StoreError::Conflict(None)),
    }
}

pub(super) const INSERT_REQUEST: &str = "INSERT INTO jit_requests
     (request_id, account_id, channel_id, requester_email, created_at, status, revoked_at,
      revision, doc, written_status, written_lane, written_claimable_at, written_end_at, lease_until,
      failing)
     VALUES (:id, :account, :channel, :email, :created, :status, :revoked,
      :revision, :doc, :status, :lane, :claimable, :end, :lease, :failing)";

/// The statement does not set columns that never change, so their indexes need no update.
pub(super) const UPDATE_REQUEST: &str = "UPDATE jit_requests SET
     status = :status, revoked_at = :revoked, revision = :revision, doc = :doc,
     written_status = :status, written_lane = :lane, written_claimable_at = :claimable,
     written_end_at = :end, lease_until = :lease, failing = :failing
     WHERE request_id = :id AND revision = :revision - 1";

pub(super) fn put_request(db: &Connection, request: &Request, doc: &str) -> Result<(), StoreError> {
    let millis = |at: Option<Timestamp>| at.map(Timestamp::millis);
    let id = request.id.to_string();
    let status = request.status().as_str();
    let revoked = revoked_at(&request.state).map(|at| at.to_string());
    let claimable = millis(request.claimable_at());
    let end = millis(request.overdue_at());
    let lease = request.schedule.lease.map(|lease| lease.until.millis());
    let lane = request.lane().number();
    let failing = millis(request.failing_since());
    if before(request.version.revision)? == 0 {
        let inserted = db.prepare_cached(INSERT_REQUEST)?.execute(named_params! {
            ":id": id, ":status": status, ":revoked": revoked, ":revision": int(request.version.revision),
            ":doc": doc, ":lane": lane, ":claimable": claimable, ":end": end, ":lease": lease,
            ":failing": failing,
            ":account": request.asked.account_id.as_str(), ":channel": request.asked.channel_id.as_str(),
            ":email": request.requester_email().as_str(),
            ":created": request.asked.created_at.to_string(),
        });
        return first(db, request.id, inserted);
    }
    let updated = db.prepare_cached(UPDATE_REQUEST)?.execute(named_params! {
        ":id": id, ":status": status, ":revoked": revoked, ":revision": int(request.version.revision),
        ":doc": doc, ":lane": lane, ":claimable": claimable, ":end": end, ":lease": lease,
        ":failing": failing,
    });
    first(db, request.id, updated)
}

/// Adds the stored request to a conflict.
fn first(
    db: &Connection,
    id: RequestId,
    written: rusqlite::Result<usize>,
) -> Result<(), StoreError> {
    match written.map_err(StoreError::from).and_then(in_place) {
        Err(StoreError::Conflict(_)) => {
            let winner = queries::request(db, id)?;
            Err(StoreError::Conflict(winner.map(Box::new)))
        }
        written => written,
    }
}

/// Takes a lease that is free, that the caller holds, or that is exactly the lapsed one.
pub(super) const TAKE_LEASE: &str =
    "INSERT INTO jit_leases (name, token, until) VALUES (?1, ?2, ?3)
     ON CONFLICT (name) DO UPDATE SET token = ?2, until = ?3
     WHERE token = ?2 OR (token = ?4 AND until = ?5)";

pub(super) const LEASE: &str = "SELECT token, until FROM jit_leases WHERE name = ?1";

pub(super) fn take_lease(
    db: &Connection,
    name: &str,
    lease: Lease,
    lapsed: Option<Lease>,
) -> Result<Taken, StoreError> {
    let token = |lease: Lease| lease.token.0.to_string();
    let until = |lease: Lease| lease.until.millis();
    let given = params![
        name,
        token(lease),
        until(lease),
        lapsed.map(token),
        lapsed.map(until)
    ];
    if db.prepare_cached(TAKE_LEASE)?.execute(given)? > 0 {
        return Ok(Taken::Yes);
    }
    let (token, until): (String, i64) = db
        .prepare_cached(LEASE)?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let token = token
        .parse()
        .map_err(|why| StoreError::Corrupt(format!("the token of the lease {name}: {why}")))?;
    Ok(Taken::ByAnother(Lease {
        token: LeaseToken(token),
        until: Timestamp::from_millis(until),
        by: LeaseHolder::Server,
    }))
}

pub(super) fn give_lease(db: &Connection, name: &str, token: LeaseToken) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM jit_leases WHERE name = ?1 AND token = ?2")?
        .execute([name, &token.0.to_string()])?;
    Ok(())
}

pub(super) fn put_holding(db: &Connection, holding: &Holding, doc: &str) -> Result<(), StoreError> {
    put(
        db,
        [
            "INSERT INTO jit_holdings (holding_key, revision, doc) VALUES (?1, ?2, ?3)",
            "UPDATE jit_holdings SET revision = ?2, doc = ?3
             WHERE holding_key = ?1 AND revision = ?2 - 1",
        ],
        &holding.key.to_string(),
        holding.revision,
        doc,
    )
}

fn put_channel(db: &Connection, channel: &Channel, doc: &str) -> Result<(), StoreError> {
    put(
        db,
        [
            "INSERT INTO jit_channels (request_id, revision, doc) VALUES (?1, ?2, ?3)",
            "UPDATE jit_channels SET revision = ?2, doc = ?3
             WHERE request_id = ?1 AND revision = ?2 - 1",
        ],
        &AuditKey::Config(channel.id.clone()).to_string(),
        channel.revision,
        doc,
    )
}

/// Inserts a first revision, and replaces the previous revision with any later one.
fn put(
    db: &Connection,
    [insert, update]: [&str; 2],
    key: &str,
    revision: u64,
    doc: &str,
) -> Result<(), StoreError> {
    let sql = match before(revision)? {
        0 => insert,
        _ => update,
    };
    in_place(
        db.prepare_cached(sql)?
            .execute(params![key, int(revision), doc])?,
    )
}

fn put_binding(db: &Connection, binding: &Binding, doc: &str) -> Result<(), StoreError> {
    let sql = match before(binding.revision)? {
        0 => {
            "INSERT INTO jit_bindings (account_id, revision, channel_id, doc)
             VALUES (?1, ?2, ?3, ?4)"
        }
        _ => {
            "UPDATE jit_bindings SET revision = ?2, channel_id = ?3, doc = ?4
             WHERE account_id = ?1 AND revision = ?2 - 1"
        }
    };
    in_place(db.prepare_cached(sql)?.execute(params![
        binding.account_id.as_str(),
        int(binding.revision),
        binding.channel_id.as_str(),
        doc
    ])?)
}

fn unbind(db: &Connection, binding: &Binding) -> Result<(), StoreError> {
    in_place(
        db.prepare_cached("DELETE FROM jit_bindings WHERE account_id = ?1 AND revision = ?2")?
            .execute(params![binding.account_id.as_str(), int(binding.revision)])?,
    )
}

pub(super) fn add_event(db: &Connection, event: &Event, doc: &str) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO jit_audit (request_id, event_time_event_id, seq, event_time, event_type,
                                account_id, channel_id, doc)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        event.request_id.to_string(),
        event.sort_key(),
        int(event.seq),
        event.event_time.to_string(),
        event.event_type.to_string(),
        event
            .account_id
            .as_ref()
            .map(crate::domain::AccountId::as_str),
        event.channel_id.as_str(),
        doc
    ])?;
    Ok(())
}

fn add_notice(db: &Connection, notice: &Notice, doc: &str) -> Result<(), StoreError> {
    insert_notice(db, notice, doc)?;
    match put_first_in_line(db, notice.request_id)? > MOST_PENDING {
        true => make_room(db, notice.request_id),
        false => Ok(()),
    }
}

pub(super) fn insert_notice(db: &Connection, notice: &Notice, doc: &str) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO jit_notices (request_id, seq, state, created_at, attempts, next_at, doc)
         VALUES (?1, ?2, 'pending', ?3, 0, ?3, ?4)",
    )?
    .execute(params![
        notice.request_id.to_string(),
        int(notice.seq),
        notice.created_at.millis(),
        doc
    ])?;
    Ok(())
}

pub(super) const PENDING: &str = "SELECT seq, lease IS NOT NULL, doc FROM jit_notices
     WHERE request_id = ?1 AND state = 'pending' ORDER BY seq";

/// Merges or parks notices of an outbox that is too large, by the rule of `outbox`.
fn make_room(db: &Connection, id: RequestId) -> Result<(), StoreError> {
    let found: Vec<(i64, bool, String)> = db
        .prepare_cached(PENDING)?
        .query_map([id.to_string()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_, _>>()?;
    let waiting = found.iter().map(|(_, is_claimed, doc)| PendingNotice {
        audience: serde_json::from_str(doc)
            .ok()
            .map(|notice: Notice| notice.audience),
        claim: match is_claimed {
            true => NoticeClaim::Claimed,
            false => NoticeClaim::Free,
        },
    });
    let changes = notice_changes(&waiting.collect::<Vec<_>>());
    for ((seq, ..), change) in found.iter().zip(&changes) {
        let sql = match change {
            NoticeChange::Stays => continue,
            NoticeChange::Merged => "DELETE FROM jit_notices WHERE request_id = ?1 AND seq = ?2",
            NoticeChange::Parked => PARK,
        };
        db.prepare_cached(sql)?
            .execute(params![id.to_string(), seq])?;
    }
    note_parked(id, &changes);
    forget_parked(db, &id.to_string())?;
    put_first_in_line(db, id)?;
    Ok(())
}

const PARK: &str = "UPDATE jit_notices
     SET state = 'parked', lease = NULL, lease_until = NULL, claimable_at = NULL
     WHERE request_id = ?1 AND seq = ?2 AND state = 'pending'";

pub(super) fn park_notice(db: &Connection, place: NoticePlace) -> Result<(), StoreError> {
    park(db, &place.request_id.to_string(), int(place.seq))
}

/// Parks a notice by its key, because its document may be unreadable.
pub(super) fn park(db: &Connection, id: &str, seq: i64) -> Result<(), StoreError> {
    in_place(db.prepare_cached(PARK)?.execute(params![id, seq])?)?;
    forget_parked(db, id)?;
    first_in_line(db, id)?;
    Ok(())
}

/// Deletes the documents of all but the newest parked notices; they are only counted.
fn forget_parked(db: &Connection, id: &str) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE jit_notices SET state = 'forgotten', doc = ''
         WHERE request_id = ?1 AND state = 'parked' AND seq NOT IN
         (SELECT seq FROM jit_notices WHERE request_id = ?1 AND state = 'parked'
          ORDER BY seq DESC LIMIT ?2)",
    )?
    .execute(params![id, limit(MOST_PARKED)])?;
    Ok(())
}

/// Makes the oldest pending notice of a request claimable, and only that one, as soon as any
/// pending notice is due: a new one is due for the receivers that have the others.
pub(super) fn put_first_in_line(db: &Connection, id: RequestId) -> Result<usize, StoreError> {
    first_in_line(db, &id.to_string())
}

fn first_in_line(db: &Connection, id: &str) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE jit_notices SET claimable_at = CASE
             WHEN seq = (SELECT min(seq) FROM jit_notices
                         WHERE request_id = ?1 AND state = 'pending')
             THEN max((SELECT min(next_at) FROM jit_notices
                       WHERE request_id = ?1 AND state = 'pending'),
                      ifnull(lease_until, 0)) END
         WHERE request_id = ?1 AND state = 'pending'",
        )?
        .execute([id])?)
}

fn remember_answer(db: &Connection, answered: &Answered) -> Result<(), StoreError> {
    in_place(
        db.prepare_cached(
            "INSERT INTO jit_answers (answer_key, fingerprint, request_id, answered_at)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (answer_key) DO UPDATE
             SET fingerprint = excluded.fingerprint, request_id = excluded.request_id,
                 answered_at = excluded.answered_at
             WHERE jit_answers.answered_at < excluded.answered_at - ?5",
        )?
        .execute(params![
            answered.key,
            answered.fingerprint,
            answered.request_id.to_string(),
            answered.at.millis(),
            Millis::DAY.0
        ])?,
    )
}

pub(super) const LEASE_NOTICE: &str = "UPDATE jit_notices
     SET lease = ?3, lease_until = ?4, claimable_at = ?4
     WHERE request_id = ?1 AND seq = ?2";

pub(super) fn lease_notice(
    db: &Connection,
    place: NoticePlace,
    lease: LeaseToken,
    until: Timestamp,
) -> Result<(), StoreError> {
    in_place(db.prepare_cached(LEASE_NOTICE)?.execute(params![
        place.request_id.to_string(),
        int(place.seq),
        lease.0.to_string(),
        until.millis()
    ])?)
}

/// Ends a claim. If the claim was lost, the statement finds no row, because another notice
/// worker now delivers the notice.
pub(super) fn end_claim(
    db: &Connection,
    place: NoticePlace,
    lease: LeaseToken,
    end: &ClaimEnd,
) -> Result<Left, StoreError> {
    let (sql, at) = match end {
        ClaimEnd::Delivered { .. } => (
            "DELETE FROM jit_notices
             WHERE request_id = ?1 AND seq = ?2 AND lease = ?3 AND ?4 IS NULL",
            None,
        ),
        ClaimEnd::TryAgain { at, .. } => (
            "UPDATE jit_notices SET lease = NULL, lease_until = NULL, next_at = ?4
             WHERE request_id = ?1 AND seq = ?2 AND lease = ?3",
            Some(at.millis()),
        ),
        ClaimEnd::Released => (
            "UPDATE jit_notices SET lease = NULL, lease_until = NULL
             WHERE request_id = ?1 AND seq = ?2 AND lease = ?3 AND ?4 IS NULL",
            None,
        ),
    };
    let done = db.prepare_cached(sql)?.execute(params![
        place.request_id.to_string(),
        int(place.seq),
        lease.0.to_string(),
        at
    ])?;
    let mut are_tried = 0;
    match end {
        ClaimEnd::TryAgain { at, tried } if done == 1 => {
            for notice in tried {
                are_tried += keep_receivers(db, notice, Some(*at))?;
            }
        }
        ClaimEnd::Delivered { ahead } if done == 1 => {
            for notice in ahead {
                keep_receivers(db, notice, None)?;
            }
        }
        ClaimEnd::TryAgain { .. } | ClaimEnd::Delivered { .. } | ClaimEnd::Released => {}
    }
    let pending = put_first_in_line(db, place.request_id)?;
    let has_more = done == 1
        && match end {
            ClaimEnd::Delivered { .. } => pending > 0,
            ClaimEnd::TryAgain { .. } => pending > are_tried,
            ClaimEnd::Released => false,
        };
    Ok(match has_more {
        true => Left::More,
        false => Left::Nothing,
    })
}

/// Keeps which receivers have a notice, and when it is due again if an attempt has failed.
fn keep_receivers(
    db: &Connection,
    notice: &Notice,
    again: Option<Timestamp>,
) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE jit_notices
             SET doc = ?3, attempts = attempts + (?4 IS NOT NULL), next_at = ifnull(?4, next_at)
             WHERE request_id = ?1 AND seq = ?2 AND state = 'pending'",
        )?
        .execute(params![
            notice.request_id.to_string(),
            int(notice.seq),
            doc_of(notice)?,
            again.map(Timestamp::millis)
        ])?)
}

/// Releases all claims: at the start no process is left that could end them.
pub(super) fn release_notices(db: &Connection) -> Result<(), StoreError> {
    db.execute(
        "UPDATE jit_notices SET lease = NULL, lease_until = NULL, claimable_at = next_at
         WHERE claimable_at IS NOT NULL AND lease IS NOT NULL",
        [],
    )?;
    Ok(())
}

pub(super) enum Tidied {
    MoreIsLeft,
    Done,
}

pub(super) fn tidy(db: &Connection, now: Timestamp) -> Result<Tidied, StoreError> {
    let some = limit(TIDIED_AT_ONCE);
    let answers = db
        .prepare_cached(
            "DELETE FROM jit_answers WHERE answer_key IN
             (SELECT answer_key FROM jit_answers WHERE answered_at < ?1 LIMIT ?2)",
        )?
        .execute(params![now.millis() - Millis::DAY.0, some])?;
    Ok(match answers {
        TIDIED_AT_ONCE.. => Tidied::MoreIsLeft,
        _ => Tidied::Done,
    })
}
