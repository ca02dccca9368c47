//! The routes of the API, with the access of the bot.

use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::users::user;
use super::{BOT, BOT_TOKEN, Kept, Mattermost, direct};

pub(super) type Answered = (StatusCode, HeaderMap, String);

pub(super) fn yes(status: u16, body: &Value) -> Answered {
    let status = StatusCode::from_u16(status).unwrap();
    (status, HeaderMap::new(), body.to_string())
}

pub(super) fn no(status: u16, id: &str) -> Answered {
    let body = json!({"id": id, "message": "no", "detailed_error": "", "request_id": "x", "status_code": status});
    yes(status, &body)
}

pub(super) async fn answer(
    State(mattermost): State<Mattermost>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answered {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = uri.path().strip_prefix("/api/v4/").unwrap().to_owned();
    if let Some(refusal) = mattermost.limited() {
        return refusal;
    }
    let delay = mattermost.kept().delay;
    tokio::time::sleep(delay).await;
    if mattermost.kept().is_down {
        return no(503, "x");
    }
    let is_open = path == "actions/dialogs/open" || path == "config/client";
    if !is_open && !mattermost.is_bot(&headers) {
        return no(401, "api.context.session_expired.app_error");
    }
    if path == "config/client" && mattermost.kept().hides_settings {
        return no(404, "api.context.404.app_error");
    }
    let parts: Vec<&str> = path.split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["users", "me"]) => yes(200, &user(BOT, "jit", "system_user")),
        ("GET", ["users", "email", email]) => mattermost.user_by_email(email),
        ("GET", ["users", id]) => mattermost.show_user(id),
        ("GET", ["config", "client"]) => mattermost.give_key(),
        ("POST", ["actions", "dialogs", "open"]) => mattermost.open_dialog(&body),
        ("POST", ["posts"]) => mattermost.create(&body),
        ("PUT", ["posts", id, "patch"]) => mattermost.patch(id, &body),
        ("POST", ["channels", "direct"]) => {
            let mut users = body.as_array().unwrap().iter();
            let user = users.find(|one| **one != BOT).unwrap();
            let channel = direct(user.as_str().unwrap());
            yes(201, &json!({"id": channel, "type": "D"}))
        }
        ("POST", ["channels", id, "members"]) => mattermost.join(id, &body["user_id"]),
        ("GET", ["channels", id, "posts"]) => mattermost.list(id),
        _ => no(404, "api.context.404.app_error"),
    }
}

impl Kept {
    pub(super) fn too_many_calls(&mut self) -> Answered {
        self.last_429 = Some(Instant::now());
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "1".parse().unwrap());
        let status = StatusCode::TOO_MANY_REQUESTS;
        (status, headers, "limit exceeded".into())
    }
}

impl Mattermost {
    /// Counts the call, and returns the answer 429 if a test planned it.
    fn limited(&self) -> Option<Answered> {
        let mut kept = self.kept();
        kept.calls += 1;
        if let Some(refused_at) = kept.last_429.take() {
            kept.pause_after_429 = Some(refused_at.elapsed());
        }
        if kept.too_many == 0 {
            return None;
        }
        kept.too_many -= 1;
        Some(kept.too_many_calls())
    }

    fn is_bot(&self, headers: &HeaderMap) -> bool {
        let replaced = self.kept().bot_token.clone();
        let token = replaced.as_deref().unwrap_or(BOT_TOKEN);
        let given = headers.get("authorization");
        given.is_some_and(|given| given == &format!("Bearer {token}"))
    }

    fn show_user(&self, id: &str) -> Answered {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.users.lock().unwrap().get(id) {
            Some(user) => yes(200, user),
            None => no(404, "app.user.missing_account.const"),
        }
    }

    /// The server compares addresses in lower case.
    fn user_by_email(&self, email: &str) -> Answered {
        let email = email.replace("%40", "@").to_lowercase();
        let users = self.users.lock().unwrap();
        match users.values().find(|user| user["email"] == email) {
            Some(user) => yes(200, user),
            None => no(404, "app.user.missing_account.const"),
        }
    }

    fn join(&self, channel: &str, user: &Value) -> Answered {
        let mut kept = self.kept();
        if kept.closed.get(channel) == Some(&false) {
            return no(403, "api.context.permissions.app_error");
        }
        kept.closed.remove(channel);
        yes(201, &json!({"channel_id": channel, "user_id": user}))
    }
}
