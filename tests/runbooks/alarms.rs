//! The page about alarms: each alarm has a section, and its commands work.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::aws::{Aws, Fault};
use crate::common::dynamo::Tables;
use crate::common::lambda::{Cloud, Process};
use crate::common::moto::Moto;
use crate::common::{Caller, SECRET, Setup};
use crate::page::Page;
use crate::stage::Stage;

/// Every alarm of the template, by name.
fn alarms() -> BTreeSet<String> {
    let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = Command::new(home.join("target/moto/bin/python"))
        .arg(home.join("tests/infra/template.py"))
        .arg("written")
        .arg(home.join("infra/template.yaml"))
        .output()
        .unwrap();
    let template: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let resources = template["Resources"].as_object().unwrap().values();
    let alarms = resources.filter(|one| one["Type"] == "AWS::CloudWatch::Alarm");
    let name = |one: &serde_json::Value| {
        let name = one["Properties"]["AlarmName"]["Fn::Sub"].as_str().unwrap();
        name.replace("${Name}", "jit")
    };
    alarms.map(name).collect()
}

#[test]
fn each_alarm_has_its_section() {
    let page = Page::open("alarms");
    let sections = page.titles().filter(|title| title.starts_with("jit-"));
    let sections: BTreeSet<String> = sections.map(str::to_owned).collect();
    assert_eq!(sections, alarms());
}

/// The resources that the commands need besides: logs, a schedule, a queue.
fn prepare(stage: &Stage) {
    let said = stage.run(
        r#"for name in jit-api jit-worker; do
            aws logs create-log-group --log-group-name "/aws/lambda/$name"
            aws logs create-log-stream --log-group-name "/aws/lambda/$name" --log-stream-name one
            aws logs put-log-events --log-group-name "/aws/lambda/$name" --log-stream-name one --log-events \
                "[{\"timestamp\":$(date +%s)000,\"message\":\"ERROR the worker of $name\"},{\"timestamp\":$(date +%s)000,\"message\":\"WARN notice not received, not accepted as signed\"}]"
        done
        aws sqs create-queue --queue-name jit-not-handled
        queue=$(aws sqs get-queue-url --queue-name jit-not-handled --query QueueUrl --output text)
        aws sqs send-message --queue-url "$queue" --message-body '{"given": "up"}'
        aws scheduler create-schedule --name jit-every-minute --schedule-expression 'rate(1 minute)' \
            --flexible-time-window Mode=OFF \
            --target '{"Arn":"arn:aws:lambda:eu-central-1:111111111111:function:jit-worker","RoleArn":"arn:aws:iam::111111111111:role/jit"}'
        printf '{"jit": "work"}' > work.json"#,
    );
    assert_eq!(said.code, 0, "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_alarms_md_run() {
    let (aws, moto, cloud) = (Aws::quick().await, Moto::start(), Cloud::open().await);
    let tables = Tables::usually_named().made().await;
    let mut variables = cloud.environment();
    variables.extend([
        ("AWS_ENDPOINT_URL", moto.url.clone()),
        ("JIT_CLIENT__KEY_ID", "plugin".into()),
        ("JIT_CLIENT__SECRET", SECRET.into()),
        ("JIT_VIA", "lambda:jit-api".into()),
    ]);
    let setup = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(tables),
        variables,
        ..Setup::default()
    };
    let stage = Stage::with(&setup);
    prepare(&stage);
    let _process = Process::start(&cloud, &setup);
    let gateway = cloud.gateway("$default").await;
    let caller = Caller::new(&gateway, "plugin", SECRET);
    caller.bind().await;
    let failing = caller.granted().await;
    aws.once("DeleteAccountAssignment", Fault::Denied);
    caller.revoke(&failing).await.is(202);
    stage.set("ID", &failing);
    stage.set("ME", "sec@example.com");

    let page = Page::open("alarms");
    page.play("First look", &stage);
    assert!(stage.read("answer.json").contains("worked"));
    let told = |title: &str, word: &str| {
        let said = page.play(title, &stage);
        assert!(said.out.contains(word), "{title}: {}", said.out);
    };
    told("The worker's log", "ERROR the worker of jit-worker");
    told("jit-failing-removals", "REMOVAL_FAILING");
    told("jit-stuck-requests", "REMOVAL_FAILING");
    told("jit-overdue-grants", "REVOKED");
    assert!(aws.assignments().is_empty());
    page.play("jit-oldest-due", &stage);
    told("jit-undelivered-notices", "notice not received");
    page.play("jit-parked-notices", &stage);
    told("jit-signature-refusals", "not accepted as signed");
    told("jit-worker-silent", "ENABLED");
    page.play("jit-worker-fails", &stage);
    told("jit-worker-throttled", "ConcurrentExecutions");
    told("jit-api-fails", "ERROR the worker of jit-api");
    told("jit-not-handled", "given");
    page.ends();
}
