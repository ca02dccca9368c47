//! The decisions of a worker in single cases. The tests set the answers of AWS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/fixtures.rs"]
mod fixtures;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fixtures::{person, policy};
use jit::app::App;
use jit::clock::{Clock, SystemClock, Uptime};
use jit::domain::{
    AccountId, Admin, Ask, BindTerms, ChannelId, Command, Draft, Email, EventKind, HoldingKey,
    Millis, Minutes, OldCredentials, OldCredentialsRule, PermissionSet, Policy, RequestId, Status,
    Text, Timestamp, UserId,
};
use jit::identity_center::{
    Assignee, AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Limits, Operation, OperationKind, Paced, Page, Progress, Provisioning,
    UserAttribute,
};
use jit::service::{Announce, Configure, Service};
use jit::store::Store;
use jit::store::sqlite::SqliteStore;
use jit::worker::{
    BreakGlassError, BreakGlassOperator, BreakGlassResult, Proven, RunMode, Worker,
    remove_unrecorded,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

type Meanwhile = Box<dyn FnOnce() + Send>;

/// Short waits end at once; the wait for a lease renewal never ends.
#[derive(Clone, Default)]
struct TestClock {
    now: Arc<AtomicI64>,
    drawn: Arc<AtomicU32>,
    /// Long waits end at once as well.
    ends_long_waits: Arc<AtomicBool>,
    /// The event during the next wait.
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

impl TestClock {
    fn pass(&self, span: Millis) {
        self.now.fetch_add(span.0, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Uptime {
        Uptime(Millis(self.now().millis()))
    }

    async fn wait_until(&self, time: Timestamp) {
        self.sleep(time - self.now()).await;
    }

    async fn sleep_until(&self, moment: Uptime) {
        let span = moment - self.uptime();
        if span > Millis::seconds(3) && !self.ends_long_waits.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        self.pass(Millis(span.0.max(0)));
    }

    fn draw(&self) -> Uuid {
        Uuid::from_u128(self.drawn.fetch_add(1, Ordering::SeqCst).into())
    }
}

/// An Identity Center whose answers the test sets.
#[derive(Default)]
struct ScriptedCenter {
    test_clock: TestClock,
    /// The time that it takes to find a user.
    slow: AtomicI64,
    /// How often it still shows an assignment after it reported the removal.
    still_present: AtomicU32,
    present: Mutex<HashSet<HoldingKey>>,
    ghosts: Mutex<Vec<HoldingKey>>,
    /// How many leases the worker had taken before each create.
    creates: Mutex<Vec<u32>>,
    /// The assignments that it was asked to create or delete, in this order.
    changed: Mutex<Vec<HoldingKey>>,
    /// A create in flight, and when it takes effect.
    in_flight: Mutex<Option<(Timestamp, HoldingKey)>>,
    policy: Mutex<Option<String>>,
    /// The time that it takes to read the policy.
    slow_policy: AtomicI64,
    /// The permission set was deleted.
    deleted: AtomicBool,
}

impl ScriptedCenter {
    fn carry_out_calls_in_flight(&self) {
        let mut in_flight = self.in_flight.lock().unwrap();
        if let Some((_, key)) = in_flight.take_if(|(at, _)| *at <= self.test_clock.now()) {
            self.present.lock().unwrap().insert(key);
        }
    }
}

#[async_trait]
impl IdentityCenter for ScriptedCenter {
    async fn caller(&self) -> Result<String, IdentityCenterError> {
        Ok("told".into())
    }

    fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError> {
        Ok(set.to_string())
    }

    async fn find_user(
        &self,
        email: &Email,
        _: UserAttribute,
    ) -> Result<Option<UserId>, IdentityCenterError> {
        self.test_clock
            .pass(Millis(self.slow.swap(0, Ordering::SeqCst)));
        Ok(Some(email.as_str().replace('@', "-").parse().unwrap()))
    }

    async fn assigned(
        &self,
        _: &AssignmentPlace,
        _: Option<&str>,
    ) -> Result<Page<Assignee>, IdentityCenterError> {
        if self.deleted.load(Ordering::SeqCst) {
            let kind = IdentityCenterErrorKind::NoSuchSet;
            return Err(IdentityCenterError::new(kind, "it was deleted"));
        }
        self.carry_out_calls_in_flight();
        let one_less = |left: u32| left.checked_sub(1);
        let (seen, here) = (Ordering::SeqCst, Ordering::SeqCst);
        let still_present = self
            .still_present
            .fetch_update(seen, here, one_less)
            .is_ok();
        let mut there: Vec<_> = self.present.lock().unwrap().iter().cloned().collect();
        if still_present {
            there.extend(self.ghosts.lock().unwrap().clone());
        }
        let items = there.into_iter().map(|key| Assignee::User(key.user));
        Ok(Page {
            items: items.collect(),
            next: None,
        })
    }

    async fn under_way(
        &self,
        _: OperationKind,
        _: Option<&str>,
    ) -> Result<Page<String>, IdentityCenterError> {
        let (items, next) = (Vec::new(), None);
        Ok(Page { items, next })
    }

    async fn session_duration(&self, _: &PermissionSet) -> Result<Millis, IdentityCenterError> {
        Ok(Millis::hours(1))
    }

    async fn inline_policy(
        &self,
        _: &PermissionSet,
    ) -> Result<Option<String>, IdentityCenterError> {
        let slow = self.slow_policy.swap(0, Ordering::SeqCst);
        self.test_clock.pass(Millis(slow));
        Ok(self.policy.lock().unwrap().clone())
    }

    async fn set_inline_policy(
        &self,
        _: &PermissionSet,
        policy: Option<&str>,
    ) -> Result<(), IdentityCenterError> {
        *self.policy.lock().unwrap() = policy.map(str::to_owned);
        Ok(())
    }

    async fn provision(&self, _: &AssignmentPlace) -> Result<Provisioning, IdentityCenterError> {
        Ok(Provisioning("1".into()))
    }

    async fn provisioned(&self, _: &Provisioning) -> Result<Progress, IdentityCenterError> {
        Ok(Progress::Succeeded)
    }

    async fn create(&self, key: &HoldingKey) -> Result<Operation, IdentityCenterError> {
        let leases = self.test_clock.drawn.load(Ordering::SeqCst);
        self.creates.lock().unwrap().push(leases);
        self.changed.lock().unwrap().push(key.clone());
        self.present.lock().unwrap().insert(key.clone());
        let (kind, id) = (OperationKind::Create, "1".into());
        Ok(Operation { kind, id })
    }

    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, IdentityCenterError> {
        self.carry_out_calls_in_flight();
        self.changed.lock().unwrap().push(key.clone());
        self.present.lock().unwrap().remove(key);
        self.ghosts.lock().unwrap().push(key.clone());
        Ok(Deletion::NothingThere)
    }

    async fn poll(&self, _: &Operation) -> Result<Progress, IdentityCenterError> {
        Ok(Progress::Succeeded)
    }
}

struct TestSetup {
    folder: tempfile::TempDir,
    test_clock: TestClock,
    aws: Arc<ScriptedCenter>,
    paced: Arc<Paced>,
    service: Arc<Service>,
    worker: Worker,
}

impl TestSetup {
    async fn open() -> Self {
        Self::with(policy()).await
    }

    async fn with(policy: Policy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
        let test_clock = TestClock::default();
        let aws = Arc::new(ScriptedCenter {
            test_clock: test_clock.clone(),
            ..ScriptedCenter::default()
        });
        let store: Arc<dyn Store> = Arc::new(store);
        let clock: Arc<dyn Clock> = Arc::new(test_clock.clone());
        let paced = Arc::new(Paced::new(aws.clone(), Limits::None, clock.clone()));
        let service = Service::new(store, clock, policy, Announce::None);
        let app = App::new(Arc::new(service), paced);
        Self {
            folder,
            test_clock,
            aws,
            paced: app.identity_center,
            service: app.service,
            worker: app.worker,
        }
    }

    async fn approved(&self) -> RequestId {
        self.approved_for("alice").await
    }

    async fn approved_for(&self, name: &str) -> RequestId {
        let channel: ChannelId = "ch".parse().unwrap();
        let account: AccountId = "123456789012".parse().unwrap();
        let bind = Configure::Bind {
            account_id: account.clone(),
            terms: BindTerms::default(),
        };
        let approvers = vec!["bob".parse().unwrap()];
        for configure in [bind, Configure::SetApprovers { approvers }] {
            let admin = Admin {
                person: None,
                key_id: "test".into(),
            };
            let configured = self.service.configure(&channel, &configure, &admin);
            configured.await.unwrap();
        }
        let id = RequestId::from_uuid(self.test_clock.draw());
        let draft = Draft {
            id,
            account_id: account,
            channel_id: channel,
            requester: person(name),
            reason: Some(Text::clip("x")),
            jira: None,
            duration: Minutes::new(60).unwrap(),
            permission_set: None,
            start_at: None,
        };
        self.service.open(draft, None, None).await.unwrap();
        self.ask(id, Ask::Approve).await;
        id
    }

    async fn ask(&self, id: RequestId, ask: Ask) {
        let by = person("bob");
        let asked = Command::Asked { by, ask };
        self.service.handle(id, asked, None).await.unwrap();
    }

    /// Runs the worker's loop until no request is due.
    async fn run(&self) {
        let (mode, never) = (
            RunMode::UntilIdle(self.test_clock.now()),
            CancellationToken::new(),
        );
        self.worker.run_as(mode, &[], &never, &never).await;
    }

    async fn status(&self, id: RequestId) -> Status {
        self.service.request(id).await.unwrap().status()
    }
}

/// P6: a successful delete does not prove that the assignment is gone.
#[tokio::test]
async fn a_request_is_not_revoked_while_aws_shows_the_assignment() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.run().await;
    assert_eq!(test.status(id).await, Status::Granted);
    test.aws.still_present.store(2, Ordering::SeqCst);
    test.ask(id, Ask::Revoke { reason: None }).await;
    for _ in 0..2 {
        test.run().await;
        assert_eq!(test.status(id).await, Status::Granted);
        test.test_clock.pass(Millis::minutes(1));
    }
    test.run().await;
    assert_eq!(test.status(id).await, Status::Revoked);
    let key = jit::domain::AuditKey::Request(id);
    let events = test.service.store().audit(&key).await.unwrap();
    let failing = events
        .iter()
        .filter(|event| event.event_type == EventKind::RemovalFailing);
    assert_eq!(failing.count(), 2);
}

// K15
#[tokio::test]
async fn the_removal_of_an_assignment_of_a_deleted_set_ends() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.run().await;
    assert_eq!(test.status(id).await, Status::Granted);
    test.aws.deleted.store(true, Ordering::SeqCst);
    test.ask(id, Ask::Revoke { reason: None }).await;
    test.run().await;
    assert_eq!(test.status(id).await, Status::Revoked);
}

// K15
#[tokio::test]
async fn a_cleanup_sees_that_the_assignment_of_a_deleted_set_is_gone() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.run().await;
    test.aws.deleted.store(true, Ordering::SeqCst);
    let proven = test.worker.prove_gone(id, || {}).await.unwrap();
    assert!(matches!(proven, Proven::Gone(_)), "{proven:?}");
}

fn olga() -> BreakGlassOperator {
    BreakGlassOperator {
        by: person("olga"),
        reason: Text::clip("incident"),
        credentials: Text::clip("arn:aws:sts::1:olga"),
    }
}

/// P4: only the store has the holders of an access, so break-glass repeats a write that failed
/// once.
#[tokio::test]
async fn break_glass_waits_for_a_store_that_fails_for_a_moment() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.run().await;
    let request = test.service.request(id).await.unwrap();
    let db = rusqlite::Connection::open(test.folder.path().join("jit.db")).unwrap();
    let fails = "CREATE TRIGGER fails BEFORE UPDATE ON jit_requests
                 BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END";
    db.execute_batch(fails).unwrap();
    let recovers: Meanwhile = Box::new(move || db.execute_batch("DROP TRIGGER fails").unwrap());
    *test.test_clock.meanwhile.lock().unwrap() = Some(recovers);
    let recorded = test.worker.record_broken_glass(&request, &olga()).await;
    assert!(recorded.is_ok(), "{recorded:?}");
    let gone = test.worker.until_gone(id, |_| {}).await.unwrap();
    assert_eq!(gone.status(), Status::Revoked);
    assert!(test.aws.present.lock().unwrap().is_empty());
}

/// P6: two requests had the same access, and one of them has ended.
#[tokio::test]
async fn break_glass_on_an_ended_request_names_who_has_the_same_access() {
    let test = TestSetup::open().await;
    let first = test.approved().await;
    test.run().await;
    test.test_clock.pass(Millis::minutes(30));
    let second = test.approved().await;
    test.run().await;
    test.test_clock.pass(Millis::minutes(31));
    test.run().await;
    assert_eq!(test.status(first).await, Status::Expired);
    assert_eq!(test.status(second).await, Status::Granted);
    let ended = test.service.request(first).await.unwrap();
    let recorded = test.worker.record_broken_glass(&ended, &olga()).await;
    match recorded.unwrap() {
        BreakGlassResult::HeldBy(ids) => assert_eq!(ids, [second]),
        other => panic!("{other:?}"),
    }
    // Also while AWS does not show the access, as during the create of the second request.
    test.aws.present.lock().unwrap().clear();
    let recorded = test.worker.record_broken_glass(&ended, &olga()).await;
    match recorded.unwrap() {
        BreakGlassResult::HeldBy(ids) => assert_eq!(ids, [second]),
        other => panic!("{other:?}"),
    }
}

/// K12: an unreadable request does not prevent the revoke of another that has the same access.
#[tokio::test]
async fn a_revoke_removes_the_access_beside_an_unreadable_holder() {
    let test = TestSetup::open().await;
    let unreadable = test.approved().await;
    test.run().await;
    let revoked = test.approved().await;
    test.run().await;
    let db = rusqlite::Connection::open(test.folder.path().join("jit.db")).unwrap();
    let damage = "UPDATE jit_requests SET doc = '{}' WHERE request_id = ?1";
    assert_eq!(db.execute(damage, [unreadable.to_string()]), Ok(1));
    test.ask(revoked, Ask::Revoke { reason: None }).await;
    test.run().await;
    assert_eq!(test.status(revoked).await, Status::Revoked);
    assert!(test.aws.present.lock().unwrap().is_empty());
}

/// P4: a request that has ended holds no access. Without the store, break-glass cannot find the
/// request whose access AWS shows.
#[tokio::test]
async fn break_glass_removes_no_access_of_an_ended_request_without_the_store() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.run().await;
    let live = test.service.request(id).await.unwrap();
    test.ask(id, Ask::Revoke { reason: None }).await;
    test.run().await;
    let ended = test.service.request(id).await.unwrap();
    let another = live.holding_key().unwrap();
    test.aws.present.lock().unwrap().insert(another);
    test.test_clock
        .ends_long_waits
        .store(true, Ordering::SeqCst);
    let db = rusqlite::Connection::open(test.folder.path().join("jit.db")).unwrap();
    db.execute_batch("DROP TABLE jit_holdings").unwrap();
    let recorded = test.worker.record_broken_glass(&ended, &olga()).await;
    assert!(
        matches!(recorded, Err(BreakGlassError::HoldersUnknown(_))),
        "{recorded:?}"
    );
}

/// P1: a create that a server sent before may take effect for ten seconds.
#[tokio::test]
async fn access_is_gone_without_the_store_only_after_a_create_in_flight() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.run().await;
    let key = test.service.request(id).await.unwrap();
    let key = key.holding_key().unwrap();
    test.test_clock
        .ends_long_waits
        .store(true, Ordering::SeqCst);
    let at = test.test_clock.now() + Millis::seconds(9);
    *test.aws.in_flight.lock().unwrap() = Some((at, key.clone()));
    remove_unrecorded(&test.paced, &test.test_clock, &key, |_| {})
        .await
        .unwrap();
    assert!(test.aws.in_flight.lock().unwrap().is_none());
    assert!(test.aws.present.lock().unwrap().is_empty());
}

/// P1: a call that cannot be undone is sent only while the lease is sure to outlast it: with the
/// lease nearly over, and no renewal, the worker does not send it.
#[tokio::test]
async fn no_create_is_sent_in_the_last_seconds_of_a_lease() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.aws.slow.store(25_000, Ordering::SeqCst);
    let before = test.test_clock.drawn.load(Ordering::SeqCst);
    test.run().await;
    let creates = test.aws.creates.lock().unwrap().clone();
    assert_eq!(creates, [before + 2], "not sent under the second lease");
    assert_eq!(test.status(id).await, Status::Granted);
}

/// P8: a grant lasts exactly as long as requested, from the time at which AWS made it.
#[tokio::test]
async fn a_grant_ends_exactly_at_its_end_time() {
    let test = TestSetup::open().await;
    let id = test.approved().await;
    test.test_clock.pass(Millis::minutes(7));
    test.run().await;
    let granted = test
        .service
        .request(id)
        .await
        .unwrap()
        .grant
        .period
        .unwrap();
    assert_eq!(granted.until, granted.from + Millis::minutes(60));
    test.test_clock
        .pass(granted.until + Millis(-1) - test.test_clock.now());
    test.run().await;
    assert_eq!(test.status(id).await, Status::Granted);
    test.test_clock.pass(Millis(1));
    test.run().await;
    assert_eq!(test.status(id).await, Status::Expired);
}

/// If the read of a policy takes too long, another process may have changed it: the worker does not
/// write it.
#[tokio::test]
async fn a_policy_is_written_only_within_the_lease_of_its_read() {
    let test = TestSetup::with(Policy {
        end_sessions: OldCredentialsRule::PermissionSet,
        ..policy()
    })
    .await;
    let id = test.approved().await;
    test.run().await;
    let request = test.service.request(id).await.unwrap();
    let bobs = HoldingKey {
        user: "bob".parse().unwrap(),
        ..request.holding_key().unwrap()
    };
    test.aws.present.lock().unwrap().insert(bobs);
    test.aws.slow_policy.store(25_000, Ordering::SeqCst);
    test.ask(id, Ask::Revoke { reason: None }).await;
    test.run().await;
    assert_eq!(test.status(id).await, Status::Revoked);
    assert_eq!(*test.aws.policy.lock().unwrap(), None);
    test.test_clock.pass(Millis::minutes(1));
    test.run().await;
    assert!(
        test.aws.policy.lock().unwrap().is_some(),
        "the next attempt wrote no policy"
    );
    let old = test
        .service
        .request(id)
        .await
        .unwrap()
        .access
        .old_credentials();
    assert!(
        matches!(old, Some(OldCredentials::Denied { .. })),
        "{old:?}"
    );
}

/// The worker takes a revoke by a person first, then an expiry, and then a create, however long
/// each has waited.
#[tokio::test]
async fn removals_go_before_creates() {
    let test = TestSetup::open().await;
    let expiring = test.approved().await;
    test.run().await;
    let revoked = test.approved_for("dave").await;
    test.run().await;
    let waiting = test.approved_for("erin").await;
    test.test_clock.pass(Millis::minutes(90));
    test.ask(revoked, Ask::Revoke { reason: None }).await;
    test.aws.changed.lock().unwrap().clear();
    test.run().await;
    let mut order = Vec::new();
    for id in [revoked, expiring, waiting] {
        let request = test.service.request(id).await.unwrap();
        order.push(request.holding_key().unwrap());
    }
    assert_eq!(*test.aws.changed.lock().unwrap(), order);
}

/// A worker in its loop, on the clocks of the machine, with an AWS whose answers the test sets.
struct LoopSetup {
    folder: tempfile::TempDir,
    service: Arc<Service>,
    worker: Worker,
    stop: CancellationToken,
}

impl LoopSetup {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let paced = Paced::new(
            Arc::new(ScriptedCenter::default()),
            Limits::None,
            clock.clone(),
        );
        let announce = Announce::None;
        let service = Service::new(Arc::new(store), clock, policy(), announce);
        let app = App::new(Arc::new(service), Arc::new(paced));
        Self {
            folder,
            worker: app.worker,
            service: app.service,
            stop: CancellationToken::new(),
        }
    }

    /// Requests that are approved and that no worker has claimed, in this order.
    async fn approved(&self, many: usize) -> Vec<RequestId> {
        let channel: ChannelId = "ch".parse().unwrap();
        let account: AccountId = "123456789012".parse().unwrap();
        let terms = BindTerms::default();
        let bind = Configure::Bind {
            account_id: account.clone(),
            terms,
        };
        let approvers = vec!["bob".parse().unwrap()];
        for configure in [bind, Configure::SetApprovers { approvers }] {
            let admin = Admin {
                person: None,
                key_id: "test".into(),
            };
            let configured = self.service.configure(&channel, &configure, &admin);
            configured.await.unwrap();
        }
        let mut ids = Vec::new();
        for number in 0..many {
            let id = RequestId::from_uuid(SystemClock.draw_in_order());
            let draft = Draft {
                id,
                account_id: account.clone(),
                channel_id: channel.clone(),
                requester: person(&format!("p{number}")),
                reason: Some(Text::clip("x")),
                jira: None,
                duration: Minutes::new(60).unwrap(),
                permission_set: None,
                start_at: None,
            };
            self.service.open(draft, None, None).await.unwrap();
            let by = person("bob");
            let asked = Command::Asked {
                by,
                ask: Ask::Approve,
            };
            self.service.handle(id, asked, None).await.unwrap();
            ids.push(id);
        }
        ids
    }

    /// Runs the loop until this request is GRANTED.
    async fn run_until_granted(&self, id: RequestId) {
        let granted = async {
            while self.service.request(id).await.unwrap().status() != Status::Granted {
                SystemClock.sleep(Millis(20)).await;
            }
            self.stop.cancel();
        };
        let both = async { tokio::join!(self.worker.run(self.stop.clone()), granted) };
        let limit = std::time::Duration::from_secs(60);
        let in_time = tokio::time::timeout(limit, both).await;
        assert!(in_time.is_ok(), "{id} is starved");
    }
}

// K15
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_records_at_the_head_of_a_lane_starve_no_other() {
    let test = LoopSetup::open();
    let ids = test.approved(101).await;
    let (last, unreadable) = ids.split_last().unwrap();
    let db = rusqlite::Connection::open(test.folder.path().join("jit.db")).unwrap();
    for id in unreadable {
        let sql = "UPDATE jit_requests SET doc = 'rubbish' WHERE request_id = ?1";
        assert_eq!(db.execute(sql, [id.to_string()]), Ok(1));
    }
    test.run_until_granted(*last).await;
}
