//! Rights at the time when they count: the spelling of a person, the beginning of an access, the
//! length of a grant, and the key in the audit.

use jit::clock::{Clock, SystemClock};
use jit::domain::{Millis, Timestamp};
use serde_json::{Value, json};

use crate::common::{ACCOUNT, CHANNEL, Caller, Setup, wanted};

/// A request that is approved for a start so far ahead.
async fn approved_for(caller: &Caller, ahead: Millis) -> String {
    let start = SystemClock.now() + ahead;
    let id = caller.request_with(json!({"start_at": start})).await;
    let approved = caller.approve(&id).await.is(200);
    assert_eq!(approved["status"], "APPROVED");
    assert!(approved["start_at"].is_string());
    id
}

async fn unbind(caller: &Caller) {
    let body = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    caller.post("/config/unbind", &body).await.is(200);
}

// B1
#[tokio::test]
async fn access_does_not_begin_after_its_approver_was_removed() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = approved_for(&caller, Millis::seconds(4)).await;
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["carol"]});
    caller.post("/config/approvers", &approvers).await.is(200);
    let ended = caller.until(&id, "REVOKED").await;
    let why = ended["revoke_reason"].as_str().unwrap();
    assert!(why.contains("0 of 1 approvals"), "{why}");
    assert!(ended.get("grant_time").is_none(), "{ended}");
    assert_eq!(
        caller.kinds(&id).await,
        ["REQUESTED", "APPROVED", "REVOKED"]
    );
}

// B1
#[tokio::test]
async fn a_change_of_approvers_ends_requests_approved_by_removed_approvers() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = approved_for(&caller, Millis::hours(24)).await;
    let approvers = |ids: &[&str]| json!({"channel_id": CHANNEL, "approver_ids": ids});
    let both = approvers(&["bob", "carol"]);
    caller.post("/config/approvers", &both).await.is(200);
    assert_eq!(caller.show(&id).await["status"], "APPROVED");
    let one = approvers(&["carol"]);
    caller.post("/config/approvers", &one).await.is(200);
    let ended = caller.show(&id).await;
    assert_eq!(ended["status"], "REVOKED");
    let why = ended["revoke_reason"].as_str().unwrap();
    assert!(why.contains("0 of 1 approvals"), "{why}");
    // The approval does not come back with the approver.
    caller.post("/config/approvers", &both).await.is(200);
    assert_eq!(caller.show(&id).await["status"], "REVOKED");
}

// B1
#[tokio::test]
async fn an_unbind_ends_what_has_not_begun() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = approved_for(&caller, Millis::hours(1)).await;
    unbind(&caller).await;
    let ended = caller.show(&id).await;
    assert_eq!(ended["status"], "REVOKED");
    let why = ended["revoke_reason"].as_str().unwrap();
    assert!(why.contains("unbound"), "{why}");
    // The account goes to another channel, whose approvers did not approve this access.
    let elsewhere = json!({"channel_id": "elsewhere", "account_id": ACCOUNT});
    caller.post("/config/bind", &elsewhere).await.is(200);
    assert_eq!(caller.show(&id).await["status"], "REVOKED");
}

// B1
#[tokio::test]
async fn a_start_far_ahead_or_past_is_refused_with_the_value_and_the_limit() {
    let more = "[policy]\nmax_start_ahead = \"48h\"";
    let (_jit, caller) = Setup::with(more).bound().await;
    let now = SystemClock.now();
    let (day, past) = (Millis::hours(24), Millis::hours(-1));
    let year_9999 = Timestamp::parse("9999-12-31T00:00:00Z").unwrap();
    for start in [year_9999, now + Millis::hours(49), now + past] {
        let asked = wanted(&json!({"start_at": start}));
        let refused = caller.post("/requests", &asked).await.is(400);
        let told = refused["message"].as_str().unwrap();
        assert!(told.contains("start_at"), "{told}");
        assert!(told.contains(&start.to_string()), "{told}");
    }
    for start in [now + day, now] {
        let asked = wanted(&json!({"start_at": start}));
        caller.post("/requests", &asked).await.is(201);
    }
}

// B2
#[tokio::test]
async fn extensions_never_make_a_grant_longer_than_the_binding_allows() {
    let more = "[policy]\nextension = \"granted\"";
    let (_jit, caller) = Setup::with(more).bound().await;
    let terms = json!({"channel_id": CHANNEL, "account_id": ACCOUNT, "max_request_hours": 1});
    caller.post("/config/bind", &terms).await.is(200);
    let ten_minutes = json!({"requested_duration_minutes": 10});
    let id = caller.request_with(ten_minutes).await;
    caller.approve(&id).await.is(200);
    caller.until(&id, "GRANTED").await;
    let extend = async |minutes: u32| {
        let body = json!({"actor_mm_user_id": "alice", "actor_email": "alice@example.com",
                          "additional_minutes": minutes});
        caller.post(&format!("/requests/{id}/extend"), &body).await
    };
    let refused = extend(60).await.is(409);
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("70 minutes"), "{told}");
    assert!(told.contains("at most 50 more minutes"), "{told}");
    extend(30).await.is(200);
    extend(20).await.is(200);
    let refused = extend(1).await.is(409);
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("make a new request"), "{told}");
}

// B3
#[tokio::test]
async fn two_spellings_of_an_approver_are_one_person() {
    let (_jit, caller) = Setup::default().bound().await;
    let terms = json!({"channel_id": CHANNEL, "account_id": ACCOUNT, "approvals_required": 2});
    caller.post("/config/bind", &terms).await.is(200);
    let named = |names: Value| json!({"channel_id": CHANNEL, "approver_ids": names});
    let alone = named(json!(["U-BOB", "u-bob"]));
    caller.post("/config/approvers", &alone).await.is(400);
    let both = named(json!(["U-BOB", "u-bob", "carol"]));
    let bound = caller.post("/config/approvers", &both).await.is(200);
    assert_eq!(bound[0]["approver_mm_user_ids"], json!(["u-bob", "carol"]));
    let id = caller.request().await;
    let approve = async |who: &str, email: &str| {
        let body = json!({"approver_mm_user_id": who, "approver_email": email});
        caller.post(&format!("/requests/{id}/approve"), &body).await
    };
    approve("U-BOB", "bob@example.com").await.is(200);
    approve("u-bob", "robert@example.com").await.is(409);
    // The same address under another user id, and with a dot at its end.
    approve("carol", "BOB@example.com.").await.is(409);
    assert_eq!(caller.show(&id).await["status"], "PENDING");
    let own = approve("carol", "ALICE@Example.com.").await;
    own.is(403);
    let done = approve("Carol", "carol@example.com").await.is(200);
    assert_eq!(done["status"], "APPROVED");
}

// B3
#[tokio::test]
async fn odd_characters_are_refused_and_the_field_is_named() {
    let (_jit, caller) = Setup::default().bound().await;
    let id = caller.request().await;
    for odd in ["bo\u{200b}b", "bo\u{ad}b", "b\u{43e}b", "bob."] {
        let email = format!("{}@example.com", odd.trim_end_matches('.'));
        for (path, role) in [
            ("/requests".to_owned(), "requester"),
            (format!("/requests/{id}/approve"), "approver"),
            (format!("/requests/{id}/deny"), "denier"),
            (format!("/requests/{id}/revoke"), "actor"),
            ("/config/bind".to_owned(), "actor"),
        ] {
            let fields = [format!("{role}_mm_user_id"), format!("{role}_email")];
            let values = [[odd, "bob@example.com"], ["bob", &email]];
            for (at, value) in values.iter().enumerate() {
                if value[at].is_ascii() && at == 1 {
                    continue;
                }
                let mut body = wanted(&json!({}));
                (body[&fields[0]], body[&fields[1]]) = (value[0].into(), value[1].into());
                let refused = caller.post(&path, &body).await.is(400);
                let told = refused["message"].as_str().unwrap();
                assert!(told.starts_with(&fields[at]), "{path} {odd:?}: {told}");
            }
        }
    }
    assert_eq!(caller.show(&id).await["status"], "PENDING");
}

// B4
#[tokio::test]
async fn every_event_of_a_signed_call_names_its_key() {
    let key = "[keys.other]\nsecret = \"the-secret-of-other-0123456789abcdef\"\n";
    let (jit, plugin) = Setup::with(key).bound().await;
    let other = Caller::new(&jit.url, "other", "the-secret-of-other-0123456789abcdef");
    let id = plugin.request().await;
    other.approve(&id).await.is(200);
    plugin.until(&id, "GRANTED").await;
    other.revoke(&id).await.is(200);
    let signed: Vec<(String, Value)> = plugin
        .audit(&id)
        .await
        .iter()
        .map(|event| {
            let kind = event["event_type"].as_str().unwrap();
            (kind.to_owned(), event["details"]["key_id"].clone())
        })
        .collect();
    for (kind, key_id) in signed {
        let wanted = match kind.as_str() {
            "REQUESTED" => json!("plugin"),
            "APPROVED" | "REVOKE_REQUESTED" => json!("other"),
            // A worker wrote these.
            _ => Value::Null,
        };
        assert_eq!(key_id, wanted, "{kind}");
    }
    let waiting = plugin.request().await;
    unbind(&other).await;
    let cancelled = plugin.until_told(&waiting, "CANCELLED").await;
    assert_eq!(cancelled["details"]["key_id"], "other");
    // B6: the call names no person.
    assert_eq!(cancelled["actor_mm_user_id"], "key:other");
}

// B4: the plugin names no person in these calls, so the key is the actor.
#[tokio::test]
async fn a_configuration_change_without_a_person_names_the_key_as_its_actor() {
    let (_jit, caller) = Setup::default().bound().await;
    let path = format!("/requests/config%23{CHANNEL}/audit");
    let events = caller.get(&path).await.is(200);
    for event in events.as_array().unwrap() {
        assert_eq!(event["actor_mm_user_id"], "key:plugin", "{event}");
        assert!(event.get("actor_email").is_none(), "{event}");
    }
}
