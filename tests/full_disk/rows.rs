//! The content of the tables, read without jit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

/// The length of a mark: `mark-` and six digits.
const MARK: usize = 11;

#[derive(Debug)]
pub struct Rows {
    pub requests: BTreeMap<String, Value>,
    /// The events of each history, in order.
    pub events: BTreeMap<String, Vec<Value>>,
    /// The request of each notice, and the number of the event that it reports.
    pub notices: Vec<(String, i64)>,
    pub holdings: Vec<Value>,
    /// Every mark in any text of any table.
    pub marks: BTreeSet<String>,
}

impl Rows {
    pub fn read(file: &Path) -> Self {
        let db = Connection::open(file).unwrap();
        let pairs = |sql: &str| -> Vec<(String, String)> {
            let mut statement = db.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.unwrap().map(Result::unwrap).collect()
        };
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let requests = pairs("SELECT request_id, doc FROM jit_requests");
        let events = pairs("SELECT request_id, doc FROM jit_audit ORDER BY request_id, seq");
        let notices = pairs("SELECT request_id || '.' || seq, doc FROM jit_notices");
        let holdings = pairs("SELECT holding_key, doc FROM jit_holdings");
        let all = [&requests, &events, &notices, &holdings];
        let marks = all.into_iter().flatten().flat_map(|(_, doc)| {
            let begins = doc.match_indices("mark-").map(|(at, _)| at);
            begins.map(|at| doc[at..at + MARK].to_owned())
        });
        let marks = marks.collect();
        let mut histories: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (id, doc) in &events {
            histories.entry(id.clone()).or_default().push(json(doc));
        }
        let place = |name: &str| {
            let (id, seq) = name.split_once('.').unwrap();
            (id.to_owned(), seq.parse().unwrap())
        };
        Self {
            events: histories,
            notices: notices.iter().map(|(name, _)| place(name)).collect(),
            holdings: holdings.iter().map(|(_, doc)| json(doc)).collect(),
            requests: requests
                .into_iter()
                .map(|(id, doc)| (id, json(&doc)))
                .collect(),
            marks,
        }
    }

    /// The state, the events and the notices of every request agree.
    pub fn belong_together(&self) {
        for (id, request) in &self.requests {
            let events = self
                .events
                .get(id)
                .unwrap_or_else(|| panic!("{id} has no event: {request}"));
            let numbers: Vec<i64> = events
                .iter()
                .map(|one| one["seq"].as_i64().unwrap())
                .collect();
            let all: Vec<i64> = (1..).take(numbers.len()).collect();
            assert_eq!(numbers, all, "{id} has a gap in its history");
            let version = request["chain"]["version"].as_i64();
            let last = numbers.last().copied();
            assert_eq!(version, last, "{id}: state and history differ: {request}");
        }
        let of_requests = self.events.keys().filter(|id| !id.starts_with("config#"));
        for id in of_requests.chain(self.notices.iter().map(|(id, _)| id)) {
            assert!(self.requests.contains_key(id), "{id} has no state");
        }
        for (id, seq) in &self.notices {
            let told = self.events[id].iter().any(|event| event["seq"] == *seq);
            assert!(told, "a notice without its event: {id} {seq}");
        }
        for holding in &self.holdings {
            assert_eq!(holding["holders"], serde_json::json!([]), "{holding}");
        }
    }

    pub fn kinds(&self, id: &str) -> Vec<&str> {
        self.events[id]
            .iter()
            .map(|event| event["event_type"].as_str().unwrap())
            .collect()
    }
}
