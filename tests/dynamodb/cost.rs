//! The cost of operations, counted by a proxy between jit and DynamoDB.

use std::collections::{BTreeMap, BTreeSet};

use jit::clock::{Clock, SystemClock};
use jit::domain::{Lane, Status};
use jit::store::{Filter, Store};
use serde_json::{Value, json};

use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::{ACCOUNT, CHANNEL, Channel, Setup};

const WRITES: [&str; 4] = ["TransactWriteItems", "PutItem", "UpdateItem", "DeleteItem"];

fn writes(calls: &BTreeMap<String, u64>) -> u64 {
    WRITES.iter().filter_map(|action| calls.get(*action)).sum()
}

/// Request, approval, Assigning, GRANTED, revoke requested, REVOKED: one write each, together with
/// the nonces of the three calls. The entries of the head log are not among them: one for each
/// second with changes, for all requests together.
#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_request_takes_six_writes() {
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let setup = Setup {
        dynamo: Some(tables.through(&proxy.url)),
        ..Setup::default()
    };
    let (_jit, caller) = setup.bound().await;
    proxy.calls();
    let id = caller.request().await;
    caller.approve(&id).await.is(200);
    let store = tables.store();
    crate::replicas::none_is(&store, &[jit::domain::Status::Approved]).await;
    caller.revoke(&id).await.is(200);
    let calls = proxy.calls();
    let head_log = tables.store().last_head_entry().await.unwrap().unwrap();
    let puts = calls.get("PutItem").copied().unwrap_or_default();
    assert!(puts <= head_log.number, "{calls:?}");
    assert_eq!(writes(&calls) - puts, 6, "{calls:?}");
}

/// The IAM policy of a replica permits the calls that it makes, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn the_iam_policy_allows_exactly_the_calls_of_jit() {
    let channel = Channel::open().await;
    let tables = Tables::fresh().await;
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let setup = Setup {
        dynamo: Some(tables.through(&proxy.url)),
        webhook: Some(channel.url.clone()),
        ..Setup::default()
    };
    let (_jit, caller) = setup.bound().await;
    let id = caller.granted().await;
    caller.revoke(&id).await.is(200);
    channel.wait_for(2).await;
    caller
        .get(&format!("/requests?account_id={ACCOUNT}"))
        .await
        .is(200);
    let unbind = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    caller.post("/config/unbind", &unbind).await.is(200);

    let policy = include_str!("../../infra/iam-policy.json");
    let policy: Value = serde_json::from_str(policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements
        .iter()
        .flat_map(|statement| match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        });
    let actions = actions.map(|action| action.as_str().unwrap().to_owned());
    let allowed: BTreeSet<String> = actions.filter(|one| one.starts_with("dynamodb:")).collect();
    assert_eq!(proxy.needs(), allowed);
}

/// The cost of a search for work and of a list does not depend on the number of other records.
#[tokio::test(flavor = "multi_thread")]
async fn other_records_do_not_raise_the_cost_of_a_search_or_a_list() {
    let (tables, few) = (Tables::fresh().await, 40);
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let setup = Setup::in_dynamo(&tables);
    let (_jit, caller) = setup.bound().await;
    let store = tables.through(&proxy.url).store();
    let mut looks = Vec::new();
    for _ in 0..3 {
        for _ in 0..few {
            let id = caller.request().await;
            caller.deny(&id).await.is(200);
        }
        proxy.calls();
        for lane in Lane::ALL {
            store.due(lane, SystemClock.now(), 100).await.unwrap();
        }
        let sweep: u64 = proxy.calls().values().sum();
        let pending = Filter {
            status: Some(Status::Pending),
            ..Filter::default()
        };
        store.list(&pending, None, 20).await.unwrap();
        let denied = Filter {
            status: Some(Status::Denied),
            ..Filter::default()
        };
        store.list(&denied, None, 20).await.unwrap();
        let here = Filter {
            account_id: Some(ACCOUNT.parse().unwrap()),
            ..Filter::default()
        };
        store.list(&here, None, 20).await.unwrap();
        looks.push((sweep, proxy.calls()));
    }
    assert_eq!(looks[0], looks[1]);
    assert_eq!(looks[1], looks[2]);
    assert_eq!(
        looks[0].0, 40,
        "three lanes and two ranges of statuses, in eight shards"
    );
    assert!(!looks[0].1.contains_key("Scan"));
}
