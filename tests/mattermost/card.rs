//! Each request has one card, which shows its state.

use serde_json::Value;

use crate::common::{Channel, Setup};
use crate::server::{ACCOUNT, ALICE, BOB, CHANNEL, MALLORY, Mattermost, Post, Team, id_in};

fn shows(word: &str) -> impl Fn(&[Post]) -> bool + '_ {
    move |posts| {
        posts
            .last()
            .is_some_and(|post| post.title().starts_with(word))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_shows_each_status_of_its_request() {
    let team = Team::bound().await;
    let asked = team
        .type_command(
            ALICE,
            &format!("request {ACCOUNT} admin 2h INC-42 @all see | this"),
        )
        .await;
    let id = id_in(&asked);
    let posts = team.mattermost.shows(shows("PENDING")).await;
    assert_eq!(posts[0].channel_id, CHANNEL);
    // W10: the search of Mattermost finds only the message of a post.
    let message = format!("`{id}` · PENDING · admin in `{ACCOUNT}`");
    assert_eq!(posts[0].message, message);
    let fields = posts[0].fields();
    assert_eq!(fields["Access"], format!("admin in `{ACCOUNT}`"));
    assert_eq!(fields["Duration"], "120 minutes");
    assert!(
        !fields["Reason"].contains("@all") && !fields["Reason"].contains(" | "),
        "{fields:?}"
    );
    assert_eq!(posts[0].user_id, crate::server::BOT);
    // jit does not ask for a decision that is made already, so bob decides after the message.
    let asked = |mattermost: &Mattermost| mattermost.sent(BOB).pop();
    team.mattermost.until(asked).await;
    team.type_command(BOB, &format!("approve {id}")).await;
    let posts = team.mattermost.shows(shows("GRANTED")).await;
    assert!(
        posts[0].fields()["Approved by"].contains("bob"),
        "{posts:?}"
    );
    team.type_command(BOB, &format!("revoke {id} incident 7"))
        .await;
    let posts = team.mattermost.shows(shows("REVOKED")).await;
    let fields = posts[0].fields();
    assert!(fields["Revoked by"].contains("bob"), "{fields:?}");
    assert_eq!(fields["Revoke reason"], "incident 7");
    assert_eq!(posts.len(), 1, "one card, changed in place");
    has_its_history(&team, &posts[0]).await;
    has_its_messages(&team, &posts[0]).await;
    // The record has the id of the card. The history has no event for it.
    let kinds = team.caller.kinds(&team.newest().await).await;
    assert_eq!(
        kinds,
        [
            "REQUESTED",
            "APPROVED",
            "ASSIGNING",
            "GRANTED",
            "REVOKE_REQUESTED",
            "REVOKED"
        ]
    );
}

/// The thread of the card has the history. It mentions the requester from the grant on.
async fn has_its_history(team: &Team, card: &Post) {
    let history = [
        "Approved by bob",
        "@alice – access granted until",
        "@alice – bob",
        "@alice – revoked by bob",
    ];
    team.mattermost
        .until(|mattermost| {
            let thread = mattermost.thread(&card.id);
            (thread.len() >= history.len()).then(|| {
                for (line, wanted) in thread.iter().zip(history) {
                    assert!(line.starts_with(wanted), "{thread:?}");
                }
                assert_eq!(thread.len(), history.len(), "{thread:?}");
            })
        })
        .await;
}

/// The approver gets a direct message, with a link to the card; the requester gets one about
/// the grant and one about the end.
async fn has_its_messages(team: &Team, card: &Post) {
    let sent = team.mattermost.sent(BOB);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(
        sent[0]
            .message
            .contains(&format!("/_redirect/pl/{}", card.id)),
        "{sent:?}"
    );
    assert!(!sent[0].message.contains("@all"), "{sent:?}");
    let told = |mattermost: &Mattermost| {
        let sent = mattermost.sent(ALICE);
        (sent.len() > 1).then_some(sent)
    };
    assert_eq!(team.mattermost.until(told).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_its_own_card() {
    let team = Team::bound().await;
    team.requested().await;
    team.mattermost.shows(shows("PENDING")).await;
    let other = team
        .type_command(MALLORY, &format!("request {ACCOUNT} readonly 1h mine"))
        .await;
    team.type_command(BOB, &format!("deny {} use less", id_in(&other)))
        .await;
    let posts = team.mattermost.shows(shows("DENIED")).await;
    assert_eq!(
        (posts.len(), posts[1].fields()["Deny reason"].as_str()),
        (2, "use less")
    );
    assert_eq!(
        posts[1].fields()["Ended by"],
        "bob@\u{200b}example.com (@\u{200b}bob)"
    );
}

/// While Mattermost is down, jit grants access without delay. It posts the card afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_mattermost_delays_no_request_and_gets_its_card_later() {
    let team = Team::bound().await;
    team.mattermost.refuses(Some(500));
    let id = team.requested().await;
    team.type_command(BOB, &format!("approve {id}")).await;
    team.caller.until(&team.newest().await, "GRANTED").await;
    assert!(team.mattermost.cards().is_empty());
    team.mattermost.refuses(None);
    let posts = team.mattermost.shows(shows("GRANTED")).await;
    assert_eq!(posts.len(), 1);
}

/// After a user deleted the card, the request continues without a card.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_continues_after_its_card_was_deleted() {
    let team = Team::bound().await;
    let id = team.requested().await;
    team.mattermost.shows(shows("PENDING")).await;
    team.mattermost.refuses(Some(403));
    team.type_command(BOB, &format!("deny {id}")).await;
    team.jit
        .comes_to_log("post not changed in Mattermost")
        .await;
    let begun = std::time::Instant::now();
    loop {
        let metrics = team.caller.metrics().await.text;
        if metrics.contains("jit_undelivered_notices 0") {
            break;
        }
        assert!(begun.elapsed() < crate::common::TIMEOUT, "{metrics}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// With Mattermost configured, the webhook gets the same notices as without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_beside_mattermost_gets_the_same_notices() {
    let channel = Channel::open().await;
    let webhook = Some(channel.url.clone());
    let team = Team::bound_with(Setup {
        webhook,
        more: "remind_before = \"3599s\"".into(),
        ..Setup::default()
    })
    .await;
    let id = team.requested().await;
    team.type_command(BOB, &format!("approve {id}")).await;
    team.mattermost.shows(shows("GRANTED")).await;
    // Only the requester gets the reminder of the end; the webhook gets none.
    let reminded = |mattermost: &Mattermost| mattermost.sent(ALICE).pop();
    team.mattermost.until(reminded).await;
    team.type_command(BOB, &format!("revoke {id}")).await;
    team.mattermost.shows(shows("REVOKED")).await;
    let heard: Vec<Value> = channel
        .wait_for(2)
        .await
        .iter()
        .map(|one| one.json()["status"].clone())
        .collect();
    assert_eq!(heard, ["GRANTED", "REVOKED"]);
}
