//! The other pages: onboarding, key rotation, audit export, restore, Mattermost.

use serde_json::{Value, json};

use crate::common::aws::Aws;
use crate::common::dynamo::Tables;
use crate::common::lambda::{Cloud, Process};
use crate::common::mattermost;
use crate::common::moto::Moto;
use crate::common::{CHANNEL, Caller, Jit, SECRET, Setup};
use crate::page::Page;
use crate::stage::Stage;

/// jit on one machine, with an operator's shell and a key.
fn one_machine(setup: &Setup) -> (Jit, Stage) {
    let jit = setup.start();
    let stage = Stage::with(setup);
    stage.set(
        "JIT_CONFIG",
        &jit.folder.path().join("jit.toml").display().to_string(),
    );
    stage.set("JIT_CLIENT__URL", &jit.url);
    stage.set("JIT_CLIENT__KEY_ID", "plugin");
    stage.set("JIT_CLIENT__SECRET", SECRET);
    (jit, stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_is_added_and_removed() {
    let (aws, tables) = (Aws::quick().await, Tables::usually_named().made().await);
    let setup = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(tables),
        ..Setup::default()
    };
    let (jit, stage) = one_machine(&setup);
    for (name, value) in [
        ("CHANNEL", "team-a"),
        ("ACCOUNT", "111122223333"),
        ("ME", "ops@example.com"),
        ("APPROVERS", "bob carol"),
        ("ASKS", "alice@example.com"),
        ("DECIDES", "bob@example.com"),
    ] {
        stage.set(name, value);
    }
    let page = Page::open("onboarding");
    page.play("Check the setup", &stage);
    let bound = page.play("Bind the account", &stage);
    assert!(bound.out.contains("111122223333"), "{}", bound.out);
    let lived = page.play("A first request", &stage);
    assert!(lived.out.contains("REVOKED"), "{}", lived.out);
    assert!(aws.assignments().is_empty());
    let known = page.play("The history of the channel", &stage);
    assert!(known.out.contains("APPROVERS_SET"), "{}", known.out);
    page.play("When the team leaves", &stage);
    let accounts = jit
        .caller()
        .get("/config/accounts?channel_id=team-a")
        .await
        .is(200);
    assert_eq!(accounts, json!([]));
    page.ends();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated() {
    let page = Page::open("key-rotation");
    keys_of_one_machine_are_rotated(&page).await;
    keys_under_lambda_are_rotated(&page).await;
    page.ends();
}

/// On one machine, each key has a file and a section of the configuration.
async fn keys_of_one_machine_are_rotated(page: &Page) {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::default();
    let stage = Stage::with(&setup);
    let (keys, conf) = (stage.file("keys"), stage.file("served.toml"));
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(keys.join("plugin"), format!("{SECRET}\n")).unwrap();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\n[identity_center]\nmode = \"sandbox\"\n\n\
         [keys.plugin]\nsecret_file = {:?}\n",
        folder.path().join("jit.db"),
        keys.join("plugin"),
    );
    std::fs::write(&conf, text).unwrap();
    let served = Jit::start_on(&conf);
    stage.set("KEYS", &keys.display().to_string());
    stage.set("CONF", &conf.display().to_string());
    stage.set("URL", &served.url);
    page.play("Without a gap: a second key beside the first", &stage);
    until(|| stage.run("JIT_CONFIG=/dev/null JIT_CLIENT__URL=$URL JIT_CLIENT__KEY_ID=plugin-2 JIT_CLIENT__SECRET_FILE=$KEYS/plugin-2 jit list --status GRANTED").code == 0).await;
    page.play("Check that jit accepts the new key", &stage);
    let old = Caller::new(&served.url, "plugin", SECRET);
    old.get("/requests?status=GRANTED").await.is(200);
    // The page checks at once that the old key is refused; jit needs two seconds.
    let taken_away = stage.run(r"sed -i.before '/^\[keys\.plugin\]$/,/^$/d' $CONF");
    assert_eq!(taken_away.code, 0, "{}", taken_away.err);
    until_refused(&old).await;
    std::fs::rename(stage.file("served.toml.before"), &conf).unwrap();
    page.play("Remove the old key", &stage);
    until_refused(&old).await;
}

/// Under Lambda, the keys are one value in Secrets Manager.
async fn keys_under_lambda_are_rotated(page: &Page) {
    let (moto, cloud) = (Moto::start(), Cloud::open().await);
    let mut variables = cloud.environment();
    variables.extend([
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto.url.clone()),
        ("AWS_REGION", "eu-central-1".into()),
        ("AWS_ACCESS_KEY_ID", "jittests".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
    ]);
    let setup = Setup {
        variables,
        ..Setup::default()
    };
    let stage = Stage::with(&setup);
    let made = stage.run(&format!(
        "aws secretsmanager create-secret --name jit/keys/plugin --secret-string {SECRET}"
    ));
    assert_eq!(made.code, 0, "{}", made.err);
    let config = std::fs::read_to_string(stage.file("jit.toml")).unwrap();
    let config = config.replace(
        &format!("secret = \"{SECRET}\""),
        "secret_id = \"jit/keys/plugin\"",
    );
    std::fs::write(stage.file("jit.toml"), config).unwrap();
    let _process = Process::start_on(&cloud, &setup, &stage.file("jit.toml"));
    page.play("On Lambda: a new value in Secrets Manager", &stage);
    page.play("Check that jit accepts the new value", &stage);
    let leaked = page.play("A key has leaked", &stage);
    assert!(stage.file("since.jsonl").exists(), "{}", leaked.err);
}

async fn until(mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < crate::common::TIMEOUT, "never");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn until_refused(caller: &Caller) {
    let begun = std::time::Instant::now();
    while caller.get("/requests?status=GRANTED").await.status != 401 {
        assert!(
            begun.elapsed() < crate::common::TIMEOUT,
            "jit still accepts the old key"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_exported_and_verified() {
    let (tables, moto) = (Tables::usually_named().made().await, Moto::start());
    let mut setup = Setup::in_dynamo(&tables);
    setup
        .variables
        .push(("AWS_ENDPOINT_URL_S3", moto.url.clone()));
    let (jit, stage) = one_machine(&setup);
    let caller = jit.caller();
    caller.bind().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    for (name, value) in [
        ("FROM", "2026-01-01"),
        ("TO", "2999-12-31"),
        ("ACCOUNT", "111122223333"),
        ("CHANNEL", "town-square"),
        ("ID", &id),
        ("BUCKET", "audit-of-jit"),
    ] {
        stage.set(name, value);
    }
    let made = stage.run("aws s3 mb s3://$BUCKET");
    assert_eq!(made.code, 0, "{}", made.err);
    let page = Page::open("audit-export");
    page.play("Export a month", &stage);
    let lines = stage.read("audit-2026-01-01.jsonl");
    let kinds: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event_type"].clone())
        .collect();
    assert!(
        kinds.contains(&json!("REVOKED")) && kinds.contains(&json!("BOUND")),
        "{kinds:?}"
    );
    page.play("One account, or one channel", &stage);
    assert!(stage.read("account.jsonl").contains(&id) && stage.read("channel.jsonl").contains(&id));
    page.play("One request", &stage);
    let kept = page.play("Store the export where it cannot be changed", &stage);
    assert!(
        kept.out.contains("audit-2026-01-01.jsonl.sha256"),
        "{}",
        kept.out
    );
    let rows = page.play("With the AWS CLI alone", &stage);
    assert!(rows.out.contains("REVOKE_REQUESTED"), "{}", rows.out);
    page.ends();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_restored() {
    let page = Page::open("restore");
    a_file_is_restored(&page).await;
    tables_are_restored(&page).await;
    page.ends();
}

async fn a_file_is_restored(page: &Page) {
    // The state of the simulated AWS is not part of the store and survives it.
    let elsewhere = tempfile::tempdir().unwrap();
    let sandbox = elsewhere.path().join("identity-center");
    let setup = Setup {
        sandbox: format!("path = {:?}", sandbox.display()),
        ..Setup::default()
    };
    let (jit, stage) = one_machine(&setup);
    let caller = jit.caller();
    caller.bind().await;
    let before = caller.granted().await;
    let backups = stage.file("backups");
    std::fs::create_dir(&backups).unwrap();
    stage.set("BACKUPS", &backups.display().to_string());
    stage.set("DB", &jit.database().display().to_string());
    page.play("One machine: a backup every hour", &stage);
    let after = caller
        .request_with(json!({"permission_set": "readonly"}))
        .await;
    caller.approve(&after).await.is(200);
    caller.until(&after, "GRANTED").await;
    let folder = jit.kill();
    std::fs::write(folder.path().join("jit.db"), "broken").unwrap();
    let said = page.play("One machine: restore", &stage);
    assert!(
        said.out.contains("are equal in both stores"),
        "{}",
        said.out
    );
    let found = page.play("Compare the restored store with AWS", &stage);
    assert!(
        found.out.contains("readonly"),
        "the grant after the backup: {}",
        found.out
    );
    let jit = Jit::start_in(folder);
    // A copy accepts no calls at first, so the store itself is read.
    let shown = stage.run(&format!("jit audit export | grep {before}"));
    assert_eq!(shown.code, 0, "{}", shown.err);
    drop(jit);
}

async fn tables_are_restored(page: &Page) {
    let moto = Moto::start();
    let tables = Tables::usually_named().through(&moto.url);
    let setup = Setup::in_dynamo(&tables);
    let stage = Stage::with(&setup);
    stage.set("AT", "2026-01-31T03:00:00Z");
    let made = stage.run("jit tables create");
    assert_eq!(made.code, 0, "{}", made.err);
    // jit writes the first entry of the head log.
    drop(setup.start());
    page.play("DynamoDB: to a point in time", &stage);
    // moto does not restore the billing mode of a table, so the test sets it.
    let charged = stage.run(
        "for table in requests audit assignments bindings outbox; do
            aws dynamodb update-table --table-name restored_$table --billing-mode PAY_PER_REQUEST
        done",
    );
    assert_eq!(charged.code, 0, "{}", charged.err);
    page.play("Tell jit the new names", &stage);
}

async fn forge_a_dialog(caller: &Caller) {
    let forged = json!({
        "user_id": "mallory", "channel_id": CHANNEL, "team_id": mattermost::TEAM,
        "state": "opaque-state-123", "submission": {},
    });
    let body = forged.to_string().into_bytes();
    let sent = caller.send("POST", "/mattermost/dialog", vec![], body);
    assert_eq!(sent.await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn mattermost_is_set_up_and_repaired() {
    let server = mattermost::Server::open().await;
    let stage = Stage::with(&Setup::default());
    for (name, value) in [
        ("MATTERMOST", server.url.as_str()),
        ("TEAM", "acme"),
        ("PUBLIC", "https://jit.example.com"),
    ] {
        stage.set(name, value);
    }
    std::fs::write(stage.file("admin-token"), mattermost::ADMIN).unwrap();
    let page = Page::open("mattermost");
    page.play("Set it up", &stage);
    let checked = page.play("Check the setup", &stage);
    let wanted = "the command /jit exists";
    assert!(checked.out.contains(wanted), "{}", checked.out);
    // jit starts with the configuration that was written and accepts the slash command.
    let jit = Jit::start_on(&stage.file("jit.toml"));
    let caller = jit.caller();
    let typed = async |token: &str| {
        let body = format!(
            "token={token}&team_id={}&channel_id=c&channel_name=n&user_id=u&text=help&trigger_id=t",
            mattermost::TEAM
        );
        let sent = caller.send("POST", "/mattermost/command", vec![], body.into_bytes());
        sent.await.status
    };
    let first = stage.read("mattermost-command-token");
    assert_eq!(typed(first.trim()).await, 200);
    server.with(|kept| {
        kept.command.as_mut().unwrap()["token"] = "regenerated".into();
        kept.bot_tokens.clear();
    });
    page.play("A token has leaked", &stage);
    let begun = std::time::Instant::now();
    while typed("regenerated").await != 200 {
        assert!(
            begun.elapsed() < crate::common::TIMEOUT,
            "jit refuses the new token"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(typed(first.trim()).await, 401);
    caller.bind().await;
    forge_a_dialog(&caller).await;
    stage.set("CHANNEL", CHANNEL);
    // jit stores the event in the background, perhaps after its answer.
    let begun = std::time::Instant::now();
    let export = || stage.run("jit audit export --channel \"$CHANNEL\"").out;
    while !export().contains("FORGERY_REFUSED") {
        assert!(begun.elapsed() < crate::common::TIMEOUT, "{}", export());
    }
    let shown = page.play("A forged card or dialog", &stage);
    assert!(shown.out.contains("mallory"), "{}", shown.out);
    page.ends();
}
