//! `jit audit verify` finds each way to change the store that leaves every hash chain whole.

use std::collections::BTreeMap;

use jit::clock::{Clock, SystemClock};
use jit::domain::{HeadEntry, HistoryEnd, Millis};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::{ACCOUNT, CHANNEL, Setup};
use crate::{Ran, Shell};

/// A shell with a binding and a grant, whose audit is whole, and the file of its store.
async fn with_a_grant() -> (Shell, String, Connection) {
    let shell = Shell::open();
    shell.bind();
    let id = shell.granted().await;
    shell.run(&["audit", "verify"]).exits(0);
    let db = Connection::open(shell.jit.database()).unwrap();
    (shell, id, db)
}

/// Verifies, and checks that each of the findings is about this history and this field.
fn finds(shell: &Shell, id: &str, field: Option<&str>, why: &str) -> Ran {
    let said = shell.run(&["audit", "verify", "-o", "json"]).exits(1);
    let said: Value = serde_json::from_str(&said.out).unwrap();
    let broken = said["broken"].as_array().unwrap();
    let is_it = |one: &&Value| {
        one["request_id"] == id
            && field.is_none_or(|field| one["field"] == field)
            && one["why"].as_str().unwrap().contains(why)
    };
    assert!(broken.iter().any(|one| is_it(&one)), "{field:?}: {said:#}");
    shell.run(&["audit", "verify"]).exits(1).prints(&[
        id,
        why,
        "failed verification",
        "copy the store",
    ])
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_deleted_is_found_by_its_history() {
    let (shell, id, db) = with_a_grant().await;
    let sql = "DELETE FROM jit_requests WHERE request_id = ?1";
    assert_eq!(db.execute(sql, [&id]), Ok(1));
    finds(&shell, &id, None, "there is no record");
    shell.run(&["audit", "verify", &id]).exits(1);
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_a_request_that_never_was_is_found() {
    let (shell, id, db) = with_a_grant().await;
    let forged = "00000000-0000-4000-8000-000000000001";
    let sql = "INSERT INTO jit_audit
         SELECT ?2, replace(event_time_event_id, ?1, ?2), seq, event_time, event_type, account_id,
                channel_id, replace(doc, ?1, ?2) FROM jit_audit WHERE request_id = ?1";
    assert_eq!(db.execute(sql, [id.as_str(), forged]), Ok(4));
    finds(&shell, forged, None, "there is no record");
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_without_its_history_and_record_is_found_by_its_bindings() {
    let (shell, _, db) = with_a_grant().await;
    let config = format!("config#{CHANNEL}");
    let sql = "DELETE FROM jit_audit WHERE request_id = ?1";
    assert!(db.execute(sql, [&config]).unwrap() > 0);
    finds(&shell, &config, None, "the history ends at event 0");
    let sql = "DELETE FROM jit_channels WHERE request_id = ?1";
    assert_eq!(db.execute(sql, [&config]), Ok(1));
    finds(&shell, &config, None, "its history was deleted");
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_changed_without_an_event_is_found() {
    let ways = [
        (
            "approvers",
            r#"'$.approvers', json('["bob","carol","mallory"]')"#,
        ),
        ("approvals_required", "'$.approvals_required', 2"),
        (
            "allow_self_approval",
            "'$.allow_self_approval', json('true')",
        ),
        ("max_request_hours", "'$.max_request_hours', 99"),
        (
            "session_duration_minutes",
            "'$.session_duration_minutes', 600",
        ),
        (
            "permission_sets",
            r#"'$.permission_sets', json('["admin"]')"#,
        ),
        ("updated_at", "'$.updated_at', '2020-01-01T00:00:00.000Z'"),
        ("bound_seq", "'$.bound_seq', 7"),
    ];
    let (shell, _, db) = with_a_grant().await;
    let config = format!("config#{CHANNEL}");
    for (field, change) in ways {
        let sql = format!("UPDATE jit_bindings SET doc = json_set(doc, {change})");
        let before: String = db
            .query_row("SELECT doc FROM jit_bindings", [], |row| row.get(0))
            .unwrap();
        assert_eq!(db.execute(&sql, []), Ok(1));
        finds(
            &shell,
            &config,
            Some(field),
            &format!("the binding of {ACCOUNT}"),
        );
        let sql = "UPDATE jit_bindings SET doc = ?1";
        assert_eq!(db.execute(sql, [&before]), Ok(1));
    }
    assert_eq!(db.execute("DELETE FROM jit_bindings", []), Ok(1));
    finds(
        &shell,
        &config,
        Some("channel_id"),
        "the record says nothing",
    );
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_fact_that_changed_only_in_the_record_is_found() {
    let late = "2099-01-01T00:00:00.000Z";
    let ways = [
        ("requester", "'$.requester.id', 'mallory'".to_owned()),
        (
            "requester_email",
            "'$.requester.email', 'm@example.com'".to_owned(),
        ),
        ("reason", "'$.reason', 'another one'".to_owned()),
        ("account_id", "'$.account_id', '999999999999'".to_owned()),
        (
            "permission_set",
            "'$.permission_set', 'readonly'".to_owned(),
        ),
        ("duration_minutes", "'$.duration', 61".to_owned()),
        ("created_at", format!("'$.created_at', '{late}'")),
        ("approvals", "'$.approvals[0].by.id', 'carol'".to_owned()),
        ("approved_at", format!("'$.approved_at', '{late}'")),
        ("end_time", format!("'$.granted.until', '{late}'")),
        ("identity_store_user_id", "'$.user', 'another'".to_owned()),
        ("due_at", format!("'$.due_at', '{late}'")),
        ("key_id", "'$.key_id', NULL".to_owned()),
        (
            "extension_by_id",
            "'$.extension.by.id', 'mallory'".to_owned(),
        ),
    ];
    let (shell, id, db) = with_a_grant().await;
    let extend = ["extend", &id, "--time", "30m", "--as", "alice@example.com"];
    shell.ok(&extend);
    let doc = "SELECT doc FROM jit_requests WHERE request_id = ?1";
    let before: String = db.query_row(doc, [&id], |row| row.get(0)).unwrap();
    for (field, change) in ways {
        let sql =
            format!("UPDATE jit_requests SET doc = json_set(doc, {change}) WHERE request_id = ?1");
        assert_eq!(db.execute(&sql, [&id]), Ok(1));
        finds(&shell, &id, Some(field), "but the history says");
        let sql = "UPDATE jit_requests SET doc = ?2 WHERE request_id = ?1";
        assert_eq!(db.execute(sql, [&id, &before]), Ok(1));
    }
    shell.run(&["audit", "verify"]).exits(0);
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_no_process_wrote_is_found_in_each_state() {
    let (shell, granted, db) = with_a_grant().await;
    let caller = shell.jit.caller();
    let start = SystemClock.now() + Millis::hours(1);
    let asks = |name: &str| json!({"requester_mm_user_id": name, "requester_email": format!("{name}@example.com")});
    let pending = caller.request_with(asks("dave")).await;
    let mut later = asks("eve");
    later["start_at"] = start.to_string().into();
    let approved = caller.request_with(later).await;
    caller.approve(&approved).await.is(200);
    let late = "'9999-01-01T00:00:00.000Z'";
    let lease = r#"'$.lease', json('{"token": "00000000-0000-4000-8000-000000000009",
                   "until": "9999-01-01T00:00:00.000Z", "by": "operator"}')"#;
    let removing = r#"'$.state', json('{"is": "removing", "ending": {"as": "expired"}}')"#;
    let ways = [
        (&granted, "lease", lease.to_owned()),
        (&pending, "lease", lease.to_owned()),
        (&approved, "lease", lease.to_owned()),
        (&pending, "due_at", format!("'$.due_at', {late}")),
        (
            &approved,
            "due_at",
            "'$.due_at', '2026-01-01T00:00:00.000Z'".to_owned(),
        ),
        (
            &approved,
            "identity_store_user_id",
            "'$.user', 'another'".to_owned(),
        ),
        (&granted, "removal", removing.to_owned()),
        (
            &granted,
            "due_at",
            format!("{removing}, '$.due_at', {late}"),
        ),
        (&approved, "state", "'$.state.is', 'assigning'".to_owned()),
    ];
    shell.run(&["audit", "verify"]).exits(0);
    for (id, field, change) in ways {
        let doc = "SELECT doc FROM jit_requests WHERE request_id = ?1";
        let before: String = db.query_row(doc, [id], |row| row.get(0)).unwrap();
        let sql =
            format!("UPDATE jit_requests SET doc = json_set(doc, {change}) WHERE request_id = ?1");
        assert_eq!(db.execute(&sql, [id]), Ok(1));
        finds(&shell, id, Some(field), "the record says");
        let sql = "UPDATE jit_requests SET doc = ?2 WHERE request_id = ?1";
        assert_eq!(db.execute(sql, [id, &before]), Ok(1));
    }
    shell.run(&["audit", "verify"]).exits(0);
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_added_or_a_holding_that_was_deleted_is_found() {
    let (shell, id, db) = with_a_grant().await;
    let add = r#"UPDATE jit_holdings SET doc = json_insert(doc, '$.holders[#]',
                 '00000000-0000-4000-8000-000000000001')"#;
    for sql in [add, "DELETE FROM jit_holdings"] {
        assert_eq!(db.execute(sql, []), Ok(1), "{sql}");
        finds(&shell, &id, Some("holders"), "the record says");
    }
}

/// C: after each of these changes, the grant did not end.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_holding_that_stops_its_removal_is_found() {
    let (shell, id, db) = with_a_grant().await;
    let nobody = "00000000-0000-4000-8000-000000000001";
    let ways = [
        ("removing", "'$.removing', json('true')".to_owned()),
        ("creating", format!("'$.creating[#]', '{nobody}'")),
        ("permission_set_arn", "'$.means', 'another'".to_owned()),
        ("revision", "'$.revision', 50".to_owned()),
    ];
    let doc = "SELECT doc FROM jit_holdings";
    let before: String = db.query_row(doc, [], |row| row.get(0)).unwrap();
    for (field, change) in ways {
        let sql = format!("UPDATE jit_holdings SET doc = json_set(doc, {change})");
        assert_eq!(db.execute(&sql, []), Ok(1));
        finds(&shell, &id, Some(field), "the assignment");
        let sql = "UPDATE jit_holdings SET doc = ?1";
        assert_eq!(db.execute(sql, [&before]), Ok(1));
    }
    shell.run(&["audit", "verify"]).exits(0);
}

/// C: later events would get this time, and exports would miss them.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_event_time_that_no_event_has_is_found() {
    let (shell, id, db) = with_a_grant().await;
    let config = format!("config#{CHANNEL}");
    for (table, name) in [("jit_requests", &id), ("jit_channels", &config)] {
        let sql = format!(
            "UPDATE {table} SET doc = json_set(doc, '$.chain.last_at', '2099-01-01T00:00:00.000Z')"
        );
        assert_eq!(db.execute(&sql, []), Ok(1));
        finds(
            &shell,
            name,
            None,
            "the record says that its last event is of 2099",
        );
    }
}

/// C: a changed revision beside the document stops no removal.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_succeeds_although_the_revision_of_the_holding_was_changed() {
    let (shell, id, db) = with_a_grant().await;
    let sql = "UPDATE jit_holdings SET revision = 50";
    assert_eq!(db.execute(sql, []), Ok(1));
    shell
        .run(&[
            "revoke",
            &id,
            "--as",
            "bob@example.com",
            "--reason",
            "x",
            "--wait",
        ])
        .exits(0)
        .prints(&["REVOKED"]);
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_differs_from_its_document_is_found() {
    let (shell, id, db) = with_a_grant().await;
    let config = format!("config#{CHANNEL}");
    let ways = [
        ("jit_audit", "account_id", "'999999999999'", &id),
        ("jit_audit", "channel_id", "'elsewhere'", &id),
        (
            "jit_audit",
            "event_time_event_id",
            "'2020' || event_time_event_id",
            &id,
        ),
        ("jit_audit", "event_time", "'2020-01-01T00:00:00.000Z'", &id),
        ("jit_audit", "event_type", "'DENIED'", &id),
        ("jit_requests", "account_id", "'999999999999'", &id),
        ("jit_requests", "channel_id", "'elsewhere'", &id),
        ("jit_requests", "requester_email", "'m@example.com'", &id),
        (
            "jit_requests",
            "created_at",
            "'2020-01-01T00:00:00.000Z'",
            &id,
        ),
        ("jit_requests", "written_claimable_at", "NULL", &id),
        ("jit_requests", "written_end_at", "NULL", &id),
        ("jit_requests", "revision", "revision + 1", &id),
        ("jit_holdings", "revision", "revision + 1", &id),
        ("jit_channels", "revision", "revision + 1", &config),
        ("jit_bindings", "revision", "revision + 1", &config),
    ];
    for (table, column, value, name) in ways {
        let one = match table {
            "jit_audit" => format!("request_id = '{id}' AND seq = 1"),
            _ => "1".to_owned(),
        };
        let undo: rusqlite::types::Value = db
            .query_row(
                &format!("SELECT {column} FROM {table} WHERE {one}"),
                [],
                |row| row.get(0),
            )
            .unwrap();
        let sql = format!("UPDATE {table} SET {column} = {value} WHERE {one}");
        assert_eq!(db.execute(&sql, []), Ok(1), "{sql}");
        finds(&shell, name, Some(column), "but its document says");
        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {one}");
        assert_eq!(db.execute(&sql, [undo]), Ok(1), "{sql}");
    }
    shell.run(&["audit", "verify"]).exits(0);
}

const SEAL_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Waits until the head log has the last event of this history.
async fn logged(db: &Connection, id: &str) {
    let sql = "SELECT max(seq) FROM jit_audit WHERE request_id = ?1";
    let seq: i64 = db.query_row(sql, [id], |row| row.get(0)).unwrap();
    let sql = "SELECT max(json_extract(doc, '$.ends.\"' || ?1 || '\".version')) FROM jit_head_log";
    for _ in 0..400 {
        let version: Option<i64> = db.query_row(sql, [id], |row| row.get(0)).unwrap();
        if version >= Some(seq) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("the head log does not get event {seq} of {id}");
}

fn delete(db: &Connection, id: &str) {
    for table in ["jit_requests", "jit_audit", "jit_channels"] {
        let sql = format!("DELETE FROM {table} WHERE request_id = ?1");
        db.execute(&sql, [id]).unwrap();
    }
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_deleted_with_its_history_is_found() {
    let (shell, id, db) = with_a_grant().await;
    logged(&db, &id).await;
    delete(&db, &id);
    let gone = "the record and its history were deleted";
    finds(&shell, &id, None, gone);
    shell
        .run(&["audit", "verify", &id])
        .exits(1)
        .prints(&[gone]);
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_was_deleted_with_all_that_it_has_is_found() {
    let (shell, _, db) = with_a_grant().await;
    let config = format!("config#{CHANNEL}");
    logged(&db, &config).await;
    delete(&db, &config);
    db.execute("DELETE FROM jit_bindings", []).unwrap();
    finds(
        &shell,
        &config,
        None,
        "the record and its history were deleted",
    );
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_which_everything_was_deleted_is_found() {
    let (shell, id, db) = with_a_grant().await;
    logged(&db, &id).await;
    for table in ["jit_requests", "jit_audit", "jit_channels", "jit_bindings"] {
        db.execute(&format!("DELETE FROM {table}"), []).unwrap();
    }
    finds(&shell, &id, None, "were deleted");
    db.execute("DELETE FROM jit_head_log", []).unwrap();
    finds(&shell, "head log", None, "it has no entry");
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_head_log_that_was_changed_is_found() {
    let ways = [
        ("DELETE FROM jit_head_log WHERE number = 1", "entry 1 is missing"),
        (
            "UPDATE jit_head_log SET doc = json_set(doc, '$.at', '2020-01-01T00:00:00.000Z')
             WHERE number = 1",
            "entry 1 was changed",
        ),
        (
            "UPDATE jit_head_log SET doc = json_set(doc, '$.prev_hash', json_extract(doc, '$.hash'))
             WHERE number = 1",
            "entry 1 does not follow",
        ),
        ("UPDATE jit_head_log SET doc = '{}'", "cannot read"),
    ];
    for (sql, why) in ways {
        let (shell, id, db) = with_a_grant().await;
        // An entry for the grant follows the first one.
        logged(&db, &id).await;
        assert!(db.execute(sql, []).unwrap() > 0);
        let why = match why {
            "cannot read" => "entry 1 of the head log",
            why => why,
        };
        finds(&shell, "head log", None, why);
        // An entry about one history counts only if the log is whole.
        shell
            .run(&["audit", "verify", &id])
            .exits(1)
            .prints(&["the head log failed verification", why]);
    }
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_any_history_is_named_and_fails_with_a_seal_key() {
    let shell = Shell::open();
    let empty = "the store has no history";
    shell.run(&["audit", "verify"]).exits(0).prints(&[empty]);
    let shell = Shell::with(&sealing());
    finds(&shell, "head log", None, empty);
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_in_the_head_log_is_found_when_it_is_old() {
    let (shell, id, db) = with_a_grant().await;
    shell
        .run(&["audit", "verify"])
        .exits(0)
        .prints(&["not sealed"]);
    // A forged request whose record, history and columns agree, from before the head log.
    let forged = "00000000-0000-4000-8000-000000000002";
    let event: String = db
        .query_row(
            "SELECT doc FROM jit_audit WHERE request_id = ?1 AND seq = 1",
            [&id],
            |row| row.get(0),
        )
        .unwrap();
    let doc: String = db
        .query_row(
            "SELECT doc FROM jit_requests WHERE request_id = ?1",
            [&id],
            |row| row.get(0),
        )
        .unwrap();
    forge(&db, forged, &event, &doc);
    finds(&shell, forged, None, "is not in the head log");
}

/// Adds a pending request that agrees with its history in everything.
fn forge(db: &Connection, id: &str, event: &str, doc: &str) {
    let at = "2026-01-01T00:00:00.000Z";
    let mut event: Value = serde_json::from_str(event).unwrap();
    event["request_id"] = id.into();
    event["event_id"] = format!("000001-{id}").into();
    event["event_time"] = at.into();
    let mut event: jit::domain::Event = serde_json::from_value(event).unwrap();
    event.hash = jit::domain::Hash::default();
    event.hash = jit::domain::Hash::of(&serde_json::to_vec(&event).unwrap());
    let mut doc: Value = serde_json::from_str(doc).unwrap();
    doc["id"] = id.into();
    doc["created_at"] = at.into();
    doc["approvals"] = serde_json::json!([]);
    for absent in ["approved_at", "granted", "user", "due_at", "lease"] {
        doc[absent] = Value::Null;
    }
    doc["state"] = serde_json::json!({"is": "pending"});
    let end = serde_json::json!({"version": 1, "head": event.hash, "last_at": at});
    doc["chain"] = end;
    doc["revision"] = 1.into();
    let request: jit::domain::Request = serde_json::from_value(doc.clone()).unwrap();
    let sql = "INSERT INTO jit_requests
         (request_id, status, account_id, channel_id, requester_email, created_at, revision, doc,
          written_status, written_lane)
         VALUES (?1, 'PENDING', ?2, ?3, ?4, ?5, 1, ?6, 'PENDING', 2)";
    let asked = &request.asked;
    let given = [
        id,
        asked.account_id.as_str(),
        asked.channel_id.as_str(),
        asked.requester.email.as_str(),
        at,
        &doc.to_string(),
    ];
    assert_eq!(db.execute(sql, given), Ok(1));
    let sql = "INSERT INTO jit_audit VALUES (?1, ?2, 1, ?3, 'REQUESTED', ?4, ?5, ?6)";
    let given = [
        id,
        &event.sort_key(),
        at,
        asked.account_id.as_str(),
        asked.channel_id.as_str(),
        &serde_json::to_string(&event).unwrap(),
    ];
    assert_eq!(db.execute(sql, given), Ok(1));
}

fn sealing() -> Setup {
    Setup::with(&format!("[audit]\nseal_key = \"{SEAL_KEY}\"\n"))
}

/// Writes the head log again without this history: correctly chained, without seals, and with one
/// entry more.
fn rewrite_without(db: &Connection, id: &str) -> u64 {
    let docs: Vec<String> = db
        .prepare("SELECT doc FROM jit_head_log ORDER BY number")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    db.execute("DELETE FROM jit_head_log", []).unwrap();
    let mut last: Option<HeadEntry> = None;
    let all = docs.iter().map(|doc| serde_json::from_str(doc).unwrap());
    let all: Vec<HeadEntry> = all.collect();
    let more = all.last().cloned();
    for entry in all.into_iter().chain(more) {
        let mut ends: BTreeMap<String, HistoryEnd> = entry.ends;
        ends.remove(id);
        let entry = HeadEntry::after(last.as_ref(), ends, entry.is_whole, entry.at);
        let doc = serde_json::to_string(&entry).unwrap();
        let sql = "INSERT INTO jit_head_log VALUES (?1, ?2)";
        let number = i64::try_from(entry.number).unwrap();
        assert_eq!(db.execute(sql, (number, doc)), Ok(1));
        last = Some(entry);
    }
    last.unwrap().number
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn jit_adds_nothing_to_a_log_that_was_written_again_without_the_key() {
    let shell = Shell::with(&sealing());
    shell.bind();
    let id = shell.granted().await;
    let db = Connection::open(shell.jit.database()).unwrap();
    logged(&db, &id).await;
    delete(&db, &id);
    db.execute("DELETE FROM jit_holdings", []).unwrap();
    let entries = rewrite_without(&db, &id);
    finds(&shell, "head log", None, "no entry has a seal");
    // Ordinary work goes on, and does not seal the new log.
    shell.request();
    shell.jit.comes_to_log("the head log was changed").await;
    let sql = "SELECT max(number) FROM jit_head_log";
    let last: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(u64::try_from(last), Ok(entries));
    finds(&shell, "head log", None, "no entry has a seal");
}

// C
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_head_log_cannot_lose_or_change_a_seal() {
    let shell = Shell::with(&sealing());
    shell.bind();
    let id = shell.granted().await;
    let db = Connection::open(shell.jit.database()).unwrap();
    logged(&db, &id).await;
    let said = shell
        .run(&["audit", "verify"])
        .exits(0)
        .prints(&["sealed since entry 1"]);
    assert!(!said.out.contains(SEAL_KEY) && !said.err.contains(SEAL_KEY));
    // Without its seals the log is whole, and only the missing seals show the change.
    let unsealed = "UPDATE jit_head_log SET doc = json_remove(doc, '$.seal')";
    let sealed: Vec<(i64, String)> = db
        .prepare("SELECT number, doc FROM jit_head_log")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(db.execute(unsealed, []).unwrap() > 0);
    finds(&shell, "head log", None, "no entry has a seal");
    for (number, doc) in sealed {
        let other = "UPDATE jit_head_log SET doc = ?2 WHERE number = ?1";
        db.execute(other, (number, doc)).unwrap();
    }
    shell.run(&["audit", "verify"]).exits(0);
    let forged = "UPDATE jit_head_log SET doc = json_set(doc, '$.seal', '00') WHERE number = 1";
    assert_eq!(db.execute(forged, []), Ok(1));
    finds(&shell, "head log", None, "the seal of entry 1 is wrong");
}
