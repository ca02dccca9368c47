//! A simulated Mattermost with the parts of the API that jit uses, modelled on a real server. The
//! numbers in the comments are those of the observed facts.
#![allow(dead_code)] // each target uses its part
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{PATIENCE, nonce};

pub const TEAM: &str = "w1gu5cusqjgfppy84xsohzij6o";
pub const TOKEN: &str = "pssxxjqabt8a7e1mgdia9jw9wh";
pub const CHANNEL: &str = "9up4z4pir38aub5z36tondz51h";
pub const ALICE: &str = "qqobpx3sjjbfuy915pnc9djxmw";
pub const BOB: &str = "o1pfxbncs7f43jbskgik8zuwxc";
/// A system admin.
pub const ADA: &str = "adaadaadaadaadaadaadaadaad";
/// A member of the team who may not approve.
pub const MALLORY: &str = "mallorymallorymallorymallo";
/// The bot account of jit.
pub const BOT: &str = "tzwrw561o7gebj5dezs374mbqo";
pub const BOT_TOKEN: &str = "j6uwcwf9gigxjfcdfidacg8tkc";
pub const ACCOUNT: &str = "111122223333";

/// The key with which the server signs its triggers.
static KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, made.as_ref()).unwrap()
});
/// The address of jit in the configuration; this server sends calls for it to jit.
const PUBLIC: &str = "http://jit.example.com";

pub fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

/// 7: a signature of the server that this user did something at that millisecond.
pub fn trigger(user: &str, at: i64) -> String {
    let id = &nonce().replace('-', "")[..26];
    let text = format!("{id}:{user}:{at}:");
    let random = aws_lc_rs::rand::SystemRandom::new();
    let signature = KEY.sign(&random, text.as_bytes()).unwrap();
    STANDARD.encode(format!("{text}{}", STANDARD.encode(signature)))
}

#[derive(Clone)]
pub struct Mattermost {
    pub url: String,
    users: Arc<Mutex<BTreeMap<String, Value>>>,
    pub asked: Arc<AtomicUsize>,
    kept: Arc<Mutex<Kept>>,
}

/// The state: the posts of the bot, and the faults of the answers.
#[derive(Default)]
struct Kept {
    posts: Vec<Post>,
    dialogs: Vec<Value>,
    refuses: Option<u16>,
    /// Channels without the bot, and whether it may join them.
    closed: BTreeMap<String, bool>,
    /// The number of posts that are created and whose answers are lost.
    loses_answers: usize,
    /// The number of changes that fail in this channel.
    fails_changes: (String, usize),
    /// The number of posts that are answered with the post of another user.
    anothers: usize,
    /// The number of calls that are answered 429.
    too_many: usize,
    /// The time of the last 429, and the pause that followed it.
    said_so_at: Option<Instant>,
    rested: Option<Duration>,
    /// The bot's token, if it was replaced.
    bot_token: Option<String>,
    calls: usize,
    /// The number of calls that fetched the signing key.
    keys: usize,
    key: Option<String>,
    delay: Duration,
}

#[derive(Clone, Debug)]
pub struct Post {
    pub id: String,
    pub user_id: String,
    pub channel_id: String,
    pub root_id: String,
    pub message: String,
    pending: String,
    is_deleted: bool,
    /// The props of the post as created and after each change.
    pub props: Vec<Value>,
    /// The time of each change.
    pub changed_at: Vec<Instant>,
}

impl Post {
    fn card(&self) -> &Value {
        &self.props.last().unwrap()["attachments"][0]
    }

    pub fn title(&self) -> &str {
        self.card()["title"].as_str().unwrap()
    }

    /// The fields that the card shows, by their titles.
    pub fn fields(&self) -> BTreeMap<String, String> {
        let fields = self.card()["fields"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        fields
            .map(|field| (text(&field["title"]), text(&field["value"])))
            .collect()
    }

    /// The buttons of the card.
    pub fn buttons(&self) -> Vec<&str> {
        let actions = self.card()["actions"].as_array();
        let actions = actions.map_or(&[][..], Vec::as_slice).iter();
        actions.map(|one| one["id"].as_str().unwrap()).collect()
    }

    pub fn button(&self, id: &str) -> Option<&Value> {
        let actions = self.card()["actions"].as_array()?.iter();
        actions.into_iter().find(|one| one["id"] == id)
    }

    /// The post as a reader gets it, without the addresses and contexts of actions: 4.
    fn stripped(&self) -> Value {
        let mut props = self.props.last().unwrap().clone();
        for attachment in props["attachments"].as_array_mut().into_iter().flatten() {
            for action in attachment["actions"].as_array_mut().into_iter().flatten() {
                action.as_object_mut().unwrap().remove("integration");
            }
        }
        json!({
            "id": self.id, "create_at": now(), "delete_at": i64::from(self.is_deleted), "user_id": self.user_id,
            "channel_id": self.channel_id, "root_id": self.root_id, "message": self.message,
            "props": props, "pending_post_id": "",
        })
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

pub fn direct(user: &str) -> String {
    format!("dm{}", &user[..24])
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
            kept: Arc::default(),
        };
        let router = Router::new()
            .fallback(answer)
            .with_state(mattermost.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        mattermost
    }

    pub fn change(&self, id: &str, name: &str, value: Value) {
        self.users.lock().unwrap().get_mut(id).unwrap()[name] = value;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    fn posts(&self, which: impl Fn(&Post) -> bool) -> Vec<Post> {
        let kept = self.kept();
        kept.posts
            .iter()
            .filter(|post| which(post))
            .cloned()
            .collect()
    }

    /// The posts in channels that are not replies.
    pub fn cards(&self) -> Vec<Post> {
        self.posts(|post| post.root_id.is_empty() && !post.channel_id.starts_with("dm"))
    }

    /// The replies to a card.
    pub fn thread(&self, card: &str) -> Vec<String> {
        let posts = self.posts(|post| post.root_id == card);
        posts.into_iter().map(|post| post.message).collect()
    }

    /// The direct messages to one user.
    pub fn sent(&self, user: &str) -> Vec<Post> {
        self.posts(|post| post.channel_id == direct(user))
    }

    pub fn dialogs(&self) -> Vec<Value> {
        self.kept().dialogs.clone()
    }

    /// The answer to later posts: an error status, or none for success.
    pub fn refuses(&self, status: Option<u16>) {
        self.kept().refuses = status;
    }

    pub fn closes(&self, channel: &str, may_be_joined: bool) {
        self.kept().closed.insert(channel.to_owned(), may_be_joined);
    }

    pub fn loses_answers(&self, many: usize) {
        self.kept().loses_answers = many;
    }

    /// Adds an existing post; its author chooses its props.
    pub fn has_post(&self, user: &str, props: Value, is_deleted: bool) {
        let mut kept = self.kept();
        let id = format!("planted{}", kept.posts.len());
        kept.posts.push(Post {
            id,
            user_id: user.to_owned(),
            channel_id: CHANNEL.to_owned(),
            // It is not a reply to a card.
            root_id: "planted".into(),
            message: String::new(),
            pending: String::new(),
            is_deleted,
            props: vec![props],
            changed_at: vec![Instant::now()],
        });
    }

    pub fn fails_changes(&self, channel: &str, many: usize) {
        self.kept().fails_changes = (channel.to_owned(), many);
    }

    pub fn answers_with_anothers(&self, many: usize) {
        self.kept().anothers = many;
    }

    /// This number of calls from now on is answered 429.
    pub fn has_too_many(&self, many: usize) {
        self.kept().too_many = many;
    }

    /// Replaces the bot's token.
    pub fn has_another_bot_token(&self, token: &str) {
        self.kept().bot_token = Some(token.to_owned());
    }

    /// How long jit sent no call after the last 429.
    pub fn rested(&self) -> Option<Duration> {
        self.kept().rested
    }

    pub fn is_slow(&self, delay: Duration) {
        self.kept().delay = delay;
    }

    pub fn asked_for_its_key(&self) -> usize {
        self.kept().keys
    }

    pub fn calls(&self) -> usize {
        self.kept().calls
    }

    /// Replaces the signing key, as a newly installed server does.
    pub fn has_another_key(&self, key: &str) {
        self.kept().key = Some(key.to_owned());
    }

    /// Waits until the condition holds.
    pub async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the condition never held: {:#?}",
                self.kept().posts
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the cards meet the condition.
    pub async fn shows(&self, enough: impl Fn(&[Post]) -> bool) -> Vec<Post> {
        self.until(|mattermost| Some(mattermost.cards()).filter(|cards| enough(cards)))
            .await
    }

    /// Waits until the newest card has this status and these buttons.
    pub async fn card(&self, status: &str, buttons: &[&str]) -> Post {
        let is_it = |card: &Post| card.title().starts_with(status) && card.buttons() == buttons;
        self.until(|mattermost| mattermost.cards().pop().filter(is_it))
            .await
    }

    pub fn config(&self) -> String {
        format!(
            "[mattermost]\nurl = \"{}\"\npublic_url = \"{PUBLIC}\"\nteam_id = \"{TEAM}\"\n\
             bot_token = \"{BOT_TOKEN}\"\ncommand_tokens = [\"{TOKEN}\"]\n",
            self.url
        )
    }
}

type Answered = (StatusCode, HeaderMap, String);

fn yes(status: u16, body: &Value) -> Answered {
    let status = StatusCode::from_u16(status).unwrap();
    (status, HeaderMap::new(), body.to_string())
}

fn no(status: u16, id: &str) -> Answered {
    let body = json!({"id": id, "message": "no", "detailed_error": "", "request_id": "x", "status_code": status});
    yes(status, &body)
}

async fn answer(
    State(mattermost): State<Mattermost>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answered {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = uri.path().strip_prefix("/api/v4/").unwrap().to_owned();
    let (delay, bot_token) = {
        let mut kept = mattermost.kept();
        kept.calls += 1;
        if let Some(said_at) = kept.said_so_at.take() {
            kept.rested = Some(said_at.elapsed());
        }
        if kept.too_many > 0 {
            kept.too_many -= 1;
            kept.said_so_at = Some(Instant::now());
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", "1".parse().unwrap());
            let status = StatusCode::TOO_MANY_REQUESTS;
            return (status, headers, "limit exceeded".into());
        }
        let bot_token = kept.bot_token.clone();
        (kept.delay, bot_token.unwrap_or_else(|| BOT_TOKEN.into()))
    };
    tokio::time::sleep(delay).await;
    let is_open = path == "actions/dialogs/open" || path == "config/client";
    let bearer = format!("Bearer {bot_token}");
    if !is_open
        && headers
            .get("authorization")
            .is_none_or(|given| given != &bearer)
    {
        return no(401, "api.context.session_expired.app_error");
    }
    let parts: Vec<&str> = path.split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["users", "me"]) => yes(200, &user(BOT, "jit", "system_user")),
        ("GET", ["users", id]) => {
            mattermost.asked.fetch_add(1, Ordering::SeqCst);
            match mattermost.users.lock().unwrap().get(*id) {
                Some(user) => yes(200, user),
                None => no(404, "app.user.missing_account.const"),
            }
        }
        ("GET", ["config", "client"]) => {
            mattermost.kept().keys += 1;
            let key = KEY.public_key();
            let key = STANDARD.encode(AsDer::<PublicKeyX509Der>::as_der(key).unwrap().as_ref());
            let key = mattermost.kept().key.clone().unwrap_or(key);
            yes(
                200,
                &json!({"AsymmetricSigningPublicKey": key, "BuildNumber": "5.37.0"}),
            )
        }
        ("POST", ["actions", "dialogs", "open"]) => mattermost.open_dialog(&body),
        ("POST", ["posts"]) => mattermost.create(&body),
        ("PUT", ["posts", id, "patch"]) => mattermost.patch(id, &body),
        ("POST", ["channels", "direct"]) => {
            let user = body
                .as_array()
                .unwrap()
                .iter()
                .find(|one| **one != BOT)
                .unwrap();
            yes(
                201,
                &json!({"id": direct(user.as_str().unwrap()), "type": "D"}),
            )
        }
        ("POST", ["channels", id, "members"]) => {
            let mut kept = mattermost.kept();
            match kept.closed.get(*id) {
                Some(false) => no(403, "api.context.permissions.app_error"),
                _ => {
                    kept.closed.remove(*id);
                    yes(201, &json!({"channel_id": id, "user_id": body["user_id"]}))
                }
            }
        }
        ("GET", ["channels", id, "posts"]) => {
            let posts = mattermost.posts(|post| post.channel_id == *id);
            let posts: serde_json::Map<String, Value> = posts
                .iter()
                .map(|post| (post.id.clone(), post.stripped()))
                .collect();
            yes(200, &json!({"order": [], "posts": posts}))
        }
        _ => no(404, "api.context.404.app_error"),
    }
}

impl Mattermost {
    fn create(&self, body: &Value) -> Answered {
        let mut kept = self.kept();
        if let Some(status) = kept.refuses {
            return no(status, "x");
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        if kept.closed.contains_key(&text("channel_id")) {
            return no(403, "api.context.permissions.app_error");
        }
        if kept.anothers > 0 {
            kept.anothers -= 1;
            let channel = text("channel_id");
            return yes(
                201,
                &json!({"id": "hers", "user_id": MALLORY, "channel_id": channel}),
            );
        }
        let pending = text("pending_post_id");
        // 10h: regardless of the author.
        if let Some(first) = kept.posts.iter().find(|post| post.pending == pending) {
            return yes(201, &first.stripped());
        }
        let post = Post {
            id: format!("post{}", kept.posts.len()),
            user_id: BOT.into(),
            channel_id: text("channel_id"),
            root_id: text("root_id"),
            message: text("message"),
            pending,
            is_deleted: false,
            props: vec![body["props"].clone()],
            changed_at: vec![Instant::now()],
        };
        let answer = post.stripped();
        kept.posts.push(post);
        if kept.loses_answers > 0 {
            kept.loses_answers -= 1;
            // As after half a minute, when the server has forgotten the pending post id.
            kept.posts.last_mut().unwrap().pending.clear();
            return no(502, "x");
        }
        yes(201, &answer)
    }

    fn patch(&self, id: &str, body: &Value) -> Answered {
        let mut kept = self.kept();
        if let Some(status) = kept.refuses {
            return no(status, "x");
        }
        let channel = kept.posts.iter().find(|post| post.id == id);
        if channel.is_some_and(|post| kept.closed.contains_key(&post.channel_id)) {
            return no(403, "api.context.permissions.app_error");
        }
        let failing = kept.fails_changes.0.clone();
        let fails = kept
            .posts
            .iter()
            .any(|post| post.id == id && post.channel_id == failing);
        if fails && kept.fails_changes.1 > 0 {
            kept.fails_changes.1 -= 1;
            return no(500, "x");
        }
        let Some(post) = kept.posts.iter_mut().find(|post| post.id == id) else {
            return no(404, "app.post.get.app_error");
        };
        post.message = body["message"].as_str().unwrap().to_owned();
        post.props.push(body["props"].clone());
        post.changed_at.push(Instant::now());
        yes(200, &post.stripped())
    }

    /// 7: a caller with a trigger younger than three seconds may open any dialog.
    fn open_dialog(&self, body: &Value) -> Answered {
        let trigger = STANDARD.decode(body["trigger_id"].as_str().unwrap());
        let trigger = String::from_utf8(trigger.unwrap()).unwrap();
        let parts: Vec<&str> = trigger.split(':').collect();
        if now() - parts[2].parse::<i64>().unwrap() > 3_000 {
            return no(400, "interactive_message.decode_trigger_id.expired");
        }
        let mut opened = body.clone();
        opened["user_id"] = parts[1].into();
        self.kept().dialogs.push(opened);
        yes(200, &json!({"status": "OK"}))
    }

    /// The call that jit gets for a press of a button, as the server sends it.
    pub fn click(&self, post: &Post, button: &str, who: &str) -> Value {
        let integration = &post.button(button).expect("the card has this button")["integration"];
        assert_eq!(integration["url"], format!("{PUBLIC}/mattermost/action"));
        let is_direct = post.channel_id.starts_with("dm");
        json!({
            "user_id": who, "user_name": "whatever-she-calls-herself",
            "channel_id": post.channel_id, "channel_name": "aws-prod",
            "team_id": if is_direct { "" } else { TEAM }, "team_domain": "acme",
            "post_id": post.id, "trigger_id": trigger(who, now()), "type": "button",
            "data_source": "", "context": integration["context"],
        })
    }
}

/// The form of a slash command as a server sends it, with the mentioned users.
pub fn form(token: &str, team: &str, channel: &str, name: &str, who: &str, text: &str) -> String {
    let trigger = trigger(who, now());
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
