//! The direct messages to the approvers and to the requester.

use crate::common::chat::direct;
use crate::common::{Answer, Channel, Setup};
use crate::server::{ACCOUNT, ADA, ALICE, BOB, MALLORY, Mattermost, Post, Team};

/// Binds the account with two approvers.
async fn with_two_approvers(mattermost: Mattermost, more: &str) -> Team {
    let config = format!("{}{more}", mattermost.config());
    let team = Team::on(mattermost, &config);
    team.type_command(ADA, &format!("bind {ACCOUNT}")).await;
    team.type_command(ADA, "approvers @bob @mallory").await;
    team
}

/// Waits for a message with these words to a user.
async fn told(team: &Team, who: &str, words: &str) -> Post {
    let sent = |mattermost: &Mattermost| {
        let sent = mattermost.sent(who);
        sent.into_iter().find(|post| post.message.contains(words))
    };
    team.mattermost.until(sent).await
}

// N2
#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_an_approver_that_is_answered_429_comes_later_and_each_comes_once() {
    let team = with_two_approvers(Mattermost::open().await, "").await;
    team.mattermost.limits_posts(&direct(BOB), 2);
    let id = team.requested().await;
    told(&team, BOB, "asks for").await;
    told(&team, MALLORY, "asks for").await;
    let rested = team.mattermost.rested().unwrap();
    assert!(
        rested >= std::time::Duration::from_millis(900),
        "jit sent the next call after {rested:?}"
    );
    // jit tells each receiver in order: after this message, it repeats none of the first notice.
    team.type_command(BOB, &format!("deny {id}")).await;
    told(&team, ALICE, "denied by").await;
    for approver in [BOB, MALLORY] {
        assert_eq!(team.mattermost.sent(approver).len(), 1, "{approver}");
    }
}

// N2: an approver was asked to decide what was decided already.
#[tokio::test(flavor = "multi_thread")]
async fn an_approver_gets_no_message_about_a_request_that_is_decided() {
    let team = Team::bound().await;
    team.mattermost.refuses(Some(500));
    let id = team.requested().await;
    team.jit.comes_to_log("notice not received").await;
    team.type_command(BOB, &format!("deny {id}")).await;
    team.mattermost.refuses(None);
    // jit tells the notices in order, so the first one is told before this one.
    told(&team, ALICE, "denied by").await;
    assert_eq!(team.mattermost.sent(BOB).len(), 0);
    team.mattermost.card("DENIED", &[]).await;
}

// N2
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_jit_sends_no_message_again_that_was_posted() {
    let team = with_two_approvers(Mattermost::open().await, "").await;
    // The answer is lost, as if jit had been killed before it came.
    team.mattermost.loses_answers_in(&direct(BOB), 1);
    team.mattermost.limits_posts(&direct(MALLORY), 1);
    let id = team.requested().await;
    told(&team, BOB, "asks for").await;
    team.jit.comes_to_log("notice not received").await;
    // For the first 400 milliseconds, jit relies on the server to recognise a repeated post.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let team = team.restarted(|_| {});
    told(&team, MALLORY, "asks for").await;
    team.type_command(BOB, &format!("deny {id}")).await;
    told(&team, ALICE, "denied by").await;
    for approver in [BOB, MALLORY] {
        assert_eq!(team.mattermost.sent(approver).len(), 1, "{approver}");
    }
}

// N2
#[tokio::test(flavor = "multi_thread")]
async fn the_requester_is_told_the_grant_and_the_end_in_order() {
    let team = Team::bound().await;
    let id = team.requested().await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    team.presses(BOB, &card, "approve").await;
    let granted = told(&team, ALICE, "access granted until").await;
    let link = format!("_redirect/pl/{}", card.id);
    assert!(
        granted.message.contains(&link) && granted.message.contains(&format!("`{id}`")),
        "{granted:?}"
    );
    team.type_command(BOB, &format!("revoke {id} laptop stolen"))
        .await;
    told(&team, ALICE, "revoked by").await;
    let sent = team.mattermost.sent(ALICE);
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(sent[0].id, granted.id);
    let end = &sent[1].message;
    assert!(end.contains(": laptop stolen. AWS shows"), "{end}");
}

/// N2: what an unbind ends, its requester learns with the cause.
#[tokio::test(flavor = "multi_thread")]
async fn a_requester_is_told_that_an_unbind_ended_the_request() {
    let team = Team::bound().await;
    team.requested().await;
    team.mattermost.card("PENDING", &["approve", "deny"]).await;
    team.type_command(ADA, &format!("unbind {ACCOUNT}")).await;
    let cancelled = told(&team, ALICE, "the request was cancelled by ada@").await;
    let why = ": the account was unbound from the channel";
    assert!(cancelled.message.contains(why), "{cancelled:?}");
}

// N2
#[tokio::test(flavor = "multi_thread")]
async fn without_tell_requester_only_the_approvers_get_messages() {
    let more = "tell_requester = false\nremind_before = \"3599s\"\n";
    let team = with_two_approvers(Mattermost::open().await, more).await;
    team.requested().await;
    told(&team, BOB, "asks for").await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    team.presses(BOB, &card, "approve").await;
    // The reminder is no message about the decision; it is told after the grant.
    told(&team, ALICE, "access ends at").await;
    assert_eq!(team.mattermost.sent(ALICE).len(), 1);
}

// N2: a card waited up to 10 seconds for a webhook that did not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_hangs_delays_no_card_and_no_message() {
    let channel = Channel::open().await;
    let setup = Setup {
        webhook: Some(channel.url.clone()),
        ..Setup::default()
    };
    let team = Team::bound_with(setup).await;
    channel.answers(Answer::Hangs);
    let id = team.requested().await;
    team.type_command(BOB, &format!("approve {id}")).await;
    team.mattermost.card("GRANTED", &["revoke"]).await;
    channel.is_called(1).await;
    team.type_command(BOB, &format!("revoke {id}")).await;
    team.mattermost.card("REVOKED", &[]).await;
    told(&team, ALICE, "revoked by").await;
    assert_eq!(channel.calls(), 1, "the webhook does not hang any more");
}
