//! Commands of an operator with AWS credentials and no server: break-glass, reconcile, config
//! check.

use serde_json::{Value, json};
use std::path::Path;

use crate::common::aws::{ADMIN, Aws, Fault, READONLY};
use crate::common::{self, ACCOUNT, Caller, Jit, Setup};

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    fn prints(self, words: &[&str]) -> Self {
        for word in words {
            let said = self.out.contains(word) || self.err.contains(word);
            assert!(said, "no {word:?} in {self:?}");
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

async fn run(folder: &Path, aws: &Aws, words: &[&str]) -> Ran {
    let mut command = common::binary();
    command
        .args(words)
        .envs(aws.environment())
        .env("JIT_CONFIG", folder.join("jit.toml"))
        .stdin(std::process::Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = ran.await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const AS: [&str; 4] = ["--reason", "incident 7", "--as", "sec@example.com"];

async fn break_glass(folder: &Path, aws: &Aws, what: &[&str]) -> Ran {
    let words: Vec<&str> = ["break-glass", "revoke"]
        .iter()
        .chain(what)
        .chain(&AS)
        .copied()
        .collect();
    run(folder, aws, &words).await
}

async fn audit(folder: &Path, aws: &Aws, id: &str) -> Vec<Value> {
    let shown = run(folder, aws, &["audit", "show", id, "-o", "json"])
        .await
        .exits(0);
    shown.json().as_array().unwrap().clone()
}

async fn granted_to(caller: &Caller, aws: &Aws, name: &str) -> String {
    let id = caller.approved_for(aws, name).await;
    caller.until(&id, "GRANTED").await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn break_glass_works_without_a_server() {
    let aws = Aws::quick().await;
    // policy.admins limits who may revoke; break-glass needs only AWS permissions.
    let setup = Setup::with_aws(&aws, "[policy]\nadmins = [\"root@example.com\"]");
    let jit = setup.start();
    let caller = jit.caller();
    let admin = json!({"channel_id": common::CHANNEL, "account_id": ACCOUNT, "actor_mm_user_id": "root", "actor_email": "root@example.com"});
    caller.post("/config/bind", &admin).await.is(200);
    let mut approvers = admin.clone();
    approvers["approver_ids"] = json!(["bob"]);
    caller.post("/config/approvers", &approvers).await.is(200);
    let id = caller.granted().await;
    let folder = jit.kill();
    // AWS throttles one call.
    aws.once("DeleteAccountAssignment", Fault::Throttling);
    break_glass(folder.path(), &aws, &[&id])
        .await
        .exits(0)
        .prints(&[&id, "REVOKED", "assumed-role/Ops/dana", "sec@example.com"]);
    assert!(aws.assignments().is_empty());
    let events = audit(folder.path(), &aws, &id).await;
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event["event_type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[4..], ["REVOKE_REQUESTED", "REVOKED"]);
    let asked = &events[4];
    assert_eq!(asked["actor_email"], "sec@example.com");
    assert_eq!(asked["details"]["reason"], "incident 7");
    let arn = "arn:aws:sts::111111111111:assumed-role/Ops/dana";
    assert_eq!(asked["details"]["break_glass"], arn);
    // A second break-glass changes nothing. Without an actor, jit records the identity that AWS
    // returns.
    let nameless = ["break-glass", "revoke", &id, "--reason", "once more"];
    run(folder.path(), &aws, &nameless)
        .await
        .exits(0)
        .prints(&["REVOKED", "dana@111111111111.aws"]);
    run(folder.path(), &aws, &["audit", "verify"])
        .await
        .exits(0);
    let jit = Jit::start_with(folder, &aws.environment());
    assert_eq!(jit.caller().show(&id).await["status"], "REVOKED");
}

/// Break-glass for a person or an account ends all live grants, after the operator has confirmed
/// the list.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_ends_all_live_grants_of_a_person_or_account() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let alice = caller.granted().await;
    let readonly = caller
        .request_with(json!({"permission_set": "readonly"}))
        .await;
    caller.approve(&readonly).await.is(200);
    caller.until(&readonly, "GRANTED").await;
    let dave = granted_to(&caller, &aws, "dave").await;
    // The server runs all the time.
    let folder = jit.folder.clone();
    let alices = ["--user", "alice@example.com"];
    break_glass(folder.path(), &aws, &alices)
        .await
        .exits(2)
        .prints(&[&alice, &readonly, "--yes"]);
    assert_eq!(aws.assignments().len(), 3);
    let yes = ["--user", "alice@example.com", "--yes"];
    let ran = break_glass(folder.path(), &aws, &yes).await.exits(0);
    let ran = ran.prints(&[&alice, &readonly, "REVOKED"]);
    assert!(!ran.out.contains(&dave), "{ran:?}");
    let left: Vec<_> = aws.assignments().into_iter().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].principal, aws.user_id("dave@example.com"));
    let account = ["--account", ACCOUNT, "--yes"];
    break_glass(folder.path(), &aws, &account)
        .await
        .exits(0)
        .prints(&[&dave]);
    assert!(aws.assignments().is_empty());
    let nothing = break_glass(folder.path(), &aws, &account).await.exits(0);
    nothing.prints(&["no live access matches"]);
    for id in [&alice, &readonly, &dave] {
        assert_eq!(
            caller.show(id).await["status"],
            "REVOKED",
            "the server shows the new state"
        );
    }
}

/// The record is REVOKED and AWS still has the assignment: break-glass removes it.
#[tokio::test(flavor = "multi_thread")]
async fn break_glass_removes_access_that_the_record_calls_revoked() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    aws.assign(ACCOUNT, ADMIN, "alice@example.com");
    break_glass(jit.folder.path(), &aws, &[&id])
        .await
        .exits(0)
        .prints(&["REVOKED"]);
    assert!(aws.assignments().is_empty());
    let kinds = caller.kinds(&id).await;
    assert_eq!(kinds[6..], ["STRAY_ACCESS_FOUND", "STRAY_ACCESS_REMOVED"]);
    // Break-glass works although STS, which names the caller, cannot be reached.
    let again = caller.granted().await;
    let mute = common::binary()
        .args(["break-glass", "revoke", &again])
        .args(AS)
        .envs(aws.environment())
        .env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
        .env("JIT_CONFIG", jit.folder.path().join("jit.toml"))
        .output()
        .unwrap();
    assert!(mute.status.success(), "{mute:?}");
    assert!(aws.assignments().is_empty());
    let waiting = caller.request().await;
    break_glass(jit.folder.path(), &aws, &[&waiting])
        .await
        .exits(0)
        .prints(&["CANCELLED", "waited for an approval"]);
}

/// Records and assignments that differ.
struct Differences {
    aws: Aws,
    jit: Jit,
    caller: Caller,
    /// A grant whose assignment is there.
    kept: String,
    /// A grant whose assignment was removed from outside.
    missing: String,
    /// A revoked request whose assignment is there.
    left: String,
}

impl Differences {
    async fn make() -> Self {
        let aws = Aws::quick().await;
        let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
        let clean = run(jit.folder.path(), &aws, &["reconcile"]).await.exits(0);
        clean.prints(&["2 pairs", "no differences"]);
        let kept = caller.granted().await;
        let missing = granted_to(&caller, &aws, "dave").await;
        aws.unassign(ACCOUNT, ADMIN, "dave@example.com");
        let left = granted_to(&caller, &aws, "erin").await;
        caller.revoke(&left).await.is(200);
        aws.assign(ACCOUNT, ADMIN, "erin@example.com");
        aws.assign(ACCOUNT, READONLY, "bob@example.com");
        aws.assign_group(ACCOUNT, ADMIN, "g-operators");
        Self {
            aws,
            jit,
            caller,
            kept,
            missing,
            left,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_reports_the_differences_and_changes_nothing() {
    let Differences {
        aws,
        jit,
        kept,
        missing,
        left,
        ..
    } = Differences::make().await;
    let folder = jit.folder.clone();
    let before = aws.assignments();
    let found = run(folder.path(), &aws, &["reconcile", "-o", "json"])
        .await
        .exits(1);
    let findings = found.json()["findings"].as_array().unwrap().clone();
    let of = |kind: &str| -> Vec<&Value> {
        findings
            .iter()
            .filter(|one| one["finding"] == kind)
            .collect()
    };
    assert_eq!(of("missing")[0]["request_id"], json!(missing));
    assert_eq!(of("left")[0]["request_id"], json!(left));
    assert_eq!(of("foreign").len(), 2);
    assert!(!found.out.contains(&kept), "{found:?}");
    assert_eq!(
        aws.assignments(),
        before,
        "reconcile without --fix changes nothing"
    );
    // AWS does not say who made an assignment, so the operator confirms the list.
    let asks = run(folder.path(), &aws, &["reconcile", "--fix"]).await;
    asks.exits(2)
        .prints(&[&left, "erin@example.com has admin", "--yes", "missing"]);
    assert_eq!(aws.assignments(), before, "not confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_with_fix_removes_only_the_stray_access_of_jit() {
    let Differences {
        aws,
        jit,
        caller,
        missing,
        left,
        ..
    } = Differences::make().await;
    let folder = jit.folder.clone();
    let before = aws.assignments();
    let fixed = ["reconcile", "--fix", "--yes", "--as", "ops@example.com"];
    let fixed = run(folder.path(), &aws, &fixed).await.exits(1);
    let fixed = fixed.prints(&[
        "removed",
        &left,
        "foreign",
        "g-operators",
        "missing",
        &missing,
    ]);
    assert!(
        fixed
            .err
            .contains("differences between the records and AWS: 1"),
        "{fixed:?}"
    );
    // B4
    let events = caller.audit(&left).await;
    let is_found = |event: &&Value| event["event_type"] == "STRAY_ACCESS_FOUND";
    let said = &events.iter().find(is_found).unwrap()["details"]["credentials"];
    assert!(said.as_str().unwrap().starts_with("arn:aws:"), "{said}");
    let mut expected = before;
    let erin = aws.user_id("erin@example.com");
    expected.retain(|one| one.principal != erin);
    assert_eq!(
        aws.assignments(),
        expected,
        "only the stray access of jit is removed"
    );
    let events = caller.audit(&left).await;
    let found = events
        .iter()
        .find(|event| event["event_type"] == "STRAY_ACCESS_FOUND");
    assert_eq!(found.unwrap()["actor_email"], "ops@example.com");
    assert!(
        caller
            .kinds(&left)
            .await
            .ends_with(&["STRAY_ACCESS_REMOVED".into()])
    );
    // A revoke of a request whose assignment is missing ends as any other revoke.
    caller.revoke(&missing).await.is(200);
    run(folder.path(), &aws, &["reconcile"]).await.exits(0);
}

/// H7: without a server nothing removes these accesses, and no finding said so.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_names_access_that_should_be_gone() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let overdue = caller.granted().await;
    let unsettled = granted_to(&caller, &aws, "dave").await;
    let folder = jit.kill();
    let db = rusqlite::Connection::open(folder.path().join("jit.db")).unwrap();
    let past = "UPDATE jit_requests SET doc = json_set(doc, '$.granted.until', \
                '2026-01-01T00:00:00Z') WHERE request_id = ?1";
    assert_eq!(db.execute(past, [&overdue]), Ok(1));
    drop(db);
    let by_hand = ["cleanup", &unsettled, "--unverified", "--reason", "by hand"];
    let by_hand = [&by_hand[..], &["--as", "ops@example.com"]].concat();
    run(folder.path(), &aws, &by_hand).await;
    let found = run(folder.path(), &aws, &["reconcile"]).await.exits(1);
    found.prints(&[
        &format!("overdue  {overdue}"),
        "its end was 2026-01-01T00:00:00",
        &format!("ending   {unsettled}"),
        "jit break-glass revoke",
    ]);
    for id in [&overdue, &unsettled] {
        break_glass(folder.path(), &aws, &[id]).await.exits(0);
    }
    run(folder.path(), &aws, &["reconcile"]).await.exits(0);
}

/// P4: jit told people that the assignment is from outside, so an operator's command does not take
/// it for one that jit left behind.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_leaves_an_assignment_that_a_later_request_met_alone() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let earlier = caller.granted().await;
    caller.revoke(&earlier).await.is(200);
    aws.assign(ACCOUNT, ADMIN, "alice@example.com");
    let later = caller.request().await;
    caller.approve(&later).await.is(200);
    caller.until(&later, "ERROR").await;
    let fix = ["reconcile", "--fix", "--yes", "--as", "ops@example.com"];
    let fixed = run(jit.folder.path(), &aws, &fix).await;
    fixed.exits(0).prints(&["foreign", "not changed"]);
    assert_eq!(aws.assignments().len(), 1);
}

/// K12: an unreadable record is named, and does not hide the others.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_and_break_glass_go_on_after_an_unreadable_record() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let unread = caller.granted().await;
    let readonly = caller
        .request_with(json!({"permission_set": "readonly"}))
        .await;
    caller.approve(&readonly).await.is(200);
    caller.until(&readonly, "GRANTED").await;
    let missing = granted_to(&caller, &aws, "dave").await;
    aws.unassign(ACCOUNT, ADMIN, "dave@example.com");
    let left = granted_to(&caller, &aws, "erin").await;
    caller.revoke(&left).await.is(200);
    aws.assign(ACCOUNT, ADMIN, "erin@example.com");
    let folder = jit.kill();
    let db = rusqlite::Connection::open(folder.path().join("jit.db")).unwrap();
    let damage = "UPDATE jit_requests SET doc = 'damaged' WHERE request_id = ?1";
    assert_eq!(db.execute(damage, [&unread]), Ok(1));
    drop(db);
    let found = run(folder.path(), &aws, &["reconcile", "-o", "json"])
        .await
        .exits(1)
        .prints(&["1 records or pairs were skipped"]);
    let value = found.json();
    let of = |kind: &str, field: &str| -> Vec<String> {
        let findings = value["findings"].as_array().unwrap().iter();
        let those = findings.filter(|one| one["finding"] == kind);
        those
            .map(|one| one[field].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(of("unreadable", "name"), [unread.as_str()], "{value:#}");
    assert_eq!(of("missing", "request_id"), [missing]);
    assert_eq!(of("left", "request_id"), [left]);
    assert_eq!(of("foreign", "user"), [""; 0]);
    // Break-glass ends what it can read, names the rest, and asks AWS what is left.
    let alice = ["--user", "alice@example.com", "--yes"];
    break_glass(folder.path(), &aws, &alice)
        .await
        .exits(3)
        .prints(&[&readonly, "REVOKED", &unread, "--user EMAIL --account ID"])
        .prints(&["AWS still shows access of alice@example.com", "admin in"]);
    let by_aws = [&alice[..], &["--account", ACCOUNT]].concat();
    let ran = break_glass(folder.path(), &aws, &by_aws).await;
    assert!(ran.err.contains("admin in"), "{ran:?}");
    let user = aws.user_id("alice@example.com");
    assert!(aws.assignments().iter().all(|one| one.principal != user));
}

/// H7: a removal that fails is a difference, and the exit code says so.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_tells_a_failing_removal() {
    let aws = Aws::quick().await;
    let (jit, caller) = Setup::with_aws(&aws, "").bound().await;
    let id = caller.granted().await;
    aws.once("DeleteAccountAssignment", Fault::Denied);
    caller.revoke(&id).await.is(202);
    let found = run(jit.folder.path(), &aws, &["reconcile", "-o", "json"])
        .await
        .exits(1);
    let value = found.json();
    let failing = &value["findings"][0];
    assert_eq!(failing["finding"], "failing", "{found:?}");
    assert_eq!(failing["request_id"], json!(id));
    assert_eq!(value["ok"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn config_check_names_each_configuration_error() {
    let aws = Aws::quick().await;
    let folder = tempfile::tempdir().unwrap();
    let file = Setup::with_aws(&aws, "").write(folder.path());
    let good = std::fs::read_to_string(&file).unwrap();
    let check = async |text: String| {
        std::fs::write(&file, text).unwrap();
        run(folder.path(), &aws, &["config", "check"]).await
    };
    check(good.clone()).await.exits(0).prints(&[
        "sessions of up to",
        "eu-central-1",
        "jit can start",
    ]);
    let other_instance = "arn:aws:sso:::instance/ssoins-2222222222222222";
    for (from, to, names) in [
        (
            crate::common::aws::INSTANCE,
            other_instance,
            ["identity_center.instance_arn", "ssoins-1111111111111111"],
        ),
        (
            "d-1111111111",
            "d-2222222222",
            ["identity_center.identity_store_id", "d-1111111111"],
        ),
        (
            "ps-2222222222222222",
            "ps-3333333333333333",
            ["permission_sets.readonly", "no such permission set"],
        ),
        ("mode", "moed", ["moed", ""]),
    ] {
        let text = match from {
            "mode" => good.replace("calls_per_second", "moed = 1\ncalls_per_second"),
            from => good.replace(from, to),
        };
        let ran = check(text).await.exits(1).prints(&names);
        assert!(!ran.out.contains("jit can start"), "{ran:?}");
    }
    for action in [
        "ListAccountAssignments",
        "DeleteAccountAssignment",
        "ListInstances",
        "GetUserId",
        "DescribePermissionSet",
    ] {
        aws.once(action, Fault::Denied);
        check(good.clone()).await.exits(1).prints(&["AccessDenied"]);
    }
    changes_nothing(&aws);
}

fn changes_nothing(aws: &Aws) {
    let changed = ["Create", "Put", "Provision"];
    let actions = aws.actions();
    assert!(
        !actions
            .iter()
            .any(|one| changed.iter().any(|word| one.starts_with(word)))
    );
}

/// `end_sessions` needs more permissions; config check names and tests them.
#[tokio::test(flavor = "multi_thread")]
async fn config_check_tests_the_permissions_of_end_sessions() {
    let aws = Aws::quick().await;
    let folder = tempfile::tempdir().unwrap();
    let ending = "[revocation]\nend_sessions = \"permission-set\"\n";
    Setup::with_aws(&aws, ending).write(folder.path());
    let check = async || run(folder.path(), &aws, &["config", "check"]).await;
    let told = check().await.exits(0);
    told.prints(&["EndSessions", "infra/iam-policy.json"]);
    aws.once("GetInlinePolicyForPermissionSet", Fault::Denied);
    let refused = check().await.exits(1);
    refused.prints(&["revocation.end_sessions", "AccessDenied"]);
    changes_nothing(&aws);
}

#[tokio::test(flavor = "multi_thread")]
async fn config_check_without_a_region_or_credentials_says_so() {
    let aws = Aws::quick().await;
    let folder = tempfile::tempdir().unwrap();
    let file = Setup::with_aws(&aws, "").write(folder.path());
    let nobody = |region: &str| {
        let mut command = common::binary();
        command.args(["config", "check"]).env("JIT_CONFIG", &file);
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ENDPOINT_URL", &aws.url);
        command.env("HOME", folder.path());
        if !region.is_empty() {
            command.env("AWS_REGION", region);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let told = nobody("");
    assert!(
        told.contains("AWS region") && told.contains("AWS_REGION"),
        "{told}"
    );
    let told = nobody("eu-central-1");
    assert!(told.contains("credentials"), "{told}");
    let offline = common::binary()
        .args(["config", "check", "--offline"])
        .env("JIT_CONFIG", &file)
        .output()
        .unwrap();
    assert!(offline.status.success(), "{offline:?}");
    assert_eq!(aws.actions(), Vec::<String>::new());
}
