//! A Mattermost that nobody has prepared, and one where somebody changed something.
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::binary;
use crate::server::TEAM;

const ADMIN: &str = "h7saa1gaq78sdbixwxzq1uz1nh";

/// What it keeps, as the captures show it.
#[derive(Default)]
struct Kept {
    bot: Option<Value>,
    bot_tokens: Vec<String>,
    in_team: bool,
    command: Option<Value>,
    admin_roles: String,
    made: u32,
}

#[derive(Clone)]
struct Server {
    url: String,
    kept: Arc<Mutex<Kept>>,
}

impl Server {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kept = Kept {
            admin_roles: "system_admin system_user".into(),
            ..Kept::default()
        };
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            kept: Arc::new(Mutex::new(kept)),
        };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    fn with<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        change(&mut self.kept.lock().unwrap())
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let (status, value) =
        server.with(|kept| kept.answer(method.as_str(), uri.path(), token.unwrap_or(""), &body));
    (StatusCode::from_u16(status).unwrap(), value.to_string())
}

fn no(status: u16) -> (u16, Value) {
    (
        status,
        json!({"id": "x", "message": format!("no ({status})"), "detailed_error": "", "request_id": "r", "status_code": status}),
    )
}

impl Kept {
    fn answer(&mut self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let is_admin = token == ADMIN;
        let is_bot = self.bot_tokens.iter().any(|known| known == token);
        if !is_admin && !is_bot {
            return no(401);
        }
        let path = path.strip_prefix("/api/v4/").unwrap();
        let bot_id = "gmiabbkdop8bjpc3xf7fcdrqme";
        match (method, path) {
            ("GET", "users/me") if is_admin => {
                (200, json!({"id": "admin", "roles": self.admin_roles}))
            }
            ("GET", "users/me") => (200, self.bot.clone().unwrap()),
            ("GET", "teams/name/acme") => (200, json!({"id": TEAM, "name": "acme"})),
            ("GET", "users/username/jit") => {
                self.bot.clone().map_or_else(|| no(404), |bot| (200, bot))
            }
            ("POST", "bots") => {
                self.made += 1;
                self.bot = Some(
                    json!({"id": bot_id, "username": body["username"], "is_bot": true, "delete_at": 0, "roles": "system_user"}),
                );
                (
                    201,
                    json!({"user_id": bot_id, "username": body["username"]}),
                )
            }
            ("POST", path) if path == format!("bots/{bot_id}/enable") => {
                self.bot.as_mut().unwrap()["delete_at"] = 0.into();
                (200, json!({"user_id": bot_id}))
            }
            ("POST", path) if path == format!("teams/{TEAM}/members") => {
                self.in_team = true;
                (201, json!({"team_id": TEAM, "user_id": bot_id}))
            }
            ("GET", path) if path == format!("teams/{TEAM}/members/{bot_id}") && self.in_team => {
                (200, json!({"user_id": bot_id}))
            }
            ("POST", path) if path == format!("users/{bot_id}/tokens") => {
                self.made += 1;
                let token = format!("bottoken{}", self.made);
                self.bot_tokens.push(token.clone());
                (200, json!({"id": "t", "token": token, "user_id": bot_id}))
            }
            ("GET", "commands") => (200, self.command.iter().cloned().collect()),
            ("POST", "commands") => {
                self.made += 1;
                let mut command = body.clone();
                command["id"] = "54xpajn4wfbfurnuc4erzygoge".into();
                command["token"] = format!("commandtoken{}", self.made).into();
                self.command = Some(command.clone());
                (201, command)
            }
            ("PUT", "commands/54xpajn4wfbfurnuc4erzygoge") => {
                // A token that the client chooses is ignored.
                let token = self.command.as_ref().unwrap()["token"].clone();
                let mut command = body.clone();
                command["token"] = token;
                self.command = Some(command.clone());
                (200, command)
            }
            ("GET", path) if path == format!("teams/{TEAM}/commands/autocomplete") => {
                (200, self.command.iter().cloned().collect())
            }
            _ => no(404),
        }
    }
}

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

fn set_up(server: &Server, folder: &Path) -> Ran {
    ran(binary()
        .args([
            "mattermost",
            "setup",
            "--team",
            "acme",
            "--public-url",
            "https://jit.example.com",
            "--url",
            &server.url,
        ])
        .env("JIT_CONFIG", folder.join("jit.toml"))
        .env("JIT_MATTERMOST_ADMIN_TOKEN", ADMIN))
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
async fn everything_is_made_once_and_checked() {
    let (server, folder) = (Server::open().await, folder());
    let first = set_up(&server, folder.path());
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(
        first.out.contains("the bot jit was made") && first.out.contains("/jit was made"),
        "{}",
        first.out
    );
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
    // What it wrote is a configuration, and is found good.
    let checked = check(folder.path());
    assert_eq!(checked.code, 0, "{} {}", checked.out, checked.err);
    assert!(checked.out.contains("/jit can be typed"), "{}", checked.out);
    let written = std::fs::read_to_string(folder.path().join("jit.toml")).unwrap();
    let made = server.with(|kept| kept.made);
    let again = set_up(&server, folder.path());
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(
        again.out.contains("the bot jit was there") && again.out.contains("the bot's token works"),
        "{}",
        again.out
    );
    assert_eq!(
        server.with(|kept| kept.made),
        made,
        "nothing was made twice"
    );
    assert!(
        std::fs::read_to_string(folder.path().join("jit.toml"))
            .unwrap()
            .starts_with(&written)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_put_right() {
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
        "is enabled",
        "a token for the bot was made",
        "/jit was put right",
    ] {
        assert!(again.out.contains(word), "{word}: {}", again.out);
    }
    assert_eq!(check(folder.path()).code, 0);
    server.with(|kept| kept.command = None);
    let gone = check(folder.path());
    assert!(gone.err.contains("nobody can type /jit"), "{}", gone.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told() {
    let (server, folder) = (Server::open().await, folder());
    server.with(|kept| kept.admin_roles = "system_user".into());
    let refused = set_up(&server, folder.path());
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("not a system admin's"),
        "{}",
        refused.err
    );
    server.with(|kept| {
        kept.admin_roles = "system_admin".into();
        kept.bot = Some(json!({"id": "x", "username": "jit", "delete_at": 0}));
    });
    let taken = set_up(&server, folder.path());
    assert!(taken.err.contains("a person's name"), "{}", taken.err);
    let without = ran(binary()
        .args([
            "mattermost",
            "setup",
            "--team",
            "acme",
            "--public-url",
            "https://j.example.com",
            "--url",
            &server.url,
        ])
        .stdin(std::process::Stdio::null()));
    assert_eq!(without.code, 2);
    assert!(without.err.contains("--token-file"), "{}", without.err);
    let none = check(folder.path());
    assert!(none.err.contains("jit mattermost setup"), "{}", none.err);
}
