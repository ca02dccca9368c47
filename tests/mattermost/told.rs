//! The messages of jit and their receivers, also when Mattermost is slow or answers 429.

use std::time::Duration;

use crate::common::chat::direct;
use crate::server::{ACCOUNT, ADA, ALICE, BOB, CHANNEL, Mattermost, Post, Team};

async fn reminded(team: &Team) -> Post {
    let is_it = |post: &Post| post.buttons() == ["extend30", "extend60"];
    team.mattermost
        .until(|mattermost| mattermost.sent(ALICE).pop().filter(is_it))
        .await
}

async fn with_a_reminder() -> (Team, Post) {
    with_a_reminder_by(Mattermost::open().await).await
}

async fn with_a_reminder_by(mattermost: Mattermost) -> (Team, Post) {
    let more = "remind_before = \"59s\"\ntell_requester = false\n";
    let config = format!("{}{more}", mattermost.config());
    let team = Team::on(mattermost, &config);
    team.type_command(ADA, &format!("bind {ACCOUNT}")).await;
    team.type_command(ADA, "approvers @bob").await;
    team.type_command(ALICE, &format!("request {ACCOUNT} admin 1m x"))
        .await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    team.presses(BOB, &card, "approve").await;
    let reminder = reminded(&team).await;
    (team, reminder)
}

/// The requester gets a reminder before the access ends, with buttons for an extension.
#[tokio::test(flavor = "multi_thread")]
async fn the_requester_is_reminded_before_the_access_ends() {
    let (team, reminder) = with_a_reminder().await;
    assert!(reminder.message.contains("ends at"), "{reminder:?}");
    // Only the requester may ask for an extension: jit refuses the click of another user.
    let other = team.presses(BOB, &reminder, "extend30").await;
    assert!(other.contains(":warning:"), "{other}");
    assert_eq!(team.presses(ALICE, &reminder, "extend30").await, "");
    let card = team
        .mattermost
        .card("GRANTED", &["approve", "deny", "revoke"])
        .await;
    assert_eq!(card.fields()["Extension requested"], "30 minutes");
    // After the click, the reminder has no buttons.
    let settled = |post: &Post| post.buttons().is_empty() && post.message.contains("asked for");
    team.mattermost
        .until(|mattermost| mattermost.sent(ALICE).pop().filter(settled))
        .await;
    team.presses(BOB, &card, "approve").await;
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let kinds = team.caller.kinds(&team.newest().await).await;
    for kind in ["END_ANNOUNCED", "EXTENSION_REQUESTED", "EXTENDED"] {
        assert_eq!(
            kinds.iter().filter(|one| *one == kind).count(),
            1,
            "{kinds:?}"
        );
    }
}

/// If the change of a new reminder fails, jit repeats the change and does not post the reminder
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_reminder_is_posted_once() {
    let mattermost = Mattermost::open().await;
    mattermost.fails_changes(&direct(ALICE), 2);
    let (team, reminder) = with_a_reminder_by(mattermost).await;
    assert_eq!(
        reminder.props.len(),
        2,
        "one post and one change: {reminder:?}"
    );
    assert_eq!(team.mattermost.sent(ALICE).len(), 1);
}

/// For a new end time, jit posts another reminder: Mattermost notifies no user of a changed post.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_end_time_makes_another_reminder() {
    let (team, first) = with_a_reminder().await;
    let team = team.restarted(|folder| {
        let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
        let sql = "SELECT doc FROM jit_requests";
        let doc: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&doc).unwrap();
        assert_eq!(record["reminder"]["post"], first.id.as_str());
        record["due_at"] = record["granted"]["from"].clone();
        let sql = "UPDATE jit_requests SET doc = ?1, written_claimable_at = 1";
        assert_eq!(db.execute(sql, [record.to_string()]), Ok(1));
    });
    let second = |mattermost: &Mattermost| {
        let sent = mattermost.sent(ALICE);
        sent.get(1)
            .filter(|post| !post.buttons().is_empty())
            .cloned()
    };
    let second = team.mattermost.until(second).await;
    assert_eq!(team.presses(ALICE, &second, "extend30").await, "");
    // jit refuses a click on the first reminder.
    let late = team.presses(ALICE, &first, "extend30").await;
    assert!(late.contains("not the card of the request"), "{late}");
}

/// jit refuses the button of a reminder on any other post.
#[tokio::test(flavor = "multi_thread")]
async fn a_button_of_a_reminder_is_refused_on_another_post() {
    let (team, reminder) = with_a_reminder().await;
    let card = team.mattermost.card("GRANTED", &["revoke"]).await;
    let mut click = team.mattermost.click(&reminder, "extend30", ALICE);
    click["post_id"] = card.id.clone().into();
    let said = crate::server::click_answer(&team.sends("/mattermost/action", &click).await);
    assert!(said.contains("nothing was changed"), "{said}");
    team.presses(ALICE, &card, "revoke").await;
    // After the end of the request, the reminder shows the end, and jit refuses its buttons.
    let settled = |post: &Post| post.message.contains("The request is REVOKED");
    team.mattermost
        .until(|mattermost| mattermost.sent(ALICE).pop().filter(settled))
        .await;
    let late = team.presses(ALICE, &reminder, "extend60").await;
    assert!(late.contains(":warning:"), "{late}");
}

/// A requester gets no message to decide the own request, also as an approver of the account.
#[tokio::test(flavor = "multi_thread")]
async fn a_requester_is_not_mentioned_as_an_approver() {
    let team = Team::bound().await;
    team.type_command(ADA, "approvers @alice @bob").await;
    team.requested().await;
    let called = |mattermost: &Mattermost| mattermost.sent(BOB).pop();
    team.mattermost.until(called).await;
    team.type_command(BOB, &format!("deny {}", team.newest().await))
        .await;
    let told = |mattermost: &Mattermost| mattermost.sent(ALICE).pop();
    let told = team.mattermost.until(told).await;
    assert!(told.message.contains("denied by"), "{told:?}");
    assert_eq!(team.mattermost.sent(ALICE).len(), 1);
}

/// After a change of the bot's token, jit calls the buttons of an earlier reminder out of date.
#[tokio::test(flavor = "multi_thread")]
async fn a_reminder_sealed_with_an_earlier_token_is_out_of_date() {
    use crate::server::BOT_TOKEN;
    let (team, reminder) = with_a_reminder().await;
    let team = team.restarted(|folder| {
        let config = folder.join("jit.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace(BOT_TOKEN, "anothertoken")).unwrap();
    });
    team.mattermost.has_another_bot_token("anothertoken");
    let said = team.presses(ALICE, &reminder, "extend30").await;
    assert!(said.contains("out of date"), "{said}");
    // W9: the press is no forgery.
    let mut moved = team.mattermost.click(&reminder, "extend30", ALICE);
    moved["channel_id"] = CHANNEL.into();
    moved["post_id"] = "mallorysownpost".into();
    team.sends("/mattermost/action", &moved).await;
    let written = team.forgeries(1).await;
    assert_eq!(written.len(), 1, "{written:?}");
}

/// M3: if the answer to the post of a card is lost, jit finds the card and posts no second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_whose_post_was_not_answered_is_found_and_not_repeated() {
    let team = Team::bound().await;
    team.mattermost.loses_answers(1);
    team.requested().await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert_eq!(team.mattermost.cards().len(), 1);
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
    team.mattermost.card("GRANTED", &["revoke"]).await;
    assert_eq!(team.mattermost.cards().len(), 1);
}

/// Any user can post with the mark of a card. jit accepts only a post of its bot that was not
/// deleted.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_post_of_the_bot_is_accepted_as_the_card() {
    let team = Team::bound().await;
    team.mattermost.refuses(Some(500));
    team.requested().await;
    // The first attempt has failed. Before the second one, jit looks for an existing card.
    team.jit.comes_to_log("notice not received").await;
    let mark = serde_json::json!({"jit_request": team.newest().await});
    team.mattermost
        .has_post(crate::server::MALLORY, mark.clone(), false);
    team.mattermost.has_post(crate::server::BOT, mark, true);
    team.mattermost.refuses(None);
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert!(card.id.starts_with("post"), "{card:?}");
}

/// 10h: Mattermost may answer with another post than the one that jit made.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_of_another_user_is_not_accepted_as_the_card() {
    let team = Team::bound().await;
    team.mattermost.answers_with_anothers(1);
    team.requested().await;
    team.jit.logs("another post than the one that jit made");
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert_eq!(card.user_id, crate::server::BOT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bot_joins_open_channels_and_reports_private_ones() {
    let team = Team::bound().await;
    team.mattermost.closes(CHANNEL, true);
    team.requested().await;
    team.mattermost.card("PENDING", &["approve", "deny"]).await;
    team.mattermost.closes(CHANNEL, false);
    let bound = team
        .type_command(ADA, &format!("bind {ACCOUNT} max 2h"))
        .await;
    assert!(bound.contains("/invite"), "{bound}");
    team.mattermost.closes(CHANNEL, true);
    let bound = team
        .type_command(ADA, &format!("bind {ACCOUNT} max 4h"))
        .await;
    assert!(!bound.contains("/invite"), "{bound}");
    // After the bot was removed from the channel, jit still changes the card.
    team.mattermost.closes(CHANNEL, true);
    team.type_command(BOB, &format!("deny {}", team.newest().await))
        .await;
    team.mattermost.card("DENIED", &[]).await;
}

/// W4: the bot cannot join a private channel. jit asks the approvers and tells the requester in
/// direct messages, each once, and posts the card after a member invited the bot.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_bot_in_the_channel_people_get_direct_messages() {
    let team = Team::bound().await;
    team.mattermost.closes(CHANNEL, false);
    let id = team.requested().await;
    let sent = |who: &'static str| move |mattermost: &Mattermost| mattermost.sent(who).pop();
    let call = team.mattermost.until(sent(BOB)).await;
    assert!(
        call.message.contains(&format!("`/jit approve {id}`")),
        "{call:?}"
    );
    let told = team.mattermost.until(sent(ALICE)).await;
    assert!(told.message.contains("/invite @jit"), "{told:?}");
    // The next attempts send nothing again.
    team.jit.comes_to_log("notice not received").await;
    let before = team.mattermost.calls();
    team.mattermost
        .until(|mattermost| (mattermost.calls() > before + 6).then_some(()))
        .await;
    assert_eq!(team.mattermost.sent(BOB).len(), 1);
    assert_eq!(team.mattermost.sent(ALICE).len(), 1);
    team.mattermost.closes(CHANNEL, true);
    team.mattermost.card("PENDING", &["approve", "deny"]).await;
}

/// W13: the address at which jit reaches Mattermost may be an internal one.
#[tokio::test(flavor = "multi_thread")]
async fn links_begin_with_the_address_that_users_have() {
    let team = Team::bound().await;
    team.mattermost.has_site("https://chat.example.com");
    let id = team.requested().await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    let link = format!("(https://chat.example.com/_redirect/pl/{})", card.id);
    let sent = |mattermost: &Mattermost| mattermost.sent(BOB).pop();
    let call = team.mattermost.until(sent).await;
    assert!(call.message.contains(&link), "{call:?}");
    let shown = team.type_command(ALICE, &format!("status {id}")).await;
    assert!(shown.contains(&link), "{shown}");
}

/// W4: the requester learns the decision too.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_bot_in_the_channel_the_requester_learns_the_decision() {
    let team = Team::bound().await;
    team.mattermost.closes(CHANNEL, false);
    let id = team.requested().await;
    let asked = |mattermost: &Mattermost| mattermost.sent(BOB).pop();
    team.mattermost.until(asked).await;
    team.type_command(BOB, &format!("deny {id} use readonly"))
        .await;
    team.mattermost
        .until(|mattermost| {
            let sent = mattermost.sent(ALICE);
            sent.into_iter()
                .find(|post| post.message.contains("denied by"))
        })
        .await;
}

/// After a 429, jit pauses and then sends the call again.
#[tokio::test(flavor = "multi_thread")]
async fn jit_pauses_after_a_429_and_then_delivers() {
    let team = Team::bound().await;
    team.mattermost.has_too_many(1);
    let said = team.type_command(ALICE, "list").await;
    assert_eq!(said, "This channel has no open requests.");
    let rested = team.mattermost.rested().unwrap();
    assert!(
        rested >= Duration::from_millis(900),
        "jit sent the next call after {rested:?}"
    );
    // jit pauses after each 429 to a call for a card as well.
    team.mattermost.has_too_many(2);
    let before = team.mattermost.calls();
    team.requested().await;
    team.mattermost.card("PENDING", &["approve", "deny"]).await;
    let calls = team.mattermost.calls() - before;
    assert!(calls < 20, "{calls} calls, two of them answered 429");
}

/// A command that takes too long continues, and only the user who typed it gets the result.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_sent_as_a_direct_message() {
    let (team, id) = Team::slowly_granted().await;
    // jit must look up this admin first.
    team.mattermost.change(
        crate::server::MALLORY,
        "roles",
        "system_user system_admin".into(),
    );
    team.mattermost.is_slow(Duration::from_millis(700));
    let said = team
        .type_command(crate::server::MALLORY, &format!("revoke {id}"))
        .await;
    assert!(said.contains("takes longer than usual"), "{said}");
    team.mattermost
        .until(|mattermost| {
            let sent = mattermost.sent(crate::server::MALLORY);
            sent.iter()
                .any(|post| post.message.contains("continues until AWS shows"))
                .then_some(())
        })
        .await;
    team.caller.until(&team.newest().await, "REVOKED").await;
}

/// Cards and commands use the configured name of an account.
#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_account_is_shown() {
    let mattermost = Mattermost::open().await;
    let names = format!("[accounts]\n{ACCOUNT} = \"acme-prod\"\n");
    let config = format!("{}{names}", mattermost.config());
    let team = Team::on(mattermost, &config);
    let bound = team.type_command(ADA, "bind acme-prod").await;
    assert!(bound.contains("acme\\-prod (`111122223333`)"), "{bound}");
    team.type_command(ADA, "approvers @bob").await;
    team.type_command(ALICE, "request Acme-Prod admin 1h x")
        .await;
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert_eq!(
        card.fields()["Access"],
        "admin in acme\\-prod (`111122223333`)"
    );
    let unbound = team.type_command(ADA, "unbind acme-prod").await;
    assert!(unbound.contains("No account is bound"), "{unbound}");
    team.mattermost.card("CANCELLED", &[]).await;
}
