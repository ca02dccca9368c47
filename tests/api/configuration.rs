//! Bindings, approvers and quorums decide who may approve a request; each change is audited.

use serde_json::{Value, json};

use crate::common::{ACCOUNT, CHANNEL, Caller, Setup};

async fn approve(caller: &Caller, id: &str, who: &str) -> crate::common::Reply {
    let body = json!({"approver_mm_user_id": who, "approver_email": format!("{who}@example.com")});
    caller.post(&format!("/requests/{id}/approve"), &body).await
}

async fn bind(caller: &Caller, changes: Value) -> Value {
    let mut body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    caller.post("/config/bind", &body).await.is(200)
}

// P5, G10: without a binding or without approvers, jit accepts no approval.
#[tokio::test]
async fn without_a_binding_or_approvers_an_approval_is_refused() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let unbound = caller
        .post("/requests", &crate::common::wanted(&json!({})))
        .await;
    unbound.is(403);
    bind(&caller, json!({})).await;
    let id = caller.request().await;
    approve(&caller, &id, "bob").await.is(403);
    caller.deny(&id).await.is(403);
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob"]});
    caller.post("/config/approvers", &approvers).await.is(200);
    approve(&caller, &id, "mallory").await.is(403);
    // An unbind removes the binding, and with it the right of its approvers to approve.
    let body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    caller.post("/config/unbind", &body).await.is(200);
    assert_eq!(caller.show(&id).await["status"], "CANCELLED");
    approve(&caller, &id, "bob").await.is(409);
    caller.post("/config/unbind", &body).await.is(404);
}

// E7, T5: an approver may not approve an own request, matched by id and by address; E9: only the
// requester may cancel it.
#[tokio::test]
async fn an_own_request_cannot_be_approved() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    bind(&caller, json!({})).await;
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["alice", "alice2", "bob"]});
    caller.post("/config/approvers", &approvers).await.is(200);
    let id = caller.request().await;
    approve(&caller, &id, "alice").await.is(403);
    let other_account =
        json!({"approver_mm_user_id": "alice2", "approver_email": "ALICE@example.com"});
    caller
        .post(&format!("/requests/{id}/approve"), &other_account)
        .await
        .is(403);
    let not_mine = json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com"});
    caller
        .post(&format!("/requests/{id}/cancel"), &not_mine)
        .await
        .is(403);
    assert_eq!(caller.show(&id).await["status"], "PENDING");
    // The binding allows self-approval explicitly.
    bind(&caller, json!({"allow_self_approval": true})).await;
    approve(&caller, &id, "alice").await.is(200);
}

#[tokio::test]
async fn a_second_approval_by_the_same_person_does_not_count() {
    let (_jit, caller) = Setup::default().bound().await;
    let bound = bind(&caller, json!({"approvals_required": 2})).await;
    assert_eq!(bound["approval_policy"], "2_of_n");
    let id = caller.request().await;
    assert_eq!(
        approve(&caller, &id, "bob").await.is(200)["status"],
        "PENDING"
    );
    approve(&caller, &id, "bob").await.is(409);
    assert_eq!(caller.show(&id).await["status"], "PENDING");
    assert_eq!(
        approve(&caller, &id, "carol").await.is(200)["status"],
        "APPROVED"
    );
    let kinds = caller.kinds(&id).await;
    assert_eq!(kinds[..3], ["REQUESTED", "APPROVAL_RECORDED", "APPROVED"]);
    // The service refuses a quorum larger than the number of approvers when it is set.
    let body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT, "approvals_required": 3});
    caller.post("/config/bind", &body).await.is(400);
}

#[tokio::test]
async fn an_account_cannot_be_bound_to_a_second_channel() {
    let (_jit, caller) = Setup::default().bound().await;
    let body = json!({"channel_id": "elsewhere", "account_id": ACCOUNT});
    let told = caller.post("/config/bind", &body).await.is(409);
    assert!(
        told["message"].as_str().unwrap().contains(CHANNEL),
        "{told}"
    );
    let elsewhere = json!({"channel_id": "elsewhere"});
    caller
        .post("/requests", &crate::common::wanted(&elsewhere))
        .await
        .is(403);
    let nobody = json!({"channel_id": "elsewhere", "approver_ids": ["bob"]});
    caller.post("/config/approvers", &nobody).await.is(404);
}

// G18: a change of a binding keeps the fields that it does not mention. T7: the stricter of two
// limits applies.
#[tokio::test]
async fn a_binding_change_keeps_the_fields_it_does_not_mention() {
    let (_jit, caller) = Setup::default().bound().await;
    bind(
        &caller,
        json!({"max_request_hours": 2, "permission_sets": ["readonly"]}),
    )
    .await;
    let bound = bind(&caller, json!({"approvals_required": 2})).await;
    assert_eq!(bound["approver_mm_user_ids"], json!(["bob", "carol"]));
    assert_eq!(
        (&bound["max_request_hours"], &bound["permission_sets"]),
        (&json!(2), &json!(["readonly"]))
    );
    assert_eq!(
        (
            &bound["allow_self_approval"],
            &bound["session_duration_minutes"]
        ),
        (&json!(false), &json!(60))
    );
    let three_hours = json!({"requested_duration_minutes": 180});
    caller
        .post("/requests", &crate::common::wanted(&three_hours))
        .await
        .is(400);
    let admin = json!({"permission_set": "admin"});
    caller
        .post("/requests", &crate::common::wanted(&admin))
        .await
        .is(403);
    let id = caller.request().await;
    assert_eq!(caller.show(&id).await["permission_set"], "readonly");
    // A binding with a longer maximum than the policy has no effect.
    let bound = bind(&caller, json!({"max_request_hours": 100})).await;
    assert_eq!(bound["max_request_hours"], 4);
    let accounts = caller
        .get(&format!("/config/accounts?channel_id={CHANNEL}"))
        .await
        .is(200);
    assert_eq!(accounts, json!([bound]));
}

// T4, T6: stricter rules stop an approval; a revoke works in any case.
#[tokio::test]
async fn stricter_rules_stop_approvals_but_not_a_revoke() {
    let (_jit, caller) = Setup::default().bound().await;
    let long = json!({"requested_duration_minutes": 180});
    let waiting = caller.request_with(long.clone()).await;
    let running = caller.request_with(long).await;
    caller.approve(&running).await.is(200);
    caller.until(&running, "GRANTED").await;
    bind(
        &caller,
        json!({"max_request_hours": 1, "permission_sets": ["readonly"]}),
    )
    .await;
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["carol"]});
    caller.post("/config/approvers", &approvers).await.is(200);
    approve(&caller, &waiting, "carol").await.is(403);
    let body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    caller.post("/config/unbind", &body).await.is(200);
    assert_eq!(
        caller.show(&running).await["status"],
        "GRANTED",
        "the grant ends at its own end_time"
    );
    caller.revoke(&running).await.is(200);
}

// G12, E12
#[tokio::test]
async fn every_configuration_change_writes_an_audit_event() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    bind(
        &caller,
        json!({"actor_mm_user_id": "root", "actor_email": "root@example.com"}),
    )
    .await;
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob"]});
    caller.post("/config/approvers", &approvers).await.is(200);
    bind(&caller, json!({"max_request_hours": 2})).await;
    let body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    caller.post("/config/unbind", &body).await.is(200);
    let path = format!("/requests/config%23{CHANNEL}/audit");
    let events = caller.get(&path).await.is(200);
    let events = events.as_array().unwrap();
    let kinds: Vec<&str> = events
        .iter()
        .map(|e| e["event_type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["BOUND", "APPROVERS_SET", "BINDING_CHANGED", "UNBOUND"]
    );
    assert_eq!(events[0]["actor_email"], "root@example.com");
    assert_eq!(events[1]["details"]["approvers"], "bob");
    assert_eq!(events[2]["details"]["max_request_hours"], "2");
    for event in events {
        assert_eq!(event["request_id"], format!("config#{CHANNEL}"));
        assert_eq!(event["details"]["key_id"], "plugin");
    }
}

/// T7: the maximum of one permission set applies to that set alone; where two limits differ, the
/// stricter one applies.
#[tokio::test]
async fn a_permission_set_can_have_its_own_maximum() {
    let short = "[permission_sets.short]\nmax_request_hours = 1\n\
                 arn = \"arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-3333333333333333\"\n\
                 [policy]\ndefault_permission_set = \"admin\"\nextension = \"granted\"";
    let (_jit, caller) = Setup::with(short).bound().await;
    let wanted = |set: &str, minutes: u32| {
        let asked = json!({"permission_set": set, "requested_duration_minutes": minutes});
        crate::common::wanted(&asked)
    };
    let refused = caller.post("/requests", &wanted("short", 61)).await.is(400);
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("short") && told.contains("60"), "{told}");
    caller.post("/requests", &wanted("admin", 61)).await.is(201);
    let created = caller.post("/requests", &wanted("short", 60)).await.is(201);
    let id = created["request_id"].as_str().unwrap();
    caller.approve(id).await.is(200);
    caller.until(id, "GRANTED").await;
    // An extension is held to the same maximum.
    let more = json!({"actor_mm_user_id": "alice", "actor_email": "alice@example.com", "additional_minutes": 30});
    caller
        .post(&format!("/requests/{id}/extend"), &more)
        .await
        .is(409);
    bind(
        &caller,
        json!({"max_request_hours": 2, "permission_sets": ["short", "admin"]}),
    )
    .await;
    caller
        .post("/requests", &wanted("admin", 121))
        .await
        .is(400);
    caller
        .post("/requests", &wanted("readonly", 30))
        .await
        .is(403);
}

// K9: the service limits the records that callers can make, so that they fit into one item of the
// store.
#[tokio::test]
async fn too_many_approvers_or_permission_sets_are_refused() {
    let (_jit, caller) = Setup::default().bound().await;
    let named = |many: usize| {
        let names: Vec<String> = (0..many).map(|number| format!("user-{number}")).collect();
        json!({"channel_id": CHANNEL, "approver_ids": names})
    };
    caller.post("/config/approvers", &named(200)).await.is(200);
    let refused = caller.post("/config/approvers", &named(201)).await.is(400);
    let told = refused["message"].as_str().unwrap();
    assert!(
        told.contains("201") && told.contains("at most 200"),
        "{told}"
    );
    // Duplicates in the list of permission sets count once.
    let bound = bind(&caller, json!({"permission_sets": vec!["admin"; 500]})).await;
    assert_eq!(bound["permission_sets"], json!(["admin"]));
}
