//! Each fault of AWS once at each call, and all faults at random.

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
async fn a_refusal_at_any_aws_call_is_retried() {
    let refusals = [Fault::Conflict, Fault::Throttling, Fault::Internal];
    tokio::join!(
        survives(refusals[0].clone()),
        survives(refusals[1].clone()),
        survives(refusals[2].clone()),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_at_any_aws_call_is_retried() {
    tokio::join!(survives(Fault::Lost), survives(Fault::AnswerLost));
}

/// jit gives up a call that gets no answer, and its lease lasts longer than that wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_aws_call_is_given_up_and_retried() {
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
async fn failed_and_misreported_operations_are_corrected() {
    let aws = Aws::quick().await;
    let (_jit, caller) = Setup::with_aws(&aws, "").bound().await;
    for fault in [Fault::Fails("Internal failure"), Fault::FailsAfterEffect] {
        for action in ["CreateAccountAssignment", "DeleteAccountAssignment"] {
            aws.once(action, fault.clone());
            lives(&caller).await;
            assert!(aws.assignments().is_empty(), "{fault:?} at {action}");
        }
    }
    // P6: AWS reports a successful delete and still shows the assignment.
    aws.once("DeleteAccountAssignment", Fault::SucceedsWithoutEffect);
    lives(&caller).await;
    assert!(
        aws.assignments().is_empty(),
        "REVOKED, and AWS has the assignment"
    );
}

/// P1, P6: with all faults at random, every assignment that was made is removed.
#[tokio::test(flavor = "multi_thread")]
async fn with_random_aws_faults_every_request_ends_without_access() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let faults = [
        Fault::Conflict,
        Fault::Throttling,
        Fault::Internal,
        Fault::Lost,
        Fault::AnswerLost,
        Fault::FailsAfterEffect,
    ];
    // One call in eight fails. With more, a removal may come to the longest pause between two
    // attempts, which is as long as the timeout of this test.
    aws.by_chance(Rates {
        seed: 7,
        all: faults.map(|fault| (fault, 0.02)).into(),
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

/// jit logs and counts an access-denied error at every call, and retries at a slow rate.
#[tokio::test(flavor = "multi_thread")]
async fn access_denied_is_logged_and_counted() {
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
    // The call to jit runs in the same task, so this wait must not block the thread.
    jit.comes_to_log("AWS denied the call").await;
    let status = caller.show(id).await;
    assert_eq!(status["status"], "GRANTED", "the assignment still exists");
    let told = status["error_details"].as_str().unwrap();
    assert!(told.contains("AccessDeniedException"), "{told}");
    let events = caller.audit(id).await;
    let failing = events
        .iter()
        .find(|event| event["event_type"] == "REMOVAL_FAILING");
    let error = failing.unwrap()["details"]["error"].as_str().unwrap();
    assert!(error.contains("not authorized"), "{error}");
    let metrics = caller.metrics().await.text;
    assert!(metrics.contains("jit_failing_removals 1"), "{metrics}");
    let denied = "jit_aws_calls_total{action=\"DeleteAccountAssignment\",outcome=\"denied\"} 1";
    assert!(metrics.contains(denied), "{metrics}");
}
