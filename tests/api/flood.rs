//! Callers without a key that send much or hold connections open: they do not delay the others,
//! and they fill neither the memory nor the log.

use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Caller, Jit, METRICS_TOKEN, Setup, TIMEOUT, nonce, now, wanted};

/// More than jit processes at the same time.
const MANY: usize = 1_100;

fn address(jit: &Jit) -> &str {
    jit.url.trim_start_matches("http://")
}

/// The test holds many sockets open itself.
fn open_many_files() {
    rlimit::increase_nofile_limit(4_096).unwrap();
}

async fn sockets(jit: &Jit, count: usize, said: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(address(jit)).await.unwrap();
        // jit may close a socket while the test writes to it.
        socket.write_all(said).await.ok();
        open.push(socket);
    }
    open
}

/// The head of a call with a body that never arrives.
fn head_without_body(key_id: &str) -> String {
    format!(
        "POST /requests HTTP/1.1\r\nHost: jit\r\nX-JIT-KeyID: {key_id}\r\nX-JIT-Timestamp: {}\r\n\
         X-JIT-Nonce: {}\r\nX-JIT-Signature: v2=00\r\nContent-Length: 300\r\n\r\n",
        now(),
        nonce()
    )
}

fn without_metrics_token() -> Arc<tempfile::TempDir> {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = Setup::default().write(folder.path());
    let text = std::fs::read_to_string(&file).unwrap();
    let line = format!("metrics_token = \"{METRICS_TOKEN}\"\n");
    std::fs::write(&file, text.replace(&line, "")).unwrap();
    folder
}

/// A whole life of a request, and the probes.
async fn is_served(caller: &Caller) {
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    for probe in ["/healthz", "/readyz"] {
        caller.send("GET", probe, vec![], vec![]).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_calls_without_their_bodies_delay_no_other_call() {
    open_many_files();
    let (jit, caller) = Setup::default().bound().await;
    let held = sockets(&jit, MANY, head_without_body("plugin").as_bytes()).await;
    is_served(&caller).await;
    drop(held);
}

/// A10: the revoke comes from the same address as the flood, and its body after its head.
#[tokio::test(flavor = "multi_thread")]
async fn a10_callers_without_a_key_take_no_place_of_a_revoke() {
    open_many_files();
    let (jit, caller) = Setup::default().bound().await;
    let id = caller.granted().await;
    let path = format!("/requests/{id}/revoke");
    let body = br#"{"actor_mm_user_id":"bob","actor_email":"bob@example.com"}"#;
    let signing = caller.signing();
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nHost: jit\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in signing.headers(signing.v2("POST", &path, "", body)) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut revoke = sockets(&jit, 1, head.as_bytes()).await.remove(0);
    for key_id in ["nobody", "plugin"] {
        let mut flood = sockets(&jit, 400, head_without_body(key_id).as_bytes()).await;
        // More calls than one pool has places have begun when these are refused.
        for refused in &mut flood[..100] {
            let answered = tokio::time::timeout(TIMEOUT, refused.read_u8());
            answered.await.unwrap().ok();
        }
    }
    revoke.write_all(body).await.unwrap();
    let mut answer = String::new();
    revoke.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_unfinished_heads_take_little_memory() {
    open_many_files();
    let (jit, caller) = Setup::default().bound().await;
    let memory = |jit: &Jit| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", jit.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() / 1024
    };
    let before = memory(&jit);
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: jit\r\nx: {}",
        "x".repeat(395_000)
    );
    let held = sockets(&jit, MANY, head.as_bytes()).await;
    is_served(&caller).await;
    let grown = memory(&jit).saturating_sub(before);
    assert!(grown < 100, "{grown} MB for {MANY} unfinished heads");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_idle_connections_take_no_file_that_jit_needs() {
    open_many_files();
    let jit = Setup::default().start_with_files(256);
    let caller = jit.caller();
    caller.bind().await;
    let held = sockets(&jit, 300, b"").await;
    is_served(&caller).await;
    drop(held);
    jit.logs("the limit of open files is low");
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_new_connection_closes_the_longest_idle_one() {
    let jit = Setup::default().start_with_files(256);
    // 128 files are for jit itself, and a connection may need two of the other 128: one address has
    // half of 64 connections.
    let mut held = sockets(&jit, 65, b"").await;
    let mut first = held.remove(0);
    let closed = tokio::time::timeout(TIMEOUT, first.read_u8())
        .await
        .unwrap();
    assert!(closed.is_err(), "the oldest idle connection is closed");
    let mut last = held.pop().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: jit\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a4_metrics_need_a_token_on_the_main_address() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let with = async |token: &str| {
        let given = vec![("authorization", token.to_owned())];
        caller.send("GET", "/metrics", given, vec![]).await
    };
    assert!(caller.metrics().await.text.contains("jit_store_up 1"));
    caller.send("GET", "/metrics", vec![], vec![]).await.is(401);
    for wrong in [
        "Bearer ",
        "Bearer x",
        METRICS_TOKEN,
        &format!("bearer {METRICS_TOKEN}x"),
    ] {
        with(wrong).await.is(401);
    }
    // A wrong token of /metrics is no wrong token of a slash command.
    let metrics = caller.metrics().await.text;
    for counted in ["{reason=\"metrics_token\"} 5", "{reason=\"token\"} 0"] {
        assert!(metrics.contains(counted), "{metrics}");
    }
}

#[tokio::test]
async fn a4_metrics_are_open_on_their_own_address_only() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = port.local_addr().unwrap();
    drop(port);
    let folder = without_metrics_token();
    let jit = Jit::start_with(folder, &[("JIT_SERVER__METRICS_LISTEN", own.to_string())]);
    let refused = jit.caller().send("GET", "/metrics", vec![], vec![]).await;
    refused.is(404);
    let page = reqwest::get(format!("http://{own}/metrics")).await.unwrap();
    assert!(page.text().await.unwrap().contains("jit_store_up 1"));
    let other = reqwest::get(format!("http://{own}/requests"))
        .await
        .unwrap();
    assert_eq!(other.status(), 404);
}

#[tokio::test]
async fn a4_metrics_answer_404_without_configuration() {
    let folder = without_metrics_token();
    let jit = Jit::start_with(folder, &[]);
    let refused = jit.caller().metrics().await.is(404);
    assert_eq!(refused["code"], "no_such_route");
    jit.logs("/metrics answers 404: set server.metrics_listen or server.metrics_token");
}

#[tokio::test]
async fn a5_an_unsigned_call_with_a_long_path_logs_a_short_line() {
    let jit = Setup::default().start();
    let path = format!("/requests/{}/revoke", "x".repeat(20_000));
    let refused = jit.caller().send("POST", &path, vec![], vec![]).await;
    assert_eq!(refused.status, 401, "{refused:?}");
    jit.logs("call not accepted as signed");
    let log = jit.log();
    let longest = log.lines().map(str::len).max();
    assert!(longest < Some(1_000), "{longest:?}");
}

#[tokio::test]
async fn a5_the_log_has_a_sample_of_many_refusals() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    for _ in 0..60 {
        let body = wanted(&json!({})).to_string().into_bytes();
        caller.send("POST", "/requests", vec![], body).await.is(401);
    }
    let metrics = caller.metrics().await.text;
    let counted = "jit_signature_refusals_total{reason=\"header\"} 60";
    assert!(metrics.contains(counted), "{metrics}");
    let log = jit.log();
    let logged = log.matches("call not accepted as signed").count();
    // The minute may end during the test.
    assert!((20..=40).contains(&logged), "{logged}");
}
