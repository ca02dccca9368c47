//! The delivery of notices to receivers that do not answer. Time passes only while all tasks wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/fixtures.rs"]
mod fixtures;
#[path = "../store/memory.rs"]
mod memory;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fixtures::{person, policy};
use jit::clock::{Clock, Uptime};
use jit::domain::{
    AccountId, Admin, Ask, BindTerms, ChannelId, Command, Draft, Millis, Minutes, Notice,
    ReceiverName, RequestId, Text, Timestamp,
};
use jit::service::{Announce, Configure, Service};
use jit::worker::notices::{NotReceived, NoticeWorker, Receiver};
use memory::MemoryStore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Tokio's time, with a wall clock that a test can set.
#[derive(Clone)]
struct PausedClock {
    begun: Instant,
    set_by: Arc<AtomicI64>,
    drawn: Arc<AtomicU64>,
}

impl PausedClock {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            set_by: Arc::default(),
            drawn: Arc::default(),
        }
    }
}

#[async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let passed = self.uptime().0.0;
        Timestamp::from_millis(1_000_000_000_000 + passed + self.set_by.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Uptime {
        Uptime(Millis(
            i64::try_from(self.begun.elapsed().as_millis()).unwrap(),
        ))
    }

    async fn wait_until(&self, time: Timestamp) {
        while self.now() < time {
            let rest = (time - self.now()).min(Millis::seconds(5));
            tokio::time::sleep(rest.std()).await;
        }
    }

    async fn sleep_until(&self, moment: Uptime) {
        tokio::time::sleep((moment - self.uptime()).std()).await;
    }

    fn draw(&self) -> Uuid {
        Uuid::from_u128(self.drawn.fetch_add(1, Ordering::SeqCst).into())
    }
}

/// A receiver that does not answer its first calls for a notice.
#[derive(Clone, Default)]
struct Hangs {
    first: u32,
    seen: Arc<Mutex<BTreeMap<u64, Seen>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    tries: u32,
    now: u32,
    at_once: u32,
    received: u32,
}

impl Hangs {
    fn at(first: u32) -> Self {
        let seen = Arc::default();
        Self { first, seen }
    }

    fn note(&self, seq: u64, change: impl Fn(&mut Seen)) {
        change(self.seen.lock().unwrap().entry(seq).or_default());
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().values().copied().collect()
    }
}

/// One call to the receiver, until it ends or is dropped.
struct Call<'a>(&'a Hangs, u64);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.note(self.1, |seen| seen.now -= 1);
    }
}

#[async_trait]
impl Receiver for Hangs {
    fn name(&self) -> ReceiverName {
        ReceiverName::Webhook
    }

    async fn receive(&self, notice: &Notice, _: Timestamp) -> Result<(), NotReceived> {
        let seq = notice.seq;
        self.note(seq, |seen| {
            seen.tries += 1;
            seen.now += 1;
            seen.at_once = seen.at_once.max(seen.now);
        });
        let call = Call(self, seq);
        let tries = self.seen.lock().unwrap()[&seq].tries;
        if tries <= self.first {
            std::future::pending::<()>().await;
        }
        self.note(seq, |seen| seen.received += 1);
        drop(call);
        Ok(())
    }
}

/// Two replicas on one store, with one receiver.
struct Replicas {
    clock: PausedClock,
    store: Arc<MemoryStore>,
    stop: CancellationToken,
    running: tokio::task::JoinSet<()>,
}

impl Replicas {
    fn start(receiver: &Hangs) -> Self {
        let mut replicas = Self {
            clock: PausedClock::new(),
            store: Arc::new(MemoryStore::default()),
            stop: CancellationToken::new(),
            running: tokio::task::JoinSet::new(),
        };
        replicas.run(receiver);
        replicas
    }

    fn run(&mut self, receiver: &Hangs) {
        self.stop = CancellationToken::new();
        for _ in 0..2 {
            let notices =
                NoticeWorker::new(Arc::new(self.service()), vec![Arc::new(receiver.clone())]);
            let stop = self.stop.clone();
            self.running.spawn(async move { notices.run(stop).await });
        }
    }

    fn service(&self) -> Service {
        let clock = Arc::new(self.clock.clone());
        Service::new(self.store.clone(), clock, policy(), Announce::ToBoth)
    }

    /// Creates a request, whose notice is due at once; this service delivers nothing itself.
    async fn request(&self) -> RequestId {
        let service = self.service();
        let channel: ChannelId = "ch".parse().unwrap();
        let account: AccountId = "123456789012".parse().unwrap();
        let bind = Configure::Bind {
            account_id: account.clone(),
            terms: BindTerms::default(),
        };
        let approvers = vec!["bob".parse().unwrap()];
        let admin = Admin {
            person: None,
            key_id: "test".into(),
        };
        for configure in [bind, Configure::SetApprovers { approvers }] {
            let configured = service.configure(&channel, &configure, &admin);
            configured.await.unwrap();
        }
        let draft = Draft {
            id: RequestId::from_uuid(self.clock.draw()),
            account_id: account,
            channel_id: channel,
            requester: person("alice"),
            reason: Some(Text::clip("x")),
            jira: None,
            duration: Minutes::new(60).unwrap(),
            permission_set: None,
            start_at: None,
        };
        service.open(draft, None, None).await.unwrap().id
    }

    async fn end(&mut self) {
        self.stop.cancel();
        while let Some(done) = self.running.join_next().await {
            done.unwrap();
        }
    }
}

// K14
#[tokio::test(start_paused = true)]
async fn a_hanging_receiver_is_called_by_one_worker_at_a_time_and_again_later() {
    let receiver = Hangs::at(3);
    let mut replicas = Replicas::start(&receiver);
    replicas.request().await;
    tokio::time::sleep(Millis::minutes(30).std()).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].at_once, 1, "{seen:?}");
    assert_eq!((seen[0].tries, seen[0].received), (4, 1), "{seen:?}");
    replicas.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_delivery_is_repeated_after_the_next_start() {
    let receiver = Hangs::at(1);
    let mut replicas = Replicas::start(&receiver);
    replicas.request().await;
    while receiver.seen().is_empty() {
        tokio::time::sleep(Millis::seconds(1).std()).await;
    }
    replicas.end().await;
    replicas.run(&receiver);
    tokio::time::sleep(Millis::seconds(30).std()).await;
    let seen = receiver.seen();
    assert_eq!((seen[0].tries, seen[0].received), (2, 1), "{seen:?}");
    replicas.end().await;
}

/// P8: the notice worker keeps looking after the clock was set back.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_delays_no_other_notice() {
    let receiver = Hangs::at(0);
    let mut replicas = Replicas::start(&receiver);
    tokio::time::sleep(Millis::seconds(1).std()).await;
    let hour = Millis::minutes(60);
    replicas.clock.set_by.store(-hour.0, Ordering::SeqCst);
    replicas.request().await;
    tokio::time::sleep(Millis::seconds(30).std()).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1, "not delivered");
    replicas.end().await;
}

/// A receiver that refuses while it is down, after it used this much time.
#[derive(Clone)]
struct Listens {
    name: ReceiverName,
    is_down: Arc<AtomicBool>,
    refuses_after: Millis,
    heard: Arc<Mutex<Vec<u64>>>,
}

impl Listens {
    fn new(name: ReceiverName) -> Self {
        Self {
            name,
            is_down: Arc::default(),
            refuses_after: Millis(0),
            heard: Arc::default(),
        }
    }

    fn heard(&self) -> Vec<u64> {
        self.heard.lock().unwrap().clone()
    }
}

#[async_trait]
impl Receiver for Listens {
    fn name(&self) -> ReceiverName {
        self.name
    }

    async fn receive(&self, notice: &Notice, _: Timestamp) -> Result<(), NotReceived> {
        if self.is_down.load(Ordering::SeqCst) {
            tokio::time::sleep(self.refuses_after.std()).await;
            return Err(NotReceived("it is down".into()));
        }
        self.heard.lock().unwrap().push(notice.seq);
        Ok(())
    }
}

impl Replicas {
    fn run_with(&mut self, receivers: &[Listens; 2]) {
        self.stop = CancellationToken::new();
        let each = receivers.iter().cloned();
        let each = each.map(|one| -> Arc<dyn Receiver> { Arc::new(one) });
        let notices = NoticeWorker::new(Arc::new(self.service()), each.collect());
        let stop = self.stop.clone();
        self.running.spawn(async move { notices.run(stop).await });
    }

    async fn asked(&self, id: RequestId, who: &str, ask: Ask) {
        let by = person(who);
        let command = Command::Asked { by, ask };
        self.service().handle(id, command, None).await.unwrap();
    }
}

// N1
#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_down_delays_only_its_own_notices_and_a_restart_tries_at_once() {
    for [down, up] in [
        [ReceiverName::Webhook, ReceiverName::Mattermost],
        [ReceiverName::Mattermost, ReceiverName::Webhook],
    ] {
        let receivers = [Listens::new(down), Listens::new(up)];
        receivers[0].is_down.store(true, Ordering::SeqCst);
        let mut replicas = Replicas::start(&Hangs::at(0));
        replicas.end().await;
        replicas.run_with(&receivers);
        let id = replicas.request().await;
        tokio::time::sleep(Millis::seconds(20).std()).await;
        assert_eq!(receivers[1].heard().len(), 1, "{up:?} waits for {down:?}");
        // The pauses are minutes long by now, and a new notice waits for none of them.
        tokio::time::sleep(Millis::minutes(20).std()).await;
        replicas.asked(id, "bob", Ask::Approve).await;
        tokio::time::sleep(Millis::seconds(20).std()).await;
        let told = receivers[1].heard();
        assert_eq!(told.len(), 2, "{up:?} waits for {down:?}");
        assert!(receivers[0].heard().is_empty());
        // The notices are still stored for the receiver that does not have them.
        replicas.end().await;
        tokio::time::sleep(Millis::minutes(20).std()).await;
        replicas.run_with(&receivers);
        tokio::time::sleep(Millis::seconds(20).std()).await;
        replicas.end().await;
        receivers[0].is_down.store(false, Ordering::SeqCst);
        replicas.run_with(&receivers);
        tokio::time::sleep(Millis::seconds(20).std()).await;
        assert_eq!(receivers[0].heard(), told, "in order, at once");
        assert_eq!(receivers[1].heard(), told, "once");
        replicas.end().await;
    }
}

// N1
#[tokio::test(start_paused = true)]
async fn a_receiver_that_uses_all_its_time_delays_no_notice_of_the_other() {
    for [slow, up] in [
        [ReceiverName::Webhook, ReceiverName::Mattermost],
        [ReceiverName::Mattermost, ReceiverName::Webhook],
    ] {
        let mut receivers = [Listens::new(slow), Listens::new(up)];
        receivers[0].is_down.store(true, Ordering::SeqCst);
        receivers[0].refuses_after = Millis::seconds(20);
        let mut replicas = Replicas::start(&Hangs::at(0));
        replicas.end().await;
        replicas.run_with(&receivers);
        let id = replicas.request().await;
        tokio::time::sleep(Millis::seconds(1).std()).await;
        replicas.asked(id, "bob", Ask::Approve).await;
        tokio::time::sleep(Millis::minutes(2).std()).await;
        let told = receivers[1].heard();
        assert_eq!(told.len(), 2, "{up:?} waits for {slow:?}");
        // The slow receiver works again, and each has each notice once, in order.
        receivers[0].is_down.store(false, Ordering::SeqCst);
        tokio::time::sleep(Millis::minutes(20).std()).await;
        replicas.end().await;
        assert_eq!(receivers[0].heard(), told, "in order");
        assert_eq!(receivers[1].heard(), told, "once");
    }
}
