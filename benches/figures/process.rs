//! The measured processes: the release binary of jit, and a server with a constant answer.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use jit::clock::{Clock, SystemClock};
use jit::signature::{self, Message, Scheme, Secret};
use serde_json::{Value, json};

use crate::aws::{ADMIN, Aws, INSTANCE, STORE};
use crate::tables::Tables;

/// A key of jit's configuration, and its secret.
#[derive(Debug)]
pub struct Key {
    pub id: &'static str,
    pub secret: &'static str,
}

pub const PLUGIN: Key = Key {
    id: "plugin",
    secret: SECRET,
};
pub const OTHER_KEY: Key = Key {
    id: "other",
    secret: "fedcba9876543210fedcba9876543210",
};
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The token of `/metrics`.
pub const METRICS_TOKEN: &str = "metrics-of-the-bench";
pub const ACCOUNT: &str = "111122223333";

pub struct Process {
    child: Child,
    pub address: String,
}

/// The measurement is about jit, not about its limits.
const RATE: &str = "creates_per_second = 1000000\ncreate_burst = 1000000\n";

impl Process {
    pub fn jit(folder: &Path, latency_ms: u32) -> Self {
        Self::jit_with(folder, latency_ms, "")
    }

    /// Starts jit with additional configuration.
    pub fn jit_with(folder: &Path, latency_ms: u32, more: &str) -> Self {
        let config = folder.join("jit.toml");
        let store = folder.join("jit.db");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nmetrics_token = \"{METRICS_TOKEN}\"\n{RATE}[store]\npath = {store:?}\n\
             [identity_center]\nmode = \"sandbox\"\n[sandbox]\nlatency_ms = {latency_ms}\n\
             [keys.plugin]\nsecret = \"{SECRET}\"\n[keys.{}]\nsecret = \"{}\"\n{more}",
            OTHER_KEY.id, OTHER_KEY.secret
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jit"));
        command.arg("serve").arg("--config").arg(config);
        Self::start(command)
    }

    /// Starts jit on these DynamoDB tables.
    pub fn jit_in(folder: &Path, tables: &Tables) -> Self {
        let config = folder.join("jit.toml");
        let store = folder.join("jit.db");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nmetrics_token = \"{METRICS_TOKEN}\"\n{RATE}[identity_center]\nmode = \"sandbox\"\n\
             [sandbox]\nlatency_ms = 0\n[keys.plugin]\nsecret = \"{SECRET}\"\n\
             [keys.{}]\nsecret = \"{}\"\n[store]\npath = {store:?}\n{}",
            OTHER_KEY.id,
            OTHER_KEY.secret,
            tables.config()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jit"));
        command.arg("serve").arg("--config").arg(config);
        command.envs(tables.environment());
        Self::start(command)
    }

    /// Starts jit with the real AWS client, connected to the simulated AWS of the tests.
    pub fn jit_at(folder: &Path, aws: &Aws, calls_per_second: u32) -> Self {
        let config = folder.join("jit.toml");
        let store = folder.join("jit.db");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nmetrics_token = \"{METRICS_TOKEN}\"\n{RATE}[store]\npath = {store:?}\n\
             [identity_center]\ninstance_arn = \"{INSTANCE}\"\nidentity_store_id = \"{STORE}\"\n\
             calls_per_second = {calls_per_second}\n[permission_sets]\nadmin = \"{ADMIN}\"\n\
             [keys.plugin]\nsecret = \"{SECRET}\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jit"));
        command.arg("serve").arg("--config").arg(config);
        command.envs(aws.environment());
        Self::start(command)
    }

    /// Starts a server that answers every call with the same text.
    pub fn echo(text: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--echo").arg(text);
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        Self { child, address }
    }

    pub fn caller(&self) -> Caller {
        self.caller_with(&PLUGIN)
    }

    pub fn caller_with(&self, key: &'static Key) -> Caller {
        Caller {
            key,
            url: format!("http://{}", self.address),
            http: reqwest::Client::new(),
        }
    }

    pub async fn first_answer(&self) {
        let url = format!("http://{}/healthz", self.address);
        assert!(reqwest::get(url).await.unwrap().status().is_success());
    }

    pub async fn bind(&self) {
        self.caller().bind().await;
    }

    pub async fn one_request(&self) -> String {
        self.bind().await;
        let created = self.caller().post("/requests", &wanted(0)).await;
        created["request_id"].as_str().unwrap().to_owned()
    }

    pub async fn get(&self, path: &str) -> String {
        self.caller().get(path).await.to_string()
    }

    /// Sends a click as Mattermost does: without a signature of jit's keys, on a new connection.
    pub async fn press(&self, click: &Value) {
        let url = format!("http://{}/mattermost/action", self.address);
        let call = reqwest::Client::new().post(url).body(click.to_string());
        let reply = call.header("Content-Type", "application/json").send().await;
        assert_eq!(reply.unwrap().status(), 200, "{click}");
    }

    pub fn resident_kib(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that the process had at one time.
    pub fn peak_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub async fn echo(text: &str) {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let app = Router::new().fallback(move |_: Bytes| async move { body });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}

pub fn sign(key: &Key, method: &str, path: &str, body: &[u8]) -> [(&'static str, String); 4] {
    let timestamp = SystemClock.now().seconds().to_string();
    let nonce = SystemClock.draw().to_string();
    let message = Message {
        key_id: key.id,
        timestamp: &timestamp,
        nonce: &nonce,
        method,
        path,
        query: "",
        body,
    };
    let mac = signature::sign(Scheme::V1, &Secret::new(key.secret.into()), &message);
    [
        ("X-JIT-KeyID", key.id.into()),
        ("X-JIT-Timestamp", timestamp),
        ("X-JIT-Nonce", nonce),
        ("X-JIT-Signature", mac),
    ]
}

/// An id of a Mattermost user, which has 26 characters.
pub fn user_id(number: usize) -> String {
    format!("user{number:022}")
}

/// Returns a call for a request. Each number has its own requester, so that no two requests
/// share an assignment.
pub fn wanted(number: usize) -> Value {
    json!({
        "account_id": ACCOUNT,
        "channel_id": "town-square",
        "requester_mm_user_id": user_id(number),
        "requester_email": format!("user{number}@example.com"),
        "reason": "INC-42: db down: need psql",
        "requested_duration_minutes": 60,
    })
}

pub struct Caller {
    key: &'static Key,
    url: String,
    http: reqwest::Client,
}

impl Caller {
    pub async fn bind(&self) {
        let terms = json!({"channel_id": "town-square", "account_id": ACCOUNT});
        self.post("/config/bind", &terms).await;
        let approvers = json!({"channel_id": "town-square", "approver_ids": ["bob"]});
        self.post("/config/approvers", &approvers).await;
    }

    /// Runs one request from creation to revoke; returns its user and the time of the answer.
    pub async fn live(&self, number: usize) -> (String, i64) {
        let id = self.granted(number).await;
        let revoked = self.revoke(&id).await;
        let answered = SystemClock.now().millis();
        let user = revoked["identity_store_user_id"].as_str().unwrap();
        (user.to_owned(), answered)
    }

    /// Asks for access, approves it, and waits for the grant.
    pub async fn granted(&self, number: usize) -> String {
        let created = self.post("/requests", &wanted(number)).await;
        let id = created["request_id"].as_str().unwrap();
        let bob = json!({"approver_mm_user_id": "bob", "approver_email": "bob@example.com"});
        self.post(&format!("/requests/{id}/approve"), &bob).await;
        let path = format!("/requests/{id}");
        while self.get(&path).await["status"] != "GRANTED" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        id.to_owned()
    }

    pub async fn revoke(&self, id: &str) -> Value {
        let actor = json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com"});
        let revoked = self.post(&format!("/requests/{id}/revoke"), &actor).await;
        assert_eq!(revoked["status"], "REVOKED", "{revoked}");
        revoked
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, String::new()).await
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Value {
        let url = format!("{}{path}", self.url);
        let mut call = self.http.request(method.parse().unwrap(), url);
        for (name, value) in sign(self.key, method, path, body.as_bytes()) {
            call = call.header(name, value);
        }
        let reply = call
            .header("Content-Type", "application/json")
            .body(body)
            .send()
            .await;
        let text = reply.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}
