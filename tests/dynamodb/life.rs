//! The life of a request on DynamoDB is the same as on SQLite.

use serde_json::json;

use crate::common::dynamo::Tables;
use crate::common::{ACCOUNT, CHANNEL, Channel, Jit, Setup};

async fn setup() -> Setup {
    Setup {
        dynamo: Some(Tables::fresh().await),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_granted_and_revoked_on_dynamodb() {
    let channel = Channel::open().await;
    let setup = Setup {
        webhook: Some(channel.url.clone()),
        ..setup().await
    };
    let (jit, caller) = setup.bound().await;
    let id = caller.granted().await;
    let revoked = caller.revoke(&id).await.is(200);
    assert_eq!(revoked["status"], "REVOKED");
    let told = channel.wait_for(2).await;
    let told: Vec<_> = told
        .iter()
        .map(|heard| heard.json()["status"].clone())
        .collect();
    assert_eq!(told, ["GRANTED", "REVOKED"]);
    let kinds = caller.kinds(&id).await;
    let life = [
        "REQUESTED",
        "APPROVED",
        "ASSIGNING",
        "GRANTED",
        "REVOKE_REQUESTED",
        "REVOKED",
    ];
    assert_eq!(kinds, life);

    // The store has the same state after a restart.
    let folder = jit.kill();
    let jit = Jit::start_with(folder, &setup.environment());
    assert_eq!(jit.caller().show(&id).await["status"], "REVOKED");
    let again = jit.caller().revoke(&id).await.is(409);
    assert!(again["message"].as_str().unwrap().contains("REVOKED"));
}

// P5, M4: a nonce counts once for all replicas together.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_call_is_accepted_once_by_all_replicas_together() {
    let setup = setup().await;
    let (one, caller) = setup.bound().await;
    let other = setup.start();
    let path = format!("/config/accounts?channel_id={CHANNEL}");
    let signing = caller.signing();
    let headers = signing.headers(signing.v1("GET", "/config/accounts", b""));
    let first = caller.send("GET", &path, headers.clone(), Vec::new()).await;
    assert_eq!(first.is(200)[0]["account_id"], ACCOUNT);
    for jit in [&one, &other] {
        let again = jit
            .caller()
            .send("GET", &path, headers.clone(), Vec::new())
            .await;
        again.is(401);
    }
}

// G17, G19
#[tokio::test(flavor = "multi_thread")]
async fn lists_apply_every_filter_and_page() {
    let (_jit, caller) = setup().await.bound().await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let who = if number % 2 == 0 { "alice" } else { "dana" };
        let email = format!("{who}@example.com");
        let asked = json!({"requester_mm_user_id": who, "requester_email": email});
        ids.push(caller.request_with(asked).await);
    }
    caller.deny(&ids[2]).await.is(200);
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/requests?channel_id={CHANNEL}&limit=2{token}");
        let page = caller.get(&path).await.is(200);
        let items = page["items"].as_array().unwrap();
        found.extend(
            items
                .iter()
                .map(|item| item["request_id"].as_str().unwrap().to_owned()),
        );
        match page["next_token"].as_str() {
            Some(next) => token = format!("&next_token={next}"),
            None => break,
        }
    }
    ids.reverse();
    assert_eq!(found, ids);
    for (filter, many) in [
        (format!("account_id={ACCOUNT}"), 7),
        ("requester_email=alice@example.com".into(), 4),
        ("status=PENDING".into(), 6),
        ("status=DENIED".into(), 1),
        ("status=DENIED&requester_email=dana@example.com".into(), 0),
        (
            format!("status=PENDING&requester_email=alice@example.com&channel_id={CHANNEL}"),
            3,
        ),
        ("start_date=2026-01-01".into(), 7),
        ("end_date=2026-01-01".into(), 0),
        ("status=EXPIRED".into(), 0),
    ] {
        let page = caller.get(&format!("/requests?{filter}")).await.is(200);
        assert_eq!(page["items"].as_array().unwrap().len(), many, "{filter}");
    }
}

/// The channel has more accounts than one transaction can write.
#[tokio::test(flavor = "multi_thread")]
async fn approvers_of_many_accounts_are_set_in_several_writes() {
    let (_jit, caller) = setup().await.start_with_accounts(100).await;
    let accounts = caller
        .get(&format!("/config/accounts?channel_id={CHANNEL}"))
        .await
        .is(200);
    let accounts = accounts.as_array().unwrap();
    assert_eq!(accounts.len(), 100);
    for account in accounts {
        assert_eq!(
            account["approver_mm_user_ids"],
            json!(["bob", "carol"]),
            "{account}"
        );
    }
    let key = format!("config%23{CHANNEL}");
    let kinds = caller.kinds(&key).await;
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "APPROVERS_SET").count(),
        3
    );
}
