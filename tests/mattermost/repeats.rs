//! Commands that ask for what is asked for already.

use crate::server::{ACCOUNT, ALICE, BOB, MALLORY, Team};

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

/// H4: the beginning of an id was compared with the newest 600 requests only, so that an older
/// live grant could not be revoked by it.
#[tokio::test(flavor = "multi_thread")]
async fn h4_the_beginning_of_an_id_finds_an_old_grant_among_many_newer_requests() {
    let team = Team::bound().await;
    let short = team.requested().await;
    let granted = team.newest().await;
    team.type_command(BOB, &format!("approve {short}")).await;
    team.caller.until(&granted, "GRANTED").await;
    let ended = team.requested().await;
    let ended_id = team.newest().await;
    team.type_command(ALICE, &format!("cancel {ended}")).await;
    let db = rusqlite::Connection::open(team.jit.database()).unwrap();
    let copies = "WITH RECURSIVE copy (number) AS
           (SELECT 1 UNION ALL SELECT number + 1 FROM copy WHERE number < 700),
         named AS (SELECT printf('03b3d512-ac00-7000-8000-%012x', number) AS id FROM copy)
         INSERT INTO jit_requests
           (request_id, account_id, channel_id, requester_email, created_at, status, revoked_at,
            revision, doc, written_status, written_lane)
         SELECT named.id, account_id, channel_id, requester_email, '2099-01-01T00:00:00.000Z',
           status, revoked_at, revision,
           json_set(doc, '$.id', named.id, '$.created_at', '2099-01-01T00:00:00.000Z'),
           written_status, written_lane
         FROM jit_requests, named WHERE request_id = ?1";
    assert_eq!(db.execute(copies, [&ended_id]), Ok(700));
    for who in [ALICE, BOB] {
        let said = team.type_command(who, &format!("status {short}")).await;
        assert!(said.contains("GRANTED"), "{said}");
    }
    // Of these there are more than jit compares.
    let many = team.type_command(ALICE, "status 03b3").await;
    assert!(many.contains("type more characters of the id"), "{many}");
    let revoked = team.type_command(BOB, &format!("revoke {short}")).await;
    assert!(!revoked.contains("no request"), "{revoked}");
    team.caller.until(&granted, "REVOKED").await;
}
