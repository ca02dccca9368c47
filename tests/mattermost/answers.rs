//! The answers to commands: the state after a command, and commands that change nothing.

use crate::common::Setup;
use crate::server::{ACCOUNT, ADA, ALICE, BOB, BOT, MALLORY, Team, id_in};

/// The text as Mattermost shows it: without the characters that escape Markdown.
fn seen(text: &str) -> String {
    text.replace(['\u{200b}', '\\'], "")
}

async fn needs_two_approvals() -> Team {
    let team = Team::bound().await;
    team.type_command(ADA, "approvers @bob @mallory").await;
    team.type_command(ADA, &format!("bind {ACCOUNT} approvals 2"))
        .await;
    team
}

async fn approves_in_direct_message(team: &Team, text: &str) -> String {
    let alone = format!("{BOT}__{BOB}");
    let channel = "ixxre3hujjbcuenn8nib1ym7io";
    team.type_command_in(channel, &alone, BOB, text).await
}

async fn granted(team: &Team, id: &str) {
    for approver in [BOB, MALLORY] {
        team.type_command(approver, &format!("approve {id}")).await;
    }
    team.caller.until(&team.newest().await, "GRANTED").await;
}

// W5: the lists showed only GRANTED and the time that was left.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_extension_is_in_each_list_with_its_approvals() {
    let team = needs_two_approvals().await;
    let id = team.requested().await;
    granted(&team, &id).await;
    team.type_command(ALICE, &format!("extend {id} 30m")).await;
    team.type_command(BOB, &format!("approve {id}")).await;
    for listed in [
        team.type_command(ALICE, "list").await,
        team.type_command(ALICE, "status").await,
        team.type_command(ALICE, &format!("status {id}")).await,
        approves_in_direct_message(&team, "list").await,
    ] {
        for word in ["extension requested: 30 minutes", "1 of 2 approved"] {
            assert!(listed.contains(word), "{word}: {listed}");
        }
    }
    team.type_command(MALLORY, &format!("approve {id}")).await;
    let listed = team.type_command(ALICE, "list").await;
    for word in ["extension requested", "approved"] {
        assert!(!listed.contains(word), "{word}: {listed}");
    }
}

// W5: an approver saw the extension among access that waits for no decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_what_waits_for_a_decision_before_all_else() {
    let team = needs_two_approvals().await;
    let extended = team.requested().await;
    granted(&team, &extended).await;
    let asked = format!("request {ACCOUNT} readonly 1h x");
    let newer = id_in(&team.type_command(ALICE, &asked).await);
    granted(&team, &newer).await;
    team.type_command(ALICE, &format!("extend {extended} 30m"))
        .await;
    let listed = approves_in_direct_message(&team, "list").await;
    let place = |id: &str| listed.find(id).unwrap();
    assert!(place(&extended) < place(&newer), "{listed}");
}

// W12: the answer said "Approved", although another approval was missing.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_does_not_decide_says_how_many_are_missing() {
    let team = needs_two_approvals().await;
    let id = team.requested().await;
    let first = team.type_command(BOB, &format!("approve {id}")).await;
    assert!(
        first.starts_with("Approved. One more approval is needed.\n"),
        "{first}"
    );
    assert!(first.contains("1 of 2 approved"), "{first}");
    let listed = team.type_command(ALICE, "list").await;
    assert!(listed.contains("1 of 2 approved"), "{listed}");
    let last = team.type_command(MALLORY, &format!("approve {id}")).await;
    assert!(last.starts_with("Approved.\n"), "{last}");
}

// H3: the answer was a warning, as if the second command had failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_aim_is_reached_says_when_and_by_whom_without_a_warning() {
    let team = Team::bound().await;
    let id = team.requested().await;
    let approve = format!("approve {id}");
    team.type_command(BOB, &approve).await;
    team.caller.until(&team.newest().await, "GRANTED").await;
    let approved = team.type_command(BOB, &approve).await;
    let wanted = "You have approved it already; it is GRANTED.";
    assert!(approved.starts_with(wanted), "{approved}");
    let revoke = format!("revoke {id}");
    let gone = team.type_command(BOB, &revoke).await;
    assert!(gone.starts_with("Revoked:"), "{gone}");
    let again = seen(&team.type_command(ALICE, &revoke).await);
    assert!(again.starts_with("Already revoked at 20"), "{again}");
    assert!(
        again.contains(" UTC by bob@example.com (@bob).\n"),
        "{again}"
    );
    let stranger = team.type_command(MALLORY, &revoke).await;
    assert!(stranger.contains("only the requester"), "{stranger}");
    for (who, command, wanted) in [
        (BOB, "deny", "Already denied at 20"),
        (ALICE, "cancel", "Already cancelled at 20"),
    ] {
        let command = format!("{command} {}", team.requested().await);
        team.type_command(who, &command).await;
        let again = team.type_command(who, &command).await;
        assert!(again.starts_with(wanted), "{again}");
    }
}

// H7: the lower limit was used and not told.
#[tokio::test(flavor = "multi_thread")]
async fn a_bind_that_asks_for_more_than_is_allowed_names_the_limit() {
    let team = Team::bound().await;
    let bound = team
        .type_command(ADA, &format!("bind {ACCOUNT} max 100h"))
        .await;
    let wanted = format!("The longest time for `{ACCOUNT}` is 4 hours, not 100");
    assert!(bound.contains(&wanted), "{bound}");
    let bound = team
        .type_command(ADA, &format!("bind {ACCOUNT} max 4h"))
        .await;
    assert!(!bound.contains("longest"), "{bound}");
}

// H7: the answer was only the list of the other accounts.
#[tokio::test(flavor = "multi_thread")]
async fn an_unbind_says_that_the_account_is_not_bound_any_more() {
    let team = Team::with(Setup {
        more: format!("[accounts]\n{ACCOUNT} = \"acme-prod\"\n"),
        ..Setup::default()
    })
    .await;
    for account in ["acme-prod", "999988887777"] {
        team.type_command(ADA, &format!("bind {account}")).await;
    }
    let said = seen(&team.type_command(ADA, "unbind acme-prod").await);
    let wanted = format!("acme-prod (`{ACCOUNT}`) is not bound to this channel any more.\n");
    assert!(said.starts_with(&wanted), "{said}");
    assert!(said.contains("- `999988887777`"), "{said}");
}

// W12: the advised command had the word ACCOUNT.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_number_of_approvals_is_answered_with_a_command_for_the_account() {
    let team = Team::bound().await;
    let bind = format!("bind {ACCOUNT} approvals 2");
    let said = team.type_command(ADA, &bind).await;
    let wanted = format!("`/jit bind {ACCOUNT} approvals 1`");
    assert!(said.contains(&wanted), "{said}");
}

// W12: an id between backticks had backslashes.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_is_shown_as_it_was_typed() {
    let team = Team::bound().await;
    let unknown = team.type_command(ALICE, "status 01a221e1-3414").await;
    assert!(unknown.contains("`01a221e1-3414`"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approver_is_not_called_unknown_while_mattermost_gives_no_answer() {
    let team = Team::bound().await;
    // jit looks the admin up before Mattermost fails, and has not looked Mallory up.
    team.type_command(ADA, "info").await;
    team.mattermost.is_down(true);
    let unsure = seen(&team.type_command(ADA, "approvers @mallory").await);
    for words in [
        "jit cannot ask Mattermost about",
        "mallory just now; nothing was changed, try again",
    ] {
        assert!(unsure.contains(words), "{unsure}");
    }
    team.mattermost.is_down(false);
    let info = team.type_command(ADA, "info").await;
    assert!(!info.contains("mallory"), "{info}");
}

// H7: a permission set that allows less than the binding was not told.
#[tokio::test(flavor = "multi_thread")]
async fn h7_a_lower_limit_of_a_permission_set_is_told_and_shown() {
    let team = Team::bound_with(Setup::with(
        "[permission_sets.brief]\n\
         arn = \"arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-3333333333333333\"\n\
         max_request_hours = 1\n",
    ))
    .await;
    let info = seen(&team.type_command(ALICE, "info").await);
    assert!(
        info.contains("admin, brief (at most 1 hour), readonly for up to 4 hours"),
        "{info}"
    );
    for (terms, is_told) in [
        ("max 3h", false),
        ("max 4h sets brief,admin", true),
        ("max 4h sets admin", false),
    ] {
        let told = team
            .type_command(ADA, &format!("bind {ACCOUNT} {terms}"))
            .await;
        let lower = seen(&told).contains("with brief is 1 hour, not 4");
        assert_eq!(lower, is_told, "{terms}: {told}");
    }
}
