//! Completeness: every mutation writes an audit event, and the documents name every error code,
//! event and metric. (`tests/api/signing.rs` tests that every route authenticates.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::{ACCOUNT, CHANNEL, Caller, Setup};
use jit::code::Code;
use jit::domain::EventKind;
use jit::http::ROUTES;
use serde_json::{Value, json};

fn page(name: &str) -> String {
    let path = format!("{}/docs/{name}.md", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_code_is_documented_with_its_status() {
    let page = page("api");
    for code in Code::ALL {
        let row = format!("| `{}` | {} |", code.as_str(), code.http());
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn every_event_is_documented() {
    let page = page("api");
    let words: BTreeSet<&str> = page
        .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .collect();
    for kind in EventKind::ALL {
        assert!(words.contains(kind.to_string().as_str()), "{kind}");
    }
}

#[tokio::test]
async fn every_metric_is_documented() {
    let jit = Setup::default().start();
    let metrics = jit.caller().metrics().await;
    let named: BTreeSet<&str> = metrics
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(named.len() >= 8, "{named:?}");
    let page = page("operations");
    for name in named {
        assert!(page.contains(name), "{name}");
    }
}

struct Change {
    route: &'static str,
    /// The history that records the change.
    history: String,
    body: Value,
}

// G12, G13, E12: every change writes an audit event with its actor.
#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_is_audited() {
    let (_jit, caller) = Setup::default().bound().await;
    let [approved, denied, cancelled] = [
        caller.request().await,
        caller.request().await,
        caller.request().await,
    ];
    let channel = format!("config%23{CHANNEL}");
    let by = |role: &str, name: &str| {
        let email = format!("{name}@example.com");
        json!({format!("{role}_mm_user_id"): name, format!("{role}_email"): email})
    };
    let step = |route, id: &str, body: Value| Change {
        route,
        history: id.to_owned(),
        body,
    };
    let mut extend = by("actor", "alice");
    extend["additional_minutes"] = 30.into();
    let here = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    let mut terms = here.clone();
    terms["max_request_hours"] = 2.into();
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob"]});
    let changes = [
        step("/requests/{id}/approve", &approved, by("approver", "bob")),
        step("/requests/{id}/extend", &approved, extend),
        step("/requests/{id}/revoke", &approved, by("actor", "bob")),
        step("/requests/{id}/deny", &denied, by("denier", "bob")),
        step("/requests/{id}/cancel", &cancelled, by("actor", "alice")),
        step("/config/bind", &channel, terms),
        step("/config/approvers", &channel, approvers),
        step("/config/unbind", &channel, here),
    ];
    for change in &changes {
        if change.route.ends_with("extend") {
            caller.until(&approved, "GRANTED").await;
        }
        let before = length(&caller, &change.history).await;
        let path = change.route.replace("{id}", &change.history);
        caller.post(&path, &change.body).await.is(200);
        let after = length(&caller, &change.history).await;
        assert!(after > before, "{} wrote no audit event", change.route);
    }
    // The history of a new request begins with the event of its creation.
    assert_eq!(caller.kinds(&denied).await, ["REQUESTED", "DENIED"]);
    let walked = changes
        .iter()
        .map(|change| change.route)
        .chain(["/requests"]);
    let walked: BTreeSet<&str> = walked.collect();
    // Commands in Mattermost use the same service: tests/mattermost/life.rs.
    let mutating = ROUTES
        .iter()
        .filter(|route| route.method != "GET" && route.scope().is_some());
    let mutating: BTreeSet<&str> = mutating.map(|route| route.path).collect();
    assert_eq!(walked, mutating);
}

async fn length(caller: &Caller, history: &str) -> usize {
    caller.audit(history).await.len()
}
