//! The client commands, which invoke the function directly.

use serde_json::{Value, json};

use crate::common::lambda::Function;
use crate::common::shell::{Said, Shell};
use crate::common::{SECRET, Setup};

/// The configuration of an operator: a key, and no server settings.
fn operator(lambda: &Function) -> Shell {
    let mut variables = lambda.cloud.environment();
    variables.extend([
        ("JIT_CLIENT__KEY_ID", "plugin".into()),
        ("JIT_CLIENT__SECRET", SECRET.into()),
        ("AWS_REGION", "eu-central-1".into()),
        ("AWS_ACCESS_KEY_ID", "operator".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
    ]);
    Shell::with(Setup {
        variables,
        ..Setup::default()
    })
}

fn done(said: &Said) -> &str {
    assert_eq!(said.code, 0, "{}", said.err);
    &said.out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_command_invokes_the_function() {
    let lambda = Function::deploy(&Setup::default()).await;
    let shell = operator(&lambda);
    let via = "--via=lambda:jit-api";
    let alice = "--as=alice@example.com";
    let bob = "--as=bob@example.com";
    done(&shell.run(&["bind", via, "--channel", "ops", "--account", "111122223333"]));
    done(&shell.run(&["approvers", via, "--channel", "ops", "bob"]));
    let asked = [
        "request",
        via,
        alice,
        "--account",
        "111122223333",
        "--channel",
        "ops",
        "--minutes",
        "60",
        "--permission-set",
        "admin",
        "--reason",
        "INC-42",
        "-o",
        "json",
    ];
    let asked: Value = serde_json::from_str(done(&shell.run(&asked))).unwrap();
    let id = asked["request_id"].as_str().unwrap();
    done(&shell.run(&["approve", id, via, bob]));
    let shown = shell.run(&["status", id, via]);
    assert!(done(&shown).contains("GRANTED"), "{}", shown.out);
    let listed = shell.run(&["list", "--requester", "alice@example.com", via]);
    assert!(done(&listed).contains(id), "{}", listed.out);
    let revoked = shell.run(&[
        "revoke",
        id,
        "--reason",
        "incident 7",
        via,
        "--as=sec@example.com",
    ]);
    assert!(done(&revoked).contains("REVOKED"), "{}", revoked.out);
    done(&shell.run(&["audit", "show", id, via]));
    // The event is the one in CONTRACT, without other fields.
    let events = lambda.cloud.invoked();
    let path = format!("/requests/{id}/revoke");
    let of_revoke = |event: &&Value| event["requestContext"]["http"]["path"] == path;
    let event = events.iter().find(of_revoke).unwrap();
    let names: Vec<&String> = event.as_object().unwrap().keys().collect();
    assert_eq!(names, ["body", "headers", "requestContext"]);
    assert_eq!(
        event["requestContext"],
        json!({"http": {"method": "POST", "path": path}})
    );
}

/// Each error names its source and the next step, and sets the exit code.
#[tokio::test(flavor = "multi_thread")]
async fn each_error_of_an_invocation_names_its_source() {
    let lambda = Function::deploy(&Setup::default()).await;
    let shell = operator(&lambda);
    let refused = |words: &[&str], code: i32, wanted: &str| {
        let said = shell.run(words);
        assert_eq!(said.code, code, "{}", said.err);
        assert!(said.err.contains(wanted), "{}", said.err);
    };
    let id = "01a1fd36-48a0-790d-8297-f43722aa0cb8";
    refused(&["status", id, "--via", "lambda:jit-api"], 1, "no request");
    refused(
        &["status", id, "--via", "lambda:other"],
        1,
        "the function does not exist",
    );
    refused(&["status", id, "--via", "lambda:"], 2, "lambda:jit-api");
    refused(&["status", id, "--via", "http://x"], 2, "lambda:jit-api");
    lambda.process.kill();
    let cloud = lambda.cloud.clone();
    let broken = std::thread::spawn(move || cloud.fail_the_next("the process ended"));
    refused(
        &["status", id, "--via", "lambda:jit-api"],
        1,
        "the process ended",
    );
    broken.join().unwrap();
}
