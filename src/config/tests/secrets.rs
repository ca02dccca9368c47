//! Secrets that others may know, and addresses at which others can read.

use super::{from, refused};

const HOOK: &str = "[webhook]\nurl = \"https://mm/webhook\"\n";
const KEY: &str = "[keys.a]\nsecret = \"hush-0123456789\"\n";

fn with(more: &str) -> String {
    format!("[identity_center]\nmode = \"sandbox\"\n{more}")
}

// D4
#[test]
fn a_secret_that_others_may_know_is_refused() {
    for (more, names) in [
        (
            "[keys.a]\nsecret = \"hush\"".to_owned(),
            "keys.a.secret: is shorter",
        ),
        (
            "[keys.a]\nsecret = \"change-me-hush-0123456789\"".to_owned(),
            "keys.a.secret: is the value of jit.example.toml",
        ),
        (
            "[keys.a]\nsecret = \"Change_Me_hush-0123456789\"".to_owned(),
            "keys.a.secret: is the value of jit.example.toml",
        ),
        (
            format!("{HOOK}secret = \"hush\""),
            "webhook.secret: is shorter",
        ),
        (
            "[client]\nkey_id = \"a\"\nsecret = \"hush\"".to_owned(),
            "client.secret: is shorter",
        ),
        (
            "[server]\nmetrics_token = \"hush\"".to_owned(),
            "server.metrics_token: is shorter",
        ),
        // D6
        (
            "[audit]\nseal_key = \"change-me-hush-0123456789\"".to_owned(),
            "audit.seal_key: is the value of jit.example.toml",
        ),
    ] {
        let error = refused(&with(&more), &[]);
        assert!(error.starts_with(names), "{names}: {error}");
    }
    // The shortest secrets of tests/data/signing-vectors.json are accepted.
    for secret in ["geheim-üöä", "callback-secret"] {
        from(&with(&format!("[keys.a]\nsecret = \"{secret}\"")), &[]).unwrap();
    }
}

// D4
#[test]
fn two_uses_of_one_secret_are_refused() {
    let seal = "hush-0123456789abcdef";
    let chat = "[mattermost]\nurl = \"https://mattermost.example.com\"\n\
                public_url = \"https://jit.example.com\"\n\
                team_id = \"w1gu5cusqjgfppy84xsohzij6o\"\n";
    for (more, names) in [
        (
            format!("[keys.a]\nsecret = \"{seal}\"\n[audit]\nseal_key = \"{seal}\""),
            "audit.seal_key: has the same secret as keys.a",
        ),
        (
            format!("{KEY}{HOOK}secret = \"hush-0123456789\""),
            "webhook: has the same secret as keys.a",
        ),
        (
            format!("{KEY}[server]\nmetrics_token = \"hush-0123456789\""),
            "server.metrics_token: has the same secret as keys.a",
        ),
        (
            format!("{KEY}{chat}bot_token = \"hush-bot\"\ncommand_tokens = [\"hush-0123456789\"]"),
            "mattermost.command_tokens: has the same secret as keys.a",
        ),
    ] {
        let error = refused(&with(&more), &[]);
        assert!(error.starts_with(names), "{names}: {error}");
    }
}

// D4
#[test]
fn an_address_at_which_others_can_read_is_warned_of() {
    let open = from(
        &with(&format!("[server]\nlisten = \"0.0.0.0:1\"\n{KEY}")),
        &[],
    )
    .unwrap();
    assert!(
        open.warnings[0].starts_with("server.listen: 0.0.0.0:1 "),
        "{:?}",
        open.warnings
    );
    let plain =
        "[client]\nurl = \"http://jit.example.com\"\nkey_id = \"a\"\nsecret = \"hush-0123456789\"";
    let plain = from(&with(&format!("{KEY}{plain}")), &[]).unwrap();
    assert!(
        plain.warnings[0].starts_with("client.url: http://"),
        "{:?}",
        plain.warnings
    );
    assert_eq!(
        from(&with(KEY), &[]).unwrap().warnings,
        Vec::<String>::new()
    );
}
