//! Signatures for other programs, keys, configuration and completions.

use serde_json::Value;

use crate::common::{CHANNEL, HOOK_SECRET, SECRET, Setup, binary};
use crate::{Ran, Shell};

/// Another HTTP client sends the headers of `jit sign`.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_call_can_be_sent_by_another_client() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.request();
    let path = format!("/requests/{id}");
    let query = format!("/requests?channel_id={CHANNEL}&status=PENDING");
    for words in [
        vec!["sign", "GET", &path],
        vec!["sign", "get", &query],
        vec!["sign", "GET", &path, "--v1"],
    ] {
        let headers = shell.ok(&words);
        let sent = send(&shell, "GET", words[2], &headers, None).await;
        assert_eq!(sent, 200, "{words:?}");
    }
    let body = r#"{"actor_mm_user_id": "alice", "actor_email": "alice@example.com"}"#;
    let cancel = format!("{path}/cancel");
    let headers = shell
        .run_with(&["sign", "POST", &cancel, "--body", "-"], body)
        .exits(0)
        .out;
    let sent = send(&shell, "POST", &cancel, &headers, Some(body)).await;
    assert_eq!(sent, 200);
}

async fn send(shell: &Shell, method: &str, path: &str, headers: &str, body: Option<&str>) -> u16 {
    let url = format!("{}{path}", shell.jit.url);
    let client = reqwest::Client::builder().build().unwrap();
    let mut call = client.request(method.parse().unwrap(), url);
    for line in headers.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        call = call.header(name, value);
    }
    if let Some(body) = body {
        call = call
            .header("Content-Type", "application/json")
            .body(body.to_owned());
    }
    call.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_command_contains_the_whole_call() {
    let shell = Shell::open();
    shell
        .run(&["sign", "GET", "/requests/it's", "--curl"])
        .exits(0)
        .prints(&[
            "curl -sS -X GET",
            &shell.jit.url,
            r"it'\''s",
            "X-JIT-Nonce: ",
        ]);
    shell
        .run(&["sign", "GET", "requests"])
        .exits(2)
        .prints(&["/requests"]);
}

fn alone(words: &[&str]) -> Ran {
    Ran::new(words, &binary().args(words).output().unwrap())
}

#[test]
fn a_new_key_is_random_and_accepted_by_the_configuration() {
    let first = alone(&["keys", "generate", "ci"]).exits(0).out;
    let second = alone(&["keys", "generate", "ci"]).exits(0).out;
    assert_ne!(first, second);
    let folder = tempfile::tempdir().unwrap();
    let more = first.clone();
    let file = Setup {
        more,
        ..Setup::default()
    }
    .write(folder.path());
    let file = file.to_str().unwrap();
    alone(&["config", "check", "--config", file])
        .exits(0)
        .prints(&["ci (", "plugin (", "can start"]);
    alone(&["keys", "generate", "no.dots"]).exits(2);
    let made = alone(&["keys", "generate", "-o", "json"]).exits(0);
    let made: Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!(made["key_id"], "plugin");
    assert!(made["secret"].as_str().unwrap().len() >= 64);
}

#[test]
fn a_configuration_error_names_its_key_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let check = |more: &str| {
        let more = more.to_owned();
        let webhook = Some("http://127.0.0.1:1".into());
        let file = Setup {
            more,
            webhook,
            ..Setup::default()
        }
        .write(folder.path());
        let ran = alone(&["config", "check", "--config", file.to_str().unwrap()]);
        for secret in [SECRET, HOOK_SECRET] {
            assert!(
                !ran.out.contains(secret) && !ran.err.contains(secret),
                "{ran:?}"
            );
        }
        ran
    };
    check("").exits(0).prints(&["127.0.0.1:1"]);
    check("[policy]\nmax_request_hours = 0\n")
        .exits(1)
        .prints(&["policy.max_request_hours"]);
    check("[polcy]\n").exits(1).prints(&["polcy"]);
    check("[keys.empty]\nsecret = \"\"\n")
        .exits(1)
        .prints(&["keys.empty"]);
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        alone(&["completions", shell])
            .exits(0)
            .prints(&["revoke", "approvers"]);
    }
}

#[test]
fn the_help_of_every_command_has_an_example() {
    alone(&["--help"])
        .exits(0)
        .prints(&["sandbox", "serve", "request", "revoke", "audit"]);
    alone(&["--version"]).exits(0).prints(&["jit "]);
    alone(&["revoke", "--help"])
        .exits(0)
        .prints(&["Example", "jit revoke ID", "--wait"]);
}
