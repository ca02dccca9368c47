//! What a life asks of AWS, and in which order.

use std::time::Duration;

use serde_json::json;

use crate::common::aws::{ADMIN, Aws, Fault, READONLY};
use crate::common::{ACCOUNT, Jit, Setup, let_grants_end};

/// The standing check, the create, the removal, and a last look: P6.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_asks_no_more_than_it_must() {
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
    // AWS may have been asked twice whether it was over: either way in this order.
    actions.dedup();
    let mut expected = asked.to_vec();
    expected.dedup();
    assert!(
        actions == expected || actions == [&["GetUserId"], &expected[1..]].concat(),
        "{actions:?}"
    );
}

/// Who somebody is may be remembered for a minute; a removal asks nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_never_asks_who_somebody_is() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    let readonly = json!({"permission_set": "readonly"});
    let other = caller.request_with(readonly).await;
    caller.approve(&other).await.is(200);
    caller.until(&other, "GRANTED").await;
    let asked = |action: &str| aws.actions().iter().filter(|one| *one == action).count();
    assert_eq!(asked("GetUserId"), 2, "by name and by address, once");
    aws.once("GetUserId", Fault::Denied);
    caller.revoke(&id).await.is(200);
    caller.revoke(&other).await.is(200);
    assert_eq!(asked("GetUserId"), 2);
    let sets: Vec<_> = aws
        .heard()
        .into_iter()
        .filter(|one| one.action == "CreateAccountAssignment")
        .collect();
    assert_eq!(sets.len(), 2);
    assert!(aws.assignments().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_several_are_refused_by_name() {
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

/// P4: what somebody assigned in AWS is theirs, also to take away.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_already_is_left_alone() {
    let aws = Aws::quick().await;
    aws.assign(ACCOUNT, ADMIN, "alice@example.com");
    // The same person elsewhere, and another person here, are no hindrance.
    aws.assign(ACCOUNT, READONLY, "bob@example.com");
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.request().await;
    caller.approve(&id).await.is(200);
    let ended = caller.until(&id, "ERROR").await;
    let told = ended["error_details"].as_str().unwrap();
    assert!(told.contains("leaves it alone"), "{told}");
    assert_eq!(aws.assignments().len(), 2);
    assert!(
        !aws.actions()
            .contains(&"CreateAccountAssignment".to_owned())
    );
}

/// Whoever is revoked before it was their turn is not given it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_turn_can_be_called_off() {
    // Ten creates are under way for longer than this test takes.
    let aws = Aws::open().await.with_latency(Duration::from_secs(120));
    let (jit, caller) = Setup::with_aws(&aws, "").start_with_accounts(11).await;
    let mut ids = Vec::new();
    for number in 0..11 {
        let account = format!("{:012}", number + 1);
        let id = caller.request_with(json!({"account_id": account})).await;
        caller.approve(&id).await.is(200);
        ids.push(id);
        if number < 10 {
            aws.hears_of(&account, "CreateAccountAssignment").await;
        }
    }
    let last = ids.pop().unwrap();
    aws.hears_of("000000000011", "ListAccountAssignments").await;
    caller.revoke(&last).await.is(200);
    let heard = aws.heard();
    let mut creates = heard
        .iter()
        .filter(|one| one.action == "CreateAccountAssignment");
    assert!(creates.all(|one| one.account != "000000000011"));
    drop(jit);
}

/// Ends that come together are asked about together; one of them fails, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn what_ends_together_is_asked_about_together() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").start_with_accounts(8).await;
    let ids = caller.granted_in_accounts(8).await;
    let folder = jit.kill();
    let_grants_end(folder.path());
    let before = aws.heard().len();
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
    assert!(alone < 24, "eight that take two seconds: {actions:?}");
}

/// An end that came by itself waits its turn among many; somebody who asks does not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_ending_already_can_be_hurried() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").start_with_accounts(12).await;
    let ids = caller.granted_in_accounts(12).await;
    let folder = jit.kill();
    let_grants_end(folder.path());
    let before = aws.heard().len();
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
        .heard()
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

/// P6: the same name for another set says nothing about the access that was given.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_changed_its_name_is_not_taken_for_another() {
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
    assert_eq!(told["status"], "GRANTED", "AWS has it still");
    let why = told["error_details"].as_str().unwrap();
    assert!(why.contains("put permission_sets.admin back"), "{why}");
    assert_eq!(aws.assignments().len(), 1);
    let folder = jit.kill();
    std::fs::write(&file, config).unwrap();
    let jit = Jit::start_with(folder, &aws.environment());
    // A minute is the longest that such a thing waits for its next try.
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

/// A name for a set that AWS does not know is an end that says so, not an endless try.
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
        "the duty to remove"
    );
}
