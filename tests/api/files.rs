//! The files of jit: other users read none, and lost nonce logs open no replay.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{Caller, Jit, SECRET, Setup, binary};

/// The files of jit in a folder with looser modes than 0600. The test wrote the configuration.
fn loose(folder: &Path) -> Vec<(PathBuf, u32)> {
    let files = std::fs::read_dir(folder).unwrap();
    let modes = files.map(|file| {
        let path = file.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode();
        (path, mode & 0o777)
    });
    let ours = modes.filter(|(path, _)| path.file_name().unwrap() != "jit.toml");
    ours.filter(|(_, mode)| mode & !0o600 != 0).collect()
}

fn back_up(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(name);
    let jit = binary();
    let done = Command::new("sh")
        .args(["-c", "umask 000; exec \"$@\"", "sh"])
        .arg(jit.get_program())
        .args(["store", "backup"])
        .arg(&file)
        .arg("--config")
        .arg(folder.join("jit.toml"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    file
}

// D1
#[tokio::test(flavor = "multi_thread")]
async fn other_users_can_read_no_file_of_jit() {
    let jit = Setup::default().start_after("umask 000");
    let caller = jit.caller();
    caller.bind().await;
    caller.granted().await;
    let folder = jit.folder.clone();
    back_up(folder.path(), "backup.db");
    assert_eq!(loose(folder.path()), []);
    // The names are those of docs/operations.md.
    for name in [
        "",
        "-wal",
        "-shm",
        ".lock",
        ".nonces-a",
        ".sandbox",
        ".sandbox-wal",
    ] {
        let file = folder.path().join(format!("jit.db{name}"));
        assert!(file.exists(), "{}", file.display());
    }
    let folder = jit.kill();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(file.unwrap().path(), mode).unwrap();
    }
    let jit = Jit::start_in(folder);
    jit.logs("jit set the mode 0600");
    jit.logs("jit.toml contains a secret and has the mode 0644");
    let loose = loose(jit.folder.path());
    assert!(
        loose.iter().all(|(path, _)| path.ends_with("backup.db")),
        "{loose:?}"
    );
    jit.comes_to_log("jit.db.nonces-a").await;
    let lines = jit.log();
    let lines = lines
        .lines()
        .filter(|line| line.contains("jit.db.nonces-a"));
    assert_eq!(lines.count(), 1, "one line names all files of the store");
}

/// A signed call that can be sent again.
struct Recorded(Vec<(&'static str, String)>);

const PATH: &str = "/requests?status=PENDING";

impl Recorded {
    async fn sent(caller: &Caller) -> Self {
        let signing = caller.signing();
        let mac = signing.v2("GET", "/requests", "status=PENDING", b"");
        let recorded = Self(signing.headers(mac));
        assert_eq!(recorded.again(caller).await, 200);
        recorded
    }

    async fn again(&self, caller: &Caller) -> u16 {
        let sent = caller.send("GET", PATH, self.0.clone(), vec![]);
        sent.await.status
    }
}

async fn served(folder: std::sync::Arc<tempfile::TempDir>) -> (Jit, Caller) {
    let jit = Jit::start_in(folder);
    let caller = jit.caller();
    (jit, caller)
}

// D2: jit refuses the calls that were signed before it noticed the loss, also after one more start.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_replayed_after_its_nonce_logs_were_removed() {
    for gone in [&["nonces-a"][..], &["nonces-b"], &["nonces-a", "nonces-b"]] {
        let (jit, caller) = Setup::default().bound().await;
        let recorded = Recorded::sent(&caller).await;
        let folder = jit.kill();
        // A usual restart refuses only the replay.
        let (jit, caller) = served(folder).await;
        assert_eq!(recorded.again(&caller).await, 401);
        Recorded::sent(&caller).await;
        let folder = jit.kill();
        for name in gone {
            std::fs::remove_file(folder.path().join(format!("jit.db.{name}"))).unwrap();
        }
        for _ in 0..2 {
            let (jit, caller) = served(folder.clone()).await;
            jit.logs("lost its nonce logs");
            assert_eq!(recorded.again(&caller).await, 425, "{gone:?}");
            // A call that is signed now may have been signed before: the clocks may differ.
            assert_eq!(caller.get(PATH).await.status, 425, "{gone:?}");
            jit.kill();
        }
    }
}

// D2: neither a restored backup nor a copy of the folder knows the nonces that were used since.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_replayed_on_a_restored_backup() {
    let (jit, caller) = Setup::default().bound().await;
    let source = jit.folder.clone();
    let backup = back_up(source.path(), "backup.db");
    let copied = tempfile::tempdir().unwrap();
    for name in ["jit.db", "jit.db-wal", "jit.db.nonces-a", "jit.db.nonces-b"] {
        std::fs::copy(source.path().join(name), copied.path().join(name)).unwrap();
    }
    let restored = tempfile::tempdir().unwrap();
    std::fs::copy(&backup, restored.path().join("jit.db")).unwrap();
    let recorded = Recorded::sent(&caller).await;
    jit.kill();
    for folder in [copied, restored] {
        Setup::default().write(folder.path());
        let (jit, caller) = served(folder.into()).await;
        jit.logs("lost its nonce logs");
        assert_eq!(recorded.again(&caller).await, 425);
    }
    // In its old place, the logs beside the backup have all nonces.
    for end in ["-wal", "-shm"] {
        let file = source.path().join(format!("jit.db{end}"));
        std::fs::remove_file(file).unwrap();
    }
    std::fs::copy(&backup, source.path().join("jit.db")).unwrap();
    let (_jit, caller) = served(source).await;
    assert_eq!(recorded.again(&caller).await, 401);
    assert_eq!(caller.get(PATH).await.status, 200);
}

// D5: both ways to restore a folder in its place, with the files of a server that had stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_replayed_on_a_folder_that_was_restored_in_its_place() {
    for restore in [
        "cp -r \"$1/.\" \"$0/\"",
        "cp -a \"$1/.\" \"$0/\"",
        "rm -rf \"$0\" && cp -r \"$1\" \"$0\"",
        "rm -rf \"$0\" && cp -a \"$1\" \"$0\"",
    ] {
        let (jit, _) = Setup::default().bound().await;
        let (_, _, folder) = tokio::task::block_in_place(|| jit.terminate());
        let beside = tempfile::tempdir().unwrap();
        let backup = beside.path().join("backup");
        shell("cp -r \"$0\" \"$1\"", folder.path(), &backup);
        // jit tells changes of a log apart that are more than 100 ms apart.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (jit, caller) = served(folder).await;
        let recorded = Recorded::sent(&caller).await;
        let (_, _, folder) = tokio::task::block_in_place(|| jit.terminate());
        // SQLite would apply a newer log to the older file.
        for end in ["-wal", "-shm"] {
            std::fs::remove_file(folder.path().join(format!("jit.db{end}"))).ok();
        }
        shell(restore, folder.path(), &backup);
        let (jit, caller) = served(folder).await;
        let again = recorded.again(&caller).await;
        assert_eq!(again, 425, "{restore}: {}", jit.log());
        jit.logs("were restored");
        // An ordinary restart afterwards finds no further loss.
        let (_, _, folder) = tokio::task::block_in_place(|| jit.terminate());
        let (jit, _) = served(folder).await;
        assert!(!jit.log().contains("were restored"), "{restore}");
    }
}

fn shell(line: &str, folder: &Path, backup: &Path) {
    let mut shell = Command::new("sh");
    let done = shell.args(["-c", line]).args([folder, backup]).status();
    assert!(done.unwrap().success(), "{line}");
}

// A11: a revoke can only remove access, so jit accepts it, once.
#[tokio::test(flavor = "multi_thread")]
async fn a11_a_server_without_its_nonces_accepts_a_revoke_and_tells_when_other_calls() {
    let (jit, caller) = Setup::default().bound().await;
    let id = caller.granted().await;
    let folder = jit.kill();
    std::fs::remove_file(folder.path().join("jit.db.nonces-a")).unwrap();
    let (jit, caller) = served(folder).await;
    let told = caller.get(PATH).await.is(425);
    assert_eq!(told["code"], "too_early");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("signed after 20"), "{message}");
    // The command line prints these words.
    let listed = binary()
        .args(["list", "--channel", "town-square"])
        .env("JIT_CONFIG", jit.folder.path().join("jit.toml"))
        .env("JIT_CLIENT__URL", &jit.url)
        .env("JIT_CLIENT__KEY_ID", "plugin")
        .env("JIT_CLIENT__SECRET", SECRET)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(printed.contains("signed after 20"), "{printed}");

    let path = format!("/requests/{id}/revoke");
    let body = br#"{"actor_mm_user_id":"bob","actor_email":"bob@example.com"}"#;
    let signing = caller.signing();
    let mac = signing.v2("POST", &path, "", body);
    let send = || caller.send("POST", &path, signing.headers(mac.clone()), body.to_vec());
    send().await.is(200);
    send().await.is(401);
}
