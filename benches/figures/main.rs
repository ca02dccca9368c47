//! Measures the release binary, each figure together with its reference from the same run. A
//! missed aim is printed as MISSED, and the run exits with 1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // the figures use a part of it
#[path = "../../tests/common/aws/mod.rs"]
mod aws;
#[allow(dead_code)] // the figures use a part of it
#[path = "../../tests/common/chat/mod.rs"]
mod chat;
mod clicks;
mod dynamo;
#[path = "../../tests/common/fixtures.rs"]
mod fixtures;
mod lambda;
mod load;
mod overload;
mod process;
mod quota;
mod raw;
mod stock;
#[path = "../../tests/common/dynamo/mod.rs"]
mod tables;
#[path = "../../tests/common/wire.rs"]
mod wire;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use load::Load;
use process::Process;

const TIMEOUT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// More calls than the clients send in one round.
const READS: usize = 240_000;
const CREATES: usize = 36_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if arguments.get(1).is_some_and(|word| word == "--echo") {
        runtime.block_on(process::echo(&arguments[2]));
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    let only = arguments.iter().skip(1).find(|word| !word.starts_with('-'));
    runtime.block_on(all(&mut report, only.map(String::as_str)));
    if report.missed > 0 {
        println!(
            "\n{} of the figures that must be reached were missed",
            report.missed
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Report {
    missed: u32,
}

impl Report {
    fn tell(&self, name: &str, figure: &str) {
        println!("{name:<52} {figure}");
    }

    /// Prints a figure that must reach its aim.
    fn hold(&mut self, name: &str, figure: &str, reached: bool, aim: &str) {
        let word = if reached { "reached" } else { "MISSED" };
        self.missed += u32::from(!reached);
        println!("{name:<52} {figure:<26} {word} ({aim})");
    }
}

/// Runs all measurements, or the one with this name.
async fn all(report: &mut Report, only: Option<&str>) {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    if wanted("start") {
        start(report).await;
    }
    if wanted("reads") {
        reads(report).await;
    }
    if wanted("creates") {
        creates(report).await;
    }
    if wanted("lives") {
        lives(report).await;
    }
    if wanted("revokes") {
        revokes(report).await;
    }
    if wanted("clicks") {
        clicks::until_the_card_shows_it(report).await;
    }
    if wanted("grants") {
        many_grants(report).await;
    }
    if wanted("overload") {
        overload::held_connections(report).await;
        overload::one_key(report).await;
        overload::one_person(report).await;
    }
    if wanted("lambda") {
        lambda::cold_start(report).await;
    }
    if wanted("dynamodb") {
        dynamo::beside_sqlite(report).await;
    }
    if wanted("quota") {
        quota::many_ends(report).await;
        quota::many_ends_beside_stuck_operations(report).await;
    }
}

fn nonce() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1000.0)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The rates of a reference and of jit, each pair measured directly one after the other: other work
/// on the machine slows both.
#[derive(Default)]
struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    fn median_of(&self, figure: impl Fn(&(f64, f64)) -> f64) -> f64 {
        median(self.0.iter().map(figure).collect())
    }

    /// The rate of jit as a part of the rate of the reference.
    fn ratio(&self) -> f64 {
        self.median_of(|(reference, jit)| jit / reference)
    }

    fn tell(&self) -> (String, String) {
        let reference = format!("{:.0}/s", self.median_of(|pair| pair.0));
        (reference, format!("{:.0}/s", self.median_of(|pair| pair.1)))
    }
}

async fn start(report: &mut Report) {
    let mut starts = Vec::new();
    let mut resident = 0;
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let jit = Process::jit(folder.path(), 300);
        jit.first_answer().await;
        starts.push(begun.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(500)).await;
        resident = jit.resident_kib();
    }
    let start = median(starts) * 1000.0;
    report.hold(
        "start to first answer",
        &format!("{start:.0} ms"),
        start < 100.0,
        "under 100 ms",
    );
    report.hold(
        "idle memory",
        &format!("{:.1} MiB", resident as f64 / 1024.0),
        resident < 30 * 1024,
        "under 30 MiB",
    );
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_jit")).unwrap().len();
    report.tell("binary", &format!("{:.1} MiB", size as f64 / 1048576.0));
}

/// Compares signed reads with a handler that only returns the same bytes.
async fn reads(report: &mut Report) {
    let mut pairs = Pairs::default();
    for _ in 0..ROUNDS {
        // A new process for each round: the calls of several would reach the limit of a key.
        let folder = tempfile::tempdir().unwrap();
        let jit = Process::jit(folder.path(), 0);
        let path = format!("/requests/{}", jit.one_request().await);
        let echo = Process::echo(&jit.get(&path).await);
        let calls = load::signed_gets(&path, CLIENTS, READS);
        let bare = Load::run(&echo.address, calls, ROUND).await;
        let calls = load::signed_gets(&path, CLIENTS, READS);
        let signed = Load::run(&jit.address, calls, ROUND).await;
        assert_eq!(signed.failed, 0, "signed reads failed");
        pairs.0.push((bare.rate(), signed.rate()));
    }
    let (bare, signed) = pairs.tell();
    report.tell("bare axum, the same bytes", &bare);
    report.hold(
        "signed reads",
        &format!("{signed}, {:.0} % of bare", pairs.ratio() * 100.0),
        pairs.ratio() >= 0.6,
        "at least 60 %",
    );
}

/// Compares durable signed creates with group-committed inserts of the same bytes.
async fn creates(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let jit = Process::jit(folder.path(), 0);
    jit.bind().await;
    let bytes = stock::bytes_of_a_create();
    let (mut pairs, mut took) = (Pairs::default(), Vec::new());
    for round in 0..ROUNDS {
        let file = folder.path().join(format!("raw{round}.db"));
        let raw = raw::inserts(&file, bytes, CLIENTS, ROUND).await;
        let numbers = round * CREATES..(round + 1) * CREATES;
        let calls = load::signed_creates(CLIENTS, numbers);
        let created = Load::run(&jit.address, calls, ROUND).await;
        assert_eq!(created.failed, 0, "creates failed");
        pairs.0.push((raw, created.rate()));
        took.extend(created.took);
    }
    let (raw, created) = pairs.tell();
    report.tell(
        "raw SQLite, group-committed, the same bytes",
        &format!("{raw} ({bytes} bytes each)"),
    );
    report.hold(
        "durable signed creates, 64 clients",
        &format!("{created}, {:.0} % of raw", pairs.ratio() * 100.0),
        pairs.ratio() >= 0.5,
        "at least 50 %",
    );
    let (p50, p99) = load::percentiles(took);
    report.hold(
        "a create, p50 and p99",
        &format!("{} and {}", millis(p50), millis(p99)),
        p99 < 10 * p50,
        "p99 under 10 × p50",
    );
}

/// Repeats request → approve → granted → revoke with 64 clients at once.
async fn lives(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let jit = Process::jit(folder.path(), 0);
    jit.bind().await;
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let caller = jit.caller();
        clients.spawn(async move {
            let mut lived = Vec::new();
            for turn in 0..4 {
                let begun = Instant::now();
                caller.live(client * 100 + turn).await;
                lived.push(begun.elapsed());
            }
            lived
        });
    }
    let mut lived: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    let rate = lived.len() as f64 / begun.elapsed().as_secs_f64();
    lived.sort();
    let (p50, p99) = (lived[lived.len() / 2], lived[lived.len() * 99 / 100]);
    report.tell(
        "whole lives, 64 clients, an AWS that takes no time",
        &format!("{rate:.0}/s, p50 {}, p99 {}", millis(p50), millis(p99)),
    );
}

/// Measures the time from the end of the simulated AWS operation to the answer to the revoke.
async fn revokes(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    // The operation ends just after a poll, which is the worst case.
    let jit = Process::jit(folder.path(), 1010);
    jit.bind().await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let caller = jit.caller();
        clients.spawn(async move {
            let mut answered = Vec::new();
            for turn in 0..4 {
                answered.push(caller.live(client * 100 + turn).await);
            }
            answered
        });
    }
    let answered: Vec<(String, i64)> = clients.join_all().await.into_iter().flatten().collect();
    let mut late = stock::after_removal(folder.path(), &answered);
    late.sort_unstable();
    let (p50, p99) = (late[late.len() / 2], late[late.len() * 99 / 100]);
    report.hold(
        "revoke answered after AWS finished",
        &format!("p50 {p50} ms, p99 {p99} ms"),
        p99 <= 300,
        "p99 within 300 ms",
    );
}

/// Measures the idle load with many live grants, and how late their expiries begin.
async fn many_grants(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let ending = stock::of_grants(folder.path(), 10_000, 20).await;
    let jit = Process::jit(folder.path(), 300);
    jit.first_answer().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = jit.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Ticks are hundredths of a second.
    let busy = (jit.cpu_ticks() - before) as f64 / 500.0 * 100.0;
    report.hold(
        "idle with 10,000 live grants",
        &format!("{busy:.1} % of a core"),
        busy < 1.0,
        "about nothing",
    );
    let late = stock::lateness(folder.path(), &ending).await;
    report.hold(
        "expiry begun after end_time, 10,000 live grants",
        &format!("worst of {}: {late} ms", ending.len()),
        late < 1000,
        "within 1 s",
    );
}
