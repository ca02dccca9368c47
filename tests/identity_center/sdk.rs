//! The implementation on the AWS SDK, against a simulated AWS over HTTP: the common properties, and
//! the meaning of each fault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ssoadmin::config::{Credentials, Region, SharedCredentialsProvider};
use jit::domain::{OldCredentialsRule, PermissionSet, Presence};
use jit::identity_center::sdk::{IdentityCenterOptions, SsoIdentityCenter, environment};
use jit::identity_center::{
    AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError, IdentityCenterErrorKind,
    OperationKind, Progress, UserAttribute,
};

use crate::aws::{ADMIN, Aws, Fault, INSTANCE, READONLY, STORE};
use crate::conformance::{self, Center, email, key, look, remove};

const LATENCY: Duration = Duration::from_millis(300);

struct Real {
    aws: Aws,
    center: SsoIdentityCenter,
}

impl Center for Real {
    fn access(&self) -> &dyn IdentityCenter {
        &self.center
    }

    fn let_time_pass(&self) {
        self.aws.pass(LATENCY);
    }
}

pub fn sets() -> BTreeMap<PermissionSet, String> {
    [("admin", ADMIN), ("readonly", READONLY)]
        .map(|(name, arn)| (name.parse().unwrap(), arn.to_owned()))
        .into()
}

fn options() -> IdentityCenterOptions {
    IdentityCenterOptions {
        instance_arn: INSTANCE.into(),
        identity_store_id: STORE.into(),
        permission_sets: sets(),
    }
}

async fn with(options: IdentityCenterOptions) -> Real {
    let aws = Aws::open().await.by_hand();
    let center = connected(&aws.url, options).await;
    Real { aws, center }
}

pub async fn connected(url: &str, options: IdentityCenterOptions) -> SsoIdentityCenter {
    let credentials = Credentials::new("AKIAEXAMPLE", "example", None, None, "test");
    let config = environment()
        .endpoint_url(url)
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .load()
        .await;
    SsoIdentityCenter::new(options, &config)
}

async fn open() -> Real {
    with(options()).await
}

#[tokio::test]
async fn the_sdk_passes_the_identity_center_conformance_tests() {
    conformance::all(open).await;
}

// K15
#[tokio::test]
async fn a_closed_account_has_no_assignments_and_a_deleted_set_has_its_own_error() {
    let real = open().await;
    let held = key(&real.center, 1, "admin").await;
    real.center.create(&held).await.unwrap();
    real.let_time_pass();
    real.aws.close(held.account_id.as_str());
    let seen = real
        .center
        .assigned(&AssignmentPlace::of(&held), None)
        .await
        .unwrap();
    assert_eq!(seen.items, []);

    let mut deleted = options();
    let arn = format!("{ADMIN}0");
    deleted
        .permission_sets
        .insert("admin".parse().unwrap(), arn);
    let real = with(deleted).await;
    let seen = real
        .center
        .assigned(&AssignmentPlace::of(&held), None)
        .await;
    assert_eq!(seen.unwrap_err().kind, IdentityCenterErrorKind::NoSuchSet);
}

// K15, P6
#[tokio::test]
async fn an_unknown_instance_proves_no_assignment_gone() {
    let wrong = IdentityCenterOptions {
        instance_arn: format!("{INSTANCE}0"),
        ..options()
    };
    let real = with(wrong).await;
    let held = key(&real.center, 1, "admin").await;
    let seen = real
        .center
        .assigned(&AssignmentPlace::of(&held), None)
        .await;
    let error = seen.unwrap_err();
    assert_eq!(error.kind, IdentityCenterErrorKind::Denied, "{error}");
}

/// The meaning of each fault, for a call that changes something and for one that reads.
#[tokio::test]
async fn every_fault_maps_to_its_error_kind() {
    use IdentityCenterErrorKind as Kind;
    for (fault, kind) in [
        (Fault::Conflict, Kind::Conflict),
        (Fault::Throttling, Kind::Throttled),
        (Fault::Denied, Kind::Denied),
        (Fault::Internal, Kind::NoAnswer),
        (Fault::Lost, Kind::NoAnswer),
        (Fault::AnswerLost, Kind::NoAnswer),
    ] {
        let real = open().await;
        let key = key(&real.center, 1, "admin").await;
        let plan = |action| real.aws.once(action, fault.clone());
        plan("CreateAccountAssignment");
        let create = real.center.create(&key).await.unwrap_err();
        plan("DeleteAccountAssignment");
        let delete = real.center.delete(&key).await.unwrap_err();
        plan("ListAccountAssignments");
        let list = real
            .center
            .assigned(&AssignmentPlace::of(&key), None)
            .await
            .unwrap_err();
        plan("ListAccountAssignmentDeletionStatus");
        let under_way = real
            .center
            .under_way(OperationKind::Delete, None)
            .await
            .unwrap_err();
        plan("GetUserId");
        let person = email("alice");
        let find = real
            .center
            .find_user(&person, UserAttribute::Email)
            .await
            .unwrap_err();
        for error in [create, delete, list, under_way, find] {
            assert_eq!(error.kind, kind, "{fault:?}: {error}");
        }
    }
}

/// The SDK does not retry: one method makes one call.
#[tokio::test]
async fn every_method_is_one_call() {
    let real = open().await;
    let key = key(&real.center, 1, "admin").await;
    real.aws.once("CreateAccountAssignment", Fault::Internal);
    let refused: IdentityCenterError = real.center.create(&key).await.unwrap_err();
    assert!(refused.why.contains("InternalServerException"), "{refused}");
    let creates = real.aws.actions();
    let creates = creates
        .iter()
        .filter(|one| *one == "CreateAccountAssignment");
    assert_eq!(creates.count(), 1);
}

#[tokio::test]
async fn a_failed_operation_reports_its_reason() {
    let real = open().await;
    let key = key(&real.center, 1, "admin").await;
    let why = "Received a 403 status error: Account is suspended";
    real.aws.once("CreateAccountAssignment", Fault::Fails(why));
    let making = real.center.create(&key).await.unwrap();
    real.let_time_pass();
    let failed = Progress::Failed { why: why.into() };
    assert_eq!(real.center.poll(&making).await, Ok(failed));
    assert_eq!(look(&real.center, &key).await, Ok(Presence::Absent));
}

#[tokio::test]
async fn a_failed_delete_counts_as_done_only_if_no_assignment_existed() {
    let not_found = "Received a 404 status error: Assignment not found";
    for (why, done) in [
        (not_found, true),
        (
            "Received a 404 status error: Permission set not found",
            false,
        ),
        ("Received a 403 status error: Assignment not found", false),
        ("Internal failure", false),
    ] {
        let real = open().await;
        let key = key(&real.center, 1, "admin").await;
        let making = real.center.create(&key).await.unwrap();
        real.let_time_pass();
        assert_eq!(real.center.poll(&making).await, Ok(Progress::Succeeded));
        real.aws.once("DeleteAccountAssignment", Fault::Fails(why));
        let Ok(Deletion::Started(removing)) = real.center.delete(&key).await else {
            panic!("not accepted");
        };
        real.let_time_pass();
        let ended = real.center.poll(&removing).await.unwrap();
        assert_eq!(ended == Progress::Succeeded, done, "{why}: {ended:?}");
    }
    // A create that failed because something was not found is not done.
    let real = open().await;
    let key = key(&real.center, 1, "admin").await;
    real.aws
        .once("CreateAccountAssignment", Fault::Fails(not_found));
    let making = real.center.create(&key).await.unwrap();
    real.let_time_pass();
    let ended = real.center.poll(&making).await.unwrap();
    assert!(matches!(ended, Progress::Failed { .. }), "{ended:?}");
}

/// AWS reports FAILED for an operation that took effect: only a look shows that.
#[tokio::test]
async fn a_look_reveals_a_misreported_operation() {
    let real = open().await;
    let key = key(&real.center, 1, "admin").await;
    real.aws
        .once("CreateAccountAssignment", Fault::FailsAfterEffect);
    let making = real.center.create(&key).await.unwrap();
    real.let_time_pass();
    let failed = real.center.poll(&making).await.unwrap();
    assert!(matches!(failed, Progress::Failed { .. }), "{failed:?}");
    assert_eq!(look(&real.center, &key).await, Ok(Presence::Present));
    assert_eq!(remove(&real, &key).await, Progress::Succeeded);
}

/// A user on the second page counts as well, and a group of the same name does not.
#[tokio::test]
async fn every_page_is_read() {
    let real = open().await;
    let key = key(&real.center, 1, "admin").await;
    for number in 0..7 {
        real.aws
            .add_user(&format!("user{number}"), &format!("user{number}"));
        let user = format!("user{number}@example.com");
        real.aws.assign(key.account_id.as_str(), ADMIN, &user);
    }
    real.aws
        .assign_group(key.account_id.as_str(), ADMIN, key.user.as_str());
    assert_eq!(look(&real.center, &key).await, Ok(Presence::Absent));
    real.aws.add_user("zoe", "zoe");
    real.aws
        .assign(key.account_id.as_str(), ADMIN, "zoe@example.com");
    let zoe = real.aws.user_id("zoe@example.com").parse().unwrap();
    let zoe = jit::domain::HoldingKey { user: zoe, ..key };
    assert_eq!(look(&real.center, &zoe).await, Ok(Presence::Present));
}

/// An unknown user and an unknown identity store are different errors: the first ends a request.
#[tokio::test]
async fn a_wrong_identity_store_is_not_an_unknown_user() {
    let real = with(IdentityCenterOptions {
        identity_store_id: "d-2222222222".into(),
        ..options()
    })
    .await;
    let alice = email("alice");
    let found = real.center.find_user(&alice, UserAttribute::Email).await;
    let error = found.unwrap_err();
    assert_eq!(error.kind, IdentityCenterErrorKind::Denied);
    assert!(error.why.contains("identity_store_id"), "{error}");
}

/// AWS does not know the account or the permission set. No answer of AWS to a delete then proves
/// that the assignment is gone.
#[tokio::test]
async fn an_assignment_that_cannot_be_looked_up_is_not_gone() {
    let known = open().await;
    let key = key(&known.center, 1, "admin").await;
    let arn = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-9999999999999999";
    let real = with(IdentityCenterOptions {
        permission_sets: [("admin".parse().unwrap(), arn.to_owned())].into(),
        ..options()
    })
    .await;
    assert_eq!(real.center.delete(&key).await, Ok(Deletion::NothingThere));
    assert!(look(&real.center, &key).await.is_err());
    let unknown = with(IdentityCenterOptions {
        permission_sets: BTreeMap::new(),
        ..options()
    })
    .await;
    let refused = unknown.center.delete(&key).await.unwrap_err();
    assert_eq!(refused.kind, IdentityCenterErrorKind::Denied);
    assert!(refused.why.contains("jit.toml"), "{refused}");
}

/// jit waits for an answer for less time than a lease lasts.
#[tokio::test]
async fn a_call_that_hangs_is_given_up() {
    let real = open().await;
    let key = key(&real.center, 1, "admin").await;
    real.aws.once("DeleteAccountAssignment", Fault::Hang);
    let given_up = real.center.delete(&key).await.unwrap_err();
    assert_eq!(given_up.kind, IdentityCenterErrorKind::NoAnswer);
}

/// The actions of infra/iam-policy.json, without those for DynamoDB.
fn allowed_actions() -> BTreeSet<String> {
    let policy = include_str!("../../infra/iam-policy.json");
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    let mut allowed = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        if statement["Sid"] == "KeepEverythingInDynamoDB" {
            // The tests in tests/dynamodb compare these with the calls.
            continue;
        }
        match &statement["Action"] {
            serde_json::Value::String(action) => drop(allowed.insert(action.clone())),
            actions => allowed.extend(
                actions
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| one.as_str().unwrap().to_owned()),
            ),
        }
    }
    allowed
}

/// E15: the IAM policy permits the calls that jit makes, no more and no fewer.
#[tokio::test]
async fn the_iam_policy_allows_exactly_the_calls_of_jit() {
    let real = open().await;
    let (center, set) = (&real.center, "admin".parse().unwrap());
    let key = key(center, 1, "admin").await;
    let place = AssignmentPlace::of(&key);
    center.inspect(OldCredentialsRule::PermissionSet).await;
    center.caller().await.unwrap();
    let making = center.create(&key).await.unwrap();
    real.let_time_pass();
    center.poll(&making).await.unwrap();
    let Deletion::Started(removing) = center.delete(&key).await.unwrap() else {
        panic!("an existing assignment is removed only by an operation");
    };
    center.poll(&removing).await.unwrap();
    center.assigned(&place, None).await.unwrap();
    for kind in [OperationKind::Create, OperationKind::Delete] {
        center.under_way(kind, None).await.unwrap();
    }
    let policy = r#"{"Statement":[]}"#;
    center.set_inline_policy(&set, Some(policy)).await.unwrap();
    assert_eq!(
        center.inline_policy(&set).await.unwrap().as_deref(),
        Some(policy)
    );
    center.set_inline_policy(&set, None).await.unwrap();
    assert_eq!(center.inline_policy(&set).await, Ok(None));
    let provisioning = center.provision(&place).await.unwrap();
    let provisioned = center.provisioned(&provisioning).await;
    assert_eq!(provisioned, Ok(Progress::Succeeded));

    let mut called: BTreeSet<String> = real.aws.actions().into_iter().collect();
    // AWS never denies this call.
    assert!(called.remove("GetCallerIdentity"));
    let counted = include_str!("../../src/identity_center/sdk.rs");
    let named = counted.split('"').filter(|word| called.contains(*word));
    let named: BTreeSet<&str> = named.collect();
    assert_eq!(
        named.len() + 1,
        called.len(),
        "all but ListInstances are counted by name"
    );
    let called: BTreeSet<String> = called
        .into_iter()
        .map(|action| match action.as_str() {
            "GetUserId" => "identitystore:GetUserId".to_owned(),
            action => format!("sso:{action}"),
        })
        .collect();
    assert_eq!(called, allowed_actions());
}
