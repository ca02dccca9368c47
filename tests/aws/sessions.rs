//! Old credentials, which stay valid after the access has ended.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::aws::{ADMIN, Aws};
use crate::common::{ACCOUNT, Setup};

const OTHERS: &str = "{ \"Version\":\"2012-10-17\", \"Statement\": [ {\"Sid\":\"NoBilling\",\
    \"Effect\":\"Deny\",\"Action\":\"aws-portal:*\",\"Resource\":\"*\"} ] }";
const ON: &str = "[revocation]\nend_sessions = \"permission-set\"";

/// Moves the end of the old credentials of the only request into the past.
fn end_old_credentials(database: &Path) {
    let db = rusqlite::Connection::open(database).unwrap();
    let doc: String = db
        .query_row("SELECT doc FROM jit_requests", [], |row| row.get(0))
        .unwrap();
    let mut record: Value = serde_json::from_str(&doc).unwrap();
    let past = record["created_at"].clone();
    (record["due_at"], record["sessions"]["until"]) = (past.clone(), past);
    let sql = "UPDATE jit_requests SET doc = ?1, written_claimable_at = 1";
    assert_eq!(db.execute(sql, [record.to_string()]), Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_credentials_are_denied_where_the_role_remains() {
    let aws = Aws::quick().await;
    aws.set_policy(ADMIN, OTHERS);
    // Another user has the same permission set in the account, so AWS keeps the role.
    aws.assign(ACCOUNT, ADMIN, "bob@example.com");
    let (jit, caller) = Setup::with_aws(&aws, ON).bound().await;
    let id = caller.granted().await;
    let revoked = caller.revoke(&id).await.is(200);
    assert_eq!(
        revoked["status"], "REVOKED",
        "the revoke does not wait for the policy"
    );
    let denied = caller.until_told(&id, "SESSIONS_DENIED").await;
    let policy = aws.policy(ADMIN).unwrap();
    assert!(
        policy.starts_with(OTHERS.split(" ] }").next().unwrap()),
        "{policy}"
    );
    let read: Value = serde_json::from_str(&policy).unwrap();
    let ours = &read["Statement"][1];
    assert_eq!(ours["Effect"], "Deny");
    let user = aws.user_id("alice@example.com");
    assert_eq!(
        ours["Condition"]["StringEquals"]["identitystore:userId"],
        json!(user)
    );
    let before = ours["Condition"]["DateLessThan"]["aws:TokenIssueTime"]
        .as_str()
        .unwrap();
    assert_eq!(before.len(), "2026-01-01T00:00:00Z".len(), "{before}");
    assert_eq!(aws.provisioned(), [(ADMIN.to_owned(), ACCOUNT.to_owned())]);
    let shown = caller.show(&id).await;
    assert_eq!(shown["sessions_denied_until"], denied["details"]["until"]);
    // The deny statement lasts as long as a session of this set can last: an hour.
    let until = denied["details"]["until"].as_str().unwrap();
    assert_eq!(until[14..16], before[14..16], "{until} {before}");
    // An hour later jit removes the statement.
    let folder = jit.kill();
    end_old_credentials(&folder.path().join("jit.db"));
    let jit = crate::common::Jit::start_with(folder, &aws.environment());
    jit.caller().until_told(&id, "SESSION_DENY_LIFTED").await;
    assert_eq!(
        aws.policy(ADMIN).as_deref(),
        Some(OTHERS),
        "the policy is as it was before"
    );
    let verified = crate::common::binary()
        .args(["audit", "verify", "--config"])
        .arg(jit.folder.path().join("jit.toml"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// With the last assignment AWS deletes the role, so its credentials are invalid.
#[tokio::test(flavor = "multi_thread")]
async fn no_deny_is_written_where_the_role_is_gone() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, ON).bound().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    caller.until_told(&id, "SESSIONS_ENDED").await;
    assert_eq!(aws.policy(ADMIN), None);
}

/// Many simultaneous ends write one policy, each for its own account: no deny statement is lost.
#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_ends_keep_all_deny_statements_in_one_policy() {
    let aws = Aws::quick().await;
    aws.set_policy(ADMIN, OTHERS);
    // The read is slow enough that all would read the same policy if jit did not serialize the
    // changes.
    aws.slow(
        "GetInlinePolicyForPermissionSet",
        Duration::from_millis(100),
    );
    let (_jit, caller) = Setup::with_aws(&aws, ON).start_with_accounts(4).await;
    for number in 1..=4 {
        aws.assign(&format!("{number:012}"), ADMIN, "bob@example.com");
    }
    let ids = caller.granted_in_accounts(4).await;
    let revoke = |number: usize| caller.revoke(&ids[number]);
    let answers = tokio::join!(revoke(0), revoke(1), revoke(2), revoke(3));
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert!([200, 202].contains(&answer.status), "{answer:?}");
    }
    for id in &ids {
        caller.until_told(id, "SESSIONS_DENIED").await;
    }
    let policy = aws.policy(ADMIN).unwrap();
    for id in &ids {
        let ours = id.replace('-', "");
        assert!(policy.contains(&ours), "{id} is not in {policy}");
    }
}

/// The process was killed after it wrote the deny statement and before it recorded that; meanwhile
/// AWS deleted the role.
#[tokio::test(flavor = "multi_thread")]
async fn an_unrecorded_deny_statement_is_removed_later() {
    let aws = Aws::quick().await;
    aws.set_policy(ADMIN, OTHERS);
    aws.assign(ACCOUNT, ADMIN, "bob@example.com");
    let (jit, caller) = Setup::with_aws(&aws, ON).bound().await;
    let id = caller.granted().await;
    aws.stop_at_action("ProvisionPermissionSet");
    caller.revoke(&id).await.is(200);
    aws.reached().await;
    assert_ne!(aws.policy(ADMIN).as_deref(), Some(OTHERS));
    let folder = jit.kill();
    aws.go_on();
    aws.unassign(ACCOUNT, ADMIN, "bob@example.com");
    let jit = crate::common::Jit::start_with(folder, &aws.environment());
    jit.caller().until_told(&id, "SESSIONS_ENDED").await;
    assert_eq!(aws.policy(ADMIN).as_deref(), Some(OTHERS));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_deny_is_written_without_end_sessions() {
    let aws = Aws::quick().await;
    aws.assign(ACCOUNT, ADMIN, "bob@example.com");
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    // The next request ends only after the work that was due after the first end.
    let next = caller.granted().await;
    caller.revoke(&next).await.is(200);
    assert_eq!(caller.kinds(&id).await.last().unwrap(), "REVOKED");
    let touched = ["InlinePolicy", "Provision", "DescribePermissionSet"];
    let actions = aws.actions();
    let touches = |action: &String| touched.iter().any(|word| action.contains(word));
    assert!(!actions.iter().any(touches), "{actions:?}");
}
