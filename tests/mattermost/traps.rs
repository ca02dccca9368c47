//! Calls that jit must not trust, because a user of Mattermost can make them. The numbers are
//! those of the facts that were observed on a real server.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::common::Setup;
use crate::server::{
    ACCOUNT, ADA, ALICE, BOB, CHANNEL, MALLORY, Mattermost, TEAM, TOKEN, Team, command_answer,
    form, id_in,
};

/// 1, 9: a command needs the token that proves that Mattermost sent it, and the id of the team.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_the_token_of_the_team_is_refused() {
    let team = Team::bound().await;
    let typed = |token: &str, of: &str| form(token, of, CHANNEL, "aws-prod", ADA, "list");
    let other = "w1gu5cusqjgfppy84xsohzij6p";
    for body in [
        typed("czp5smwt3pyxfg9ig3q5tr3rfy", TEAM),
        typed("", TEAM),
        typed(&TOKEN[..25], TEAM),
        typed(TOKEN, other),
        typed(TOKEN, ""),
        typed(TOKEN, TEAM).replace(&format!("token={TOKEN}&"), ""),
        typed(TOKEN, TEAM).replace("&text=", "&token=x&text="),
        "rubbish".to_owned(),
        String::new(),
    ] {
        let reply = team.send(body.clone()).await;
        assert_eq!(reply.status, 401, "{body}");
        assert!(
            !reply.text.contains("token"),
            "the answer names the failed check: {}",
            reply.text
        );
    }
    let metrics = team.caller.metrics().await.text;
    assert!(
        metrics.contains("jit_signature_refusals_total{reason=\"token\"}"),
        "{metrics}"
    );
    assert!(
        metrics.contains("jit_signature_refusals_total{reason=\"team\"} 2"),
        "{metrics}"
    );
    assert!(!team.jit.log().contains(TOKEN));
    // In a GET, the token would be a part of the address.
    let get = team
        .caller
        .send(
            "GET",
            &format!("/mattermost/command?{}", typed(TOKEN, TEAM)),
            vec![],
            vec![],
        )
        .await;
    assert_eq!(get.status, 405);
}

/// jit accepts a token in the header or in the form, because newer servers send another value in
/// one of the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_header_or_one_of_two_tokens_is_accepted() {
    let mattermost = Mattermost::open().await;
    let config = mattermost.config().replace(
        &format!("[\"{TOKEN}\"]"),
        &format!("[\"new-token\", \"{TOKEN}\"]"),
    );
    let jit = Setup::with(&config).start();
    let caller = jit.caller();
    for (header, in_form) in [
        (TOKEN, "else"),
        ("new-token", ""),
        ("else", TOKEN),
        ("else", "new-token"),
    ] {
        let body = form(in_form, TEAM, CHANNEL, "aws-prod", ALICE, "list");
        let headers = vec![("Authorization", format!("Token {header}"))];
        command_answer(
            &caller
                .send("POST", "/mattermost/command", headers, body.into_bytes())
                .await,
        );
    }
}

/// 8: jit gets the address of a user from Mattermost, by the user id. A user whom jit refuses gets
/// the reason.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_user_is_fetched_from_mattermost() {
    let setup = Setup::default();
    let team = Team::with(Setup {
        more: String::new(),
        ..setup
    })
    .await;
    for (name, value, wanted) in [
        ("delete_at", json!(1), "deactivated"),
        ("is_bot", json!(true), "bots"),
        ("roles", json!("system_guest"), "guests"),
        ("email", json!(""), "no e-mail"),
    ] {
        let other = Mattermost::open().await;
        other.change(MALLORY, name, value);
        let jit = Setup::with(&other.config()).start();
        let body = form(TOKEN, TEAM, CHANNEL, "aws-prod", MALLORY, "list");
        let reply = jit
            .caller()
            .send("POST", "/mattermost/command", vec![], body.into_bytes())
            .await;
        assert!(command_answer(&reply).contains(wanted), "{reply:?}");
    }
    let stranger = team
        .type_command("strangerstrangerstrangerst", "list")
        .await;
    assert!(stranger.contains("does not know you"), "{stranger}");
    // jit asks Mattermost about a user once for several commands.
    let before = team.mattermost.asked.load(Ordering::SeqCst);
    for _ in 0..5 {
        team.type_command(ALICE, "list").await;
    }
    assert_eq!(team.mattermost.asked.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_another_domain_is_refused() {
    let mattermost = Mattermost::open().await;
    mattermost.change(MALLORY, "email", "alice@evil.example".into());
    let config = format!("{}email_domain = \"example.com\"\n", mattermost.config());
    let jit = Setup::with(&config).start();
    let typed = |who: &str| form(TOKEN, TEAM, CHANNEL, "aws-prod", who, "list").into_bytes();
    let said = command_answer(
        &jit.caller()
            .send("POST", "/mattermost/command", vec![], typed(MALLORY))
            .await,
    );
    assert!(said.contains("company"), "{said}");
    let said = command_answer(
        &jit.caller()
            .send("POST", "/mattermost/command", vec![], typed(ALICE))
            .await,
    );
    assert_eq!(said, "This channel has no open requests.");
}

/// While jit cannot ask Mattermost about the user, it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_refused_while_mattermost_does_not_answer() {
    let nowhere = "[mattermost]\nurl = \"http://127.0.0.1:9\"\npublic_url = \"http://127.0.0.1:9\"\nteam_id = \"w1gu5cusqjgfppy84xsohzij6o\"\n\
         bot_token = \"j6uwcwf9gigxjfcdfidacg8tkc\"\ncommand_tokens = [\"pssxxjqabt8a7e1mgdia9jw9wh\"]\n";
    let jit = Setup::with(nowhere).start();
    let body = form(
        TOKEN,
        TEAM,
        CHANNEL,
        "aws-prod",
        ADA,
        &format!("bind {ACCOUNT}"),
    );
    let said = command_answer(
        &jit.caller()
            .send("POST", "/mattermost/command", vec![], body.into_bytes())
            .await,
    );
    assert!(said.contains("nothing was changed"), "{said}");
    let accounts = jit
        .caller()
        .get(&format!("/config/accounts?channel_id={CHANNEL}"))
        .await
        .is(200);
    assert_eq!(accounts, json!([]));
}

/// G11: only admins change bindings and approvers.
#[tokio::test(flavor = "multi_thread")]
async fn only_admins_change_bindings() {
    let team = Team::with(Setup::default()).await;
    for text in [format!("bind {ACCOUNT}"), "approvers @mallory".to_owned()] {
        let said = team.type_command(MALLORY, &text).await;
        assert!(said.contains("only admins"), "{said}");
    }
    let direct = team
        .type_command_in(
            "ixxre3hujjbcuenn8nib1ym7io",
            &format!("{ALICE}__{ADA}"),
            ADA,
            &format!("bind {ACCOUNT}"),
        )
        .await;
    assert!(direct.contains("in a team channel"), "{direct}");
    assert!(
        team.type_command(ADA, &format!("bind {ACCOUNT}"))
            .await
            .contains(ACCOUNT)
    );
}

/// G11: both keys name admins of slash commands. `mattermost.admins` limits no signed call, and
/// `policy.admins` limits all.
#[tokio::test(flavor = "multi_thread")]
async fn both_admin_keys_name_admins_of_slash_commands() {
    let bind = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    let keys = [
        ("admins = [\"Mallory@Example.com\"]\n".to_owned(), 200),
        (format!("[policy]\nadmins = [\"{MALLORY}\"]\n"), 403),
    ];
    for (key, signed) in keys {
        let mattermost = Mattermost::open().await;
        let config = format!("{}{key}", mattermost.config());
        let team = Team::on(mattermost, &config);
        let bound = team.type_command(MALLORY, &format!("bind {ACCOUNT}")).await;
        assert!(bound.contains(ACCOUNT), "{key}: {bound}");
        let refused = team.type_command(ALICE, &format!("unbind {ACCOUNT}")).await;
        assert!(refused.contains("only admins"), "{key}: {refused}");
        // This signed call has no actor.
        team.caller.post("/config/bind", &bind).await.is(signed);
        // A system admin is an admin here, unless `policy.admins` names others.
        let by_role = team
            .type_command(ADA, &format!("bind {ACCOUNT} max 2h"))
            .await;
        let is_refused = by_role.contains("only the admins named in policy");
        assert_eq!(is_refused, signed == 403, "{key}: {by_role}");
    }
}

/// jit shows a request of another channel only to its requester, its approvers and the admins.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_other_channels_are_not_shown() {
    let team = Team::bound().await;
    team.type_command(ALICE, &format!("request {ACCOUNT} admin 1h secret reason"))
        .await;
    let id = team.newest().await;
    let elsewhere = |who: &'static str, text: String| {
        let team = &team;
        async move {
            team.type_command_in("f3h9orfn33ge7nxnhyaj1kdqqo", "lunch", who, &text)
                .await
        }
    };
    for text in [
        format!("status {id}"),
        format!("status {}", &id[..13]),
        format!("revoke {id}"),
    ] {
        let said = elsewhere(MALLORY, text).await;
        assert!(said.contains("no request of this channel"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    for who in [ALICE, BOB, ADA] {
        let said = elsewhere(who, format!("status {id}")).await;
        assert!(said.contains("**PENDING**"), "{said}");
    }
}

/// jit escapes the text of users: it mentions no user and contains no link and no image.
#[tokio::test(flavor = "multi_thread")]
async fn text_of_people_is_shown_escaped() {
    let team = Team::bound().await;
    let why =
        "@all see ![x](https://evil.example/p.png) | a |\n# big `code` <https://evil.example|here>";
    let said = team
        .type_command(ALICE, &format!("request {ACCOUNT} admin 1h {why}"))
        .await;
    for active in [
        "@all",
        "![",
        "](",
        "https://",
        "\n#",
        "| a |",
        " <https",
        "example|here",
    ] {
        assert!(!said.contains(active), "{active:?} in {said}");
    }
    let id = id_in(&said);
    let unknown = team.type_command(ALICE, "status abcd").await;
    assert!(unknown.contains("`abcd`"), "{unknown}");
    let several = team
        .type_command(ALICE, &format!("request {ACCOUNT} readonly 1h again"))
        .await;
    assert_ne!(id_in(&several), id);
    let ambiguous = team
        .type_command(ALICE, &format!("status {}", &id[..4]))
        .await;
    assert!(ambiguous.contains("several requests begin"), "{ambiguous}");
}

/// jit refuses a command of a megabyte and continues to work.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_megabyte_is_refused() {
    let team = Team::bound().await;
    let flood = form(
        TOKEN,
        TEAM,
        CHANNEL,
        "aws-prod",
        ALICE,
        &"x".repeat(1_000_000),
    );
    assert_eq!(team.send(flood).await.status, 413);
    let long = team
        .type_command(
            ALICE,
            &format!("request {ACCOUNT} admin 1h {}", "y".repeat(5_000)),
        )
        .await;
    assert!(long.contains("1000 characters"), "{long}");
}
