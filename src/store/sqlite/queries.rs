//! The queries. Each names its index, so that its cost depends on what it finds and not on how
//! much is stored, whatever the query planner estimates.

use rusqlite::{Connection, OptionalExtension, Rows, ToSql, named_params, params};

use super::fault::unknown;
use super::rows::{
    RequestRow, count, from_doc, int, limit, one_doc, readable_docs, request_columns, text_of,
};
use crate::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Event, EventPlace, Holding, HoldingKey, Lane,
    Millis, Request, RequestId, Status, Timestamp,
};
use crate::store::found::RecordKind;
use crate::store::{
    Answered, AuditFilter, Cursor, Due, Filter, Found, Gauges, Head, PendingOf, STUCK_AFTER,
    StoreError,
};

pub(super) const REQUEST: &str = concat!(
    "SELECT ",
    request_columns!(),
    " FROM jit_requests WHERE request_id = ?1"
);

pub(super) fn request(db: &Connection, id: RequestId) -> Result<Option<Request>, StoreError> {
    db.prepare_cached(REQUEST)?
        .query_row([id.to_string()], RequestRow::from_row)
        .optional()?
        .map(RequestRow::read)
        .transpose()
}

pub(super) const HOLDING: &str = "SELECT doc, revision FROM jit_holdings WHERE holding_key = ?1";

pub(super) fn holding(db: &Connection, key: &HoldingKey) -> Result<Option<Holding>, StoreError> {
    let found: Option<(String, i64)> = db
        .prepare_cached(HOLDING)?
        .query_row([key.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((doc, revision)) = found else {
        return Ok(None);
    };
    // The condition of the next write compares the column.
    let revision = u64::try_from(revision).unwrap_or_default();
    let holding = from_doc(&format!("holding {key}"), &doc)?;
    Ok(Some(Holding {
        revision,
        ..holding
    }))
}

pub(super) const BINDING: &str = "SELECT doc FROM jit_bindings WHERE account_id = ?1";

pub(super) fn binding(db: &Connection, account: &AccountId) -> Result<Option<Binding>, StoreError> {
    one_doc(db, BINDING, [account.as_str()], || {
        format!("binding of {account}")
    })
}

pub(super) const CHANNEL: &str = "SELECT doc FROM jit_channels WHERE request_id = ?1";

pub(super) fn channel(db: &Connection, id: &ChannelId) -> Result<Option<Channel>, StoreError> {
    let key = AuditKey::Config(id.clone()).to_string();
    one_doc(db, CHANNEL, [key.as_str()], || format!("channel {id}"))
}

pub(super) const BINDINGS: &str = "SELECT doc, account_id
     FROM jit_bindings INDEXED BY jit_bindings_by_channel
     WHERE channel_id = ?1 AND account_id > ?2 ORDER BY account_id";

pub(super) fn bindings(
    db: &Connection,
    channel: &ChannelId,
    after: Option<&AccountId>,
    most: usize,
) -> Result<Found<Binding>, StoreError> {
    let given = [channel.as_str(), after.map_or("", AccountId::as_str)];
    readable_docs(db, RecordKind::Binding, BINDINGS, given, most)
}

pub(super) const BOUND: &str = "SELECT doc, account_id
     FROM jit_bindings WHERE account_id > ?1 ORDER BY account_id";

pub(super) fn bound(
    db: &Connection,
    after: Option<&AccountId>,
    most: usize,
) -> Result<Found<Binding>, StoreError> {
    let after = after.map_or("", AccountId::as_str);
    readable_docs(db, RecordKind::Binding, BOUND, [after], most)
}

pub(super) const ANSWERED: &str = "SELECT fingerprint, request_id, answered_at FROM jit_answers
     WHERE answer_key = ?1 AND answered_at >= ?2";

pub(super) fn answered(
    db: &Connection,
    key: &str,
    now: Timestamp,
) -> Result<Option<Answered>, StoreError> {
    let found: Option<(String, String, i64)> = db
        .prepare_cached(ANSWERED)?
        .query_row(params![key, now.millis() - Millis::DAY.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((fingerprint, id, at)) = found else {
        return Ok(None);
    };
    Ok(Some(Answered {
        key: key.to_owned(),
        fingerprint,
        request_id: id
            .parse()
            .map_err(|why| unknown("the request_id of an answer", &why))?,
        at: Timestamp::from_millis(at),
    }))
}

pub(super) const DUE: &str = "SELECT request_id FROM jit_requests INDEXED BY jit_requests_due
     WHERE lane = ?1 AND claimable_at <= ?2 ORDER BY claimable_at, request_id";

pub(super) const NEXT_DUE: &str = "SELECT claimable_at
     FROM jit_requests INDEXED BY jit_requests_due
     WHERE lane = ?1 AND claimable_at IS NOT NULL
     ORDER BY claimable_at, request_id LIMIT 1 OFFSET ?2";

pub(super) fn due(
    db: &Connection,
    lane: Lane,
    now: Timestamp,
    most: usize,
) -> Result<Due<RequestId>, StoreError> {
    let mut statement = db.prepare_cached(DUE)?;
    let mut rows = statement.query(params![lane.number(), now.millis()])?;
    let mut found = Found::default();
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        let id = text_of(row, 0);
        let read = id.parse().map_err(|why| unknown("a request_id", &why));
        found.take(RecordKind::Request, || id, read)?;
    }
    let passed = found.items.len() + found.unreadable.len();
    let next: Option<i64> = db
        .prepare_cached(NEXT_DUE)?
        .query_row(params![lane.number(), limit(passed)], |row| row.get(0))
        .optional()?;
    Ok(Due {
        ready: found.items,
        next: next.map(Timestamp::from_millis),
    })
}

pub(super) const NEXT_NOTICE: &str = "SELECT claimable_at
     FROM jit_notices INDEXED BY jit_notices_due
     WHERE claimable_at IS NOT NULL ORDER BY claimable_at LIMIT 1";

pub(super) fn next_notice(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<i64> = db
        .prepare_cached(NEXT_NOTICE)?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(next.map(Timestamp::from_millis))
}

/// Chooses the narrowest index for a filter that names no person; the query checks the other
/// conditions row by row. Requests in a status that does not last are few; most stored requests are
/// settled.
fn list_by(filter: &Filter) -> (&'static str, &'static str) {
    let rare = filter
        .status
        .is_some_and(|status| !matches!(status, Status::Revoked | Status::Expired));
    if filter.request_id.is_some() {
        ("", "request_id = :id")
    } else if rare {
        ("INDEXED BY jit_requests_by_status", "told_status = :status")
    } else if filter.account_id.is_some() {
        (
            "INDEXED BY jit_requests_by_account",
            "account_id = :account",
        )
    } else if filter.channel_id.is_some() {
        (
            "INDEXED BY jit_requests_by_channel",
            "channel_id = :channel",
        )
    } else if filter.status.is_some() {
        ("INDEXED BY jit_requests_by_status", "told_status = :status")
    } else {
        ("INDEXED BY jit_requests_by_time", "true")
    }
}

pub(super) fn list_sql(filter: &Filter) -> String {
    let is_of_person = filter.requester_email.is_some() && filter.request_id.is_none();
    let selected = match (is_of_person, filter.status) {
        (false, _) => {
            let (index, key) = list_by(filter);
            select(index, key)
        }
        (true, Some(status)) => of_person(status),
        // SQLite merges the parts in the order of the list, and reads of each part only the rows
        // of the page.
        (true, None) => Status::ALL.map(of_person).join(" UNION ALL "),
    };
    format!("{selected} ORDER BY created_at DESC, request_id DESC")
}

/// Selects the requests of one person in one status. The index has a part for each status.
fn of_person(status: Status) -> String {
    let key = format!(
        "requester_email = :email AND told_status = '{}'",
        status.as_str()
    );
    select("INDEXED BY jit_requests_by_person", &key)
}

fn select(index: &str, key: &str) -> String {
    let columns = request_columns!();
    format!(
        "SELECT {columns} FROM jit_requests {index}
         WHERE {key}
           AND created_at >= :from AND (created_at, request_id) < (:before, :before_id)
           AND (:id IS NULL OR request_id = :id)
           AND (:channel IS NULL OR channel_id = :channel)
           AND (:account IS NULL OR account_id = :account)
           AND (:email IS NULL OR requester_email = :email)
           AND (:status IS NULL OR told_status = :status)"
    )
}

pub(super) fn list(
    db: &Connection,
    filter: &Filter,
    after: Option<&Cursor>,
    most: usize,
) -> Result<Found<Request>, StoreError> {
    // `before` and the cursor both end the span, one without and one with an id. The stricter
    // of the two is its end.
    let before = filter.before.map(|at| (at.to_string(), String::new()));
    let after = after.map(|last| (last.created_at.to_string(), last.id.to_string()));
    let (before, before_id) = match (before, after) {
        (Some(before), Some(after)) => before.min(after),
        (None, None) => ("~".to_owned(), String::new()),
        (before, after) => before.or(after).unwrap_or_default(),
    };
    let from = filter.from.map_or_else(String::new, |at| at.to_string());
    let mut statement = db.prepare_cached(&list_sql(filter))?;
    let rows = statement.query(named_params! {
        ":id": filter.request_id.map(|id| id.to_string()),
        ":channel": filter.channel_id.as_ref().map(ChannelId::as_str),
        ":account": filter.account_id.as_ref().map(AccountId::as_str),
        ":email": filter.requester_email.as_ref().map(crate::domain::Email::as_str),
        ":status": filter.status.map(Status::as_str),
        ":from": from, ":before": before, ":before_id": before_id,
    })?;
    readable_requests(rows, most, RequestRow::read_in_list)
}

pub(super) const PENDING: &str = "SELECT 1 FROM jit_requests INDEXED BY jit_requests_by_person
     WHERE requester_email = ?1 AND told_status = 'PENDING'
       AND created_at >= ?2 AND key_id IS ?3
     LIMIT ?4";

pub(super) fn count_pending(
    db: &Connection,
    of: &PendingOf,
    most: usize,
) -> Result<usize, StoreError> {
    let mut statement = db.prepare_cached(PENDING)?;
    let mut rows = statement.query(params![
        of.requester_email.as_str(),
        of.from.to_string(),
        of.key_id,
        limit(most)
    ])?;
    let mut count = 0;
    while rows.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

pub(super) const LEASED: &str = concat!(
    "SELECT ",
    request_columns!(),
    " FROM jit_requests INDEXED BY jit_requests_due
      WHERE claimable_at IS NOT NULL AND lease_until IS NOT NULL AND told_status = written_status"
);

/// Returns every request with a lease.
pub(super) fn leased(db: &Connection) -> Result<Found<Request>, StoreError> {
    let mut statement = db.prepare_cached(LEASED)?;
    readable_requests(statement.query([])?, usize::MAX, RequestRow::read)
}

fn readable_requests(
    mut rows: Rows<'_>,
    most: usize,
    read_row: fn(RequestRow) -> Result<Request, StoreError>,
) -> Result<Found<Request>, StoreError> {
    let mut found = Found::default();
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        let read = RequestRow::from_row(row).map_err(StoreError::from);
        let name = || text_of(row, 0);
        found.take(RecordKind::Request, name, read.and_then(read_row))?;
    }
    Ok(found)
}

pub(super) const AUDIT: &str = "SELECT doc, event_time_event_id, seq FROM jit_audit
     WHERE request_id = ?1 AND seq > ?2 ORDER BY seq";

pub(super) fn audit(
    db: &Connection,
    key: &AuditKey,
    after: Option<EventPlace>,
    most: usize,
) -> Result<Vec<Event>, StoreError> {
    let after = int(after.map_or(0, |place| place.seq));
    let mut statement = db.prepare_cached(AUDIT)?;
    let mut rows = statement.query(params![key.to_string(), after])?;
    let mut events = Vec::new();
    while events.len() < most
        && let Some(row) = rows.next()?
    {
        let name = format!("event {}", text_of(row, 1));
        let event: Event = from_doc(&name, &row.get::<_, String>(0)?)?;
        // The next page begins after the number of the last event.
        if int(event.seq) != row.get::<_, i64>(2)? {
            let why = format!("{name}: its document has the number {}", event.seq);
            return Err(StoreError::Corrupt(why));
        }
        events.push(event);
    }
    Ok(events)
}

/// Reads in the order of time, whatever the filter is: an export reads most events anyway.
pub(super) const EXPORT: &str = "SELECT doc, event_time_event_id
     FROM jit_audit INDEXED BY jit_audit_by_time
     WHERE event_time_event_id > :after AND event_time_event_id < :before
       AND (:account IS NULL OR account_id = :account)
       AND (:channel IS NULL OR channel_id = :channel)
     ORDER BY event_time_event_id";

pub(super) fn export(
    db: &Connection,
    filter: &AuditFilter,
    after: Option<&str>,
    most: usize,
) -> Result<Found<Event>, StoreError> {
    // A sort key continues after its time, so it is greater than a `from` of the same moment.
    let from = filter.from.map_or_else(String::new, |at| at.to_string());
    let after = from.as_str().max(after.unwrap_or_default());
    let before = filter
        .before
        .map_or_else(|| "~".to_owned(), |at| at.to_string());
    let given = named_params! {
        ":account": filter.account_id.as_ref().map(AccountId::as_str),
        ":channel": filter.channel_id.as_ref().map(ChannelId::as_str),
        ":after": after, ":before": before,
    };
    readable_docs(db, RecordKind::Event, EXPORT, given, most)
}

pub(super) const REQUEST_HEADS: &str = concat!(
    "SELECT ",
    request_columns!(),
    " FROM jit_requests WHERE request_id > ?1 ORDER BY request_id"
);
pub(super) const CHANNEL_HEADS: &str = "SELECT doc, request_id FROM jit_channels
     WHERE request_id > ?1 ORDER BY request_id";

pub(super) fn heads(
    db: &Connection,
    after: Option<&AuditKey>,
    most: usize,
) -> Result<Found<Head>, StoreError> {
    let after = after.map(ToString::to_string).unwrap_or_default();
    let mut statement = db.prepare_cached(REQUEST_HEADS)?;
    let requests = readable_requests(statement.query([&after])?, most, RequestRow::read)?;
    let channels =
        readable_docs::<Channel>(db, RecordKind::Channel, CHANNEL_HEADS, [&after], most)?;
    let mut unreadable = requests.unreadable;
    unreadable.extend(channels.unreadable);
    let mut items: Vec<Head> = requests.items.into_iter().map(Head::from).collect();
    items.extend(channels.items.into_iter().map(Head::from));
    items.sort_by_cached_key(|head| head.key.to_string());
    items.truncate(most);
    // Unreadable records after the last item of a full page belong to the next page.
    if let Some(last) = items.last().filter(|_| items.len() == most) {
        let last = last.key.to_string();
        unreadable.retain(|one| one.name < last);
    }
    Ok(Found { items, unreadable })
}

pub(super) const BACKLOG: &str = "SELECT count(*), min(claimable_at)
     FROM jit_requests INDEXED BY jit_requests_due
     WHERE lane IN (0, 1, 2) AND claimable_at <= ?1";
pub(super) const LIVE: &str = "SELECT count(*) FROM jit_requests INDEXED BY jit_requests_by_status
     WHERE told_status = 'GRANTED'";
pub(super) const OVERDUE: &str = "SELECT count(*) FROM jit_requests INDEXED BY jit_requests_end
     WHERE end_at <= ?1";
pub(super) const FAILING: &str = "SELECT count(*) FROM jit_requests INDEXED BY jit_requests_failing
     WHERE failing IS NOT NULL AND lane IN (0, 1)";
/// `failing` is the time since which a request fails. In a row that an older jit wrote, it shows
/// only that the request fails.
pub(super) const STUCK: &str = "SELECT count(*) FROM jit_requests INDEXED BY jit_requests_failing
     WHERE failing <= ?1";
pub(super) const NOTICES: &str = "SELECT count(*), min(created_at)
     FROM jit_notices INDEXED BY jit_notices_by_state WHERE state = ?1";

pub(super) fn gauges(db: &Connection, now: Timestamp) -> Result<Gauges, StoreError> {
    let counted = |sql: &str, given: &[&dyn ToSql]| -> Result<u64, StoreError> {
        Ok(count(
            db.prepare_cached(sql)?.query_row(given, |row| row.get(0))?,
        ))
    };
    let now = now.millis();
    let (pending, oldest): (i64, Option<i64>) = db
        .prepare_cached(NOTICES)?
        .query_row(["pending"], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (due, oldest_due): (i64, Option<i64>) = db
        .prepare_cached(BACKLOG)?
        .query_row([now], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Gauges {
        backlog: count(due),
        oldest_due: oldest_due.map(Timestamp::from_millis),
        live_grants: counted(LIVE, &[])?,
        overdue_grants: counted(OVERDUE, &[&now])?,
        failing_removals: counted(FAILING, &[])?,
        stuck_requests: counted(STUCK, &[&(now - STUCK_AFTER.0)])?,
        undelivered_notices: count(pending),
        oldest_undelivered: oldest.map(Timestamp::from_millis),
        parked_notices: counted(NOTICES, &[&"parked"])? + counted(NOTICES, &[&"forgotten"])?,
    })
}
