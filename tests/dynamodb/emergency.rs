//! The store is gone, or takes nothing: nobody is kept in by that, and nobody is told that
//! it was written down.

use serde_json::{Value, json};

use crate::common::aws::{Aws, Fault};
use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::shell::{Said, Shell};
use crate::common::{ACCOUNT, Setup};

/// Somebody has access, no server runs, and the store is about to fail.
struct Night {
    aws: Aws,
    proxy: Proxy,
    shell: Shell,
    /// As whoever serves has it.
    setup: Setup,
    id: String,
}

async fn night() -> Night {
    let (aws, tables) = (Aws::quick().await, Tables::fresh().await);
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let through = tables.through(&proxy.url);
    let setup = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(through),
        // Nobody who puts things right at night can read the plugin's key.
        more: "[keys.other]\nsecret_file = \"/nowhere/to/be/read\"".into(),
        ..Setup::default()
    };
    let serving = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(tables),
        ..Setup::default()
    };
    let (jit, caller) = serving.bound().await;
    let id = caller.granted().await;
    drop(jit);
    Night {
        shell: Shell::with(setup),
        setup: serving,
        aws,
        proxy,
        id,
    }
}

const ALICE: [&str; 6] = [
    "break-glass",
    "revoke",
    "--user",
    "alice@example.com",
    "--account",
    ACCOUNT,
];
const WHO: [&str; 4] = ["--reason", "incident 7", "--as", "sec@example.com"];

impl Night {
    async fn say(&self, words: &[&str]) -> Said {
        self.shell.run(&[words, &WHO[..]].concat())
    }

    fn unassign(&self) {
        let admin = crate::common::aws::ADMIN;
        self.aws.unassign(ACCOUNT, admin, "alice@example.com");
    }

    fn status(&self) -> Value {
        let shown = self.shell.run(&["audit", "show", &self.id, "-o", "json"]);
        assert_eq!(shown.code, 0, "{}", shown.err);
        let events: Value = serde_json::from_str(&shown.out).unwrap();
        events.as_array().unwrap().last().unwrap()["status"].clone()
    }
}

/// One line on stdout, and nothing else: what is to be kept.
fn row(said: &Said) -> Value {
    assert_eq!(said.code, 1, "{} {}", said.out, said.err);
    let row: Value = serde_json::from_str(said.out.trim()).expect(&said.out);
    assert_eq!(row["actor_email"], "sec@example.com");
    assert_eq!(row["details"]["reason"], "incident 7");
    assert!(row["event_time"].as_str().unwrap().ends_with('Z'));
    row
}

#[tokio::test(flavor = "multi_thread")]
async fn access_goes_although_nothing_can_be_written() {
    let night = night().await;
    night.proxy.set(Mood::ReadOnly);
    // P6: AWS says that it is done, and has done nothing; and then it refuses for a while.
    night.aws.once("DeleteAccountAssignment", Fault::Pretends);
    night.aws.once("DeleteAccountAssignment", Fault::Conflict);
    let said = night.say(&["break-glass", "revoke", &night.id]).await;
    let row = row(&said);
    assert!(night.aws.assignments().is_empty(), "{}", said.err);
    assert_eq!(
        (&row["request_id"], &row["event_type"]),
        (&night.id.as_str().into(), &"REVOKED".into())
    );
    assert_eq!(row["account_id"], ACCOUNT);
    assert_eq!(row["details"]["permission_set"], "admin");
    assert!(
        row["details"]["break_glass"]
            .as_str()
            .unwrap()
            .contains("assumed-role/Ops/dana")
    );
    assert!(said.err.contains("could not be told"), "{}", said.err);
    // What it says to do next is what puts it right.
    let next = format!(
        "jit cleanup {} --reason 'incident 7' --as sec@example.com",
        night.id
    );
    assert!(said.err.contains(&next), "{}", said.err);
    night.proxy.set(Mood::Well);
    assert_eq!(night.status(), "GRANTED");
    let cleaned = night.say(&["cleanup", &night.id]).await;
    assert_eq!(cleaned.code, 0, "{}", cleaned.err);
    assert_eq!(night.status(), "REVOKED");
}

/// With no record at all, somebody has to say what it was; AWS tells the rest.
#[tokio::test(flavor = "multi_thread")]
async fn with_no_store_aws_is_asked_alone() {
    let night = night().await;
    night.proxy.set(Mood::Gone);
    let unknown = night.say(&["break-glass", "revoke", &night.id]).await;
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.err.contains("--user EMAIL and --account ID"),
        "{}",
        unknown.err
    );
    assert_eq!(night.aws.assignments().len(), 1);
    let unasked = night.say(&ALICE).await;
    assert_eq!(unasked.code, 2, "{}", unasked.err);
    assert!(
        unasked.err.contains("admin in") && unasked.err.contains("--yes"),
        "{}",
        unasked.err
    );
    let other = night
        .say(&[&ALICE[..], &["--yes", "--permission-set", "readonly"]].concat())
        .await;
    assert_eq!(other.code, 0, "{}", other.err);
    assert!(other.err.contains("nothing was done"), "{}", other.err);
    assert_eq!(night.aws.assignments().len(), 1);
    let said = night.say(&[&ALICE[..], &["--yes"]].concat()).await;
    let row = row(&said);
    assert!(night.aws.assignments().is_empty());
    assert_eq!(row["details"]["requester_email"], "alice@example.com");
    assert!(row["request_id"].is_null());
    // Back again, the record is put right by its id.
    night.proxy.set(Mood::Well);
    let cleaned = night.say(&["cleanup", &night.id]).await;
    assert_eq!(cleaned.code, 0, "{}", cleaned.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_cannot_write_says_so() {
    let night = night().await;
    night.unassign();
    night.proxy.set(Mood::ReadOnly);
    let said = night.say(&["cleanup", &night.id]).await;
    let kept = row(&said);
    assert_eq!(
        (&kept["event_type"], &kept["details"]["verified"]),
        (&"CLEANED_UP".into(), &"yes".into())
    );
    assert!(said.err.contains("nothing is written down"), "{}", said.err);
    night.proxy.set(Mood::Gone);
    let said = night.say(&["cleanup", &night.id]).await;
    let kept = row(&said);
    assert_eq!(kept["details"]["verified"], "no");
    assert!(
        said.err.contains("cannot be read, so AWS was not asked"),
        "{}",
        said.err
    );
    night.proxy.set(Mood::Well);
    assert_eq!(night.status(), "GRANTED");
}

/// A file that is none any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_nobody_in() {
    let aws = Aws::quick().await;
    let setup = || Setup::with_aws(&aws, "");
    let (jit, caller) = setup().bound().await;
    caller.granted().await;
    let folder = jit.kill();
    std::fs::write(folder.path().join("jit.db"), "no database ".repeat(1000)).unwrap();
    let shell = Shell::over(setup(), folder.path());
    let said = shell.run(&[&ALICE[..], &["--yes"], &WHO[..]].concat());
    row(&said);
    assert!(aws.assignments().is_empty());
}

/// One record that nobody can read.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_none_is_told_and_kept() {
    let aws = Aws::quick().await;
    let setup = || Setup::with_aws(&aws, "");
    let (jit, caller) = setup().bound().await;
    let id = caller.granted().await;
    let folder = jit.kill();
    let db = rusqlite::Connection::open(folder.path().join("jit.db")).unwrap();
    let spoilt = db.execute("UPDATE jit_requests SET doc = 'rubbish'", []);
    assert_eq!(spoilt, Ok(1));
    drop(db);
    let shell = Shell::over(setup(), folder.path());
    let said = shell.run(&[&["cleanup", id.as_str()][..], &WHO[..]].concat());
    let kept = row(&said);
    assert_eq!(kept["request_id"], id);
    assert!(
        said.err.contains("cannot be read, so AWS was not asked"),
        "{}",
        said.err
    );
    let glass = shell.run(&[&["break-glass", "revoke", id.as_str()][..], &WHO[..]].concat());
    assert!(glass.err.contains("--user EMAIL"), "{}", glass.err);
    let alice = shell.run(&[&ALICE[..], &["--yes"], &WHO[..]].concat());
    row(&alice);
    assert!(aws.assignments().is_empty());
}

/// P4: what jit never made is not taken away in its name.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_made_is_left_alone() {
    let night = night().await;
    night.unassign();
    night.proxy.set(Mood::Well);
    assert_eq!(night.say(&["cleanup", &night.id]).await.code, 0);
    let jit = night.setup.start();
    let later = json!({"start_at": "2999-01-01T00:00:00Z"});
    let waits = jit.caller().request_with(later).await;
    jit.caller().approve(&waits).await.is(200);
    drop(jit);
    let admin = crate::common::aws::ADMIN;
    night.aws.assign(ACCOUNT, admin, "alice@example.com");
    night.proxy.set(Mood::ReadOnly);
    let said = night.say(&["break-glass", "revoke", &waits]).await;
    assert_eq!(row(&said)["request_id"], waits);
    assert_eq!(night.aws.assignments().len(), 1, "{}", said.err);
}
