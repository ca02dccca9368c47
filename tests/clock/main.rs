//! K8, P8: the wall clock of a running `jit serve` is set ten minutes back or forward. Waits and
//! the pace of calls use uptime, so jit calls AWS, finishes removals, and ends grants that are over
//! by the new time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::aws::Aws;
use common::wall_clock::WallClock;
use common::{Caller, Jit, Setup, TIMEOUT};
use serde_json::{Value, json};

const TEN_MINUTES: i64 = 600;
/// Each grant has its own account, so jit removes all of them in parallel, at the pace of the token
/// bucket (20 calls a second).
const GRANTS: usize = 24;

struct TestSetup {
    aws: Aws,
    clock: WallClock,
    jit: Jit,
    caller: Caller,
}

impl TestSetup {
    async fn open() -> Self {
        let aws = Aws::open().await.with_latency(Duration::from_millis(300));
        let clock = WallClock::new();
        let mut setup = Setup::with_aws(&aws, "");
        setup.variables = clock.variables();
        let (jit, caller) = setup.start_with_accounts(GRANTS).await;
        let caller = caller.at(&clock);
        Self {
            aws,
            clock,
            jit,
            caller,
        }
    }

    async fn granted(&self, minutes: i64) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 1..=GRANTS {
            let wanted = json!({
                "account_id": format!("{number:012}"),
                "requested_duration_minutes": minutes,
            });
            let id = self.caller.request_with(wanted).await;
            self.caller.approve(&id).await.is(200);
            ids.push(id);
        }
        self.until_all(&ids, "GRANTED").await;
        assert_eq!(self.aws.assignments().len(), GRANTS);
        ids
    }

    /// Sends a revoke for each request and returns when all revokes are stored. It does not wait
    /// for the answers.
    async fn revoke_all(&self, ids: &[String]) -> tokio::task::JoinSet<()> {
        let mut calls = tokio::task::JoinSet::new();
        for id in ids {
            let (caller, id) = (self.caller.clone(), id.clone());
            calls.spawn(async move {
                let revoked = caller.revoke(&id).await;
                assert!([200, 202].contains(&revoked.status), "{revoked:?}");
            });
        }
        let begun = Instant::now();
        while revoke_requests(&self.jit.database()) < ids.len() {
            assert!(begun.elapsed() < TIMEOUT, "the revokes are not stored");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        calls
    }

    /// Reads the tables: a signed read may be refused as stale while the clock is set.
    async fn until_all(&self, ids: &[String], status: &str) {
        let begun = Instant::now();
        loop {
            let now = statuses(&self.jit.database());
            let left: Vec<_> = ids.iter().filter(|id| now[*id] != status).collect();
            if left.is_empty() {
                return;
            }
            let log = self.jit.log();
            assert!(
                begun.elapsed() < TIMEOUT,
                "{} of {} never {status}: {now:?} {log}",
                left.len(),
                ids.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// AWS has no assignment left, and each history is complete and has each event once.
    async fn ended_well(&self, ids: &[String], events: &[&str]) {
        assert_eq!(self.aws.assignments().len(), 0);
        for id in ids {
            assert_eq!(self.caller.kinds(id).await, events, "{id}");
        }
        let config = self.jit.folder.path().join("jit.toml");
        let verified = common::binary()
            .envs(self.aws.environment())
            .args(["audit", "verify", "--config"])
            .arg(config)
            .output()
            .unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
}

const REVOKED: [&str; 6] = [
    "REQUESTED",
    "APPROVED",
    "ASSIGNING",
    "GRANTED",
    "REVOKE_REQUESTED",
    "REVOKED",
];
const EXPIRED: [&str; 6] = [
    "REQUESTED",
    "APPROVED",
    "ASSIGNING",
    "GRANTED",
    "EXPIRY_STARTED",
    "EXPIRED",
];

fn pairs(database: &Path, sql: &str) -> Vec<(String, String)> {
    let db = rusqlite::Connection::open(database).unwrap();
    db.busy_timeout(TIMEOUT).unwrap();
    let mut statement = db.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn statuses(database: &Path) -> BTreeMap<String, String> {
    let all = pairs(database, "SELECT request_id, status FROM jit_requests");
    all.into_iter().collect()
}

fn revoke_requests(database: &Path) -> usize {
    let sql = "SELECT request_id, event_type FROM jit_audit WHERE event_type = 'REVOKE_REQUESTED'";
    pairs(database, sql).len()
}

// K8
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_while_removals_wait_delays_none_of_them() {
    let test = TestSetup::open().await;
    let ids = test.granted(60).await;
    let calls = test.revoke_all(&ids).await;
    assert!(
        test.aws.assignments().len() > 1,
        "removals must be waiting when the clock is set"
    );
    test.clock.set(-TEN_MINUTES);
    test.until_all(&ids, "REVOKED").await;
    calls.join_all().await;
    test.ended_well(&ids, &REVOKED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_after_a_clock_was_set_back_is_done_and_answered() {
    let test = TestSetup::open().await;
    let ids = test.granted(60).await;
    test.clock.set(-TEN_MINUTES);
    let heard = test.aws.received().len();
    let (first, others) = ids.split_first().unwrap();
    let begun = Instant::now();
    test.caller.revoke(first).await.is(200);
    assert!(begun.elapsed() < TIMEOUT);
    assert!(test.aws.received().len() > heard, "jit did not call AWS");
    // The other grants still exist.
    let left = statuses(&test.jit.database());
    assert!(others.iter().all(|id| left[id] == "GRANTED"), "{left:?}");
    assert_eq!(test.aws.assignments().len(), GRANTS - 1);
    // jit uses the current time for a new grant.
    let id = test
        .caller
        .request_with(json!({"account_id": "000000000001"}))
        .await;
    test.caller.approve(&id).await.is(200);
    test.until_all(&[id], "GRANTED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_ends_the_grants_that_are_over_by_it_and_no_others() {
    let test = TestSetup::open().await;
    let ids = test.granted(5).await;
    let wanted = json!({"account_id": "000000000001", "requester_mm_user_id": "bobby",
        "requester_email": "bob@example.com", "requested_duration_minutes": 60});
    let longer = test.caller.request_with(wanted).await;
    let carol = json!({"approver_mm_user_id": "carol", "approver_email": "carol@example.com"});
    let path = format!("/requests/{longer}/approve");
    test.caller.post(&path, &carol).await.is(200);
    test.until_all(std::slice::from_ref(&longer), "GRANTED")
        .await;
    test.clock.set(TEN_MINUTES);
    test.until_all(&ids, "EXPIRED").await;
    let stands: Value = test.caller.show(&longer).await;
    assert_eq!(stands["status"], "GRANTED");
    assert_eq!(test.aws.assignments().len(), 1);
    test.caller.revoke(&longer).await.is(200);
    test.ended_well(&ids, &EXPIRED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_while_removals_wait_loses_none_of_them() {
    let test = TestSetup::open().await;
    let ids = test.granted(60).await;
    let calls = test.revoke_all(&ids).await;
    test.clock.set(TEN_MINUTES);
    test.until_all(&ids, "REVOKED").await;
    calls.join_all().await;
    test.ended_well(&ids, &REVOKED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_and_forth_while_removals_are_under_way_loses_none_of_them() {
    let test = TestSetup::open().await;
    let ids = test.granted(60).await;
    let calls = test.revoke_all(&ids).await;
    let all = test.until_all(&ids, "REVOKED");
    let jumps = async {
        for turn in 0_i64.. {
            let seconds = [-TEN_MINUTES, TEN_MINUTES, 0, TEN_MINUTES, -TEN_MINUTES];
            test.clock.set(seconds[usize::try_from(turn % 5).unwrap()]);
            tokio::time::sleep(Duration::from_millis(270)).await;
        }
    };
    tokio::select! {
        () = all => {}
        () = jumps => {}
    }
    test.clock.set(0);
    calls.join_all().await;
    test.ended_well(&ids, &REVOKED).await;
}

/// P5: jit refuses a repeated call after the clock went forward and back.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_is_refused_after_the_clock_went_forward_and_back() {
    let test = TestSetup::open().await;
    let body = common::wanted(&json!({"account_id": "000000000001"})).to_string();
    let signing = test.caller.signing();
    let headers = signing.headers(signing.v1("POST", "/requests", body.as_bytes()));
    let send = || {
        test.caller.send(
            "POST",
            "/requests",
            headers.clone(),
            body.clone().into_bytes(),
        )
    };
    send().await.is(201);
    test.clock.set(TEN_MINUTES);
    send().await.is(401);
    test.clock.set(0);
    send().await.is(401);
}
