//! K5, P2: a disk that is really full, filled and freed again while many callers write, and
//! the real binary on it. Who was told no finds nothing of it written, who was told yes
//! finds all of it, and jit goes on without a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::shift::WallClock;
use common::{CHANNEL, Caller, Channel, Jit, PATIENCE, Reply, Setup, wanted};
use disk::Disk;
use rows::Rows;
use serde_json::{Value, json};

/// Enough that one batch of writes is larger than SQLite's page cache: then SQLite writes to
/// the disk in the middle of a batch, and rolls it back there.
const CALLERS: u64 = 480;
/// In one account operations go one after the other.
const ACCOUNTS: u64 = 40;
const ROUNDS: u32 = 2;
/// SQLite decides when it writes in the middle of a batch: more rounds until it has.
const MOST_ROUNDS: u32 = 10;
/// So many calls are refused while the disk is full, and taken while it is not.
const CALLS: u64 = 200;
const ROLLED_BACK: &str = "SQLite rolled the whole batch back by itself";

/// One call that was answered.
#[derive(Debug)]
struct Said {
    /// A text that stands in this call and nowhere else.
    mark: String,
    /// It makes one of these events if it is taken.
    events: &'static [&'static str],
    request: String,
    status: u16,
}

/// Callers who write until they are told to stop.
struct Crowd {
    caller: Caller,
    stop: AtomicBool,
    marks: AtomicU64,
    /// Calls that have no answer yet.
    waiting: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
    said: Mutex<Vec<Said>>,
}

impl Crowd {
    fn mark(&self) -> String {
        format!("mark-{:06}", self.marks.fetch_add(1, Ordering::SeqCst))
    }

    /// None if a connection was closed instead of an answer, as an idle one is in the moment
    /// in which it is used again: whether that call was taken is not known.
    async fn post(&self, path: &str, body: &Value) -> Option<Reply> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let reply = self.caller.try_call("POST", path, &body.to_string()).await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if reply.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        reply.ok()
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn note(
        &self,
        mark: String,
        events: &'static [&'static str],
        request: &str,
        reply: &Reply,
    ) -> bool {
        let taken = [200, 201, 202].contains(&reply.status);
        assert!(
            taken || reply.status == 503,
            "{events:?} of {request}: {reply:?}"
        );
        let count = if taken { &self.taken } else { &self.refused };
        count.fetch_add(1, Ordering::SeqCst);
        let request = match events {
            ["REQUESTED"] if taken => reply.json()["request_id"].as_str().unwrap().to_owned(),
            _ => request.to_owned(),
        };
        let said = Said {
            mark,
            events,
            request,
            status: reply.status,
        };
        self.said.lock().unwrap().push(said);
        taken
    }

    fn last_request(&self, mark: &str) -> String {
        let said = self.said.lock().unwrap();
        said.iter()
            .find(|one| one.mark == mark)
            .unwrap()
            .request
            .clone()
    }

    /// The same call until it is taken, signed anew and with a new mark each time.
    async fn until_taken(
        &self,
        id: &str,
        events: &'static [&'static str],
        path: &str,
        body: impl Fn(&str) -> Value,
    ) -> bool {
        let mut is_all_known = true;
        while self.goes_on() {
            let mark = self.mark();
            let Some(reply) = self.post(path, &body(&mark)).await else {
                is_all_known = false;
                continue;
            };
            if reply.status == 409 && !is_all_known {
                return true;
            }
            if self.note(mark, events, id, &reply) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Requests, one after the other: approved all, and every fifth one revoked.
    async fn write(self: Arc<Self>, number: u64) {
        let mut life = number;
        while self.goes_on() {
            life += 1;
            let mark = self.mark();
            let body = wanted(&json!({
                "account_id": format!("{:012}", 1 + number % ACCOUNTS),
                "requester_mm_user_id": format!("user{number}"),
                "requester_email": format!("user{number}@example.com"),
                "reason": long(&mark),
                "jira": long(&mark),
            }));
            let Some(reply) = self.post("/requests", &body).await else {
                continue;
            };
            if !self.note(mark.clone(), &["REQUESTED"], "", &reply) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let id = self.last_request(&mark);
            let approve = |mark: &str| json!({"approver_mm_user_id": "bob", "approver_email": format!("{mark}@example.com")});
            let path = format!("/requests/{id}/approve");
            if !self.until_taken(&id, &["APPROVED"], &path, approve).await
                || !life.is_multiple_of(5)
            {
                continue;
            }
            let revoke = |mark: &str| json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com", "reason": long(mark)});
            let path = format!("/requests/{id}/revoke");
            self.until_taken(&id, &["REVOKE_REQUESTED", "REVOKED"], &path, revoke)
                .await;
        }
    }

    async fn until_counted(&self, count: &AtomicU64, meanwhile: impl AsyncFn()) {
        let (begun, from) = (Instant::now(), count.load(Ordering::SeqCst));
        while count.load(Ordering::SeqCst) < from + CALLS {
            let (taken, refused) = (&self.taken, &self.refused);
            assert!(
                begun.elapsed() < PATIENCE,
                "too few answers: {taken:?} taken, {refused:?} refused"
            );
            meanwhile().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Writes wait, as they do for an operator's own statement, until most callers wait; then the
/// disk is filled. In the other order it would be the log of spent nonces that finds the disk
/// full, and no write would come as far as SQLite. The statement ends before jit's patience
/// with it does (5 s).
async fn fill_under_waiting_writes(disk: &Disk, database: &Path, crowd: &Crowd) {
    let db = rusqlite::Connection::open(database).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    while crowd.waiting.load(Ordering::SeqCst) < CALLERS * 9 / 10
        && begun.elapsed() < Duration::from_secs(3)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What was just sent has to arrive.
    tokio::time::sleep(Duration::from_millis(500)).await;
    disk.fill();
    db.execute_batch("ROLLBACK").unwrap();
}

/// As long as a reason may be, in characters that are as long as any.
fn long(mark: &str) -> String {
    format!("{mark} {}", "\u{1F525}".repeat(980))
}

/// Waits until no request is in one of these states, for as long as they become fewer.
async fn until_none_is(jit: &Jit, statuses: &[&str]) {
    let db = rusqlite::Connection::open(jit.database()).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    let sql = "SELECT count(*) FROM jit_requests WHERE status = ?1";
    for status in statuses {
        let (mut fewest, mut since) = (i64::MAX, Instant::now());
        loop {
            let count: i64 = db.query_row(sql, [status], |row| row.get(0)).unwrap();
            if count == 0 {
                break;
            }
            if count < fewest {
                (fewest, since) = (count, Instant::now());
            }
            let waited = since.elapsed();
            assert!(waited < 2 * PATIENCE, "{count} are {status} and stay so");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What each caller was told is what is written.
fn is_as_said(rows: &Rows, said: &[Said]) {
    for one in said {
        let written = rows.marks.contains(&one.mark);
        if one.status == 503 {
            assert!(!written, "refused, and written all the same: {one:?}");
            continue;
        }
        assert!(written, "taken, and not written: {one:?}");
        let events = &rows.events[&one.request];
        let is_its = |event: &Value| {
            let kind = event["event_type"].as_str().unwrap();
            one.events.contains(&kind)
                && (kind == "REQUESTED" || event.to_string().contains(&one.mark))
        };
        assert!(
            events.iter().any(is_its),
            "taken, without its event: {one:?} {events:?}"
        );
        assert!(rows.requests.contains_key(&one.request), "{one:?}");
    }
}

/// Every grant and every end was told to the channel.
fn all_was_told(rows: &Rows, channel: &Channel) {
    let mut wanted = Vec::new();
    for id in rows.requests.keys() {
        let kinds = rows.kinds(id);
        for kind in ["GRANTED", "REVOKED"] {
            if kinds.contains(&kind) {
                wanted.push((id.clone(), kind.to_owned()));
            }
        }
    }
    let told = |heard: &[common::Heard]| -> BTreeMap<(String, String), u32> {
        let mut told = BTreeMap::new();
        for body in heard.iter().map(common::Heard::json) {
            let word = |name: &str| body[name].as_str().unwrap().to_owned();
            *told
                .entry((word("request_id"), word("status")))
                .or_default() += 1;
        }
        told
    };
    let heard = channel.heard();
    let told = told(&heard);
    for one in &wanted {
        assert!(told.contains_key(one), "not told: {one:?}");
    }
    for (id, status) in told.keys() {
        assert!(
            rows.kinds(id).contains(&status.as_str()),
            "told and not written: {id} {status}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_on_a_full_disk_is_not_written_and_what_is_taken_is() {
    let disk = Disk::mount("256m");
    let elsewhere = tempfile::tempdir().unwrap();
    let sandbox = elsewhere.path().join("sandbox.db");
    let (channel, clock) = (Channel::open().await, WallClock::new());
    let setup = Setup {
        // AWS's own disk is not full.
        sandbox: format!("path = {:?}", sandbox.display().to_string()),
        webhook: Some(channel.url.clone()),
        variables: clock.variables(),
        ..Setup::default()
    };
    let folder = Arc::new(tempfile::tempdir_in(disk.path()).unwrap());
    let config = setup.write(folder.path());
    let jit = Jit::start_with(folder.clone(), &setup.environment());
    for number in 1..=ACCOUNTS {
        let terms = json!({"channel_id": CHANNEL, "account_id": format!("{number:012}")});
        jit.caller().post("/config/bind", &terms).await.is(200);
    }
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob"]});
    jit.caller()
        .post("/config/approvers", &approvers)
        .await
        .is(200);

    let crowd = Arc::new(Crowd {
        caller: jit.caller().at(&clock),
        stop: AtomicBool::new(false),
        marks: AtomicU64::new(1),
        waiting: AtomicU64::new(0),
        taken: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        said: Mutex::default(),
    });
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(crowd.clone().write(number));
    }
    for round in 0..MOST_ROUNDS {
        let filled = async || {
            fill_under_waiting_writes(&disk, &jit.database(), &crowd).await;
        };
        crowd.until_counted(&crowd.refused, filled).await;
        disk.free();
        crowd.until_counted(&crowd.taken, async || {}).await;
        if round + 1 >= ROUNDS && jit.log().contains(ROLLED_BACK) {
            break;
        }
    }
    crowd.stop.store(true, Ordering::SeqCst);
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }

    // Whatever still stands ends by itself: what was never decided, then the grants, of which
    // some were made only now.
    clock.set(9 * 3600);
    until_none_is(&jit, &["PENDING", "APPROVED"]).await;
    clock.set(18 * 3600);
    until_none_is(&jit, &["GRANTED"]).await;
    let log = jit.log();
    let settled = Instant::now();
    while !Rows::read(&jit.database()).notices.is_empty() {
        assert!(settled.elapsed() < PATIENCE, "notices are left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, _, _folder) = jit.terminate();
    assert!(status.success(), "{log}");

    let rows = Rows::read(&folder.path().join("jit.db"));
    let said = crowd.said.lock().unwrap();
    is_as_said(&rows, &said);
    rows.belong_together();
    let verified = common::binary()
        .args(["audit", "verify", "--config"])
        .arg(&config)
        .output();
    let verified = verified.unwrap();
    assert!(verified.status.success(), "{verified:?}");
    all_was_told(&rows, &channel);
    let sandbox = rusqlite::Connection::open(sandbox).unwrap();
    let left: i64 = sandbox
        .query_row("SELECT count(*) FROM assignments", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0, "access outlived its grant");
    let refusals: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("nothing could be written"))
        .collect();
    assert!(
        log.contains(ROLLED_BACK),
        "no batch was ever full in the middle of a job: {refusals:#?}"
    );
}
