//! Alarms: each one uses a metric that the program writes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::common::lambda::{Function, minute};
use crate::common::{Caller, SECRET, Setup};
use crate::template;

/// Every metric that a process has written, with its dimensions.
async fn metric_names() -> BTreeSet<String> {
    let lambda = Function::deploy(&Setup::default()).await;
    let stranger = Caller::new(&lambda.caller.url, "nobody", SECRET);
    stranger.get("/requests/1").await.is(401);
    lambda.cloud.event(&minute()).await.answer();
    let counted = |line: &serde_json::Value| line["jit_live_grants"].is_number();
    lambda.process.metrics_when(counted).await;
    let mut names = BTreeSet::new();
    for line in lambda.process.figures() {
        for declared in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
            assert_eq!(declared["Namespace"], "jit");
            assert_eq!(declared["Dimensions"], json!([["FunctionName"]]));
            let metrics = declared["Metrics"].as_array().unwrap().iter();
            names.extend(metrics.map(|one| one["Name"].as_str().unwrap().to_owned()));
        }
    }
    names
}

// G14: an alarm on a metric that is never written never fires.
#[tokio::test(flavor = "multi_thread")]
async fn each_alarm_uses_a_metric_that_is_written() {
    let told = metric_names().await;
    let template = template::written();
    let known = BTreeMap::from([
        ("AWS/Lambda", vec!["Errors", "Invocations", "Throttles"]),
        ("AWS/SQS", vec!["ApproximateNumberOfMessagesVisible"]),
    ]);
    let mut asked = BTreeSet::new();
    for (name, alarm) in template::of_type(&template, "AWS::CloudWatch::Alarm") {
        let alarm = &alarm["Properties"];
        let metric = alarm["MetricName"].as_str().unwrap();
        let dimension = &alarm["Dimensions"][0];
        match alarm["Namespace"].as_str().unwrap() {
            "jit" => {
                assert!(
                    told.contains(metric),
                    "{name}: {metric} is not written: {told:?}"
                );
                assert_eq!(dimension["Name"], "FunctionName", "{name}");
                asked.insert(metric.to_owned());
            }
            aws => assert!(
                known[aws].contains(&metric),
                "{name}: {aws} has no {metric}"
            ),
        }
        assert_eq!(
            alarm["AlarmActions"],
            json!([{"Ref": "AlarmTopic"}]),
            "{name}"
        );
        let points = alarm["DatapointsToAlarm"].as_u64().unwrap();
        assert!(
            points <= alarm["EvaluationPeriods"].as_u64().unwrap(),
            "{name}"
        );
    }
    // The metrics of the failures that need a person.
    for metric in [
        "jit_overdue_grants",
        "jit_failing_removals",
        "jit_stuck_requests",
        "jit_oldest_undelivered_notice_seconds",
        "jit_signature_refusals_total",
        "jit_oldest_due_seconds",
    ] {
        assert!(asked.contains(metric), "no alarm uses {metric}");
    }
}

/// The worker writes gauges, and the API function counts refused signatures.
#[test]
fn each_alarm_uses_the_function_that_writes_its_metric() {
    let template = template::written();
    for (name, alarm) in template::of_type(&template, "AWS::CloudWatch::Alarm") {
        let alarm = &alarm["Properties"];
        if alarm["Namespace"] != "jit" {
            continue;
        }
        let function = match alarm["MetricName"].as_str().unwrap() {
            "jit_signature_refusals_total" => "ApiFunction",
            _ => "WorkerFunction",
        };
        let wanted: Value = json!([{"Name": "FunctionName", "Value": {"Ref": function}}]);
        assert_eq!(alarm["Dimensions"], wanted, "{name}");
    }
}

/// The same for one machine, from /metrics.
#[tokio::test(flavor = "multi_thread")]
async fn each_alert_uses_an_exported_metric() {
    let (_jit, caller) = Setup::default().bound().await;
    caller.granted().await;
    let metrics = caller.metrics().await.text;
    let read = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let file = template::home().join("infra/prometheus-alerts.yaml");
    let said = template::tool("python")
        .args(["-c", read])
        .arg(file)
        .output()
        .unwrap();
    let alerts: Value = serde_json::from_slice(&said.stdout).unwrap();
    let pages = include_str!("../../runbooks/alarms.md");
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 6, "{rules:?}");
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            pages.contains(&format!("## {name}\n")),
            "{name} has no section"
        );
        let asked = rule["expr"].as_str().unwrap();
        let words = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("jit_")) {
            let is_there = |line: &str| line.starts_with(metric);
            assert!(metrics.lines().any(is_there), "{name}: no {metric}");
        }
    }
}
