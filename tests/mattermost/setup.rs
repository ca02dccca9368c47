//! `jit mattermost setup` and `jit mattermost check`, on a new server and after manual changes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::common::binary;
use crate::common::mattermost::{ADMIN, Server};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The command as an admin types it, without the admin's token.
fn typed(server: &Server) -> Command {
    let mut command = binary();
    command.args(["mattermost", "setup", "--team", "acme"]);
    command.args([
        "--public-url",
        "https://jit.example.com",
        "--url",
        &server.url,
    ]);
    command
}

fn set_up(server: &Server, folder: &Path) -> Ran {
    set_up_with(server, folder, &[])
}

fn set_up_with(server: &Server, folder: &Path, more: &[&str]) -> Ran {
    ran(typed(server)
        .args(more)
        .env("JIT_CONFIG", folder.join("jit.toml"))
        .env("JIT_MATTERMOST_ADMIN_TOKEN", ADMIN))
}

impl Ran {
    fn prints(&self, words: &[&str]) {
        for word in words {
            assert!(self.out.contains(word), "no {word:?} in {}", self.out);
        }
    }
}

fn check(folder: &Path) -> Ran {
    ran(binary()
        .args(["mattermost", "check"])
        .env("JIT_CONFIG", folder.join("jit.toml")))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("jit.toml"),
        "[identity_center]\nmode = \"sandbox\"\n",
    )
    .unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_creates_everything_once_and_check_passes() {
    let (server, folder) = (Server::open().await, folder());
    let first = set_up(&server, folder.path());
    assert_eq!(first.code, 0, "{}", first.err);
    first.prints(&["made the bot jit", "made the command /jit"]);
    assert!(
        !first.out.contains("bottoken") && !first.out.contains(ADMIN),
        "{}",
        first.out
    );
    let command = server.with(|kept| kept.command.clone().unwrap());
    assert_eq!(command["url"], "https://jit.example.com/mattermost/command");
    assert_eq!(
        (&command["method"], &command["trigger"]),
        (&json!("P"), &json!("jit"))
    );
    for file in ["mattermost-bot-token", "mattermost-command-token"] {
        let mode = folder
            .path()
            .join(file)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // `jit mattermost check` accepts the configuration that the setup wrote.
    let checked = check(folder.path());
    assert_eq!(checked.code, 0, "{} {}", checked.out, checked.err);
    checked.prints(&["the command /jit exists", "jit can verify clicks"]);
    let written = std::fs::read_to_string(folder.path().join("jit.toml")).unwrap();
    assert!(
        written.contains("public_url = \"https://jit.example.com\""),
        "{written}"
    );
    server.with(|kept| kept.signs_with = None);
    let unsigned = check(folder.path());
    assert!(
        unsigned.err.contains("does not publish its signing key"),
        "{}",
        unsigned.err
    );
    let written = std::fs::read_to_string(folder.path().join("jit.toml")).unwrap();
    let made = server.with(|kept| kept.made);
    let again = set_up(&server, folder.path());
    assert_eq!(again.code, 0, "{}", again.err);
    again.prints(&["the bot jit exists already", "the token of the bot works"]);
    assert_eq!(
        server.with(|kept| kept.made),
        made,
        "the second setup made something"
    );
    assert!(
        std::fs::read_to_string(folder.path().join("jit.toml"))
            .unwrap()
            .starts_with(&written)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_repairs_manual_changes() {
    let (server, folder) = (Server::open().await, folder());
    assert_eq!(set_up(&server, folder.path()).code, 0);
    server.with(|kept| {
        kept.command.as_mut().unwrap()["url"] = "http://elsewhere.example".into();
        kept.command.as_mut().unwrap()["method"] = "G".into();
        kept.bot.as_mut().unwrap()["delete_at"] = 5.into();
        kept.bot_tokens.clear();
    });
    let broken = check(folder.path());
    assert_eq!(broken.code, 1);
    assert!(
        broken.err.contains("mattermost.bot_token"),
        "{}",
        broken.err
    );
    let again = set_up(&server, folder.path());
    assert_eq!(again.code, 0, "{}", again.err);
    for word in [
        "enabled the bot jit",
        "made a token for the bot",
        "corrected the command /jit",
    ] {
        assert!(again.out.contains(word), "{word}: {}", again.out);
    }
    assert_eq!(check(folder.path()).code, 0);
    server.with(|kept| kept.command = None);
    let gone = check(folder.path());
    assert!(gone.err.contains("has no command /jit"), "{}", gone.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_setup_reports_its_reason() {
    let (server, folder) = (Server::open().await, folder());
    server.with(|kept| kept.admin_roles = "system_user".into());
    let refused = set_up(&server, folder.path());
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("not the token of a system admin"),
        "{}",
        refused.err
    );
    server.with(|kept| {
        kept.admin_roles = "system_admin".into();
        kept.bot = Some(json!({"id": "x", "username": "jit", "delete_at": 0}));
    });
    let taken = set_up(&server, folder.path());
    assert!(taken.err.contains("is a person"), "{}", taken.err);
    let without = ran(typed(&server).stdin(std::process::Stdio::null()));
    assert_eq!(without.code, 2);
    assert!(without.err.contains("--token-file"), "{}", without.err);
    let none = check(folder.path());
    assert!(none.err.contains("jit mattermost setup"), "{}", none.err);
}

/// W13: the check reported success while Mattermost could not reach jit, or jit refused its
/// command token.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_types_a_command_and_names_what_is_wrong() {
    let (server, folder) = (Server::open().await, folder());
    let first = set_up(&server, folder.path());
    first.prints(&["restart jit serve"]);
    let passed = check(folder.path());
    passed.prints(&["reaches jit", "does not verify e-mail addresses"]);
    server.with(|kept| kept.verifies_addresses = true);
    assert!(!check(folder.path()).out.contains("warning"));
    let failed = "Command with a trigger of 'jit' failed.";
    let config = folder.path().join("jit.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    let at = |url: &str| {
        std::fs::write(&config, written.replace("https://jit.example.com", url)).unwrap();
    };
    let jit = crate::common::Setup::default().start();
    for (fails, url, wanted) in [
        (failed, "http://127.0.0.1:9", "start it with jit serve"),
        (
            failed,
            jit.url.as_str(),
            "AllowedUntrustedInternalConnections",
        ),
        // The command has the address of another server.
        (
            "Command with a trigger of 'jit' returned response 404 Not Found.",
            jit.url.as_str(),
            "check the URL of the command /jit; jit mattermost setup",
        ),
        (
            "Command with a trigger of 'jit' returned response 401 Unauthorized.",
            jit.url.as_str(),
            "mattermost.command_tokens",
        ),
        (
            "Der Befehl mit dem Auslöser 'jit' hat die Antwort 401 Unauthorized zurückgegeben.",
            jit.url.as_str(),
            "mattermost.command_tokens",
        ),
    ] {
        at(url);
        server.with(|kept| kept.command_fails = Some((500, fails.to_owned())));
        let told = check(folder.path());
        assert_eq!(told.code, 1, "{}", told.out);
        assert!(told.err.contains(wanted), "{wanted}: {}", told.err);
    }
}

/// W13: the setup added a second section to a file whose section has a comment after its name, and
/// then jit did not start.
#[tokio::test(flavor = "multi_thread")]
async fn setup_adds_no_second_section_and_touches_no_invalid_file() {
    let (server, folder) = (Server::open().await, folder());
    assert_eq!(set_up(&server, folder.path()).code, 0);
    let config = folder.path().join("jit.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    for section in ["[mattermost]   # without a plugin", "[ mattermost ]"] {
        let with_comment = written.replace("[mattermost]", section);
        std::fs::write(&config, &with_comment).unwrap();
        let again = set_up(&server, folder.path());
        assert_eq!(again.code, 0, "{}", again.err);
        again.prints(&["jit did not change it"]);
        assert_eq!(std::fs::read_to_string(&config).unwrap(), with_comment);
        assert_eq!(check(folder.path()).code, 0, "{section}");
    }
    let made = server.with(|kept| kept.made);
    std::fs::write(&config, "[keys.a]\nsecret = hush-hush\n").unwrap();
    let refused = set_up(&server, folder.path());
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.err.contains("line 2"), "{}", refused.err);
    assert!(!refused.err.contains("hush"), "{}", refused.err);
    assert_eq!(server.with(|kept| kept.made), made);
}

/// W13
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_and_a_missing_file_are_named() {
    let server = Server::open().await;
    let folder = tempfile::tempdir().unwrap();
    let none = check(folder.path());
    assert!(none.err.contains("does not exist"), "{}", none.err);
    let made = set_up(&server, folder.path());
    made.prints(&["[permission_sets]", "--config FILE"]);
    std::fs::remove_file(folder.path().join("mattermost-bot-token")).unwrap();
    let again = set_up(&server, folder.path());
    again.prints(&["older tokens of the bot: 1", "within two seconds"]);
}

/// W13: an address without a server was reported as a fault of the token, without its cause.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_mattermost_is_named_with_its_cause() {
    let (server, folder) = (Server::open().await, folder());
    assert_eq!(set_up(&server, folder.path()).code, 0);
    let config = folder.path().join("jit.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    let nothing_there = format!("{}/elsewhere", server.url);
    for (url, cause) in [
        ("http://127.0.0.1:9", "onnection refused"),
        ("http://no.such.invalid", "dns error"),
        (nothing_there.as_str(), "404"),
    ] {
        // D3: the path can contain a secret.
        let shown = url.trim_end_matches("/elsewhere");
        let named = |key: &str| format!("{key}: no Mattermost answers at {shown}: ");
        std::fs::write(&config, written.replace(&server.url, url)).unwrap();
        let checked = check(folder.path());
        assert_eq!(checked.code, 1, "{}", checked.out);
        for word in [named("mattermost.url").as_str(), cause] {
            assert!(checked.err.contains(word), "{word}: {}", checked.err);
        }
        let wrong = ran(binary()
            .args(["mattermost", "setup", "--team", "acme", "--url", url])
            .args(["--public-url", "https://jit.example.com"])
            .env("JIT_CONFIG", folder.path().join("other.toml"))
            .env("JIT_MATTERMOST_ADMIN_TOKEN", ADMIN));
        for word in [named("--url").as_str(), cause] {
            assert!(wrong.err.contains(word), "{word}: {}", wrong.err);
        }
    }
}

/// W13
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_team_and_another_url_of_the_command_are_named() {
    let (server, folder) = (Server::open().await, folder());
    let unknown = ran(binary()
        .args([
            "mattermost",
            "setup",
            "--team",
            "acne",
            "--url",
            &server.url,
        ])
        .args(["--public-url", "https://jit.example.com"])
        .env("JIT_CONFIG", folder.path().join("jit.toml"))
        .env("JIT_MATTERMOST_ADMIN_TOKEN", ADMIN));
    assert!(unknown.err.contains("no team acne"), "{}", unknown.err);
    assert_eq!(set_up(&server, folder.path()).code, 0);
    server.with(|kept| {
        kept.bot_sees_urls = true;
        kept.command.as_mut().unwrap()["url"] = "https://old.example.com/mattermost/command".into();
    });
    let checked = check(folder.path());
    for word in ["https://old.example.com", "jit mattermost setup"] {
        assert!(checked.err.contains(word), "{word}: {}", checked.err);
    }
    assert_eq!(set_up(&server, folder.path()).code, 0);
    assert_eq!(check(folder.path()).code, 0);
}

/// W13: each setup without a stored token made one more token, and the older ones kept working.
#[tokio::test(flavor = "multi_thread")]
async fn older_tokens_of_the_bot_are_revoked_after_the_new_one_works() {
    let (server, folder) = (Server::open().await, folder());
    let tokens = || server.with(|kept| kept.bot_tokens.clone());
    let file = folder.path().join("mattermost-bot-token");
    assert_eq!(set_up(&server, folder.path()).code, 0);
    server.with(|kept| kept.bot_tokens.push("madebyhand".into()));
    let first = tokens();
    std::fs::remove_file(&file).unwrap();
    // A new token revokes nothing: jit may run elsewhere, with an older one.
    let made = set_up_with(&server, folder.path(), &["--revoke-older-tokens"]);
    made.prints(&["made a token for the bot", "older tokens of the bot: 1"]);
    assert_eq!(tokens().len(), first.len() + 1, "{}", made.out);
    let stored = std::fs::read_to_string(&file).unwrap();
    // The advised command works as it is.
    let advised = made.out.split("revoke them with: jit ").nth(1).unwrap();
    let advised = advised.lines().next().unwrap();
    let revoked = ran(binary()
        .args(advised.split(' '))
        .env("JIT_CONFIG", folder.path().join("jit.toml"))
        .env("JIT_MATTERMOST_ADMIN_TOKEN", ADMIN));
    revoked.prints(&["revoked older tokens of the bot: 1"]);
    // The token of an admin and the stored one are left.
    assert_eq!(tokens(), ["madebyhand", stored.trim()]);
    let again = set_up_with(&server, folder.path(), &["--revoke-older-tokens"]);
    again.prints(&["revoked older tokens of the bot: 0"]);
    // A stored token whose id jit does not know: it revokes none.
    server.with(|kept| kept.bot_tokens.push("bottoken99".into()));
    std::fs::write(&file, "madebyhand\n").unwrap();
    let unknown = set_up_with(&server, folder.path(), &["--revoke-older-tokens"]);
    assert_eq!(unknown.code, 1, "{}", unknown.out);
    assert!(
        unknown.err.contains("does not know the id"),
        "{}",
        unknown.err
    );
    assert_eq!(tokens().len(), 3);
}
