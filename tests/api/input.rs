//! Bad input gets the status of CONTRACT and a message with the cause; it changes nothing and is
//! never answered with a 500.

use serde_json::{Value, json};

use crate::common::{ACCOUNT, CHANNEL, Setup, wanted};

async fn nothing_was_made(caller: &crate::common::Caller) {
    let list = caller
        .get(&format!("/requests?channel_id={CHANNEL}"))
        .await
        .is(200);
    assert_eq!(list["items"], json!([]));
}

fn accounts_and_people() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"account_id": null}), "account_id"),
        (json!({"account_id": 111122223333_u64}), "account_id"),
        (json!({"account_id": "1111222233334"}), "account_id"),
        (json!({"account_id": "11112222333"}), "account_id"),
        (json!({"account_id": "11112222333a"}), "account_id"),
        (json!({"account_id": ""}), "account_id"),
        (json!({"channel_id": null}), "channel_id"),
        (json!({"channel_id": "a b"}), "channel_id"),
        (json!({"channel_id": "c".repeat(65)}), "channel_id"),
        (
            json!({"requester_mm_user_id": null}),
            "requester_mm_user_id",
        ),
        (json!({"requester_mm_user_id": ""}), "requester_mm_user_id"),
        (json!({"requester_email": null}), "requester_email"),
        (json!({"requester_email": "alice"}), "requester_email"),
        (
            json!({"requester_email": ["alice@example.com"]}),
            "requester_email",
        ),
        (
            json!({"requester_email": "a\u{7}@example.com"}),
            "requester_email",
        ),
    ]
}

fn durations() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"requested_duration_minutes": null}),
            "requested_duration_minutes",
        ),
        (
            json!({"requested_duration_minutes": 0}),
            "requested_duration_minutes",
        ),
        (
            json!({"requested_duration_minutes": -5}),
            "requested_duration_minutes",
        ),
        (
            json!({"requested_duration_minutes": 1.5}),
            "requested_duration_minutes",
        ),
        (
            json!({"requested_duration_minutes": "60"}),
            "requested_duration_minutes",
        ),
        (
            json!({"requested_duration_minutes": i64::MAX}),
            "requested_duration_minutes",
        ),
        (
            json!({"requested_duration_minutes": u64::MAX}),
            "requested_duration_minutes",
        ),
        (
            json!({"requested_duration_minutes": 1e300}),
            "requested_duration_minutes",
        ),
        (json!({"requested_duration_minutes": 241}), "240"),
    ]
}

fn reasons_sets_and_starts() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"reason": null}), "reason"),
        (json!({"reason": ""}), "reason"),
        (json!({"reason": "x".repeat(1001)}), "reason"),
        (json!({"reason": "a\u{0}b"}), "reason"),
        (json!({"reason": "\u{1b}[31mred"}), "reason"),
        (json!({"reason": 5}), "reason"),
        (json!({"jira": {"key": "OPS-1"}}), "jira"),
        (json!({"permission_set": "root"}), "root"),
        (
            json!({"permission_set": "arn:aws:sso:::permissionSet/a/b"}),
            "permission_set",
        ),
        (json!({"start_at": "tomorrow"}), "start_at"),
    ]
}

#[tokio::test]
async fn an_invalid_request_is_400_and_names_the_field() {
    let (_jit, caller) = Setup::default().bound().await;
    let all = [
        accounts_and_people(),
        durations(),
        reasons_sets_and_starts(),
    ];
    for (changes, names) in all.concat() {
        let told = caller.post("/requests", &wanted(&changes)).await.is(400);
        let message = told["message"].as_str().unwrap();
        assert!(message.contains(names), "{changes}: {message}");
        assert!(
            !message.contains("line 1 column"),
            "the message does not help a person: {message}"
        );
    }
    nothing_was_made(&caller).await;
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_400() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let twice = format!("{} {}", wanted(&json!({})), wanted(&json!({})));
    for body in [
        "",
        "{",
        "null",
        "[]",
        "5",
        "\"x\"",
        "{\"account_id\"",
        "\u{feff}{}",
        &deep,
        &twice,
    ] {
        caller.call("POST", "/requests", body).await.is(400);
    }
    nothing_was_made(&caller).await;
}

#[tokio::test]
async fn wrong_size_content_type_method_and_path_have_their_status() {
    let (_jit, caller) = Setup::default().bound().await;
    // The server checks the size first, before the signature: 413.
    let huge = "x".repeat(1 << 20);
    caller.call("POST", "/requests", &huge).await.is(413);
    caller
        .send("POST", "/requests", vec![], huge.into_bytes())
        .await
        .is(413);
    let most = 64 * 1024;
    let edge = wanted(&json!({"reason": "r"})).to_string();
    let padded = format!("{edge}{}", " ".repeat(most - edge.len()));
    caller.call("POST", "/requests", &padded).await.is(201);
    caller
        .call("POST", "/requests", &format!("{padded} "))
        .await
        .is(413);

    let body = wanted(&json!({})).to_string();
    let signing = caller.signing();
    let mac = signing.v1("POST", "/requests", body.as_bytes());
    let mut headers = signing.headers(mac);
    headers.push(("Content-Type", "text/plain".into()));
    caller
        .send("POST", "/requests", headers, body.clone().into())
        .await
        .is(415);

    caller.get("/nowhere").await.is(404);
    caller.get("/requests/").await.is(404);
    assert_eq!(caller.call("DELETE", "/requests", "").await.status, 405);
    assert_eq!(caller.call("PUT", "/healthz", "").await.status, 405);
}

#[tokio::test]
async fn an_unknown_request_id_is_404() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let act = json!({
        "approver_mm_user_id": "bob", "approver_email": "bob@example.com",
        "denier_mm_user_id": "bob", "denier_email": "bob@example.com",
        "actor_mm_user_id": "bob", "actor_email": "bob@example.com",
        "additional_minutes": 5,
    });
    for id in [
        "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
        "req-1",
        "%00",
        "..",
        "config",
        "%2e%2e",
    ] {
        for step in ["approve", "deny", "revoke", "cancel", "extend"] {
            let reply = caller.post(&format!("/requests/{id}/{step}"), &act).await;
            assert!(reply.status == 404, "{id}/{step}: {reply:?}");
        }
    }
    for path in [
        "/requests/req-1",
        "/requests/a1b2c3d4-e5f6-7890-abcd-ef1234567890/audit",
    ] {
        caller.get(path).await.is(404);
    }
}

#[tokio::test]
async fn a_command_without_its_actor_is_refused() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = caller.request().await;
    for (step, role) in [
        ("approve", "approver"),
        ("deny", "denier"),
        ("revoke", "actor"),
        ("cancel", "actor"),
        ("extend", "actor"),
    ] {
        let whole = json!({
            format!("{role}_mm_user_id"): "bob",
            format!("{role}_email"): "bob@example.com",
            "additional_minutes": 5,
        });
        for field in [format!("{role}_mm_user_id"), format!("{role}_email")] {
            for bad in [Value::Null, json!(""), json!(5), json!("a\u{0}b")] {
                let mut body = whole.clone();
                body[&field] = bad;
                let told = caller
                    .post(&format!("/requests/{id}/{step}"), &body)
                    .await
                    .is(400);
                assert!(told["message"].as_str().unwrap().contains(&field), "{told}");
            }
        }
    }
    for minutes in [json!(0), json!(-1), json!("5"), Value::Null, json!(1e18)] {
        let body = json!({"actor_mm_user_id": "alice", "actor_email": "alice@example.com",
                          "additional_minutes": minutes});
        caller
            .post(&format!("/requests/{id}/extend"), &body)
            .await
            .is(400);
    }
    assert_eq!(caller.show(&id).await["status"], "PENDING");
    assert_eq!(caller.kinds(&id).await, ["REQUESTED"]);
}

#[tokio::test]
async fn invalid_terms_of_a_binding_are_400() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    for changes in [
        json!({"channel_id": "a b"}),
        json!({"account_id": "12"}),
        json!({"approvals_required": 0}),
        json!({"approvals_required": -1}),
        json!({"approvals_required": 21}),
        json!({"approvals_required": "2"}),
        json!({"allow_self_approval": "yes"}),
        json!({"max_request_hours": 0}),
        json!({"max_request_hours": 1.5}),
        json!({"permission_sets": ["root"]}),
        json!({"permission_sets": "admin"}),
        json!({"actor_mm_user_id": "bob"}),
        json!({"actor_email": "bob@example.com"}),
    ] {
        let mut body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        caller.post("/config/bind", &body).await.is(400);
    }
    for approvers in [
        json!([]),
        json!("bob"),
        json!(["a b"]),
        json!([5]),
        Value::Null,
    ] {
        let body = json!({"channel_id": CHANNEL, "approver_ids": approvers});
        let reply = caller.post("/config/approvers", &body).await;
        assert!(reply.status == 400, "{approvers}: {reply:?}");
    }
    let accounts = caller
        .get(&format!("/config/accounts?channel_id={CHANNEL}"))
        .await
        .is(200);
    assert_eq!(accounts, json!([]));
}

#[tokio::test]
async fn invalid_idempotency_keys_are_400() {
    let (_jit, caller) = Setup::default().bound().await;
    let body = wanted(&json!({})).to_string();
    for keys in [vec![""], vec!["a", "b"], vec![&*"k".repeat(256)]] {
        let signing = caller.signing();
        let mac = signing.v1("POST", "/requests", body.as_bytes());
        let mut headers = signing.headers(mac);
        for key in &keys {
            headers.push(("Idempotency-Key", (*key).to_owned()));
        }
        caller
            .send("POST", "/requests", headers, body.clone().into())
            .await
            .is(400);
    }
    nothing_was_made(&caller).await;
}
