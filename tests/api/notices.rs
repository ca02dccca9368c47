//! What the channel hears: signed, in order, late if it must be, and never lost.

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

fn told(heard: &[Heard], id: &str) -> Vec<String> {
    let bodies = heard
        .iter()
        .map(Heard::json)
        .filter(|body| body["request_id"] == id);
    bodies
        .map(|body| body["status"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_plugin_can_verify_it_and_so_can_any_library() {
    let channel = Channel::open().await;
    let (_jit, caller) = start(&channel, "").await;
    let id = caller.granted().await;
    let heard = channel.hears(1).await.remove(0);
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

    // As the plugin does: v1, over the path that Mattermost lets it see.
    assert_eq!(heard.header("x-jit-keyid"), "backend");
    let signing = Signing {
        key_id: "backend",
        secret: HOOK_SECRET,
        timestamp: heard.header("x-jit-timestamp").parse().unwrap(),
        nonce: heard.header("x-jit-nonce").to_owned(),
    };
    let expected = signing.v1("POST", "/webhook", &heard.body);
    assert_eq!(heard.header("x-jit-signature"), expected);

    // As Standard Webhooks does.
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
async fn every_end_is_told() {
    let channel = Channel::open().await;
    let (_jit, caller) = start(&channel, "").await;
    let denied = caller.request().await;
    caller.deny(&denied).await.is(200);
    let revoked = caller.granted().await;
    caller.revoke(&revoked).await.is(200);
    let heard = channel.hears(3).await;
    assert_eq!(told(&heard, &denied), ["DENIED"]);
    assert_eq!(told(&heard, &revoked), ["GRANTED", "REVOKED"]);
    let last = heard
        .iter()
        .map(Heard::json)
        .find(|body| body["status"] == "REVOKED")
        .unwrap();
    assert_eq!(last["actor"], "bob@example.com");
    assert_eq!(last["details"]["reason"], "incident");
}

// A dead receiver delays no grant and no revoke; what happened is told later, in order.
#[tokio::test]
async fn a_receiver_that_fails_or_hangs_delays_nobody_and_misses_nothing() {
    for answer in [Answer::Fails, Answer::Hangs] {
        let channel = Channel::open().await;
        channel.answers(answer);
        let (jit, caller) = start(&channel, "").await;
        let id = caller.granted().await;
        let revoked = caller.revoke(&id).await.is(200);
        assert_eq!(revoked["status"], "REVOKED");
        let metrics = caller.send("GET", "/metrics", vec![], vec![]).await.text;
        assert!(metrics.contains("jit_undelivered_notices 2"), "{metrics}");
        assert!(channel.heard().is_empty());
        channel.answers(Answer::Ok);
        // Nobody waits for the next attempt here: a restart lets go of what hangs.
        let jit = Jit::start_in(jit.kill());
        let heard = channel
            .hears_when(|heard| told(heard, &id).len() >= 2)
            .await;
        assert_eq!(
            told(&heard, &id),
            ["GRANTED", "REVOKED"],
            "{answer:?}: {}",
            jit.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_tried_again_by_itself() {
    let channel = Channel::open().await;
    channel.answers(Answer::Fails);
    let (jit, caller) = start(&channel, "").await;
    let id = caller.request().await;
    caller.deny(&id).await.is(200);
    jit.logs("notice not received");
    channel.answers(Answer::Ok);
    let heard = channel.hears(1).await;
    assert_eq!(told(&heard, &id), ["DENIED"]);
    assert!(!jit.log().contains(HOOK_SECRET));
}
