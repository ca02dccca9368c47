//! Tests of the store with many partitions.

use std::collections::BTreeMap;

use jit::domain::{Lane, Millis, RequestId, Status};
use jit::store::dynamodb::Table;
use jit::store::outbox::{MOST_PARKED, MOST_PENDING};
use jit::store::portable::{Copied, OutboxEntry, Portable};
use jit::store::{Commit, Cursor, Filter, Store, Write};

use crate::build::{at, creating, granted, id, later, lease, next, notice, opened};
use crate::dynamo::Tables;
use crate::dynamo::proxy::{Mood, Proxy};

/// FNV-1a. The shard of a request must never change, or the store would not find the request again.
fn shard(id: RequestId) -> u64 {
    let hash = id
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3_u64)
        });
    hash % 8
}

/// 40 requests of partition 3, and 20 of the others.
fn here_and_elsewhere() -> [Vec<(u128, RequestId)>; 2] {
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    for number in 1_u128.. {
        let id = id(number);
        match shard(id) {
            3 if here.len() < 40 => here.push((number, id)),
            3 => {}
            _ if elsewhere.len() < 20 => elsewhere.push((number, id)),
            _ if here.len() == 40 => break,
            _ => {}
        }
    }
    [here, elsewhere]
}

/// One partition has all the newest records, so the first page and the start of the second come
/// from it alone.
#[tokio::test]
async fn a_list_is_in_order_when_one_partition_has_all_the_newest() {
    let tables = Tables::fresh().await;
    let store = tables.store();
    let [here, elsewhere] = here_and_elsewhere();
    let mut seconds = 0;
    for (number, _) in elsewhere.iter().chain(&here) {
        seconds += 1;
        let decision = opened(*number, at(seconds));
        store.commit(creating(&decision)).await.unwrap();
    }
    let newest: Vec<RequestId> = here.iter().rev().map(|(_, id)| *id).collect();
    for filter in [
        Filter {
            status: Some(Status::Pending),
            ..Filter::default()
        },
        Filter {
            from: Some(at(0)),
            ..Filter::default()
        },
    ] {
        let page = store.list(&filter, None, 30).await.unwrap();
        let found: Vec<RequestId> = page.iter().map(|request| request.id).collect();
        assert_eq!(found, newest[..30]);
        let last = page.last().unwrap();
        let after = Cursor {
            created_at: last.asked.created_at,
            id: last.id,
        };
        let rest = store.list(&filter, Some(&after), 100).await.unwrap();
        assert_eq!(rest.len(), 30);
        assert_eq!(
            rest[..10]
                .iter()
                .map(|request| request.id)
                .collect::<Vec<_>>(),
            newest[30..]
        );
    }
    // The reverse order as well, which reads every head.
    let heads = store.heads(None, 100).await.unwrap();
    let oldest = elsewhere.iter().chain(&here).map(|(_, id)| id.to_string());
    let keys: Vec<String> = heads.iter().map(|head| head.key.to_string()).collect();
    assert_eq!(keys, oldest.collect::<Vec<_>>());

    let key = aws_sdk_dynamodb::types::AttributeValue::S(newest[0].to_string());
    let name = tables.name(Table::Requests);
    let item = tables
        .client()
        .get_item()
        .table_name(name)
        .key("request_id", key);
    let item = item.send().await.unwrap().item.unwrap();
    assert_eq!(item["shard"].as_n().unwrap(), "3");
}

/// A backlog in one partition is read completely, or only as far as the caller wants.
#[tokio::test]
async fn a_backlog_is_read_only_as_far_as_the_caller_wants() {
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let store = tables.through(&proxy.url).store();
    let numbers = (1_u128..).filter(|number| shard(id(*number)) == 3).take(20);
    let all: Vec<u128> = numbers.collect();
    for (number, due) in all.iter().zip(1..) {
        let mut decision = opened(*number, at(0));
        decision.request.schedule.due_at = Some(at(due));
        store.commit(creating(&decision)).await.unwrap();
    }
    proxy.calls();
    let one = store.due(Lane::Other, at(99), 1).await.unwrap();
    assert_eq!((one.ready, one.next), (vec![id(all[0])], Some(at(2))));
    assert_eq!(proxy.calls()["Query"], 8, "one query for each partition");
    let whole = store.due(Lane::Other, at(99), 100).await.unwrap();
    assert_eq!(
        whole.ready,
        all.iter().map(|number| id(*number)).collect::<Vec<_>>()
    );
    assert_eq!(whole.next, None);
    let some = store.due(Lane::Other, at(15), 100).await.unwrap();
    assert_eq!((some.ready.len(), some.next), (15, Some(at(16))));
}

/// A worker that waits for AWS renews its lease many times.
#[tokio::test]
async fn a_lease_renewal_is_one_write_without_a_transaction() {
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let store = tables.through(&proxy.url).store();
    let decision = opened(1, at(0));
    store.commit(creating(&decision)).await.unwrap();
    let renewed = later(&decision.request, |request| {
        request.schedule.lease = Some(lease(7, at(60)));
    });
    proxy.calls();
    store.renew(renewed).await.unwrap();
    assert_eq!(proxy.calls(), BTreeMap::from([("PutItem".to_owned(), 1)]));
}

// K9: an outbox from before the limit is nearly as large as the largest item of DynamoDB.
#[tokio::test]
async fn a_full_outbox_refuses_no_commit() {
    let store = Tables::fresh().await.store();
    let decision = opened(1, at(0));
    let outbox_entries = (2..1_400).map(|seq| OutboxEntry {
        notice: notice(1, seq, at(1)),
        attempts: 0,
        next_at: at(1),
        parked: false,
    });
    let copied = Copied::Request {
        request: Box::new(decision.request.clone()),
        holding: None,
        outbox_entries: outbox_entries.collect(),
        parked: 0,
        events: decision.events.clone(),
    };
    store.take_over(&copied).await.unwrap();
    let mut request = decision.request;
    for seq in 1_400..1_700 {
        request = later(&request, |_| {});
        let written = Write::Request(request.clone());
        let commit = Commit::of([written, Write::Notice(notice(1, seq, at(2)))]);
        store.commit(commit).await.unwrap();
    }
    let left: Vec<u64> = store
        .outbox_entries(id(1))
        .await
        .unwrap()
        .iter()
        .map(|one| one.notice.seq)
        .collect();
    let most = MOST_PENDING + MOST_PARKED;
    let newest: Vec<u64> = (1_700 - most as u64..1_700).collect();
    assert_eq!(left, newest);
    let parked = store.gauges(at(3)).await.unwrap().parked_notices;
    assert_eq!(parked, 1_698 - MOST_PENDING as u64);
}

// K11: the cost of a scrape depends neither on live grants nor on undelivered notices.
#[tokio::test(flavor = "multi_thread")]
async fn the_cost_of_a_scrape_does_not_depend_on_live_grants() {
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let (filling, store) = (tables.store(), tables.through(&proxy.url).store());
    let day = at(86_400);
    let mut costs = Vec::new();
    for thousand in 0..2_u128 {
        for some in 0..50_u128 {
            let numbers = (0..26).map(|number| thousand * 10_000 + some * 26 + number + 1);
            let commits = numbers.map(|number| {
                let mut decision = opened(number, at(0));
                decision.request = granted(&decision.request, day);
                decision.notices = vec![notice(number, 2, at(0))];
                filling.commit(creating(&decision))
            });
            futures_util::future::try_join_all(commits).await.unwrap();
        }
        proxy.calls();
        proxy.looked_at();
        let gauges = store.gauges(at(60)).await.unwrap();
        assert_eq!((gauges.live_grants, gauges.backlog), (1_000, 0));
        assert!(gauges.undelivered_notices >= 1_000);
        assert_eq!(gauges.oldest_undelivered, Some(at(0)));
        costs.push((proxy.calls(), proxy.looked_at()));
    }
    assert_eq!(costs[0], costs[1]);
    // A grant that ends is counted, also while a worker holds its lease.
    let ending = store.request(id(1)).await.unwrap().unwrap();
    let leased = next(&ending, |request| {
        request.schedule.lease = Some(lease(1, day + Millis::seconds(30)));
    });
    store.commit(leased).await.unwrap();
    let gauges = store.gauges(day).await.unwrap();
    assert_eq!((gauges.overdue_grants, gauges.backlog), (2_600, 2_599));
}
