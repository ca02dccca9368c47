//! A simulated Mattermost for the setup: its API for bots, teams and commands, as the captures show
//! it.
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const TEAM: &str = "w1gu5cusqjgfppy84xsohzij6o";
pub const ADMIN: &str = "h7saa1gaq78sdbixwxzq1uz1nh";

/// The state of the server, as the captures show it.
#[derive(Default)]
pub struct Kept {
    pub bot: Option<Value>,
    pub bot_tokens: Vec<String>,
    pub in_team: bool,
    pub command: Option<Value>,
    pub admin_roles: String,
    pub made: u32,
    pub signs_with: Option<String>,
    /// The status and the message of a failed command, if commands fail.
    pub command_fails: Option<(u16, String)>,
    pub verifies_addresses: bool,
    /// Whether the bot may change commands, so that Mattermost shows it their URLs.
    pub bot_sees_urls: bool,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    kept: Arc<Mutex<Kept>>,
}

impl Server {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kept = Kept {
            admin_roles: "system_admin system_user".into(),
            signs_with: Some("MFkw".into()),
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

    pub fn with<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
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

const BOT_ID: &str = "gmiabbkdop8bjpc3xf7fcdrqme";

fn token_id(token: &str) -> String {
    format!("idof{token}")
}

/// 10a: a token of the bot. The setup makes tokens that begin with `bottoken`.
fn token_object(token: &str, shown: &Value) -> Value {
    let description = if token.starts_with("bottoken") {
        "jit"
    } else {
        "by hand"
    };
    json!({
        "id": token_id(token), "token": shown, "user_id": BOT_ID,
        "description": description, "is_active": true,
    })
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
        let Some(path) = path.strip_prefix("/api/v4/") else {
            return no(404);
        };
        if (method, path) == ("GET", "users/me") && is_admin {
            return (200, json!({"id": "admin", "roles": self.admin_roles}));
        }
        let answer = self.answer_about_the_bot(method, path, body);
        answer
            .or_else(|| self.answer_about_commands(method, path, body))
            .or_else(|| self.answer_about_the_team(method, path))
            .unwrap_or_else(|| no(404))
    }

    fn answer_about_the_bot(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        Some(match (method, path) {
            ("GET", "users/me") => (200, self.bot.clone().unwrap()),
            ("GET", "users/username/jit") => {
                self.bot.clone().map_or_else(|| no(404), |bot| (200, bot))
            }
            ("POST", "bots") => {
                self.made += 1;
                self.bot = Some(
                    json!({"id": BOT_ID, "username": body["username"], "is_bot": true, "delete_at": 0, "roles": "system_user"}),
                );
                (
                    201,
                    json!({"user_id": BOT_ID, "username": body["username"]}),
                )
            }
            ("POST", path) if path == format!("bots/{BOT_ID}/enable") => {
                self.bot.as_mut().unwrap()["delete_at"] = 0.into();
                (200, json!({"user_id": BOT_ID}))
            }
            ("POST", path) if path == format!("users/{BOT_ID}/tokens") => {
                self.made += 1;
                let token = format!("bottoken{}", self.made);
                self.bot_tokens.push(token.clone());
                (200, token_object(&token, &json!(token)))
            }
            ("GET", path) if path == format!("users/{BOT_ID}/tokens") => (
                200,
                // 10a: the token itself is not shown again.
                self.bot_tokens
                    .iter()
                    .map(|token| token_object(token, &json!("")))
                    .collect(),
            ),
            ("POST", "users/tokens/revoke") => {
                let is_it = |token: &String| body["token_id"] == token_id(token);
                self.bot_tokens.retain(|token| !is_it(token));
                (200, json!({"status": "OK"}))
            }
            ("POST", "channels/direct") => (201, json!({"id": "ixxre3hujjbcuenn8nib1ym7io"})),
            _ => return None,
        })
    }

    fn answer_about_commands(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        Some(match (method, path) {
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
                // The server ignores a token that the client sends.
                let token = self.command.as_ref().unwrap()["token"].clone();
                let mut command = body.clone();
                command["token"] = token;
                self.command = Some(command.clone());
                (200, command)
            }
            ("GET", path) if path == format!("teams/{TEAM}/commands/autocomplete") => {
                let mut shown: Vec<Value> = self.command.iter().cloned().collect();
                if !self.bot_sees_urls {
                    shown.iter_mut().for_each(|one| one["url"] = "".into());
                }
                (200, shown.into())
            }
            ("POST", "commands/execute") => self.execute(body),
            _ => return None,
        })
    }

    fn answer_about_the_team(&mut self, method: &str, path: &str) -> Option<(u16, Value)> {
        Some(match (method, path) {
            ("GET", "teams/name/acme") => (200, json!({"id": TEAM, "name": "acme"})),
            ("POST", path) if path == format!("teams/{TEAM}/members") => {
                self.in_team = true;
                (201, json!({"team_id": TEAM, "user_id": BOT_ID}))
            }
            ("GET", path) if path == format!("teams/{TEAM}/members/{BOT_ID}") && self.in_team => {
                (200, json!({"user_id": BOT_ID}))
            }
            ("GET", "config/client") => {
                let verifies = self.verifies_addresses.to_string();
                (
                    200,
                    json!({"AsymmetricSigningPublicKey": self.signs_with, "RequireEmailVerification": verifies}),
                )
            }
            _ => return None,
        })
    }

    /// As 11a shows it: Mattermost answers 500 if the integration fails.
    fn execute(&self, body: &Value) -> (u16, Value) {
        assert_eq!(body["command"], "/jit help");
        assert_eq!(body["team_id"], TEAM);
        match &self.command_fails {
            Some((status, message)) => {
                let mut failed = no(*status);
                failed.1["message"] = message.clone().into();
                failed
            }
            None => (
                200,
                json!({"response_type": "ephemeral", "text": "- `/jit request …` – ask for access"}),
            ),
        }
    }
}
