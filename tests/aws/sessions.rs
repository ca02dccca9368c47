//! Credentials that outlive the access they were fetched with.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::aws::{ADMIN, Aws};
use crate::common::{ACCOUNT, Setup};

const OTHERS: &str = "{ \"Version\":\"2012-10-17\", \"Statement\": [ {\"Sid\":\"NoBilling\",\
    \"Effect\":\"Deny\",\"Action\":\"aws-portal:*\",\"Resource\":\"*\"} ] }";
const ON: &str = "[revocation]\nend_sessions = \"permission-set\"";

#[tokio::test(flavor = "multi_thread")]
async fn older_credentials_are_denied_where_the_role_lives_on() {
    let aws = Aws::quick().await;
    aws.set_policy(ADMIN, OTHERS);
    // Somebody else has the same set there, so AWS keeps the role.
    aws.assign(ACCOUNT, ADMIN, "bob@example.com");
    let (jit, caller) = Setup::with_aws(&aws, ON).bound().await;
    let id = caller.granted().await;
    let revoked = caller.revoke(&id).await.is(200);
    assert_eq!(revoked["status"], "REVOKED", "that waits for no policy");
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
    // For as long as a session of this set can last: an hour.
    let until = denied["details"]["until"].as_str().unwrap();
    assert_eq!(until[14..16], before[14..16], "{until} {before}");
    // An hour later it is taken out again.
    let folder = jit.kill();
    let db = rusqlite::Connection::open(folder.path().join("jit.db")).unwrap();
    let doc: String = db
        .query_row("SELECT doc FROM jit_requests", [], |row| row.get(0))
        .unwrap();
    let mut record: Value = serde_json::from_str(&doc).unwrap();
    record["due_at"] = record["created_at"].clone();
    let sql = "UPDATE jit_requests SET doc = ?1, written_claimable_at = 1";
    assert_eq!(db.execute(sql, [record.to_string()]), Ok(1));
    drop(db);
    let jit = crate::common::Jit::start_with(folder, &aws.environment());
    jit.caller().until_told(&id, "SESSION_DENY_LIFTED").await;
    assert_eq!(
        aws.policy(ADMIN).as_deref(),
        Some(OTHERS),
        "as if we had never been there"
    );
    let verified = crate::common::binary()
        .args(["audit", "verify", "--config"])
        .arg(jit.folder.path().join("jit.toml"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// With the last assignment AWS takes the role away, and every credential with it.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_role_is_gone_nothing_needs_to_be_denied() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, ON).bound().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    caller.until_told(&id, "SESSIONS_ENDED").await;
    assert_eq!(aws.policy(ADMIN), None);
}

/// Many at once in one policy, each in an account of its own: none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn many_ends_share_one_policy() {
    let aws = Aws::quick().await;
    aws.set_policy(ADMIN, OTHERS);
    // Long enough for everybody to read the same, if nobody saw to it that they do not.
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

/// It was placed, and nobody lived to say so; and meanwhile the role has gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_deny_that_nobody_heard_of_is_taken_out_all_the_same() {
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
async fn it_is_off_unless_it_is_asked_for() {
    let aws = Aws::quick().await;
    aws.assign(ACCOUNT, ADMIN, "bob@example.com");
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    // Whatever was due after that end has been done by the next one.
    let next = caller.granted().await;
    caller.revoke(&next).await.is(200);
    assert_eq!(caller.kinds(&id).await.last().unwrap(), "REVOKED");
    let touched = ["InlinePolicy", "Provision", "DescribePermissionSet"];
    let actions = aws.actions();
    let touches = |action: &String| touched.iter().any(|word| action.contains(word));
    assert!(!actions.iter().any(touches), "{actions:?}");
}
