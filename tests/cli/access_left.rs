//! Access that AWS shows although it must have ended: each command says so.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::aws::{Aws, Fault, READONLY};
use crate::common::{ACCOUNT, CHANNEL, Setup};
use crate::{ASKING, Ran, Shell};

const OPS: [&str; 4] = ["--reason", "by hand", "--as", "ops@example.com"];

/// A grant at a simulated AWS.
async fn granted_at_aws() -> (Aws, Shell, String) {
    let aws = Aws::quick().await;
    let shell = Shell::with(&Setup::with_aws(&aws, ""));
    shell.bind();
    let id = shell.granted().await;
    (aws, shell, id)
}

fn run(shell: &Shell, words: &[&str]) -> Ran {
    shell.run(&[words, &OPS].concat())
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|why| panic!("{why}: {ran:?}"))
}

/// AWS refuses more deletes than a test waits for.
fn refuse_deletes(aws: &Aws) {
    for _ in 0..100 {
        aws.once("DeleteAccountAssignment", Fault::Denied);
    }
}

/// Waits until the last attempt of a worker has failed.
async fn until_it_fails(shell: &Shell, id: &str) {
    let db = Connection::open(shell.jit.database()).unwrap();
    let sql = "SELECT doc FROM jit_requests WHERE request_id = ?1";
    for _ in 0..200 {
        let doc: String = db.query_row(sql, [id], |row| row.get(0)).unwrap();
        let doc: Value = serde_json::from_str(&doc).unwrap();
        if !doc["trouble"].is_null() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no attempt for {id} failed");
}

/// H7: an end that jit has not verified yet was no finding while its removal failed.
#[tokio::test(flavor = "multi_thread")]
async fn h7_reconcile_tells_an_unverified_end_whose_removal_fails() {
    for status in ["REVOKED", "ERROR"] {
        let (aws, shell, id) = granted_at_aws().await;
        refuse_deletes(&aws);
        if status == "REVOKED" {
            run(&shell, &["cleanup", &id, "--unverified"]).exits(0);
        } else {
            let db = Connection::open(shell.jit.database()).unwrap();
            let sql = "UPDATE jit_requests SET status = ?2 WHERE request_id = ?1";
            assert_eq!(db.execute(sql, [&id, status]), Ok(1));
        }
        until_it_fails(&shell, &id).await;
        let found = shell.run(&["reconcile", "-o", "json"]).exits(1);
        let findings = json_of(&found)["findings"].clone();
        assert_eq!(findings[0]["finding"], "failing", "{status}: {found:?}");
        assert_eq!(findings[0]["request_id"], json!(id));
        assert_eq!(findings.as_array().unwrap().len(), 1, "{found:?}");
        shell
            .run(&["reconcile"])
            .exits(1)
            .prints(&["times, will be retried: ", "AccessDenied"]);
    }
}

/// H7: a removal that fails is one finding, also if AWS shows the access.
#[tokio::test(flavor = "multi_thread")]
async fn h7_reconcile_names_a_failing_removal_once() {
    let (aws, shell, id) = granted_at_aws().await;
    refuse_deletes(&aws);
    shell
        .run(&["revoke", &id, "--as", "sec@example.com"])
        .exits(1);
    let found = shell.run(&["reconcile", "-o", "json"]).exits(1);
    let findings = json_of(&found)["findings"].clone();
    assert_eq!(findings[0]["finding"], "failing", "{found:?}");
    assert_eq!(findings.as_array().unwrap().len(), 1, "{found:?}");
}

/// H7: the account of a request that must end was not compared after an unbind.
#[tokio::test(flavor = "multi_thread")]
async fn h7_reconcile_compares_the_account_of_a_request_that_must_end() {
    let (aws, shell, id) = granted_at_aws().await;
    refuse_deletes(&aws);
    run(&shell, &["cleanup", &id, "--unverified"]).exits(0);
    until_it_fails(&shell, &id).await;
    shell.ok(&["unbind", "--channel", CHANNEL, "--account", ACCOUNT]);
    let found = shell.run(&["reconcile", "-o", "json"]).exits(1);
    assert_eq!(json_of(&found)["findings"][0]["request_id"], json!(id));
}

/// Changes the record of a request in the store.
fn change(shell: &Shell, id: &str, change: &str) {
    let db = Connection::open(shell.jit.database()).unwrap();
    let sql = format!("UPDATE jit_requests SET {change} WHERE request_id = ?1");
    assert_eq!(db.execute(&sql, [id]), Ok(1), "{change}");
}

/// Alice asks for `readonly`, which she has from outside. The request ended in ERROR, and its revoke
/// waits for a worker.
async fn checked_after_error(aws: &Aws, shell: &Shell) -> String {
    aws.assign(ACCOUNT, READONLY, "alice@example.com");
    let mut asking = ASKING;
    asking[8] = "readonly";
    let id = shell.json(&asking)["request_id"].clone();
    let id = id.as_str().unwrap();
    shell.ok(&["approve", id, "--as", "bob@example.com"]);
    shell.jit.caller().until(id, "ERROR").await;
    let checking = r#"{"is": "checking", "by": {"id": "sec", "email": "sec@example.com"},
        "error": {"at": "2026-01-01T00:00:00.000Z", "why": "x"}}"#;
    let sql = format!("doc = json_set(doc, '$.state', json('{checking}'))");
    change(shell, id, &sql);
    id.to_owned()
}

fn break_glass(shell: &Shell, what: &[&str]) -> Ran {
    run(shell, &[&["break-glass", "revoke", "--yes"], what].concat())
}

/// H1: the exit code was 1, although AWS shows access of the person.
#[tokio::test(flavor = "multi_thread")]
async fn h1_break_glass_exits_with_3_if_the_access_of_a_request_in_error_exists() {
    let (aws, shell, _) = granted_at_aws().await;
    let id = checked_after_error(&aws, &shell).await;
    break_glass(&shell, &[&id]).exits(3).prints(&[
        &format!("{id} ERROR: this user has an assignment of readonly"),
        "1 of 1 accesses were not removed",
    ]);
}

/// H1: a request whose end an operator wrote as ERROR counted as access that was not removed.
#[tokio::test(flavor = "multi_thread")]
async fn h1_break_glass_exits_with_0_if_the_access_of_a_request_in_error_is_gone() {
    let (aws, shell, id) = granted_at_aws().await;
    // A worker waits for a minute after a refusal.
    aws.once("DeleteAccountAssignment", Fault::Denied);
    change(&shell, &id, "status = 'ERROR'");
    until_it_fails(&shell, &id).await;
    let ended = break_glass(&shell, &[&id]).exits(0);
    ended.prints(&["ERROR: the record was changed", "AWS shows no access"]);
    assert!(aws.assignments().is_empty());
}

/// H1: the record of the assignment was deleted and the pending check was cut out of the record of
/// the request. Break-glass said that AWS shows no access that jit made.
#[tokio::test(flavor = "multi_thread")]
async fn h1_break_glass_names_access_that_only_a_history_says_jit_made() {
    let (aws, shell, id) = granted_at_aws().await;
    refuse_deletes(&aws);
    run(&shell, &["cleanup", &id, "--unverified"]).exits(0);
    until_it_fails(&shell, &id).await;
    shell.run(&["audit", "verify"]).exits(0);
    let settled =
        "doc = json_set(doc, '$.state', json_extract(doc, '$.state.end'), '$.due_at', NULL,
        '$.lease', NULL, '$.trouble', NULL), written_claimable_at = NULL, written_lane = 2";
    change(&shell, &id, settled);
    let db = Connection::open(shell.jit.database()).unwrap();
    assert_eq!(db.execute("DELETE FROM jit_holdings", []), Ok(1));
    // C
    let said = shell.run(&["audit", "verify"]).exits(1);
    said.prints(&["state: the record says an end", "(CLEANED_UP)"]);
    let left = break_glass(&shell, &["--account", ACCOUNT]).exits(3);
    left.prints(&[
        "AWS still shows access that jit made",
        &format!("admin in {ACCOUNT}: its request is over"),
        &id,
    ]);
}

/// H1, K12: after one failed removal, break-glass did not name the records that it cannot read, and
/// did not ask AWS what is left.
#[tokio::test(flavor = "multi_thread")]
async fn h1_k12_break_glass_tells_everything_after_a_failed_removal() {
    let (aws, shell, unread) = granted_at_aws().await;
    let id = checked_after_error(&aws, &shell).await;
    change(&shell, &unread, "doc = 'damaged'");
    let alice = ["--user", "alice@example.com"];
    break_glass(&shell, &alice).exits(3).prints(&[
        &format!("{id} ERROR: "),
        "1 of 1 accesses were not removed",
        &format!("1 records cannot be read, and may have access: {unread}: "),
        "--user EMAIL --account ID",
        "AWS still shows access of alice@example.com",
        &format!("admin in {ACCOUNT}: a request has it"),
    ]);
    // With the account, jit removes what AWS shows, and asks again after that.
    let named = break_glass(&shell, &[&alice[..], &["--account", ACCOUNT]].concat());
    let named = named.exits(1).prints(&[
        "the store did not record it",
        &unread,
        "AWS shows no access of alice@example.com",
    ]);
    assert!(aws.assignments().is_empty(), "{named:?}");
}

/// W5: the list did not have access whose end is not confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn w5_a_list_shows_an_end_that_is_checked_at_aws() {
    let (aws, shell, id) = granted_at_aws().await;
    let other = checked_after_error(&aws, &shell).await;
    // As after a try that failed; no worker tries again during the test.
    let next_try = "written_lane = 0, written_claimable_at = (unixepoch() + 120) * 1000";
    change(&shell, &other, next_try);
    let listed = shell.run(&["list"]).exits(0);
    listed.prints(&[&other, "ERROR, being checked at AWS"]);
    refuse_deletes(&aws);
    run(&shell, &["cleanup", &id, "--unverified"]).exits(0);
    let listed = shell.json(&["list"]);
    let shown: Vec<&Value> = listed["items"].as_array().unwrap().iter().collect();
    assert_eq!(shown.len(), 2, "{listed:#}");
    for (item, id, status) in [(shown[0], &other, "ERROR"), (shown[1], &id, "REVOKED")] {
        assert_eq!(item["request_id"], json!(id));
        assert_eq!(item["status"], status);
        assert_eq!(item["assignment_status"], "CHECKING");
    }
    let listed = shell.run(&["list"]).exits(0);
    listed.prints(&[&id, "REVOKED, being checked at AWS"]);
    // The same by HTTP, page by page.
    let (caller, mut pages, mut more) = (shell.jit.caller(), Vec::new(), String::new());
    for _ in 0..2 {
        let path = format!("/requests?assignment_status=CHECKING&limit=1{more}");
        let page = caller.get(&path).await.is(200);
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{page}");
        pages.push(items[0]["request_id"].clone());
        more = match page["next_token"].as_str() {
            Some(token) => format!("&next_token={token}"),
            None => "none".to_owned(),
        };
    }
    assert_eq!(
        (pages, more),
        (vec![json!(other), json!(id)], "none".into())
    );
    // A confirmed end is not listed.
    change(
        &shell,
        &other,
        "doc = json_set(doc, '$.state', json('{\"is\": \"error\", \
            \"at\": \"2026-01-01T00:00:00.000Z\", \"why\": \"x\"}'))",
    );
    assert!(!shell.ok(&["list"]).contains(&other));
}

/// W5: the list had such an end only if it was among the newest 200 of its status.
#[tokio::test(flavor = "multi_thread")]
async fn w5_a_list_shows_a_checked_end_that_is_older_than_many_others() {
    let (aws, shell, id) = granted_at_aws().await;
    refuse_deletes(&aws);
    run(&shell, &["cleanup", &id, "--unverified"]).exits(0);
    let db = Connection::open(shell.jit.database()).unwrap();
    let newer =
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 201)
         INSERT INTO jit_requests (request_id, status, account_id, channel_id, requester_email,
                created_at, revision, doc, written_status, written_lane)
         SELECT printf('00000000-0000-4000-8000-%012d', n), 'REVOKED', account_id, channel_id,
                requester_email, '2099-01-01T00:00:00.000Z', 1,
                json_set(doc, '$.id', printf('00000000-0000-4000-8000-%012d', n),
                    '$.created_at', '2099-01-01T00:00:00.000Z', '$.due_at', json('null'),
                    '$.state', json('{\"is\": \"revoked\", \"by\": null, \"reason\": null,
                        \"at\": \"2099-01-01T00:00:00.000Z\"}')),
                'REVOKED', 2
         FROM jit_requests, number WHERE request_id = ?1";
    assert_eq!(db.execute(newer, [&id]), Ok(201));
    let listed = shell.json(&["list"]);
    let shown = listed["items"].as_array().unwrap();
    assert_eq!(shown.len(), 1, "{listed:#}");
    assert_eq!(shown[0]["request_id"], json!(id));
    assert_eq!(shown[0]["assignment_status"], "CHECKING");
}
