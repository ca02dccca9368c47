//! Errors that name their cause in plain words, with a command that works.

use crate::common::{ACCOUNT, SECRET, Setup, binary};
use crate::{ASKING, Ran, Shell};

fn alone(folder: &std::path::Path, words: &[&str], more: &[(&str, &str)]) -> Ran {
    let mut command = binary();
    command.args(words).current_dir(folder);
    for (name, value) in more {
        command.env(name, value);
    }
    Ran::new(words, &command.output().unwrap())
}

/// H6: without a jit.toml the missing file is the error; no key is named first.
#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["config", "check"][..],
        &["reconcile"],
        &["status", "01a1fd36"],
    ] {
        let ran = alone(folder.path(), words, &[]).exits(1);
        assert!(
            ran.err
                .starts_with("jit: jit.toml: this folder has no such file"),
            "{ran:?}"
        );
        assert!(!ran.err.contains("permission_sets"), "{ran:?}");
        assert!(ran.err.contains("jit sandbox"), "{ran:?}");
    }
    for words in [&["audit", "show", "01a1fd36"][..], &["audit", "verify"]] {
        alone(folder.path(), words, &[])
            .exits(1)
            .prints(&["jit.toml: this folder has no such file"]);
    }
}

/// H6: jit could not start with a store in a folder that does not exist.
#[test]
fn config_check_names_a_missing_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = Setup::default().write(folder.path());
    let gone = folder.path().join("gone/jit.db");
    let text = std::fs::read_to_string(&file).unwrap();
    let store = folder.path().join("jit.db");
    let text = text.replace(store.to_str().unwrap(), gone.to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    for words in [&["config", "check"][..], &["config", "check", "--offline"]] {
        let ran = alone(folder.path(), words, &[])
            .exits(1)
            .prints(&["store.path: the folder", "gone does not exist"]);
        assert!(!ran.out.contains("can start"), "{ran:?}");
    }
}

/// H6: jit could not start with these files either.
#[test]
fn config_check_names_a_file_that_jit_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let file = Setup::default().write(folder.path());
    let text = std::fs::read_to_string(&file).unwrap();
    let store = folder.path().join("jit.db");
    let check = |text: &str, key: &str| {
        std::fs::write(&file, text).unwrap();
        let words = ["config", "check", "--offline"];
        let ran = alone(folder.path(), &words, &[]).exits(1).prints(&[key]);
        assert!(!ran.out.contains("can start"), "{ran:?}");
    };
    let elsewhere = text.replace(store.to_str().unwrap(), "/proc/jit.db");
    check(
        &elsewhere,
        "store.path: jit cannot create files in the folder /proc",
    );
    let path = format!(
        "[sandbox]\npath = \"{}/gone/state\"\n",
        folder.path().display()
    );
    check(
        &text.replace("[sandbox]\n", &path),
        "sandbox.path: the folder",
    );
    std::fs::write(&store, "this is a text and not a database of SQLite").unwrap();
    check(&text, "store.path: ");
}

/// H6: the error named the store, although only the file of the backup could not be created.
#[tokio::test(flavor = "multi_thread")]
async fn h6_a_backup_that_cannot_be_created_is_the_named_cause() {
    let shell = Shell::open();
    let folder = tempfile::tempdir().unwrap();
    let store = shell.jit.folder.path().join("jit.db");
    let text = format!("[store]\npath = \"{}\"\n", store.display());
    std::fs::write(folder.path().join("jit.toml"), text).unwrap();
    std::os::unix::fs::symlink("gone", folder.path().join("link.db")).unwrap();
    for (file, wanted) in [
        (
            "gone/x.db",
            "create the folder, or name a file in another one",
        ),
        ("/proc/x.db", "cannot be created"),
        ("link.db", "link.db exists already: name another file"),
        ("jit.toml", "jit.toml exists already: name another file"),
        (".", "exists already: name another file"),
    ] {
        let ran = alone(folder.path(), &["store", "backup", file], &[]).exits(1);
        assert!(
            ran.err.contains(file) && ran.err.contains(wanted),
            "{ran:?}"
        );
        assert!(!ran.err.contains("unavailable"), "{ran:?}");
    }
    assert!(!folder.path().join("gone").exists());
    alone(folder.path(), &["store", "backup", "copy.db"], &[]).exits(0);
}

/// H6: the audit needs only the store.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_verified_without_permission_sets() {
    let shell = Shell::open();
    shell.bind();
    shell.request();
    let folder = tempfile::tempdir().unwrap();
    let store = shell.jit.folder.path().join("jit.db");
    let text = format!("[store]\npath = \"{}\"\n", store.display());
    std::fs::write(folder.path().join("jit.toml"), text).unwrap();
    alone(folder.path(), &["audit", "verify"], &[])
        .exits(0)
        .prints(&["audit chains verified"]);
}

/// H6: a name that DNS does not know is not a server that does not listen.
#[test]
fn a_dns_failure_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = |url: &str| {
        let more = [
            ("JIT_CLIENT__URL", url),
            ("JIT_CLIENT__KEY_ID", "plugin"),
            ("JIT_CLIENT__SECRET", SECRET),
        ];
        alone(folder.path(), &["list"], &more).exits(1)
    };
    run("http://jit.invalid:8080").prints(&["cannot be resolved", "client.url"]);
    run("http://127.0.0.1:1").prints(&["the connection was refused", "jit serve"]);
}

/// H6: the advice of a refusal works.
#[tokio::test(flavor = "multi_thread")]
async fn the_advised_command_binds_the_account() {
    let shell = Shell::open();
    let refused = shell.run(&ASKING).exits(1);
    let (_, advice) = refused.err.split_once("bind it with: jit ").unwrap();
    let advice: Vec<&str> = advice.split_whitespace().collect();
    shell.run(&advice).exits(0).prints(&[ACCOUNT]);
    let id = shell.request();
    let approve = ["approve", &id, "--as", "bob@example.com"];
    let refused = shell.run(&approve).exits(1);
    let (_, advice) = refused.err.split_once("name them with: jit ").unwrap();
    let advice: Vec<&str> = advice
        .split(['.', '\n'])
        .next()
        .unwrap()
        .split(' ')
        .collect();
    shell.run(&advice).exits(0).prints(&["user_id"]);
}

/// H6: no debug text of Rust in an error about AWS.
#[test]
fn an_error_of_aws_is_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        ("JIT_CLIENT__URL", "http://127.0.0.1:1"),
        ("JIT_CLIENT__KEY_ID", "plugin"),
        ("JIT_CLIENT__SECRET", SECRET),
        ("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:1"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let words = ["list", "--via", "lambda:jit-api"];
    let ran = alone(folder.path(), &words, &more).exits(1).prints(&[
        "cannot invoke jit-api",
        "no connection to 127.0.0.1:1: connection refused",
    ]);
    for debug in ["DispatchFailure", "{", "Some(", "Text("] {
        assert!(!ran.err.contains(debug), "{debug}: {ran:?}");
    }
}
