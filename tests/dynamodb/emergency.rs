//! Break-glass while the store fails or refuses writes: the access ends, and the output says that
//! nothing was stored.

use jit::clock::{Clock, SystemClock};
use jit::domain::Millis;
use serde_json::{Value, json};

use crate::common::aws::{Aws, Fault};
use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::shell::{Said, Shell};
use crate::common::{ACCOUNT, Setup};

/// A grant exists, no server runs, and the store is about to fail.
struct Incident {
    aws: Aws,
    proxy: Proxy,
    shell: Shell,
    /// The setup of the server.
    setup: Setup,
    id: String,
}

async fn incident() -> Incident {
    let (aws, tables) = (Aws::quick().await, Tables::fresh().await);
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let through = tables.through(&proxy.url);
    let setup = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(through),
        // The operator has no permission to read the plugin's key.
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
    Incident {
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

impl Incident {
    async fn run(&self, words: &[&str]) -> Said {
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

/// The single line on stdout, which the operator keeps.
fn row(said: &Said) -> Value {
    assert_eq!(said.code, 1, "{} {}", said.out, said.err);
    let row: Value = serde_json::from_str(said.out.trim()).expect(&said.out);
    assert_eq!(row["actor_email"], "sec@example.com");
    assert_eq!(row["details"]["reason"], "incident 7");
    assert!(row["event_time"].as_str().unwrap().ends_with('Z'));
    row
}

#[tokio::test(flavor = "multi_thread")]
async fn break_glass_removes_access_while_the_store_refuses_writes() {
    let incident = incident().await;
    incident.proxy.set(Mood::ReadOnly);
    // P6: AWS reports a delete as done without an effect, and then throttles for a while.
    incident
        .aws
        .once("DeleteAccountAssignment", Fault::SucceedsWithoutEffect);
    incident
        .aws
        .once("DeleteAccountAssignment", Fault::Conflict);
    let said = incident.run(&["break-glass", "revoke", &incident.id]).await;
    let row = row(&said);
    assert!(incident.aws.assignments().is_empty(), "{}", said.err);
    assert_eq!(
        (&row["request_id"], &row["event_type"]),
        (&incident.id.as_str().into(), &"REVOKED".into())
    );
    assert_eq!(row["account_id"], ACCOUNT);
    assert_eq!(row["details"]["permission_set"], "admin");
    assert!(
        row["details"]["break_glass"]
            .as_str()
            .unwrap()
            .contains("assumed-role/Ops/dana")
    );
    assert!(
        said.err.contains("the store did not record it"),
        "{}",
        said.err
    );
    // The command that the output names corrects the record.
    let next = format!(
        "jit cleanup {} --reason 'incident 7' --as sec@example.com",
        incident.id
    );
    assert!(said.err.contains(&next), "{}", said.err);
    incident.proxy.set(Mood::Well);
    assert_eq!(incident.status(), "GRANTED");
    let cleaned = incident.run(&["cleanup", &incident.id]).await;
    assert_eq!(cleaned.code, 0, "{}", cleaned.err);
    assert_eq!(incident.status(), "REVOKED");
}

/// Without the store the operator names the access, and jit reads the rest from AWS.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_works_without_a_store() {
    let incident = incident().await;
    incident.proxy.set(Mood::Unreachable);
    let unknown = incident.run(&["break-glass", "revoke", &incident.id]).await;
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.err.contains("--user EMAIL --account ID"),
        "{}",
        unknown.err
    );
    assert_eq!(incident.aws.assignments().len(), 1);
    let unasked = incident.run(&ALICE).await;
    assert_eq!(unasked.code, 2, "{}", unasked.err);
    assert!(
        unasked.err.contains("admin in") && unasked.err.contains("--yes"),
        "{}",
        unasked.err
    );
    let other = incident
        .run(&[&ALICE[..], &["--yes", "--permission-set", "readonly"]].concat())
        .await;
    assert_eq!(other.code, 3, "{}", other.err);
    assert!(other.err.contains("nothing was changed"), "{}", other.err);
    assert_eq!(incident.aws.assignments().len(), 1);
    let said = incident.run(&[&ALICE[..], &["--yes"]].concat()).await;
    let row = row(&said);
    assert!(incident.aws.assignments().is_empty());
    assert_eq!(row["details"]["requester_email"], "alice@example.com");
    assert!(row["request_id"].is_null());
    // When the store is back, cleanup corrects the record by its id.
    incident.proxy.set(Mood::Well);
    let cleaned = incident.run(&["cleanup", &incident.id]).await;
    assert_eq!(cleaned.code, 0, "{}", cleaned.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_cannot_be_stored_reports_it() {
    let incident = incident().await;
    incident.unassign();
    incident.proxy.set(Mood::ReadOnly);
    let said = incident.run(&["cleanup", &incident.id]).await;
    let kept = row(&said);
    assert_eq!(
        (&kept["event_type"], &kept["details"]["verified"]),
        (&"CLEANED_UP".into(), &"yes".into())
    );
    assert!(
        said.err.contains("the store did not record the cleanup"),
        "{}",
        said.err
    );
    incident.proxy.set(Mood::Unreachable);
    let said = incident.run(&["cleanup", &incident.id]).await;
    let kept = row(&said);
    assert_eq!(kept["details"]["verified"], "no");
    assert!(said.err.contains("so jit did not ask AWS"), "{}", said.err);
    incident.proxy.set(Mood::Well);
    assert_eq!(incident.status(), "GRANTED");
}

/// The file is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_works_with_a_damaged_file() {
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

/// One record is unreadable.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_reported_and_kept() {
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
    assert!(said.err.contains("so jit did not ask AWS"), "{}", said.err);
    let glass = shell.run(&[&["break-glass", "revoke", id.as_str()][..], &WHO[..]].concat());
    assert!(glass.err.contains("--user EMAIL"), "{}", glass.err);
    let alice = shell.run(&[&ALICE[..], &["--yes"], &WHO[..]].concat());
    row(&alice);
    assert!(aws.assignments().is_empty());
}

/// P4: break-glass does not remove an assignment that jit did not make.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_leaves_an_assignment_from_outside_alone() {
    let incident = incident().await;
    incident.unassign();
    incident.proxy.set(Mood::Well);
    assert_eq!(incident.run(&["cleanup", &incident.id]).await.code, 0);
    let jit = incident.setup.start();
    let later = json!({"start_at": SystemClock.now() + Millis::hours(1)});
    let waits = jit.caller().request_with(later).await;
    jit.caller().approve(&waits).await.is(200);
    drop(jit);
    let admin = crate::common::aws::ADMIN;
    incident.aws.assign(ACCOUNT, admin, "alice@example.com");
    incident.proxy.set(Mood::ReadOnly);
    let said = incident.run(&["break-glass", "revoke", &waits]).await;
    // H1: AWS may show access of the person.
    assert_eq!(said.code, 3, "{} {}", said.out, said.err);
    let why = "had no access when it was read";
    assert!(said.out.contains(why), "{} {}", said.out, said.err);
    assert_eq!(incident.aws.assignments().len(), 1, "{}", said.err);
}
