//! `jit break-glass` for a person: no false all-clear, and nothing that is granted later.

use jit::clock::{Clock, SystemClock};
use jit::domain::Millis;

use crate::common::{ACCOUNT, Setup, binary};
use crate::{ASKING, Ran, Shell};

const REASON: [&str; 4] = ["--reason", "laptop stolen", "--as", "sec@example.com"];

fn break_glass(shell: &Shell, what: &[&str]) -> Ran {
    let words = ["break-glass", "revoke"].iter().chain(what).chain(&REASON);
    shell.run(&words.copied().collect::<Vec<_>>())
}

/// H1: a name that is not known is no all-clear.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_with_an_unknown_name_exits_with_3() {
    for users in ["", "users = [\"alice@example.com\", \"bob@example.com\"]"] {
        let sandbox = users.to_owned();
        let shell = Shell::with(&Setup {
            sandbox,
            more: format!("[accounts]\n{ACCOUNT} = \"acme-prod\""),
            ..Setup::default()
        });
        shell.bind();
        let id = shell.granted().await;
        break_glass(&shell, &["--user", "alcie@example.com", "--yes"])
            .exits(3)
            .prints(&[
                "no user alcie@example.com is known",
                "nearest: alice@example.com",
            ]);
        let alice = ["--user", "alice@example.com", "--yes"];
        let set: Vec<&str> = [&alice[..], &["--permission-set", "amdin"]].concat();
        break_glass(&shell, &set)
            .exits(3)
            .prints(&["no permission set amdin is known", "nearest: admin"]);
        break_glass(&shell, &["--account", "999988887777", "--yes"])
            .exits(3)
            .prints(&["no account 999988887777 is known"]);
        // H1: a misspelt name of an account was wrong usage, with exit code 2.
        for (word, nearest) in [("acme-prdo", "nearest: acme-prod"), ("12345", "12 digits")] {
            break_glass(&shell, &["--account", word, "--yes"])
                .exits(3)
                .prints(&[word, nearest, "nothing was changed"]);
        }
        assert_eq!(shell.json(&["status", &id])["status"], "GRANTED");
        break_glass(&shell, &alice).exits(0).prints(&[
            &id,
            "REVOKED",
            "AWS shows no access of alice@example.com",
        ]);
        break_glass(&shell, &alice)
            .exits(0)
            .prints(&["no live access matches", "AWS shows no access"]);
    }
}

/// H1: the record has no access of bob, but AWS shows one that jit did not make.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_exits_with_3_if_aws_shows_access_without_a_record() {
    let sandbox = format!("standing = [\"{ACCOUNT}/admin/bob@example.com\"]");
    let shell = Shell::with(&Setup {
        sandbox,
        ..Setup::default()
    });
    shell.bind();
    break_glass(&shell, &["--user", "bob@example.com", "--yes"])
        .exits(3)
        .prints(&[
            "AWS still shows access of bob@example.com",
            "admin in",
            "not made by jit",
        ]);
    break_glass(&shell, &["--account", ACCOUNT, "--yes"]).exits(0);
}

/// H1: a store without bindings names no account, so jit asked AWS nothing.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_on_an_empty_store_exits_with_3() {
    let shell = Shell::open();
    break_glass(&shell, &["--user", "alice@example.com", "--yes"])
        .exits(3)
        .prints(&["jit knows no account", "jit.db", "--account ID"]);
}

/// H1: the message of a command for one permission set does not say that nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn the_all_clear_names_the_permission_set_that_was_asked_for() {
    let shell = Shell::open();
    shell.bind();
    shell.granted().await;
    let readonly = [
        "--user",
        "alice@example.com",
        "--permission-set",
        "readonly",
    ];
    break_glass(&shell, &readonly)
        .exits(0)
        .prints(&["no access of alice@example.com with the permission set readonly (jit asked about 1 permission set in 1 account)"]);
}

/// H1: without the store jit cannot check a name, so nothing that it finds is an all-clear.
#[test]
fn without_the_store_no_access_at_aws_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    for users in ["", "users = [\"alice@example.com\", \"bob@example.com\"]\n"] {
        let setup = Setup {
            sandbox: format!("{users}standing = [\"{ACCOUNT}/admin/alice@example.com\"]"),
            ..Setup::default()
        };
        let file = setup.write(folder.path());
        let store = folder.path().join("jit.db");
        std::fs::write(&store, "this is a text and not a database of SQLite").unwrap();
        let ended = |user: &str, account: &str, set: &str| {
            let named = [
                "--user",
                user,
                "--account",
                account,
                "--permission-set",
                set,
            ];
            let words = ["break-glass", "revoke", "--yes"];
            let words: Vec<&str> = words.into_iter().chain(named).chain(REASON).collect();
            let output = binary().args(&words).arg("--config").arg(&file).output();
            Ran::new(&words, &output.unwrap())
        };
        ended("alcie@example.com", ACCOUNT, "admin")
            .exits(3)
            .prints(&["alcie@example.com", "nothing was changed"]);
        ended("alice@example.com", "111122223334", "admin")
            .exits(3)
            .prints(&["check the names"]);
        ended("alice@example.com", ACCOUNT, "readonly")
            .exits(3)
            .prints(&["with readonly"]);
    }
}

/// H2: the requests of the person that wait are ended as well, and cannot be approved later.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_requests_of_the_person_are_ended() {
    let shell = Shell::open();
    shell.bind();
    let (pending, later) = (shell.request(), shell.request());
    shell.ok(&["approve", &later, "--as", "bob@example.com"]);
    shell.jit.caller().until(&later, "GRANTED").await;
    break_glass(&shell, &["--user", "alice@example.com", "--yes"])
        .exits(0)
        .prints(&[
            &pending,
            "CANCELLED",
            "waited for an approval",
            &later,
            "REVOKED",
        ]);
    assert_eq!(shell.json(&["status", &pending])["status"], "CANCELLED");
    shell
        .run(&["approve", &pending, "--as", "bob@example.com"])
        .exits(1);
    let events = shell.json(&["audit", "show", &pending]);
    let last = events.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["event_type"], "CANCELLED");
    assert_eq!(last["actor_email"], "sec@example.com");
    assert_eq!(last["details"]["reason"], "laptop stolen");
    assert!(last["details"]["break_glass"].is_string());
    shell.ok(&["audit", "verify"]);
}

/// H2: break-glass for an account left the requests that wait, and said that all was clear.
#[tokio::test(flavor = "multi_thread")]
async fn h2_waiting_requests_in_the_account_are_ended() {
    let shell = Shell::open();
    shell.bind();
    let (pending, later) = (shell.request(), SystemClock.now() + Millis::hours(1));
    let mut asking = ASKING.to_vec();
    let later = later.to_string();
    asking.extend(["--start-at", &later]);
    let approved = shell.json(&asking)["request_id"].clone();
    let approved = approved.as_str().unwrap();
    shell.ok(&["approve", approved, "--as", "bob@example.com"]);
    break_glass(&shell, &["--account", ACCOUNT, "--yes"])
        .exits(0)
        .prints(&[&pending, "CANCELLED", "waited for an approval", approved]);
    let status = |id: &str| shell.json(&["status", id])["status"].clone();
    assert_eq!(status(&pending), "CANCELLED");
    assert_eq!(status(approved), "REVOKED");
    shell.ok(&["audit", "verify"]);
}
