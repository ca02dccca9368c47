//! What a worker may believe and when it may act, against an AWS that does what no
//! simulation by chance would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/fixtures.rs"]
mod fixtures;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fixtures::{person, policy};
use jit::clock::{Clock, SystemClock, Uptime};
use jit::domain::{
    AccountId, Admin, Ask, BindTerms, ChannelId, Command, Draft, Email, EndSessions, EventKind,
    HoldingKey, Millis, Minutes, OldCredentials, PermissionSet, Policy, RequestId, Status, Text,
    Timestamp, UserId,
};
use jit::identity_center::{
    Assignee, AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Limits, Operation, OperationKind, Paced, Page, Progress, Provisioning,
    UserAttribute,
};
use jit::service::{Announce, Configure, Service};
use jit::store::Store;
use jit::store::sqlite::SqliteStore;
use jit::worker::{Stepped, Worker};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Short waits pass at once; who would renew a lease waits for ever.
#[derive(Clone, Default)]
struct Hands {
    now: Arc<AtomicI64>,
    drawn: Arc<AtomicU32>,
}

impl Hands {
    fn pass(&self, span: Millis) {
        self.now.fetch_add(span.0, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for Hands {
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
        if span > Millis::seconds(3) {
            std::future::pending::<()>().await;
        }
        self.pass(Millis(span.0.max(0)));
    }

    fn draw(&self) -> Uuid {
        Uuid::from_u128(self.drawn.fetch_add(1, Ordering::SeqCst).into())
    }
}

/// An Identity Center that is told what to say.
#[derive(Default)]
struct Told {
    hands: Hands,
    /// How long it takes to find a user.
    slow: AtomicI64,
    /// How often it still shows what it says it has removed.
    still_present: AtomicU32,
    present: Mutex<HashSet<HoldingKey>>,
    ghosts: Mutex<Vec<HoldingKey>>,
    creates: AtomicU32,
    policy: Mutex<Option<String>>,
    /// How long it takes to read the policy.
    slow_policy: AtomicI64,
    /// Somebody has deleted the permission set.
    deleted: AtomicBool,
}

#[async_trait]
impl IdentityCenter for Told {
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
        self.hands.pass(Millis(self.slow.swap(0, Ordering::SeqCst)));
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
        self.hands.pass(Millis(slow));
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
        self.creates.fetch_add(1, Ordering::SeqCst);
        self.present.lock().unwrap().insert(key.clone());
        let (kind, id) = (OperationKind::Create, "1".into());
        Ok(Operation { kind, id })
    }

    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, IdentityCenterError> {
        self.present.lock().unwrap().remove(key);
        self.ghosts.lock().unwrap().push(key.clone());
        Ok(Deletion::NothingThere)
    }

    async fn poll(&self, _: &Operation) -> Result<Progress, IdentityCenterError> {
        Ok(Progress::Succeeded)
    }
}

struct Scene {
    _folder: tempfile::TempDir,
    hands: Hands,
    aws: Arc<Told>,
    service: Arc<Service>,
    worker: Worker,
}

impl Scene {
    async fn open() -> Self {
        Self::with(policy()).await
    }

    async fn with(policy: Policy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
        let hands = Hands::default();
        let aws = Arc::new(Told {
            hands: hands.clone(),
            ..Told::default()
        });
        let store: Arc<dyn Store> = Arc::new(store);
        let clock: Arc<dyn Clock> = Arc::new(hands.clone());
        let paced = Paced::new(aws.clone(), Limits::None, clock.clone());
        let service = Arc::new(Service::new(store, clock, policy, Announce::ToNobody));
        let worker = Worker::new(service.clone(), Arc::new(paced));
        Self {
            _folder: folder,
            hands,
            aws,
            service,
            worker,
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
        let id = RequestId::from_uuid(self.hands.draw());
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
        self.service.handle(id, asked).await.unwrap();
    }

    async fn step(&self) -> Stepped {
        let stop = CancellationToken::new();
        self.worker.step(&stop).await.unwrap()
    }

    async fn status(&self, id: RequestId) -> Status {
        self.service.request(id).await.unwrap().status()
    }
}

/// P6: that AWS says it has removed something is not yet that it is gone.
#[tokio::test]
async fn what_aws_still_shows_is_not_called_revoked() {
    let scene = Scene::open().await;
    let id = scene.approved().await;
    scene.step().await;
    assert_eq!(scene.status(id).await, Status::Granted);
    scene.aws.still_present.store(2, Ordering::SeqCst);
    scene.ask(id, Ask::Revoke { reason: None }).await;
    for _ in 0..2 {
        assert_eq!(scene.step().await, Stepped::Worked(id));
        assert_eq!(scene.status(id).await, Status::Granted);
        scene.hands.pass(Millis::minutes(1));
    }
    scene.step().await;
    assert_eq!(scene.status(id).await, Status::Revoked);
    let key = jit::domain::AuditKey::Request(id);
    let events = scene.service.store().audit(&key).await.unwrap();
    let failing = events
        .iter()
        .filter(|event| event.event_type == EventKind::RemovalFailing);
    assert_eq!(failing.count(), 2);
}

// K15
#[tokio::test]
async fn the_removal_of_what_a_deleted_set_gave_ends() {
    let scene = Scene::open().await;
    let id = scene.approved().await;
    scene.step().await;
    assert_eq!(scene.status(id).await, Status::Granted);
    scene.aws.deleted.store(true, Ordering::SeqCst);
    scene.ask(id, Ask::Revoke { reason: None }).await;
    scene.step().await;
    assert_eq!(scene.status(id).await, Status::Revoked);
}

/// P1: a call that nobody can take back is made only by who is sure to be there for its
/// answer: with the lease nearly over, and nothing that could renew it, it is not made.
#[tokio::test]
async fn nothing_is_made_in_the_last_seconds_of_a_lease() {
    let scene = Scene::open().await;
    let id = scene.approved().await;
    scene.aws.slow.store(25_000, Ordering::SeqCst);
    scene.step().await;
    assert_eq!(scene.aws.creates.load(Ordering::SeqCst), 0);
    scene.hands.pass(Millis::minutes(1));
    scene.step().await;
    assert_eq!(scene.aws.creates.load(Ordering::SeqCst), 1);
    assert_eq!(scene.status(id).await, Status::Granted);
}

/// P8: a grant lasts exactly as long as was asked for, from when AWS gave it.
#[tokio::test]
async fn a_grant_ends_on_time_and_not_before() {
    let scene = Scene::open().await;
    let id = scene.approved().await;
    scene.hands.pass(Millis::minutes(7));
    scene.step().await;
    let granted = scene.service.request(id).await.unwrap().granted.unwrap();
    assert_eq!(granted.until, granted.from + Millis::minutes(60));
    scene
        .hands
        .pass(granted.until + Millis(-1) - scene.hands.now());
    assert_eq!(scene.step().await, Stepped::Idle);
    assert_eq!(scene.status(id).await, Status::Granted);
    scene.hands.pass(Millis(1));
    assert_eq!(scene.step().await, Stepped::Worked(id));
    assert_eq!(scene.status(id).await, Status::Expired);
}

/// A policy that took too long to read may be another's by now: it is not put back.
#[tokio::test]
async fn a_policy_is_put_back_only_while_nobody_else_may_have_it() {
    let scene = Scene::with(Policy {
        end_sessions: EndSessions::PermissionSet,
        ..policy()
    })
    .await;
    let id = scene.approved().await;
    scene.step().await;
    let request = scene.service.request(id).await.unwrap();
    let bobs = HoldingKey {
        user: "bob".parse().unwrap(),
        ..request.holding_key().unwrap()
    };
    scene.aws.present.lock().unwrap().insert(bobs);
    scene.ask(id, Ask::Revoke { reason: None }).await;
    scene.step().await;
    scene.aws.slow_policy.store(25_000, Ordering::SeqCst);
    scene.step().await;
    assert_eq!(*scene.aws.policy.lock().unwrap(), None);
    scene.hands.pass(Millis::minutes(1));
    scene.step().await;
    assert!(
        scene.aws.policy.lock().unwrap().is_some(),
        "the next try was alone in time"
    );
    let sessions = scene.service.request(id).await.unwrap().sessions;
    assert!(
        matches!(sessions, Some(OldCredentials::Denied { .. })),
        "{sessions:?}"
    );
}

/// Whatever has waited longer: what somebody revokes goes first, then what expires, and
/// then what is to be given.
#[tokio::test]
async fn taking_away_goes_before_giving() {
    let scene = Scene::open().await;
    let expiring = scene.approved().await;
    scene.step().await;
    let revoked = scene.approved_for("dave").await;
    scene.step().await;
    let waiting = scene.approved_for("erin").await;
    scene.hands.pass(Millis::minutes(90));
    scene.ask(revoked, Ask::Revoke { reason: None }).await;
    for next in [revoked, expiring, waiting] {
        assert_eq!(scene.step().await, Stepped::Worked(next));
    }
}

/// A worker on the machine's own clocks, at its loop, with an AWS that does as it is told.
struct AtTheLoop {
    folder: tempfile::TempDir,
    service: Arc<Service>,
    worker: Worker,
    stop: CancellationToken,
}

impl AtTheLoop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let paced = Paced::new(Arc::new(Told::default()), Limits::None, clock.clone());
        let announce = Announce::ToNobody;
        let service = Arc::new(Service::new(Arc::new(store), clock, policy(), announce));
        Self {
            folder,
            worker: Worker::new(service.clone(), Arc::new(paced)),
            service,
            stop: CancellationToken::new(),
        }
    }

    /// Requests that are approved and that no worker has begun, in this order.
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
            self.service.handle(id, asked).await.unwrap();
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
        let patience = std::time::Duration::from_secs(60);
        let in_time = tokio::time::timeout(patience, both).await;
        assert!(in_time.is_ok(), "{id} is starved");
    }
}

// K15
#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_read_at_the_head_of_a_lane_starve_none_behind_them() {
    let scene = AtTheLoop::open();
    let ids = scene.approved(101).await;
    let (last, unreadable) = ids.split_last().unwrap();
    let db = rusqlite::Connection::open(scene.folder.path().join("jit.db")).unwrap();
    for id in unreadable {
        let sql = "UPDATE jit_requests SET doc = 'rubbish' WHERE request_id = ?1";
        assert_eq!(db.execute(sql, [id.to_string()]), Ok(1));
    }
    scene.run_until_granted(*last).await;
}
