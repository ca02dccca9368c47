//! The life of a request with slash commands.

use serde_json::json;

use crate::server::{ACCOUNT, ADA, ALICE, BOB, BOT, CHANNEL, MALLORY, Team, id_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_approved_and_revoked_by_slash_commands() {
    let team = Team::bound().await;
    let asked = team
        .type_command(ALICE, &format!("request {ACCOUNT} admin 2h INC-42 db down"))
        .await;
    assert!(
        asked.contains("**PENDING**") && asked.contains("one approver"),
        "{asked}"
    );
    let id = id_in(&asked);
    assert!(asked.contains(&format!("`/jit approve {id}`")), "{asked}");
    let own = team.type_command(ALICE, &format!("approve {id}")).await;
    assert!(own.contains(":warning:"), "the requester approved: {own}");
    let other = team.type_command(MALLORY, &format!("approve {id}")).await;
    assert!(
        other.contains(":warning:"),
        "a user who is no approver approved: {other}"
    );
    let approved = team.type_command(BOB, &format!("approve {id}")).await;
    assert!(approved.starts_with("Approved."), "{approved}");
    let full = team.newest().await;
    team.caller.until(&full, "GRANTED").await;
    let listed = team.type_command(MALLORY, "list").await;
    assert!(
        listed.contains("**GRANTED**") && listed.contains("left"),
        "{listed}"
    );
    let mine = team.type_command(ALICE, "status").await;
    assert!(mine.contains(&id), "{mine}");
    let stranger = team
        .type_command(MALLORY, &format!("revoke {id} for fun"))
        .await;
    assert!(stranger.contains("only the requester"), "{stranger}");
    let gone = team
        .type_command(BOB, &format!("revoke {id} incident 7"))
        .await;
    assert!(
        gone.starts_with("Revoked:") && gone.contains("**REVOKED**"),
        "{gone}"
    );
    let shown = team.caller.show(&full).await;
    assert_eq!(
        (
            shown["revoked_by"].as_str(),
            shown["revoke_reason"].as_str()
        ),
        (Some("bob@example.com"), Some("incident 7"))
    );
    assert_eq!(
        team.type_command(ALICE, "list").await,
        "This channel has no open requests."
    );
    let events = team.caller.audit(&full).await;
    assert_eq!(events[0]["actor_mm_user_id"], ALICE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_slash_commands_work() {
    let team = Team::bound().await;
    let ask = async |more: &str| {
        id_in(
            &team
                .type_command(ALICE, &format!("request {ACCOUNT} {more}"))
                .await,
        )
    };
    let denied = team
        .type_command(
            BOB,
            &format!("deny {} use readonly", ask("admin 1h one").await),
        )
        .await;
    assert!(denied.contains("**DENIED**"), "{denied}");
    let taken = team
        .type_command(ALICE, &format!("cancel {}", ask("readonly two").await))
        .await;
    assert!(taken.contains("**CANCELLED**"), "{taken}");
    let unbound = team
        .type_command(ALICE, "request 999988887777 admin 1h three")
        .await;
    assert!(unbound.contains(":warning:"), "{unbound}");
    let long = team
        .type_command(ALICE, &format!("request {ACCOUNT} admin 3d four"))
        .await;
    assert!(long.contains(":warning:"), "{long}");
    let id = ask("admin 1h five").await;
    team.type_command(BOB, &format!("approve {id}")).await;
    let full = team.caller.get("/requests?status=GRANTED").await;
    assert_eq!(full.status, 200);
    let begun = std::time::Instant::now();
    while !team
        .type_command(ALICE, &format!("status {id}"))
        .await
        .contains("**GRANTED**")
    {
        assert!(begun.elapsed() < crate::common::TIMEOUT);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let more = team.type_command(ALICE, &format!("extend {id} 30m")).await;
    assert!(more.starts_with("Extension requested"), "{more}");
    let info = team.type_command(MALLORY, "info").await;
    assert!(
        info.contains(ACCOUNT) && info.contains("admin, readonly"),
        "{info}"
    );
    let help = team.type_command(MALLORY, "help").await;
    assert!(help.contains("`/jit revoke ID"), "{help}");
    let typo = team.type_command(MALLORY, "aprove 01a1").await;
    assert!(typo.contains("`/jit approve 01a1`"), "{typo}");
}

/// An approver may decide in the channel for direct messages with the bot, with the short id.
#[tokio::test(flavor = "multi_thread")]
async fn an_approver_may_approve_in_a_direct_message() {
    let team = Team::bound().await;
    let id = team.requested().await;
    team.mattermost.card("PENDING", &["approve", "deny"]).await;
    let alone = async |who: &'static str, text: String| {
        let name = format!("{BOT}__{who}");
        team.type_command_in("ixxre3hujjbcuenn8nib1ym7io", &name, who, &text)
            .await
    };
    let stranger = alone(MALLORY, format!("approve {id}")).await;
    assert!(stranger.contains("no request"), "{stranger}");
    let own = alone(ALICE, format!("status {id}")).await;
    assert!(own.contains("**PENDING**"), "{own}");
    let card = &team.mattermost.cards()[0].id;
    assert!(own.contains(&format!("/_redirect/pl/{card})")), "{own}");
    let approved = alone(BOB, format!("approve {id}")).await;
    assert!(approved.starts_with("Approved."), "{approved}");
    team.mattermost.card("GRANTED", &["revoke"]).await;
    let gone = alone(BOB, format!("revoke {id}")).await;
    assert!(gone.starts_with("Revoked:"), "{gone}");
}

/// While AWS removes an assignment slowly, jit answers before Mattermost stops waiting. The
/// answer does not report the removal as done.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_removal_is_answered_before_it_is_done() {
    let (team, id) = Team::slowly_granted().await;
    let going = team.type_command(ALICE, &format!("revoke {id}")).await;
    assert!(going.contains("continues until AWS shows"), "{going}");
    assert!(!going.contains("REVOKED"), "{going}");
    // H7: the answers said how much time is left of access that jit was removing.
    for shown in [
        going,
        team.type_command(ALICE, "list").await,
        team.type_command(ALICE, &format!("status {id}")).await,
    ] {
        assert!(shown.contains("**GRANTED, being removed**"), "{shown}");
        assert!(!shown.contains(" left"), "{shown}");
    }
    team.caller.until(&team.newest().await, "REVOKED").await;
}

/// W1: jit chooses no permission set of several, and says what it assumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_set_is_refused_with_the_list_of_sets_and_a_missing_time_is_told() {
    let team = Team::bound().await;
    let said = team
        .type_command(ALICE, &format!("request {ACCOUNT} 30m look"))
        .await;
    let command = format!("`/jit request {ACCOUNT} readonly 30m look`");
    assert!(said.contains(&command), "{said}");
    let listed = team.type_command(ALICE, "list").await;
    assert_eq!(listed, "This channel has no open requests.");
    let said = team
        .type_command(ALICE, &format!("request {ACCOUNT} readonly look"))
        .await;
    assert!(
        said.contains("no time was typed: it is for 60 minutes"),
        "{said}"
    );
    let said = team
        .type_command(ALICE, &format!("request {ACCOUNT} readonly 5m look"))
        .await;
    assert!(!said.contains("was typed"), "{said}");
}

/// W1: a configured default is used, and told.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_names_the_default_permission_set() {
    let team = Team::bound_with(crate::common::Setup {
        more: "[policy]\ndefault_permission_set = \"readonly\"\n".into(),
        ..crate::common::Setup::default()
    })
    .await;
    let said = team
        .type_command(ALICE, &format!("request {ACCOUNT} 30m look"))
        .await;
    assert!(said.contains("readonly in"), "{said}");
    assert!(
        said.contains("no permission set was typed: it is for readonly"),
        "{said}"
    );
}

/// W5: a list says how many requests it leaves out. In a direct message, an approver sees what
/// waits for a decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_tells_what_it_leaves_out_and_shows_an_approver_what_waits() {
    let team = Team::bound().await;
    for number in 0..23 {
        let changes = json!({
            "account_id": ACCOUNT,
            "channel_id": CHANNEL,
            "requester_mm_user_id": ALICE,
            "permission_set": "readonly",
            "reason": format!("number {number}"),
        });
        team.caller.request_with(changes).await;
    }
    let alone = format!("{BOT}__{BOB}");
    let hers = format!("{BOT}__{MALLORY}");
    let dm = "ixxre3hujjbcuenn8nib1ym7io";
    for listed in [
        team.type_command(MALLORY, "list").await,
        team.type_command(ALICE, "status").await,
        team.type_command_in(dm, &alone, BOB, "list").await,
    ] {
        assert!(listed.contains("and 3 more PENDING"), "{listed}");
        // The list shows no ids for `/jit status ID`; the cards do.
        assert!(listed.contains("search Mattermost for PENDING"), "{listed}");
        assert_eq!(listed.lines().count(), 21, "{listed}");
    }
    let none = team.type_command_in(dm, &hers, MALLORY, "list").await;
    assert!(none.contains("You have no open requests"), "{none}");
    // W6: a line names the person as Mattermost does, too.
    let listed = team.type_command(MALLORY, "list").await;
    assert!(listed.contains("(@\u{200b}alice)"), "{listed}");
}

/// W5: two people with many requests hid those of all others in a direct message.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_a_direct_message_tells_that_jit_did_not_read_everything() {
    let team = Team::bound().await;
    team.requested().await;
    let (channel, account) = ("f3h9orfn33ge7nxnhyaj1kdqqo", "999988887777");
    let terms = json!({"channel_id": channel, "account_id": account});
    team.caller.post("/config/bind", &terms).await.is(200);
    let approvers = json!({"channel_id": channel, "approver_ids": [ADA]});
    team.caller
        .post("/config/approvers", &approvers)
        .await
        .is(200);
    for number in 0..600 {
        let person = format!("other{}", number % 2);
        let changes = json!({
            "account_id": account, "channel_id": channel, "requester_mm_user_id": person,
            "requester_email": format!("{person}@example.com"), "permission_set": "readonly",
            "reason": "many",
        });
        team.caller.request_with(changes).await;
    }
    let alone = format!("{BOT}__{BOB}");
    let dm = "ixxre3hujjbcuenn8nib1ym7io";
    let listed = team.type_command_in(dm, &alone, BOB, "list").await;
    assert!(listed.contains("only the newest 600 PENDING"), "{listed}");
    let here = team.type_command(BOB, "list").await;
    assert!(
        here.contains("**PENDING**") && !here.contains("newest 600"),
        "{here}"
    );
}

/// W5: chat said that a channel has no open requests while jit could not read one.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_names_requests_that_jit_cannot_read() {
    let team = Team::bound().await;
    team.requested().await;
    let id = team.newest().await;
    let team = team.restarted(|folder| {
        let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
        let sql = "UPDATE jit_requests SET doc = '{'";
        assert_eq!(db.execute(sql, []), Ok(1));
    });
    let listed = team.type_command(BOB, "list").await;
    let wanted = format!("cannot read the records of 1 request: `{id}`");
    assert!(listed.contains(&wanted), "{listed}");
    let alone = format!("{BOT}__{BOB}");
    let dm = "ixxre3hujjbcuenn8nib1ym7io";
    let listed = team.type_command_in(dm, &alone, BOB, "list").await;
    assert!(listed.contains("records of 1 request."), "{listed}");
}

/// K12: for the beginning of the id of a record that jit cannot read, the answer said that there is
/// no such request; for the whole id, that jit cannot use its store at the moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_the_id_of_an_unreadable_record_is_answered_like_the_whole_id() {
    let team = Team::bound().await;
    let short = team.requested().await;
    let id = team.newest().await;
    let asked = format!("request {ACCOUNT} readonly 1h y");
    let other = id_in(&team.type_command(ALICE, &asked).await);
    let team = team.restarted(|folder| {
        let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
        let sql = "UPDATE jit_requests SET doc = '{' WHERE request_id = ?1";
        assert_eq!(db.execute(sql, [&id]), Ok(1));
    });
    let whole = team.type_command(BOB, &format!("status {id}")).await;
    let wanted = format!("cannot read the record of the request `{id}`");
    assert!(whole.contains(&wanted), "{whole}");
    for command in ["status", "approve", "revoke"] {
        let said = team.type_command(BOB, &format!("{command} {short}")).await;
        assert_eq!(said, whole, "{command}");
    }
    // Both requests begin with the same digits, which tell the time.
    let both = team
        .type_command(BOB, &format!("revoke {}", &id[..4]))
        .await;
    assert!(both.contains("several requests"), "{both}");
    assert!(both.contains(&id) && both.contains(&other), "{both}");
}

/// W5: a request whose end a worker still checks at AWS may have its access.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_a_request_whose_end_is_checked_at_aws() {
    let (team, id) = Team::slowly_granted().await;
    let team = team.restarted(|folder| {
        let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
        let sql = "UPDATE jit_requests SET status = 'REVOKED', revoked_at = '2026-01-15T10:00:00Z'";
        assert_eq!(db.execute(sql, []), Ok(1));
    });
    let listed = team.type_command(BOB, "list").await;
    assert!(listed.contains(&id), "{listed}");
}

/// W12: a direct message advised a command that jit refuses there.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_a_direct_message_is_sent_to_a_team_channel() {
    let team = Team::bound().await;
    let alone = format!("{BOT}__{ALICE}");
    let dm = "ixxre3hujjbcuenn8nib1ym7io";
    let typed = format!("request {ACCOUNT} readonly 1h x");
    let said = team.type_command_in(dm, &alone, ALICE, &typed).await;
    assert!(said.contains("in a team channel"), "{said}");
    assert!(!said.contains("/jit bind"), "{said}");
    let bound = team
        .type_command(ADA, &format!("bind {ACCOUNT} max 1h"))
        .await;
    assert!(bound.contains("for up to 1 hour;"), "{bound}");
}
