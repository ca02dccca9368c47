//! What an operator does by hand, with Amazon's own command line and with jit's: the
//! record follows, the access is gone, and the audit says how.

use jit::store::dynamodb::Table;
use serde_json::Value;

use crate::common::aws::Aws;
use crate::common::dynamo::Tables;
use crate::common::shell::{Said, Shell};
use crate::common::{Caller, Channel, Jit, Setup};

/// As CONTRACT has them, but for the id and the time.
const UPDATE: &str = r##"aws dynamodb update-item --table-name jit_requests --key '{"request_id":{"S":"ID"}}' --update-expression 'SET #s = :s, revoked_at = :t'
      --condition-expression '#s = :gs' --expression-attribute-names '{"#s":"status"}' --expression-attribute-values '{":s":{"S":"REVOKED"},":t":{"S":"TIME"},":gs":{"S":"GRANTED"}}'"##;
const GET: &str = r##"aws dynamodb get-item --table-name jit_requests --key '{"request_id":{"S":"ID"}}' --projection-expression '#s' --expression-attribute-names '{"#s":"status"}'"##;
const QUERY: &str = r##"aws dynamodb query --table-name jit_audit --key-condition-expression 'request_id = :rid' --expression-attribute-values '{":rid":{"S":"ID"}}'"##;

struct Night {
    aws: Aws,
    shell: Shell,
    setup: Setup,
    jit: Jit,
    caller: Caller,
    id: String,
}

/// Somebody has access, and somebody else is on call.
async fn night(tables: Tables, webhook: Option<String>) -> Night {
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
    Night {
        shell: Shell::with(setup()),
        setup: setup(),
        aws,
        jit,
        caller,
        id,
    }
}

impl Night {
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

// P1, P6: the word is taken, and made true.
#[tokio::test(flavor = "multi_thread")]
async fn the_runbooks_commands_work_as_they_stand() {
    let channel = Channel::open().await;
    let tables = Tables::usually_named().made().await;
    let night = night(tables, Some(channel.url.clone())).await;
    let granted = json(&night.aws_line(GET));
    assert_eq!(granted["Item"]["status"]["S"], "GRANTED");

    assert_eq!(night.aws_line(UPDATE).code, 0);
    let again = night.aws_line(UPDATE);
    assert!(
        again.err.contains("ConditionalCheckFailed"),
        "{}",
        again.err
    );
    assert_eq!(json(&night.aws_line(GET))["Item"]["status"]["S"], "REVOKED");

    let event = night.caller.until_told(&night.id, "REVOKED").await;
    assert_eq!(event["details"]["source"], "changed outside jit");
    assert!(night.aws.assignments().is_empty());
    let shown = night.caller.show(&night.id).await;
    assert_eq!(shown["status"], "REVOKED");
    assert_eq!(shown["revoked_at"], "2026-11-21T03:00:00.000Z");
    let rows = json(&night.aws_line(QUERY));
    let last = rows["Items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["event_type"]["S"], "REVOKED");
    let key = format!(
        "{}#{}",
        last["event_time"]["S"].as_str().unwrap(),
        last["event_id"]["S"].as_str().unwrap()
    );
    assert_eq!(last["event_time_event_id"]["S"], key);
    assert_eq!(last["details"]["M"]["source"]["S"], "changed outside jit");
    channel.hears(2).await;
    let verified = night.shell.run(&["audit", "verify", &night.id]);
    assert_eq!(verified.code, 0, "{}", verified.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_follows_what_was_done_at_aws() {
    let night = night(Tables::fresh().await, None).await;
    let standing = night.cleanup(&[]);
    assert_eq!(standing.code, 1);
    assert!(
        standing.err.contains("AWS still shows the assignment"),
        "{}",
        standing.err
    );
    assert_eq!(night.caller.show(&night.id).await["status"], "GRANTED");

    night.unassign();
    let done = night.cleanup(&[]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(
        done.out.contains("REVOKED: AWS shows that it is gone"),
        "{}",
        done.out
    );
    let shown = night.caller.show(&night.id).await;
    assert_eq!(
        (&shown["status"], &shown["revoked_by"]),
        (&"REVOKED".into(), &"sec@example.com".into())
    );
    let last = night.caller.audit(&night.id).await.pop().unwrap();
    assert_eq!(last["event_type"], "REVOKED");
    assert_eq!(last["actor_email"], "sec@example.com");
    assert_eq!(last["details"]["reason"], "incident 7");
    assert_eq!(last["details"]["cleanup"], "AWS shows that it is gone");

    let again = night.cleanup(&["-o", "json"]);
    assert_eq!(json(&again)["message"], "already REVOKED");
    let verified = night.shell.run(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.err);
}

// P1, P6: nobody asked AWS, so the next worker does, and finds it standing.
#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_cleanup_is_verified_later() {
    let Night {
        aws,
        shell,
        setup,
        jit,
        id,
        ..
    } = night(Tables::fresh().await, None).await;
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
    assert_eq!(aws.assignments().len(), 1, "nobody has looked");

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
async fn what_was_never_given_is_not_cleaned_up() {
    let night = night(Tables::fresh().await, None).await;
    let pending = night.caller.request().await;
    let said = night.shell.run(&[
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
    let said = night.shell.run(&["cleanup", unknown, "--reason", "x"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there is no request"), "{}", said.err);
    assert_eq!(night.shell.run(&["cleanup", "x", "--reason", "x"]).code, 2);
    assert_eq!(
        night.shell.run(&["cleanup", &pending]).code,
        2,
        "a reason is needed"
    );
}
