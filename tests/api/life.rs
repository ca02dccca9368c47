//! The life of one request through the API, and every command in a state that refuses it.

use serde_json::json;

use crate::common::{ACCOUNT, CHANNEL, Jit, Setup, wanted};

#[tokio::test]
async fn a_request_is_approved_granted_and_revoked() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = caller.request().await;
    let asked = caller.show(&id).await;
    assert_eq!(asked["status"], "PENDING");
    assert!(asked["end_time"].is_string() && asked.get("approved_at").is_none());
    let approved = caller.approve(&id).await.is(200);
    assert_eq!(approved["approver_email"], "bob@example.com");
    let granted = caller.until(&id, "GRANTED").await;
    assert!(granted["grant_time"].is_string() && granted["identity_store_user_id"].is_string());
    assert_eq!(granted["assignment_status"], "PROVISIONED");
    let revoked = caller.revoke(&id).await.is(200);
    assert_eq!(revoked["status"], "REVOKED");
    assert_eq!(revoked["revoked_by"], "bob@example.com");
    assert_eq!(revoked["revoke_reason"], "incident");
    assert!(revoked["revoked_at"].is_string());
    let kinds = caller.kinds(&id).await;
    assert_eq!(
        kinds,
        [
            "REQUESTED",
            "APPROVED",
            "ASSIGNING",
            "GRANTED",
            "REVOKE_REQUESTED",
            "REVOKED"
        ]
    );
    assert_eq!(revoked["version"], kinds.len());
}

// E11: the store keeps a reason unchanged, with any characters.
#[tokio::test]
async fn reasons_are_stored_unchanged() {
    let (_jit, caller) = Setup::default().bound().await;
    let reason = "INC-42: db down: need psql — \"now\"\nsecond line";
    let id = caller
        .request_with(json!({"reason": reason, "jira": "OPS-1"}))
        .await;
    assert_eq!(caller.show(&id).await["reason"], reason);
    let events = caller.audit(&id).await;
    assert_eq!(events[0]["details"]["reason"], reason);
    // G17: the record of a denied request contains the reason of the deny.
    caller.deny(&id).await.is(200);
    let denied = caller.show(&id).await;
    assert_eq!(
        (&denied["status"], &denied["deny_reason"]),
        (&json!("DENIED"), &json!("too broad"))
    );
    let events = caller.audit(&id).await;
    assert_eq!(events.last().unwrap()["details"]["reason"], "too broad");
}

#[tokio::test]
async fn an_expired_grant_is_removed_and_recorded() {
    let (_jit, caller) = Setup::with("[policy]\npending_lifetime = \"1s\"\n")
        .bound()
        .await;
    // G7, E8: a pending request past its time limit is EXPIRED; a later approval is refused.
    let id = caller.request().await;
    let expired = caller.until(&id, "EXPIRED").await;
    assert!(expired["expired_at"].is_string());
    let refused = caller.approve(&id).await.is(409);
    assert!(refused["message"].as_str().unwrap().contains("EXPIRED"));
}

/// T6, E10: every command in every state that refuses it. The refusal names the state.
#[tokio::test]
async fn a_command_in_a_wrong_state_is_refused_and_names_the_state() {
    let (_jit, caller) = Setup {
        latency_ms: 0,
        ..Setup::default()
    }
    .bound()
    .await;
    let denied = caller.request().await;
    caller.deny(&denied).await.is(200);
    let cancelled = caller.request().await;
    caller.cancel(&cancelled).await.is(200);
    let granted = caller.granted().await;
    let revoked = caller
        .request_with(json!({"permission_set": "readonly"}))
        .await;
    caller.approve(&revoked).await.is(200);
    caller.until(&revoked, "GRANTED").await;
    caller.revoke(&revoked).await.is(200);
    for (id, status) in [
        (&denied, "DENIED"),
        (&cancelled, "CANCELLED"),
        (&granted, "GRANTED"),
        (&revoked, "REVOKED"),
    ] {
        let before = caller.show(id).await;
        for reply in [
            caller.approve(id).await,
            caller.deny(id).await,
            caller.cancel(id).await,
        ] {
            let refused = reply.is(409);
            assert!(
                refused["message"].as_str().unwrap().contains(status),
                "{refused}"
            );
        }
        if status != "GRANTED" {
            let refused = caller.revoke(id).await.is(409);
            assert!(
                refused["message"].as_str().unwrap().contains(status),
                "{refused}"
            );
        }
        assert_eq!(
            caller.show(id).await,
            before,
            "a refused command changes nothing"
        );
    }
    let pending = caller
        .request_with(json!({"permission_set": "readonly"}))
        .await;
    let refused = caller.revoke(&pending).await.is(409);
    assert!(refused["message"].as_str().unwrap().contains("PENDING"));
}

// P3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_simultaneous_commands_one_is_accepted() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = caller.request().await;
    let approvals = (0..20).map(|_| caller.approve(&id));
    let denials = (0..20).map(|_| caller.deny(&id));
    let (approved, denied) = tokio::join!(futures(approvals.collect()), futures(denials.collect()));
    let won = |replies: &[u16]| replies.iter().filter(|status| **status == 200).count();
    assert_eq!(won(&approved) + won(&denied), 1, "{approved:?} {denied:?}");
    let granted = caller.granted().await;
    let revokes = futures((0..20).map(|_| caller.revoke(&granted)).collect()).await;
    assert_eq!(won(&revokes), 1, "{revokes:?}");
    assert!(
        revokes.iter().all(|status| [200, 409].contains(status)),
        "{revokes:?}"
    );
    let kinds = caller.kinds(&granted).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "REVOKED").count(), 1);
}

async fn futures(calls: Vec<impl Future<Output = crate::common::Reply>>) -> Vec<u16> {
    let mut calls: Vec<_> = calls.into_iter().map(Box::pin).collect();
    let mut statuses = vec![0; calls.len()];
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (call, status) in calls.iter_mut().zip(&mut statuses) {
            if *status == 0 {
                match call.as_mut().poll(context) {
                    std::task::Poll::Ready(reply) => *status = reply.status,
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    statuses
}

// P4, G6, T12
#[tokio::test]
async fn two_grants_share_one_assignment_and_a_revoke_ends_both() {
    let (_jit, caller) = Setup::default().bound().await;
    let (one, two) = (caller.granted().await, caller.granted().await);
    // A revoke ends both requests, and each has its own history.
    caller.revoke(&one).await.is(200);
    let other = caller.until(&two, "REVOKED").await;
    assert_eq!(other["revoked_by"], "bob@example.com");
    let events = caller.audit(&two).await;
    let asked = events
        .iter()
        .find(|event| event["event_type"] == "REVOKE_REQUESTED")
        .unwrap();
    assert_eq!(asked["details"]["shared_with"], one);
}

// P4
#[tokio::test]
async fn an_assignment_from_outside_is_left_alone() {
    let sandbox = format!("standing = [\"{ACCOUNT}/admin/alice@example.com\"]");
    let (_jit, caller) = Setup {
        sandbox,
        ..Setup::default()
    }
    .bound()
    .await;
    let id = caller.request().await;
    caller.approve(&id).await.is(200);
    let failed = caller.until(&id, "ERROR").await;
    let why = failed["error_details"].as_str().unwrap();
    assert!(
        why.contains("did not make") && why.contains("Identity Center"),
        "{why}"
    );
    // A revoke does not report the assignment from outside as removed.
    let refused = caller.revoke(&id).await.is(409);
    assert!(refused["message"].as_str().unwrap().contains("ERROR"));
}

#[tokio::test]
async fn an_unknown_user_ends_the_request_with_an_error() {
    let sandbox = "users = [\"dave@example.com\"]".to_owned();
    let (_jit, caller) = Setup {
        sandbox,
        ..Setup::default()
    }
    .bound()
    .await;
    let id = caller.request().await;
    caller.approve(&id).await.is(200);
    let failed = caller.until(&id, "ERROR").await;
    assert!(
        failed["error_details"]
            .as_str()
            .unwrap()
            .contains("alice@example.com"),
        "{failed}"
    );
    // G3: a revoke ends an ERROR request. jit made no call to AWS, so it is REVOKED at once.
    assert_eq!(caller.revoke(&id).await.is(200)["status"], "REVOKED");
}

#[tokio::test]
async fn an_extension_needs_a_new_approval() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = caller.granted().await;
    let before = caller.show(&id).await["end_time"].clone();
    let path = format!("/requests/{id}/extend");
    let ask = json!({"actor_mm_user_id": "alice", "actor_email": "alice@example.com", "additional_minutes": 30});
    let asked = caller.post(&path, &ask).await.is(200);
    assert_eq!(
        (&asked["end_time"], &asked["extension_minutes"]),
        (&before, &json!(30))
    );
    caller.post(&path, &ask).await.is(409);
    let extended = caller.approve(&id).await.is(200);
    assert_ne!(extended["end_time"], before);
    let too_far = json!({"actor_mm_user_id": "alice", "actor_email": "alice@example.com", "additional_minutes": 200});
    caller.post(&path, &too_far).await.is(409);
    let stranger = json!({"actor_mm_user_id": "mallory", "actor_email": "m@example.com", "additional_minutes": 5});
    caller.post(&path, &stranger).await.is(403);
}

#[tokio::test]
async fn the_same_idempotency_key_returns_the_same_request() {
    let (_jit, caller) = Setup::default().bound().await;
    let create = async |key: &str, body: String| {
        let signing = caller.signing();
        let mut headers = signing.headers(signing.v1("POST", "/requests", body.as_bytes()));
        headers.push(("Idempotency-Key", key.to_owned()));
        caller
            .send("POST", "/requests", headers, body.into_bytes())
            .await
    };
    let body = wanted(&json!({})).to_string();
    let first = create("k1", body.clone()).await.is(201);
    let again = create("k1", body.clone()).await.is(201);
    assert_eq!(first["request_id"], again["request_id"]);
    create("k1", wanted(&json!({"reason": "another"})).to_string())
        .await
        .is(409);
    let other = create("k2", body).await.is(201);
    assert_ne!(first["request_id"], other["request_id"]);
    create("", wanted(&json!({})).to_string()).await.is(400);
    let list = caller
        .get(&format!("/requests?channel_id={CHANNEL}"))
        .await
        .is(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

// G15, T1: the answer is 202 as long as AWS has not shown that the assignment is gone.
#[tokio::test]
async fn a_slow_removal_is_answered_202_and_continues() {
    let (jit, caller) = Setup {
        latency_ms: 0,
        ..Setup::default()
    }
    .bound()
    .await;
    let id = caller.granted().await;
    // jit starts again on the same store, with a sandbox of higher latency.
    let folder = jit.kill();
    Setup {
        latency_ms: 12_000,
        ..Setup::default()
    }
    .write(folder.path());
    let jit = Jit::start_in(folder);
    let caller = jit.caller();
    let going = caller.revoke(&id).await.is(202);
    assert_eq!(
        (&going["status"], &going["assignment_status"]),
        (&json!("GRANTED"), &json!("DELETING"))
    );
    assert!(going["message"].as_str().unwrap().contains("goes on"));
    let refused = caller.revoke(&id).await.is(409);
    assert!(refused["message"].as_str().unwrap().contains("under way"));
    assert_eq!(
        caller.until(&id, "REVOKED").await["revoked_by"],
        "bob@example.com"
    );
}
