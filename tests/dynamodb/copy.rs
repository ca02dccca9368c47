//! `jit store copy`: from a file to DynamoDB and back.

use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::aws::Aws;
use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::shell::{Said, Shell};
use crate::common::{Answer, Channel, Jit, Setup};

fn json(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{}", said.err);
    serde_json::from_str(&said.out).unwrap()
}

/// A store in a file with one request of each kind, and its receiver.
struct Original {
    aws: Aws,
    channel: Channel,
    folder: Arc<TempDir>,
    granted: String,
    /// The number of audit events of its four requests.
    events: usize,
}

impl Original {
    async fn write() -> Self {
        let (aws, channel) = (Aws::quick().await, Channel::open().await);
        let setup = Setup {
            aws: Some(aws.clone()),
            webhook: Some(channel.url.clone()),
            ..Setup::default()
        };
        let (jit, caller) = setup.bound().await;
        let revoked = caller.granted().await;
        caller.revoke(&revoked).await.is(200);
        channel.wait_for(2).await;
        // From here on the receiver fails: the server on the copy must deliver these notices.
        channel.answers(Answer::Fails);
        let granted = caller.granted().await;
        let pending = caller.request().await;
        let denied = caller.request().await;
        caller.deny(&denied).await.is(200);
        let mut events = 0;
        for id in [&revoked, &granted, &pending, &denied] {
            events += caller.audit(id).await.len();
        }
        Self {
            aws,
            channel,
            folder: jit.kill(),
            granted,
            events,
        }
    }

    fn address(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("jit.db").display())
    }
}

// P1, P5, P7: the copy is complete, each record is copied once, and no call counts twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_copied_to_dynamodb_and_back_completely() {
    let original = Original::write().await;
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let shell = Shell::with(Setup {
        aws: Some(original.aws.clone()),
        dynamo: Some(tables.through(&proxy.url)),
        ..Setup::default()
    });
    is_copied_once(&original, &shell, &proxy);
    tables.let_it_end(&original.granted).await;
    serves_from_the_copy(&original, tables.through(&proxy.url)).await;

    // The store is copied back with its new records.
    let home = tempfile::tempdir().unwrap();
    let to = format!("sqlite:{}", home.path().join("jit.db").display());
    let back = json(&shell.run(&[
        "store", "copy", "--from", "dynamodb", "--to", &to, "-o", "json",
    ]));
    assert_eq!(
        (&back["requests"], &back["notices"]),
        (&4.into(), &0.into()),
        "{back}"
    );
    let (config, expiry) = (2, 2);
    assert_eq!(back["events"], original.events + config + expiry, "{back}");
    let setup = Setup::default();
    let file = setup.write(home.path());
    let shown = crate::common::binary()
        .args(["audit", "verify", "-o", "json", "--config"])
        .arg(file)
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["histories"], 5);
    // The test moved the end of the grant in the record itself.
    let broken = shown["broken"].as_array().unwrap().iter();
    let moved: Vec<&Value> = broken.map(|one| &one["field"]).collect();
    assert_eq!(moved, ["end_time"]);

    // A copy from the first store is refused, because the second store has newer records.
    let diverged = shell.run(&["store", "copy", "--from", &original.address(), "--to", &to]);
    assert_eq!(diverged.code, 1);
    assert!(diverged.err.contains("is in both"), "{}", diverged.err);
}

/// A copy fails while DynamoDB is unreachable, and continues while it fails often.
fn is_copied_once(original: &Original, shell: &Shell, proxy: &Proxy) {
    let from = original.address();
    let copy = [
        "store", "copy", "--from", &from, "--to", "dynamodb", "-o", "json",
    ];
    proxy.set(Mood::Unreachable);
    let cut_off = shell.run(&copy);
    assert_eq!(cut_off.code, 1, "{}", cut_off.out);
    proxy.set(Mood::Failing {
        seed: 5,
        percent: 20,
    });
    let copied = json(&shell.run(&copy));
    assert_eq!(
        (&copied["requests"], &copied["channels"]),
        (&4.into(), &1.into())
    );
    assert_eq!(
        (&copied["notices"], &copied["were_there"]),
        (&2.into(), &0.into()),
        "{copied}"
    );
    proxy.set(Mood::Well);
    let again = json(&shell.run(&copy));
    assert_eq!(again["were_there"], 5, "{again}");
    let verified = shell.run(&["audit", "verify"]);
    assert!(
        verified.out.starts_with("5 audit chains verified"),
        "{} {}",
        verified.out,
        verified.err
    );
}

/// A server on the copy refuses calls that may have been accepted before, and does due work.
async fn serves_from_the_copy(original: &Original, tables: Tables) {
    original.channel.answers(Answer::Ok);
    let setup = Setup {
        aws: Some(original.aws.clone()),
        webhook: Some(original.channel.url.clone()),
        dynamo: Some(tables),
        ..Setup::default()
    };
    let jit = Jit::start_with(Arc::new(config_of(&setup)), &setup.environment());
    jit.caller()
        .get(&format!("/requests/{}", original.granted))
        .await
        .is(425);
    jit.logs("this store was copied just now");
    let heard = original.channel.wait_for(5).await;
    let ends = heard
        .iter()
        .map(|heard| heard.json()["status"].as_str().unwrap().to_owned());
    let mut ends: Vec<String> = ends.skip(2).collect();
    ends.sort();
    assert_eq!(ends, ["DENIED", "EXPIRED", "GRANTED"]);
    assert!(original.aws.assignments().is_empty());
    tokio::task::block_in_place(|| jit.terminate());
}

fn config_of(setup: &Setup) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    setup.write(folder.path());
    folder
}

#[test]
fn a_copy_refuses_an_invalid_source_or_target() {
    let folder = tempfile::tempdir().unwrap();
    let file = Setup::default().write(folder.path());
    for (arguments, code, said) in [
        (
            ["--from", "oracle", "--to", "dynamodb"],
            2,
            "expected sqlite, sqlite:PATH or dynamodb",
        ),
        (["--from", "sqlite", "--to", "sqlite"], 2, "the same store"),
        (
            ["--from", "sqlite:/nowhere/jit.db", "--to", "sqlite"],
            1,
            "the source store /nowhere/jit.db does not exist",
        ),
    ] {
        let ran = crate::common::binary()
            .env("JIT_CONFIG", &file)
            .args(["store", "copy"])
            .args(arguments)
            .output()
            .unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(code), "{err}");
        assert!(err.contains(said), "{err}");
    }
}
