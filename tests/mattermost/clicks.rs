//! The life of a request with buttons, and clicks that jit refuses. The numbers are those of
//! the facts that were observed on a real server.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::captures::{body_of, wires};
use crate::common::chat::BOT_TOKEN;
use crate::server::{
    ACCOUNT, ADA, ALICE, BOB, CHANNEL, MALLORY, Mattermost, Post, TEAM, Team, click_answer, now,
    sealed, trigger,
};

const ACTION: &str = "/mattermost/action";

async fn pending(team: &Team) -> Post {
    team.requested().await;
    team.mattermost.card("PENDING", &["approve", "deny"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_approved_and_revoked_by_buttons() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let own = team.presses(ALICE, &card, "approve").await;
    assert!(own.contains(":warning:"), "the requester approved: {own}");
    let other = team.presses(MALLORY, &card, "deny").await;
    assert!(
        other.contains(":warning:"),
        "a user who is no approver decided: {other}"
    );
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
    let card = team.mattermost.card("GRANTED", &["revoke"]).await;
    let stranger = team.presses(MALLORY, &card, "revoke").await;
    assert!(stranger.contains("only the requester"), "{stranger}");
    let gone = team.presses(ALICE, &card, "revoke").await;
    assert!(gone.starts_with("Revoked:"), "{gone}");
    let card = team.mattermost.card("REVOKED", &[]).await;
    assert_eq!(team.mattermost.cards().len(), 1, "{card:?}");
    let events = team.caller.audit(&team.newest().await).await;
    let who = |kind: &str| {
        let event = events.iter().find(|event| event["event_type"] == kind);
        event.unwrap()["actor_mm_user_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        (who("APPROVED"), who("REVOKE_REQUESTED")),
        (BOB.into(), ALICE.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_is_approved_on_the_card() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    team.presses(BOB, &card, "approve").await;
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let id = team.newest().await;
    let ended = team.caller.show(&id).await["end_time"].clone();
    for (button, is_longer) in [("deny", false), ("approve", true)] {
        team.type_command(ALICE, &format!("extend {id} 30m")).await;
        let asked = team
            .mattermost
            .card("GRANTED", &["approve", "deny", "revoke"])
            .await;
        assert_eq!(asked.fields()["Extension requested"], "30 minutes");
        assert_eq!(team.presses(BOB, &asked, button).await, "");
        team.mattermost.card("GRANTED", &["revoke"]).await;
        let ends = team.caller.show(&id).await["end_time"].clone();
        assert_eq!(ends != ended, is_longer, "{button}");
    }
    // The approver got a message about the request and about each extension.
    assert_eq!(team.mattermost.sent(BOB).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_can_be_denied() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    assert_eq!(team.presses(BOB, &card, "deny").await, "");
    team.mattermost.card("DENIED", &[]).await;
}

/// Checks that the request is still PENDING and has no approval.
async fn still_waits(team: &Team) {
    let shown = team.caller.show(&team.newest().await).await;
    assert_eq!(shown["status"], "PENDING", "{shown}");
    assert_eq!(
        shown["approvals"].as_array().map_or(0, Vec::len),
        0,
        "{shown}"
    );
}

async fn are_audited(team: &Team, forgeries: usize) {
    let written = team.forgeries(forgeries).await;
    assert_eq!(written.len(), forgeries);
    for event in &written {
        assert_eq!(event["details"]["reason"], "card", "{event}");
        assert_eq!(event["details"]["user_id"], BOB, "{event}");
    }
    let whose = |event: &Value| event["details"]["post_id"] == "mallorysownpost";
    assert_eq!(
        written.iter().filter(|event| whose(event)).count(),
        1,
        "{written:?}"
    );
    let verified = crate::common::binary()
        .args(["audit", "verify", "--config"])
        .arg(team.jit.folder.path().join("jit.toml"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// 1, 2, 3: a user can post or change a card so that its button sends any content. jit refuses
/// a click on it, and the history records the user who pressed it and the post.
#[tokio::test(flavor = "multi_thread")]
async fn a_click_on_a_forged_card_is_refused_and_audited() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let genuine = team.mattermost.click(&card, "approve", BOB);
    let altered = |change: &dyn Fn(&mut Value)| {
        let mut click = genuine.clone();
        click["trigger_id"] = trigger(BOB, now()).into();
        change(&mut click);
        click
    };
    let seal = "0".repeat(64);
    let forgeries = [
        // The button is on another post, or in another channel.
        altered(&|click| click["post_id"] = "mallorysownpost".into()),
        altered(&|click| click["channel_id"] = "f3h9orfn33ge7nxnhyaj1kdqqo".into()),
        // The action, the time, the seal or the request of the button is changed.
        altered(&|click| click["context"]["action"] = "deny".into()),
        altered(&|click| click["context"]["action"] = "revoke".into()),
        altered(&|click| click["context"]["until"] = "9999999999999".into()),
        altered(&|click| click["context"]["seal"] = seal.clone().into()),
        altered(&|click| click["context"]["seal"] = "".into()),
        altered(&|click| {
            click["context"]["request_id"] = "01a1fd36-48a0-7000-8000-000000000001".into();
        }),
        // 15b: contexts that a plugin without seals accepts.
        altered(&|click| click["context"] = json!({"action": "approve", "request_id": "R1"})),
        altered(&|click| click["context"] = json!({})),
        altered(&|click| click["context"] = Value::Null),
    ];
    for forged in &forgeries {
        let said = click_answer(&team.sends(ACTION, forged).await);
        // If the post is the card of the request, jit renews the card.
        let is_on_the_card = forged["post_id"] == card.id.as_str()
            && forged["context"]["request_id"] == genuine["context"]["request_id"];
        let wanted = if is_on_the_card {
            "renewed"
        } else {
            "jit did not make this card"
        };
        assert!(said.contains(wanted), "{forged} {said}");
        still_waits(&team).await;
    }
    // The history of the channel has every forgery except the one with another channel id.
    are_audited(&team, forgeries.len() - 1).await;
    // The unchanged button works.
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
}

/// jit renews only the card of the request. It does not turn another post of the bot into that
/// card.
#[tokio::test(flavor = "multi_thread")]
async fn a_button_of_one_request_is_refused_on_the_card_of_another() {
    let team = Team::bound().await;
    let one = pending(&team).await;
    let typed = format!("request {ACCOUNT} readonly 2h another");
    team.type_command(MALLORY, &typed).await;
    let is_there = |cards: &[Post]| cards.len() == 2 && !cards[1].buttons().is_empty();
    let other = team.mattermost.shows(is_there).await.remove(1);
    let mut click = team.mattermost.click(&one, "approve", BOB);
    click["post_id"] = other.id.clone().into();
    let said = click_answer(&team.sends(ACTION, &click).await);
    assert!(said.contains("jit did not make this card"), "{said}");
    let now = team.mattermost.cards().remove(1);
    assert_eq!(
        (now.title(), now.props.len()),
        (other.title(), other.props.len())
    );
    still_waits(&team).await;
}

/// The seals depend on the bot's token. After a change of the token, a click on an old button
/// renews the card and does nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_of_an_earlier_token_is_renewed() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    team.all_delivered().await;
    let team = team.restarted(|folder| {
        let config = folder.join("jit.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(BOT_TOKEN), "{text}");
        std::fs::write(&config, text.replace(BOT_TOKEN, "anothertoken")).unwrap();
    });
    team.mattermost.has_another_bot_token("anothertoken");
    let said = team.presses(BOB, &card, "approve").await;
    assert!(said.contains("renewed"), "{said}");
    still_waits(&team).await;
    // W9: the press is no forgery. The same button on another post is one.
    let mut moved = team.mattermost.click(&card, "approve", BOB);
    moved["post_id"] = "mallorysownpost".into();
    let said = click_answer(&team.sends(ACTION, &moved).await);
    assert!(said.contains("jit did not make this card"), "{said}");
    let written = team.forgeries(1).await;
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(written[0]["details"]["post_id"], "mallorysownpost");
    let renewed = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert_eq!(team.presses(BOB, &renewed, "approve").await, "");
    team.mattermost.card("GRANTED", &["revoke"]).await;
}

/// W9: who can change the card of the bot could write any name of a key into its buttons, and then no
/// press was recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_button_with_a_key_that_jit_did_not_use_is_a_forgery() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let mut click = team.mattermost.click(&card, "approve", BOB);
    let used = click["context"]["key"].as_str().unwrap().to_owned();
    click["context"]["seal"] = "0".repeat(64).into();
    for key in ["00000000", "", &used] {
        click["context"]["key"] = key.into();
        click["trigger_id"] = trigger(BOB, now()).into();
        let said = click_answer(&team.sends(ACTION, &click).await);
        assert!(said.contains("renewed"), "{key}: {said}");
    }
    let written = team.forgeries(3).await;
    let is_card = |event: &Value| event["details"]["reason"] == "card";
    assert!(written.iter().all(is_card), "{written:?}");
    still_waits(&team).await;
}

/// W9: an earlier version of jit stored no name of a key, and its buttons have none.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_of_an_earlier_version_is_renewed_and_its_press_is_no_forgery() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let mut click = team.mattermost.click(&card, "approve", BOB);
    let context = click["context"].as_object_mut().unwrap();
    let key = context.remove("key").unwrap();
    let key = key.as_str().unwrap();
    team.all_delivered().await;
    let team = team.restarted(|folder| {
        let config = folder.join("jit.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace(BOT_TOKEN, "anothertoken")).unwrap();
        let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
        let sql = "UPDATE jit_requests SET doc = replace(doc, ?1, '')";
        let noted = format!("\"button_key\":\"{key}\",");
        assert_eq!(db.execute(sql, [noted.as_str()]), Ok(1));
        let sql = "SELECT count(*) FROM jit_requests WHERE doc LIKE '%button_key%'";
        let left: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    });
    team.mattermost.has_another_bot_token("anothertoken");
    let said = click_answer(&team.sends(ACTION, &click).await);
    assert!(said.contains("renewed"), "{said}");
    click["post_id"] = "mallorysownpost".into();
    click["trigger_id"] = trigger(BOB, now()).into();
    let said = click_answer(&team.sends(ACTION, &click).await);
    assert!(said.contains("jit did not make this card"), "{said}");
    assert_eq!(team.forgeries(1).await.len(), 1);
    still_waits(&team).await;
}

/// W8: a user can post a button without a context. Mattermost showed "Action integration error".
#[tokio::test(flavor = "multi_thread")]
async fn a_click_without_a_context_gets_an_answer() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let mut click = team.mattermost.click(&card, "approve", BOB);
    click.as_object_mut().unwrap().remove("context");
    let said = click_answer(&team.sends(ACTION, &click).await);
    assert!(said.contains("jit did not make this card"), "{said}");
    assert_eq!(team.forgeries(1).await.len(), 1);
    still_waits(&team).await;
}

/// The seal is valid, but the post is not the card in the record. A request has one card.
#[tokio::test(flavor = "multi_thread")]
async fn a_click_is_refused_on_any_post_but_the_recorded_card() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    team.all_delivered().await;
    let team = team.restarted(|folder| {
        let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
        let sql = "UPDATE jit_requests SET doc = replace(doc, ?1, ?2)";
        let noted = format!("\"card\":\"{}\"", card.id);
        let changed = db.execute(sql, [noted.as_str(), "\"card\":\"another\""]);
        assert_eq!(changed, Ok(1));
    });
    let said = team.presses(BOB, &card, "approve").await;
    assert!(said.contains("not the card of the request"), "{said}");
    still_waits(&team).await;
}

/// 7: a click needs a trigger that this Mattermost server signed for this user within the last
/// minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_click_without_a_trigger_of_the_server_is_refused() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let with = |trigger: String| {
        let mut click = team.mattermost.click(&card, "approve", BOB);
        click["trigger_id"] = trigger.into();
        click
    };
    let real = trigger(BOB, now());
    let mut one_off = real.clone().into_bytes();
    one_off[10] ^= 1;
    for forged in [
        with(String::new()),
        with("rubbish".into()),
        // The trigger of another user.
        with(trigger(MALLORY, now())),
        with(String::from_utf8(one_off).unwrap()),
        // The trigger of another server, twice.
        with(
            body_of(&wires("04b-click-approve")[0])["trigger_id"]
                .as_str()
                .unwrap()
                .into(),
        ),
        with(
            body_of(&wires("04b-click-approve")[0])["trigger_id"]
                .as_str()
                .unwrap()
                .into(),
        ),
    ] {
        let reply = team.sends(ACTION, &forged).await;
        assert_eq!(reply.status, 401, "{forged} {reply:?}");
        still_waits(&team).await;
    }
    // jit asks Mattermost for its key once, and not for each invalid trigger. The same route has
    // the address for links.
    assert!(team.mattermost.calls_for_the_key() <= 2);
    for (late, is_of_now) in [(-120_000, false), (120_000, false), (-20_000, true)] {
        let said = click_answer(&team.sends(ACTION, &with(trigger(BOB, now() + late))).await);
        assert_eq!(said.is_empty(), is_of_now, "{late}: {said}");
    }
    // jit records the refusals in the background, so their order may differ.
    let mut reasons: Vec<String> = team
        .forgeries(8)
        .await
        .iter()
        .map(|event| event["details"]["reason"].as_str().unwrap().to_owned())
        .collect();
    reasons.sort();
    let (late, forged) = reasons.split_at(2);
    assert_eq!(
        (late, forged),
        (
            &["stale"; 2].map(String::from)[..],
            &["trigger"; 6].map(String::from)[..]
        )
    );
}

/// jit refuses a seal after its time. The test makes the seals with the key of jit.
#[tokio::test(flavor = "multi_thread")]
async fn a_button_with_an_expired_seal_is_refused() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let until = |until: i64| {
        let mut click = team.mattermost.click(&card, "approve", BOB);
        let id = click["context"]["request_id"].as_str().unwrap().to_owned();
        let place = format!("{id}\n{CHANNEL}\n{}", card.id);
        let text = format!("decision\nrequest\n{place}\napprove\n{until}");
        click["context"]["until"] = until.to_string().into();
        click["context"]["seal"] = sealed(&text).into();
        click
    };
    let said = click_answer(&team.sends(ACTION, &until(now() - 1_000)).await);
    assert!(said.contains("out of date"), "{said}");
    still_waits(&team).await;
    assert_eq!(
        click_answer(&team.sends(ACTION, &until(now() + 60_000)).await),
        ""
    );
}

/// 14: Mattermost sends several clicks on one button, each of them once. jit carries out one of
/// them, and refuses a repeated click.
#[tokio::test(flavor = "multi_thread")]
async fn a_click_counts_once() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let clicks: Vec<Value> = (0..3)
        .map(|_| team.mattermost.click(&card, "approve", BOB))
        .collect();
    let sent = clicks.iter().map(|click| team.sends(ACTION, click));
    let said = futures_util::future::join_all(sent).await;
    let done = said
        .iter()
        .filter(|reply| click_answer(reply).is_empty())
        .count();
    assert_eq!(done, 1, "{said:?}");
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let id = team.newest().await;
    let kinds = team.caller.kinds(&id).await;
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "APPROVED").count(),
        1,
        "{kinds:?}"
    );
    // The test sends the same calls again, as an attacker on the network can.
    for click in &clicks {
        let again = click_answer(&team.sends(ACTION, click).await);
        assert!(again.contains("processed this click already"), "{again}");
    }
    let replayed = team.forgeries(3).await;
    assert!(
        replayed
            .iter()
            .all(|event| event["details"]["reason"] == "replayed"),
        "{replayed:?}"
    );
}

/// A click that jit refuses spends its trigger as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_click_spends_its_trigger() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let click = team.mattermost.click(&card, "approve", MALLORY);
    assert!(click_answer(&team.sends(ACTION, &click).await).contains(":warning:"));
    team.type_command(ADA, "approvers @bob @mallory").await;
    let again = click_answer(&team.sends(ACTION, &click).await);
    assert!(again.contains("processed this click already"), "{again}");
    still_waits(&team).await;
}

/// 9: jit refuses a click from another team, also by an approver.
#[tokio::test(flavor = "multi_thread")]
async fn a_click_from_another_team_is_refused() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    let mut click = team.mattermost.click(&card, "approve", BOB);
    click["team_id"] = "w1gu5cusqjgfppy84xsohzij6p".into();
    // W8: the person saw "Action integration error".
    let said = click_answer(&team.sends(ACTION, &click).await);
    assert!(said.contains("a team that jit does not serve"), "{said}");
    let written = team.forgeries(1).await;
    assert_eq!(written[0]["details"]["reason"], "team", "{written:?}");
    still_waits(&team).await;
}

/// 2, 3, 6: the bytes of clicks that a real server sent, on cards that users made. With the key
/// of that server, the triggers are valid and too old. With another key, they are invalid.
#[tokio::test(flavor = "multi_thread")]
async fn captured_clicks_on_forged_cards_are_refused() {
    let team = Team::bound().await;
    pending(&team).await;
    let captures = [
        "04b-click-approve",
        "04c-click-by-requester",
        "04e-click-extra-body",
        "06a-user-posts-forged-card",
        "06b-requester-edits-slash-card",
        "06d-ephemeral-card-click",
        "06f-hardened-mode",
    ];
    let mut sent = 0;
    for capture in captures {
        for wire in wires(capture) {
            let reply = crate::captures::replay_to(&team, ACTION, wire).await;
            assert_eq!(reply.status, 401, "{capture}: {reply:?}");
            sent += 1;
        }
    }
    assert!(sent >= captures.len(), "{sent}");
    // With the key of that server, jit accepts the signatures and refuses the old triggers.
    let vector: Value =
        serde_json::from_str(include_str!("captures/trigger-id-vector.json")).unwrap();
    let key = vector["AsymmetricSigningPublicKey"].as_str().unwrap();
    let mattermost = Mattermost::open().await;
    mattermost.has_another_key(key);
    let config = mattermost.config();
    let team = Team::on(mattermost, &config);
    for wire in wires("06a-user-posts-forged-card") {
        let said = click_answer(&crate::captures::replay_to(&team, ACTION, wire).await);
        assert!(said.contains("too old"), "{said}");
    }
}

/// jit refuses a click while it cannot get the signing key from Mattermost.
#[tokio::test(flavor = "multi_thread")]
async fn a_click_is_refused_while_mattermost_cannot_be_asked() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    team.mattermost.has_too_many(1_000);
    let click = team.mattermost.click(&card, "approve", BOB);
    let said = click_answer(&team.sends(ACTION, &click).await);
    assert!(said.contains("cannot ask Mattermost"), "{said}");
    still_waits(&team).await;
}

/// 4, 10, 11, 12, 13: each update contains the whole card. All its values are strings, and the
/// ids of its buttons have only letters and digits.
#[tokio::test(flavor = "multi_thread")]
async fn every_update_of_a_card_contains_the_whole_card() {
    let team = Team::bound().await;
    let card = pending(&team).await;
    team.presses(BOB, &card, "approve").await;
    team.mattermost.card("GRANTED", &["revoke"]).await;
    team.type_command(BOB, &format!("revoke {}", team.newest().await))
        .await;
    let card = team.mattermost.card("REVOKED", &[]).await;
    assert!(card.props.len() >= 4, "{card:?}");
    for props in &card.props {
        let attachment = &props["attachments"][0];
        for field in attachment["fields"].as_array().unwrap() {
            assert!(field["value"].is_string(), "{field}");
        }
        for button in attachment["actions"].as_array().unwrap() {
            let id = button["id"].as_str().unwrap();
            assert!(id.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
            let context = button["integration"]["context"].as_object().unwrap();
            assert!(context.values().all(Value::is_string), "{button}");
        }
    }
    // The first version has no buttons, because a seal contains the id of the post.
    assert_eq!(card.props[0]["attachments"][0]["actions"], json!([]));
}

/// 5: jit does not use `response_url`, because a user chooses its host with the `Host` header.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_url_is_not_used() {
    let team = Team::bound().await;
    let elsewhere = Mattermost::open().await;
    let body = crate::server::form(
        crate::server::TOKEN,
        TEAM,
        CHANNEL,
        "aws-prod",
        ALICE,
        &format!("request {ACCOUNT} admin 1h x"),
    );
    let hook = format!(
        "{}/hooks/commands/x6y4y57sx7dztykfqkmoo5ethy",
        elsewhere.url
    );
    let body = body.replace(
        "http%3A%2F%2F127.0.0.1%3A8065%2Fhooks%2Fcommands%2Fx6y4y57sx7dztykfqkmoo5ethy",
        &hook,
    );
    assert!(body.contains(&hook), "{body}");
    crate::server::command_answer(&team.send(body).await);
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    team.presses(BOB, &card, "approve").await;
    team.mattermost.card("GRANTED", &["revoke"]).await;
    assert_eq!(elsewhere.calls(), 0);
}

/// N3: each of these clicks made its own call to Mattermost. One click asks for the key, the others
/// wait for its answer, and jit keeps a failure for five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn forged_clicks_make_one_call_to_a_mattermost_that_is_down() {
    const CLICKS: usize = 300;
    let team = Team::bound().await;
    team.mattermost.is_down(true);
    // Many clicks arrive while the first one waits for its answer.
    team.mattermost.is_slow(Duration::from_millis(300));
    let forged = |number: usize| {
        let signed = STANDARD.encode([7; 70]);
        let trigger = STANDARD.encode(format!("forged{number}:{BOB}:{}:{signed}", now()));
        json!({
            "user_id": BOB, "channel_id": CHANNEL, "team_id": TEAM, "post_id": "forgedpost",
            "trigger_id": trigger, "context": {},
        })
    };
    let clicks: Vec<Value> = (0..CLICKS).map(forged).collect();
    let before = team.mattermost.calls();
    let begun = Instant::now();
    for some in clicks.chunks(CLICKS / 2) {
        let sent = some.iter().map(|click| team.sends(ACTION, click));
        for reply in futures_util::future::join_all(sent).await {
            let said = click_answer(&reply);
            assert!(said.contains("cannot ask Mattermost"), "{said}");
        }
    }
    let asked = team.mattermost.calls() - before;
    let most = 1 + begun.elapsed().as_secs() / 5;
    assert!(
        (1..=most).contains(&u64::try_from(asked).unwrap()),
        "{CLICKS} clicks made {asked} calls in {:?}",
        begun.elapsed()
    );
    // A person can press as soon as Mattermost answers again.
    team.mattermost.is_down(false);
    team.mattermost.is_slow(Duration::ZERO);
    let card = pending(&team).await;
    let unsure = |said: &str| said.contains("cannot ask Mattermost");
    while unsure(&team.presses(BOB, &card, "approve").await) {
        assert!(begun.elapsed() < crate::common::TIMEOUT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    team.mattermost.card("GRANTED", &["revoke"]).await;
}

/// W13: the token of the bot was read only when jit started.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_token_of_the_bot_is_used_without_a_restart() {
    let mattermost = Mattermost::open().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bot-token");
    std::fs::write(&file, BOT_TOKEN).unwrap();
    let inline = format!("bot_token = \"{BOT_TOKEN}\"");
    let config = mattermost.config();
    assert!(config.contains(&inline), "{config}");
    let named = format!("bot_token_file = \"{}\"", file.display());
    let team = Team::on(mattermost, &config.replace(&inline, &named));
    team.type_command(ADA, &format!("bind {ACCOUNT}")).await;
    team.type_command(ADA, "approvers @bob").await;
    let card = pending(&team).await;
    let dialog = crate::dialog::opened(&team).await;
    team.mattermost.has_another_bot_token("anothertoken");
    std::fs::write(&file, "anothertoken").unwrap();
    team.jit.comes_to_log("mattermost.bot_token").await;
    assert!(!team.jit.log().contains("anothertoken"));
    // W9: a dialog that was open meanwhile makes no request, and is no forgery.
    let mut sent = crate::dialog::filled(&dialog, &crate::dialog::fields());
    let said = team.sends("/mattermost/dialog", &sent).await.json();
    let said = said["error"].as_str().unwrap().to_owned();
    assert!(said.contains("type /jit request again"), "{said}");
    sent["state"] = "".into();
    assert_eq!(team.sends("/mattermost/dialog", &sent).await.status, 401);
    assert_eq!(team.forgeries(1).await.len(), 1);
    // The old token seals nothing any more, and the new one renews the card.
    let said = team.presses(BOB, &card, "approve").await;
    assert!(said.contains("renewed"), "{said}");
    let renewed = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert_eq!(team.presses(BOB, &renewed, "approve").await, "");
    team.mattermost.card("GRANTED", &["revoke"]).await;
}
