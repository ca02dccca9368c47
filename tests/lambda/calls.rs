//! Callers of the function: by the minimal event, through a gateway and through a Function URL.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::lambda::{Cloud, Function, Outcome, Process, change, minute, v2_event};
use crate::common::{Caller, Channel, SECRET, Setup};

/// The event of CONTRACT that an operator can write by hand in a shell.
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
async fn a_request_is_granted_and_revoked_by_calls_alone() {
    let channel = Channel::open().await;
    let webhook = Some(channel.url.clone());
    let lambda = Function::deploy(&Setup {
        webhook,
        ..Setup::default()
    })
    .await;
    lambda.caller.bind().await;
    let id = lambda.caller.request().await;
    // The worker makes the grant after the answer and before the next invocation.
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
    // The call counts once: its nonce is spent.
    assert_eq!(lambda.cloud.event(&event).await.answer()["statusCode"], 401);
    let heard: Vec<Value> = channel
        .wait_for(2)
        .await
        .iter()
        .map(crate::common::Heard::json)
        .collect();
    assert_eq!(
        (&heard[0]["status"], &heard[1]["status"]),
        (&json!("GRANTED"), &json!("REVOKED"))
    );
    // No work is left for the scheduled event.
    let worked = lambda.cloud.event(&minute()).await;
    assert_eq!(worked, Outcome::Answered(json!({"jit": "worked"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signed_path_does_not_contain_the_stage() {
    let lambda = Function::deploy_at(&Setup::default(), "prod").await;
    let caller = &lambda.caller;
    // The address of the gateway contains the stage; the signed path does not.
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
async fn v2_calls_with_any_header_case_or_base64_flag_are_accepted() {
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

// G20: the signature covers the decoded body of a call in base64.
#[tokio::test(flavor = "multi_thread")]
async fn a_base64_body_of_a_function_url_is_accepted() {
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
    lambda.cloud.time_limit(Duration::from_secs(60));
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
    // The process handles the next call after the removal.
    assert_eq!(lambda.caller.show(&id).await["status"], "REVOKED");
}

/// The invocation reaches its time limit; another one must be able to continue the work.
#[tokio::test(flavor = "multi_thread")]
async fn work_past_the_time_limit_is_released() {
    let setup = Setup {
        latency_ms: 8_000,
        ..Setup::default()
    };
    let lambda = Function::deploy(&setup).await;
    lambda.cloud.time_limit(Duration::from_secs(60));
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    lambda.cloud.time_limit(Duration::from_secs(3));
    let begun = Instant::now();
    let going = lambda.caller.revoke(&id).await.is(202);
    assert_eq!(going["assignment_status"], "DELETING");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "the invocation exceeded its time limit"
    );
    // The process asks for the next event before its time limit, and long before AWS has finished.
    let going = lambda.caller.show(&id).await;
    assert_eq!(
        going["assignment_status"], "DELETING",
        "the removal has already finished"
    );
    // The invocation has ended before its deadline and has given the lease back, so no worker waits
    // for it.
    lambda.cloud.time_limit(Duration::from_secs(60));
    let begun = Instant::now();
    let worked = lambda.cloud.event(&change(&id)).await;
    assert_eq!(worked, Outcome::Answered(json!({"jit": "worked"})));
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "the next worker waited for a lease"
    );
    assert_eq!(lambda.caller.show(&id).await["status"], "REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_releases_work_and_exits_cleanly() {
    let setup = Setup {
        latency_ms: 60_000,
        ..Setup::default()
    };
    let lambda = Function::deploy(&setup).await;
    lambda.caller.bind().await;
    let id = lambda.caller.request().await;
    lambda.caller.approve(&id).await.is(200);
    // SIGTERM arrives during the grant, after the answer.
    let (status, took) = lambda.process.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let idle = Function::deploy(&Setup::default()).await;
    idle.cloud.wait_for_polls(1).await;
    assert!(idle.process.terminate().0.success());
}

/// A process that cannot start reports the reason to Lambda, with the key of the configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_error_is_reported_to_lambda() {
    let cloud = Cloud::open().await;
    let wrong = Setup::with("[policy]\nmax_request_hours = 0");
    let (status, log) = Process::start(&cloud, &wrong).ends();
    assert_eq!(status.code(), Some(1), "{log}");
    let errors = cloud.init_errors();
    let told = errors[0]["errorMessage"].as_str().unwrap();
    assert!(told.starts_with("policy.max_request_hours"), "{errors:?}");
    assert!(!log.contains(SECRET) && !told.contains(SECRET));
}

/// A command whose answer came too late continues in its own invocation: once the process asks for
/// another event, Lambda may freeze it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_command_finishes_before_the_next_event_is_fetched() {
    use crate::common::chat::{ACCOUNT, CHANNEL, MALLORY, Mattermost, TEAM, TOKEN, form};
    let mattermost = Mattermost::open().await;
    mattermost.change(MALLORY, "roles", "system_user system_admin".into());
    let lambda = Function::deploy(&Setup::with(&mattermost.config())).await;
    let terms = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    lambda.caller.post("/config/bind", &terms).await.is(200);
    lambda.cloud.wait_for_polls(2).await;
    // jit looks up four people, one after the other.
    mattermost.is_slow(std::time::Duration::from_millis(700));
    let typed = "approvers @bob @alice @ada";
    let body = form(TOKEN, TEAM, CHANNEL, "aws-prod", MALLORY, typed);
    let sent = lambda
        .caller
        .send("POST", "/mattermost/command", vec![], body.into_bytes());
    let reply = sent.await;
    assert!(reply.text.contains("takes longer than usual"), "{reply:?}");
    lambda.cloud.wait_for_polls(3).await;
    let told = mattermost.sent(MALLORY);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message.contains("approved by 1 of 3"), "{told:?}");
}
