//! As much of a Mattermost as jit asks for, from the captures, and people who type there.
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::{Caller, Jit, Setup};

pub const TEAM: &str = "w1gu5cusqjgfppy84xsohzij6o";
pub const TOKEN: &str = "pssxxjqabt8a7e1mgdia9jw9wh";
pub const CHANNEL: &str = "9up4z4pir38aub5z36tondz51h";
pub const ALICE: &str = "qqobpx3sjjbfuy915pnc9djxmw";
pub const BOB: &str = "o1pfxbncs7f43jbskgik8zuwxc";
/// A system admin.
pub const ADA: &str = "adaadaadaadaadaadaadaadaad";
/// Somebody of the team who decides nothing.
pub const MALLORY: &str = "mallorymallorymallorymallo";
const BOT_TOKEN: &str = "j6uwcwf9gigxjfcdfidacg8tkc";
pub const ACCOUNT: &str = "111122223333";

#[derive(Clone)]
pub struct Mattermost {
    pub url: String,
    users: Arc<Mutex<BTreeMap<String, Value>>>,
    pub asked: Arc<AtomicUsize>,
    posts: Arc<Mutex<Posts>>,
}

/// What the bot posted, and how it is answered.
#[derive(Default)]
struct Posts {
    all: Vec<Post>,
    refuses: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct Post {
    pub id: String,
    pub channel_id: String,
    /// As it was posted, and as it was changed, whole each time.
    pub props: Vec<Value>,
}

impl Post {
    fn card(&self) -> &Value {
        &self.props.last().unwrap()["attachments"][0]
    }

    pub fn title(&self) -> &str {
        self.card()["title"].as_str().unwrap()
    }

    /// All that it shows, by what stands above it.
    pub fn fields(&self) -> BTreeMap<String, String> {
        let fields = self.card()["fields"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        fields
            .map(|field| (text(&field["title"]), text(&field["value"])))
            .collect()
    }
}

fn user(id: &str, name: &str, roles: &str) -> Value {
    json!({
        "id": id, "create_at": 1_795_205_134_625_u64, "update_at": 1_795_205_135_266_u64, "delete_at": 0,
        "username": name, "auth_data": "", "auth_service": "", "email": format!("{name}@example.com"),
        "nickname": "", "first_name": name, "last_name": "Example", "position": "", "roles": roles,
        "locale": "en", "disable_welcome_email": false
    })
}

impl Mattermost {
    pub async fn open() -> Self {
        let people = [
            (ALICE, "alice", "system_user"),
            (BOB, "bob", "system_user"),
            (ADA, "ada", "system_user system_admin"),
            (MALLORY, "mallory", "system_user"),
        ];
        let users = people.map(|(id, name, roles)| (id.to_owned(), user(id, name, roles)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mattermost = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            users: Arc::new(Mutex::new(users.into())),
            asked: Arc::default(),
            posts: Arc::default(),
        };
        let router = Router::new()
            .route("/api/v4/users/{id}", get(look_up))
            .route("/api/v4/posts", post(create_post))
            .route("/api/v4/posts/{id}/patch", put(patch_post))
            .with_state(mattermost.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        mattermost
    }

    pub fn change(&self, id: &str, name: &str, value: Value) {
        self.users.lock().unwrap().get_mut(id).unwrap()[name] = value;
    }

    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().all.clone()
    }

    /// What becomes of posts from now on, instead of being taken.
    pub fn refuses(&self, status: Option<u16>) {
        self.posts.lock().unwrap().refuses = status;
    }

    /// Waits until a card shows it.
    pub async fn shows(&self, enough: impl Fn(&[Post]) -> bool) -> Vec<Post> {
        let begun = std::time::Instant::now();
        loop {
            let posts = self.posts();
            if enough(&posts) {
                return posts;
            }
            assert!(
                begun.elapsed() < crate::common::PATIENCE,
                "never shown: {posts:?}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    pub fn config(&self) -> String {
        format!(
            "[mattermost]\nurl = \"{}\"\nteam_id = \"{TEAM}\"\nbot_token = \"{BOT_TOKEN}\"\n\
             command_tokens = [\"{TOKEN}\"]\n",
            self.url
        )
    }
}

async fn look_up(
    State(mattermost): State<Mattermost>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    mattermost.asked.fetch_add(1, Ordering::SeqCst);
    let error = |status: u16, id: &str| {
        let body = json!({"id": id, "message": "no", "detailed_error": "", "request_id": "x", "status_code": status});
        (StatusCode::from_u16(status).unwrap(), body.to_string())
    };
    if headers
        .get("authorization")
        .is_none_or(|given| given != &format!("Bearer {BOT_TOKEN}"))
    {
        return error(401, "api.context.session_expired.app_error");
    }
    match mattermost.users.lock().unwrap().get(&id) {
        Some(user) => (StatusCode::OK, user.to_string()),
        None => error(404, "app.user.missing_account.const"),
    }
}

async fn create_post(State(mattermost): State<Mattermost>, body: Bytes) -> (StatusCode, String) {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut posts = mattermost.posts.lock().unwrap();
    if let Some(status) = posts.refuses {
        return refusal(status);
    }
    let id = format!("post{}", posts.all.len());
    let channel_id = body["channel_id"].as_str().unwrap().to_owned();
    let answer =
        json!({"id": id, "channel_id": channel_id, "message": body["message"], "props": {}});
    let props = vec![body["props"].clone()];
    posts.all.push(Post {
        id,
        channel_id,
        props,
    });
    (StatusCode::CREATED, answer.to_string())
}

async fn patch_post(
    State(mattermost): State<Mattermost>,
    Path(id): Path<String>,
    body: Bytes,
) -> (StatusCode, String) {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut posts = mattermost.posts.lock().unwrap();
    if let Some(status) = posts.refuses {
        return refusal(status);
    }
    let post = posts.all.iter_mut().find(|post| post.id == id).unwrap();
    post.props.push(body["props"].clone());
    (StatusCode::OK, json!({"id": id}).to_string())
}

fn refusal(status: u16) -> (StatusCode, String) {
    let body = json!({"id": "x", "message": "no", "status_code": status});
    (StatusCode::from_u16(status).unwrap(), body.to_string())
}

/// A team whose people type, and jit that answers.
pub struct Team {
    pub mattermost: Mattermost,
    pub jit: Jit,
    pub caller: Caller,
}

impl Team {
    pub async fn with(setup: Setup) -> Self {
        let mattermost = Mattermost::open().await;
        let more = format!("{}\n{}", mattermost.config(), setup.more);
        let jit = Setup { more, ..setup }.start();
        let caller = jit.caller();
        Self {
            mattermost,
            jit,
            caller,
        }
    }

    /// With an account, and bob to decide.
    pub async fn bound() -> Self {
        Self::bound_with(Setup::default()).await
    }

    pub async fn bound_with(setup: Setup) -> Self {
        let team = Self::with(setup).await;
        let bound = team.says(ADA, &format!("bind {ACCOUNT}")).await;
        assert!(bound.contains(ACCOUNT), "{bound}");
        let set = team.says(ADA, "approvers @bob").await;
        assert!(set.contains("1 of 1"), "{set}");
        team
    }

    /// What somebody hears who types this after `/jit` in the team's channel.
    pub async fn says(&self, who: &str, text: &str) -> String {
        self.says_in(CHANNEL, "aws-prod", who, text).await
    }

    pub async fn says_in(&self, channel: &str, name: &str, who: &str, text: &str) -> String {
        let body = form(TOKEN, TEAM, channel, name, who, text);
        heard(&self.send(body).await)
    }

    /// Alice asks for an hour; returns what it is called.
    pub async fn asked(&self) -> String {
        id_in(
            &self
                .says(ALICE, &format!("request {ACCOUNT} admin 1h x"))
                .await,
        )
    }

    /// The whole id of what was asked for last.
    pub async fn newest(&self) -> String {
        let path = format!("/requests?channel_id={CHANNEL}");
        let all = self.caller.get(&path).await.is(200);
        all["items"][0]["request_id"].as_str().unwrap().to_owned()
    }

    pub async fn send(&self, body: String) -> crate::common::Reply {
        let form = "application/x-www-form-urlencoded";
        let headers = vec![
            ("Content-Type", form.to_owned()),
            ("Accept", "application/json".to_owned()),
        ];
        self.caller
            .send("POST", "/mattermost/command", headers, body.into_bytes())
            .await
    }
}

/// Only 200 is success to Mattermost, and only JSON is not shown as it is.
pub fn heard(reply: &crate::common::Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/json");
    let answer = reply.json();
    assert_eq!(answer["response_type"], "ephemeral");
    answer["text"].as_str().unwrap().to_owned()
}

/// The fields as a server sends them, with whoever is mentioned.
pub fn form(token: &str, team: &str, channel: &str, name: &str, who: &str, text: &str) -> String {
    let trigger = crate::common::nonce();
    let people = [
        ("alice", ALICE),
        ("bob", BOB),
        ("ada", ADA),
        ("mallory", MALLORY),
    ];
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("channel_id", channel)
        .append_pair("channel_name", name)
        .append_pair("command", "/jit")
        .append_pair(
            "response_url",
            "http://127.0.0.1:8065/hooks/commands/x6y4y57sx7dztykfqkmoo5ethy",
        )
        .append_pair("team_domain", "acme")
        .append_pair("team_id", team)
        .append_pair("text", text)
        .append_pair("token", token)
        .append_pair("trigger_id", &trigger)
        .append_pair("user_id", who);
    let mentioned = people
        .iter()
        .filter(|(name, _)| text.contains(&format!("@{name}")));
    for (name, id) in mentioned.rev() {
        form.append_pair("user_mentions", name)
            .append_pair("user_mentions_ids", id);
    }
    form.append_pair("user_name", "whatever-she-calls-herself");
    form.finish()
}

/// An id as an answer shows it.
pub fn id_in(answer: &str) -> String {
    let at = answer.find('`').unwrap() + 1;
    answer[at..].split('`').next().unwrap().to_owned()
}
