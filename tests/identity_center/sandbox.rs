//! The simulated Identity Center: the common properties, its faults and its state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jit::domain::{Millis, Presence};
use jit::identity_center::sandbox::{Rates, Sandbox, SandboxOptions, Standing};
use jit::identity_center::{
    Deletion, IdentityCenter, IdentityCenterErrorKind, Progress, UserAttribute,
};

use crate::conformance::{self, Center, email, key, look, remove, user};
use crate::test_clock::TestClock;

const LATENCY: Millis = Millis(300);

struct Simulated {
    sandbox: Sandbox,
    test_clock: TestClock,
}

impl Center for Simulated {
    fn access(&self) -> &dyn IdentityCenter {
        &self.sandbox
    }

    fn let_time_pass(&self) {
        self.test_clock.pass(LATENCY);
    }
}

fn options() -> SandboxOptions {
    SandboxOptions {
        latency: LATENCY,
        users: ["alice", "bob", "twin", "twin"].map(email).into(),
        ..SandboxOptions::default()
    }
}

fn open(options: SandboxOptions) -> Simulated {
    let test_clock = TestClock::default();
    let sandbox = Sandbox::open(options, Arc::new(test_clock.clone())).unwrap();
    Simulated {
        sandbox,
        test_clock,
    }
}

fn with(rates: Rates, seed: u64) -> Simulated {
    let options = options();
    open(SandboxOptions {
        rates,
        seed,
        ..options
    })
}

fn at(path: &Path, test_clock: &TestClock) -> Simulated {
    let options = SandboxOptions {
        path: Some(path.into()),
        ..options()
    };
    Simulated {
        sandbox: Sandbox::open(options, Arc::new(test_clock.clone())).unwrap(),
        test_clock: test_clock.clone(),
    }
}

#[tokio::test]
async fn the_sandbox_passes_the_identity_center_conformance_tests() {
    conformance::all(async || open(options())).await;
}

#[tokio::test]
async fn the_sandbox_with_a_file_passes_the_identity_center_conformance_tests() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = async || {
        let place = tempfile::tempdir_in(dir.path()).unwrap().keep();
        at(&place.join("aws.db"), &TestClock::default())
    };
    conformance::all(fresh).await;
}

#[tokio::test]
async fn a_missing_assignment_is_reported_in_both_ways() {
    let center = open(options());
    let (mut at_once, mut later) = (0, 0);
    for account in 1..=50 {
        let key = key(center.access(), account, "admin").await;
        match center.access().delete(&key).await.unwrap() {
            Deletion::NothingThere => at_once += 1,
            Deletion::Started(_) => later += 1,
        }
    }
    assert!(at_once > 5 && later > 5, "{at_once} and {later}");
}

/// The results of a hundred creates and removals.
async fn outcomes(center: &Simulated) -> Vec<String> {
    let key = loop {
        // A look-up that was lost or throttled is repeated, as a worker does.
        let (access, alice) = (center.access(), email("alice"));
        let found = access.find_user(&alice, UserAttribute::Email);
        if found.await.is_ok() {
            let calm = open(options());
            break key(calm.access(), 1, "admin").await;
        }
    };
    let mut seen = Vec::new();
    for turn in 0..200 {
        let accepted = match turn % 2 {
            0 => center.access().create(&key).await.map(Deletion::Started),
            _ => center.access().delete(&key).await,
        };
        center.let_time_pass();
        seen.push(match accepted {
            Err(error) => format!("{:?}", error.kind),
            Ok(Deletion::NothingThere) => "NothingThere".into(),
            Ok(Deletion::Started(operation)) => match center.access().poll(&operation).await {
                Ok(Progress::Failed { .. }) => "Failed".into(),
                Ok(progress) => format!("{progress:?}"),
                Err(error) => format!("poll: {:?}", error.kind),
            },
        });
    }
    seen
}

fn count(seen: &[String]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for one in seen {
        *counted.entry(one.as_str()).or_default() += 1;
    }
    counted
}

#[tokio::test]
async fn each_fault_occurs_only_when_configured() {
    let rates: [(Rates, &str); 4] = [
        (
            Rates {
                conflict: 0.3,
                ..Rates::default()
            },
            "Conflict",
        ),
        (
            Rates {
                throttle: 0.3,
                ..Rates::default()
            },
            "Throttled",
        ),
        (
            Rates {
                fail: 0.3,
                ..Rates::default()
            },
            "Failed",
        ),
        (
            Rates {
                lost: 0.3,
                ..Rates::default()
            },
            "NoAnswer",
        ),
    ];
    for (asked, fault) in rates {
        let seen = outcomes(&with(asked, 7)).await;
        let counted = count(&seen);
        assert!(counted[fault] > 20, "{fault}: {counted:?}");
        for (_, other) in rates.iter().filter(|(_, other)| *other != fault) {
            assert!(!counted.contains_key(other), "{fault}: {counted:?}");
        }
    }
    let calm = outcomes(&open(options())).await;
    assert_eq!(count(&calm), BTreeMap::from([("Succeeded", 200)]));
}

#[tokio::test]
async fn the_same_seed_makes_the_same_faults() {
    let all = Rates {
        conflict: 0.2,
        throttle: 0.2,
        fail: 0.2,
        lost: 0.2,
    };
    let first = outcomes(&with(all, 1)).await;
    assert_eq!(outcomes(&with(all, 1)).await, first);
    assert_ne!(outcomes(&with(all, 2)).await, first);
}

/// A call whose answer was lost may or may not have been carried out.
#[tokio::test]
async fn a_call_without_an_answer_is_sometimes_carried_out() {
    let rates = Rates {
        lost: 1.0,
        ..Rates::default()
    };
    let (mut there, mut not_there) = (0, 0);
    let calm = open(options());
    let key = key(calm.access(), 1, "admin").await;
    for seed in 0..40 {
        let center = with(rates, seed);
        let Err(error) = center.access().create(&key).await else {
            continue;
        };
        assert_eq!(error.kind, IdentityCenterErrorKind::NoAnswer);
        center.let_time_pass();
        match center.sandbox.assignments().unwrap().len() {
            0 => not_there += 1,
            _ => there += 1,
        }
    }
    assert!(there > 5 && not_there > 5, "{there} and {not_there}");
}

#[tokio::test]
async fn the_sandbox_keeps_its_state_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("aws.db");
    let test_clock = TestClock::default();
    let center = at(&path, &test_clock);
    let key = key(center.access(), 1, "admin").await;
    let making = center.access().create(&key).await.unwrap();
    drop(center);
    // The operation continues while no process runs, and can still be polled.
    test_clock.pass(LATENCY);
    let center = at(&path, &test_clock);
    assert_eq!(center.access().poll(&making).await, Ok(Progress::Succeeded));
    assert_eq!(look(center.access(), &key).await, Ok(Presence::Present));
    drop(center);
    let center = at(&path, &test_clock);
    assert_eq!(
        center.sandbox.assignments().unwrap(),
        std::slice::from_ref(&key)
    );
    assert_eq!(remove(&center, &key).await, Progress::Succeeded);
    drop(center);
    assert_eq!(at(&path, &test_clock).sandbox.assignments().unwrap(), []);
}

#[tokio::test]
async fn configured_assignments_exist_from_the_start() {
    let standing = Standing {
        account_id: "000000000001".parse().unwrap(),
        permission_set: "admin".parse().unwrap(),
        email: email("alice"),
    };
    let center = open(SandboxOptions {
        standing: vec![standing],
        ..options()
    });
    let there = key(center.access(), 1, "admin").await;
    let not_there = key(center.access(), 1, "readonly").await;
    assert_eq!(look(center.access(), &there).await, Ok(Presence::Present));
    assert_eq!(
        look(center.access(), &not_there).await,
        Ok(Presence::Absent)
    );
}

#[tokio::test]
async fn without_a_list_of_users_every_user_exists() {
    let center = open(SandboxOptions::default());
    let anyone = user(center.access(), "anyone").await;
    assert_eq!(anyone, center.sandbox.user_id(&email("anyone")));
}

/// F1: a server and a command of an operator use one file at the same time.
#[tokio::test]
async fn f1_two_processes_on_one_file_use_different_operation_ids() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let path = dir.path().join("center");
    let (first, second) = (at(&path, &clock), at(&path, &clock));
    let keys = (
        key(first.access(), 1, "admin").await,
        key(second.access(), 2, "admin").await,
    );
    let one = first.access().create(&keys.0).await.unwrap();
    let other = second.access().create(&keys.1).await.unwrap();
    assert_ne!(one.id, other.id);
}
