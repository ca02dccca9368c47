//! A call without a valid signature changes nothing, and its error has no detail.

use serde_json::json;

use crate::common::{CHANNEL, Caller, Jit, SECRET, Setup, Signing, nonce, now, wanted};
use jit::http::Takes;

const REVOKE: &str = r#"{"actor_mm_user_id":"bob","actor_email":"bob@example.com"}"#;

/// A granted request, and the path and body of a call that would revoke it.
async fn granted() -> (Jit, Caller, String, String) {
    let (jit, caller) = Setup::default().bound().await;
    let id = caller.granted().await;
    let path = format!("/requests/{id}/revoke");
    (jit, caller, id, path)
}

fn signing(nonce: String) -> Signing<'static> {
    Signing {
        key_id: "plugin",
        secret: SECRET,
        timestamp: now(),
        nonce,
    }
}

/// The headers of a correct call.
fn correct(path: &str, body: &str) -> Vec<(&'static str, String)> {
    let signing = signing(nonce());
    let mac = signing.v1("POST", path, body.as_bytes());
    signing.headers(mac)
}

async fn refused(
    caller: &Caller,
    method: &str,
    path: &str,
    headers: Vec<(&str, String)>,
    body: &str,
) {
    let reply = caller
        .send(method, path, headers.clone(), body.as_bytes().to_vec())
        .await;
    let told = reply.is(401);
    // The error does not say which check failed.
    assert_eq!(told["code"], "unsigned", "{headers:?}");
    assert_eq!(
        told["message"], "the call has no valid signature",
        "{headers:?}"
    );
}

// P5, G1
#[tokio::test]
async fn unsigned_and_altered_calls_change_nothing() {
    let (jit, caller, id, path) = granted().await;
    let good = |body: &str| correct(&path, body);

    refused(&caller, "POST", &path, vec![], REVOKE).await;
    // Each header is missing, doubled or empty.
    for at in 0..4 {
        let mut missing = good(REVOKE);
        missing.remove(at);
        refused(&caller, "POST", &path, missing, REVOKE).await;
        let mut doubled = good(REVOKE);
        doubled.push(doubled[at].clone());
        refused(&caller, "POST", &path, doubled, REVOKE).await;
        let mut empty = good(REVOKE);
        empty[at].1 = String::new();
        refused(&caller, "POST", &path, empty, REVOKE).await;
    }
    // Each signed part is altered.
    let altered = [
        ("X-JIT-KeyID", "nobody"),
        ("X-JIT-Timestamp", "1"),
        ("X-JIT-Nonce", "other"),
    ];
    for (at, (_, value)) in altered.iter().enumerate() {
        let mut headers = good(REVOKE);
        headers[at].1 = (*value).to_owned();
        refused(&caller, "POST", &path, headers, REVOKE).await;
    }
    for mac in [
        "0".repeat(64),
        "x".into(),
        format!("v2={}", "0".repeat(64)),
        "A".repeat(64),
    ] {
        let mut headers = good(REVOKE);
        headers[3].1 = mac;
        refused(&caller, "POST", &path, headers, REVOKE).await;
    }
    let other_body = REVOKE.replace("bob", "eve");
    refused(&caller, "POST", &path, good(REVOKE), &other_body).await;
    let other_path = format!("/requests/{id}/deny");
    refused(&caller, "POST", &other_path, good(REVOKE), REVOKE).await;
    assert_eq!(caller.show(&id).await["status"], "GRANTED", "{}", jit.log());
}

// P5, G1
#[tokio::test]
async fn stale_and_replayed_calls_change_nothing() {
    let (jit, caller, id, path) = granted().await;
    // The timestamp is too old or in the future, with a correct signature.
    for away in [-301, 301, -86_400, i64::from(i32::MAX)] {
        let signing = Signing {
            timestamp: now() + away,
            ..signing(nonce())
        };
        let mac = signing.v1("POST", &path, REVOKE.as_bytes());
        refused(&caller, "POST", &path, signing.headers(mac), REVOKE).await;
    }
    let long = Signing {
        nonce: "n".repeat(129),
        ..signing(String::new())
    };
    let mac = long.v1("POST", &path, REVOKE.as_bytes());
    refused(&caller, "POST", &path, long.headers(mac), REVOKE).await;

    assert_eq!(caller.show(&id).await["status"], "GRANTED", "{}", jit.log());
    let headers = correct(&path, REVOKE);
    caller
        .send("POST", &path, headers.clone(), REVOKE.into())
        .await
        .is(200);
    refused(&caller, "POST", &path, headers, REVOKE).await;
}

// G1: the same signed call under the id of another key; the older product accepted it five times.
#[tokio::test]
async fn a_replay_under_another_key_id_is_refused() {
    let (_jit, caller) =
        Setup::with("[keys.other]\nsecret = \"another-secret-another-secret-aa\"\n")
            .bound()
            .await;
    let id = caller.request().await;
    let path = format!("/requests/{id}/approve");
    let body = r#"{"approver_mm_user_id":"bob","approver_email":"bob@example.com"}"#;
    let spent = nonce();
    let first = signing(spent.clone());
    let mac = first.v1("POST", &path, body.as_bytes());
    let headers = first.headers(mac);
    caller
        .send("POST", &path, headers.clone(), body.into())
        .await
        .is(200);
    for key_id in ["other", "nobody"] {
        let mut replayed = headers.clone();
        replayed[0].1 = key_id.into();
        refused(&caller, "POST", &path, replayed, body).await;
    }
    // A nonce counts once for all keys, also if the other key signs correctly.
    let other = Signing {
        key_id: "other",
        secret: "another-secret-another-secret-aa",
        timestamp: now(),
        nonce: spent,
    };
    let mac = other.v1("GET", &format!("/requests/{id}"), b"");
    refused(
        &caller,
        "GET",
        &format!("/requests/{id}"),
        other.headers(mac),
        "",
    )
    .await;
}

// P5: the server stores a nonce only after it has verified the signature.
#[tokio::test]
async fn a_call_with_a_bad_signature_spends_no_nonce() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let path = format!("/config/accounts?channel_id={CHANNEL}");
    let signing = signing(nonce());
    let mac = signing.v1("GET", "/config/accounts", b"");
    let mut forged = signing.headers(mac.clone());
    forged[3].1 = "0".repeat(64);
    refused(&caller, "GET", &path, forged, "").await;
    caller
        .send("GET", &path, signing.headers(mac), vec![])
        .await
        .is(200);
}

#[tokio::test]
async fn a_spent_nonce_stays_spent_after_a_restart_and_a_kill() {
    let (jit, caller, _, path) = granted().await;
    let signing = signing(nonce());
    let mac = signing.v1("POST", &path, REVOKE.as_bytes());
    let headers = signing.headers(mac);
    caller
        .send("POST", &path, headers.clone(), REVOKE.into())
        .await
        .is(200);
    let folder = jit.kill();
    let jit = Jit::start_in(folder);
    refused(&jit.caller(), "POST", &path, headers, REVOKE).await;
}

// G2: v2 signs the query, in any order of its parameters.
#[tokio::test]
async fn an_altered_query_is_refused_under_v2() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let signed = |query: &str| {
        let signing = signing(nonce());
        let mac = signing.v2("GET", "/requests", query, b"");
        signing.headers(mac)
    };
    let canonical = "channel_id=town-square&status=GRANTED";
    let as_sent = "/requests?status=GRANTED&channel_id=town%2Dsquare";
    caller
        .send("GET", as_sent, signed(canonical), vec![])
        .await
        .is(200);
    for altered in [
        "/requests?status=PENDING&channel_id=town-square",
        "/requests?status=GRANTED",
        "/requests?status=GRANTED&channel_id=town-square&limit=1",
    ] {
        refused(&caller, "GET", altered, signed(canonical), "").await;
    }
}

// CONTRACT §2: coverage: every signed route refuses a call without a signature.
#[tokio::test]
async fn every_route_refuses_an_unsigned_call() {
    let mattermost = "[mattermost]\nurl = \"http://127.0.0.1:9\"\npublic_url = \"http://127.0.0.1:9\"\nbot_token = \"j6uwcwf9gigxjfcdfidacg8tkc\"\n\
         team_id = \"w1gu5cusqjgfppy84xsohzij6o\"\ncommand_tokens = [\"pssxxjqabt8a7e1mgdia9jw9wh\"]";
    let jit = Setup::with(mattermost).start();
    let caller = jit.caller();
    let mut open = 0;
    for route in jit::http::ROUTES {
        let path = route
            .path
            .replace("{id}", "a1b2c3d4-e5f6-7890-abcd-ef1234567890");
        let body = if route.method == "POST" { "{}" } else { "" };
        match route.takes {
            Takes::Signature(_) | Takes::CommandToken | Takes::Seal | Takes::MetricsToken => {
                refused(&caller, route.method, &path, vec![], body).await;
            }
            Takes::Nothing => {
                open += 1;
                let reply = caller.send(route.method, &path, vec![], vec![]).await;
                assert_eq!(reply.status, 200, "{path}: {reply:?}");
            }
        }
    }
    assert_eq!(open, 2, "only healthz and readyz are open");
}

#[tokio::test]
async fn signature_refusals_are_counted_by_reason() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let series = |reason: &str| format!("jit_signature_refusals_total{{reason=\"{reason}\"}}");
    let metrics = caller.metrics().await.text;
    for reason in [
        "header",
        "unknown_key",
        "signature",
        "stale",
        "replayed",
        "key_expired",
    ] {
        assert!(
            metrics.contains(&format!("{} 0", series(reason))),
            "{reason}: {metrics}"
        );
    }
    refused(
        &caller,
        "POST",
        "/requests",
        vec![],
        &wanted(&json!({})).to_string(),
    )
    .await;
    let metrics = caller.metrics().await.text;
    assert!(
        metrics.contains(&format!("{} 1", series("header"))),
        "{metrics}"
    );
}
