//! DynamoDB is unreachable for a while: callers get errors, and jit does the due work afterwards.

use std::time::{Duration, Instant};

use crate::common::aws::Aws;
use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::{Setup, TIMEOUT};

// P1, P6: a revoke that cannot be stored is not confirmed, and a grant that ends during the outage
// is removed as soon as the store is back.
#[tokio::test(flavor = "multi_thread")]
async fn work_due_during_an_outage_is_done_afterwards() {
    let (aws, tables) = (Aws::quick().await, Tables::fresh().await);
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let setup = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(tables.through(&proxy.url)),
        ..Setup::default()
    };
    let (jit, caller) = setup.bound().await;
    let id = caller.granted().await;
    proxy.set(Mood::ReadOnly);
    let unsure = caller.revoke(&id).await.is(503);
    let message = unsure["message"].as_str().unwrap();
    assert!(message.contains("may have made the change"), "{message}");
    assert_eq!(caller.show(&id).await["status"], "GRANTED");
    proxy.set(Mood::Unreachable);
    let refused = caller.revoke(&id).await.is(503);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("nothing was changed"), "{message}");
    assert_eq!(
        caller
            .send("GET", "/readyz", Vec::new(), Vec::new())
            .await
            .status,
        503
    );
    assert_eq!(
        caller
            .send("GET", "/healthz", Vec::new(), Vec::new())
            .await
            .status,
        200
    );
    jit.logs("DynamoDB");
    tables.let_it_end(&id).await;
    assert_eq!(aws.assignments().len(), 1);

    proxy.set(Mood::Well);
    let begun = Instant::now();
    while !aws.assignments().is_empty() {
        assert!(begun.elapsed() < TIMEOUT, "the assignment still exists");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    caller.until(&id, "EXPIRED").await;
}
