//! kill -9 at every call to AWS: before it is carried out, and before its answer comes.

use std::time::Duration;

use crate::common::aws::{Aws, Moment};
use crate::common::{Caller, Jit, Setup};

/// More than a life has.
const MOST_CALLS: usize = 30;

async fn until_revoked(caller: &Caller, id: &str) {
    let approved = caller.approve(id).await;
    assert!([200, 409].contains(&approved.status), "{approved:?}");
    let now = caller.show(id).await;
    if now["status"] == "APPROVED" {
        caller.until(id, "GRANTED").await;
    }
    let revoked = caller.revoke(id).await;
    assert!([200, 202, 409].contains(&revoked.status), "{revoked:?}");
    caller.until(id, "REVOKED").await;
}

/// Whether there was such a call to die at.
async fn dies_at(number: usize, moment: Moment) -> bool {
    let aws = Aws::open().await.with_latency(Duration::from_millis(300));
    aws.stop_at(number, moment);
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.request().await;
    tokio::select! {
        () = aws.reached() => {}
        () = until_revoked(&caller, &id) => return false,
    }
    let folder = jit.kill();
    aws.go_on();
    let jit = Jit::start_with(folder, &aws.environment());
    let caller = jit.caller();
    until_revoked(&caller, &id).await;
    assert!(aws.assignments().is_empty(), "call {number}, {moment:?}");
    let events = [
        "REQUESTED",
        "APPROVED",
        "ASSIGNING",
        "GRANTED",
        "REVOKE_REQUESTED",
        "REVOKED",
    ];
    assert_eq!(caller.kinds(&id).await, events, "call {number}, {moment:?}");
    true
}

async fn every_second_call(first: usize, moment: Moment) -> usize {
    let mut number = first;
    while number < MOST_CALLS && dies_at(number, moment).await {
        number += 2;
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_call_ends_right() {
    let reached = tokio::join!(
        every_second_call(1, Moment::Before),
        every_second_call(2, Moment::Before),
        every_second_call(1, Moment::After),
        every_second_call(2, Moment::After),
    );
    // A life has eight calls at least, and each of them was died at.
    for last in [reached.0, reached.1, reached.2, reached.3] {
        assert!((9..MOST_CALLS).contains(&last), "{reached:?}");
    }
}
