//! The outside, as unreliable as it is: every call can be cut off before it arrives or
//! before its answer does.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jit::access::sandbox::Sandbox;
use jit::access::{
    Access, AccessError, AccessErrorKind, Assignee, CALL_PATIENCE, Deletion, Operation,
    OperationKind, Page, Place, Progress, Provisioning, UserAttribute,
};
use jit::clock::Clock;
use jit::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Email, Event, Holding, HoldingKey, Lane,
    Lease, LeaseToken, Millis, Notice, PermissionSet, Request, RequestId, Timestamp, UserId,
};
use jit::store::{
    Answered, AuditFilter, ClaimedNotice, Commit, Cursor, Due, Filter, Found, Freshness, Gauges,
    Head, Left, Nonce, NoticePlace, Settled, Store, StoreError, Taken,
};
use jit::worker::postman::{NotReceived, Receiver};

use crate::clock::SimClock;
use crate::memory::MemoryStore;

/// How likely things go wrong: one call in so many; 0 is never.
#[derive(Clone)]
pub struct Weather(Arc<Mutex<u32>>);

impl Weather {
    pub fn new(storm: u32) -> Self {
        Self(Arc::new(Mutex::new(storm)))
    }

    pub fn calm(&self) {
        *self.0.lock().unwrap() = 0;
    }

    fn strikes(&self, clock: &SimClock) -> bool {
        let storm = *self.0.lock().unwrap();
        storm > 0 && clock.chance(storm)
    }
}

#[derive(Clone)]
pub struct FlakyStore {
    pub store: MemoryStore,
    pub clock: SimClock,
    pub weather: Weather,
}

macro_rules! through {
    ($self:ident . $name:ident ( $($argument:expr),* )) => {{
        $self.clock.yield_here().await;
        if $self.weather.strikes(&$self.clock) {
            return Err(StoreError::Unavailable("lost on the way".into()));
        }
        let answer = $self.store.$name($($argument),*).await;
        $self.clock.yield_here().await;
        if $self.weather.strikes(&$self.clock) {
            return Err(StoreError::Unavailable("the answer was lost".into()));
        }
        answer
    }};
}

#[async_trait]
impl Store for FlakyStore {
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        through!(self.request(id))
    }
    async fn holding(&self, key: &HoldingKey) -> Result<Option<Holding>, StoreError> {
        through!(self.holding(key))
    }
    async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError> {
        through!(self.binding(account))
    }
    async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, StoreError> {
        through!(self.channel(id))
    }
    async fn bindings(&self, channel: &ChannelId) -> Result<Found<Binding>, StoreError> {
        through!(self.bindings(channel))
    }
    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        through!(self.commit(commit))
    }
    async fn bound(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        through!(self.bound(after, limit))
    }
    async fn take_lease(
        &self,
        name: &str,
        lease: Lease,
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        through!(self.take_lease(name, lease, now))
    }
    async fn give_lease(&self, name: &str, token: LeaseToken) -> Result<(), StoreError> {
        through!(self.give_lease(name, token))
    }
    async fn answered(&self, key: &str, now: Timestamp) -> Result<Option<Answered>, StoreError> {
        through!(self.answered(key, now))
    }
    async fn spend_nonce(&self, nonce: &Nonce) -> Result<Freshness, StoreError> {
        through!(self.spend_nonce(nonce))
    }
    async fn due(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError> {
        through!(self.due(lane, now, limit))
    }
    async fn claim_notices(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError> {
        through!(self.claim_notices(now, lease, lease_until, limit))
    }
    async fn claim_notice(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError> {
        through!(self.claim_notice(id, now, lease, lease_until))
    }
    async fn settle_notice(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        settled: Settled,
    ) -> Result<Left, StoreError> {
        through!(self.settle_notice(place, lease, settled))
    }
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        through!(self.list(filter, after, limit))
    }
    async fn audit(&self, key: &AuditKey) -> Result<Vec<Event>, StoreError> {
        through!(self.audit(key))
    }
    async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError> {
        through!(self.export(filter, after, limit))
    }
    async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        through!(self.heads(after, limit))
    }
    async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError> {
        through!(self.copied_at())
    }
    async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        through!(self.gauges(now))
    }
    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        through!(self.tidy(now))
    }
}

/// Its own faults are the sandbox's; here a caller can be cut off around every call.
pub struct SlowAccess {
    pub access: Arc<Sandbox>,
    pub clock: SimClock,
}

macro_rules! slowly {
    ($self:ident . $name:ident ( $($argument:expr),* )) => {{
        let made = $self.clock.now();
        $self.clock.yield_here().await;
        // What `Access` promises: a call does not arrive after it was given up.
        if $self.clock.now() - made > CALL_PATIENCE {
            return Err(AccessError { kind: AccessErrorKind::NoAnswer, why: "timed out".into() });
        }
        let answer = $self.access.$name($($argument),*).await;
        $self.clock.yield_here().await;
        answer
    }};
}

#[async_trait]
impl Access for SlowAccess {
    async fn caller(&self) -> Result<String, AccessError> {
        slowly!(self.caller())
    }
    fn means(&self, set: &PermissionSet) -> Result<String, AccessError> {
        self.access.means(set)
    }
    async fn find_user(
        &self,
        email: &Email,
        by: UserAttribute,
    ) -> Result<Option<UserId>, AccessError> {
        slowly!(self.find_user(email, by))
    }
    async fn assigned(
        &self,
        place: &Place,
        after: Option<&str>,
    ) -> Result<Page<Assignee>, AccessError> {
        slowly!(self.assigned(place, after))
    }
    async fn under_way(
        &self,
        kind: OperationKind,
        after: Option<&str>,
    ) -> Result<Page<String>, AccessError> {
        slowly!(self.under_way(kind, after))
    }
    async fn session_duration(&self, set: &PermissionSet) -> Result<Millis, AccessError> {
        slowly!(self.session_duration(set))
    }
    async fn inline_policy(&self, set: &PermissionSet) -> Result<Option<String>, AccessError> {
        slowly!(self.inline_policy(set))
    }
    async fn set_inline_policy(
        &self,
        set: &PermissionSet,
        policy: Option<&str>,
    ) -> Result<(), AccessError> {
        slowly!(self.set_inline_policy(set, policy))
    }
    async fn provision(&self, place: &Place) -> Result<Provisioning, AccessError> {
        slowly!(self.provision(place))
    }
    async fn provisioned(&self, provisioning: &Provisioning) -> Result<Progress, AccessError> {
        slowly!(self.provisioned(provisioning))
    }
    async fn create(&self, key: &HoldingKey) -> Result<Operation, AccessError> {
        slowly!(self.create(key))
    }
    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, AccessError> {
        slowly!(self.delete(key))
    }
    async fn poll(&self, operation: &Operation) -> Result<Progress, AccessError> {
        slowly!(self.poll(operation))
    }
}

/// A channel that hears, sometimes does not, and sometimes hears and says it did not.
#[derive(Clone)]
pub struct SimReceiver {
    pub clock: SimClock,
    pub weather: Weather,
    pub heard: Arc<Mutex<Vec<Notice>>>,
}

#[async_trait]
impl Receiver for SimReceiver {
    async fn receive(&self, notice: &Notice, _now: Timestamp) -> Result<(), NotReceived> {
        self.clock.yield_here().await;
        if self.weather.strikes(&self.clock) || self.weather.strikes(&self.clock) {
            return Err(NotReceived("nobody there".into()));
        }
        self.heard.lock().unwrap().push(notice.clone());
        self.clock.yield_here().await;
        if self.weather.strikes(&self.clock) {
            return Err(NotReceived("the answer was lost".into()));
        }
        Ok(())
    }
}
