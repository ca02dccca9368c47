//! Keys: the scopes of a key, its end and its rotation.

use std::time::Instant;

use serde_json::json;

use crate::common::{Caller, Jit, Setup, Signing, TIMEOUT, nonce, now};

fn key(id: &str, more: &str) -> String {
    format!("[keys.{id}]\nsecret = \"{}\"\n{more}\n", secret(id))
}

fn secret(id: &str) -> String {
    format!("the-secret-of-{id}-0123456789abcdef")
}

fn caller(jit: &Jit, id: &str) -> Caller {
    Caller::new(&jit.url, id, &secret(id))
}

// CONTRACT §3: each scope permits its own routes and no others.
#[tokio::test]
async fn a_key_permits_only_the_routes_of_its_scopes() {
    let scopes = ["request", "approve", "revoke", "config", "read"];
    let more: String = scopes
        .iter()
        .map(|scope| key(scope, &format!("scopes = [\"{scope}\"]")))
        .collect();
    let jit = Setup {
        more,
        ..Setup::default()
    }
    .start();
    for route in jit::http::ROUTES {
        let Some(needed) = route.scope() else {
            continue;
        };
        let path = route
            .path
            .replace("{id}", "a1b2c3d4-e5f6-7890-abcd-ef1234567890");
        for scope in scopes {
            let body = if route.method == "POST" { "{}" } else { "" };
            let reply = caller(&jit, scope).call(route.method, &path, body).await;
            let may = scope == needed.as_str();
            assert_eq!(
                reply.status != 403,
                may,
                "{} {path} with {scope}: {reply:?}",
                route.method
            );
            if !may {
                let told = reply.is(403);
                assert!(
                    told["message"].as_str().unwrap().contains(needed.as_str()),
                    "{told}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_v2_only_key_refuses_v1_and_a_key_past_its_end_is_refused() {
    let more = [
        key("modern", "require_v2 = true"),
        key("over", "expires = \"2020-01-01\""),
        key("lasting", "expires = 2999-12-31T00:00:00Z"),
    ]
    .concat();
    let jit = Setup {
        more,
        ..Setup::default()
    }
    .start();
    let path = "/config/accounts";
    let query = "?channel_id=town";
    let modern = caller(&jit, "modern");
    modern.get(&format!("{path}{query}")).await.is(401);
    let secret = secret("modern");
    let signing = Signing {
        key_id: "modern",
        secret: &secret,
        timestamp: now(),
        nonce: nonce(),
    };
    let mac = signing.v2("GET", path, "channel_id=town", b"");
    let headers = signing.headers(mac);
    modern
        .send("GET", &format!("{path}{query}"), headers, vec![])
        .await
        .is(200);
    caller(&jit, "over")
        .get(&format!("{path}{query}"))
        .await
        .is(401);
    caller(&jit, "lasting")
        .get(&format!("{path}{query}"))
        .await
        .is(200);
}

// G16: each key signs and verifies under its own id; jit accepts a new key and refuses a removed
// one without a restart.
#[tokio::test]
async fn keys_are_rotated_without_a_restart() {
    let before = Setup {
        more: key("old", ""),
        ..Setup::default()
    };
    let jit = before.start();
    let path = "/config/accounts?channel_id=town";
    caller(&jit, "old").get(path).await.is(200);
    caller(&jit, "new").get(path).await.is(401);

    let both = Setup {
        more: key("old", "") + &key("new", ""),
        ..Setup::default()
    };
    both.write(jit.folder.path());
    jit.hang_up();
    until(&jit, "new", 200).await;
    caller(&jit, "old").get(path).await.is(200);

    // The server reads a changed key file without a signal as well.
    Setup {
        more: key("new", ""),
        ..Setup::default()
    }
    .write(jit.folder.path());
    until(&jit, "old", 401).await;
    caller(&jit, "new").get(path).await.is(200);

    // An invalid configuration file leaves the keys in use unchanged.
    std::fs::write(jit.folder.path().join("jit.toml"), "[keys.new]\nsecret = 5").unwrap();
    jit.hang_up();
    jit.logs("keys.new.secret");
    caller(&jit, "new").get(path).await.is(200);
    assert!(
        !jit.log().contains(&secret("new")),
        "a secret is in the log"
    );
}

async fn until(jit: &Jit, id: &str, status: u16) {
    let begun = Instant::now();
    while caller(jit, id)
        .get("/config/accounts?channel_id=town")
        .await
        .status
        != status
    {
        assert!(
            begun.elapsed() < TIMEOUT,
            "{id} never answers {status}: {}",
            jit.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

// B5
#[tokio::test]
async fn an_idempotency_key_belongs_to_the_key_id_that_sent_it() {
    let (jit, plugin) = Setup::with(&key("other", "")).bound().await;
    let create = async |by: &Caller, once: &str, minutes: u32| {
        let asked = json!({"requested_duration_minutes": minutes});
        let body = crate::common::wanted(&asked).to_string();
        let signing = by.signing();
        let mut headers = signing.headers(signing.v1("POST", "/requests", body.as_bytes()));
        headers.push(("Idempotency-Key", once.to_owned()));
        let sent = by.send("POST", "/requests", headers, body.into_bytes());
        sent.await
    };
    let other = caller(&jit, "other");
    let first = create(&plugin, "k1", 60).await.is(201)["request_id"].clone();
    plugin.cancel(first.as_str().unwrap()).await.is(200);
    let own = create(&other, "k1", 60).await.is(201)["request_id"].clone();
    assert_ne!(first, own);
    // Another body is another call of the other key, and no conflict with the first one.
    let further = create(&other, "k2", 50).await.is(201)["request_id"].clone();
    create(&plugin, "k2", 40).await.is(201);
    for (by, once, minutes, known) in [
        (&plugin, "k1", 60, &first),
        (&other, "k1", 60, &own),
        (&other, "k2", 50, &further),
    ] {
        let again = create(by, once, minutes).await.is(201);
        assert_eq!(&again["request_id"], known);
    }
    create(&other, "k1", 30).await.is(409);
}

// G11: revoke and bind need the scope of the key, and the actor must be in policy.admins where that
// is set.
#[tokio::test]
async fn with_policy_admins_only_those_may_bind_and_revoke() {
    let jit = Setup::with("[policy]\nadmins = [\"root\", \"Sec@Example.com\"]\n").start();
    let plain = jit.caller();
    let bind = |who: &str| {
        json!({"channel_id": "town-square", "account_id": "111122223333",
               "actor_mm_user_id": who, "actor_email": format!("{who}@example.com")})
    };
    let anybody = json!({"channel_id": "town-square", "account_id": "111122223333"});
    plain.post("/config/bind", &anybody).await.is(403);
    plain.post("/config/bind", &bind("bob")).await.is(403);
    plain.post("/config/bind", &bind("root")).await.is(200);
    let approvers = json!({"channel_id": "town-square", "approver_ids": ["bob"],
                           "actor_mm_user_id": "x", "actor_email": "sec@example.com"});
    plain.post("/config/approvers", &approvers).await.is(200);

    let id = plain.request_with(json!({})).await;
    plain.approve(&id).await.is(200);
    plain.until(&id, "GRANTED").await;
    let path = format!("/requests/{id}/revoke");
    let by =
        |who: &str| json!({"actor_mm_user_id": who, "actor_email": format!("{who}@example.com")});
    plain.post(&path, &by("mallory")).await.is(403);
    assert_eq!(plain.show(&id).await["status"], "GRANTED");
    plain.post(&path, &by("sec")).await.is(200);
}
