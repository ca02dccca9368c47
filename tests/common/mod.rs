//! The real binary, a caller with signatures, and a receiver of notices.
#![allow(dead_code)] // each target uses its part

pub mod aws;
pub mod chat;
pub mod dynamo;
pub mod fixtures;
pub mod lambda;
pub mod mattermost;
pub mod moto;
pub mod shell;
pub mod shift;
pub mod wire;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const HOOK_SECRET: &str = "fedcba9876543210fedcba9876543210";
pub const ACCOUNT: &str = "111122223333";
pub const CHANNEL: &str = "town-square";
/// The limit of every wait; only a hang takes this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Jit {
    child: Child,
    pub url: String,
    pub folder: Arc<tempfile::TempDir>,
    log: Arc<(Mutex<String>, Condvar)>,
}

/// The parts of a configuration.
pub struct Setup {
    pub latency_ms: u32,
    /// More lines of the sandbox section.
    pub sandbox: String,
    pub more: String,
    pub webhook: Option<String>,
    /// The SDK client, with a simulated AWS.
    pub aws: Option<aws::Aws>,
    /// DynamoDB tables instead of a file.
    pub dynamo: Option<dynamo::Tables>,
    /// More environment variables.
    pub variables: Vec<(&'static str, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            latency_ms: 20,
            sandbox: String::new(),
            more: String::new(),
            webhook: None,
            aws: None,
            dynamo: None,
            variables: Vec::new(),
        }
    }
}

impl Setup {
    pub fn write(&self, folder: &Path) -> PathBuf {
        let store = folder.join("jit.db");
        let webhook = self.webhook.as_ref().map_or_else(String::new, |url| {
            format!("[webhook]\nurl = \"{url}/plugins/com.example.jit/webhook\"\nsecret = \"{HOOK_SECRET}\"\n")
        });
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:0"
[store]
path = "{store}"
{tables}
{identity_center}
[sandbox]
latency_ms = {latency}
{sandbox}
[permission_sets]
admin = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111"
readonly = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-2222222222222222"
[keys.plugin]
secret = "{SECRET}"
{webhook}
{more}
"#,
            store = store.display(),
            tables = self
                .dynamo
                .as_ref()
                .map_or_else(String::new, dynamo::Tables::config),
            identity_center = self.identity_center(),
            latency = self.latency_ms,
            sandbox = self.sandbox,
            more = self.more,
        );
        let file = folder.join("jit.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    fn identity_center(&self) -> String {
        match self.aws {
            None => "[identity_center]\nmode = \"sandbox\"".into(),
            Some(_) => format!(
                "[identity_center]\ninstance_arn = \"{}\"\nidentity_store_id = \"{}\"\n\
                 calls_per_second = 20",
                aws::INSTANCE,
                aws::STORE
            ),
        }
    }

    /// Uses the SDK client, and more lines of configuration.
    pub fn with_aws(aws: &aws::Aws, more: &str) -> Self {
        Self {
            aws: Some(aws.clone()),
            ..Self::with(more)
        }
    }

    /// Uses these tables instead of a file.
    pub fn in_dynamo(tables: &dynamo::Tables) -> Self {
        Self {
            dynamo: Some(tables.clone()),
            ..Self::default()
        }
    }

    /// Adds lines of configuration.
    pub fn with(more: &str) -> Self {
        Self {
            more: more.to_owned(),
            ..Self::default()
        }
    }

    /// Starts jit and binds an account with an approver.
    pub async fn bound(&self) -> (Jit, Caller) {
        let jit = self.start();
        let caller = jit.caller();
        caller.bind().await;
        (jit, caller)
    }

    /// Starts jit and binds this number of accounts, from 000000000001.
    pub async fn start_with_accounts(&self, count: usize) -> (Jit, Caller) {
        let jit = self.start();
        let caller = jit.caller();
        for number in 1..=count {
            let account = format!("{number:012}");
            let terms = json!({"channel_id": CHANNEL, "account_id": account});
            caller.post("/config/bind", &terms).await.is(200);
        }
        let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob", "carol"]});
        caller.post("/config/approvers", &approvers).await.is(200);
        (jit, caller)
    }

    pub fn start(&self) -> Jit {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        self.write(folder.path());
        Jit::start_with(folder, &self.environment())
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let aws = self.aws.iter().flat_map(aws::Aws::environment);
        aws.chain(self.dynamo.iter().flat_map(dynamo::Tables::environment))
            .chain(self.variables.iter().cloned())
            .collect()
    }
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jit"));
    // The planted fault, from `make bite`.
    let ours = |name: &str| {
        name != "JIT_PLANTED" && (name.starts_with("JIT_") || name.starts_with("AWS_"))
    };
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command
}

impl Jit {
    pub fn start_in(folder: Arc<tempfile::TempDir>) -> Self {
        Self::start_with(folder, &[])
    }

    pub fn start_with(
        folder: Arc<tempfile::TempDir>,
        environment: &[(&'static str, String)],
    ) -> Self {
        let config = folder.path().join("jit.toml");
        Self::spawn(folder, &config, environment)
    }

    /// Starts jit with an existing configuration.
    pub fn start_on(config: &Path) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::spawn(folder, config, &[])
    }

    fn spawn(
        folder: Arc<tempfile::TempDir>,
        config: &Path,
        environment: &[(&'static str, String)],
    ) -> Self {
        let mut child = binary()
            .envs(environment.iter().cloned())
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.0.lock().unwrap().push_str(&(line + "\n"));
                sink.1.notify_all();
            }
        });
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let Some(at) = first.find("http://") else {
            let status = child.wait().unwrap();
            panic!(
                "jit did not start ({status}): {first} {}",
                log.0.lock().unwrap()
            );
        };
        let url = first[at..].split_whitespace().next().unwrap().to_owned();
        Self {
            child,
            url,
            folder,
            log,
        }
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits until the log contains this text.
    pub fn logs(&self, word: &str) {
        let (log, more) = &*self.log;
        let log = log.lock().unwrap();
        let without = |log: &mut String| !log.contains(word);
        let (log, waited) = more.wait_timeout_while(log, PATIENCE, without).unwrap();
        assert!(!waited.timed_out(), "no {word:?} in the log: {log}");
    }

    /// The same for a test that runs other tasks meanwhile.
    pub async fn comes_to_log(&self, word: &str) {
        let begun = Instant::now();
        while !self.log().contains(word) {
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "no {word:?} in the log: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGHUP: jit reads the keys again.
    pub fn hang_up(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// kill -9; returns the folder of the store for the next process.
    pub fn kill(mut self) -> Arc<tempfile::TempDir> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.clone()
    }

    /// SIGTERM, as an operator or systemd sends it.
    pub fn terminate(mut self) -> (std::process::ExitStatus, Duration, Arc<tempfile::TempDir>) {
        let asked = Instant::now();
        let sent = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
        let status = self.child.wait().unwrap();
        (status, asked.elapsed(), self.folder.clone())
    }

    pub fn caller(&self) -> Caller {
        Caller::new(&self.url, "plugin", SECRET)
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("jit.db")
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[derive(Clone)]
pub struct Caller {
    pub url: String,
    pub key_id: String,
    pub secret: String,
    client: reqwest::Client,
    /// How many seconds the wall clock of the server is ahead of this machine's.
    ahead: Arc<AtomicI64>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks the status, and that an error has the shape of an error; returns the body.
    pub fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let value = self.json();
        if status >= 400 {
            assert!(
                value["message"].is_string() && value["code"].is_string(),
                "{self:?}"
            );
        }
        value
    }
}

/// The four headers, v1 or v2, computed from CONTRACT without code of jit.
pub struct Signing<'a> {
    pub key_id: &'a str,
    pub secret: &'a str,
    pub timestamp: i64,
    pub nonce: String,
}

impl Signing<'_> {
    pub fn v1(&self, method: &str, path: &str, body: &[u8]) -> String {
        let body = hex::encode(Sha256::digest(body));
        self.mac(&format!(
            "{}\n{}\n{method}\n{path}\n{body}",
            self.timestamp, self.nonce
        ))
    }

    /// `query` must be canonical.
    pub fn v2(&self, method: &str, path: &str, query: &str, body: &[u8]) -> String {
        let body = hex::encode(Sha256::digest(body));
        let (key, time, nonce) = (self.key_id, self.timestamp, &self.nonce);
        let text = format!("JIT2\n{key}\n{time}\n{nonce}\n{method}\n{path}\n{query}\n{body}");
        format!("v2={}", self.mac(&text))
    }

    fn mac(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    pub fn headers(&self, mac: String) -> Vec<(&'static str, String)> {
        vec![
            ("X-JIT-KeyID", self.key_id.to_owned()),
            ("X-JIT-Timestamp", self.timestamp.to_string()),
            ("X-JIT-Nonce", self.nonce.clone()),
            ("X-JIT-Signature", mac),
        ]
    }
}

#[allow(clippy::disallowed_methods)] // a caller has a clock of its own
pub fn now() -> i64 {
    i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap()
}

pub fn nonce() -> String {
    let bytes: [u8; 16] = rand::random();
    hex::encode(bytes)
}

impl Caller {
    pub fn new(url: &str, key_id: &str, secret: &str) -> Self {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            url: url.into(),
            key_id: key_id.into(),
            secret: secret.into(),
            client,
            ahead: Arc::default(),
        }
    }

    /// The same caller, with the time of a server whose clock is set.
    #[must_use]
    pub fn at(self, clock: &shift::WallClock) -> Self {
        let ahead = clock.ahead();
        Self { ahead, ..self }
    }

    pub fn signing(&self) -> Signing<'_> {
        Signing {
            key_id: &self.key_id,
            secret: &self.secret,
            timestamp: now() + self.ahead.load(Ordering::SeqCst),
            nonce: nonce(),
        }
    }

    pub async fn send(
        &self,
        method: &str,
        path_and_query: &str,
        headers: Vec<(&str, String)>,
        body: Vec<u8>,
    ) -> Reply {
        self.try_send(method, path_and_query, headers, body)
            .await
            .unwrap()
    }

    pub async fn try_send(
        &self,
        method: &str,
        path_and_query: &str,
        headers: Vec<(&str, String)>,
        body: Vec<u8>,
    ) -> reqwest::Result<Reply> {
        let url = format!("{}{path_and_query}", self.url);
        let mut call = self.client.request(method.parse().unwrap(), url);
        for (name, value) in headers {
            call = call.header(name, value);
        }
        let reply = call.body(body).send().await?;
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        Ok(Reply {
            status,
            headers,
            text: reply.text().await?,
        })
    }

    /// Sends a call signed as v1, as the plugin does.
    pub async fn call(&self, method: &str, path_and_query: &str, body: &str) -> Reply {
        self.try_call(method, path_and_query, body).await.unwrap()
    }

    pub async fn try_call(
        &self,
        method: &str,
        path_and_query: &str,
        body: &str,
    ) -> reqwest::Result<Reply> {
        let path = path_and_query.split('?').next().unwrap();
        let signing = self.signing();
        let mac = signing.v1(method, path, body.as_bytes());
        let mut headers = signing.headers(mac);
        headers.push(("Content-Type", "application/json".into()));
        self.try_send(method, path_and_query, headers, body.as_bytes().to_vec())
            .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, &body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, "").await
    }

    pub async fn bind(&self) {
        self.post(
            "/config/bind",
            &json!({"channel_id": CHANNEL, "account_id": ACCOUNT}),
        )
        .await
        .is(200);
        let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob", "carol"]});
        self.post("/config/approvers", &approvers).await.is(200);
    }

    pub async fn request(&self) -> String {
        self.request_with(json!({})).await
    }

    pub async fn request_with(&self, changes: Value) -> String {
        let created = self.post("/requests", &wanted(&changes)).await.is(201);
        created["request_id"].as_str().unwrap().to_owned()
    }

    pub async fn approve(&self, id: &str) -> Reply {
        let body = json!({"approver_mm_user_id": "bob", "approver_email": "bob@example.com"});
        self.post(&format!("/requests/{id}/approve"), &body).await
    }

    pub async fn deny(&self, id: &str) -> Reply {
        let body = json!({"denier_mm_user_id": "bob", "denier_email": "bob@example.com", "reason": "too broad"});
        self.post(&format!("/requests/{id}/deny"), &body).await
    }

    pub async fn revoke(&self, id: &str) -> Reply {
        let body = json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com", "reason": "incident"});
        self.post(&format!("/requests/{id}/revoke"), &body).await
    }

    pub async fn cancel(&self, id: &str) -> Reply {
        let body = json!({"actor_mm_user_id": "alice", "actor_email": "alice@example.com"});
        self.post(&format!("/requests/{id}/cancel"), &body).await
    }

    pub async fn show(&self, id: &str) -> Value {
        self.get(&format!("/requests/{id}")).await.is(200)
    }

    pub async fn audit(&self, id: &str) -> Vec<Value> {
        let events = self.get(&format!("/requests/{id}/audit")).await.is(200);
        events.as_array().unwrap().clone()
    }

    pub async fn kinds(&self, id: &str) -> Vec<String> {
        let events = self.audit(id).await;
        events
            .iter()
            .map(|event| event["event_type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Polls until the request has this status: no event crosses the process border.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            let request = self.show(id).await;
            if request["status"] == status {
                return request;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the status never became {status}: {request}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Grants Alice access in each of this number of accounts.
    pub async fn granted_in_accounts(&self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 1..=count {
            let account = format!("{number:012}");
            let id = self.request_with(json!({"account_id": account})).await;
            self.approve(&id).await.is(200);
            ids.push(id);
        }
        for id in &ids {
            self.until(id, "GRANTED").await;
        }
        ids
    }

    /// Adds a user to AWS, requests access for the user and approves it.
    pub async fn approved_for(&self, aws: &aws::Aws, name: &str) -> String {
        aws.add_user(name, name);
        let email = format!("{name}@example.com");
        let asked = json!({"requester_mm_user_id": name, "requester_email": email});
        let id = self.request_with(asked).await;
        self.approve(&id).await.is(200);
        id
    }

    /// Polls until the history has this event.
    pub async fn until_told(&self, id: &str, kind: &str) -> Value {
        let begun = Instant::now();
        loop {
            let events = self.audit(id).await;
            if let Some(event) = events.iter().find(|event| event["event_type"] == kind) {
                return event.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "no event {kind}: {events:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn granted(&self) -> String {
        let id = self.request().await;
        self.approve(&id).await.is(200);
        self.until(&id, "GRANTED").await;
        id
    }
}

/// Moves the due time and the end of every grant into the past.
pub fn let_grants_end(folder: &Path) {
    let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
    let mut all = db
        .prepare("SELECT request_id, doc FROM jit_requests")
        .unwrap();
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows: Vec<(String, String)> = rows.unwrap().map(Result::unwrap).collect();
    for (id, doc) in rows {
        let mut record: Value = serde_json::from_str(&doc).unwrap();
        record["granted"]["until"] = record["granted"]["from"].clone();
        record["due_at"] = record["granted"]["from"].clone();
        let sql = "UPDATE jit_requests SET doc = ?2, written_claimable_at = 1, written_end_at = 1
                   WHERE request_id = ?1";
        assert_eq!(db.execute(sql, [id, record.to_string()]), Ok(1));
    }
}

/// The body of a request with some fields changed; null removes a field.
pub fn wanted(changes: &Value) -> Value {
    let mut body = json!({
        "account_id": ACCOUNT,
        "channel_id": CHANNEL,
        "requester_mm_user_id": "alice",
        "requester_email": "alice@example.com",
        "reason": "INC-42: db down: need psql",
        "requested_duration_minutes": 60,
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(name)),
            value => body[name] = value.clone(),
        }
    }
    body
}

/// The receiver of the webhook.
#[derive(Clone)]
pub struct Channel {
    pub url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    answer: Arc<Mutex<Answer>>,
    news: Arc<Notify>,
}

#[derive(Clone, Debug)]
pub struct Heard {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Heard {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Fails,
    Hangs,
}

impl Channel {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            heard: Arc::default(),
            answer: Arc::new(Mutex::new(Answer::Ok)),
            news: Arc::default(),
        };
        let app = Router::new().fallback(hear).with_state(channel.clone());
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        channel
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until this number of deliveries was accepted.
    pub async fn hears(&self, count: usize) -> Vec<Heard> {
        self.hears_when(|heard| heard.len() >= count).await
    }

    pub async fn hears_when(&self, enough: impl Fn(&[Heard]) -> bool) -> Vec<Heard> {
        let waiting = async {
            loop {
                let news = self.news.notified();
                let heard = self.heard();
                if enough(&heard) {
                    return heard;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("the receiver is closed")
    }
}

async fn hear(
    State(channel): State<Channel>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let answer = *channel.answer.lock().unwrap();
    match answer {
        Answer::Ok => {}
        Answer::Fails => return StatusCode::INTERNAL_SERVER_ERROR,
        Answer::Hangs => std::future::pending().await,
    }
    let heard = Heard {
        path: uri.path().to_owned(),
        headers,
        body: body.to_vec(),
    };
    channel.heard.lock().unwrap().push(heard);
    channel.news.notify_waiters();
    StatusCode::OK
}
