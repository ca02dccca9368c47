//! Start, stop, failure and metrics of the real binary.

use std::time::Duration;

use serde_json::json;

use crate::common::{Jit, Setup, TIMEOUT, binary, wanted};

#[tokio::test]
async fn sigterm_stops_cleanly_and_loses_no_request() {
    let (jit, caller) = Setup {
        latency_ms: 1500,
        ..Setup::default()
    }
    .bound()
    .await;
    let id = caller.request().await;
    caller.approve(&id).await.is(200);
    // SIGTERM arrives while the grant is being made.
    let (status, took, folder) = jit.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let jit = Jit::start_in(folder);
    jit.caller().until(&id, "GRANTED").await;
    let kinds = jit.caller().kinds(&id).await;
    assert_eq!(kinds, ["REQUESTED", "APPROVED", "ASSIGNING", "GRANTED"]);
}

// P8, T3: a process that starts finds an expiry that became due while no process ran.
#[tokio::test]
async fn an_expiry_due_during_downtime_is_done_on_start() {
    let (jit, caller) = Setup::default().bound().await;
    let id = caller.granted().await;
    let folder = jit.kill();
    crate::common::let_grants_end(folder.path());
    let jit = Jit::start_in(folder);
    jit.caller().until(&id, "EXPIRED").await;
}

// The SQL statement of the runbook writes a status into the table.
#[tokio::test]
async fn a_status_written_into_the_table_is_carried_out_at_aws() {
    let (jit, caller) = Setup::default().bound().await;
    let id = caller.granted().await;
    let db = rusqlite::Connection::open(jit.database()).unwrap();
    let sql = "UPDATE jit_requests SET status = 'REVOKED', revoked_at = '2026-01-15T10:00:00Z'
               WHERE request_id = ?1 AND status = 'GRANTED'";
    assert_eq!(db.execute(sql, [&id]), Ok(1));
    assert_eq!(caller.show(&id).await["status"], "REVOKED");
    let begun = std::time::Instant::now();
    loop {
        let kinds = caller.kinds(&id).await;
        if kinds.last().unwrap() == "REVOKED" {
            break;
        }
        assert!(begun.elapsed() < TIMEOUT, "{kinds:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let events = caller.audit(&id).await;
    assert_eq!(
        events.last().unwrap()["details"]["source"],
        "changed outside jit"
    );
    let sandbox = rusqlite::Connection::open(jit.folder.path().join("jit.db.sandbox")).unwrap();
    let left: i64 = sandbox
        .query_row("SELECT count(*) FROM assignments", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0, "the assignment was removed at AWS");
}

#[tokio::test]
async fn metrics_for_alarms_exist_from_the_start() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let text = |reply: crate::common::Reply| {
        assert!(
            reply.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
        reply.text
    };
    caller.bind().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    let metrics = text(caller.metrics().await);
    for series in [
        "jit_http_requests_total{method=\"POST\",route=\"/requests\",status=\"201\"} 1",
        "jit_due_backlog 0",
        "jit_overdue_grants 0",
        "jit_live_grants 0",
        "jit_oldest_undelivered_notice_seconds 0",
        "jit_parked_notices 0",
        "jit_store_up 1",
        "jit_revoke_duration_seconds_count 1",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    assert!(
        !metrics.contains(&id),
        "input of a caller must not become a label"
    );
}

// A store that refuses writes causes a 503 and a line in the log; no change is written in part.
#[tokio::test]
async fn a_store_that_refuses_writes_is_503() {
    let (jit, caller) = Setup::default().bound().await;
    // Another connection holds the write lock of the file for longer than jit waits for it.
    let db = rusqlite::Connection::open(jit.database()).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = caller.post("/requests", &wanted(&json!({}))).await;
    assert!(told.headers.contains_key("retry-after"), "{told:?}");
    told.is(503);
    jit.logs("a batch of writes to the store failed");
    db.execute_batch("ROLLBACK").unwrap();
    caller.request().await;
    let list = caller.get("/requests?channel_id=town-square").await.is(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_failed_start_prints_its_reason_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jit.toml");
    for (text, names) in [
        (
            "[server]\nlisten = \"0.0.0.0:0\"\n[identity_center]\nmode = \"sandbox\"",
            "server.listen",
        ),
        ("[server]\nlissen = 1", "lissen"),
        (
            "[keys.a]\nsecret = \"hush-0123456789\"\n[keys.b]\nsecret = \"hush-0123456789\"",
            "keys.b",
        ),
        (
            "[store.tables]\nrequest = \"jit\"\n[identity_center]\nmode = \"sandbox\"",
            "store.tables.request",
        ),
        (
            "[store]\npath = \"/nowhere/at/all/jit.db\"\n[identity_center]\nmode = \"sandbox\"",
            "/nowhere",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let ran = binary()
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let told = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        assert!(
            told.contains(names) && !told.contains("hush"),
            "{names}: {told}"
        );
    }
    // Environment variables can set the whole configuration.
    let ran = binary()
        .args(["config", "check", "-o", "json"])
        .env("JIT_IDENTITY_CENTER__MODE", "sandbox")
        .env(
            "JIT_KEYS__PLUGIN__SECRET",
            "from-the-environment-0123456789",
        )
        .current_dir(folder.path().join(".."))
        .output()
        .unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    assert!(
        ran.status.success() && told.contains("\"plugin\""),
        "{told}"
    );
    assert!(!told.contains("from-the-environment"), "{told}");
}

#[test]
fn a_second_server_on_the_same_store_is_refused() {
    let jit = Setup::default().start();
    let ran = binary()
        .arg("serve")
        .arg("--config")
        .arg(jit.folder.path().join("jit.toml"))
        .output();
    let ran = ran.unwrap();
    let told = String::from_utf8(ran.stderr).unwrap();
    assert!(
        !ran.status.success() && told.contains("in use by another jit"),
        "{told}"
    );
}
