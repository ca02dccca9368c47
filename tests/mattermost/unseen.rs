//! The access on a card, and buttons of a card that shows something else than the decision that
//! waits now.

use serde_json::{Value, json};

use crate::common::Setup;
use crate::common::wall_clock::WallClock;
use crate::server::{
    ACCOUNT, ADA, ALICE, BOB, BOT_TOKEN, CHANNEL, MALLORY, Mattermost, Post, Team, click_answer,
    id_in, now, sealed, trigger,
};

const ASKED: [&str; 3] = ["approve", "deny", "revoke"];

/// A team with two approvers, and the card of access that is GRANTED.
async fn granted() -> (Team, String) {
    let team = Team::bound().await;
    team.type_command(ADA, "approvers @bob @mallory").await;
    let id = team.requested().await;
    team.type_command(BOB, &format!("approve {id}")).await;
    team.mattermost.card("GRANTED", &["revoke"]).await;
    (team, id)
}

async fn asks_for(team: &Team, id: &str, time: &str, field: &str) -> Post {
    team.type_command(ALICE, &format!("extend {id} {time}"))
        .await;
    let is_it = |card: &Post| {
        card.buttons() == ASKED
            && card.fields().get("Extension requested").map(String::as_str) == Some(field)
    };
    team.mattermost
        .until(|mattermost| mattermost.cards().pop().filter(is_it))
        .await
}

async fn end_of(team: &Team) -> Value {
    team.caller.show(&team.newest().await).await["end_time"].clone()
}

/// W15: an approver pressed "Approve 30 more minutes" on a card that was not updated yet, and
/// approved three hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_button_decides_only_on_the_extension_that_its_card_shows() {
    let (team, id) = granted().await;
    let ended = end_of(&team).await;
    let old = asks_for(&team, &id, "30m", "30 minutes").await;
    team.type_command(MALLORY, &format!("deny {id}")).await;
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let new = asks_for(&team, &id, "3h", "180 minutes").await;
    for button in ["approve", "deny"] {
        let versions = team.mattermost.cards().pop().unwrap().props.len();
        let said = team.presses(BOB, &old, button).await;
        for words in [
            "nothing was changed",
            "an extension of 180 minutes",
            "renewed",
        ] {
            assert!(said.contains(words), "{button}: {said}");
        }
        assert!(team.mattermost.cards().pop().unwrap().props.len() > versions);
        assert_eq!(end_of(&team).await, ended, "{button}");
    }
    // It is no forgery, and the user who pressed it may press the renewed card.
    let kinds = team.caller.kinds(&team.newest().await).await;
    let denied = kinds.iter().filter(|kind| *kind == "EXTENSION_DENIED");
    assert_eq!(denied.count(), 1, "{kinds:?}");
    assert_eq!(team.presses(BOB, &new, "approve").await, "");
    team.mattermost.card("GRANTED", &["revoke"]).await;
    assert_ne!(end_of(&team).await, ended);
}

/// W15: the button of a request that waited approves no extension.
#[tokio::test(flavor = "multi_thread")]
async fn the_button_of_a_request_decides_on_no_extension() {
    let team = Team::bound().await;
    let id = team.requested().await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let ended = end_of(&team).await;
    asks_for(&team, &id, "30m", "30 minutes").await;
    let said = team.presses(BOB, &card, "approve").await;
    assert!(said.contains("an extension of 30 minutes"), "{said}");
    assert_eq!(end_of(&team).await, ended);
}

/// W15: the buttons of an earlier version of jit have no subject. jit accepts them for a request
/// that waits, and not for an extension, because the seal does not say for which one.
#[tokio::test(flavor = "multi_thread")]
async fn a_button_of_an_earlier_version_decides_on_a_request_and_not_on_an_extension() {
    let team = Team::bound().await;
    let id = team.requested().await;
    let earlier = |card: &Post| {
        let mut click = team.mattermost.click(card, "approve", BOB);
        let context = click["context"].as_object_mut().unwrap();
        context.remove("subject");
        let field = |name: &str| context[name].as_str().unwrap().to_owned();
        let (request, until) = (field("request_id"), field("until"));
        let text = format!(
            "button\n{request}\n{CHANNEL}\n{}\napprove\n{until}",
            card.id
        );
        click["context"]["seal"] = sealed(&text).into();
        click
    };
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    let said = click_answer(&team.sends("/mattermost/action", &earlier(&card)).await);
    assert_eq!(said, "");
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let ended = end_of(&team).await;
    let card = asks_for(&team, &id, "30m", "30 minutes").await;
    let said = click_answer(&team.sends("/mattermost/action", &earlier(&card)).await);
    assert!(said.contains("jit has renewed the card"), "{said}");
    assert_eq!(end_of(&team).await, ended);
    let card = team.mattermost.card("GRANTED", &ASKED).await;
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
}

/// W14: the first of two grants with one assignment ended, and its card and its thread said that
/// the access is gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_one_of_two_grants_does_not_say_that_the_access_is_gone() {
    let clock = WallClock::new();
    let team = Team::bound_with(Setup {
        variables: clock.variables(),
        ..Setup::default()
    })
    .await;
    for (place, time) in ["1h", "3h"].into_iter().enumerate() {
        let asked = format!("request {ACCOUNT} admin {time} x");
        let id = id_in(&team.type_command(ALICE, &asked).await);
        team.type_command(BOB, &format!("approve {id}")).await;
        let granted = move |mattermost: &Mattermost| {
            let card = mattermost.cards().into_iter().nth(place)?;
            card.title().starts_with("GRANTED").then_some(())
        };
        team.mattermost.until(granted).await;
    }
    let text = |card: &Post| card.props.last().unwrap()["attachments"][0]["text"].to_string();
    let ended = |place: usize| {
        move |mattermost: &Mattermost| {
            let card = mattermost.cards().remove(place);
            let thread = mattermost.thread(&card.id);
            let line = thread
                .into_iter()
                .find(|line| line.starts_with("Expired."))?;
            Some((card, line)).filter(|(card, _)| card.title().starts_with("EXPIRED"))
        }
    };
    clock.set(2 * 60 * 60);
    let (first, line) = team.mattermost.until(ended(0)).await;
    assert_eq!(
        line,
        "Expired. Another request of the same person still has this access."
    );
    assert!(
        text(&first).contains("another request of the same person had the same access"),
        "{first:?}"
    );
    let told = |mattermost: &Mattermost| {
        let mut sent = mattermost.sent(ALICE).into_iter();
        sent.find(|post| post.message.contains("Another request of the same person"))
    };
    team.mattermost.until(told).await;
    clock.set(4 * 60 * 60);
    let (second, line) = team.mattermost.until(ended(1)).await;
    assert_eq!(line, "Expired. AWS shows that the access is gone.");
    assert!(text(&second).contains("Expired: AWS shows"), "{second:?}");
}

/// W14: the answer said that AWS shows that the access is gone. AWS was not asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_revoke_of_a_request_that_has_not_begun_says_nothing_of_aws() {
    let team = Team::bound().await;
    let start = jit::domain::Timestamp::from_seconds(now() / 1000 + 3600);
    let asked = json!({
        "account_id": ACCOUNT, "channel_id": CHANNEL, "requester_mm_user_id": ALICE,
        "permission_set": "admin", "start_at": start.to_string(),
    });
    let id = team.caller.request_with(asked).await;
    team.type_command(BOB, &format!("approve {id}")).await;
    let said = team.type_command(BOB, &format!("revoke {id}")).await;
    assert!(said.contains("Revoked: no access was granted."), "{said}");
    assert!(!said.contains("AWS shows"), "{said}");
}

/// The log line of a forgery names the request of the card.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_line_of_a_forged_click_has_the_id_of_its_request() {
    let team = Team::bound().await;
    team.requested().await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    let mut click = team.mattermost.click(&card, "approve", BOB);
    click["context"]["seal"] = "0".repeat(64).into();
    click["trigger_id"] = trigger(BOB, now()).into();
    let said = click_answer(&team.sends("/mattermost/action", &click).await);
    let wanted = "This card was changed, or its buttons are from an earlier bot token;";
    assert!(said.contains(wanted), "{said}");
    let (log, id) = (team.jit.log(), team.newest().await);
    let line = log
        .lines()
        .find(|line| line.contains("click or dialog refused as forged"));
    assert!(line.unwrap().contains(&id), "{log}");
    assert!(!log.contains(BOT_TOKEN));
}
