//! Keys in Secrets Manager, and their rotation there.

use std::time::{Duration, Instant};

use crate::common::lambda::{Cloud, Process};
use crate::common::moto::Moto;
use crate::common::shell::Shell;
use crate::common::{Caller, SECRET, Setup};

const OTHER: &str = "another-secret-of-32-bytes-or-so";

fn setup(moto: &Moto) -> Setup {
    Setup {
        more: "[keys.kept]\nsecret_id = \"jit/keys/kept\"\nscopes = [\"read\"]".into(),
        variables: vec![
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto.url.clone()),
            ("AWS_REGION", "eu-central-1".into()),
            ("AWS_ACCESS_KEY_ID", "jittests".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ],
        ..Setup::default()
    }
}

async fn is_taken(url: &str, secret: &str) -> bool {
    let reply = Caller::new(url, "kept", secret).get("/requests/1").await;
    match reply.status {
        404 => true,
        401 => false,
        _ => panic!("{reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_fetched_and_rotated_without_a_restart() {
    let moto = Moto::start();
    let shell = Shell::with(setup(&moto));
    let say = |line: &str| {
        let said = shell.line(line);
        assert_eq!(said.code, 0, "{}", said.err);
    };
    let missing = shell.run(&["config", "check"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing
            .err
            .contains("keys.kept.secret_id: cannot be read from Secrets Manager"),
        "{}",
        missing.err
    );

    // With --offline, jit makes no call to AWS.
    let offline = shell.run(&["config", "check", "--offline"]);
    assert_eq!(offline.code, 0, "{}", offline.err);
    assert!(offline.out.contains("kept (read)"), "{}", offline.out);

    let create = "aws secretsmanager create-secret --name jit/keys/kept --secret-string";
    say(&format!("{create} '{{\"secret\": \"{SECRET}-kept\"}}'"));
    let braces = shell.run(&["config", "check"]);
    assert!(braces.err.contains("holds JSON"), "{}", braces.err);
    assert!(!braces.err.contains(SECRET), "{}", braces.err);

    let put = "aws secretsmanager put-secret-value --secret-id jit/keys/kept --secret-string";
    say(&format!("{put} {SECRET}-kept"));
    let served = setup(&moto).start();
    let first = format!("{SECRET}-kept");
    assert!(is_taken(&served.url, &first).await);
    let cloud = Cloud::open().await;
    let _process = Process::start(&cloud, &setup(&moto));
    let gateway = cloud.gateway("$default").await;
    assert!(is_taken(&gateway, &first).await);

    say(&format!("{put} {OTHER}"));
    // The server fetches the new key within a minute; an idle function fetches it at the first call
    // after that minute.
    for url in [&served.url, &gateway] {
        let begun = Instant::now();
        while !is_taken(url, OTHER).await {
            assert!(
                begun.elapsed() < Duration::from_secs(180),
                "{url} keeps the old key"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!is_taken(url, &first).await);
    }
}
