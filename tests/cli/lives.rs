//! Requests on the command line, from the request to its end.

use serde_json::json;

use crate::common::{ACCOUNT, CHANNEL, Setup};
use crate::{ASKING, Shell};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_approved_granted_and_revoked_by_commands() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.granted().await;
    shell.run(&["status", &id]).exits(0).prints(&[
        &id,
        "GRANTED, 59m",
        "left",
        ACCOUNT,
        "alice@example.com",
    ]);
    let status = shell.json(&["status", &id]);
    assert_eq!(status["status"], "GRANTED");
    shell
        .run(&["list", "--channel", CHANNEL, "--status", "GRANTED"])
        .exits(0)
        .prints(&["REQUEST", &id, "left", "INC-42: db down"]);
    let reason = ["--reason", "incident 7", "--as", "sec@example.com"];
    let revoke: Vec<&str> = ["revoke", &id].into_iter().chain(reason).collect();
    shell
        .run(&revoke)
        .exits(0)
        .prints(&["REVOKED", "incident 7", "sec"]);
    // H3: the grant is over, and a second revoke changes nothing.
    shell.run(&revoke).exits(0).prints(&["already revoked"]);
}

/// A client command needs only the address and its key; it needs no server configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_command_needs_only_the_client_configuration() {
    let shell = Shell::open();
    shell.bind();
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |more: &[(&str, &str)]| {
        let mut command = crate::common::binary();
        command.args(["list", "--channel", CHANNEL]);
        command.current_dir(elsewhere.path());
        for (name, value) in more {
            command.env(name, value);
        }
        command.output().unwrap()
    };
    let url = shell.jit.url.as_str();
    let listed = run(&[
        ("JIT_CLIENT__URL", url),
        ("JIT_CLIENT__KEY_ID", "plugin"),
        ("JIT_CLIENT__SECRET", crate::common::SECRET),
    ]);
    assert!(listed.status.success(), "{listed:?}");
    let section = format!(
        "[client]\nurl = \"{url}\"\nkey_id = \"plugin\"\nsecret = \"{}\"\n",
        crate::common::SECRET
    );
    std::fs::write(elsewhere.path().join("jit.toml"), section).unwrap();
    let listed = run(&[]);
    assert!(listed.status.success(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_and_cancel_end_a_request() {
    let shell = Shell::open();
    shell.bind();
    let denied = shell.request();
    let words = [
        "deny",
        &denied,
        "--reason",
        "use readonly",
        "--as",
        "bob@example.com",
    ];
    shell
        .run(&words)
        .exits(0)
        .prints(&["DENIED", "use readonly"]);
    let cancelled = shell.request();
    let words = ["cancel", &cancelled, "--as", "alice@example.com"];
    shell.run(&words).exits(0).prints(&["CANCELLED"]);
    let listed = shell.json(&["list", "--account", ACCOUNT, "--limit", "1"]);
    assert_eq!(listed["items"][0]["request_id"], json!(cancelled));
    let token = listed["next_token"].as_str().unwrap();
    let words = ["list", "--account", ACCOUNT, "--next-token", token];
    let rest = shell.json(&words);
    assert_eq!(rest["items"][0]["request_id"], json!(denied));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_is_requested_and_approved() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.granted().await;
    let words = [
        "extend",
        &id,
        "--minutes",
        "30",
        "--as",
        "alice@example.com",
    ];
    shell
        .run(&words)
        .exits(0)
        .prints(&["extension requested", "30"]);
    shell
        .run(&["approve", &id, "--as", "carol@example.com"])
        .exits(0);
    shell
        .run(&["status", &id])
        .exits(0)
        .prints(&["GRANTED, 1h 29m"]);
}

/// The command reports a revoke as done only when it is; --wait waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_revoke_is_not_reported_as_done() {
    let shell = Shell::with(&Setup {
        latency_ms: 13_000,
        ..Setup::default()
    });
    shell.bind();
    let id = shell.granted().await;
    let revoke = ["revoke", &id, "--as", "sec@example.com"];
    shell
        .run(&revoke)
        .exits(1)
        .prints(&["not gone yet", "continues in the server", "jit status"]);
    shell
        .run(&["status", &id])
        .exits(0)
        .prints(&["GRANTED, being removed"]);
    // --wait waits for a removal that is already running.
    let waiting = ["revoke", &id, "--wait", "--as", "sec@example.com"];
    shell
        .run(&waiting)
        .exits(0)
        .prints(&["still removing", "REVOKED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_bound_and_unbound() {
    let shell = Shell::open();
    shell.bind();
    let terms = ["--approvals-required", "2", "--max-hours", "2"];
    let here = ["bind", "--channel", CHANNEL, "--account", ACCOUNT];
    let bind: Vec<&str> = here.into_iter().chain(terms).collect();
    shell.run(&bind).exits(0).prints(&["bob, carol"]);
    let accounts = shell.json(&["accounts", "--channel", CHANNEL]);
    assert_eq!(accounts[0]["max_request_hours"], 2);
    shell.ok(&["unbind", "--channel", CHANNEL, "--account", ACCOUNT]);
    shell
        .run(&["accounts", "--channel", CHANNEL])
        .exits(0)
        .prints(&["no account is bound"]);
}

/// The exit code shows the kind of error: 1 for a refusal by jit, 2 for a wrong command line.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_next_step() {
    let shell = Shell::open();
    // The account has no binding.
    shell.run(&ASKING).exits(1).prints(&["jit: "]);
    let nobody = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
    shell
        .run(&["status", nobody])
        .exits(1)
        .prints(&["there is no request"]);
    let machine = shell.run(&["status", nobody, "-o", "json"]).exits(1);
    let error: serde_json::Value = serde_json::from_str(&machine.err).unwrap();
    assert!(error["message"].is_string() && error["code"].is_string());
    shell
        .run(&["approve", nobody])
        .exits(2)
        .prints(&["--as EMAIL"]);
    shell.run(&["aprove"]).exits(2).prints(&["approve"]);
    shell.run(&[]).exits(2).prints(&["Usage"]);
    let elsewhere = ["--config", "/nonexistent/jit.toml", "status", nobody];
    shell
        .run(&elsewhere)
        .exits(1)
        .prints(&["/nonexistent/jit.toml"]);
}
