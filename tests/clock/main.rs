//! K8, P8: the wall clock of a running `jit serve` is set ten minutes back or forward. What
//! waits and what paces calls goes by the time that only passes, so AWS is called on,
//! removals are done, and grants that are over by the new time end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::aws::Aws;
use common::shift::WallClock;
use common::{Caller, Jit, PATIENCE, Setup};
use serde_json::{Value, json};

const TEN_MINUTES: i64 = 600;
/// Each in an account of its own, so that all are removed side by side, at the pace of the
/// token bucket (20 calls a second).
const GRANTS: usize = 24;

struct Scene {
    aws: Aws,
    clock: WallClock,
    jit: Jit,
    caller: Caller,
}

impl Scene {
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

    /// Asks for all to be revoked at once, and returns when all of that is written. Whether
    /// it is answered at once is not asked here.
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
        while asked_to_end(&self.jit.database()) < ids.len() {
            assert!(begun.elapsed() < PATIENCE, "revokes are not written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        calls
    }

    /// Read from the tables: a signed look may be out of date while the clock is set.
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
                begun.elapsed() < PATIENCE,
                "{} of {} never {status}: {now:?} {log}",
                left.len(),
                ids.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Nothing is left in AWS, and each history is whole and has each event once.
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
    db.busy_timeout(PATIENCE).unwrap();
    let mut statement = db.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn statuses(database: &Path) -> BTreeMap<String, String> {
    let all = pairs(database, "SELECT request_id, status FROM jit_requests");
    all.into_iter().collect()
}

fn asked_to_end(database: &Path) -> usize {
    let sql = "SELECT request_id, event_type FROM jit_audit WHERE event_type = 'REVOKE_REQUESTED'";
    pairs(database, sql).len()
}

// K8
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_while_removals_wait_delays_none_of_them() {
    let scene = Scene::open().await;
    let ids = scene.granted(60).await;
    let calls = scene.revoke_all(&ids).await;
    assert!(
        scene.aws.assignments().len() > 1,
        "removals have to be waiting when the clock is set"
    );
    scene.clock.set(-TEN_MINUTES);
    scene.until_all(&ids, "REVOKED").await;
    calls.join_all().await;
    scene.ended_well(&ids, &REVOKED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_after_a_clock_was_set_back_is_done_and_answered() {
    let scene = Scene::open().await;
    let ids = scene.granted(60).await;
    scene.clock.set(-TEN_MINUTES);
    let heard = scene.aws.heard().len();
    let (first, others) = ids.split_first().unwrap();
    let begun = Instant::now();
    scene.caller.revoke(first).await.is(200);
    assert!(begun.elapsed() < PATIENCE);
    assert!(scene.aws.heard().len() > heard, "AWS was not called");
    // Grants that nobody ended are still there.
    let left = statuses(&scene.jit.database());
    assert!(others.iter().all(|id| left[id] == "GRANTED"), "{left:?}");
    assert_eq!(scene.aws.assignments().len(), GRANTS - 1);
    // A request is granted by the time that is now.
    let id = scene
        .caller
        .request_with(json!({"account_id": "000000000001"}))
        .await;
    scene.caller.approve(&id).await.is(200);
    scene.until_all(&[id], "GRANTED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_ends_the_grants_that_are_over_by_it_and_no_others() {
    let scene = Scene::open().await;
    let ids = scene.granted(5).await;
    let wanted = json!({"account_id": "000000000001", "requester_mm_user_id": "bobby",
        "requester_email": "bob@example.com", "requested_duration_minutes": 60});
    let longer = scene.caller.request_with(wanted).await;
    let carol = json!({"approver_mm_user_id": "carol", "approver_email": "carol@example.com"});
    let path = format!("/requests/{longer}/approve");
    scene.caller.post(&path, &carol).await.is(200);
    scene
        .until_all(std::slice::from_ref(&longer), "GRANTED")
        .await;
    scene.clock.set(TEN_MINUTES);
    scene.until_all(&ids, "EXPIRED").await;
    let stands: Value = scene.caller.show(&longer).await;
    assert_eq!(stands["status"], "GRANTED");
    assert_eq!(scene.aws.assignments().len(), 1);
    scene.caller.revoke(&longer).await.is(200);
    scene.ended_well(&ids, &EXPIRED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_while_removals_wait_loses_none_of_them() {
    let scene = Scene::open().await;
    let ids = scene.granted(60).await;
    let calls = scene.revoke_all(&ids).await;
    scene.clock.set(TEN_MINUTES);
    scene.until_all(&ids, "REVOKED").await;
    calls.join_all().await;
    scene.ended_well(&ids, &REVOKED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_and_forth_while_removals_are_under_way_loses_none_of_them() {
    let scene = Scene::open().await;
    let ids = scene.granted(60).await;
    let calls = scene.revoke_all(&ids).await;
    let all = scene.until_all(&ids, "REVOKED");
    let jumps = async {
        for turn in 0_i64.. {
            let seconds = [-TEN_MINUTES, TEN_MINUTES, 0, TEN_MINUTES, -TEN_MINUTES];
            scene.clock.set(seconds[usize::try_from(turn % 5).unwrap()]);
            tokio::time::sleep(Duration::from_millis(270)).await;
        }
    };
    tokio::select! {
        () = all => {}
        () = jumps => {}
    }
    scene.clock.set(0);
    calls.join_all().await;
    scene.ended_well(&ids, &REVOKED).await;
}

/// P5: a call that was taken is not taken again after the clock went forward and back.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_taken_again_after_the_clock_went_forward_and_back() {
    let scene = Scene::open().await;
    let body = common::wanted(&json!({"account_id": "000000000001"})).to_string();
    let signing = scene.caller.signing();
    let headers = signing.headers(signing.v1("POST", "/requests", body.as_bytes()));
    let send = || {
        scene.caller.send(
            "POST",
            "/requests",
            headers.clone(),
            body.clone().into_bytes(),
        )
    };
    send().await.is(201);
    scene.clock.set(TEN_MINUTES);
    send().await.is(401);
    scene.clock.set(0);
    send().await.is(401);
}
