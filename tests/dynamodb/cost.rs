//! What things cost: counted between jit and DynamoDB, so nothing is forgotten.

use std::collections::BTreeMap;

use crate::common::Setup;
use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};

const WRITES: [&str; 4] = ["TransactWriteItems", "PutItem", "UpdateItem", "DeleteItem"];

fn writes(calls: &BTreeMap<String, u64>) -> u64 {
    WRITES.iter().filter_map(|action| calls.get(*action)).sum()
}

/// Asked, approved, assigning, granted, revoke asked, revoked: one write each, with the
/// nonces of the three calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_six_writes() {
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
    assert_eq!(writes(&calls), 6, "{calls:?}");
}
