//! Commands that ask for what is asked for already.

use crate::server::{ACCOUNT, ALICE, MALLORY, Team};

/// A6: the same command again, for example by a person who saw no answer.
#[tokio::test(flavor = "multi_thread")]
async fn a6_a_command_that_repeats_a_pending_request_makes_no_second_one() {
    let team = Team::bound().await;
    let first = team.requested().await;
    for _ in 0..3 {
        let again = team
            .type_command(ALICE, &format!("request {ACCOUNT} admin 2h other words"))
            .await;
        assert!(again.contains("You have asked for this already"), "{again}");
        assert!(again.contains(&format!("/jit cancel {first}")), "{again}");
    }
    let all = async || {
        let path = format!("/requests?account_id={ACCOUNT}");
        let all = team.caller.get(&path).await.is(200);
        all["items"].as_array().unwrap().len()
    };
    assert_eq!(all().await, 1);
    // Another set and another person are other requests, and after a decision the same is new.
    for (who, text) in [
        (ALICE, format!("request {ACCOUNT} readonly 1h x")),
        (MALLORY, format!("request {ACCOUNT} admin 1h x")),
        (ALICE, format!("cancel {first}")),
        (ALICE, format!("request {ACCOUNT} admin 1h x")),
    ] {
        team.type_command(who, &text).await;
    }
    assert_eq!(all().await, 4);
}
