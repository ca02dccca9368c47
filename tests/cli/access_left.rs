//! Access that AWS shows although it must have ended: each command says so.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::aws::{Aws, Fault};
use crate::common::{ACCOUNT, Setup};
use crate::{Ran, Shell};

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
    shell.run(&["revoke", &id, "--as", "sec@example.com"]).exits(1);
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
    let db = Connection::open(shell.jit.database()).unwrap();
    let sql = "UPDATE jit_requests SET status = 'ERROR' WHERE request_id = ?1";
    assert_eq!(db.execute(sql, [&id]), Ok(1));
    until_it_fails(&shell, &id).await;
    shell.ok(&["unbind", "--channel", crate::common::CHANNEL, "--account", ACCOUNT]);
    let found = shell.run(&["reconcile", "-o", "json"]).exits(1);
    assert_eq!(json_of(&found)["findings"][0]["request_id"], json!(id));
}
