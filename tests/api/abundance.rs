//! A key, or a person, that makes more requests than anybody needs: jit refuses the rest, and
//! every other call still works.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::common::{ACCOUNT, CHANNEL, Caller, Jit, Reply, SECRET, Setup, TIMEOUT, wanted};

fn with_a_low_rate() -> Setup {
    Setup {
        more: format!("[keys.other]\nsecret = \"{SECRET}-other\"\n"),
        variables: vec![
            ("JIT_SERVER__CREATES_PER_SECOND", "1".into()),
            ("JIT_SERVER__CREATE_BURST", "5".into()),
        ],
        ..Setup::default()
    }
}

/// Makes requests until jit refuses one. The rate is one a second, so a refusal comes soon.
async fn until_refused(caller: &Caller) -> Reply {
    let begun = Instant::now();
    loop {
        let wanted = wanted(&json!({}));
        let replies = join_all((0..10).map(|_| caller.post("/requests", &wanted))).await;
        if let Some(refused) = replies.into_iter().find(|reply| reply.status != 201) {
            return refused;
        }
        assert!(begun.elapsed() < TIMEOUT, "every request was accepted");
    }
}

// A6
#[tokio::test(flavor = "multi_thread")]
async fn a6_a_key_beyond_its_rate_makes_no_requests_and_still_revokes() {
    let (jit, caller) = with_a_low_rate().bound().await;
    let granted = caller.granted().await;
    let waiting = caller.request().await;
    let refused = until_refused(&caller).await;
    assert_eq!(refused.headers["retry-after"], "1");
    let told = refused.is(429);
    assert_eq!(told["code"], "too_many");
    assert!(
        told["message"].as_str().unwrap().contains("plugin"),
        "{told}"
    );

    until_refused(&caller).await;
    caller.revoke(&granted).await.is(200);
    caller.deny(&waiting).await.is(200);
    Caller::new(&jit.url, "other", &format!("{SECRET}-other"))
        .request()
        .await;
}

/// A6: the nonce of a call that the rate refused is not spent, so the caller sends it again.
#[tokio::test(flavor = "multi_thread")]
async fn a6_a_call_refused_by_the_rate_is_accepted_later_as_it_is() {
    let (_jit, caller) = with_a_low_rate().bound().await;
    until_refused(&caller).await;
    let signing = caller.signing();
    let body = wanted(&json!({})).to_string();
    let mac = signing.v2("POST", "/requests", "", body.as_bytes());
    let begun = Instant::now();
    loop {
        let headers = signing.headers(mac.clone());
        let sent = caller.send("POST", "/requests", headers, body.clone().into_bytes());
        let reply = sent.await;
        if reply.status != 429 {
            reply.is(201);
            return;
        }
        assert!(begun.elapsed() < TIMEOUT, "{reply:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// A6
#[tokio::test(flavor = "multi_thread")]
async fn a6_a_person_has_a_limited_number_of_pending_requests() {
    let setup = Setup::with("[policy]\nmax_pending_requests = 3\n");
    let (_jit, caller) = setup.bound().await;
    let signing = caller.signing();
    let body = wanted(&json!({})).to_string();
    let mac = signing.v1("POST", "/requests", body.as_bytes());
    let mut headers = signing.headers(mac);
    headers.push(("Idempotency-Key", "first".into()));
    let first = caller.send("POST", "/requests", headers, body.clone().into_bytes());
    let first = first.await.is(201)["request_id"].clone();
    let [second, third] = [caller.request().await, caller.request().await];
    for _ in 0..3 {
        let told = caller.post("/requests", &wanted(&json!({}))).await.is(409);
        assert_eq!(told["code"], "wrong_state");
        let message = told["message"].as_str().unwrap();
        assert!(
            message.contains("alice@example.com has 3 requests PENDING by this key"),
            "{message}"
        );
    }
    // The answer to a repeated call is no new request.
    let signing = caller.signing();
    let mut headers = signing.headers(signing.v1("POST", "/requests", body.as_bytes()));
    headers.push(("Idempotency-Key", "first".into()));
    let again = caller.send("POST", "/requests", headers, body.into_bytes());
    assert_eq!(again.await.is(201)["request_id"], first);

    let other = json!({"requester_mm_user_id": "dave", "requester_email": "dave@example.com"});
    caller.request_with(other).await;
    caller.approve(&second).await.is(200);
    caller.request().await;
    caller.cancel(&third).await.is(200);
    caller.request().await;
    caller.post("/requests", &wanted(&json!({}))).await.is(409);
}

// A15: the key names the person itself.
#[tokio::test(flavor = "multi_thread")]
async fn a15_a_key_uses_up_the_pending_requests_of_no_other_key() {
    let setup = Setup {
        more: format!(
            "[policy]\nmax_pending_requests = 3\n[keys.other]\nsecret = \"{SECRET}-other\"\n"
        ),
        ..Setup::default()
    };
    let (jit, _) = setup.bound().await;
    let other = Caller::new(&jit.url, "other", &format!("{SECRET}-other"));
    for _ in 0..3 {
        other.request().await;
    }
    other.post("/requests", &wanted(&json!({}))).await.is(409);
    // jit counts after a start as well.
    let jit = Jit::start_in(jit.kill());
    let caller = jit.caller();
    let other = Caller::new(&jit.url, "other", &format!("{SECRET}-other"));
    for key in [&caller, &other] {
        for _ in 0..3 {
            key.request().await;
        }
        key.post("/requests", &wanted(&json!({}))).await.is(409);
    }
}

/// A9: a captured call, sent again without the secret, does not use up the rate of its key.
#[tokio::test(flavor = "multi_thread")]
async fn a9_replays_use_up_no_rate() {
    let (_jit, caller) = with_a_low_rate().bound().await;
    let signing = caller.signing();
    let body = wanted(&json!({})).to_string();
    let mac = signing.v2("POST", "/requests", "", body.as_bytes());
    let send = || {
        let headers = signing.headers(mac.clone());
        caller.send("POST", "/requests", headers, body.clone().into_bytes())
    };
    send().await.is(201);
    for _ in 0..20 {
        send().await.is(401);
    }
    caller.request().await;
}

/// A6: an unbind with very many pending requests cancels them in steps.
#[tokio::test(flavor = "multi_thread")]
async fn a6_an_unbind_cancels_each_of_many_pending_requests() {
    let (_jit, caller) = Setup::default().bound().await;
    let made = join_all((0..450).map(|number| {
        let email = format!("user{number}@example.com");
        let asked =
            json!({"requester_mm_user_id": format!("user{number}"), "requester_email": email});
        let caller = &caller;
        async move { caller.request_with(asked).await }
    }));
    assert_eq!(made.await.len(), 450);
    let body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    caller.post("/config/unbind", &body).await.is(200);
    let left = caller.get("/requests?status=PENDING").await.is(200);
    assert_eq!(left["items"], json!([]));
    let mut cancelled = 0;
    let mut path = "/requests?status=CANCELLED&limit=200".to_owned();
    loop {
        let page = caller.get(&path).await.is(200);
        cancelled += page["items"].as_array().unwrap().len();
        let Some(next) = page["next_token"].as_str() else {
            break;
        };
        path = format!("/requests?status=CANCELLED&limit=200&next_token={next}");
    }
    assert_eq!(cancelled, 450);
}
