//! The calls to AWS during the life of one request, and their order.

use std::time::Duration;

use serde_json::json;

use crate::common::aws::{ADMIN, Aws, Fault, READONLY};
use crate::common::{ACCOUNT, Jit, Setup, let_grants_end};

/// The check for an existing assignment, the create, the delete and a last look: P6.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_makes_the_minimum_of_aws_calls() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    let there: Vec<_> = aws.assignments().into_iter().collect();
    assert_eq!(there.len(), 1);
    assert_eq!(
        (there[0].account.as_str(), there[0].set.as_str()),
        (ACCOUNT, ADMIN)
    );
    assert_eq!(there[0].principal, aws.user_id("alice@example.com"));
    let revoked = caller.revoke(&id).await.is(200);
    assert_eq!(revoked["status"], "REVOKED");
    assert!(aws.assignments().is_empty());
    let asked = [
        "GetUserId",
        "GetUserId",
        "ListAccountAssignments",
        "CreateAccountAssignment",
        "DescribeAccountAssignmentCreationStatus",
        "DeleteAccountAssignment",
        "DescribeAccountAssignmentDeletionStatus",
        "ListAccountAssignments",
    ];
    let mut actions = aws.actions();
    // jit may poll an operation twice; the order is the same.
    actions.dedup();
    let mut expected = asked.to_vec();
    expected.dedup();
    assert!(
        actions == expected || actions == [&["GetUserId"], &expected[1..]].concat(),
        "{actions:?}"
    );
}

/// jit keeps the user id of a person for a minute; a removal needs no look-up.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_looks_up_no_user() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    let readonly = json!({"permission_set": "readonly"});
    let other = caller.request_with(readonly).await;
    caller.approve(&other).await.is(200);
    caller.until(&other, "GRANTED").await;
    let asked = |action: &str| aws.actions().iter().filter(|one| *one == action).count();
    assert_eq!(
        asked("GetUserId"),
        2,
        "one look-up by name and one by address"
    );
    aws.once("GetUserId", Fault::Denied);
    caller.revoke(&id).await.is(200);
    caller.revoke(&other).await.is(200);
    assert_eq!(asked("GetUserId"), 2);
    let sets: Vec<_> = aws
        .received()
        .into_iter()
        .filter(|one| one.action == "CreateAccountAssignment")
        .collect();
    assert_eq!(sets.len(), 2);
    assert!(aws.assignments().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_or_ambiguous_user_is_refused_with_the_name() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    for (who, why) in [("stranger", "has no user"), ("twin", "has several users")] {
        let email = format!("{who}@example.com");
        let asked = json!({"requester_mm_user_id": who, "requester_email": email});
        let id = caller.request_with(asked).await;
        caller.approve(&id).await.is(200);
        let ended = caller.until(&id, "ERROR").await;
        let told = ended["error_details"].as_str().unwrap();
        assert!(told.contains(why) && told.contains(&email), "{told}");
    }
    assert!(aws.assignments().is_empty());
}

/// P4: jit does not use and does not remove an assignment from outside.
#[tokio::test(flavor = "multi_thread")]
async fn an_existing_assignment_is_not_used_and_not_removed() {
    let aws = Aws::quick().await;
    aws.assign(ACCOUNT, ADMIN, "alice@example.com");
    // Assignments of the same user in another account and of another user in this account do not
    // matter.
    aws.assign(ACCOUNT, READONLY, "bob@example.com");
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.request().await;
    caller.approve(&id).await.is(200);
    let ended = caller.until(&id, "ERROR").await;
    let told = ended["error_details"].as_str().unwrap();
    assert!(told.contains("does not change it"), "{told}");
    assert_eq!(aws.assignments().len(), 2);
    assert!(
        !aws.actions()
            .contains(&"CreateAccountAssignment".to_owned())
    );
}

/// A revoke of a request that still waits for its create prevents the create.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_of_a_waiting_grant_prevents_the_create() {
    // Ten creates run for longer than this test takes.
    let aws = Aws::open().await.with_latency(Duration::from_secs(120));
    let (jit, caller) = Setup::with_aws(&aws, "").start_with_accounts(11).await;
    let mut ids = Vec::new();
    for number in 0..11 {
        let account = format!("{:012}", number + 1);
        let id = caller.request_with(json!({"account_id": account})).await;
        caller.approve(&id).await.is(200);
        ids.push(id);
        if number < 10 {
            aws.wait_for_call(&account, "CreateAccountAssignment").await;
        }
    }
    let last = ids.pop().unwrap();
    aws.wait_for_call("000000000011", "ListAccountAssignments")
        .await;
    caller.revoke(&last).await.is(200);
    let heard = aws.received();
    let mut creates = heard
        .iter()
        .filter(|one| one.action == "CreateAccountAssignment");
    assert!(creates.all(|one| one.account != "000000000011"));
    drop(jit);
}

/// K7: a create that AWS never ends does not hold the delete of its revoke back.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_of_a_create_that_never_ends_sends_its_delete() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").start_with_accounts(1).await;
    let account = "000000000001";
    aws.next_never_ends(account);
    let id = caller.request_with(json!({"account_id": account})).await;
    caller.approve(&id).await.is(200);
    aws.wait_for_call(account, "CreateAccountAssignment").await;
    let revoked = caller.revoke(&id);
    let deleted = aws.wait_for_call(account, "DeleteAccountAssignment");
    let (revoked, ()) = tokio::join!(revoked, deleted);
    // jit calls the access gone only when the create cannot take effect any more.
    assert!([200, 202].contains(&revoked.status), "{revoked:?}");
    drop(jit);
}

/// jit polls simultaneous deletes with one list call; one of them fails, and its error has the
/// reason.
#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_deletes_are_polled_together() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").start_with_accounts(8).await;
    let ids = caller.granted_in_accounts(8).await;
    let folder = jit.kill();
    let_grants_end(folder.path());
    let before = aws.received().len();
    let aws = aws.with_latency(Duration::from_secs(2));
    aws.once("DeleteAccountAssignment", Fault::Fails("Internal failure"));
    let jit = Jit::start_with(folder, &aws.environment());
    let caller = jit.caller();
    let mut failed = Vec::new();
    for id in &ids {
        caller.until(id, "EXPIRED").await;
        let events = caller.audit(id).await;
        let failing = events
            .into_iter()
            .filter(|one| one["event_type"] == "REMOVAL_FAILING");
        failed.extend(failing.map(|event| event["details"]["error"].clone()));
    }
    assert_eq!(failed, ["Internal failure"]);
    assert!(aws.assignments().is_empty());
    let actions = aws.actions().split_off(before);
    let asked = |word: &str| actions.iter().filter(|one| one.contains(word)).count();
    assert!(
        asked("ListAccountAssignmentDeletionStatus") >= 1,
        "{actions:?}"
    );
    let alone = asked("DescribeAccountAssignmentDeletionStatus");
    assert!(
        alone < 24,
        "eight deletes that take two seconds each: {actions:?}"
    );
}

/// An expiry waits in its lane; a revoke by a person moves it to the first lane.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_moves_a_waiting_expiry_to_the_revoke_lane() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").start_with_accounts(12).await;
    let ids = caller.granted_in_accounts(12).await;
    let folder = jit.kill();
    let_grants_end(folder.path());
    let before = aws.received().len();
    let mut slowly = aws.environment();
    slowly.push(("JIT_IDENTITY_CENTER__CALLS_PER_SECOND", "1".into()));
    let jit = Jit::start_with(folder, &slowly);
    let caller = jit.caller();
    let last = ids.last().unwrap();
    caller.until_told(last, "EXPIRY_STARTED").await;
    let revoked = caller.revoke(last).await;
    assert!([200, 202].contains(&revoked.status), "{revoked:?}");
    caller.until(last, "REVOKED").await;
    let deletes: Vec<String> = aws
        .received()
        .split_off(before)
        .into_iter()
        .filter(|one| one.action == "DeleteAccountAssignment")
        .map(|one| one.account)
        .collect();
    let at = deletes.iter().position(|account| account == "000000000012");
    assert!(at.unwrap() <= 3, "{deletes:?}");
    let kinds = caller.kinds(last).await;
    assert_eq!(
        kinds[4..],
        ["EXPIRY_STARTED", "REVOKE_REQUESTED", "REVOKED"]
    );
}

/// P6: after the name of a permission set got another ARN, jit still looks for the assignment under
/// the first ARN.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_permission_set_is_removed_by_its_first_arn() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    let folder = jit.kill();
    let file = folder.path().join("jit.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let swapped = config
        .replace("ps-1111", "ps-0000")
        .replace("ps-2222222222222222", "ps-1111111111111111")
        .replace("ps-0000111111111111", "ps-2222222222222222");
    std::fs::write(&file, swapped).unwrap();
    let jit = Jit::start_with(folder, &aws.environment());
    let caller = jit.caller();
    let answered = caller.revoke(&id).await;
    assert_eq!(answered.status, 202, "{answered:?}");
    let told = caller.show(&id).await;
    assert_eq!(told["status"], "GRANTED", "AWS still has the assignment");
    let why = told["error_details"].as_str().unwrap();
    assert!(why.contains("restore permission_sets.admin"), "{why}");
    assert_eq!(aws.assignments().len(), 1);
    let folder = jit.kill();
    std::fs::write(&file, config).unwrap();
    let jit = Jit::start_with(folder, &aws.environment());
    // The retry is due within a minute.
    let hurry = [
        "break-glass",
        "revoke",
        &id,
        "--reason",
        "x",
        "--as",
        "sec@example.com",
    ];
    let hurried = crate::common::binary()
        .args(hurry)
        .envs(aws.environment())
        .env("JIT_CONFIG", file)
        .output()
        .unwrap();
    assert!(hurried.status.success(), "{hurried:?}");
    assert_eq!(jit.caller().show(&id).await["status"], "REVOKED");
    assert!(aws.assignments().is_empty());
}

/// AWS does not know the configured ARN: jit gives up the grant with an error and stops retrying.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_aws_refuses_is_given_up_and_rolled_back() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let why = "Received a 403 status error: Account is suspended";
    for _ in 0..3 {
        aws.once("CreateAccountAssignment", Fault::Fails(why));
    }
    let id = caller.request().await;
    caller.approve(&id).await.is(200);
    let ended = caller.until(&id, "ERROR").await;
    assert_eq!(ended["error_details"], why);
    assert!(
        aws.actions()
            .contains(&"DeleteAccountAssignment".to_owned()),
        "the record has a due removal"
    );
}
