//! The delivery of notices to receivers that do not answer. Time passes only while all tasks wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/fixtures.rs"]
mod fixtures;
#[path = "../store/memory.rs"]
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fixtures::{person, policy};
use jit::clock::{Clock, Uptime};
use jit::domain::replay::compare_request;
use jit::domain::{
    AccountId, Admin, Ask, Audience, AuditKey, BindTerms, ChannelId, Command, Draft, EventKind,
    Millis, Minutes, Notice, PersonMark, ReceiverName, RequestId, Text, Timestamp,
};
use jit::service::{Announce, Configure, Service};
use jit::store::{Commit, Store, Write};
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

    fn timeout(&self) -> Millis {
        Millis::seconds(32)
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
        Service::new(self.store.clone(), clock, policy(), Announce::Both)
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

// K6: the process delivered no notice until its end.
#[tokio::test(start_paused = true)]
async fn a_panic_at_the_start_stops_no_delivery() {
    let receiver = Hangs::at(0);
    let mut replicas = Replicas::start(&receiver);
    replicas.end().await;
    replicas.store.panic_at_end_pauses();
    replicas.run(&receiver);
    replicas.request().await;
    tokio::time::sleep(Millis::seconds(30).std()).await;
    assert_eq!(receiver.seen().len(), 1);
    replicas.end().await;
}

/// P8: the notice worker keeps searching after the clock was set back.
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

/// The time limit of a receiver.
const HANGS_FOR: Millis = Millis::seconds(10);

/// A receiver that refuses while it is down, and answers late or not at all while it hangs.
#[derive(Clone)]
struct Listens {
    name: ReceiverName,
    is_down: Arc<AtomicBool>,
    /// The calls that it refused. After a thousand it accepts, so that a loop without a pause ends.
    refused: Arc<AtomicU64>,
    hangs: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<(u64, Instant)>>>,
}

impl Listens {
    fn new(name: ReceiverName) -> Self {
        Self {
            name,
            is_down: Arc::default(),
            refused: Arc::default(),
            hangs: Arc::default(),
            heard: Arc::default(),
        }
    }

    fn received(&self) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|(seq, _)| *seq).collect()
    }

    /// When the last notice came.
    fn heard_last(&self) -> Instant {
        self.heard.lock().unwrap().last().unwrap().1
    }
}

#[async_trait]
impl Receiver for Listens {
    fn name(&self) -> ReceiverName {
        self.name
    }

    async fn receive(&self, notice: &Notice, _: Timestamp) -> Result<(), NotReceived> {
        if self.is_down.load(Ordering::SeqCst)
            && self.refused.fetch_add(1, Ordering::SeqCst) < 1_000
        {
            return Err(NotReceived::because("it is down"));
        }
        if self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(HANGS_FOR.std()).await;
            if self.hangs.load(Ordering::SeqCst) {
                return Err(NotReceived::because("it did not answer"));
            }
        }
        self.heard
            .lock()
            .unwrap()
            .push((notice.seq, Instant::now()));
        Ok(())
    }

    fn timeout(&self) -> Millis {
        HANGS_FOR
    }
}

impl Replicas {
    fn run_with(&mut self, receivers: &[Listens; 2]) {
        self.run_for(Arc::new(self.service()), receivers);
    }

    fn run_for(&mut self, service: Arc<Service>, receivers: &[Listens; 2]) {
        self.stop = CancellationToken::new();
        let each = receivers.iter().cloned();
        let each = each.map(|one| -> Arc<dyn Receiver> { Arc::new(one) });
        let notices = NoticeWorker::new(service, each.collect());
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
        assert_eq!(
            receivers[1].received().len(),
            1,
            "{up:?} waits for {down:?}"
        );
        // The pauses are minutes long by now, and a new notice waits for none of them.
        tokio::time::sleep(Millis::minutes(20).std()).await;
        replicas.asked(id, "bob", Ask::Approve).await;
        tokio::time::sleep(Millis::seconds(20).std()).await;
        let told = receivers[1].received();
        assert_eq!(told.len(), 2, "{up:?} waits for {down:?}");
        assert!(receivers[0].received().is_empty());
        // The notices are still stored for the receiver that does not have them.
        replicas.end().await;
        tokio::time::sleep(Millis::minutes(20).std()).await;
        replicas.run_with(&receivers);
        tokio::time::sleep(Millis::seconds(20).std()).await;
        replicas.end().await;
        receivers[0].is_down.store(false, Ordering::SeqCst);
        replicas.run_with(&receivers);
        tokio::time::sleep(Millis::seconds(20).std()).await;
        assert_eq!(receivers[0].received(), told, "in order, at once");
        assert_eq!(receivers[1].received(), told, "once");
        replicas.end().await;
    }
}

// N2: a webhook that did not answer delayed a new notice of the same request by up to 10 seconds.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_delays_no_new_notice_of_the_others() {
    let receivers = [
        Listens::new(ReceiverName::Webhook),
        Listens::new(ReceiverName::Mattermost),
    ];
    let [webhook, cards] = &receivers;
    let mut replicas = Replicas::start(&Hangs::at(0));
    replicas.end().await;
    webhook.hangs.store(true, Ordering::SeqCst);
    let service = Arc::new(replicas.service());
    replicas.run_for(service.clone(), &receivers);
    let id = replicas.request().await;
    // From here on the webhook hangs in the attempt with the first notice.
    while cards.received().is_empty() {
        tokio::time::sleep(Millis(10).std()).await;
    }
    let asked = Instant::now();
    let by = person("bob");
    let ask = Ask::Deny { reason: None };
    let denied = service.handle(id, Command::Asked { by, ask }, None);
    denied.await.unwrap();
    tokio::time::sleep(Millis::seconds(5).std()).await;
    assert_eq!(cards.received().len(), 2, "the card waits for the webhook");
    // A notice of this process is told at once; one of another process within a second.
    assert!(cards.heard_last() - asked < Millis(100).std());
    // The webhook answers late: each receiver has each notice once, in order.
    webhook.hangs.store(false, Ordering::SeqCst);
    tokio::time::sleep(Millis::minutes(1).std()).await;
    assert_eq!(webhook.received(), cards.received());
    assert_eq!(cards.received().len(), 2, "once");
    assert_eq!(replicas.store.next_notice(), None);
    replicas.end().await;
}

/// N2: the deliveries of 32 requests would wait for the webhook, and those of others would get no
/// place.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_for_many_requests_delays_no_other_receiver() {
    let receivers = [
        Listens::new(ReceiverName::Webhook),
        Listens::new(ReceiverName::Mattermost),
    ];
    let [webhook, cards] = &receivers;
    let mut replicas = Replicas::start(&Hangs::at(0));
    replicas.end().await;
    webhook.hangs.store(true, Ordering::SeqCst);
    let mut made = 0;
    for _ in 0..64 {
        replicas.request().await;
        made += 1;
    }
    replicas.run_with(&receivers);
    tokio::time::sleep(HANGS_FOR.std()).await;
    for _ in 0..100 {
        replicas.request().await;
        made += 1;
        tokio::time::sleep(Millis::seconds(2).std()).await;
        assert_eq!(cards.received().len(), made, "a card waits for the webhook");
    }
    webhook.hangs.store(false, Ordering::SeqCst);
    tokio::time::sleep(Millis::minutes(10).std()).await;
    assert_eq!(webhook.received().len(), made);
    assert_eq!(cards.received().len(), made, "once");
    assert_eq!(replicas.store.next_notice(), None);
    replicas.end().await;
}

// N2
#[tokio::test(start_paused = true)]
async fn after_a_stop_no_receiver_gets_a_notice_again_that_it_has() {
    let receivers = [
        Listens::new(ReceiverName::Webhook),
        Listens::new(ReceiverName::Messages),
    ];
    let [webhook, messages] = &receivers;
    let mut replicas = Replicas::start(&Hangs::at(0));
    replicas.end().await;
    webhook.hangs.store(true, Ordering::SeqCst);
    replicas.run_with(&receivers);
    replicas.request().await;
    while messages.received().is_empty() {
        tokio::time::sleep(Millis::seconds(1).std()).await;
    }
    // The webhook still hangs.
    replicas.end().await;
    webhook.hangs.store(false, Ordering::SeqCst);
    replicas.run_with(&receivers);
    tokio::time::sleep(Millis::minutes(1).std()).await;
    assert_eq!(messages.received().len(), 1, "once");
    assert_eq!(webhook.received(), messages.received());
    replicas.end().await;
}

/// A receiver that tells a person at each attempt, and fails until it has told three.
#[derive(Clone, Default)]
struct TellsOneByOne(Arc<Mutex<Vec<PersonMark>>>);

#[async_trait]
impl Receiver for TellsOneByOne {
    fn name(&self) -> ReceiverName {
        ReceiverName::Messages
    }

    async fn receive(&self, notice: &Notice, _: Timestamp) -> Result<(), NotReceived> {
        let people = ["ann", "bob", "cleo"].map(|name| PersonMark::of(&name.parse().unwrap()));
        let mut left = people.into_iter().filter(|one| !notice.told.contains(one));
        let Some(next) = left.next() else {
            return Ok(());
        };
        self.0.lock().unwrap().push(next);
        let mut told = notice.told.clone();
        told.insert(next);
        match left.next() {
            Some(_) => Err(NotReceived {
                why: "it told one".into(),
                told,
            }),
            None => Ok(()),
        }
    }

    fn timeout(&self) -> Millis {
        HANGS_FOR
    }
}

// N2
#[tokio::test(start_paused = true)]
async fn a_failed_attempt_keeps_who_was_told_also_over_a_restart() {
    let mut replicas = Replicas::start(&Hangs::at(0));
    replicas.end().await;
    let receiver = TellsOneByOne::default();
    let told = || receiver.0.lock().unwrap().clone();
    replicas.request().await;
    for attempts in 1..=3 {
        let service = Arc::new(replicas.service());
        let notices = NoticeWorker::new(service, vec![Arc::new(receiver.clone())]);
        replicas.stop = CancellationToken::new();
        let stop = replicas.stop.clone();
        replicas
            .running
            .spawn(async move { notices.run(stop).await });
        while told().len() < attempts {
            tokio::time::sleep(Millis(10).std()).await;
        }
        replicas.end().await;
    }
    let mut people = told();
    people.sort();
    people.dedup();
    assert_eq!((told().len(), people.len()), (3, 3), "each once");
    assert_eq!(replicas.store.next_notice(), None);
}

/// The store parks notices to make room, and the audit says so (K9).
#[tokio::test(start_paused = true)]
async fn notices_that_are_parked_early_are_recorded_once_in_the_audit() {
    let receivers = [ReceiverName::Webhook, ReceiverName::Mattermost].map(Listens::new);
    let mut replicas = Replicas::start(&Hangs::at(0));
    replicas.end().await;
    let id = replicas.request().await;
    let service = replicas.service();
    let request = service.request(id).await.unwrap();
    for seq in 100..130 {
        let notice = Notice {
            request_id: id,
            seq,
            status: request.status(),
            account_id: request.asked.account_id.clone(),
            channel_id: request.asked.channel_id.clone(),
            actor: String::new(),
            details: BTreeMap::new(),
            created_at: replicas.clock.now(),
            audience: Audience::Everybody,
            received_by: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        let commit = Commit::of([Write::Notice(notice)]);
        replicas.store.commit(commit).await.unwrap();
    }
    // The outbox keeps 16 of 31.
    for _ in 0..2 {
        replicas.run_with(&receivers);
        tokio::time::sleep(Millis::minutes(5).std()).await;
        replicas.end().await;
        let request = service.request(id).await.unwrap();
        assert_eq!(request.chat.parked_notices, 15);
        let history = service
            .history(&AuditKey::Request(id), None, usize::MAX)
            .await
            .unwrap();
        let parked = history
            .iter()
            .filter(|event| event.event_type == EventKind::NoticeParked);
        let told: Vec<_> = parked.map(|event| &event.details["notices"]).collect();
        assert_eq!(told, ["15"]);
        assert_eq!(compare_request(&request, &history), []);
    }
    assert_eq!(receivers[0].received().len(), 16);
}

// N1: both receivers refuse at once. With a later notice waiting, the worker tried again without a
// pause.
#[tokio::test(start_paused = true)]
async fn receivers_that_all_refuse_are_tried_again_after_a_pause() {
    let receivers = [ReceiverName::Webhook, ReceiverName::Mattermost].map(Listens::new);
    for receiver in &receivers {
        receiver.is_down.store(true, Ordering::SeqCst);
    }
    let mut replicas = Replicas::start(&Hangs::at(0));
    replicas.end().await;
    let id = replicas.request().await;
    let ask = Ask::Deny { reason: None };
    let by = person("bob");
    let denied = replicas.service();
    let denied = denied.handle(id, Command::Asked { by, ask }, None);
    denied.await.unwrap();
    replicas.run_with(&receivers);
    tokio::time::sleep(Millis::minutes(1).std()).await;
    for receiver in &receivers {
        let refused = receiver.refused.load(Ordering::SeqCst);
        assert!((3..=10).contains(&refused), "{refused} in a minute");
        receiver.is_down.store(false, Ordering::SeqCst);
    }
    tokio::time::sleep(Millis::minutes(6).std()).await;
    assert_eq!(receivers[0].received().len(), 2);
    assert_eq!(receivers[1].received(), receivers[0].received());
    replicas.end().await;
}
