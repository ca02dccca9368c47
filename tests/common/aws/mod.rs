//! A simulated AWS over real HTTP: IAM Identity Center and its identity store, as the documents
//! describe them, with faults on request.

mod actions;
mod assignments;
mod faults;
mod http;
mod permission_sets;
mod users;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use assignments::Operation;
use users::User;
#[allow(unused_imports)] // each target uses its part
pub use {
    assignments::Assignment,
    faults::{Fault, Moment, Rates},
};

use super::wire;

pub const INSTANCE: &str = "arn:aws:sso:::instance/ssoins-1111111111111111";
pub const STORE: &str = "d-1111111111";
pub const ADMIN: &str = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111";
pub const READONLY: &str =
    "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-2222222222222222";
/// The default length of a page: short, so that a caller that does not read all pages fails.
const PAGE: usize = 3;
const MOST_CREATES: usize = 10;

#[derive(Clone, Debug)]
pub struct Heard {
    pub action: String,
    pub at: Instant,
    pub account: String,
    pub user: String,
    pub refused: bool,
}

#[derive(Clone)]
pub struct Aws {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
    reached: Arc<Notify>,
}

struct Inner {
    begun: Instant,
    /// The simulated time, if the test sets it.
    by_hand: Option<Duration>,
    latency: Duration,
    users: Vec<User>,
    assignments: BTreeSet<Assignment>,
    operations: BTreeMap<String, Operation>,
    policies: BTreeMap<String, String>,
    /// Closed accounts.
    closed: BTreeSet<String>,
    provisioned: Vec<(String, String)>,
    heard: Vec<Heard>,
    planned: VecDeque<(String, Fault)>,
    rates: Rates,
    random: StdRng,
    stop_at: Option<(usize, Moment)>,
    stop_at_action: Option<&'static str>,
    calls_per_second: Option<f64>,
    tokens: f64,
    filled: Instant,
    one_at_a_time_in_an_account: bool,
    /// In these accounts the next operation does not end.
    stuck: BTreeSet<String>,
    most_creates: usize,
    page: usize,
    slow: Option<(&'static str, Duration)>,
}

/// The type and the message of an error.
type AwsError = (&'static str, String);

type Answer = Result<Value, AwsError>;

impl Aws {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let now = Instant::now();
        let inner = Inner {
            begun: now,
            by_hand: None,
            latency: Duration::from_millis(300),
            users: Vec::new(),
            assignments: BTreeSet::new(),
            operations: BTreeMap::new(),
            policies: BTreeMap::new(),
            closed: BTreeSet::new(),
            provisioned: Vec::new(),
            heard: Vec::new(),
            planned: VecDeque::new(),
            rates: Rates::default(),
            random: StdRng::seed_from_u64(0),
            stop_at: None,
            stop_at_action: None,
            calls_per_second: None,
            tokens: 0.0,
            filled: now,
            one_at_a_time_in_an_account: false,
            stuck: BTreeSet::new(),
            most_creates: MOST_CREATES,
            page: PAGE,
            slow: None,
        };
        let aws = Self {
            url,
            inner: Arc::new(Mutex::new(inner)),
            reached: Arc::default(),
        };
        for name in ["alice", "bob"] {
            aws.add_user(name, name);
        }
        // The name of one user is the address of another.
        aws.add_user("twin", "twin-a");
        aws.add_user("twin-b", "twin");
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(aws.clone().serve(listener));
        aws
    }

    /// An instance whose operations take almost no time.
    pub async fn quick() -> Self {
        Self::open().await.with_latency(Duration::from_millis(20))
    }

    pub fn with_latency(self, latency: Duration) -> Self {
        self.inner().latency = latency;
        self
    }

    /// The simulated time changes only when the test sets it.
    pub fn by_hand(self) -> Self {
        self.inner().by_hand = Some(Duration::ZERO);
        self
    }

    pub fn pass(&self, span: Duration) {
        let mut inner = self.inner();
        *inner.by_hand.as_mut().unwrap() += span;
    }

    /// Uses pages as long as those of AWS.
    pub fn in_long_pages(&self) {
        self.inner().page = 100;
    }

    pub fn received(&self) -> Vec<Heard> {
        self.inner().heard.clone()
    }

    /// Waits until this action was called for this account.
    pub async fn wait_for_call(&self, account: &str, action: &str) {
        let begun = Instant::now();
        loop {
            let heard = self.received();
            if heard
                .iter()
                .any(|one| one.action == action && one.account == account)
            {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no call of {action}: {heard:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn actions(&self) -> Vec<String> {
        self.received().into_iter().map(|one| one.action).collect()
    }

    /// The environment with which a process calls only this server.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL_SSO_ADMIN", self.url.clone()),
            ("AWS_ENDPOINT_URL_IDENTITYSTORE", self.url.clone()),
            ("AWS_ENDPOINT_URL_STS", self.url.clone()),
            ("AWS_REGION", "eu-central-1".into()),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".into()),
            ("AWS_SECRET_ACCESS_KEY", "example".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ]
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    fn now(&self) -> Duration {
        self.by_hand.unwrap_or_else(|| self.begun.elapsed())
    }
}
