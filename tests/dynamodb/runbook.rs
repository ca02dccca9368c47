//! The commands of an operator, with Amazon's command line and with jit's: the record changes, the
//! access ends, and the audit has the reason.

use jit::store::dynamodb::Table;
use serde_json::Value;

use crate::common::aws::Aws;
use crate::common::dynamo::Tables;
use crate::common::shell::{Said, Shell};
use crate::common::{Caller, Channel, Jit, Setup};

/// The command of CONTRACT, with the id and the time to be filled in.
const UPDATE: &str = r##"aws dynamodb update-item --table-name jit_requests --key '{"request_id":{"S":"ID"}}' --update-expression 'SET #s = :s, revoked_at = :t'
      --condition-expression '#s = :gs' --expression-attribute-names '{"#s":"status"}' --expression-attribute-values '{":s":{"S":"REVOKED"},":t":{"S":"TIME"},":gs":{"S":"GRANTED"}}'"##;
const GET: &str = r##"aws dynamodb get-item --table-name jit_requests --key '{"request_id":{"S":"ID"}}' --projection-expression '#s' --expression-attribute-names '{"#s":"status"}'"##;
const QUERY: &str = r##"aws dynamodb query --table-name jit_audit --key-condition-expression 'request_id = :rid' --expression-attribute-values '{":rid":{"S":"ID"}}'"##;

struct Incident {
    aws: Aws,
    shell: Shell,
    setup: Setup,
    jit: Jit,
    caller: Caller,
    id: String,
}

/// One person has access, and another is on call.
async fn incident(tables: Tables, webhook: Option<String>) -> Incident {
    let aws = Aws::quick().await;
    let setup = || Setup {
        aws: Some(aws.clone()),
        dynamo: Some(tables.clone()),
        webhook: webhook.clone(),
        ..Setup::default()
    };
    let (jit, caller) = setup().bound().await;
    let id = caller.granted().await;
    assert_eq!(aws.assignments().len(), 1);
    Incident {
        shell: Shell::with(setup()),
        setup: setup(),
        aws,
        jit,
        caller,
        id,
    }
}

impl Incident {
    fn aws_line(&self, line: &str) -> Said {
        let line = line
            .replace("ID", &self.id)
            .replace("TIME", "2026-11-21T03:00:00Z");
        self.shell.line(&line.replace('\n', " "))
    }

    fn cleanup(&self, more: &[&str]) -> Said {
        let mut arguments = vec!["cleanup", &self.id, "--reason", "incident 7"];
        arguments.extend(["--as", "sec@example.com"]);
        arguments.extend(more);
        self.shell.run(&arguments)
    }

    fn unassign(&self) {
        let admin = crate::common::aws::ADMIN;
        self.aws
            .unassign(crate::common::ACCOUNT, admin, "alice@example.com");
    }
}

fn json(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{}", said.err);
    serde_json::from_str(&said.out).unwrap()
}

// P1, P6: jit reads the written status and carries it out at AWS.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_contract_work_unchanged() {
    let channel = Channel::open().await;
    let tables = Tables::usually_named().made().await;
    let incident = incident(tables, Some(channel.url.clone())).await;
    let granted = json(&incident.aws_line(GET));
    assert_eq!(granted["Item"]["status"]["S"], "GRANTED");

    assert_eq!(incident.aws_line(UPDATE).code, 0);
    let again = incident.aws_line(UPDATE);
    assert!(
        again.err.contains("ConditionalCheckFailed"),
        "{}",
        again.err
    );
    assert_eq!(
        json(&incident.aws_line(GET))["Item"]["status"]["S"],
        "REVOKED"
    );

    let event = incident.caller.until_told(&incident.id, "REVOKED").await;
    assert_eq!(event["details"]["source"], "changed outside jit");
    assert!(incident.aws.assignments().is_empty());
    let shown = incident.caller.show(&incident.id).await;
    assert_eq!(shown["status"], "REVOKED");
    assert_eq!(shown["revoked_at"], "2026-11-21T03:00:00.000Z");
    let rows = json(&incident.aws_line(QUERY));
    let last = rows["Items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["event_type"]["S"], "REVOKED");
    let key = format!(
        "{}#{}",
        last["event_time"]["S"].as_str().unwrap(),
        last["event_id"]["S"].as_str().unwrap()
    );
    assert_eq!(last["event_time_event_id"]["S"], key);
    assert_eq!(last["details"]["M"]["source"]["S"], "changed outside jit");
    channel.wait_for(2).await;
    let verified = incident.shell.run(&["audit", "verify", &incident.id]);
    assert_eq!(verified.code, 0, "{}", verified.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_records_a_removal_made_at_aws() {
    let incident = incident(Tables::fresh().await, None).await;
    let standing = incident.cleanup(&[]);
    assert_eq!(standing.code, 1);
    assert!(
        standing.err.contains("AWS still shows the assignment"),
        "{}",
        standing.err
    );
    assert_eq!(
        incident.caller.show(&incident.id).await["status"],
        "GRANTED"
    );

    incident.unassign();
    let done = incident.cleanup(&[]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(
        done.out
            .contains("REVOKED: AWS shows that the access is gone"),
        "{}",
        done.out
    );
    let shown = incident.caller.show(&incident.id).await;
    assert_eq!(
        (&shown["status"], &shown["revoked_by"]),
        (&"REVOKED".into(), &"sec@example.com".into())
    );
    let last = incident.caller.audit(&incident.id).await.pop().unwrap();
    assert_eq!(last["event_type"], "REVOKED");
    assert_eq!(last["actor_email"], "sec@example.com");
    assert_eq!(last["details"]["reason"], "incident 7");
    assert_eq!(last["details"]["cleanup"], "AWS shows that it is gone");

    let again = incident.cleanup(&["-o", "json"]);
    assert_eq!(json(&again)["message"], "already REVOKED");
    let verified = incident.shell.run(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.err);
}

// P1, P6: cleanup did not look at AWS, so the next worker does, and finds the assignment.
#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_cleanup_is_verified_later() {
    let Incident {
        aws,
        shell,
        setup,
        jit,
        id,
        ..
    } = incident(Tables::fresh().await, None).await;
    let folder = jit.kill();
    let reason = [
        "--reason",
        "the console says so",
        "--as",
        "sec@example.com",
        "--unverified",
    ];
    let said = shell.run(&[&["cleanup", &id], &reason[..]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("not verified"), "{}", said.out);
    let status = setup.dynamo.as_ref().unwrap();
    let table = status.name(Table::Requests);
    let get = GET.replace("jit_requests", table).replace("ID", &id);
    assert_eq!(json(&shell.line(&get))["Item"]["status"]["S"], "REVOKED");
    assert_eq!(aws.assignments().len(), 1, "AWS has not been checked");

    let jit = Jit::start_with(folder, &setup.environment());
    let event = jit.caller().until_told(&id, "REVOKED").await;
    assert_eq!(event["status"], "REVOKED");
    assert!(aws.assignments().is_empty());
    let kinds = jit.caller().kinds(&id).await;
    assert_eq!(kinds[4..], ["CLEANED_UP", "REVOKED"]);
    let unverified = jit.caller().audit(&id).await[4].clone();
    assert_eq!(
        unverified["details"]["cleanup"],
        "not verified: AWS was not asked"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_refuses_a_request_without_access() {
    let incident = incident(Tables::fresh().await, None).await;
    let pending = incident.caller.request().await;
    let said = incident.shell.run(&[
        "cleanup",
        &pending,
        "--reason",
        "x",
        "--as",
        "sec@example.com",
    ]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("PENDING"), "{}", said.err);
    let unknown = "00000000-0000-4000-8000-000000000000";
    let said = incident.shell.run(&["cleanup", unknown, "--reason", "x"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there is no request"), "{}", said.err);
    assert_eq!(
        incident.shell.run(&["cleanup", "x", "--reason", "x"]).code,
        2
    );
    assert_eq!(
        incident.shell.run(&["cleanup", &pending]).code,
        2,
        "a reason is needed"
    );
}
