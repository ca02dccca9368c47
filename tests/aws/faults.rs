//! Everything that goes wrong at AWS, once at every place, and all of it by chance.

use crate::common::aws::{Aws, Fault, Rates};
use crate::common::{Caller, Jit, Setup};

const ACTIONS: [&str; 6] = [
    "GetUserId",
    "ListAccountAssignments",
    "CreateAccountAssignment",
    "DescribeAccountAssignmentCreationStatus",
    "DeleteAccountAssignment",
    "DescribeAccountAssignmentDeletionStatus",
];

async fn lives(caller: &Caller) {
    let id = caller.granted().await;
    let revoked = caller.revoke(&id).await;
    assert!([200, 202].contains(&revoked.status), "{revoked:?}");
    caller.until(&id, "REVOKED").await;
}

async fn survives(fault: Fault) {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    for action in ACTIONS {
        aws.once(action, fault.clone());
        lives(&caller).await;
        assert!(aws.assignments().is_empty(), "{fault:?} at {action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_survived_everywhere() {
    let refusals = [Fault::Conflict, Fault::Throttling, Fault::Internal];
    tokio::join!(
        survives(refusals[0].clone()),
        survives(refusals[1].clone()),
        survives(refusals[2].clone()),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_survived_everywhere() {
    tokio::join!(survives(Fault::Lost), survives(Fault::AnswerLost));
}

/// A call that never comes back is given up, and the lease outlives the wait.
#[tokio::test(flavor = "multi_thread")]
async fn hangs_are_survived_everywhere() {
    let hangs_at = async |action: &str| {
        let aws = Aws::quick().await;
        let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
        aws.once(action, Fault::Hang);
        lives(&caller).await;
        assert!(aws.assignments().is_empty(), "{action}");
    };
    tokio::join!(
        hangs_at(ACTIONS[0]),
        hangs_at(ACTIONS[1]),
        hangs_at(ACTIONS[2]),
        hangs_at(ACTIONS[3]),
        hangs_at(ACTIONS[4]),
        hangs_at(ACTIONS[5]),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_lies_are_survived() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    for fault in [Fault::Fails("Internal failure"), Fault::Lies] {
        for action in ["CreateAccountAssignment", "DeleteAccountAssignment"] {
            aws.once(action, fault.clone());
            lives(&caller).await;
            assert!(aws.assignments().is_empty(), "{fault:?} at {action}");
        }
    }
    // P6: what AWS says is one thing, what it shows is another.
    aws.once("DeleteAccountAssignment", Fault::Pretends);
    lives(&caller).await;
    assert!(aws.assignments().is_empty(), "REVOKED was said");
}

/// P1, P6: with everything going wrong at once, all that is given is taken away.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_day_at_aws_ends_well() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let faults = [
        Fault::Conflict,
        Fault::Throttling,
        Fault::Internal,
        Fault::Lost,
        Fault::AnswerLost,
        Fault::Lies,
    ];
    aws.by_chance(Rates {
        seed: 7,
        all: faults.map(|fault| (fault, 0.04)).into(),
    });
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(caller.approved_for(&aws, &format!("user{number}")).await);
    }
    for id in &ids {
        caller.until(id, "GRANTED").await;
        let revoked = caller.revoke(id).await;
        assert!([200, 202].contains(&revoked.status), "{revoked:?}");
    }
    for id in &ids {
        caller.until(id, "REVOKED").await;
    }
    assert!(aws.assignments().is_empty());
    assert!(jit.log().lines().all(|line| !line.contains("panicked")));
}

/// That jit may not is loud everywhere, and is tried again, slowly.
#[tokio::test(flavor = "multi_thread")]
async fn access_denied_is_loud() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    aws.once("DeleteAccountAssignment", Fault::Denied);
    let (answered, ()) = tokio::join!(caller.revoke(&id), is_told_everywhere(&jit, &caller, &id));
    assert_eq!(answered.status, 202, "{answered:?}");
    let message = answered.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("goes on"), "{message}");
}

async fn is_told_everywhere(jit: &Jit, caller: &Caller, id: &str) {
    // The call is made in the same task: waiting must let it go on.
    jit.comes_to_log("AWS denied the call").await;
    let status = caller.show(id).await;
    assert_eq!(status["status"], "GRANTED", "the truth");
    let told = status["error_details"].as_str().unwrap();
    assert!(told.contains("AccessDeniedException"), "{told}");
    let events = caller.audit(id).await;
    let failing = events
        .iter()
        .find(|event| event["event_type"] == "REMOVAL_FAILING");
    let error = failing.unwrap()["details"]["error"].as_str().unwrap();
    assert!(error.contains("not authorized"), "{error}");
    let metrics = reqwest::get(format!("{}/metrics", jit.url)).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("jit_failing_removals 1"), "{metrics}");
    let denied = "jit_aws_calls_total{action=\"DeleteAccountAssignment\",outcome=\"denied\"} 1";
    assert!(metrics.contains(denied), "{metrics}");
}
