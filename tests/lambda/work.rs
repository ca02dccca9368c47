//! What is due, by the minute, by the stream, and by nobody who calls from outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jit::clock::{Clock, SystemClock};
use jit::domain::{Millis, Timestamp};
use serde_json::{Value, json};

use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::lambda::{Cloud, Function, Outcome, Process, change, minute};
use crate::common::{Caller, Channel, SECRET, Setup, let_grants_end};

fn worked() -> Outcome {
    Outcome::Answered(json!({"jit": "worked"}))
}

/// To the second: it is awake when the end comes, and is not there before.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_does_what_falls_due_in_it() {
    let tables = Tables::fresh().await;
    let lambda = Function::deploy(&Setup::in_dynamo(&tables)).await;
    lambda.cloud.patience(Duration::from_secs(120));
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    let end = SystemClock.now() + Millis::seconds(6);
    tables.let_it_end_at(&id, end).await;
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
    let over = lambda.caller.show(&id).await;
    assert_eq!(over["status"], "EXPIRED");
    let over: Timestamp = serde_json::from_value(over["expired_at"].clone()).unwrap();
    let late = over - end;
    // A bound only for who would sleep past it: the next minute would come much later.
    assert!((0..20_000).contains(&late.0), "{late:?} late");
}

/// Nothing to do is not slept through: a minute costs what is due in it.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_minute_is_over_at_once() {
    let lambda = Function::deploy(&Setup::default()).await;
    lambda.caller.bind().await;
    lambda.caller.granted().await;
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(lambda.cloud.event(&minute()).await, worked());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "it waited for something"
    );
}

/// Twice, late, and three at once: each end comes once.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_may_come_again_or_late_or_to_many() {
    let tables = Tables::fresh().await;
    let setup = Setup::in_dynamo(&tables);
    let cloud = Cloud::open().await;
    let folder = || Arc::new(tempfile::tempdir().unwrap());
    let shared = folder();
    // One Identity Center, and a process for each of three invocations at once.
    let sandbox = shared.path().join("identity-center");
    let setup = Setup {
        sandbox: format!("path = {:?}", sandbox.display()),
        ..setup
    };
    let processes: Vec<Process> = (0..3)
        .map(|_| Process::start_in(&cloud, &setup, folder()))
        .collect();
    let gateway = cloud.gateway("$default").await;
    let caller = Caller::new(&gateway, "plugin", SECRET);
    caller.bind().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(caller.granted().await);
    }
    for id in &ids {
        tables.let_it_end(id).await;
    }
    let mut told: Vec<_> = (0..3).map(|_| cloud.put(minute().to_string())).collect();
    told.extend(ids.iter().map(|id| cloud.put(change(id).to_string())));
    let mut late = minute();
    late["time"] = "2020-01-01T00:00:00Z".into();
    told.push(cloud.put(late.to_string()));
    for outcome in told {
        assert_eq!(outcome.await.unwrap(), worked());
    }
    for id in &ids {
        caller.until(id, "EXPIRED").await;
        let kinds = caller.kinds(id).await;
        let ends = kinds.iter().filter(|kind| *kind == "EXPIRED").count();
        assert_eq!(ends, 1, "{kinds:?}");
    }
    drop(processes);
}

/// An index knows later than the stream: what was changed is named, and not looked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_names_is_done_before_any_index_knows() {
    let tables = Tables::fresh().await;
    let lambda = Function::deploy(&Setup::in_dynamo(&tables)).await;
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    tables.let_it_end(&id).await;
    tables.hide_from_the_due(&id).await;
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
    assert_eq!(
        lambda.caller.show(&id).await["status"],
        "GRANTED",
        "nobody can find it"
    );
    assert_eq!(lambda.cloud.event(&change(&id)).await, worked());
    assert_eq!(lambda.caller.show(&id).await["status"], "EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_and_ends_left_by_others_are_done() {
    let channel = Channel::open().await;
    channel.answers(crate::common::Answer::Fails);
    let webhook = Some(channel.url.clone());
    let setup = Setup {
        webhook,
        ..Setup::default()
    };
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let cloud = Cloud::open().await;
    let first = Process::start_in(&cloud, &setup, folder.clone());
    let gateway = cloud.gateway("$default").await;
    let caller = Caller::new(&gateway, "plugin", SECRET);
    caller.bind().await;
    let id = caller.granted().await;
    first.kill();
    channel.answers(crate::common::Answer::Ok);
    let_grants_end(folder.path());
    cloud.asked(0).await;
    let _second = Process::start_in(&cloud, &setup, folder);
    cloud.patience(Duration::from_secs(120));
    assert_eq!(cloud.event(&minute()).await, worked());
    let heard: Vec<Value> = channel
        .heard()
        .iter()
        .map(|heard| heard.json()["status"].clone())
        .collect();
    assert_eq!(heard, ["GRANTED", "EXPIRED"]);
    assert_eq!(caller.show(&id).await["status"], "EXPIRED");
}

/// Whatever a caller sends, it is a call: nothing that is due is done because of it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_from_outside_reaches_the_worker() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let cloud = Cloud::open().await;
    let first = Process::start_in(&cloud, &Setup::default(), folder.clone());
    let gateway = cloud.gateway("$default").await;
    let caller = Caller::new(&gateway, "plugin", SECRET);
    caller.bind().await;
    let id = caller.granted().await;
    first.kill();
    let_grants_end(folder.path());
    let _second = Process::start_in(&cloud, &Setup::default(), folder);
    for path in [
        "/",
        "/jit",
        "/work",
        "/lambda",
        "/2015-03-31/functions/function/invocations",
        "/events",
    ] {
        for body in [minute(), change(&id), json!({"jit": "work"})] {
            let reply = caller.post(path, &body).await;
            assert_eq!(reply.status, 404, "{path}");
        }
    }
    let mut disguised = minute();
    disguised["requestContext"] = json!({"http": {"method": "POST", "path": "/"}});
    assert_eq!(cloud.event(&disguised).await.answer()["statusCode"], 404);
    assert_eq!(caller.show(&id).await["status"], "GRANTED");
    assert_eq!(cloud.event(&json!({"jit": "work"})).await, worked());
    assert_eq!(caller.show(&id).await["status"], "EXPIRED");
}

/// Lambda tries again what failed, and an alarm counts it: not being able to look is no
/// success.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_no_success() {
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let setup = Setup::in_dynamo(&tables.through(&proxy.url));
    let lambda = Function::deploy(&setup).await;
    lambda.caller.bind().await;
    proxy.set(Mood::Gone);
    let outcome = lambda.cloud.event(&change("x")).await;
    let Outcome::Failed(why) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(why["errorType"], "jit");
    proxy.set(Mood::Well);
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
}

/// What the template's alarms ask for is told, by this very process.
#[tokio::test(flavor = "multi_thread")]
async fn figures_are_told_as_cloudwatch_takes_them() {
    let lambda = Function::deploy(&Setup::default()).await;
    lambda.caller.bind().await;
    lambda.caller.granted().await;
    let stranger = Caller::new(&lambda.caller.url, "nobody", SECRET);
    stranger.get("/requests/1").await.is(401);
    // A function that is only called has no minute to tell it in.
    let refused = |line: &Value| line["jit_signature_refusals_total"] == 1.0;
    lambda.process.tells(refused).await;
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
    let counted = |line: &Value| line["jit_live_grants"].is_number();
    let last = lambda.process.tells(counted).await;
    assert!(
        last["jit_signature_refusals_total"].is_null(),
        "told twice: {last}"
    );
    assert_eq!(last["FunctionName"], "jit-api");
    assert_eq!(last["jit_live_grants"], 1.0);
    assert_eq!(last["jit_overdue_grants"], 0.0);
    let declared = &last["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(declared["Namespace"], "jit");
    assert_eq!(declared["Dimensions"], json!([["FunctionName"]]));
    for metric in declared["Metrics"].as_array().unwrap() {
        assert!(last[metric["Name"].as_str().unwrap()].is_number(), "{last}");
    }
}

// K11: the stream calls with every change, and figures are counted once a minute.
#[tokio::test(flavor = "multi_thread")]
async fn figures_are_counted_by_the_minute_and_not_by_the_stream() {
    let tables = Tables::fresh().await;
    let lambda = Function::deploy(&Setup::in_dynamo(&tables)).await;
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    for _ in 0..3 {
        assert_eq!(lambda.cloud.event(&change(&id)).await, worked());
    }
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
    let counted = |line: &Value| line["jit_live_grants"].is_number();
    lambda.process.tells(counted).await;
    let figures = lambda.process.figures();
    let times = figures.iter().filter(|line| counted(line)).count();
    assert_eq!(times, 1, "{figures:?}");
}
