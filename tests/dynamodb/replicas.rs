//! Many replicas on one set of tables, some of them killed at random times: P1 to P7 hold, and each
//! event happens once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jit::domain::audit::verify_against;
use jit::domain::{AuditKey, EventKind, Request, State, Status};
use jit::store::dynamodb::DynamoStore;
use jit::store::{Filter, Store, StoreError};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::common::aws::Aws;
use crate::common::dynamo::Tables;
use crate::common::dynamo::proxy::{Mood, Proxy};
use crate::common::{Caller, Channel, Heard, Jit, Reply, Setup, TIMEOUT, wanted};

/// Fewer people and accounts than requests, so that requests share assignments.
const PEOPLE: usize = 40;
const ACCOUNTS: usize = 8;
const AT_ONCE: usize = 16;

/// Replicas, some of which are killed and restarted.
struct Replicas {
    setup: Setup,
    servers: Mutex<Vec<Jit>>,
    turn: Mutex<usize>,
}

impl Replicas {
    async fn start(setup: Setup, size: usize) -> Self {
        let (first, _) = setup.start_with_accounts(ACCOUNTS).await;
        let mut servers = vec![first];
        servers.resize_with(size, || setup.start());
        Self {
            setup,
            servers: Mutex::new(servers),
            turn: Mutex::default(),
        }
    }

    /// The next replica in turn.
    fn caller(&self) -> Caller {
        let servers = self.servers.lock().unwrap();
        let mut turn = self.turn.lock().unwrap();
        *turn += 1;
        servers[*turn % servers.len()].caller()
    }

    /// Kills every second replica with -9 and starts each again as a new process.
    fn kill_half(&self) {
        let sunk: Vec<Jit> = {
            let mut servers = self.servers.lock().unwrap();
            let half = servers.len() / 2;
            servers.drain(..half).collect()
        };
        // The other replicas and the proxies keep running meanwhile.
        tokio::task::block_in_place(|| {
            for jit in sunk {
                let new = Jit::start_with(jit.kill(), &self.setup.environment());
                self.servers.lock().unwrap().push(new);
            }
        });
    }

    /// Repeats a call until a replica answers it, as people do.
    async fn call_until_answered<F>(&self, expected: &[u16], call: impl Fn(Caller) -> F) -> Reply
    where
        F: Future<Output = reqwest::Result<Reply>>,
    {
        let begun = Instant::now();
        loop {
            let said = call(self.caller()).await;
            match &said {
                Ok(reply) if expected.contains(&reply.status) => return said.unwrap(),
                // The replica was killed, or its time limit passed.
                Ok(reply) if reply.status == 503 => {}
                Err(_) => {}
                Ok(reply) => panic!("{reply:?}"),
            }
            assert!(begun.elapsed() < TIMEOUT, "{said:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn opened_and_approved(&self, number: usize) -> String {
        let who = format!("user{}", number % PEOPLE);
        let account = format!("{:012}", number % ACCOUNTS + 1);
        let body = wanted(&json!({
            "account_id": account,
            "requester_mm_user_id": who,
            "requester_email": format!("{who}@example.com"),
        }))
        .to_string();
        let opened = self
            .call_until_answered(&[201], |caller| {
                let body = body.clone();
                async move {
                    let signing = caller.signing();
                    let mac = signing.v1("POST", "/requests", body.as_bytes());
                    let mut headers = signing.headers(mac);
                    headers.push(("Idempotency-Key", format!("life {number}")));
                    caller
                        .try_send("POST", "/requests", headers, body.into_bytes())
                        .await
                }
            })
            .await
            .json();
        let id = opened["request_id"].as_str().unwrap().to_owned();
        let by = json!({"approver_mm_user_id": "bob", "approver_email": "bob@example.com"});
        self.command(&id, "approve", &by, &[200, 409]).await;
        id
    }

    async fn command(
        &self,
        id: &str,
        what: &str,
        by: &serde_json::Value,
        expected: &[u16],
    ) -> Reply {
        let (path, body) = (format!("/requests/{id}/{what}"), by.to_string());
        let call = |caller: Caller| {
            let (path, body) = (path.clone(), body.clone());
            async move { caller.try_call("POST", &path, &body).await }
        };
        self.call_until_answered(expected, call).await
    }

    /// Two callers revoke at once; the access must be gone for each that gets a 200.
    async fn revoked(&self, id: &str, aws: &Aws) {
        let by = json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com"});
        let expected = [200, 202, 409];
        let both = tokio::join!(
            self.command(id, "revoke", &by, &expected),
            self.command(id, "revoke", &by, &expected)
        );
        for reply in [both.0, both.1] {
            if reply.status == 200 {
                let said = reply.json();
                assert_eq!(said["status"], "REVOKED");
                let account = said["account_id"].as_str().unwrap();
                let user = said["identity_store_user_id"].as_str().unwrap();
                let there = aws.assignments();
                let stands = |one: &&crate::common::aws::Assignment| {
                    one.account == account && one.principal == user
                };
                assert!(!there.iter().any(|one| stands(&one)), "P6: {said}");
            }
        }
    }
}

async fn each<T, F>(replicas: &Arc<Replicas>, all: Vec<T>, act: impl Fn(Arc<Replicas>, T) -> F)
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for one in all {
        let (act, room) = (act(replicas.clone(), one), room.clone());
        tasks.spawn(async move {
            let _place = room.acquire().await.unwrap();
            act.await;
        });
    }
    tasks.join_all().await;
}

/// Retries a read, because one DynamoDB Local serves all replicas and may be overloaded.
async fn seen<T, F>(look: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(error) => assert!(begun.elapsed() < TIMEOUT, "{error}"),
        }
    }
}

/// Waits until no request has one of these statuses, as long as their number falls.
pub async fn none_is(store: &DynamoStore, statuses: &[Status]) {
    for status in statuses {
        let filter = Filter {
            status: Some(*status),
            ..Filter::default()
        };
        let (mut fewest, mut since) = (usize::MAX, Instant::now());
        loop {
            let left = seen(|| store.list(&filter, None, 1000)).await;
            if left.is_empty() {
                break;
            }
            if left.len() < fewest {
                (fewest, since) = (left.len(), Instant::now());
            }
            let waited = since.elapsed();
            assert!(
                waited < TIMEOUT * 3,
                "requests remain {status}: {:#?}",
                left.first()
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn every(store: &DynamoStore) -> Vec<Request> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let heads = seen(|| store.heads(after.as_ref(), 100)).await;
        let Some(last) = heads.last() else {
            return all;
        };
        after = Some(last.key.clone());
        for head in heads {
            if let AuditKey::Request(id) = head.key {
                all.push(seen(|| store.request(id)).await.unwrap());
            }
        }
    }
}

/// The fault of a run.
#[derive(Clone, Copy)]
enum RunFault {
    /// Half of the replicas are killed, twice.
    Kills,
    /// This percentage of calls to DynamoDB fails.
    Failures { percent: u32 },
}

/// One DynamoDB Local serves this many replicas at a time. Two replicas use half of it: they wait
/// for their pace at AWS and for leases of killed processes most of the time.
const MOST_REPLICAS: u32 = 8;
static ROOM: Semaphore = Semaphore::const_new(MOST_REPLICAS as usize);

fn prepare(aws: &Aws, count: usize) {
    aws.in_long_pages();
    aws.allow_creates(count);
    for number in 0..PEOPLE {
        let name = format!("user{number}");
        aws.add_user(&name, &name);
    }
}

async fn all_ended_well(aws: &Aws, store: &DynamoStore, count: usize) {
    // P1
    assert!(aws.assignments().is_empty(), "{:?}", aws.assignments());
    let all = every(store).await;
    assert_eq!(all.len(), count);
    for request in &all {
        ended_well(store, request).await;
    }
}

/// Waits until the receiver has heard of the end of each request.
async fn all_ends_are_told(channel: &Channel, count: usize) {
    let ended = |heard: &[Heard]| {
        let ends = heard
            .iter()
            .map(Heard::json)
            .filter(|body| body["status"] != "GRANTED");
        let ends: BTreeSet<_> = ends.map(|body| body["request_id"].to_string()).collect();
        ends.len() == count
    };
    check_order_of_notices(&channel.wait_until(ended).await);
}

/// Half of the grants are revoked, and the others expire.
async fn lives(size: usize, count: usize, fault: RunFault) {
    // Two of the tests with two replicas run at a time, and the one with eight runs alone.
    let share = u32::try_from(size * 2).unwrap().min(MOST_REPLICAS);
    let _room = ROOM.acquire_many(share).await.unwrap();
    let (aws, tables, channel) = (
        Aws::quick().await,
        Tables::fresh().await,
        Channel::open().await,
    );
    let proxy = Proxy::open(&tables.url, Mood::Well).await;
    let kills = matches!(fault, RunFault::Kills);
    prepare(&aws, count);
    let setup = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(tables.through(&proxy.url)),
        webhook: Some(channel.url.clone()),
        ..Setup::default()
    };
    let replicas = Arc::new(Replicas::start(setup, size).await);
    if let RunFault::Failures { percent } = fault {
        proxy.set(Mood::Failing { seed: 7, percent });
    }
    let store = tables.store();

    let ids = Arc::new(Mutex::new(BTreeMap::new()));
    let begin = |replicas: Arc<Replicas>, number: usize| {
        let ids = ids.clone();
        async move {
            if kills && number == count / 2 {
                replicas.kill_half();
            }
            let id = replicas.opened_and_approved(number).await;
            ids.lock().unwrap().insert(number, id);
        }
    };
    each(&replicas, (0..count).collect(), begin).await;
    none_is(&store, &[Status::Pending, Status::Approved]).await;
    let ids: Vec<String> = ids.lock().unwrap().values().cloned().collect();
    assert_eq!(ids.len(), count, "each key made one request");

    let (revoked, expired) = ids.split_at(count / 2);
    for id in expired {
        tables.let_it_end(id).await;
    }
    let numbered: Vec<(usize, String)> = revoked.iter().cloned().enumerate().collect();
    let end = |replicas: Arc<Replicas>, (number, id): (usize, String)| {
        let aws = aws.clone();
        async move {
            if kills && number == count / 6 {
                replicas.kill_half();
            }
            replicas.revoked(&id, &aws).await;
        }
    };
    each(&replicas, numbered, end).await;
    none_is(&store, &[Status::Granted, Status::Approved, Status::Error]).await;

    all_ended_well(&aws, &store, count).await;
    all_ends_are_told(&channel, count).await;
}

// P2, P3, P4, P7: each event once, in a hash chain that ends where the record says.
async fn ended_well(store: &DynamoStore, request: &Request) {
    let key = AuditKey::Request(request.id);
    let events = seen(|| store.audit(&key)).await;
    verify_against(&events, &request.version.chain, Some(request.status())).unwrap();
    let kinds: Vec<EventKind> = events.iter().map(|event| event.event_type).collect();
    let once = |kind: EventKind| kinds.iter().filter(|one| **one == kind).count() == 1;
    let begun = [
        EventKind::Requested,
        EventKind::Approved,
        EventKind::Assigning,
        EventKind::Granted,
    ];
    assert!(begun.iter().all(|kind| once(*kind)), "{kinds:?}");
    assert!(
        once(EventKind::Revoked) != once(EventKind::Expired),
        "{kinds:?}"
    );
    assert!(
        matches!(request.state, State::Revoked { .. } | State::Expired { .. }),
        "{request:?}"
    );
    assert_eq!(
        (request.schedule.due_at, request.schedule.lease),
        (None, None)
    );
    let key = request.holding_key().unwrap();
    let holding = seen(|| store.holding(&key)).await.unwrap();
    assert!(
        holding.holders.is_empty() && !holding.removing,
        "{holding:?}"
    );
}

/// Each notice arrives at least once. No notice of a grant follows the notice of its end.
fn check_order_of_notices(heard: &[Heard]) {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for body in heard.iter().map(Heard::json) {
        let (id, status) = (body["request_id"].to_string(), body["status"].to_string());
        if status == "\"GRANTED\"" {
            assert!(last.get(&id).is_none_or(|before| *before == status), "{id}");
        }
        last.insert(id, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_end_every_request_once() {
    lives(2, 250, RunFault::Kills).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_replicas_end_every_request_once() {
    lives(8, 250, RunFault::Kills).await;
}

// DynamoDB throttles, conflicts, fails, and drops calls and answers: no change is lost, and none
// happens twice.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_lose_no_change_on_a_failing_dynamodb() {
    lives(2, 100, RunFault::Failures { percent: 20 }).await;
}
