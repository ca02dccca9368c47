//! kill -9 at any point of create, approve, grant, revoke and expiry, with the real binary:
//! afterwards the request reaches its final state, the assignment is gone, the audit has each event
//! once, and the receiver gets every notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Caller, Channel, Heard, Jit, Setup, nonce, wanted};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};

/// The number of kills in each life, so that a restart is killed as well.
const KILLS: u32 = 3;

/// A process that is killed and restarted on one store.
struct RestartedServer {
    jit: Option<Jit>,
}

impl RestartedServer {
    fn start(channel: &Channel) -> Self {
        let setup = Setup {
            latency_ms: 40,
            webhook: Some(channel.url.clone()),
            ..Setup::default()
        };
        // The other lives continue while a process starts.
        let jit = Some(block_in_place(|| setup.start()));
        Self { jit }
    }

    fn caller(&self) -> Caller {
        self.jit.as_ref().unwrap().caller()
    }

    fn folder(&self) -> Arc<tempfile::TempDir> {
        self.jit.as_ref().unwrap().folder.clone()
    }

    fn restart(&mut self) {
        self.restart_after(|_| {});
    }

    fn restart_after(&mut self, meanwhile: impl FnOnce(&Path)) {
        let jit = self.jit.take().unwrap();
        self.jit = Some(block_in_place(|| {
            let folder = jit.kill();
            meanwhile(folder.path());
            Jit::start_in(folder)
        }));
    }

    /// Repeats an action after each kill until it succeeds, as people do.
    async fn repeat_through_kills<T, F>(
        &mut self,
        kill_after: Duration,
        act: impl Fn(Caller) -> F,
    ) -> T
    where
        F: Future<Output = T>,
    {
        for kill in 0..KILLS {
            let done = act(self.caller());
            match tokio::time::timeout(kill_after * (kill + 1), done).await {
                Ok(done) => return done,
                Err(_) => self.restart(),
            }
        }
        act(self.caller()).await
    }
}

/// A command that is repeated after a crash is accepted, or was accepted before.
async fn create_request(caller: Caller, key: &str) -> String {
    let signing = caller.signing();
    let body = wanted(&json!({})).to_string();
    let mac = signing.v1("POST", "/requests", body.as_bytes());
    let mut headers = signing.headers(mac);
    headers.push(("Idempotency-Key", key.to_owned()));
    let created = caller.send("POST", "/requests", headers, body.into_bytes());
    let created = created.await.is(201);
    created["request_id"].as_str().unwrap().to_owned()
}

async fn life_until_granted(caller: Caller, key: String) -> String {
    let id = create_request(caller.clone(), &key).await;
    let approved = caller.approve(&id).await;
    assert!([200, 409].contains(&approved.status), "{approved:?}");
    caller.until(&id, "GRANTED").await;
    id
}

async fn end_by_revoke(caller: Caller, id: String) {
    let revoked = caller.revoke(&id).await;
    assert!([200, 202, 409].contains(&revoked.status), "{revoked:?}");
    caller.until(&id, "REVOKED").await;
}

fn assignments(folder: &Path) -> i64 {
    let db = rusqlite::Connection::open(folder.join("jit.db.sandbox")).unwrap();
    let count = "SELECT count(*) FROM assignments";
    db.query_row(count, [], |row| row.get(0)).unwrap()
}

fn statuses(heard: &[Heard], id: &str) -> Vec<String> {
    let mut told = Vec::new();
    let mut seen = Vec::new();
    for body in heard {
        // Delivery is at least once: a repeated notice has the same id.
        let name = body.header("webhook-id").to_owned();
        let body = body.json();
        if body["request_id"] == id && !seen.contains(&name) {
            told.push(body["status"].as_str().unwrap().to_owned());
            seen.push(name);
        }
    }
    told
}

async fn holds(
    server: &RestartedServer,
    channel: &Channel,
    id: &str,
    events: &[&str],
    notices: &[&str],
) {
    let caller = server.caller();
    assert_eq!(caller.kinds(id).await, events);
    let folder = server.folder();
    assert_eq!(assignments(folder.path()), 0);
    let verified = common::binary()
        .args(["audit", "verify", "--config"])
        .arg(folder.path().join("jit.toml"))
        .output()
        .unwrap();
    // The test itself moved the end of an expired grant in the record, and in no event.
    let found = String::from_utf8(verified.stdout.clone()).unwrap();
    let is_moved = events.contains(&"EXPIRED") && found.lines().count() == 1;
    let is_expected = verified.status.success() || is_moved && found.contains(": end_time: ");
    assert!(is_expected, "{verified:?}");
    let enough = |heard: &[Heard]| statuses(heard, id).len() >= notices.len();
    let heard = channel.wait_until(enough).await;
    assert_eq!(statuses(&heard, id), notices);
}

/// The number of lives at the same time. They wait most of the time, for pauses and for calls in
/// flight.
const AT_ONCE: usize = 4;

/// Runs a life for each delay before the kill: every few milliseconds of a life of some hundred
/// milliseconds.
async fn swept<F>(life: impl Fn(Duration) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut lives = JoinSet::new();
    for step in 0..16 {
        let life = life(Duration::from_millis(2 + step * 11));
        let room = room.clone();
        lives.spawn(async move {
            let _place = room.acquire().await.unwrap();
            life.await;
        });
    }
    lives.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_survives_kill_9_at_any_point() {
    swept(|kill_after| async move {
        let channel = Channel::open().await;
        let mut server = RestartedServer::start(&channel);
        server.caller().bind().await;
        let key = nonce();
        let begun = |caller| life_until_granted(caller, key.clone());
        let id = server.repeat_through_kills(kill_after, begun).await;
        let end = |caller| end_by_revoke(caller, id.clone());
        server.repeat_through_kills(kill_after, end).await;
        let events = [
            "REQUESTED",
            "APPROVED",
            "ASSIGNING",
            "GRANTED",
            "REVOKE_REQUESTED",
            "REVOKED",
        ];
        holds(&server, &channel, &id, &events, &["GRANTED", "REVOKED"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiring_grant_survives_kill_9_at_any_point() {
    swept(|kill_after| async move {
        let channel = Channel::open().await;
        let mut server = RestartedServer::start(&channel);
        server.caller().bind().await;
        let id = life_until_granted(server.caller(), nonce()).await;
        server.restart_after(common::let_grants_end);
        let expired = |caller: Caller| {
            let id = id.clone();
            async move { drop(caller.until(&id, "EXPIRED").await) }
        };
        server.repeat_through_kills(kill_after, expired).await;
        let events = [
            "REQUESTED",
            "APPROVED",
            "ASSIGNING",
            "GRANTED",
            "EXPIRY_STARTED",
            "EXPIRED",
        ];
        holds(&server, &channel, &id, &events, &["GRANTED", "EXPIRED"]).await;
    })
    .await;
}

/// M4: changes that jit confirmed exist after a crash, and a spent nonce stays spent.
#[tokio::test(flavor = "multi_thread")]
async fn confirmed_changes_and_spent_nonces_survive_kill_9() {
    let channel = Channel::open().await;
    let mut server = RestartedServer::start(&channel);
    let caller = server.caller();
    caller.bind().await;
    let signing = caller.signing();
    let body = wanted(&json!({})).to_string().into_bytes();
    let headers = signing.headers(signing.v1("POST", "/requests", &body));
    let created = caller.send("POST", "/requests", headers.clone(), body.clone());
    let id = created.await.is(201)["request_id"].clone();
    server.restart();
    let caller = server.caller();
    caller
        .send("POST", "/requests", headers, body)
        .await
        .is(401);
    let listed = caller
        .get(&format!("/requests?channel_id={}", common::CHANNEL))
        .await
        .is(200);
    let listed = listed["items"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["request_id"], id);
}
