//! The output for a person at the terminal: their own words, the whole state, and an error in one line.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use crate::common::{ACCOUNT, CHANNEL, SECRET, Setup, binary};
use crate::{ASKING, Ran, Shell};

const AWS: &str = r#"
[store]
kind = "dynamodb"

[identity_center]
instance_arn = "arn:aws:sso:::instance/ssoins-1111111111111111"
identity_store_id = "d-1111111111"

[permission_sets]
admin = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111"
"#;

/// Runs a command in a folder whose jit.toml names AWS, without credentials.
fn at_aws(folder: &Path, words: &[&str], more: &[(&str, &str)]) -> Ran {
    let mut command = binary();
    command
        .args(words)
        .current_dir(folder)
        .env("HOME", folder)
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(more.iter().copied());
    Ran::new(words, &command.output().unwrap())
}

fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jit.toml"), text).unwrap();
    folder
}

const CREDENTIALS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
];

/// H6: every client of AWS says in one line that there are no credentials, and calls it no denial.
#[test]
fn missing_credentials_are_named_by_every_client_of_aws() {
    let client = "[client]\nurl = \"http://127.0.0.1:1\"\nkey_id = \"plugin\"\n";
    let kept = format!("{AWS}\n{client}secret_id = \"jit/keys/plugin\"\n");
    let own = format!("{AWS}\n{client}secret = \"{SECRET}\"\n");
    let lambda = ["list", "--via", "lambda:jit-api"];
    let glass = [
        "break-glass",
        "revoke",
        "--user",
        "alice@example.com",
        "--reason",
        "x",
    ];
    // DynamoDB and Identity Center, STS, Secrets Manager, Lambda.
    for (text, words, lines) in [
        (AWS, &["config", "check"][..], 2),
        (AWS, &glass, 1),
        (&kept, &["list"], 1),
        (&own, &lambda, 1),
    ] {
        let ran = at_aws(folder_with(text).path(), words, &[]).exits(1);
        let named = ran
            .err
            .lines()
            .filter(|line| line.contains("no AWS credentials: set AWS_PROFILE or"));
        assert_eq!(named.count(), lines, "{ran:?}");
        assert_eq!(ran.err.lines().count(), lines, "{ran:?}");
        for technical in ["AccessDenied", "dispatch failure", "Attempted", "chain"] {
            assert!(!ran.err.contains(technical), "{technical}: {ran:?}");
        }
    }
}

/// H6: a closed port reads like any connection error.
#[test]
fn a_refused_connection_to_aws_names_the_address() {
    let endpoints = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        CREDENTIALS[0],
        CREDENTIALS[1],
    ];
    let ran = at_aws(folder_with(AWS).path(), &["config", "check"], &endpoints)
        .exits(1)
        .prints(&[
            "DynamoDB does not answer: no connection to 127.0.0.1:1: connection refused",
            "AWS: no answer: no connection to 127.0.0.1:1: connection refused",
        ]);
    for technical in ["dispatch failure", "io error", "os error"] {
        assert!(!ran.err.contains(technical), "{technical}: {ran:?}");
    }
}

/// H6: an answer that names no error of DynamoDB is shown as it came.
#[test]
fn an_answer_that_is_not_from_dynamodb_is_shown() {
    for (body, wanted) in [
        ("", "HTTP status 404 and nothing else"),
        ("<h1>No\npage</h1>", "HTTP status 404 and <h1>No page</h1>"),
    ] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let answer = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        std::thread::spawn(move || {
            for connection in server.incoming() {
                let mut connection = connection.unwrap();
                let mut head = [0; 8192];
                assert!(connection.read(&mut head).unwrap() > 0);
                connection.write_all(answer.as_bytes()).unwrap();
            }
        });
        let more = [
            ("AWS_ENDPOINT_URL_DYNAMODB", url.as_str()),
            CREDENTIALS[0],
            CREDENTIALS[1],
        ];
        at_aws(folder_with(AWS).path(), &["tables", "check"], &more)
            .exits(1)
            .prints(&["the answer is not from DynamoDB", wanted]);
    }
}

/// A5: a reason with marks of direction cannot look like another text.
#[tokio::test(flavor = "multi_thread")]
async fn marks_of_direction_do_not_reach_the_terminal() {
    let shell = Shell::open();
    shell.bind();
    let mut asking = ASKING;
    asking[10] = "for \u{202e}gpj.exe\u{2066} only";
    let id = shell.json(&asking)["request_id"].clone();
    let id = id.as_str().unwrap();
    for words in [
        &["list"][..],
        &["status", id],
        &["audit", "show", id],
        &["cancel", id, "--as", "alice@example.com"],
    ] {
        let ran = shell.run(words).exits(0).prints(&["gpj.exe"]);
        assert!(!ran.out.contains(['\u{202e}', '\u{2066}']), "{ran:?}");
    }
}

/// H7: a waiting extension is visible in the list.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_a_waiting_extension() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.granted().await;
    let extend = ["extend", &id, "--time", "30m", "--as", "alice@example.com"];
    shell.ok(&extend);
    shell
        .run(&["list"])
        .exits(0)
        .prints(&["GRANTED, extension requested"]);
}

/// H7: `jit unbind` says what it did.
#[tokio::test(flavor = "multi_thread")]
async fn an_unbind_says_that_the_binding_is_removed() {
    let shell = Shell::open();
    shell.bind();
    let told = shell.ok(&["unbind", "--channel", CHANNEL, "--account", ACCOUNT]);
    let wanted = format!("removed: account {ACCOUNT} is no longer bound to channel {CHANNEL}");
    assert!(told.starts_with(&wanted), "{told}");
}

/// H6: a refusal names the option that the person typed, and its value.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_value_is_named_with_its_option() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.request();
    let approvers = |who: &'static str| ["approvers", "--channel", CHANNEL, who];
    let mut later: Vec<&str> = ASKING.to_vec();
    later.extend(["--start-at", "tomorrow"]);
    for (words, wanted) in [
        (
            &approvers("bob@example.com")[..],
            "ID \"bob@example.com\" must be a Mattermost user id",
        ),
        (
            &approvers("@bob"),
            "ID \"@bob\" must be a Mattermost user id",
        ),
        (
            &["list", "--requester", "alice"],
            "--requester \"alice\" must be an e-mail address",
        ),
        (
            &["list", "--from", "yesterday"],
            "--from \"yesterday\" must be a date",
        ),
        (
            &["list", "--to", "yesterday"],
            "--to \"yesterday\" must be a date",
        ),
        (
            &["list", "--status", "open"],
            "--status \"open\" must be PENDING",
        ),
        (&later, "--start-at \"tomorrow\" "),
        (&["approve", &id, "--as", "dave@example.com"], "--as-id"),
    ] {
        let ran = shell.run(words).exits(1).prints(&[wanted]);
        for field in ["approver_", "requester_", "_date", "start_at", "mm_user_id"] {
            assert!(!ran.err.contains(field), "{field}: {ran:?}");
        }
    }
    // A status is read in lower case as well.
    shell
        .run(&["list", "--status", "pending"])
        .exits(0)
        .prints(&[&id]);
}

/// H1: an empty list is no proof if a name is misspelt.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_says_which_name_no_request_has() {
    let shell = Shell::open();
    shell.bind();
    shell.request();
    let requester = ["list", "--requester", "alcie@example.com"];
    shell.run(&requester).exits(0).prints(&[
        "no requests match",
        "no request of alcie@example.com is stored; nearest: alice@example.com",
    ]);
    let near = &format!("no request in the channel town-sqare is stored; nearest: {CHANNEL}");
    let channel = ["list", "--channel", "town-sqare", "--status", "PENDING"];
    shell.run(&channel).exits(0).prints(&[near]);
    // The person has a request, so only the status does not match.
    let known = [
        "list",
        "--requester",
        "alice@example.com",
        "--status",
        "DENIED",
    ];
    assert_eq!(shell.run(&known).exits(0).err, "");
    let export = ["audit", "export", "--channel", "town-sqare"];
    let near = &format!("no event of the channel town-sqare is stored; nearest: {CHANNEL}");
    shell.run(&export).exits(0).prints(&[near]);
    let known = [
        "audit",
        "export",
        "--channel",
        CHANNEL,
        "--to",
        "2020-01-01",
    ];
    let ran = shell.run(&known).exits(0);
    assert!(!ran.err.contains("is stored"), "{ran:?}");
}

/// H1: the usage of break-glass names every way to say whose access ends.
#[test]
fn break_glass_without_a_target_asks_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["break-glass", "revoke", "--reason", "x"];
    at_aws(folder.path(), &words, &[])
        .exits(2)
        .prints(&["ID|--user <EMAIL>|--account <ACCOUNT>"]);
}

/// H6: an error about the configuration names the file and the variable that are wrong.
#[test]
fn an_error_of_the_configuration_names_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.toml");
    std::fs::write(&file, "[server]\nlisten = \n").unwrap();
    let words = ["--config", "n.toml", "config", "check"];
    let ran = at_aws(folder.path(), &words, &[]).exits(1);
    assert!(ran.err.starts_with("jit: n.toml line 2: "), "{ran:?}");
    std::fs::write(&file, "").unwrap();
    at_aws(
        folder.path(),
        &words,
        &[("JIT_SERVR__LISTEN", "127.0.0.1:0")],
    )
    .exits(1)
    .prints(&["servr (JIT_SERVR__LISTEN): unknown field"]);
}

/// H6: `jit serve` names a missing folder as `jit config check` does.
#[test]
fn serve_names_a_missing_folder() {
    for (key, text) in [
        ("sandbox.path", "[sandbox]\npath = \"gone/state\"\n"),
        (
            "store.path",
            "[store]\npath = \"gone/jit.db\"\n\n[sandbox]\npath = \"state\"\n",
        ),
    ] {
        let text = format!("[identity_center]\nmode = \"sandbox\"\n\n{text}");
        let folder = folder_with(&text);
        let wanted =
            format!("{key}: the folder gone does not exist: make it, or name another file");
        for words in [&["config", "check"][..], &["serve"]] {
            let address = ("JIT_SERVER__LISTEN", "127.0.0.1:0");
            at_aws(folder.path(), words, &[address])
                .exits(1)
                .prints(&[&wanted]);
        }
    }
}

/// H6: a backup needs only the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_needs_no_permission_sets() {
    let shell = Shell::open();
    shell.bind();
    let store = shell.jit.folder.path().join("jit.db");
    let folder = folder_with(&format!("[store]\npath = \"{}\"\n", store.display()));
    at_aws(folder.path(), &["store", "backup", "copy.db"], &[])
        .exits(0)
        .prints(&["copy.db is a backup"]);
}

/// H5: an operator in another folder than jit notices that the command made a new file.
#[test]
fn a_key_in_a_new_file_says_that_the_file_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let generate = ["keys", "generate", "plugin", "--write"];
    at_aws(folder.path(), &generate, &[])
        .exits(0)
        .prints(&["into the new file jit.toml"]);
    let again = ["keys", "generate", "ci", "--write"];
    let ran = at_aws(folder.path(), &again, &[]).exits(0);
    assert!(!ran.out.contains("new file"), "{ran:?}");
}

/// H6: the all-clear for an account says whose access jit looked for, and where.
#[tokio::test(flavor = "multi_thread")]
async fn the_all_clear_of_an_account_is_a_plain_sentence() {
    let shell = Shell::open();
    shell.bind();
    let words = [
        "break-glass",
        "revoke",
        "--account",
        ACCOUNT,
        "--reason",
        "x",
        "--as",
        "sec@example.com",
    ];
    shell.run(&words).exits(0).prints(&[&format!(
        "AWS shows no access that jit made in account {ACCOUNT} (jit asked about 2 permission sets \
         in 1 account)"
    )]);
}

/// H6: an error about an unknown user says once that there is none.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_named_once() {
    let shell = Shell::with(&Setup {
        sandbox: "users = [\"bob@example.com\"]".to_owned(),
        ..Setup::default()
    });
    shell.bind();
    let id = shell.request();
    shell.ok(&["approve", &id, "--as", "bob@example.com"]);
    shell.jit.caller().until(&id, "ERROR").await;
    let request = shell.json(&["status", &id]);
    let why = request["error_details"].as_str().unwrap();
    assert!(
        why.starts_with("Identity Center has no user alice@"),
        "{why}"
    );
}

/// H6: the messages of an operator's command are whole sentences.
#[test]
fn an_unknown_operator_is_asked_for_the_address() {
    let folder = tempfile::tempdir().unwrap();
    Setup::default().write(folder.path());
    let words = [
        "break-glass",
        "revoke",
        "--account",
        ACCOUNT,
        "--reason",
        "x",
    ];
    at_aws(folder.path(), &words, &[]).exits(2).prints(&[
        "jit does not know who acts: the simulated Identity Center names no person; add --as EMAIL",
    ]);
}

/// A5: a reason with a line break looked like other facts of the request.
#[tokio::test(flavor = "multi_thread")]
async fn a5_a_reason_with_a_line_break_makes_no_line_of_its_own() {
    let shell = Shell::open();
    shell.bind();
    let forged = "x\nstatus          DENIED\ndeny reason     no";
    let mut asking = ASKING;
    asking[10] = forged;
    let asked = shell.run(&asking).exits(0);
    let id = shell.json(&asking)["request_id"].clone();
    let id = id.as_str().unwrap();
    let by = ["--reason", forged, "--as", "bob@example.com"];
    let deny = [&["deny", id], &by[..]].concat();
    for ran in [
        asked,
        shell.run(&["status", id]).exits(0),
        shell.run(&deny).exits(0),
    ] {
        let starts = |word: &str| {
            let lines = ran.out.lines().filter(|line| line.starts_with(word));
            lines.count()
        };
        assert_eq!(starts("status"), 1, "{ran:?}");
        assert!(starts("deny reason") <= 1, "{ran:?}");
    }
}

/// D1: jit wrote a secret into a file that every user can read, and said nothing.
#[test]
fn d1_a_key_in_a_file_that_others_can_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder_with("");
    let file = folder.path().join("jit.toml");
    for (mode, is_warned) in [(0o644, true), (0o640, false)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let generate = ["keys", "generate", &format!("key-{mode}"), "--write"];
        let ran = at_aws(folder.path(), &generate, &[]).exits(0);
        assert_eq!(ran.err.contains("chmod 640 jit.toml"), is_warned, "{ran:?}");
        assert_eq!(ran.err.lines().count(), usize::from(is_warned), "{ran:?}");
        let after = file.metadata().unwrap().permissions().mode();
        assert_eq!(after & 0o777, mode);
    }
}

/// B4: `jit cleanup` recorded only the name that `--as` gives. H6: it said that it records REVOKED
/// before it was refused.
#[tokio::test(flavor = "multi_thread")]
async fn b4_a_cleanup_records_the_credentials_and_says_what_it_did() {
    let shell = Shell::open();
    shell.bind();
    let cleanup = |id: &str| {
        let by = ["--unverified", "--reason", "x", "--as", "sec@example.com"];
        shell.run(&[&["cleanup", id], &by[..]].concat())
    };
    let pending = shell.request();
    let refused = cleanup(&pending).exits(1).prints(&["PENDING"]);
    assert!(!refused.err.contains("REVOKED by"), "{refused:?}");
    let id = shell.granted().await;
    cleanup(&id)
        .exits(0)
        .prints(&["was GRANTED; jit did not ask AWS; jit recorded REVOKED by sec@example.com"]);
    let events = shell.json(&["audit", "show", &id]);
    let mut events = events.as_array().unwrap().iter();
    let cleaned = events
        .find(|event| event["event_type"] == "CLEANED_UP")
        .unwrap();
    assert_eq!(cleaned["actor_email"], "sec@example.com");
    let credentials = &cleaned["details"]["credentials"];
    assert_eq!(credentials, "the simulated Identity Center");
}
