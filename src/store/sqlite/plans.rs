//! Tests that SQLite answers every query from an index.

use rusqlite::Connection;

use super::{head_log, inspect, notices, queries, writes};
use crate::domain::Status;
use crate::store::Filter;

/// Creates the schema and returns SQLite's query plan for each statement.
fn plans(statements: &[(String, String)]) -> Vec<(String, Vec<String>)> {
    let db = Connection::open_in_memory().unwrap();
    for schema in [
        include_str!("schema_1.sql"),
        include_str!("schema_2.sql"),
        include_str!("schema_3.sql"),
        include_str!("schema_4.sql"),
        include_str!("schema_5.sql"),
    ] {
        db.execute_batch(schema).unwrap();
    }
    let explain = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        // The parameters stay NULL, because the plan does not depend on them.
        let steps = statement.raw_query().mapped(|row| row.get("detail"));
        steps.collect::<Result<_, _>>().unwrap()
    };
    statements
        .iter()
        .map(|(name, sql)| (name.clone(), explain(sql)))
        .collect()
}

fn fixed() -> Vec<(String, String)> {
    [
        ("request", queries::REQUEST),
        ("holding", queries::HOLDING),
        ("binding", queries::BINDING),
        ("channel", queries::CHANNEL),
        ("bindings", queries::BINDINGS),
        ("answered", queries::ANSWERED),
        ("due", queries::DUE),
        ("next_due", queries::NEXT_DUE),
        ("claim_notices", notices::DUE_NOTICES),
        ("claim_notice", notices::FIRST_IN_LINE),
        ("next_notice", queries::NEXT_NOTICE),
        ("lease_notice", writes::LEASE_NOTICE),
        ("notices_parked", notices::PARKED),
        ("pending notices", writes::PENDING),
        ("pending requests", queries::PENDING),
        ("audit", queries::AUDIT),
        ("heads of requests", queries::REQUEST_HEADS),
        ("heads of channels", queries::CHANNEL_HEADS),
        ("backlog", queries::BACKLOG),
        ("live grants", queries::LIVE),
        ("overdue grants", queries::OVERDUE),
        ("failing removals", queries::FAILING),
        ("stuck requests", queries::STUCK),
        ("bound", queries::BOUND),
        ("take_lease", writes::TAKE_LEASE),
        ("notices by state", queries::NOTICES),
        ("leased", queries::LEASED),
        ("update", writes::UPDATE_REQUEST),
        ("export", queries::EXPORT),
        ("entries of the head log", head_log::ENTRIES),
        ("columns of a request", inspect::REQUEST_COLUMNS),
        ("columns of a channel", inspect::CHANNEL_COLUMNS),
        ("columns of bindings", inspect::BINDING_COLUMNS),
        ("columns of events", inspect::EVENT_COLUMNS),
    ]
    .map(|(name, sql)| (name.to_owned(), sql.to_owned()))
    .into()
}

fn lists() -> Vec<(String, String)> {
    (0..64)
        .map(|given| {
            let filter = filter(given);
            (format!("list {filter:?}"), queries::list_sql(&filter))
        })
        .collect()
}

fn filter(given: u32) -> Filter {
    let has = |bit: u32| given & (1 << bit) != 0;
    Filter {
        request_id: has(0).then(|| "a1b2c3d4-e5f6-7890-abcd-ef1234567890".parse().unwrap()),
        channel_id: has(1).then(|| "ch".parse().unwrap()),
        account_id: has(2).then(|| "123456789012".parse().unwrap()),
        requester_email: has(3).then(|| "a@b".parse().unwrap()),
        status: match (has(4), has(5)) {
            (true, rare) => Some(if rare {
                Status::Pending
            } else {
                Status::Revoked
            }),
            _ => None,
        },
        from: None,
        before: None,
    }
}

#[test]
fn every_query_uses_an_index() {
    let mut all = fixed();
    all.extend(lists());
    for (name, steps) in plans(&all) {
        for step in steps {
            // These two scan the whole partial index on purpose: it contains only due entries.
            let lookup =
                !step.starts_with("SCAN") || ["leased", "next_notice"].contains(&name.as_str());
            assert!(lookup, "{name}: {step}");
        }
    }
}

#[test]
fn no_query_sorts_a_page_after_reading_it() {
    let mut all = lists();
    all.extend(
        fixed()
            .into_iter()
            .filter(|(name, _)| name != "claim_notices"),
    );
    for (name, steps) in plans(&all) {
        let sorted = steps.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(!sorted, "{name}: {steps:?}");
    }
}
