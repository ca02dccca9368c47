//! The audit commands: show, export and verify (P7).

use serde_json::Value;

use crate::Shell;
use crate::common::{ACCOUNT, CHANNEL};

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_shown_and_exported() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.granted().await;
    shell.run(&["audit", "show", &id]).exits(0).prints(&[
        "TIME",
        "REQUESTED",
        "APPROVED",
        "ASSIGNING",
        "GRANTED",
        "bob@example.com",
    ]);
    let config = format!("config#{CHANNEL}");
    shell.run(&["audit", "show", &config]).exits(0);
    let exported = shell.ok(&["audit", "export", "--account", ACCOUNT]);
    let events: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_request = events
        .iter()
        .filter(|event| event["request_id"] == id.as_str());
    assert_eq!(of_request.count(), 4);
    let elsewhere = shell.ok(&["audit", "export", "--account", "999999999999"]);
    assert_eq!(elsewhere, "");
    let long_ago = shell.ok(&["audit", "export", "--to", "2020-01-01"]);
    assert_eq!(long_ago, "");
}

/// Each way to change the history in the file itself; `audit verify` finds each.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_tampering_is_found() {
    let ways = [
        (
            "an event altered",
            "UPDATE jit_audit SET doc = replace(doc, 'alice', 'malic') WHERE seq = 1",
        ),
        (
            "an event in the middle removed",
            "DELETE FROM jit_audit WHERE seq = 2",
        ),
        (
            "the last event removed",
            "DELETE FROM jit_audit WHERE seq = 4",
        ),
        ("all of it removed", "DELETE FROM jit_audit"),
        (
            "an event added",
            "INSERT INTO jit_audit SELECT request_id, event_time_event_id || 'x', 9, event_time, event_type, account_id, channel_id, doc FROM jit_audit WHERE seq = 4",
        ),
        (
            "two events swapped",
            "UPDATE jit_audit SET seq = CASE seq WHEN 2 THEN 30 ELSE 2 END WHERE seq IN (2, 3) AND seq = 2; UPDATE jit_audit SET seq = 2 WHERE seq = 3; UPDATE jit_audit SET seq = 3 WHERE seq = 30",
        ),
    ];
    for (way, sql) in ways {
        let shell = Shell::open();
        shell.bind();
        let id = shell.granted().await;
        shell
            .run(&["audit", "verify"])
            .exits(0)
            .prints(&["audit chains verified"]);
        let of_request = sql
            .replace(
                "DELETE FROM jit_audit",
                &format!("DELETE FROM jit_audit WHERE request_id = '{id}' AND 1"),
            )
            .replace("1 WHERE", "1 AND")
            .replace("WHERE seq", &format!("WHERE request_id = '{id}' AND seq"));
        let db = rusqlite::Connection::open(shell.jit.database()).unwrap();
        db.execute_batch(&of_request).unwrap();
        shell
            .run(&["audit", "verify"])
            .exits(1)
            .prints(&[&id, "failed verification"]);
        let one = shell.run(&["audit", "verify", &id]);
        assert_eq!(one.code, 1, "{way}: {one:?}");
        let found = shell.run(&["audit", "verify", "-o", "json"]).exits(1);
        let found: Value = serde_json::from_str(&found.out).unwrap();
        assert_eq!(found["broken"][0]["request_id"], id.as_str(), "{way}");
    }
}

// K12: an unreadable record is a finding of `audit verify`, which still verifies all others.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_named_and_the_rest_is_verified() {
    let shell = Shell::open();
    shell.bind();
    let (spoilt, forged, good) = (shell.request(), shell.request(), shell.request());
    let damaged = shell.request();
    let db = rusqlite::Connection::open(shell.jit.database()).unwrap();
    for (sql, id) in [
        (
            "UPDATE jit_requests SET doc = '{}' WHERE request_id = ?1",
            &spoilt,
        ),
        (
            "UPDATE jit_audit SET doc = replace(doc, 'alice', 'malic') WHERE request_id = ?1",
            &forged,
        ),
        (
            "UPDATE jit_audit SET doc = '{}' WHERE request_id = ?1",
            &damaged,
        ),
    ] {
        assert_eq!(db.execute(sql, [id]), Ok(1));
    }
    let said = shell.run(&["audit", "verify", "-o", "json"]).exits(1);
    let said: Value = serde_json::from_str(&said.out).unwrap();
    let mut broken: Vec<&str> = said["broken"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["request_id"].as_str().unwrap())
        .collect();
    broken.sort_unstable();
    let mut wanted = vec![spoilt.as_str(), &forged, &damaged];
    wanted.sort_unstable();
    assert_eq!(broken, wanted);
    assert_eq!(said["histories"], 5, "four requests and the channel");
    shell
        .run(&["audit", "verify"])
        .exits(1)
        .prints(&[&spoilt, "cannot be read"]);
    shell.run(&["audit", "verify", &good]).exits(0);
    // The export has all other events and reports that it is incomplete.
    let exported = shell
        .run(&["audit", "export"])
        .exits(1)
        .prints(&[&damaged, "left out"]);
    assert!(exported.out.contains(&good) && !exported.out.contains(&damaged));
    // A list shows the other requests and names what it leaves out.
    let listed = shell.run(&["list", "--channel", CHANNEL]).exits(0);
    assert!(
        listed.out.contains(&good) && listed.err.contains(&spoilt),
        "{listed:?}"
    );
}

// K15: an export names the time from which the next export misses no event.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_names_where_the_next_export_begins() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.request();
    let first = shell.run(&["audit", "export"]).exits(0);
    let (_, from) = first.err.split_once("--from ").unwrap();
    let from = from.split(';').next().unwrap();
    let next = shell.run(&["audit", "export", "--from", from]).exits(0);
    assert!(
        next.out.contains(&id),
        "the next export leaves out a possibly late event"
    );
}
