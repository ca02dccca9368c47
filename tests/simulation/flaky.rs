//! The store as one process reaches it: a call can fail before it arrives, or before its answer
//! arrives.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jit::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Event, EventPlace, HeadEntry, Holding,
    HoldingKey, Lane, Lease, LeaseToken, Millis, Notice, Request, RequestId, Timestamp,
};
use jit::store::{
    Answered, AuditFilter, ClaimEnd, ClaimedNotice, Commit, Cursor, Due, Filter, Found, Freshness,
    Gauges, Head, Inspected, Left, Nonce, NoticePlace, Store, StoreError, Taken,
};

use crate::clock::ProcessClock;
use crate::faults::Faults;
use crate::memory::MemoryStore;
use crate::tries::Tries;

#[derive(Clone)]
pub struct FlakyStore {
    pub store: MemoryStore,
    pub clock: ProcessClock,
    pub faults: Faults,
    pub tries: Tries,
}

impl FlakyStore {
    /// A call on its way to the store: the caller may be killed here, and the call may be lost.
    async fn go(&self) -> Result<(), StoreError> {
        let time = &self.clock.time;
        time.yield_here().await;
        self.faults.may_panic(time);
        if self.faults.strikes(time) {
            return Err(StoreError::Unavailable("lost on the way".into()));
        }
        if self.faults.is_store_late() && time.chance(40) {
            let at = time.now() + time.span(Millis::seconds(3));
            self.clock.until_true(at).await;
        }
        Ok(())
    }

    async fn come_back(&self) -> bool {
        let time = &self.clock.time;
        time.yield_here().await;
        self.faults.may_panic(time);
        self.faults.strikes(time)
    }

    /// A full disk refuses the write, and nothing is written.
    fn check_disk(&self) -> Result<(), StoreError> {
        match self.faults.is_disk_full() {
            true => Err(StoreError::Unavailable("the disk is full".into())),
            false => Ok(()),
        }
    }

    /// A write whose caller gives up: it is carried out later, or has been carried out.
    async fn commit_late(&self, commit: Commit) -> Result<(), StoreError> {
        let time = &self.clock.time;
        if time.chance(2) {
            let at = time.now() + time.span(Millis::seconds(8));
            self.faults.write_late(commit, at);
        } else {
            self.store.commit(commit).await?;
        }
        let gives_up = time.now() + time.span(Millis::seconds(5));
        self.clock.until_true(gives_up).await;
        Err(unsure())
    }
}

fn unsure() -> StoreError {
    StoreError::Unsure("the answer was lost".into())
}

macro_rules! read {
    ($self:ident . $name:ident ( $($argument:expr),* )) => {{
        $self.go().await?;
        let answer = $self.store.$name($($argument),*).await;
        if $self.come_back().await {
            return Err(StoreError::Unavailable("the answer was lost".into()));
        }
        answer
    }};
}

macro_rules! write {
    ($self:ident . $name:ident ( $($argument:expr),* )) => {{
        $self.go().await?;
        $self.check_disk()?;
        let answer = $self.store.$name($($argument),*).await;
        if $self.come_back().await {
            return Err(unsure());
        }
        answer
    }};
}

#[async_trait]
impl Store for FlakyStore {
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        let (process, time) = (self.clock.process, &self.clock.time);
        self.tries.reads(process, time.running(), id, time.now());
        read!(self.request(id))
    }
    async fn holding(&self, key: &HoldingKey) -> Result<Option<Holding>, StoreError> {
        read!(self.holding(key))
    }
    async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError> {
        read!(self.binding(account))
    }
    async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, StoreError> {
        read!(self.channel(id))
    }
    async fn bindings_page(
        &self,
        channel: &ChannelId,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        read!(self.bindings_page(channel, after, limit))
    }
    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.tries.writes(self.clock.process, &commit);
        self.go().await?;
        self.check_disk()?;
        if self.faults.is_store_late() && self.clock.time.chance(20) {
            return self.commit_late(commit).await;
        }
        let answer = self.store.commit(commit).await;
        if self.come_back().await {
            return Err(unsure());
        }
        answer
    }
    async fn bound(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        read!(self.bound(after, limit))
    }
    async fn take_lease(
        &self,
        name: &str,
        lease: Lease,
        lapsed: Option<Lease>,
    ) -> Result<Taken, StoreError> {
        write!(self.take_lease(name, lease, lapsed))
    }
    async fn give_lease(&self, name: &str, token: LeaseToken) -> Result<(), StoreError> {
        write!(self.give_lease(name, token))
    }
    async fn answered(&self, key: &str, now: Timestamp) -> Result<Option<Answered>, StoreError> {
        read!(self.answered(key, now))
    }
    async fn spend_nonce(&self, nonce: &Nonce) -> Result<Freshness, StoreError> {
        write!(self.spend_nonce(nonce))
    }
    /// The index may be some seconds old: a record in it may have been claimed since, and a due
    /// record may be missing.
    async fn due(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError> {
        self.tries
            .searches(self.clock.process, lane, self.clock.time.now());
        let Some(mut due) = self.faults.lagging(&self.store, &self.clock.time) else {
            return read!(self.due(lane, now, limit));
        };
        self.go().await?;
        due.retain(|(of, ..)| *of == lane);
        due.sort();
        let ready = due.iter().take(limit).take_while(|(_, at, _)| *at <= now);
        let ready: Vec<RequestId> = ready.map(|(.., id)| *id).collect();
        let next = due.get(ready.len()).map(|(_, at, _)| *at);
        Ok(Due { ready, next })
    }
    async fn claim_notices(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError> {
        write!(self.claim_notices(now, lease, lease_until, limit))
    }
    async fn claim_notice(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError> {
        write!(self.claim_notice(id, now, lease, lease_until))
    }
    async fn undelivered(&self, id: RequestId) -> Result<Vec<Notice>, StoreError> {
        read!(self.undelivered(id))
    }
    async fn end_pauses(&self, now: Timestamp) -> Result<(), StoreError> {
        write!(self.end_pauses(now))
    }
    async fn end_claim(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        end: ClaimEnd,
    ) -> Result<Left, StoreError> {
        write!(self.end_claim(place, lease, end))
    }
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        read!(self.list(filter, after, limit))
    }
    async fn audit_page(
        &self,
        key: &AuditKey,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        read!(self.audit_page(key, after, limit))
    }
    async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError> {
        read!(self.export(filter, after, limit))
    }
    async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        read!(self.heads(after, limit))
    }
    async fn inspect(&self, key: &AuditKey) -> Result<Inspected, StoreError> {
        read!(self.inspect(key))
    }
    async fn audit_keys(&self) -> Result<BTreeSet<String>, StoreError> {
        read!(self.audit_keys())
    }
    async fn last_head_entry(&self) -> Result<Option<HeadEntry>, StoreError> {
        read!(self.last_head_entry())
    }
    async fn head_entries(&self, after: u64, limit: usize) -> Result<Vec<HeadEntry>, StoreError> {
        read!(self.head_entries(after, limit))
    }
    async fn add_head_entry(&self, entry: &HeadEntry) -> Result<(), StoreError> {
        self.go().await?;
        self.check_disk()?;
        self.store.add_head_entry(entry).await
    }
    async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError> {
        read!(self.copied_at())
    }
    async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        read!(self.gauges(now))
    }
    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        write!(self.tidy(now))
    }
}
