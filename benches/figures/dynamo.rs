//! Compares DynamoDB with SQLite, on Amazon's DynamoDB Local. The speed depends on DynamoDB, but
//! jit determines the number of calls and of capacity units.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use jit::clock::{Clock, SystemClock};
use jit::domain::{AuditKey, Lane, RequestId, Status};
use jit::store::dynamodb::Table;
use jit::store::{Filter, Store};
use serde_json::{Value, json};

use crate::load::{self, Load};
use crate::process::{METRICS_TOKEN, Process, wanted};
use crate::tables::Tables;
use crate::tables::proxy::{Mood, Proxy};
use crate::{CLIENTS, Report, millis};

const LIVES: usize = 50;
/// The number of stored requests that must not change the number of calls.
const STORED: usize = 1_000_000;
/// The price in dollars of a million units, on demand in us-east-1.
const WRITE_PRICE: f64 = 0.625;
const READ_PRICE: f64 = 0.125;
const WRITES: [&str; 4] = ["TransactWriteItems", "PutItem", "UpdateItem", "DeleteItem"];

pub async fn beside_sqlite(report: &mut Report) {
    let tables = Tables::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let jit = Process::jit_in(folder.path(), &tables);
    jit.bind().await;
    cost_of_a_life(report, &jit, &tables).await;
    let file = tempfile::tempdir().unwrap();
    let beside = Process::jit(file.path(), 0);
    beside.bind().await;
    for (name, jit) in [("SQLite", &beside), ("DynamoDB", &jit)] {
        reads(report, name, jit).await;
        lives(report, name, jit).await;
    }
    drop(beside);
    let stored = std::env::var("JIT_BENCH_STORED").ok();
    let stored = stored.map_or(STORED, |count| count.parse().unwrap());
    what_is_stored(report, &jit, &tables, stored).await;
}

/// Returns jit's own counters, by metric name and label.
async fn counted(jit: &Process) -> BTreeMap<String, f64> {
    let url = format!("http://{}/metrics", jit.address);
    let asked = reqwest::Client::new().get(url).bearer_auth(METRICS_TOKEN);
    let text = asked.send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with("jit_store_"));
    let parsed = lines.map(|line| line.rsplit_once(' ').unwrap());
    parsed
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

async fn head_entries(store: &dyn Store) -> u64 {
    let last = store.last_head_entry().await.unwrap();
    last.map_or(0, |last| last.number)
}

async fn cost_of_a_life(report: &mut Report, jit: &Process, tables: &Tables) {
    let (caller, store) = (jit.caller(), tables.store());
    let before = counted(jit).await;
    let entries_before = head_entries(&store).await;
    for number in 0..LIVES {
        let created = caller.post("/requests", &wanted(number)).await;
        let id = created["request_id"].as_str().unwrap();
        let bob = json!({"approver_mm_user_id": "bob", "approver_email": "bob@example.com"});
        caller.post(&format!("/requests/{id}/approve"), &bob).await;
        let id: RequestId = id.parse().unwrap();
        while store.request(id).await.unwrap().unwrap().status() != Status::Granted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let actor = json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com"});
        let revoked = caller.post(&format!("/requests/{id}/revoke"), &actor).await;
        assert_eq!(revoked["status"], "REVOKED");
    }
    let after = counted(jit).await;
    // The worker writes at most one entry a second, whatever the number of lives.
    let entries = (head_entries(&store).await - entries_before) as f64 / LIVES as f64;
    let sum = |wanted: &dyn Fn(&str) -> bool| {
        let all = after.iter().filter(|(name, _)| wanted(name));
        all.map(|(name, value)| value - before.get(name).unwrap_or(&0.0))
            .sum::<f64>()
            / LIVES as f64
    };
    let writes = sum(&|name| name.contains("calls") && WRITES.iter().any(|one| name.contains(one)));
    let writes = writes - entries;
    let reads = sum(&|name| name.contains("calls") && name.contains("Get"));
    let write_units = sum(&|name| name.contains("units") && name.contains("write")) / 10.0;
    let read_units = sum(&|name| name.contains("units") && name.contains("read")) / 10.0;
    report.hold(
        "DynamoDB: write calls of a life, with its nonces",
        &format!("{writes:.2}, {reads:.1} reads"),
        writes <= 6.0,
        "at most 6",
    );
    report.tell(
        "DynamoDB: entries of the head log for a life",
        &format!("{entries:.2}, at most one a second for all lives"),
    );
    let dollars = (write_units * WRITE_PRICE + read_units * READ_PRICE) / 1000.0;
    report.tell(
        "DynamoDB: units of a life, 1,000 lives on paper",
        &format!("{write_units:.0} write, {read_units:.0} read, ${dollars:.3}"),
    );
}

async fn reads(report: &mut Report, name: &str, jit: &Process) {
    let created = jit.caller().post("/requests", &wanted(LIVES)).await;
    let path = format!("/requests/{}", created["request_id"].as_str().unwrap());
    let calls = load::signed_gets(&path, 8, 12_000);
    let load = Load::run(&jit.address, calls, Duration::from_secs(3)).await;
    assert_eq!(load.failed, 0, "signed reads failed");
    let rate = load.rate();
    let (p50, p99) = load::percentiles(load.took);
    report.tell(
        &format!("{name}: signed reads, 8 clients"),
        &format!("{rate:.0}/s, p50 {}, p99 {}", millis(p50), millis(p99)),
    );
}

/// Runs requests from creation to revoke. Each client polls its request every 50 ms, with a signed
/// call, until it is granted.
async fn lives(report: &mut Report, name: &str, jit: &Process) {
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let caller = jit.caller();
        clients.spawn(async move { caller.live(10_000 + client).await });
    }
    let lived = clients.join_all().await.len();
    let rate = lived as f64 / begun.elapsed().as_secs_f64();
    report.tell(
        &format!("{name}: whole lives, 64 clients"),
        &format!("{rate:.0}/s"),
    );
}

/// Returns the number of calls of a search for work and of the lists.
async fn looked(tables: &Tables) -> (u64, u64) {
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let store = tables.through(&proxy.url).store();
    for lane in Lane::ALL {
        store.due(lane, SystemClock.now(), 100).await.unwrap();
    }
    let sweep = proxy.calls().values().sum();
    let account = Some(crate::process::ACCOUNT.parse().unwrap());
    let filters = [
        Filter {
            account_id: account.clone(),
            ..Filter::default()
        },
        Filter {
            account_id: account,
            status: Some(Status::Pending),
            ..Filter::default()
        },
        Filter {
            status: Some(Status::Revoked),
            ..Filter::default()
        },
        Filter {
            status: Some(Status::Expired),
            ..Filter::default()
        },
    ];
    for filter in &filters {
        store.list(filter, None, 50).await.unwrap();
    }
    (sweep, proxy.calls().values().sum())
}

async fn what_is_stored(report: &mut Report, jit: &Process, tables: &Tables, stored: usize) {
    let few = looked(tables).await;
    let before = counted(jit).await;
    store_many(tables, stored).await;
    let many = looked(tables).await;
    report.hold(
        &format!("DynamoDB: calls of a sweep and of four lists, {stored} more stored"),
        &format!("{} and {}, before {} and {}", many.0, many.1, few.0, few.1),
        few == many,
        "the same",
    );
    let after = counted(jit).await;
    let looks = |all: &BTreeMap<String, f64>| {
        let calls = all.iter().filter(|(name, _)| name.contains("Query"));
        calls.map(|(_, value)| value).sum::<f64>()
    };
    assert!(looks(&after) >= looks(&before));
}

/// Stores settled requests in the same account and channel, as copies of a real one.
async fn store_many(tables: &Tables, count: usize) {
    let (client, store) = (tables.client(), tables.store());
    let over = Filter {
        status: Some(Status::Revoked),
        ..Filter::default()
    };
    let one = store.list(&over, None, 1).await.unwrap().items.remove(0);
    assert!(
        !store
            .audit(&AuditKey::Request(one.id))
            .await
            .unwrap()
            .is_empty()
    );
    let key = AttributeValue::S(one.id.to_string());
    let name = tables.name(Table::Requests).to_owned();
    let found = client.get_item().table_name(&name).key("request_id", key);
    let item = found.send().await.unwrap().item.unwrap();
    let doc: Value = serde_json::from_str(item["doc"].as_s().unwrap()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    const HANDS: usize = 8;
    for hand in 0..HANDS {
        let (client, item, mut doc, name) =
            (client.clone(), item.clone(), doc.clone(), name.clone());
        tasks.spawn(async move {
            let numbers: Vec<usize> = (0..count).filter(|number| number % HANDS == hand).collect();
            for batch in numbers.chunks(25) {
                let mut puts = Vec::new();
                for number in batch {
                    let mut item = item.clone();
                    let id = format!("00000000-0000-7000-8000-{number:012x}");
                    doc["id"] = id.clone().into();
                    let word = |text: String| AttributeValue::S(text);
                    item.insert("doc".into(), word(doc.to_string()));
                    let created = item["created_at"].as_s().unwrap().clone();
                    item.insert(
                        "created_at_request_id".into(),
                        word(format!("{created}#{id}")),
                    );
                    item.insert("request_id".into(), word(id));
                    let shard = number % 8;
                    item.insert("shard".into(), AttributeValue::N(shard.to_string()));
                    item.insert("status_shard".into(), word(format!("REVOKED#{shard}")));
                    let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
                    puts.push(WriteRequest::builder().put_request(put).build());
                }
                client
                    .batch_write_item()
                    .request_items(&name, puts)
                    .send()
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
}
