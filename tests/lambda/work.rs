//! Due work, started by the schedule and by the stream, and not by callers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jit::clock::{Clock, SystemClock};
use jit::domain::{AuditKey, Millis, Timestamp};
use jit::store::Store;
use serde_json::{Value, json};

use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::lambda::{Cloud, Function, Outcome, Process, change, minute};
use crate::common::{Caller, Channel, SECRET, Setup, let_grants_end};

fn worked() -> Outcome {
    Outcome::Answered(json!({"jit": "worked"}))
}

/// The process waits for the end of a grant and removes it to the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_invocation_does_the_work_due_in_its_minute() {
    let tables = Tables::fresh().await;
    let lambda = Function::deploy(&Setup::in_dynamo(&tables)).await;
    lambda.cloud.time_limit(Duration::from_secs(120));
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    let end = SystemClock.now() + Millis::seconds(6);
    tables.let_it_end_at(&id, end).await;
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
    let over = lambda.caller.show(&id).await;
    assert_eq!(over["status"], "EXPIRED");
    let over: Timestamp = serde_json::from_value(over["expired_at"].clone()).unwrap();
    let late = over - end;
    // The limit catches a process that misses the end and leaves it to the next minute.
    assert!((0..20_000).contains(&late.0), "{late:?} late");
}

/// An invocation without work ends at once, so it costs little.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_invocation_without_work_ends_at_once() {
    let lambda = Function::deploy(&Setup::default()).await;
    lambda.caller.bind().await;
    lambda.caller.granted().await;
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(lambda.cloud.event(&minute()).await, worked());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "the invocation waited"
    );
}

/// The event arrives twice, late, and three times at once: each removal happens once.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_late_and_parallel_events_do_each_removal_once() {
    let tables = Tables::fresh().await;
    let setup = Setup::in_dynamo(&tables);
    let cloud = Cloud::open().await;
    let folder = || Arc::new(tempfile::tempdir().unwrap());
    let shared = folder();
    // One Identity Center, and one process for each of three simultaneous invocations.
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

/// The stream is ahead of the index: the worker takes the request that the event names, without the
/// index.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_named_by_the_stream_is_done_before_the_index_shows_it() {
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
        "the index must not show the request"
    );
    assert_eq!(lambda.cloud.event(&change(&id)).await, worked());
    assert_eq!(lambda.caller.show(&id).await["status"], "EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_and_expiries_left_by_another_process_are_done() {
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
    cloud.wait_for_polls(0).await;
    let _second = Process::start_in(&cloud, &setup, folder);
    cloud.time_limit(Duration::from_secs(120));
    assert_eq!(cloud.event(&minute()).await, worked());
    let heard: Vec<Value> = channel
        .received()
        .iter()
        .map(|heard| heard.json()["status"].clone())
        .collect();
    assert_eq!(heard, ["GRANTED", "EXPIRED"]);
    assert_eq!(caller.show(&id).await["status"], "EXPIRED");
}

/// No content of a call can start the worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_outside_cannot_start_the_worker() {
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

/// Lambda retries a failed invocation and an alarm counts it, so an unreachable store must be a
/// failure.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_store_fails_the_invocation() {
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let setup = Setup::in_dynamo(&tables.through(&proxy.url));
    let lambda = Function::deploy(&setup).await;
    lambda.caller.bind().await;
    proxy.set(Mood::Unreachable);
    let outcome = lambda.cloud.event(&change("x")).await;
    let Outcome::Failed(why) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(why["errorType"], "jit");
    proxy.set(Mood::Well);
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
}

/// The process writes the metrics that the template's alarms use.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_written_in_the_cloudwatch_format() {
    let lambda = Function::deploy(&Setup::default()).await;
    lambda.caller.bind().await;
    lambda.caller.granted().await;
    let stranger = Caller::new(&lambda.caller.url, "nobody", SECRET);
    stranger.get("/requests/1").await.is(401);
    // A function that gets only calls writes its metrics with them.
    let refused = |line: &Value| line["jit_signature_refusals_total"] == 1.0;
    lambda.process.metrics_when(refused).await;
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
    let counted = |line: &Value| line["jit_live_grants"].is_number();
    let last = lambda.process.metrics_when(counted).await;
    assert!(
        last["jit_signature_refusals_total"].is_null(),
        "written twice: {last}"
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

// K11: the stream invokes the worker at every change; gauges are counted once a minute.
#[tokio::test(flavor = "multi_thread")]
async fn gauges_are_counted_by_the_schedule_and_not_by_the_stream() {
    let tables = Tables::fresh().await;
    let lambda = Function::deploy(&Setup::in_dynamo(&tables)).await;
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    for _ in 0..3 {
        assert_eq!(lambda.cloud.event(&change(&id)).await, worked());
    }
    assert_eq!(lambda.cloud.event(&minute()).await, worked());
    let counted = |line: &Value| line["jit_live_grants"].is_number();
    lambda.process.metrics_when(counted).await;
    let figures = lambda.process.figures();
    let times = figures.iter().filter(|line| counted(line)).count();
    assert_eq!(times, 1, "{figures:?}");
}

/// C: the head log has a history before the next invocation, without the schedule.
#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_that_changed_something_writes_the_head_log() {
    let tables = Tables::fresh().await;
    let lambda = Function::deploy(&Setup::in_dynamo(&tables)).await;
    lambda.caller.bind().await;
    let id = lambda.caller.granted().await;
    // The process answers this call after the invocation before it has ended.
    lambda.caller.show(&id).await;
    let store = tables.store();
    let entries = store.head_entries(0, 100).await.unwrap();
    let ends = entries.iter().filter_map(|entry| entry.ends.get(&id));
    let logged = ends.map(|end| end.version).max();
    let key = AuditKey::Request(id.parse().unwrap());
    let history = store.audit(&key).await.unwrap();
    assert_eq!(logged, Some(history.len() as u64));
}
