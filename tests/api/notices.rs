//! Notices of the real binary to its webhook: signed, in order, repeated after a failure, and never
//! lost.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::common::{Answer, CHANNEL, Caller, Channel, HOOK_SECRET, Heard, Jit, Setup, Signing};

async fn start(channel: &Channel, more: &str) -> (Jit, Caller) {
    let webhook = Some(channel.url.clone());
    let (jit, caller) = Setup {
        webhook,
        more: more.to_owned(),
        ..Setup::default()
    }
    .bound()
    .await;
    (jit, caller)
}

fn statuses(heard: &[Heard], id: &str) -> Vec<String> {
    let bodies = heard
        .iter()
        .map(Heard::json)
        .filter(|body| body["request_id"] == id);
    bodies
        .map(|body| body["status"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_notice_verifies_as_v1_and_as_a_standard_webhook() {
    let channel = Channel::open().await;
    let (_jit, caller) = start(&channel, "").await;
    let id = caller.granted().await;
    let heard = channel.wait_for(1).await.remove(0);
    let body = heard.json();
    assert_eq!(heard.path, "/plugins/com.example.jit/webhook");
    assert_eq!(
        (&body["request_id"], &body["status"]),
        (&id.as_str().into(), &"GRANTED".into())
    );
    assert_eq!(
        (&body["account_id"], &body["channel_id"]),
        (&"111122223333".into(), &CHANNEL.into())
    );
    assert!(body["actor"].is_string());
    let details = body["details"].as_object().unwrap();
    assert!(
        details.values().all(serde_json::Value::is_string),
        "{details:?}"
    );
    assert!(details.contains_key("end_time"), "{details:?}");

    // The plugin verifies v1, over the path that Mattermost passes to it.
    assert_eq!(heard.header("x-jit-keyid"), "backend");
    let signing = Signing {
        key_id: "backend",
        secret: HOOK_SECRET,
        timestamp: heard.header("x-jit-timestamp").parse().unwrap(),
        nonce: heard.header("x-jit-nonce").to_owned(),
    };
    let expected = signing.v1("POST", "/webhook", &heard.body);
    assert_eq!(heard.header("x-jit-signature"), expected);

    // A library for Standard Webhooks verifies the same notice.
    let (id, time) = (
        heard.header("webhook-id"),
        heard.header("webhook-timestamp"),
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(HOOK_SECRET.as_bytes()).unwrap();
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(&heard.body);
    let signature = heard
        .header("webhook-signature")
        .strip_prefix("v1,")
        .unwrap();
    use base64::Engine;
    let signature = base64::engine::general_purpose::STANDARD
        .decode(signature)
        .unwrap();
    mac.verify_slice(&signature).unwrap();
}

// G13, E12
#[tokio::test]
async fn every_final_state_makes_a_notice() {
    let channel = Channel::open().await;
    let (_jit, caller) = start(&channel, "").await;
    let denied = caller.request().await;
    caller.deny(&denied).await.is(200);
    let revoked = caller.granted().await;
    caller.revoke(&revoked).await.is(200);
    let heard = channel.wait_for(3).await;
    assert_eq!(statuses(&heard, &denied), ["DENIED"]);
    assert_eq!(statuses(&heard, &revoked), ["GRANTED", "REVOKED"]);
    let last = heard
        .iter()
        .map(Heard::json)
        .find(|body| body["status"] == "REVOKED")
        .unwrap();
    assert_eq!(last["actor"], "bob@example.com");
    assert_eq!(last["details"]["reason"], "incident");
}

// A receiver that fails or hangs delays no grant and no revoke; the notices are delivered later, in
// order.
#[tokio::test]
async fn a_failing_or_hanging_receiver_delays_no_request_and_gets_all_notices() {
    for answer in [Answer::Fails, Answer::Hangs] {
        let channel = Channel::open().await;
        channel.answers(answer);
        let (jit, caller) = start(&channel, "").await;
        let id = caller.granted().await;
        let revoked = caller.revoke(&id).await.is(200);
        assert_eq!(revoked["status"], "REVOKED");
        let metrics = caller.metrics().await.text;
        assert!(metrics.contains("jit_undelivered_notices 2"), "{metrics}");
        assert!(channel.received().is_empty());
        channel.answers(Answer::Ok);
        // A restart ends the delivery that hangs, so the test does not wait for the next attempt.
        let jit = Jit::start_in(jit.kill());
        let heard = channel
            .wait_until(|heard| statuses(heard, &id).len() >= 2)
            .await;
        assert_eq!(
            statuses(&heard, &id),
            ["GRANTED", "REVOKED"],
            "{answer:?}: {}",
            jit.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_notice_is_delivered_again() {
    let channel = Channel::open().await;
    channel.answers(Answer::Fails);
    let (jit, caller) = start(&channel, "").await;
    let id = caller.request().await;
    caller.deny(&id).await.is(200);
    jit.logs("notice not received");
    channel.answers(Answer::Ok);
    let heard = channel.wait_for(1).await;
    assert_eq!(statuses(&heard, &id), ["DENIED"]);
    assert!(!jit.log().contains(HOOK_SECRET));
}

// W13: jit read the secret of the webhook only when it started.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_webhook_secret_signs_the_next_notice_without_a_restart() {
    const OTHER: &str = "0011223344556677889900aabbccddee";
    let channel = Channel::open().await;
    let (jit, caller) = start(&channel, "").await;
    let config = jit.folder.path().join("jit.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(HOOK_SECRET, OTHER)).unwrap();
    jit.comes_to_log("webhook.secret").await;
    let id = caller.request().await;
    caller.deny(&id).await.is(200);
    let heard = channel.wait_for(1).await.remove(0);
    let signing = Signing {
        key_id: "backend",
        secret: OTHER,
        timestamp: heard.header("x-jit-timestamp").parse().unwrap(),
        nonce: heard.header("x-jit-nonce").to_owned(),
    };
    let expected = signing.v1("POST", "/webhook", &heard.body);
    assert_eq!(heard.header("x-jit-signature"), expected);
    assert!(!jit.log().contains(OTHER));
}
