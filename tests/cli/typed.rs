//! The words that a person types: short ids, names and times; and commands whose aim is reached already.

use serde_json::{Value, json};

use crate::common::chat::{BOB, Mattermost};
use crate::common::{ACCOUNT, CHANNEL, SECRET, Setup, binary, write_history};
use crate::{ASKING, Ran, Shell};

/// H3: the aim of a repeated command is reached, and the answer says since when.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_aim_is_reached_is_no_failure() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.granted().await;
    let revoke = ["revoke", &id, "--as", "sec@example.com"];
    shell.run(&revoke).exits(0);
    let revoked_at = shell.json(&["status", &id])["revoked_at"].clone();
    let when = revoked_at.as_str().unwrap();
    let again = ["revoke", &id, "--as", "bob@example.com"];
    shell.run(&again).exits(0).prints(&[
        &format!("already revoked at {when} by sec@example.com"),
        "REVOKED",
    ]);
    let waiting = ["revoke", &id, "--wait", "--as", "bob@example.com"];
    shell.run(&waiting).exits(0).prints(&["already revoked at"]);
    // The HTTP API still refuses, and carries the request.
    let refused = shell.jit.caller().revoke(&id).await.is(409);
    assert_eq!(refused["request"]["revoked_at"], revoked_at);
    assert_eq!(refused["code"], "wrong_state");

    let denied = shell.request();
    let deny = ["deny", &denied, "--as", "bob@example.com"];
    shell.run(&deny).exits(0);
    shell.run(&deny).exits(0).prints(&["already denied at"]);
    shell
        .run(&["revoke", &denied, "--as", "sec@example.com"])
        .exits(0)
        .prints(&["nothing to revoke", "denied at"]);

    let pending = shell.request();
    let approve = ["approve", &pending, "--as", "bob@example.com"];
    shell.run(&approve).exits(0);
    shell
        .run(&approve)
        .exits(0)
        .prints(&["approved it already"]);
    // Another approver cannot approve what has its approvals.
    shell
        .run(&["approve", &pending, "--as", "carol@example.com"])
        .exits(1);
}

/// H3: a request without access cannot be revoked, and the command fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_of_a_pending_request_fails() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.request();
    shell
        .run(&["revoke", &id, "--as", "sec@example.com"])
        .exits(1)
        .prints(&["PENDING", "deny or cancel"]);
    let cancel = ["cancel", &id, "--as", "alice@example.com"];
    shell.run(&cancel).exits(0);
    shell
        .run(&cancel)
        .exits(0)
        .prints(&["already cancelled at"]);
}

/// H4: the beginning of an id, the name of an account and a time like 1h30m.
#[tokio::test(flavor = "multi_thread")]
async fn short_ids_names_and_times_are_understood() {
    let shell = Shell::with(&Setup::with(&format!(
        "[accounts]\n{ACCOUNT} = \"acme-prod\"\n"
    )));
    let channel = ["--channel", CHANNEL];
    let bind: Vec<&str> = [&["bind", "--account", "acme-prod"][..], &channel].concat();
    shell.ok(&bind);
    shell.ok(&["approvers", "--channel", CHANNEL, "bob", "carol"]);
    let mut asking = ASKING;
    asking[2] = "Acme-Prod";
    asking[6] = "1h30m";
    let asked = shell.json(&asking);
    assert_eq!(asked["account_id"], ACCOUNT);
    assert_eq!(asked["requested_duration_minutes"], 90);
    let id = asked["request_id"].as_str().unwrap();
    let short = &id[..13];
    assert_eq!(shell.json(&["status", short])["request_id"], id);
    shell.ok(&["approve", short, "--as", "bob@example.com"]);
    shell.jit.caller().until(id, "GRANTED").await;
    let extend = [
        "extend",
        short,
        "--time",
        "30m",
        "--as",
        "alice@example.com",
    ];
    shell.run(&extend).exits(0).prints(&["30"]);
    let glass = [
        "break-glass",
        "revoke",
        short,
        "--reason",
        "x",
        "--as",
        "sec@example.com",
    ];
    shell.run(&glass).exits(0).prints(&[id, "REVOKED"]);
    // The history, at the server and in the store.
    shell
        .run(&["audit", "show", short])
        .exits(0)
        .prints(&["EXTENSION_REQUESTED"]);
    let told = shell.without_client(&["audit", "show", short]).exits(0);
    told.prints(&["EXTENSION_REQUESTED"]);
    let told = shell.run(&["audit", "verify", short]).exits(0);
    told.prints(&["1 audit chain verified, "]);
    let config = format!("config#{CHANNEL}");
    shell.ok(&["audit", "show", &config]);
    shell.ok(&["audit", "verify", &config]);
    accounts_and_short_ids_are_checked(&shell, id);
}

/// `id` is the only request so far.
fn accounts_and_short_ids_are_checked(shell: &Shell, id: &str) {
    let of_account = |word| shell.ok(&["audit", "export", "--account", word]);
    assert!(of_account("acme-prod").contains(id));
    assert_eq!(of_account("acme-prod"), of_account(ACCOUNT));
    for wrong in ["acme-prdo", "12345"] {
        let export = ["audit", "export", "--account", wrong];
        shell.run(&export).exits(2).prints(&[wrong, "[accounts]"]);
    }
    for command in ["show", "verify"] {
        let unknown = ["audit", command, "00000000"];
        shell
            .run(&unknown)
            .exits(1)
            .prints(&["begins with 00000000"]);
        let odd = ["audit", command, "INC-42"];
        shell.run(&odd).exits(2).prints(&["INC-42", "jit list"]);
    }
    let other = shell.request();
    // Both ids begin with the same digits of the time.
    shell
        .run(&["status", &id[..4]])
        .exits(1)
        .prints(&["several requests begin with", id, &other]);
    shell
        .run(&["status", "00000000"])
        .exits(1)
        .prints(&["no request has an id that begins with 00000000"]);
    shell
        .run(&["status", "INC-42"])
        .exits(2)
        .prints(&["jit list"]);
    let list = ["list", "--account", "acme-prdo"];
    shell.run(&list).exits(2).prints(&["nearest: acme-prod"]);
}

/// H7: a list without a filter shows what is open, as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_a_filter_shows_what_is_open() {
    let shell = Shell::open();
    shell
        .run(&["list"])
        .exits(0)
        .prints(&["no requests are open"]);
    shell.bind();
    let ended = shell.granted().await;
    shell.ok(&["revoke", &ended, "--as", "sec@example.com"]);
    let granted = shell.granted().await;
    let pending = shell.request();
    let listed = shell.run(&["list"]).exits(0);
    let listed = listed.prints(&[&granted, &pending, "GRANTED", "PENDING"]);
    assert!(!listed.out.contains(&ended), "{listed:?}");
    let items = shell.json(&["list"])["items"].clone();
    assert_eq!(items[0]["request_id"], pending, "newest first");
    // The end of a request that has no access, or has it no more, is not shown.
    for (id, ends) in [(&pending, false), (&granted, true), (&ended, false)] {
        let told = shell.ok(&["status", id]);
        assert_eq!(told.contains("\nends "), ends, "{told}");
    }
}

/// H7: a limit that the policy lowers, the sets of a binding, and the id of an approver.
#[tokio::test(flavor = "multi_thread")]
async fn bind_prints_the_limit_that_applies() {
    let shell = Shell::open();
    let bind = ["bind", "--channel", CHANNEL, "--account", ACCOUNT];
    let long: Vec<&str> = [&bind[..], &["--max-hours", "100"]].concat();
    shell
        .run(&long)
        .exits(0)
        .prints(&["is 4 hours, not 100", "policy.max_request_hours"]);
    shell
        .run(&["accounts", "--channel", CHANNEL])
        .exits(0)
        .prints(&["permission sets", "admin, readonly"]);
    let id26 = "h8juaz5zu3yfjc9ze76ww5dugc";
    shell.ok(&["approvers", "--channel", CHANNEL, id26]);
    let id = shell.request();
    shell
        .run(&["approve", &id, "--as", "bob@example.com"])
        .exits(1)
        .prints(&["took the user id bob", "--as-id"]);
    shell.ok(&["approve", &id, "--as", "bob@example.com", "--as-id", id26]);
}

/// H7: `jit approve --as ADDRESS` works for an approver who was named in Mattermost.
#[tokio::test(flavor = "multi_thread")]
async fn an_approver_named_in_mattermost_decides_by_a_verified_address() {
    let mattermost = Mattermost::open().await;
    let shell = Shell::with(&Setup::with(&mattermost.config()));
    shell.bind();
    shell.ok(&["approvers", "--channel", CHANNEL, BOB]);
    let id = shell.request();
    let approve = ["approve", &id, "--as", "bob@example.com"];
    // Users can choose an address that Mattermost does not verify.
    shell.run(&approve).exits(1).prints(&[
        "took the user id bob",
        "does not verify addresses",
        "--as-id",
    ]);
    mattermost.verify_addresses();
    for stranger in ["mallory@example.com", "carol@example.com"] {
        let approve = ["approve", &id, "--as", stranger];
        shell.run(&approve).exits(1).prints(&["is not an approver"]);
    }
    assert_eq!(shell.json(&["status", &id])["status"], "PENDING");
    let approved = shell.json(&approve);
    assert_eq!(approved["approver_mm_user_id"], BOB);
    assert_eq!(approved["approver_email"], "bob@example.com");
    shell
        .run(&approve)
        .exits(0)
        .prints(&["approved it already"]);
    let denied = shell.request();
    shell.ok(&["deny", &denied, "--as", "bob@example.com"]);
}

/// H7: without the settings of Mattermost, jit does not know whether the address has a user.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_mattermost_names_no_user_for_an_address() {
    let mattermost = Mattermost::open().await;
    mattermost.verify_addresses();
    let shell = Shell::with(&Setup::with(&mattermost.config()));
    shell.bind();
    shell.ok(&["approvers", "--channel", CHANNEL, BOB]);
    let id = shell.request();
    let approve = ["approve", &id, "--as", "bob@example.com"];
    let unknown = ["cannot ask Mattermost who has the address bob@example.com"];
    mattermost.hides_settings(true);
    shell.run(&approve).exits(1).prints(&unknown);
    let line = "settings not read from Mattermost; the signed call of a person without a user id \
                is refused; run `jit mattermost check`";
    shell.jit.comes_to_log(line).await;
    mattermost.hides_settings(false);
    mattermost.has_another_bot_token("another");
    shell.run(&approve).exits(1).prints(&unknown);
    let line = "user not looked up by the address at Mattermost; the signed call of a person \
                without a user id is refused; run `jit mattermost check`";
    shell.jit.comes_to_log(line).await;
    let log = shell.jit.log();
    let mut lines = log
        .lines()
        .filter(|line| line.contains("from Mattermost") || line.contains("at Mattermost"));
    assert!(lines.all(|line| !line.contains("bob@example.com")), "{log}");
    assert_eq!(shell.json(&["status", &id])["status"], "PENDING");
}

/// N3: a list has all requests, also when the server answers in pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_every_page() {
    let shell = Shell::open();
    shell.bind();
    let caller = shell.jit.caller();
    let mut made = Vec::new();
    for _ in 0..205 {
        made.push(caller.request().await);
    }
    made.reverse();
    let ids = |words: &[&str]| -> Vec<String> {
        let items = shell.json(words)["items"].clone();
        let items = items.as_array().unwrap().iter();
        items
            .map(|item| item["request_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&["list"]), made);
    assert_eq!(ids(&["list", "--channel", CHANNEL]), made);
    assert_eq!(
        ids(&["list", "--channel", CHANNEL, "--limit", "7"]),
        made[..7]
    );
    let first = ["list", "--limit", "7"];
    assert_eq!(ids(&first), made[..7]);
    shell
        .run(&first)
        .exits(0)
        .prints(&["198 more requests are open"]);
}

/// N3: a history has all events, also when the server answers in pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_has_every_page() {
    let shell = Shell::open();
    let wanted = json!(write_history(&shell.jit.database(), "long", 2_001));
    let show = ["audit", "show", "config#long", "-o", "json"];
    for shown in [shell.run(&show), shell.without_client(&show)] {
        let shown: Value = serde_json::from_str(&shown.exits(0).out).unwrap();
        assert!(
            shown == wanted,
            "{} events",
            shown.as_array().unwrap().len()
        );
    }
}

/// H7: a list tells that access is being removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_tells_that_access_is_being_removed() {
    let shell = Shell::with(&Setup {
        latency_ms: 13_000,
        ..Setup::default()
    });
    shell.bind();
    let id = shell.granted().await;
    shell
        .run(&["revoke", &id, "--as", "sec@example.com"])
        .exits(1);
    shell
        .run(&["list"])
        .exits(0)
        .prints(&[&id, "GRANTED, being removed"]);
}

/// W1: a request at the terminal that named no permission set was for admin.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_set_is_refused_with_the_list_of_sets() {
    let shell = Shell::open();
    shell.bind();
    let at = ASKING
        .iter()
        .position(|word| *word == "--permission-set")
        .unwrap();
    let words = [&ASKING[..at], &ASKING[at + 2..]].concat();
    let refused = shell.run(&words).exits(2);
    refused.prints(&["admin, readonly", "--permission-set admin"]);
    shell.run(&ASKING).exits(0);
}

/// H3: the second command of a person failed if another approval came in between, and so did a
/// second denial of an extension and the same extension again.
#[tokio::test(flavor = "multi_thread")]
async fn h3_a_repeated_decision_is_no_failure_whatever_came_in_between() {
    let shell = Shell::open();
    let bind = ["bind", "--channel", CHANNEL, "--account", ACCOUNT];
    shell.ok(&[&bind[..], &["--approvals-required", "2"]].concat());
    shell.ok(&["approvers", "--channel", CHANNEL, "bob", "carol"]);
    let id = shell.request();
    let by = |verb: &str, name: &str| shell.run(&[verb, &id, "--as", name]);
    by("approve", "bob@example.com").exits(0);
    by("approve", "carol@example.com").exits(0);
    let again = by("approve", "bob@example.com").exits(0);
    again.prints(&["you have approved it already"]);
    shell.jit.caller().until(&id, "GRANTED").await;

    // The request has access and no extension, so a denial reaches nothing.
    by("deny", "bob@example.com").exits(1);
    let extend = |time: &str| {
        let words = ["extend", &id, "--time", time, "--as", "alice@example.com"];
        shell.run(&words)
    };
    extend("30m").exits(0);
    let again = extend("30m").exits(0);
    again.prints(&["the extension of 30 minutes waits for its approvals"]);
    extend("20m").exits(1);
    by("approve", "bob@example.com").exits(0);
    let again = by("approve", "bob@example.com").exits(0);
    again.prints(&["approved the extension already; it waits for another approver"]);
    by("deny", "carol@example.com").exits(0);
    let again = by("deny", "bob@example.com").exits(0);
    again.prints(&[
        "the extension was already denied at ",
        " by carol@example.com; the access goes on until ",
    ]);
    // The HTTP API still refuses, with the request.
    let refused = shell.jit.caller().deny(&id).await.is(409);
    assert_eq!(refused["request"]["status"], "GRANTED");
    assert_eq!(refused["code"], "wrong_state");

    extend("10m").exits(0);
    by("approve", "bob@example.com").exits(0);
    by("approve", "carol@example.com").exits(0);
    let shown = shell.json(&["status", &id]);
    assert!(shown["extension_minutes"].is_null(), "{shown}");
    by("approve", "bob@example.com").exits(0);
}

/// H3: a second unbind is no failure. H1: an account that was never bound there is one.
#[tokio::test(flavor = "multi_thread")]
async fn h3_a_second_unbind_says_since_when() {
    let shell = Shell::open();
    shell.bind();
    let unbind = |channel: &str, account: &str| {
        let place = ["--channel", channel, "--account", account];
        let by = ["--as", "ada@example.com"];
        shell.run(&[&["unbind"], &place[..], &by[..]].concat())
    };
    unbind(CHANNEL, ACCOUNT).exits(0).prints(&["removed"]);
    unbind(CHANNEL, ACCOUNT).exits(0).prints(&[
        &format!("account {ACCOUNT} was already unbound from channel {CHANNEL} at "),
        " by ada@example.com",
    ]);
    for (channel, account) in [(CHANNEL, "999988887777"), ("elsewhere", ACCOUNT)] {
        unbind(channel, account).exits(1).prints(&["is not bound"]);
    }
}

/// H7: `--max-hours 4` became 1 by the limit of the permission set, and nothing said so.
#[tokio::test(flavor = "multi_thread")]
async fn h7_a_permission_set_that_allows_less_is_told() {
    let shell = Shell::with(&Setup::with(
        "[permission_sets.brief]\n\
         arn = \"arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-3333333333333333\"\n\
         max_request_hours = 1\n",
    ));
    let bind = |more: &[&str]| {
        let bind = ["bind", "--channel", CHANNEL, "--account", ACCOUNT];
        shell.run(&[&bind[..], more].concat()).exits(0)
    };
    // Of several sets, one may have a lower limit.
    let all = bind(&["--max-hours", "4"]);
    assert_eq!(all.err, "", "{all:?}");
    let shown = "admin, brief (at most 1 hour), readonly";
    all.prints(&[shown]);
    let accounts = ["accounts", "--channel", CHANNEL];
    shell.run(&accounts).exits(0).prints(&[shown]);
    let listed = shell.json(&accounts);
    assert_eq!(listed[0]["max_request_hours"], 4);
    assert_eq!(listed[0]["max_request_hours_by_set"], json!({"brief": 1}));
    let both = [
        "--permission-set",
        "brief",
        "--permission-set",
        "admin",
        "--max-hours",
        "3",
    ];
    bind(&both).prints(&["with brief the longest duration is 1 hour, not 3"]);
    let only = ["--permission-set", "admin", "--max-hours", "3"];
    assert_eq!(bind(&only).err, "");
    assert!(shell.json(&accounts)[0]["max_request_hours_by_set"].is_null());
}

/// H4, W1: a permission set in another case was refused, and the refusal repeated the word.
#[tokio::test(flavor = "multi_thread")]
async fn h4_w1_a_permission_set_is_understood_as_in_mattermost() {
    let shell = Shell::open();
    let bind = ["bind", "--channel", CHANNEL, "--account", ACCOUNT];
    let sets = ["--permission-set", "Admin", "--permission-set", "READONLY"];
    shell.ok(&[&bind[..], &sets].concat());
    shell.ok(&["approvers", "--channel", CHANNEL, "bob"]);
    let mut asking = ASKING;
    asking[8] = "ReadOnly";
    assert_eq!(shell.json(&asking)["permission_set"], "readonly");
    // A client without permission sets of its own asks the server.
    let folder = tempfile::tempdir().unwrap();
    let alone = binary()
        .args(asking)
        .args(["-o", "json"])
        .current_dir(folder.path())
        .env("JIT_CLIENT__URL", &shell.jit.url)
        .env("JIT_CLIENT__KEY_ID", "plugin")
        .env("JIT_CLIENT__SECRET", SECRET)
        .output();
    let alone = Ran::new(&asking, &alone.unwrap()).exits(0);
    alone.prints(&["\"permission_set\":\"readonly\""]);
    asking[8] = "redonly";
    shell.run(&asking).exits(1).prints(&[
        "--permission-set \"redonly\" is not configured",
        "nearest: readonly",
    ]);
    let glass = ["--permission-set", "ADMIN", "--reason", "x", "--yes"];
    let glass = [
        &["break-glass", "revoke", "--user", "alice@example.com"],
        &glass[..],
        &["--as", "sec@example.com"],
    ];
    shell
        .run(&glass.concat())
        .exits(0)
        .prints(&["with the permission set admin"]);
}

/// K12: the beginning of an id said that there is no such request if its record cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn k12_a_short_id_names_a_request_that_cannot_be_read() {
    let shell = Shell::open();
    shell.bind();
    let unread = shell.granted().await;
    let db = rusqlite::Connection::open(shell.jit.database()).unwrap();
    let sql = "UPDATE jit_requests SET doc = 'damaged' WHERE request_id = ?1";
    assert_eq!(db.execute(sql, [&unread]), Ok(1));
    // The last digits of an id are random, and the first ones tell its time.
    let short = &unread[..13];
    let told = shell.run(&["status", short]).exits(1);
    let whole = shell.run(&["status", &unread]).exits(1);
    assert_eq!(told.err, whole.err);
    let reason = ["--reason", "incident 7", "--as", "sec@example.com"];
    let revoke = [&["break-glass", "revoke", short], &reason[..]].concat();
    let told = shell.run(&revoke).exits(1);
    told.prints(&[&unread, "Only the store maps a request to its access"]);
    // With another request that begins so, the command asks for more of the id.
    let other = shell.request();
    let same = &unread[..4];
    assert_eq!(same, &other[..4]);
    let revoke = [&["break-glass", "revoke", same], &reason[..]].concat();
    for words in [&["status", same][..], &revoke] {
        let told = shell.run(words).exits(1);
        told.prints(&[
            "several requests begin with",
            &format!("{unread} its record cannot be read"),
            &other,
        ]);
    }
}
