//! The pace: the number of calls per second, the order of the lanes, and calls that serve several
//! requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jit::clock::{Clock, Uptime};
use jit::domain::{
    AccountId, Email, HoldingKey, Lane, Millis, PermissionSet, Presence, Timestamp, UserId,
};
use jit::identity_center::{
    Assignee, AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Limits, Operation, OperationKind, OperationResult, Paced, Page,
    PendingCall, Progress, Provisioning, UserAttribute,
};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::conformance::email;

/// Time passes only while all tasks wait. A test can set the wall clock; the pace ignores it.
struct Paused {
    begun: Instant,
    set_back: AtomicUsize,
}

#[async_trait]
impl Clock for Paused {
    fn now(&self) -> Timestamp {
        let set_back = i64::try_from(self.set_back.load(Ordering::SeqCst)).unwrap();
        Timestamp::from_millis(self.uptime().0.0) + Millis::seconds(-set_back)
    }

    fn uptime(&self) -> Uptime {
        let up = i64::try_from(self.begun.elapsed().as_millis()).unwrap();
        Uptime(Millis(up))
    }

    async fn wait_until(&self, _: Timestamp) {
        panic!("the pace does not wait for a wall clock time");
    }

    async fn sleep_until(&self, moment: Uptime) {
        sleep_until(self.begun + moment.0.std()).await;
    }

    fn draw(&self) -> Uuid {
        panic!("the pace needs no random numbers")
    }
}

/// An Identity Center that answers each call after a delay and records its time.
struct RecordingCenter {
    begun: Instant,
    answers_after: Duration,
    operations_take: Duration,
    heard: Mutex<Vec<(Duration, String)>>,
    throttles: AtomicUsize,
    ready: Mutex<BTreeMap<String, Instant>>,
    assigned: Mutex<Vec<Assignee>>,
    /// It lists assignees in pages of one.
    in_pages: AtomicBool,
}

impl RecordingCenter {
    async fn record(&self, what: String) -> Result<(), IdentityCenterError> {
        self.heard
            .lock()
            .unwrap()
            .push((self.begun.elapsed(), what));
        sleep(self.answers_after).await;
        let one_less = |left: usize| left.checked_sub(1);
        let throttled = self
            .throttles
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        match throttled {
            Ok(_) => Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Throttled,
                "Rate exceeded",
            )),
            Err(_) => Ok(()),
        }
    }

    fn begin(&self, kind: OperationKind, key: &HoldingKey) -> Operation {
        let id = format!("{kind:?} {key}");
        let ready = Instant::now() + self.operations_take;
        self.ready.lock().unwrap().insert(id.clone(), ready);
        Operation { kind, id }
    }
}

#[async_trait]
impl IdentityCenter for RecordingCenter {
    async fn caller(&self) -> Result<String, IdentityCenterError> {
        unreachable!("not called here")
    }

    fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError> {
        Ok(set.to_string())
    }

    async fn find_user(
        &self,
        _: &Email,
        _: UserAttribute,
    ) -> Result<Option<UserId>, IdentityCenterError> {
        self.record("find".into()).await?;
        Ok(Some("u-1".parse().unwrap()))
    }

    async fn assigned(
        &self,
        place: &AssignmentPlace,
        after: Option<&str>,
    ) -> Result<Page<Assignee>, IdentityCenterError> {
        let mut items = self.assigned.lock().unwrap().clone();
        let mut next = None;
        if self.in_pages.load(Ordering::SeqCst) {
            let begin: usize = after.map_or(0, |after| after.parse().unwrap());
            next = (begin + 1 < items.len()).then(|| (begin + 1).to_string());
            items = items.into_iter().skip(begin).take(1).collect();
        }
        self.record(format!("look {}", place.account_id)).await?;
        Ok(Page { items, next })
    }

    async fn create(&self, key: &HoldingKey) -> Result<Operation, IdentityCenterError> {
        self.record(format!("create {}", key.account_id)).await?;
        Ok(self.begin(OperationKind::Create, key))
    }

    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, IdentityCenterError> {
        self.record(format!("delete {}", key.account_id)).await?;
        Ok(Deletion::Started(self.begin(OperationKind::Delete, key)))
    }

    async fn poll(&self, operation: &Operation) -> Result<Progress, IdentityCenterError> {
        self.record("poll".into()).await?;
        let ready = self.ready.lock().unwrap()[&operation.id];
        Ok(match Instant::now() >= ready {
            true => Progress::Succeeded,
            false => Progress::InProgress,
        })
    }

    async fn session_duration(&self, _: &PermissionSet) -> Result<Millis, IdentityCenterError> {
        unreachable!("sessions are not tested here")
    }

    async fn inline_policy(
        &self,
        _: &PermissionSet,
    ) -> Result<Option<String>, IdentityCenterError> {
        unreachable!("sessions are not tested here")
    }

    async fn set_inline_policy(
        &self,
        _: &PermissionSet,
        _: Option<&str>,
    ) -> Result<(), IdentityCenterError> {
        unreachable!("sessions are not tested here")
    }

    async fn provision(&self, _: &AssignmentPlace) -> Result<Provisioning, IdentityCenterError> {
        unreachable!("sessions are not tested here")
    }

    async fn provisioned(&self, _: &Provisioning) -> Result<Progress, IdentityCenterError> {
        unreachable!("sessions are not tested here")
    }

    async fn under_way(
        &self,
        kind: OperationKind,
        _: Option<&str>,
    ) -> Result<Page<String>, IdentityCenterError> {
        self.record(format!("list {kind:?}")).await?;
        let ready = self.ready.lock().unwrap();
        let still = ready.iter().filter(|(_, ready)| Instant::now() < **ready);
        let items = still.map(|(id, _)| id.clone()).collect();
        Ok(Page { items, next: None })
    }
}

struct TestSetup {
    aws: Arc<RecordingCenter>,
    paced: Arc<Paced>,
    clock: Arc<Paused>,
}

impl TestSetup {
    fn open(calls_per_second: u32) -> Self {
        Self::taking(calls_per_second, Duration::from_secs(3))
    }

    /// With operations of this duration.
    fn taking(calls_per_second: u32, operations_take: Duration) -> Self {
        let begun = Instant::now();
        let aws = Arc::new(RecordingCenter {
            begun,
            answers_after: Duration::from_millis(20),
            operations_take,
            heard: Mutex::default(),
            throttles: AtomicUsize::new(0),
            ready: Mutex::default(),
            assigned: Mutex::default(),
            in_pages: AtomicBool::new(false),
        });
        let limits = Limits::Aws { calls_per_second };
        let clock = Arc::new(Paused {
            begun,
            set_back: AtomicUsize::new(0),
        });
        let paced = Arc::new(Paced::new(aws.clone(), limits, clock.clone()));
        Self { aws, paced, clock }
    }

    fn received(&self) -> Vec<(Duration, String)> {
        self.aws.heard.lock().unwrap().clone()
    }

    fn calls_of(&self, word: &str) -> Vec<Duration> {
        let heard = self.received();
        let of = heard.into_iter().filter(|(_, what)| what.starts_with(word));
        of.map(|(at, _)| at).collect()
    }

    async fn remove(&self, lane: Lane, key: HoldingKey) -> OperationResult {
        let check = || -> PendingCall<'_, ()> { Box::pin(async { Ok(()) }) };
        let room = self.paced.room_to_remove(lane, &key.account_id).await;
        match self.paced.delete(lane, &key, &check).await.unwrap() {
            Deletion::Started(operation) => {
                self.paced.wait_for(lane, &operation, room).await.unwrap()
            }
            Deletion::NothingThere => OperationResult::Well,
        }
    }

    async fn create(&self, key: HoldingKey) -> OperationResult {
        let check = || -> PendingCall<'_, ()> { Box::pin(async { Ok(()) }) };
        let lane = Lane::Other;
        let room = self.paced.room_to_create(lane, &key.account_id).await;
        let operation = self.paced.create(lane, &key, &check).await.unwrap();
        self.paced.wait_for(lane, &operation, room).await.unwrap()
    }
}

fn account(number: usize) -> AccountId {
    format!("{number:012}").parse().unwrap()
}

fn key(number: usize, user: &str) -> HoldingKey {
    HoldingKey {
        account_id: account(number),
        permission_set: "admin".parse().unwrap(),
        user: user.parse().unwrap(),
    }
}

async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn calls_stay_within_the_pace() {
    let test = TestSetup::open(10);
    let keys: Vec<_> = (1..=60).map(|number| key(number, "u-1")).collect();
    all(keys.iter().map(|key| test.paced.look(Lane::Other, key))).await;
    let heard = test.calls_of("look");
    assert_eq!(heard.len(), 60);
    for (from, at) in heard.iter().enumerate() {
        let within = heard[from..]
            .iter()
            .filter(|later| **later - *at < Duration::from_secs(1));
        assert!(within.count() <= 13, "{heard:?}");
    }
    let last = heard.last().unwrap().as_millis();
    assert!((5_500..6_500).contains(&last), "sixty calls took {last} ms");
}

// K8
#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_delays_no_call() {
    let test = TestSetup::open(10);
    let keys: Vec<_> = (1..=20).map(|number| key(number, "u-1")).collect();
    all(keys[..10]
        .iter()
        .map(|key| test.paced.look(Lane::Other, key)))
    .await;
    test.clock.set_back.store(600, Ordering::SeqCst);
    let before = test.aws.begun.elapsed();
    all(keys[10..]
        .iter()
        .map(|key| test.paced.look(Lane::Other, key)))
    .await;
    let took = test.aws.begun.elapsed() - before;
    assert!(took < Duration::from_secs(3), "ten calls took {took:?}");
}

const NEVER: Duration = Duration::from_secs(24 * 3600);

// K7
#[tokio::test(start_paused = true)]
async fn an_endless_operation_blocks_its_account_for_a_bounded_time() {
    let test = TestSetup::taking(10, NEVER);
    let removed = ["u-1", "u-2"].map(|user| test.remove(Lane::Remove, key(1, user)));
    let ends = all(removed).await;
    assert_eq!(ends, [OperationResult::NotYet, OperationResult::NotYet]);
    let deletes = test.calls_of("delete");
    assert_eq!(deletes.len(), 2);
    let waited = deletes[1] - deletes[0];
    assert!(
        waited < Duration::from_secs(40),
        "the second waited {waited:?}"
    );
}

// K7
#[tokio::test(start_paused = true)]
async fn ten_endless_creates_do_not_block_other_creates() {
    let test = TestSetup::taking(20, NEVER);
    let creates = (1..=11).map(|number| test.create(key(number, "u-1")));
    let ends = all(creates).await;
    assert!(
        ends.iter().all(|end| *end == OperationResult::NotYet),
        "{ends:?}"
    );
    let sent = test.calls_of("create");
    assert_eq!(sent.len(), 11);
    let waited = sent[10] - sent[0];
    assert!(
        waited < Duration::from_secs(40),
        "the eleventh waited {waited:?}"
    );
}

// K7
#[tokio::test(start_paused = true)]
async fn endless_creates_in_one_account_do_not_block_creates_in_another() {
    let test = TestSetup::taking(20, NEVER);
    let mut keys: Vec<_> = (1..=20).map(|user| key(1, &format!("u-{user}"))).collect();
    keys.push(key(2, "u-1"));
    all(keys.into_iter().map(|key| test.create(key))).await;
    let heard = test.received();
    let other = |(_, what): &&(Duration, String)| what.starts_with("create") && what.ends_with("2");
    let (sent, _) = heard.iter().find(other).unwrap();
    assert!(
        *sent < Duration::from_secs(10),
        "the create in the other account waited {sent:?}"
    );
}

/// Revokes that retry all the time would otherwise keep every other request from AWS.
#[tokio::test(start_paused = true)]
async fn one_call_in_sixteen_goes_to_a_less_urgent_lane() {
    let test = TestSetup::open(2);
    let lane = |place| match place {
        2 => Lane::Other,
        _ => Lane::Revoke,
    };
    let calls: Vec<_> = (1..=40)
        .map(|place| (key(place, "u-1"), lane(place)))
        .collect();
    all(calls.iter().map(|(key, lane)| test.paced.look(*lane, key))).await;
    let heard = test.received();
    let place = heard
        .iter()
        .position(|(_, what)| what.ends_with("000000000002"));
    assert_eq!(place, Some(15), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn revokes_go_first_and_grants_last() {
    let test = TestSetup::open(2);
    let lanes = [Lane::Other, Lane::Remove, Lane::Revoke];
    let mut calls = Vec::new();
    for (place, lane) in lanes.iter().cycle().take(12).enumerate() {
        calls.push((key(place + 1, "u-1"), *lane));
    }
    all(calls.iter().map(|(key, lane)| test.paced.look(*lane, key))).await;
    let order: Vec<usize> = test
        .received()
        .iter()
        .map(|(_, what)| what.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    // The first call was sent before the others arrived.
    assert_eq!(order, [1, 3, 6, 9, 12, 2, 5, 8, 11, 4, 7, 10]);
}

/// jit sends a delete before the looks of finished removals, so that access ends sooner.
#[tokio::test(start_paused = true)]
async fn a_delete_goes_before_the_final_look_of_another_removal() {
    let test = TestSetup::open(2);
    let keys: Vec<_> = (1..=6).map(|number| key(number, "u-1")).collect();
    let looks = all(keys[..3]
        .iter()
        .map(|key| test.paced.look(Lane::Remove, key)));
    let removals = all(keys[3..]
        .iter()
        .map(|key| test.remove(Lane::Remove, key.clone())));
    tokio::join!(looks, removals);
    let order: Vec<String> = test.received().into_iter().map(|(_, what)| what).collect();
    let last_delete = order
        .iter()
        .rposition(|what| what.starts_with("delete"))
        .unwrap();
    let looked = order[..last_delete]
        .iter()
        .filter(|what| what.starts_with("look"));
    assert!(looked.count() <= 1, "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn throttling_lowers_the_pace_and_it_recovers() {
    let test = TestSetup::open(10);
    let keys: Vec<_> = (1..=200).map(|number| key(number, "u-1")).collect();
    test.aws.throttles.store(2, Ordering::SeqCst);
    all(keys.iter().map(|key| test.paced.look(Lane::Other, key))).await;
    let heard = test.calls_of("look");
    let in_second = |second: u64| {
        let span = Duration::from_secs(second)..Duration::from_secs(second + 1);
        heard.iter().filter(|at| span.contains(*at)).count()
    };
    assert!(
        in_second(1) <= 7,
        "{} calls in the second after",
        in_second(1)
    );
    assert!(
        in_second(15) >= 9,
        "{} calls in a later second",
        in_second(15)
    );
}

#[tokio::test(start_paused = true)]
async fn operations_in_an_account_run_in_turn_but_a_revoke_at_once() {
    let test = TestSetup::open(20);
    let removals = all(["u-1", "u-2", "u-3"].map(|user| test.remove(Lane::Remove, key(1, user))));
    let elsewhere = test.remove(Lane::Remove, key(2, "u-1"));
    let revoke = async {
        sleep(Duration::from_secs(1)).await;
        test.remove(Lane::Revoke, key(1, "u-9")).await
    };
    tokio::join!(removals, elsewhere, revoke);
    let there = test.calls_of(&format!("delete {}", account(1)));
    assert_eq!(there.len(), 4);
    let seconds: Vec<u64> = there.iter().map(Duration::as_secs).collect();
    assert_eq!(seconds[..2], [0, 1], "the revoke does not wait: {there:?}");
    assert!(there[1].as_millis() < 1_100, "{there:?}");
    // The other operations wait for the running one and for the revoke, one after another.
    assert!(there[2] - there[1] >= Duration::from_secs(3), "{there:?}");
    assert!(there[3] - there[2] >= Duration::from_secs(3), "{there:?}");
    assert_eq!(
        test.calls_of(&format!("delete {}", account(2)))[0].as_secs(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn at_most_ten_creates_run_and_no_removal_waits_for_them() {
    let test = TestSetup::open(20);
    let creates = all((1..=15).map(|number| test.create(key(number, "u-1"))));
    let removal = async {
        sleep(Duration::from_secs(2)).await;
        test.remove(Lane::Remove, key(15, "u-2")).await
    };
    let (ended, removed) = tokio::join!(creates, removal);
    assert!(
        ended.iter().all(|end| *end == OperationResult::Well),
        "{ended:?}"
    );
    assert_ne!(removed, OperationResult::Badly { why: String::new() });
    let begun = test.calls_of("create");
    let early = begun.iter().filter(|at| **at < Duration::from_secs(3));
    assert_eq!(early.count(), 10);
    let removal = test.calls_of("delete")[0];
    assert!(removal < Duration::from_millis(2_500), "{removal:?}");
}

#[tokio::test(start_paused = true)]
async fn one_look_serves_many_callers() {
    let test = TestSetup::open(2);
    let users: Vec<_> = (0..20)
        .map(|number| key(1, &format!("u-{number}")))
        .collect();
    *test.aws.assigned.lock().unwrap() = vec![Assignee::User("u-7".parse().unwrap())];
    // Other calls come first, so that all of these wait.
    let busy: Vec<_> = (2..=4).map(|number| key(number, "u-1")).collect();
    let busy = all(busy.iter().map(|key| test.paced.look(Lane::Revoke, key)));
    let seen = all(users.iter().map(|key| test.paced.look(Lane::Remove, key)));
    let (_, seen) = tokio::join!(busy, seen);
    for (number, presence) in seen.into_iter().enumerate() {
        let there = matches!(presence, Ok(Presence::Present));
        assert_eq!(there, number == 7);
    }
    assert_eq!(test.calls_of(&format!("look {}", account(1))).len(), 1);
}

/// P6: a caller does not use the answer to a look that was sent before the caller asked.
#[tokio::test(start_paused = true)]
async fn an_answer_to_an_earlier_call_does_not_serve_a_later_caller() {
    let test = TestSetup::open(20);
    let here = key(1, "u-1");
    let before = test.paced.look(Lane::Other, &here);
    let after = async {
        // The assignment is made during that call.
        sleep(Duration::from_millis(10)).await;
        test.aws
            .assigned
            .lock()
            .unwrap()
            .push(Assignee::User("u-1".parse().unwrap()));
        test.paced.look(Lane::Other, &here).await
    };
    let (before, after) = tokio::join!(before, after);
    assert_eq!(before, Ok(Presence::Absent));
    assert_eq!(after, Ok(Presence::Present));
}

/// P6: the first page of an answer is its oldest part.
#[tokio::test(start_paused = true)]
async fn an_answer_is_as_old_as_its_first_page() {
    let test = TestSetup::open(1);
    test.aws.in_pages.store(true, Ordering::SeqCst);
    let user = |number: usize| Assignee::User(format!("u-{number}").parse().unwrap());
    *test.aws.assigned.lock().unwrap() = (2..=9).map(user).collect();
    let here = key(1, "u-1");
    let before = test.paced.look(Lane::Other, &here);
    let after = async {
        // The assignment is made after the first page was read, and before the last one.
        sleep(Duration::from_millis(3_500)).await;
        test.aws.assigned.lock().unwrap().insert(0, user(1));
        test.paced.look(Lane::Other, &here).await
    };
    let (before, after) = tokio::join!(before, after);
    assert_eq!(before, Ok(Presence::Absent));
    assert_eq!(after, Ok(Presence::Present));
}

#[tokio::test(start_paused = true)]
async fn simultaneous_operations_are_polled_by_list_and_a_single_one_alone() {
    let test = TestSetup::open(20);
    let ended = all((1..=12).map(|number| test.remove(Lane::Remove, key(number, "u-1")))).await;
    // Most removals end without a known result; the next look at AWS shows it.
    let unsaid = ended
        .iter()
        .filter(|end| **end == OperationResult::Somehow)
        .count();
    assert!(unsaid >= 9, "{ended:?}");
    let (lists, polls) = (test.calls_of("list").len(), test.calls_of("poll").len());
    assert!(lists <= 6 && polls <= 8, "{:?}", test.received());

    // A revoke polls its own operation and gets the answer at once.
    let busy = TestSetup::open(20);
    let removals = all((1..=6).map(|number| busy.remove(Lane::Remove, key(number, "u-1"))));
    let revoke = busy.remove(Lane::Revoke, key(7, "u-1"));
    let (_, ended) = tokio::join!(removals, revoke);
    assert_eq!(ended, OperationResult::Well);
    let begun = busy.calls_of(&format!("delete {}", account(7)))[0];
    let asked = busy.calls_of("poll")[0] - begun;
    assert!(asked < Duration::from_millis(400), "{asked:?}");

    let alone = TestSetup::open(20);
    assert_eq!(
        alone.remove(Lane::Remove, key(1, "u-1")).await,
        OperationResult::Well
    );
    assert_eq!(alone.calls_of("list").len(), 0);
    let polls = alone.calls_of("poll");
    let first = polls[0] - alone.calls_of("delete")[0];
    assert!(
        first < Duration::from_millis(300),
        "the first poll came after {first:?}"
    );
    let pauses: Vec<_> = polls.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        pauses.last().unwrap() > pauses.first().unwrap(),
        "{pauses:?}"
    );
}

/// jit keeps the user id of a person for a minute. A caller that needs a fresh id makes a call to
/// AWS.
#[tokio::test(start_paused = true)]
async fn a_user_look_up_is_kept_for_a_minute() {
    let test = TestSetup::open(20);
    let alice = email("alice");
    for _ in 0..3 {
        test.paced.find_user(Lane::Other, &alice).await.unwrap();
    }
    assert_eq!(
        test.calls_of("find").len(),
        2,
        "one look-up by name and one by address"
    );
    test.paced.look_up_user(Lane::Revoke, &alice).await.unwrap();
    assert_eq!(test.calls_of("find").len(), 4);
    sleep(Duration::from_secs(61)).await;
    test.paced.find_user(Lane::Other, &alice).await.unwrap();
    assert_eq!(test.calls_of("find").len(), 6);
}
