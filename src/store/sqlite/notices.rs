//! Claims notices: of each request only the first pending one, and each for one delivery.

use rusqlite::{Connection, params};

use super::queries::next_notice;
use super::rows::{count, from_doc, limit, text_of};
use super::writes;
use crate::domain::{LeaseToken, Notice, RequestId, Timestamp};
use crate::store::found::{RecordKind, readable};
use crate::store::{ClaimedNotice, Due, NoticePlace, StoreError};

pub(super) const DUE_NOTICES: &str = "SELECT doc, attempts, request_id, seq
     FROM jit_notices INDEXED BY jit_notices_due
     WHERE claimable_at <= ?1 ORDER BY claimable_at, request_id, seq LIMIT ?2";

pub(super) fn claim_notices(
    db: &Connection,
    now: Timestamp,
    lease: LeaseToken,
    until: Timestamp,
    most: usize,
) -> Result<Due<ClaimedNotice>, StoreError> {
    let ready = claim_found(
        db,
        DUE_NOTICES,
        params![now.millis(), limit(most)],
        lease,
        until,
    )?;
    let next = next_notice(db)?;
    Ok(Due { ready, next })
}

pub(super) const FIRST_IN_LINE: &str = "SELECT doc, attempts, request_id, seq
     FROM jit_notices WHERE request_id = ?1 AND claimable_at <= ?2 ORDER BY seq LIMIT 1";

pub(super) fn claim_notice(
    db: &Connection,
    id: RequestId,
    now: Timestamp,
    lease: LeaseToken,
    until: Timestamp,
) -> Result<Option<ClaimedNotice>, StoreError> {
    let first = params![id.to_string(), now.millis()];
    Ok(claim_found(db, FIRST_IN_LINE, first, lease, until)?.pop())
}

/// Returns the readable pending notices; an unreadable one is parked when it is first.
pub(super) fn undelivered(db: &Connection, id: RequestId) -> Result<Vec<Notice>, StoreError> {
    let docs: Vec<String> = db
        .prepare_cached(writes::PENDING)?
        .query_map([id.to_string()], |row| Ok(text_of(row, 2)))?
        .collect::<Result<_, _>>()?;
    let read = docs.iter().map(|doc| serde_json::from_str(doc));
    Ok(read.filter_map(Result::ok).collect())
}

pub(super) const PARKED: &str = "SELECT count(*) FROM jit_notices
     WHERE request_id = ?1 AND state IN ('parked', 'forgotten')";

/// Returns how many notices of the request were parked so far.
pub(super) fn parked(db: &Connection, id: &str) -> Result<u64, StoreError> {
    let parked = db
        .prepare_cached(PARKED)?
        .query_row([id], |row| row.get(0))?;
    Ok(count(parked))
}

/// Makes the notices that no worker has claimed due at `now`.
pub(super) fn end_pauses(db: &Connection, now: Timestamp) -> Result<(), StoreError> {
    for sql in [
        "UPDATE jit_notices SET claimable_at = ?1 WHERE claimable_at > ?1 AND lease IS NULL",
        "UPDATE jit_notices SET next_at = ?1 WHERE next_at > ?1 AND state = 'pending'",
    ] {
        db.execute(sql, [now.millis()])?;
    }
    Ok(())
}

fn claim_found(
    db: &Connection,
    sql: &str,
    given: impl rusqlite::Params,
    lease: LeaseToken,
    until: Timestamp,
) -> Result<Vec<ClaimedNotice>, StoreError> {
    let found: Vec<(String, u32, String, i64)> = db
        .prepare_cached(sql)?
        .query_map(given, |row| {
            Ok((text_of(row, 0), row.get(1)?, text_of(row, 2), row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut claimed = Vec::new();
    for (doc, attempts, id, seq) in found {
        let read = from_doc::<Notice>(&format!("notice {id}.{seq}"), &doc);
        let mut unreadable = Vec::new();
        let notice = readable(RecordKind::Notice, || id.clone(), read, &mut unreadable)?;
        let Some(notice) = notice else {
            // An unreadable notice must not block the next one of its request: it is parked, so
            // that the metrics count it.
            writes::park(db, &id, seq)?;
            continue;
        };
        let place = NoticePlace {
            request_id: notice.request_id,
            seq: notice.seq,
        };
        writes::lease_notice(db, place, lease, until)?;
        let parked = parked(db, &id)?;
        claimed.push(ClaimedNotice {
            notice,
            attempts,
            parked,
        });
    }
    Ok(claimed)
}
