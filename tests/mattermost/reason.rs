//! W11: denials and revokes with a reason, from the buttons that open a dialog. The buttons Deny
//! and Revoke act at once.

use serde_json::{Value, json};

use crate::common::{Channel, Setup};
use crate::server::{
    ADA, ALICE, BOB, CHANNEL, MALLORY, Mattermost, Post, TEAM, Team, click_answer, now, trigger,
};

const DIALOG: &str = "/mattermost/dialog";
const DENY: &str = "denywithreason";
const REVOKE: &str = "revokewithreason";

async fn pending(team: &Team) -> Post {
    team.requested().await;
    team.mattermost.card("PENDING", &["approve", "deny"]).await
}

async fn granted(team: &Team) -> Post {
    let card = pending(team).await;
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
    team.mattermost.card("GRANTED", &["revoke"]).await
}

/// Presses a button that opens a dialog, and returns the dialog.
async fn opened(team: &Team, who: &str, card: &Post, button: &str) -> Value {
    let many = team.mattermost.dialogs().len();
    assert_eq!(team.presses(who, card, button).await, "");
    let dialogs = team.mattermost.dialogs();
    assert_eq!(dialogs.len(), many + 1);
    dialogs.last().unwrap().clone()
}

/// The submission of a dialog, as 07c shows it.
fn filled(dialog: &Value, who: &str, reason: &str) -> Value {
    json!({
        "type": "dialog_submission", "callback_id": dialog["dialog"]["callback_id"],
        "state": dialog["dialog"]["state"], "user_id": who, "channel_id": CHANNEL,
        "team_id": TEAM, "submission": {"reason": reason}, "cancelled": false,
    })
}

/// Submits a dialog; returns the error that it shows, or nothing when it closes.
async fn submitted(team: &Team, dialog: &Value, who: &str, reason: &str) -> String {
    let reply = team.sends(DIALOG, &filled(dialog, who, reason)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    match reply.json() {
        closed if closed == json!({}) => String::new(),
        answer => answer["error"].as_str().expect("an error").to_owned(),
    }
}

async fn event(team: &Team, kind: &str) -> Value {
    let mut events = team.caller.audit(&team.newest().await).await;
    events.retain(|event| event["event_type"] == kind);
    assert_eq!(events.len(), 1, "{kind}: {events:?}");
    events.remove(0)
}

async fn thread_says(team: &Team, card: &Post, words: &str) {
    let says = |mattermost: &Mattermost| {
        let thread = mattermost.thread(&card.id);
        thread.into_iter().find(|line| line.contains(words))
    };
    team.mattermost.until(says).await;
}

/// The reason reaches the record, the audit, the card, its thread and the webhook.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_with_a_reason_tells_it_everywhere() {
    let channel = Channel::open().await;
    let team = Team::bound_with(Setup {
        webhook: Some(channel.url.clone()),
        ..Setup::default()
    })
    .await;
    let card = pending(&team).await;
    assert_eq!(card.reason_buttons(), [DENY]);
    let dialog = opened(&team, BOB, &card, DENY).await;
    assert_eq!(dialog["url"], "http://jit.example.com/mattermost/dialog");
    assert_eq!(dialog["user_id"], BOB);
    let shown = &dialog["dialog"];
    // Mattermost shows at most 24 characters of a title.
    assert_eq!(shown["title"], "Deny the request");
    // W6: an address alone does not say who asks, because users can change it.
    let about = shown["introduction_text"].as_str().unwrap();
    assert!(about.contains("(@\u{200b}alice)"), "{about}");
    assert_eq!(shown["elements"].as_array().unwrap().len(), 1);
    // The press alone denies nothing.
    let request = team.caller.show(&team.newest().await).await;
    assert_eq!(request["status"], "PENDING");
    let mut given_up = filled(&dialog, BOB, "no");
    given_up["cancelled"] = true.into();
    given_up["submission"] = Value::Null;
    assert_eq!(team.sends(DIALOG, &given_up).await.text, "{}");
    assert_eq!(submitted(&team, &dialog, BOB, "ask carol @all").await, "");
    let card = team.mattermost.card("DENIED", &[]).await;
    assert!(card.reason_buttons().is_empty(), "{card:?}");
    let said = &card.fields()["Deny reason"];
    assert!(
        said.contains("ask carol") && !said.contains("@all"),
        "{said}"
    );
    thread_says(&team, &card, "denied by").await;
    thread_says(&team, &card, "ask carol").await;
    let request = team.caller.show(&team.newest().await).await;
    assert_eq!(request["deny_reason"], "ask carol @all");
    let denied = event(&team, "DENIED").await;
    assert_eq!(denied["details"]["reason"], "ask carol @all");
    assert_eq!(denied["actor_mm_user_id"], BOB);
    let is_denial = |text: &str| text.contains("DENIED") && text.contains("ask carol");
    channel
        .wait_until(|heard| {
            let mut texts = heard.iter().map(|one| String::from_utf8_lossy(&one.body));
            texts.any(|text| is_denial(&text))
        })
        .await;
    // The dialog is submitted again after the request is over.
    let again = submitted(&team, &dialog, BOB, "twice").await;
    assert!(again.contains("nothing was changed"), "{again}");
    assert!(again.contains("DENIED"), "{again}");
    assert_eq!(event(&team, "DENIED").await, denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_with_a_reason_tells_it_and_a_late_dialog_says_that_it_is_late() {
    let team = Team::bound().await;
    let card = granted(&team).await;
    assert_eq!(card.reason_buttons(), [REVOKE]);
    let late = opened(&team, ALICE, &card, REVOKE).await;
    let dialog = opened(&team, BOB, &card, REVOKE).await;
    let request = team.caller.show(&team.newest().await).await;
    assert_eq!(request["status"], "GRANTED", "the press revoked");
    assert_eq!(submitted(&team, &dialog, BOB, "laptop stolen").await, "");
    let card = team.mattermost.card("REVOKED", &[]).await;
    assert_eq!(card.fields()["Revoke reason"], "laptop stolen");
    thread_says(&team, &card, "revokes the access: laptop stolen").await;
    let asked = event(&team, "REVOKE_REQUESTED").await;
    assert_eq!(asked["details"]["reason"], "laptop stolen");
    assert_eq!(asked["actor_mm_user_id"], BOB);
    let said = submitted(&team, &late, ALICE, "done").await;
    assert!(said.contains("REVOKED"), "{said}");
    assert_eq!(event(&team, "REVOKE_REQUESTED").await, asked);
}

/// An incident must not wait for a dialog.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_press_acts_at_once_and_an_empty_reason_acts_without_one() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    assert_eq!(team.presses(BOB, &card, "deny").await, "");
    let card = team.mattermost.card("DENIED", &[]).await;
    assert!(!card.fields().contains_key("Deny reason"), "{card:?}");
    let card = granted(&team).await;
    let gone = team.presses(BOB, &card, "revoke").await;
    assert!(gone.starts_with("Revoked:"), "{gone}");
    assert!(team.mattermost.dialogs().is_empty());
    let card = granted(&team).await;
    let dialog = opened(&team, BOB, &card, REVOKE).await;
    let long = filled(&dialog, BOB, &"x".repeat(2_000));
    let errors = team.sends(DIALOG, &long).await.json()["errors"].clone();
    assert!(errors["reason"].is_string(), "{errors}");
    assert_eq!(submitted(&team, &dialog, BOB, "  ").await, "");
    let card = team.mattermost.card("REVOKED", &[]).await;
    assert!(!card.fields().contains_key("Revoke reason"), "{card:?}");
    let asked = event(&team, "REVOKE_REQUESTED").await;
    assert_eq!(asked["details"].get("reason"), None, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_may_not_act_is_refused_in_the_dialog() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    for who in [MALLORY, ALICE] {
        let dialog = opened(&team, who, &card, DENY).await;
        let said = submitted(&team, &dialog, who, "no").await;
        assert!(said.contains("not an approver"), "{said}");
    }
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
    let card = team.mattermost.card("GRANTED", &["revoke"]).await;
    let dialog = opened(&team, MALLORY, &card, REVOKE).await;
    let said = submitted(&team, &dialog, MALLORY, "no").await;
    assert!(said.contains("only the requester, the approvers"), "{said}");
    // The rules at the time of the submission count.
    let dialog = opened(&team, BOB, &card, REVOKE).await;
    team.type_command(ADA, "approvers @mallory").await;
    let said = submitted(&team, &dialog, BOB, "late").await;
    assert!(said.contains("only the requester, the approvers"), "{said}");
    let request = team.caller.show(&team.newest().await).await;
    assert_eq!(request["status"], "GRANTED");
}

/// 6, M2: the user can change all of a submission; the seal covers the person, the place, the
/// request and the step.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_submission_of_a_reason_is_refused_and_audited() {
    let team = Team::bound().await;
    let card = granted(&team).await;
    let dialog = opened(&team, MALLORY, &card, REVOKE).await;
    let genuine = filled(&dialog, MALLORY, "x");
    let altered = |change: &dyn Fn(&mut Value)| {
        let mut sent = genuine.clone();
        change(&mut sent);
        sent
    };
    let with_state = |change: &dyn Fn(&mut Value)| {
        let mut state: Value = serde_json::from_str(genuine["state"].as_str().unwrap()).unwrap();
        change(&mut state);
        altered(&|sent| sent["state"] = state.to_string().into())
    };
    let forgeries = [
        altered(&|sent| sent["user_id"] = BOB.into()),
        with_state(&|state| state["reason_of"]["step"] = "deny".into()),
        with_state(&|state| state["reason_of"]["subject"] = "request".into()),
        with_state(&|state| {
            state["reason_of"]["request_id"] = "01a1fd36-48a0-7000-8000-000000000001".into();
        }),
        with_state(&|state| state["reason_of"]["step"] = "approve".into()),
        with_state(&|state| state["reason_of"] = Value::Null),
        with_state(&|state| state["until"] = "9999999999999".into()),
    ];
    for forged in &forgeries {
        let reply = team.sends(DIALOG, forged).await;
        assert_eq!(reply.status, 401, "{forged} {reply:?}");
    }
    assert_eq!(team.forgeries(forgeries.len()).await.len(), forgeries.len());
    let request = team.caller.show(&team.newest().await).await;
    assert_eq!(request["status"], "GRANTED");
}

/// The approver saw the request, and not the extension that waits now.
#[tokio::test(flavor = "multi_thread")]
async fn the_dialog_of_a_request_denies_no_later_extension() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let before = opened(&team, BOB, &card, DENY).await;
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let id = team.newest().await;
    team.type_command(ALICE, &format!("extend {id} 30m")).await;
    let asked = ["approve", "deny", "revoke"];
    let card = team.mattermost.card("GRANTED", &asked).await;
    assert_eq!(card.reason_buttons(), [DENY, REVOKE]);
    let said = submitted(&team, &before, BOB, "no").await;
    assert!(said.contains("nothing was changed"), "{said}");
    let dialog = opened(&team, BOB, &card, DENY).await;
    assert_eq!(dialog["dialog"]["title"], "Deny the extension");
    assert_eq!(submitted(&team, &dialog, BOB, "too long").await, "");
    let card = team.mattermost.card("GRANTED", &["revoke"]).await;
    thread_says(&team, &card, "too long").await;
    let denied = event(&team, "EXTENSION_DENIED").await;
    assert_eq!(denied["details"]["reason"], "too long");
    // Another extension is another question.
    team.type_command(ALICE, &format!("extend {id} 15m")).await;
    team.mattermost.card("GRANTED", &asked).await;
    let said = submitted(&team, &dialog, BOB, "again").await;
    assert!(said.contains("nothing was changed"), "{said}");
}

/// 7a: Mattermost opens no dialog for a trigger that is older than three seconds. jit accepts the
/// click for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_dialog_the_answer_names_the_command_and_the_plain_button() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let mut click = team.mattermost.click(&card, DENY, BOB);
    click["trigger_id"] = trigger(BOB, now() - 4_000).into();
    let said = click_answer(&team.sends("/mattermost/action", &click).await);
    let id = &team.newest().await[..13];
    let command = format!("deny {id} REASON");
    assert!(said.contains(&format!("`/jit {command}`")), "{said}");
    assert!(team.mattermost.dialogs().is_empty());
    let heard = team.type_command(BOB, &command).await;
    assert!(heard.contains("DENIED"), "{heard}");
    // The button of an old card: the request is over.
    let said = team.presses(BOB, &card, DENY).await;
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(team.mattermost.dialogs().is_empty());
}
