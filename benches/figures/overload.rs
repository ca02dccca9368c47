//! Measures callers that hold connections open or send as much as they can: what they cost the
//! others.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::load::{self, Load};
use crate::process::{Caller, OTHER_KEY, PLUGIN, Process, wanted};
use crate::{CLIENTS, Report, millis};

/// A1: heads whose bodies never arrive.
const HALF_OPEN: usize = 1_200;
/// A2: connections with heads that never end.
const UNFINISHED: usize = 1_500;
const REVOKES: usize = 100;
/// The default of `policy.max_pending_requests`.
const MOST_PENDING: usize = 500;
const PAIRS: usize = 1_500;
const OVERLOAD: Duration = Duration::from_secs(60);

pub async fn held_connections(report: &mut Report) {
    rlimit::increase_nofile_limit(8_192).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let jit = Process::jit(folder.path(), 0);
    jit.bind().await;
    let caller = jit.caller();
    let idle = revokes(&caller, 0).await;
    let head = load::http("POST", "/requests", "{}", &PLUGIN);
    let head = head.strip_suffix(b"{}").unwrap();
    let held = sockets(&jit, HALF_OPEN, head).await;
    let beside = revokes(&caller, REVOKES).await;
    drop(held);
    report.hold(
        "A1: a revoke beside 1,200 calls without bodies, p99",
        &format!("{}, {} idle", millis(beside), millis(idle)),
        beside <= 2 * idle,
        "at most 2 × idle",
    );
    // A head that jit refuses, and the largest that it waits for.
    for bytes in [395_000, 32_000] {
        let filling = "x".repeat(bytes);
        let head = format!("GET /healthz HTTP/1.1\r\nHost: jit\r\nx: {filling}");
        let held = sockets(&jit, UNFINISHED, head.as_bytes()).await;
        jit.first_answer().await;
        drop(held);
    }
    let most = jit.peak_kib() / 1024;
    report.hold(
        "A2: memory beside 1,500 unfinished heads, peak",
        &format!("{most} MiB"),
        most < 100,
        "under 100 MiB",
    );
}

/// A6: one key sends creates with 64 clients for a minute, and another key asks for access and
/// revokes it.
pub async fn one_key(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let jit = Process::jit(folder.path(), 0);
    jit.bind().await;
    let other = jit.caller_with(&OTHER_KEY);
    let idle = revokes(&other, 0).await;
    let calls = load::endless_creates(CLIENTS);
    let address = jit.address.clone();
    let mut loads = tokio::task::JoinSet::new();
    loads.spawn(async move { Load::run(&address, calls, OVERLOAD).await });
    let mut worst = Duration::ZERO;
    let mut first = REVOKES;
    let load = loop {
        worst = worst.max(revokes(&other, first).await);
        first += REVOKES;
        if let Some(load) = loads.try_join_next() {
            break load.unwrap();
        }
    };
    report.hold(
        "A6: a revoke of one key while another overloads, p99",
        &format!("{}, {} idle", millis(worst), millis(idle)),
        worst <= 3 * idle,
        "at most 3 × idle",
    );
    let size = std::fs::metadata(folder.path().join("jit.db"))
        .unwrap()
        .len();
    let (rate, size) = (load.rate(), size / 1_048_576);
    let refused = load.failed;
    report.tell(
        "A6: the calls of that key",
        &format!("{rate:.0}/s, {refused} refused, {size} MiB stored"),
    );
}

/// A8: one person has as many PENDING requests as the limit allows, and a key makes and cancels one
/// more again and again. The cost of a pair must not grow with their number.
pub async fn one_person(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let jit = Process::jit(folder.path(), 0);
    jit.bind().await;
    let caller = jit.caller();
    for _ in 1..MOST_PENDING {
        caller.post("/requests", &wanted(0)).await;
    }
    let pairs = async || {
        let begun = Instant::now();
        for _ in 0..PAIRS {
            let made = caller.post("/requests", &wanted(0)).await;
            let id = made["request_id"].as_str().unwrap();
            let path = format!("/requests/{id}/cancel");
            let user = json!({"actor_mm_user_id": "user0", "actor_email": "user0@example.com"});
            let done = caller.post(&path, &user).await;
            assert_eq!(done["status"], "CANCELLED", "{done}");
        }
        begun.elapsed()
    };
    let first = pairs().await;
    pairs().await;
    let third = pairs().await;
    report.hold(
        "A8: 1,500 requests made and cancelled at the limit of one person, third time",
        &format!("{}, {} the first time", millis(third), millis(first)),
        third <= first.mul_f64(1.5),
        "at most 1.5 × the first time",
    );
}

/// The time of the revokes of new requests: their p99.
async fn revokes(caller: &Caller, first: usize) -> Duration {
    let mut took = Vec::new();
    for number in first..first + REVOKES {
        let id = caller.granted(number).await;
        let begun = Instant::now();
        caller.revoke(&id).await;
        took.push(begun.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

async fn sockets(jit: &Process, count: usize, begun: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(&jit.address).await.unwrap();
        // jit may close a socket while it is written to.
        socket.write_all(begun).await.ok();
        open.push(socket);
    }
    open
}
