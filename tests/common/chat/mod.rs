//! A simulated Mattermost with the parts of the API that jit uses, modelled on a real server. The
//! numbers in the comments are those of the observed facts.

mod api;
mod calls;
mod dialogs;
mod faults;
mod posts;
mod users;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use serde_json::Value;
use tokio::net::TcpListener;

#[allow(unused_imports)] // each target uses its part
pub use {
    calls::form,
    dialogs::{now, trigger},
    posts::Post,
    users::direct,
};

use super::TIMEOUT;

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
/// The address of jit in the configuration; this server sends calls for it to jit.
const PUBLIC: &str = "http://jit.example.com";

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
    /// The number of posts that are answered 429 in this channel.
    limits_posts: (String, usize),
    /// The number of posts in this channel that are created and whose answers are lost.
    loses_answers_in: (String, usize),
    /// The number of changes that fail in this channel.
    fails_changes: (String, usize),
    /// The number of posts that are answered with the post of another user.
    answers_with_another_post: usize,
    /// The number of calls that are answered 429.
    too_many: usize,
    /// The time of the last 429, and the pause that followed it.
    last_429: Option<Instant>,
    pause_after_429: Option<Duration>,
    /// The bot's token, if it was replaced.
    bot_token: Option<String>,
    is_down: bool,
    calls: usize,
    /// The number of calls that fetched the signing key.
    key_calls: usize,
    key: Option<String>,
    /// `SiteURL`; empty if it is not configured.
    site: String,
    verifies_addresses: bool,
    hides_settings: bool,
    delay: Duration,
}

impl Mattermost {
    pub async fn open() -> Self {
        let users = users::all().map(|user| (user["id"].as_str().unwrap().to_owned(), user));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mattermost = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            users: Arc::new(Mutex::new(users.collect())),
            asked: Arc::default(),
            kept: Arc::default(),
        };
        let router = Router::new()
            .fallback(api::answer)
            .with_state(mattermost.clone());
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        mattermost
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    pub fn calls(&self) -> usize {
        self.kept().calls
    }

    /// Waits until the condition holds.
    pub async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(
                begun.elapsed() < TIMEOUT,
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
