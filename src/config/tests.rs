mod secrets;

use std::io;
use std::path::Path;

use super::{
    Config, ConfigError, Elsewhere, FetchedSecrets, IdentityCenterConfig, Scope, StoreKind,
    Variables, check, environment,
};
use crate::domain::{Admins, Millis};
use crate::store::dynamodb::Table;

const WHOLE: &str = include_str!("../../jit.example.toml");

fn from(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables: Variables = variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let read_file = |path: &Path| match path.to_str() {
        Some("plugin.secret") => Ok("from a file, 32 bytes and a line\n".into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let elsewhere = Elsewhere {
        read_file: &read_file,
        kept: &FetchedSecrets::default(),
    };
    check::checked(
        environment::overlay(Path::new("jit.toml"), text, &variables)?,
        elsewhere,
    )
}

fn refused(text: &str, variables: &[(&str, &str)]) -> String {
    let error = from(text, variables).expect_err(text).to_string();
    assert!(!error.contains('\n'), "{error}");
    assert!(
        !error.contains("hush"),
        "the error contains a secret: {error}"
    );
    error
}

#[test]
fn the_example_file_is_valid() {
    // D4: its secrets are public, so jit refuses them.
    let error = refused(WHOLE, &[]);
    assert!(
        error.contains("jit.example.toml, which is public"),
        "{error}"
    );
    let whole = WHOLE.replace("change-me", "changed");
    // N1: it names no webhook that a newcomer does not have.
    assert!(from(&whole, &[]).unwrap().webhook.is_none());
    let (before, webhook) = whole.split_once("# [webhook]").unwrap();
    let (webhook, _) = webhook.split_once("\n\n").unwrap();
    let webhook = webhook
        .replace("\n# ", "\n")
        .replace("\"…\"", "\"hush-fedcba98\"");
    let config = from(&format!("{before}[webhook]{webhook}"), &[]).unwrap();
    assert_eq!(config.policy.pending_lifetime, Millis::hours(8));
    assert_eq!(config.webhook.as_ref().unwrap().signed_path, "/webhook");
    assert_eq!(config.keys["plugin"].scopes.len(), Scope::ALL.len());
}

#[test]
fn an_empty_file_lacks_only_the_permission_sets() {
    assert!(refused("", &[]).starts_with("permission_sets:"));
    let sandbox = from("[identity_center]\nmode = \"sandbox\"", &[]).unwrap();
    assert_eq!(sandbox.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(sandbox.policy.default_permission_set.as_str(), "admin");
}

#[test]
fn the_environment_overrides_the_file() {
    let sandbox = ("JIT_IDENTITY_CENTER__MODE", "sandbox");
    let config = from(
        "[server]\nlisten = \"127.0.0.1:1\"\n[keys.Key-One]\nsecret = \"hush-0123456789\"",
        &[
            sandbox,
            ("JIT_SERVER__LISTEN", "127.0.0.1:2"),
            ("JIT_POLICY__MAX_REQUEST_HOURS", "7"),
            ("JIT_SANDBOX__USERS", "[\"a@example.com\"]"),
            ("JIT_KEYS__KEY_ONE__REQUIRE_V2", "true"),
            ("JIT_KEYS__OTHER__SECRET", "1234567890123"),
            ("JIT_CONFIG", "elsewhere.toml"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.policy.max_request_hours, 7);
    assert_eq!(config.sandbox.users.len(), 1);
    assert!(config.keys["Key-One"].require_v2);
    // A secret that looks like a number stays a text.
    assert!(
        config.keys["other"]
            .secret
            .is_same_as(&crate::signature::Secret::new("1234567890123".into()))
    );
    let error = refused("", &[sandbox, ("JIT_SERVER__LISTEN", "here")]);
    assert!(
        error.starts_with("server.listen (JIT_SERVER__LISTEN):"),
        "{error}"
    );
    assert!(refused("", &[sandbox, ("JIT_SERVER__LISTN", "x")]).contains("listn"));
}

const ERRORS: &[(&str, &str)] = &[
    ("[server]\nlisten = 5", "server.listen"),
    ("[server]\nlissen = \"127.0.0.1:1\"", "lissen"),
    ("[sever]\nlisten = \"127.0.0.1:1\"", "sever"),
    ("[server]\nlisten = \"0.0.0.0:8080\"", "server.listen"),
    ("[keys.a]\n", "keys.a"),
    ("[keys.a]\nsecret = \"\"", "keys.a.secret"),
    ("[keys.a]\nsecret = 5", "keys.a.secret"),
    (
        "[keys.a]\nsecret = \"hush-0123456789\"\nsecret_file = \"f\"",
        "keys.a",
    ),
    (
        "[keys.a]\nsecret_file = \"not-there\"",
        "keys.a.secret_file",
    ),
    ("[keys.a]\nsecret_id = \"arn\"", "keys.a.secret_id"),
    (
        "[keys.a]\nsecret = \"hush-0123456789\"\nscopes = [\"everything\"]",
        "keys.a.scopes",
    ),
    (
        "[keys.a]\nsecret = \"hush-0123456789\"\nscopes = []",
        "keys.a.scopes",
    ),
    (
        "[keys.a]\nsecret = \"hush-0123456789\"\nexpires = \"soon\"",
        "keys.a.expires",
    ),
    (
        "[keys.a]\nsecret = \"hush-0123456789\"\n[keys.b]\nsecret = \"hush-0123456789\"",
        "keys.b",
    ),
    (
        "[policy]\npending_lifetime = \"8 hours\"",
        "policy.pending_lifetime",
    ),
    (
        "[policy]\npending_lifetime = \"0h\"",
        "policy.pending_lifetime",
    ),
    (
        "[policy]\nmax_request_hours = 0",
        "policy.max_request_hours",
    ),
    (
        "[policy]\ndefault_permission_set = \"root\"",
        "policy.default_permission_set",
    ),
    (
        "[permission_sets]\nadmin = \"AdministratorAccess\"",
        "permission_sets.admin",
    ),
    (
        "[permission_sets]\nadmin = { max_request_hours = 2 }",
        "permission_sets.admin",
    ),
    (
        "[permission_sets]\nadmin = { arn = \"arn:aws:sso:::permissionSet/a/b\", hours = 2 }",
        "hours",
    ),
    (
        "[permission_sets]\nadmin = { arn = \"arn:aws:sso:::permissionSet/a/b\", max_request_hours = 0 }",
        "permission_sets.admin.max_request_hours",
    ),
    (
        "[revocation]\nend_sessions = \"now\"",
        "revocation.end_sessions",
    ),
    ("[sandbox]\nfail_rate = 1.5", "sandbox.fail_rate"),
    ("[sandbox]\nstanding = [\"1/2/3\"]", "sandbox.standing"),
    (
        "[webhook]\nurl = \"mattermost\"\nsecret = \"hush-0123456789\"",
        "webhook.url",
    ),
    (
        "[webhook]\nurl = \"https://mm/plugins/x/webhook\"",
        "webhook",
    ),
    ("[accounts]\n12345 = \"acme\"", "accounts"),
    (
        "[accounts]\n111122223333 = \"two words\"",
        "accounts.111122223333",
    ),
    (
        "[accounts]\n111122223333 = \"444455556666\"",
        "accounts.111122223333",
    ),
    (
        "[accounts]\n111122223333 = \"acme\"\n444455556666 = \"Acme\"",
        "accounts.444455556666",
    ),
    ("[log]\nlevel = \"loud\"", "log.level"),
    (
        "[client]\nurl = \"here\"\nkey_id = \"a\"\nsecret = \"hush-0123456789\"",
        "client.url",
    ),
    ("[store]\nkind = \"oracle\"", "store.kind"),
];

#[test]
fn each_error_names_its_key_in_one_line() {
    for (text, names) in ERRORS {
        let text = format!("{text}\n[identity_center]\nmode = \"sandbox\"\n");
        let error = refused(&text, &[]);
        assert!(error.contains(names), "{names}: {error}");
    }
    let error = refused("[keys.a]\nsecret = \"hush-0123456789\" and more", &[]);
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn mode_aws_needs_every_identity_center_key() {
    let section = |more: &str| {
        format!(
            "[identity_center]\n{more}\n[permission_sets]\n\
             admin = \"arn:aws:sso:::permissionSet/ssoins-1/ps-1\""
        )
    };
    let arn = "instance_arn = \"arn:aws:sso:::instance/ssoins-1\"";
    let id = "identity_store_id = \"d-1\"";
    for (more, names) in [
        (id.to_owned(), "identity_center.instance_arn"),
        (arn.to_owned(), "identity_center.identity_store_id"),
        (
            format!("instance_arn = \"ssoins-1\"\n{id}"),
            "identity_center.instance_arn",
        ),
        (
            format!("{arn}\n{id}\ncalls_per_second = 50"),
            "identity_center.calls_per_second",
        ),
    ] {
        let error = refused(&section(&more), &[]);
        assert!(error.starts_with(names), "{names}: {error}");
    }
    let twice =
        section(&format!("{arn}\n{id}")) + "\nb = \"arn:aws:sso:::permissionSet/ssoins-1/ps-1\"";
    assert!(refused(&twice, &[]).starts_with("permission_sets.b"));
    let config = from(&section(&format!("{arn}\n{id}")), &[]).unwrap();
    let IdentityCenterConfig::Aws {
        options,
        calls_per_second,
    } = config.identity_center
    else {
        panic!("the default mode is aws");
    };
    assert_eq!(calls_per_second, 10);
    assert_eq!(options.identity_store_id, "d-1");
}

#[test]
fn two_tables_with_one_name_are_refused() {
    let with = |tables: &str| {
        format!(
            "[identity_center]\nmode = \"sandbox\"\n[store]\nkind = \"dynamodb\"\n\
             [store.tables]\n{tables}"
        )
    };
    let config = from(&with("audit = \"sec.audit\""), &[]).unwrap();
    assert_eq!(config.store.kind, StoreKind::Dynamodb);
    let named = [Table::Requests, Table::Audit].map(|table| config.store.tables.of(table));
    assert_eq!(named, ["jit_requests", "sec.audit"]);

    let error = refused(&with("audits = \"x_y\""), &[]);
    assert!(
        error.starts_with("store.tables.audits: is not a table"),
        "{error}"
    );
    let error = refused(&with("audit = \"jit_requests\""), &[]);
    assert!(
        error.starts_with("store.tables.audit: is the table of requests"),
        "{error}"
    );
}

#[test]
fn debug_output_contains_no_secret() {
    let text = "[identity_center]\nmode = \"sandbox\"\n[keys.a]\nsecret = \"hush-a-0123456789\"\n\
                [keys.b]\nsecret_file = \"plugin.secret\"\n[client]\nkey_id = \"a\"\nsecret = \"hush-0123456789\"\n\
                [webhook]\nurl = \"https://mm/webhook\"\nsecret = \"hush-0123456789\"";
    let config = from(text, &[]).unwrap();
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("hush") && !shown.contains("from a file"),
        "{shown}"
    );
    assert_eq!(config.files.len(), 1, "jit watches the file of the secret");
}

// A4
#[test]
fn a4_the_listeners_need_two_ports_and_metrics_tokens_have_no_secret_id() {
    let sandbox = ("JIT_IDENTITY_CENTER__MODE", "sandbox");
    let with = |server: &str| refused(&format!("[server]\n{server}\n"), &[sandbox]);
    let taken = with("metrics_listen = \"0.0.0.0:8080\"");
    assert!(taken.starts_with("server.metrics_listen: "), "{taken}");
    let both = with("metrics_token = \"hush\"\nmetrics_token_file = \"plugin.secret\"");
    assert!(both.contains("metrics_token, metrics_token_file"), "{both}");
    assert!(!both.contains("metrics_token_id"), "{both}");
}

// A6
#[test]
fn a6_the_limits_on_requests_are_not_zero() {
    let sandbox = ("JIT_IDENTITY_CENTER__MODE", "sandbox");
    for key in [
        "server.creates_per_second",
        "server.create_burst",
        "policy.max_pending_requests",
    ] {
        let variable = format!("JIT_{}", key.replace('.', "__").to_uppercase());
        let error = refused("", &[sandbox, (&variable, "0")]);
        assert!(error.starts_with(&format!("{key}: ")), "{error}");
    }
}

#[test]
fn the_signed_path_is_without_the_plugin_prefix() {
    for (url, path) in [
        ("https://mm/plugins/com.example.jit/webhook", "/webhook"),
        ("https://mm/plugins/com.example.jit", "/"),
        ("https://hooks.example.com/a/b", "/a/b"),
    ] {
        assert_eq!(
            super::check::seen_by_plugin(reqwest::Url::parse(url).unwrap().path()),
            path
        );
    }
}

/// `mattermost.admins` is the older key of the same list; only `policy.admins` limits signed calls.
#[test]
fn both_keys_of_admins_are_one_list() {
    let chat = |admins: &str| {
        format!(
            "[mattermost]\nurl = \"https://mattermost.example.com\"\n\
             public_url = \"https://jit.example.com\"\n\
             team_id = \"w1gu5cusqjgfppy84xsohzij6o\"\nbot_token = \"hush-bot-token\"\n\
             command_tokens = [\"hush-command-token\"]\nadmins = [{admins}]\n\
             [identity_center]\nmode = \"sandbox\"\n"
        )
    };
    let named = |name: &str| [name.to_owned()];
    let policy = "[policy]\nadmins = [\"Root@Example.com\"]\n";
    for (text, wanted) in [
        (chat(""), Admins::of_policy([])),
        (
            chat("\"Carol@Example.com\""),
            Admins::of_policy([]).and_of_mattermost(named("carol@example.com")),
        ),
        (
            format!("{policy}{}", chat("\"carol\"")),
            Admins::of_policy(named("root@example.com")).and_of_mattermost(named("carol")),
        ),
    ] {
        assert_eq!(from(&text, &[]).unwrap().policy.admins, wanted, "{text}");
    }
}

#[test]
fn mattermost_needs_every_key_of_its_section() {
    let whole = [
        ("url", "\"https://mattermost.example.com\""),
        ("public_url", "\"https://jit.example.com\""),
        ("team_id", "\"w1gu5cusqjgfppy84xsohzij6o\""),
        ("bot_token", "\"a-token-of-the-bot\""),
        ("command_tokens", "[\"a-token-of-the-command\"]"),
    ];
    let section = |changed: &str, value: &str| {
        let lines = whole.map(|(name, own)| match name == changed {
            true if value.is_empty() => String::new(),
            true => format!("{name} = {value}\n"),
            false => format!("{name} = {own}\n"),
        });
        let lines = lines.concat();
        format!("[mattermost]\n{lines}[identity_center]\nmode = \"sandbox\"\n")
    };
    let read = from(&section("", ""), &[]).unwrap();
    // With Mattermost, jit sends reminders by default.
    assert_eq!(read.policy.remind_before, Some(Millis::minutes(10)));
    for (name, value, wanted) in [
        ("url", "\"mattermost\"", "mattermost.url"),
        ("public_url", "\"jit\"", "mattermost.public_url"),
        ("public_url", "", "public_url"),
        ("team_id", "\"acme\"", "mattermost.team_id"),
        ("bot_token", "", "mattermost"),
        ("command_tokens", "[]", "mattermost.command_tokens"),
    ] {
        let error = refused(&section(name, value), &[]);
        assert!(error.contains(wanted), "{name} {value}: {error}");
    }
}

// C
#[test]
fn older_seal_keys_are_read_beside_the_present_one() {
    let with = |audit: &str| format!("[identity_center]\nmode = \"sandbox\"\n[audit]\n{audit}");
    let (new, old) = ("hush-0123456789-new", "hush-0123456789-old");
    let config = from(
        &with(&format!(
            "seal_key = \"{new}\"\nold_seal_keys = [\"{old}\"]"
        )),
        &[],
    );
    let keys = config.unwrap().seal_keys;
    let by_old = crate::signature::seal(&crate::signature::Secret::new(old.into()), "text");
    assert_eq!(keys.age_of("text", &by_old), Some(1));
    let by_new = keys.seal("text").unwrap();
    assert_eq!(keys.age_of("text", &by_new), Some(0));
    assert_eq!(keys.age_of("other", &by_new), None);
    for (audit, says) in [
        (
            format!("old_seal_keys = [\"{old}\"]"),
            "set audit.seal_key_file",
        ),
        (
            format!("seal_key = \"{old}\"\nold_seal_keys = [\"{old}\"]"),
            "has audit.seal_key itself",
        ),
        (
            format!("seal_key = \"{new}\"\nold_seal_keys = [\"hush\"]"),
            "shorter than 16",
        ),
    ] {
        let error = refused(&with(&audit), &[]);
        assert!(error.starts_with("audit.old_seal_keys"), "{error}");
        assert!(error.contains(says), "{error}");
    }
}

// D6
#[test]
fn a_secret_that_is_guessed_first_is_warned_about() {
    let chat = "[mattermost]\nurl = \"https://mattermost.example.com\"\n\
                public_url = \"https://jit.example.com\"\n\
                team_id = \"w1gu5cusqjgfppy84xsohzij6o\"\n";
    for (more, names) in [
        ("[keys.a]\nsecret = \"hushhushhush\"", "keys.a: is one of"),
        ("[keys.a]\nsecret = \"Password1!\"", "keys.a: is one of"),
        (
            &format!("{chat}bot_token = \"hushy\"\ncommand_tokens = [\"hush-0123456789\"]"),
            "mattermost.bot_token: is shorter",
        ),
        (
            &format!("{chat}bot_token = \"hush-01234\"\ncommand_tokens = [\"hushy\"]"),
            "mattermost.command_tokens: is shorter",
        ),
    ] {
        let read = from(
            &format!("[identity_center]\nmode = \"sandbox\"\n{more}"),
            &[],
        )
        .unwrap();
        let warned = read
            .warnings
            .iter()
            .any(|warning| warning.starts_with(names));
        assert!(warned, "{names}: {:?}", read.warnings);
    }
}

// D6
#[test]
fn a_public_address_of_the_metrics_is_warned_about() {
    for (address, warned) in [("0.0.0.0:9464", true), ("127.0.0.1:9464", false)] {
        let text = format!(
            "[identity_center]\nmode = \"sandbox\"\n[server]\nmetrics_listen = \"{address}\""
        );
        let config = from(&text, &[]).unwrap();
        let found = config.warnings.iter();
        let found = found.filter(|line| line.starts_with("server.metrics_listen:"));
        assert_eq!(found.count(), usize::from(warned), "{address}");
    }
}

// H4
#[test]
fn a_duration_may_have_several_units() {
    let arn = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111";
    let lasting = |text: &str| {
        let sets = format!("[permission_sets]\nadmin = \"{arn}\"\n");
        let policy = format!("{sets}[policy]\ngrant_patience = \"{text}\"\n");
        from(&policy, &[("JIT_IDENTITY_CENTER__MODE", "sandbox")])
    };
    for (text, wanted) in [
        ("1h30m", Millis::minutes(90)),
        ("19m50s", Millis::seconds(19 * 60 + 50)),
        ("90s", Millis::seconds(90)),
        ("2h", Millis::hours(2)),
    ] {
        assert_eq!(
            lasting(text).unwrap().policy.grant_patience,
            wanted,
            "{text}"
        );
    }
    for wrong in ["", "0m", "30", "30m1h", "1h30", "h", "-5m", "1d", "1h 30m"] {
        let why = lasting(wrong).unwrap_err().to_string();
        assert!(why.contains("1h30m"), "{wrong}: {why}");
    }
}
