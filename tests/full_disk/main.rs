//! K5, P2: many callers write to the real binary while its disk is filled and freed. The store
//! contains nothing of a refused call and everything of an accepted one, and jit continues without
//! a restart.
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

use common::wall_clock::WallClock;
use common::{CHANNEL, Caller, Channel, Jit, Reply, Setup, TIMEOUT, wanted};
use disk::Disk;
use rows::Rows;
use serde_json::{Value, json};

/// Enough callers that one batch of writes is larger than SQLite's page cache: then SQLite writes
/// to the disk in the middle of a batch, and rolls the batch back there.
const CALLERS: u64 = 480;
/// Operations in one account run one after the other.
const ACCOUNTS: u64 = 40;
const ROUNDS: u32 = 2;
/// SQLite decides when it writes in the middle of a batch: the test repeats rounds until it has.
const MOST_ROUNDS: u32 = 40;
/// This number of calls is refused while the disk is full, and accepted while it is not.
const CALLS: u64 = 200;
const ROLLED_BACK: &str = "SQLite rolled the whole batch back by itself";

/// One answered call.
#[derive(Debug)]
struct Said {
    /// A text that only this call contains.
    mark: String,
    /// An accepted call makes one of these events.
    events: &'static [&'static str],
    request: String,
    status: u16,
}

/// Callers that write until they are told to stop.
struct Writers {
    caller: Caller,
    stop: AtomicBool,
    marks: AtomicU64,
    /// Calls without an answer so far.
    waiting: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
    said: Mutex<Vec<Said>>,
}

impl Writers {
    fn new(caller: Caller) -> Self {
        Self {
            caller,
            stop: AtomicBool::new(false),
            marks: AtomicU64::new(1),
            waiting: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            said: Mutex::default(),
        }
    }

    fn mark(&self) -> String {
        format!("mark-{:06}", self.marks.fetch_add(1, Ordering::SeqCst))
    }

    /// Returns `None` if the connection was closed without an answer, as an idle one can be when it
    /// is used again: whether jit accepted the call is not known.
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

    /// Repeats a call until it is accepted, with a new signature and a new mark each time.
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

    /// Makes requests one after the other, approves all of them and revokes every fifth.
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
                begun.elapsed() < TIMEOUT,
                "too few answers: {taken:?} accepted, {refused:?} refused"
            );
            meanwhile().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Holds the write lock, as an operator's statement does, until most callers wait; then fills the
/// disk. In the other order, the write to the log of spent nonces would fail, and no write would
/// reach SQLite. The statement ends within the five seconds that jit waits for it.
async fn fill_under_waiting_writes(disk: &Disk, database: &Path, writers: &Writers) {
    let db = rusqlite::Connection::open(database).unwrap();
    db.busy_timeout(TIMEOUT).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    while writers.waiting.load(Ordering::SeqCst) < CALLERS * 9 / 10
        && begun.elapsed() < Duration::from_secs(3)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The calls that were just sent need time to arrive.
    tokio::time::sleep(Duration::from_millis(500)).await;
    disk.fill();
    db.execute_batch("ROLLBACK").unwrap();
}

/// A reason of the greatest length, in characters of the greatest length.
fn long(mark: &str) -> String {
    format!("{mark} {}", "\u{1F525}".repeat(980))
}

/// Waits until no request has one of these statuses, as long as their number falls.
async fn until_none_is(jit: &Jit, statuses: &[&str]) {
    let db = rusqlite::Connection::open(jit.database()).unwrap();
    db.busy_timeout(TIMEOUT).unwrap();
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
            assert!(waited < 2 * TIMEOUT, "{count} requests stay {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The store agrees with the answer to each call.
fn is_as_said(rows: &Rows, said: &[Said]) {
    for one in said {
        let written = rows.marks.contains(&one.mark);
        if one.status == 503 {
            assert!(!written, "refused, but in the store: {one:?}");
            continue;
        }
        assert!(written, "accepted, but not in the store: {one:?}");
        let events = &rows.events[&one.request];
        let is_its = |event: &Value| {
            let kind = event["event_type"].as_str().unwrap();
            one.events.contains(&kind)
                && (kind == "REQUESTED" || event.to_string().contains(&one.mark))
        };
        assert!(
            events.iter().any(is_its),
            "accepted, but without its event: {one:?} {events:?}"
        );
        assert!(rows.requests.contains_key(&one.request), "{one:?}");
    }
}

/// The receiver got a notice of every grant and every end.
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
    let heard = channel.received();
    let told = told(&heard);
    for one in &wanted {
        assert!(told.contains_key(one), "no notice: {one:?}");
    }
    for (id, status) in told.keys() {
        assert!(
            rows.kinds(id).contains(&status.as_str()),
            "a notice, but not in the store: {id} {status}"
        );
    }
}

async fn bind_accounts(caller: &Caller) {
    for number in 1..=ACCOUNTS {
        let terms = json!({"channel_id": CHANNEL, "account_id": format!("{number:012}")});
        caller.post("/config/bind", &terms).await.is(200);
    }
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob"]});
    caller.post("/config/approvers", &approvers).await.is(200);
}

/// Fills and frees the disk in rounds, while all callers write.
async fn write_while_the_disk_fills(writers: &Arc<Writers>, disk: &Disk, jit: &Jit) {
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(writers.clone().write(number));
    }
    for round in 0..MOST_ROUNDS {
        let filled = async || {
            fill_under_waiting_writes(disk, &jit.database(), writers).await;
        };
        writers.until_counted(&writers.refused, filled).await;
        disk.free();
        writers.until_counted(&writers.taken, async || {}).await;
        if round + 1 >= ROUNDS && jit.log().contains(ROLLED_BACK) {
            break;
        }
    }
    writers.stop.store(true, Ordering::SeqCst);
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
}

async fn until_all_is_delivered(jit: &Jit) {
    let settled = Instant::now();
    while !Rows::read(&jit.database()).notices.is_empty() {
        assert!(settled.elapsed() < TIMEOUT, "notices remain undelivered");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_refused_calls_write_nothing_and_accepted_calls_are_stored() {
    let disk = Disk::mount("256m");
    let elsewhere = tempfile::tempdir().unwrap();
    let sandbox = elsewhere.path().join("sandbox.db");
    let (channel, clock) = (Channel::open().await, WallClock::new());
    let setup = Setup {
        // The sandbox keeps its state on another disk.
        sandbox: format!("path = {:?}", sandbox.display().to_string()),
        webhook: Some(channel.url.clone()),
        variables: clock.variables(),
        ..Setup::default()
    };
    let folder = Arc::new(tempfile::tempdir_in(disk.path()).unwrap());
    let config = setup.write(folder.path());
    // The calls of this test shall meet the limit of the disk, not the rate of a key.
    let mut environment = setup.environment();
    environment.push(("JIT_SERVER__CREATE_BURST", "1000000".into()));
    let jit = Jit::start_with(folder.clone(), &environment);
    bind_accounts(&jit.caller()).await;
    let writers = Arc::new(Writers::new(jit.caller().at(&clock)));
    write_while_the_disk_fills(&writers, &disk, &jit).await;

    // The rest ends by time: first the undecided requests, then the grants, some of which were made
    // only now.
    clock.set(9 * 3600);
    until_none_is(&jit, &["PENDING", "APPROVED"]).await;
    clock.set(18 * 3600);
    until_none_is(&jit, &["GRANTED"]).await;
    let log = jit.log();
    until_all_is_delivered(&jit).await;
    let (status, _, _folder) = jit.terminate();
    assert!(status.success(), "{log}");

    let rows = Rows::read(&folder.path().join("jit.db"));
    let said = writers.said.lock().unwrap();
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
    assert_eq!(left, 0, "assignments exist after their grants");
    let refusals: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("a batch of writes to the store failed"))
        .collect();
    assert!(
        log.contains(ROLLED_BACK),
        "the disk was never full in the middle of a batch: {refusals:#?}"
    );
}
