//! The stream invokes the worker for work that is due now, and for nothing else.

use jit::store::dynamodb::Table;
use serde_json::{Value, json};

use crate::common::dynamo::Tables;
use crate::common::shell::Shell;
use crate::common::{Jit, Setup};
use crate::template;

/// The template's filters, evaluated by the rules of EventBridge patterns that they use.
fn filters() -> Vec<Value> {
    let template = template::written();
    let stream =
        &template["Resources"]["WorkerFunction"]["Properties"]["Events"]["AtOnce"]["Properties"];
    let filters = stream["FilterCriteria"]["Filters"].as_array().unwrap();
    let pattern =
        |filter: &Value| serde_json::from_str(filter["Pattern"].as_str().unwrap()).unwrap();
    filters.iter().map(pattern).collect()
}

fn matches(pattern: &Value, event: &Value) -> bool {
    match pattern {
        Value::Object(fields) => fields
            .iter()
            .all(|(name, inner)| matches(inner, &event[name])),
        Value::Array(any) => any.iter().any(|one| match one {
            Value::Object(rule) => event.is_null() != rule["exists"].as_bool().unwrap(),
            word => word == event,
        }),
        other => panic!("no pattern: {other}"),
    }
}

struct StreamCheck {
    tables: Tables,
    shell: Shell,
}

impl StreamCheck {
    /// Whether the stream would invoke the worker for the record as it was just written.
    fn calls(&self, id: &str) -> bool {
        let table = self.tables.name(Table::Requests);
        let key = json!({"request_id": {"S": id}}).to_string();
        let found = self.shell.line(&format!(
            "aws dynamodb get-item --table-name {table} --key '{key}'"
        ));
        let found: Value = serde_json::from_str(&found.out).unwrap();
        let event = json!({"dynamodb": {"NewImage": found["Item"]}});
        filters().iter().any(|pattern| matches(pattern, &event))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_invokes_the_worker_for_due_work_and_a_written_status() {
    let tables = Tables::fresh().await;
    let stream = StreamCheck {
        shell: Shell::with(Setup::in_dynamo(&tables)),
        tables: tables.clone(),
    };
    let slow = || Setup {
        latency_ms: 3_600_000,
        ..Setup::in_dynamo(&tables)
    };
    let (jit, caller) = Setup::in_dynamo(&tables).bound().await;
    let waits = caller.request().await;
    assert!(
        !stream.calls(&waits),
        "a pending request waits for its approval"
    );
    let granted = caller.granted().await;
    assert!(!stream.calls(&granted), "a grant waits for its end_time");
    let over = caller.request().await;
    caller.deny(&over).await.is(200);
    assert!(!stream.calls(&over), "the request is settled");
    drop(jit);

    // A worker holds the lease.
    let jit = slow().start();
    let begun = jit.caller().request().await;
    jit.caller().approve(&begun).await.is(200);
    jit.caller().until_told(&begun, "ASSIGNING").await;
    assert!(!stream.calls(&begun), "a worker has the lease");
    // The worker gives the lease back, as an invocation does at its time limit.
    let (_, _, folder): (_, _, _) = Jit::terminate(jit);
    assert!(stream.calls(&begun), "no worker has the lease");
    drop(folder);

    let table = tables.name(Table::Requests);
    let key = json!({"request_id": {"S": granted}}).to_string();
    let said = stream.shell.line(&format!(
        "aws dynamodb update-item --table-name {table} --key '{key}' --update-expression 'SET #s = :s' \
         --expression-attribute-names '{{\"#s\":\"status\"}}' \
         --expression-attribute-values '{{\":s\":{{\"S\":\"REVOKED\"}}}}'"
    ));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(stream.calls(&granted), "an operator wrote a status");
}
