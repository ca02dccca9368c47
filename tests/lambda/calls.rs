//! Callers: by the smallest event there is, through a gateway, by a Function URL.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::lambda::{Cloud, Function, Outcome, Process, change, minute, v2_event};
use crate::common::{Caller, Channel, SECRET, Setup};

/// As CONTRACT has it: what a shell on a bad night can still put together.
fn least(caller: &Caller, path: &str, body: &Value) -> Value {
    let (body, signing) = (body.to_string(), caller.signing());
    let mac = signing.v1("POST", path, body.as_bytes());
    let headers: serde_json::Map<String, Value> = signing
        .headers(mac)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    json!({"requestContext": {"http": {"method": "POST", "path": path}}, "body": body, "headers": headers})
}

fn body_of(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.answer()["body"].as_str().unwrap()).unwrap()
}

// P6
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_needs_nothing_but_calls() {
    let channel = Channel::open().await;
    let webhook = Some(channel.url.clone());
    let lambda = Function::deploy(&Setup {
        webhook,
        ..Setup::default()
    })
    .await;
    lambda.caller.bind().await;
    let id = lambda.caller.request().await;
    // The grant is made after the answer, and before anything else is asked.
    lambda.caller.approve(&id).await.is(200);
    assert_eq!(lambda.caller.show(&id).await["status"], "GRANTED");
    let path = format!("/requests/{id}/revoke");
    let admin = json!({"actor_mm_user_id": "admin", "actor_email": "admin@company.com"});
    let event = least(&lambda.caller, &path, &admin);
    let revoked = lambda.cloud.event(&event).await;
    assert_eq!(revoked.answer()["statusCode"], 200, "{revoked:?}");
    assert_eq!(
        revoked.answer()["headers"]["content-type"],
        "application/json"
    );
    assert_eq!(body_of(&revoked)["status"], "REVOKED");
    assert_eq!(body_of(&revoked)["revoked_by"], "admin@company.com");
    // Once: it was spent.
    assert_eq!(lambda.cloud.event(&event).await.answer()["statusCode"], 401);
    let heard: Vec<Value> = channel
        .hears(2)
        .await
        .iter()
        .map(crate::common::Heard::json)
        .collect();
    assert_eq!(
        (&heard[0]["status"], &heard[1]["status"]),
        (&json!("GRANTED"), &json!("REVOKED"))
    );
    // Nothing was left for the minute.
    let worked = lambda.cloud.event(&minute()).await;
    assert_eq!(worked, Outcome::Answered(json!({"jit": "worked"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_is_what_comes_after_the_stage() {
    let lambda = Function::deploy_at(&Setup::default(), "prod").await;
    let caller = &lambda.caller;
    // The gateway's own address has the stage in it; what is signed has not.
    let signing = caller.signing();
    let body = json!({"channel_id": "ops", "account_id": "111122223333"}).to_string();
    let mac = signing.v1("POST", "/config/bind", body.as_bytes());
    let headers = signing.headers(mac);
    caller
        .send("POST", "/config/bind", headers, body.clone().into())
        .await
        .is(200);
    let signing = caller.signing();
    let mac = signing.v1("POST", "/prod/config/bind", body.as_bytes());
    let headers = signing.headers(mac);
    caller
        .send("POST", "/config/bind", headers, body.into())
        .await
        .is(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_schemes_and_both_spellings_are_heard() {
    let lambda = Function::deploy(&Setup::default()).await;
    let caller = &lambda.caller;
    caller.bind().await;
    let query = "channel_id=town-square";
    for (encoded, mixed_case) in [(false, false), (false, true), (true, false), (true, true)] {
        let signing = caller.signing();
        let mac = signing.v2("GET", "/config/accounts", query, b"");
        let headers: Vec<(String, String)> = signing
            .headers(mac)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let mut event = v2_event("$default", "GET", "/config/accounts", query, &headers, "");
        if mixed_case {
            event["headers"] = headers.into_iter().collect();
        }
        if encoded {
            event["isBase64Encoded"] = true.into();
            event["body"] = "".into();
        }
        let shown = lambda.cloud.event(&event).await;
        assert_eq!(shown.answer()["statusCode"], 200, "{event} {shown:?}");
        assert_eq!(body_of(&shown)[0]["account_id"], "111122223333");
    }
}

// G20: a body in base64 is what was signed, and is what is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_url_may_send_base64() {
    let lambda = Function::deploy(&Setup::default()).await;
    lambda.caller.bind().await;
    let body = crate::common::wanted(&json!({}));
    let mut event = least(&lambda.caller, "/requests", &body);
    let text = event["body"].as_str().unwrap().to_owned();
    event["body"] = STANDARD.encode(&text).into();
    event["isBase64Encoded"] = true.into();
    event["version"] = "2.0".into();
    event["routeKey"] = "$default".into();
    event["rawPath"] = "/requests".into();
    event["rawQueryString"] = "".into();
    event["requestContext"]["stage"] = "$default".into();
    event["requestContext"]["domainName"] = "abc.lambda-url.eu-central-1.on.aws".into();
    let created = lambda.cloud.event(&event).await;
    assert_eq!(created.answer()["statusCode"], 201, "{created:?}");
    let mut event = least(&lambda.caller, "/requests", &body);
    event["isBase64Encoded"] = true.into();
    let refused = lambda.cloud.event(&event).await;
    assert_eq!(refused.answer()["statusCode"], 400);
    assert_eq!(body_of(&refused)["code"], "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_removal_is_202_and_goes_on_in_the_same_process() {
    let setup = Setup {
        latency_ms: 12_000,
        ..Setup::default()
    };
    let lambda = Function::deploy(&setup).await;
    lambda.cloud.patience(Duration::from_secs(60));
    lambda.caller.bind().await;
    let id = lambda.caller.request().await;
    lambda.caller.approve(&id).await.is(200);
    assert_eq!(lambda.caller.show(&id).await["status"], "GRANTED");
    let begun = Instant::now();
    let going = lambda.caller.revoke(&id).await.is(202);
    assert!(begun.elapsed() >= Duration::from_secs(9), "{going}");
    assert_eq!(
        (&going["status"], &going["assignment_status"]),
        (&json!("GRANTED"), &json!("DELETING"))
    );
    assert!(going["message"].as_str().unwrap().contains("goes on"));
    // The next call is taken when that is done.
    assert_eq!(lambda.caller.show(&id).await["status"], "REVOKED");
}

/// An invocation has an end, and another must be able to go on from there.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_finished_in_time_is_let_go_of() {
    let setup = Setup {
        latency_ms: 8_000,
        ..Setup::default()
    };
    let lambda = Function::deploy(&setup).await;
    lambda.cloud.patience(Duration::from_secs(60));
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    lambda.cloud.patience(Duration::from_secs(3));
    let begun = Instant::now();
    let going = lambda.caller.revoke(&id).await.is(202);
    assert_eq!(going["assignment_status"], "DELETING");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "Lambda would have ended it"
    );
    // It asks for the next before it is ended, and long before AWS is done.
    let going = lambda.caller.show(&id).await;
    assert_eq!(
        going["assignment_status"], "DELETING",
        "it was finished instead"
    );
    // Free again before the deadline, and the lease is given back: nothing waits for it.
    lambda.cloud.patience(Duration::from_secs(60));
    let begun = Instant::now();
    let worked = lambda.cloud.event(&change(&id)).await;
    assert_eq!(worked, Outcome::Answered(json!({"jit": "worked"})));
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "a lease was waited for"
    );
    assert_eq!(lambda.caller.show(&id).await["status"], "REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_go_and_ends_cleanly() {
    let setup = Setup {
        latency_ms: 60_000,
        ..Setup::default()
    };
    let lambda = Function::deploy(&setup).await;
    lambda.caller.bind().await;
    let id = lambda.caller.request().await;
    lambda.caller.approve(&id).await.is(200);
    // In the middle of the grant, after the answer.
    let (status, took) = lambda.process.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let idle = Function::deploy(&Setup::default()).await;
    idle.cloud.asked(1).await;
    assert!(idle.process.terminate().0.success());
}

/// Whoever cannot start says so where Lambda shows it, and says which key.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_told_to_lambda() {
    let cloud = Cloud::open().await;
    let wrong = Setup::with("[policy]\nmax_request_hours = 0");
    let (status, log) = Process::start(&cloud, &wrong).ends();
    assert_eq!(status.code(), Some(1), "{log}");
    let errors = cloud.init_errors();
    let told = errors[0]["errorMessage"].as_str().unwrap();
    assert!(told.starts_with("policy.max_request_hours"), "{errors:?}");
    assert!(!log.contains(SECRET) && !told.contains(SECRET));
}

/// A command whose answer came too late goes on in the invocation that it came in: once the
/// process asks for another, Lambda may stop it in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_commands_rest_is_done_before_the_next_question() {
    use crate::common::chat::{ACCOUNT, CHANNEL, MALLORY, Mattermost, TEAM, TOKEN, form};
    let mattermost = Mattermost::open().await;
    mattermost.change(MALLORY, "roles", "system_user system_admin".into());
    let lambda = Function::deploy(&Setup::with(&mattermost.config())).await;
    let terms = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    lambda.caller.post("/config/bind", &terms).await.is(200);
    lambda.cloud.asked(2).await;
    // Four people are looked up, one after the other.
    mattermost.is_slow(std::time::Duration::from_millis(700));
    let typed = "approvers @bob @alice @ada";
    let body = form(TOKEN, TEAM, CHANNEL, "aws-prod", MALLORY, typed);
    let sent = lambda
        .caller
        .send("POST", "/mattermost/command", vec![], body.into_bytes());
    let reply = sent.await;
    assert!(reply.text.contains("takes longer than usual"), "{reply:?}");
    lambda.cloud.asked(3).await;
    let told = mattermost.sent(MALLORY);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message.contains("approved by 1 of 3"), "{told:?}");
}
