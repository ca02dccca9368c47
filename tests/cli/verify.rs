//! `jit audit verify` finds each way to change the store that leaves every hash chain whole.

use rusqlite::Connection;
use serde_json::Value;

use crate::common::{ACCOUNT, CHANNEL};
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
    shell.run(&["audit", "verify"]).exits(1).tells(&[
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
    ];
    let (shell, id, db) = with_a_grant().await;
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
