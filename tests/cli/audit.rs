//! What happened, and whether it can be believed (P7).

use serde_json::Value;

use crate::Shell;
use crate::common::{ACCOUNT, CHANNEL};

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_shown_and_exported() {
    let shell = Shell::open();
    shell.bind();
    let id = shell.granted().await;
    shell.run(&["audit", "show", &id]).exits(0).tells(&[
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

/// Every way to make history say something else, done to the file itself.
#[tokio::test(flavor = "multi_thread")]
async fn tampering_is_found_wherever_it_was_done() {
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
            .tells(&["are whole"]);
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
            .tells(&[&id, "cannot be believed"]);
        let one = shell.run(&["audit", "verify", &id]);
        assert_eq!(one.code, 1, "{way}: {one:?}");
        let found = shell.run(&["audit", "verify", "-o", "json"]).exits(1);
        let found: Value = serde_json::from_str(&found.out).unwrap();
        assert_eq!(found["broken"][0]["request_id"], id.as_str(), "{way}");
    }
}
