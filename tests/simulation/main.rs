//! The engine itself (domain, service, worker, outbox and the loops of production) in a world that
//! one seed decides: its processes and their clocks, its store, its Identity Center and the network
//! to it, its receiver, its operators, and all faults.
//!
//! A world runs a list of operations and checks the promises after every step of every task, and
//! once more after all work has ended. A failure is: a broken promise, a request that never ends,
//! access that outlives its grant, a due record that is not tried, a stuck request that is not shown
//! as stuck, a notice that is lost, late or out of order. An error that tells the caller to try again is
//! no failure.
//!
//! A seed decides:
//!
//! | by | what |
//! |---|---|
//! | `seed % 24` | the families of faults (`plan.rs`): 0 none, 1–12 each alone, 13–21 some together, 22 all but clocks and freezes, 23 all |
//! | `seed / 24 % 5` | with `deaf`: which receiver gets no notices, and whether it refuses or hangs; 4 both |
//! | `seed % 3` | lost calls to the store, AWS and the receiver: 0 none, 1 one in 60, 2 one in 25 |
//! | `seed % 4` | the pace of jit: 1 one call a second, 3 ten, else no limit |
//! | `seed % 5` | 0: AWS gives every list in pages of one |
//! | `seed % 6` | 5: AWS fails most operations, so that jit gives up grants |
//! | `seed % 7` | 2: jit also ends sessions |
//! | `seed % 11` | 0–3: jit sends reminders |
//! | `seed % 17` | 0–4: an extension needs no approval |
//! | `seed % 13` | 0–3: one process, else two |
//! | `seed % 19` | 0–5: jit also shows cards, so that it merges and parks notices |
//!
//! `JIT_SIM_SEEDS` is the number of seeds, from `JIT_SIM_FIRST` on, on all cores. `JIT_SIM_FAULTS`
//! replaces the families of the seeds: `none`, `all`, `wire,stop`. `JIT_SIM_ALL=1` lists every seed
//! that breaks a promise, and not only the first.
//!
//! The simulation does not freeze a process between the decision to call AWS and the moment at which
//! the call is in flight, because there is no await between the two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod aws;
mod check;
mod clock;
mod event_log;
mod executor;
mod faults;
#[path = "../common/fixtures.rs"]
mod fixtures;
mod flaky;
#[path = "../store/memory.rs"]
mod memory;
mod metrics_shown;
mod operators;
mod people;
mod plan;
mod receivers;
mod replica;
mod rules;
mod told;
mod tries;
mod watch;
mod wire;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::{Fault, Plan, faults_named};
use world::{Broken, Passed, run};

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn only() -> Option<Vec<Fault>> {
    let names = std::env::var("JIT_SIM_FAULTS").ok()?;
    Some(faults_named(&names))
}

fn play(seed: u64) -> Result<Passed, Broken> {
    run(Plan::of(seed, only().as_deref()))
}

/// Runs seeds on all cores. Returns the failures: the first alone, or all of them.
fn play_many(first: u64, count: u64, wants_all: bool) -> BTreeMap<u64, Broken> {
    let next = AtomicU64::new(first);
    let lowest = AtomicU64::new(u64::MAX);
    let (broken, polls) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = !wants_all && seed > lowest.load(Ordering::Relaxed);
                    if seed >= first + count || is_late {
                        return;
                    }
                    match play(seed) {
                        Ok(passed) => drop(polls.fetch_add(passed.polls, Ordering::Relaxed)),
                        Err(found) => {
                            lowest.fetch_min(seed, Ordering::Relaxed);
                            broken.lock().unwrap().insert(seed, found);
                        }
                    }
                }
            });
        }
    });
    eprintln!("{count} seeds from {first}: {} polls", polls.into_inner());
    broken.into_inner().unwrap()
}

// P1, P2, P3, P4, P5, P6, P7, P8; G3, G4, G5, G6, G8, G9, G13, N1, E1, E2, E3, E4, E5, E6, T1, T2, T3, T12
#[test]
fn no_seed_breaks_a_promise() {
    let wants_all = number("JIT_SIM_ALL", 0) > 0;
    let (first, count) = (number("JIT_SIM_FIRST", 0), number("JIT_SIM_SEEDS", 500));
    let broken = play_many(first, count, wants_all);
    if wants_all {
        for (seed, found) in &broken {
            eprintln!("seed {seed}: {}", found.promise);
        }
    }
    if let Some((seed, found)) = broken.first_key_value() {
        let (promise, event_log) = (&found.promise, &found.event_log);
        panic!("seed {seed}: {promise}\n\n{event_log}\nseed {seed}: {promise}");
    }
}

#[test]
fn the_same_seed_makes_the_same_event_log() {
    for seed in [3, 17, 21, 22, 99] {
        let told = || match play(seed) {
            Ok(passed) => passed.event_log.to_string(),
            Err(broken) => format!("{}\n{}", broken.event_log, broken.promise),
        };
        assert_eq!(told(), told(), "seed {seed}");
    }
}

const EVENT_KINDS: [&str; 21] = [
    "REQUESTED",
    "APPROVED",
    "DENIED",
    "CANCELLED",
    "ASSIGNING",
    "GRANTED",
    "REVOKED",
    "EXPIRED",
    "ERROR",
    "REVOKE_REQUESTED",
    "EXPIRY_STARTED",
    "ROLLBACK_STARTED",
    "REMOVAL_FAILING",
    "EXTENSION_REQUESTED",
    "EXTENDED",
    "END_ANNOUNCED",
    "CLEANED_UP",
    "SESSIONS_DENIED",
    "SESSION_DENY_LIFTED",
    "STRAY_ACCESS_FOUND",
    "STRAY_ACCESS_REMOVED",
];

/// The simulation must reach every kind of event.
#[test]
fn every_kind_of_event_occurs() {
    let mut missing = BTreeSet::from(EVENT_KINDS);
    for seed in 0..600 {
        let faults: &[Fault] = match seed % 2 {
            0 => &[Fault::Operators],
            _ => &[Fault::Wire, Fault::Freeze, Fault::Operators],
        };
        let plan = Plan::of(seed, Some(faults));
        if let Ok(passed) = run(plan) {
            missing.retain(|kind| !passed.kinds.contains(*kind));
        }
        if missing.is_empty() {
            return;
        }
    }
    panic!("no seed reaches {missing:?}");
}
