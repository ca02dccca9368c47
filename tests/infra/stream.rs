//! The stream calls the worker for what has to be done at once, and for nothing else.

use jit::store::dynamodb::Table;
use serde_json::{Value, json};

use crate::common::dynamo::Tables;
use crate::common::shell::Shell;
use crate::common::{Jit, Setup};
use crate::template;

/// The template's filters, by the rules of EventBridge's patterns that they use.
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

struct Desk {
    tables: Tables,
    shell: Shell,
}

impl Desk {
    /// Whether the worker would be called for the record as it was just written.
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
async fn it_calls_for_what_is_due_now_and_for_an_operators_word() {
    let tables = Tables::fresh().await;
    let desk = Desk {
        shell: Shell::with(Setup::in_dynamo(&tables)),
        tables: tables.clone(),
    };
    let slow = || Setup {
        latency_ms: 3_600_000,
        ..Setup::in_dynamo(&tables)
    };
    let (jit, caller) = Setup::in_dynamo(&tables).bound().await;
    let waits = caller.request().await;
    assert!(!desk.calls(&waits), "a decision is waited for");
    let granted = caller.granted().await;
    assert!(!desk.calls(&granted), "its end comes in its time");
    let over = caller.request().await;
    caller.deny(&over).await.is(200);
    assert!(!desk.calls(&over), "it is over");
    drop(jit);

    // Somebody is at it: the lease is theirs.
    let jit = slow().start();
    let begun = jit.caller().request().await;
    jit.caller().approve(&begun).await.is(200);
    jit.caller().until_told(&begun, "ASSIGNING").await;
    assert!(!desk.calls(&begun), "it has been begun");
    // Let go of, as an invocation does whose time is over.
    let (_, _, folder): (_, _, _) = Jit::terminate(jit);
    assert!(desk.calls(&begun), "nobody has it now");
    drop(folder);

    let table = tables.name(Table::Requests);
    let key = json!({"request_id": {"S": granted}}).to_string();
    let said = desk.shell.line(&format!(
        "aws dynamodb update-item --table-name {table} --key '{key}' --update-expression 'SET #s = :s' \
         --expression-attribute-names '{{\"#s\":\"status\"}}' \
         --expression-attribute-values '{{\":s\":{{\"S\":\"REVOKED\"}}}}'"
    ));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(desk.calls(&granted), "an operator's word");
}
