//! A store in memory, with the promises of a store and no disk, for the simulation.
#![allow(dead_code)] // each target uses its part

#[path = "memory/tables.rs"]
mod tables;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jit::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Event, EventPlace, HeadEntry, Holding,
    HoldingKey, Lane, Lease, LeaseToken, Millis, Notice, Request, RequestId, Status, Timestamp,
};
pub use tables::{Changes, Tables};

use jit::store::{
    Answered, AuditFilter, AuditedRecord, ClaimEnd, ClaimedNotice, Commit, Cursor, Due, Filter,
    Found, Freshness, Gauges, Head, Inspected, Left, Nonce, NoticePlace, STUCK_AFTER, Store,
    StoreError, Taken,
};

#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Tables>>);

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }

    /// The next `end_pauses` panics.
    pub fn panic_at_end_pauses(&self) {
        self.tables().panics_at_end_pauses = true;
    }

    pub fn head_entries_read(&self) -> usize {
        self.tables().head_entries_read
    }

    /// Reads without a copy. The store is locked meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.tables())
    }

    pub fn all_requests(&self) -> Vec<Request> {
        self.tables().requests.values().cloned().collect()
    }

    pub fn holding_now(&self, key: &HoldingKey) -> Option<Holding> {
        self.tables().holdings.get(key).cloned()
    }

    /// Increases with every write.
    pub fn commits(&self) -> u64 {
        self.tables().commits
    }

    /// The changes since the last call.
    pub fn take_changes(&self) -> Changes {
        std::mem::take(&mut self.tables().changes)
    }

    pub fn history(&self, key: &AuditKey) -> Vec<Event> {
        self.tables().history(key)
    }

    /// When the next request can be claimed, past or future.
    pub fn next_due(&self) -> Option<Timestamp> {
        let tables = self.tables();
        tables
            .requests
            .values()
            .filter_map(Request::claimable_at)
            .min()
    }

    /// When the next notice can be claimed, past or future.
    pub fn next_notice(&self) -> Option<Timestamp> {
        self.tables().next_notice()
    }

    /// Writes a status as an operator does.
    pub fn write_status(&self, id: RequestId, said: Status, at: Option<Timestamp>) {
        let mut tables = self.tables();
        let request = tables.requests[&id].clone();
        let revision = request.version.revision;
        // The other stores keep the document that jit wrote beside the status, so a second status
        // takes the place of the first.
        let document = match tables.documents.get(&id) {
            Some((written, document)) if *written == revision => document.clone(),
            Some(_) | None => request,
        };
        if document.state.is_settled() {
            *tables.written_over.entry(id).or_default() += 1;
        }
        let mut changed = document.clone();
        let since = changed.version.chain.last_at;
        changed.apply_outside_status(said, at, since);
        if changed.state != document.state {
            changed.schedule.due_at = Some(Timestamp::default());
        }
        changed.version.revision = revision + 1;
        tables.documents.insert(id, (revision + 1, document));
        tables.requests.insert(id, changed);
        tables.commits += 1;
        tables.changes.requests.insert(id);
    }

    /// Replaces the head log, as a person who owns the store can do.
    pub fn replace_head_log(&self, entries: Vec<HeadEntry>) {
        self.tables().head_log = entries;
    }

    /// The same as `commit`, outside a task.
    pub fn commit_now(&self, commit: Commit) -> Result<(), StoreError> {
        self.tables().commit(commit)
    }
}

fn overdue(request: &Request, now: Timestamp) -> bool {
    request.overdue_at().is_some_and(|at| at <= now)
}

#[async_trait]
impl Store for MemoryStore {
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        Ok(self.tables().requests.get(&id).cloned())
    }

    async fn holding(&self, key: &HoldingKey) -> Result<Option<Holding>, StoreError> {
        Ok(self.holding_now(key))
    }

    async fn binding(&self, account: &AccountId) -> Result<Option<Binding>, StoreError> {
        Ok(self.tables().bindings.get(account).cloned())
    }

    async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, StoreError> {
        Ok(self.tables().channels.get(id).cloned())
    }

    async fn bindings_page(
        &self,
        channel: &ChannelId,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        let tables = self.tables();
        let all = tables.bindings.values();
        Ok(all
            .filter(|binding| binding.channel_id == *channel)
            .filter(|binding| after.is_none_or(|after| binding.account_id > *after))
            .take(limit)
            .cloned()
            .collect::<Vec<_>>()
            .into())
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.commit_now(commit)
    }

    async fn bound(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Found<Binding>, StoreError> {
        let tables = self.tables();
        let all = tables.bindings.values();
        let rest = all.filter(|binding| after.is_none_or(|after| binding.account_id > *after));
        Ok(rest.take(limit).cloned().collect::<Vec<_>>().into())
    }

    async fn take_lease(
        &self,
        name: &str,
        lease: Lease,
        lapsed: Option<Lease>,
    ) -> Result<Taken, StoreError> {
        let mut tables = self.tables();
        let held = tables.leases.get(name).copied();
        let another = held.filter(|held| held.token != lease.token && Some(*held) != lapsed);
        if let Some(another) = another {
            return Ok(Taken::ByAnother(another));
        }
        tables.leases.insert(name.to_owned(), lease);
        Ok(Taken::Yes)
    }

    async fn give_lease(&self, name: &str, token: LeaseToken) -> Result<(), StoreError> {
        let mut tables = self.tables();
        tables
            .leases
            .retain(|held, lease| held != name || lease.token != token);
        Ok(())
    }

    async fn answered(&self, key: &str, now: Timestamp) -> Result<Option<Answered>, StoreError> {
        let earlier = self.tables().answers.get(key).cloned();
        Ok(earlier.filter(|earlier| now - earlier.at <= Millis::DAY))
    }

    async fn spend_nonce(&self, nonce: &Nonce) -> Result<Freshness, StoreError> {
        Ok(self.tables().spend(nonce))
    }

    async fn due(
        &self,
        lane: Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Due<RequestId>, StoreError> {
        let tables = self.tables();
        let mut due: Vec<(Timestamp, RequestId)> = tables
            .requests
            .values()
            .filter(|request| request.lane() == lane)
            .filter_map(|request| Some((request.claimable_at()?, request.id)))
            .collect();
        due.sort();
        let ready = due.iter().take(limit).take_while(|(at, _)| *at <= now);
        let ready: Vec<RequestId> = ready.map(|(_, id)| *id).collect();
        let next = due.get(ready.len()).map(|(at, _)| *at);
        Ok(Due { ready, next })
    }

    async fn claim_notices(
        &self,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Due<ClaimedNotice>, StoreError> {
        let mut tables = self.tables();
        let mut due: Vec<(Timestamp, NoticePlace)> = tables
            .first_in_line()
            .into_iter()
            .map(|place| (tables.claimable_at(&place), place))
            .filter(|(at, _)| *at <= now)
            .collect();
        due.sort();
        due.truncate(limit);
        let claim = |(_, place)| tables.claim(&place, (lease, lease_until));
        let ready = due.into_iter().map(claim).collect();
        let next = tables.next_notice();
        Ok(Due { ready, next })
    }

    async fn claim_notice(
        &self,
        id: RequestId,
        now: Timestamp,
        lease: LeaseToken,
        lease_until: Timestamp,
    ) -> Result<Option<ClaimedNotice>, StoreError> {
        let mut tables = self.tables();
        let first = tables.places(id, false).first().copied();
        let first = first.filter(|first| tables.claimable_at(first) <= now);
        Ok(first.map(|first| tables.claim(&first, (lease, lease_until))))
    }

    async fn undelivered(&self, id: RequestId) -> Result<Vec<Notice>, StoreError> {
        let tables = self.tables();
        let pending = tables.places(id, false).into_iter();
        Ok(pending
            .map(|place| tables.notices[&place].notice.clone())
            .collect())
    }

    async fn end_pauses(&self, now: Timestamp) -> Result<(), StoreError> {
        let panics = std::mem::take(&mut self.tables().panics_at_end_pauses);
        assert!(!panics, "a test lets the store panic");
        for entry in self.tables().notices.values_mut() {
            entry.next_at = entry.next_at.min(now);
        }
        Ok(())
    }

    async fn end_claim(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        end: ClaimEnd,
    ) -> Result<Left, StoreError> {
        let mut tables = self.tables();
        let Some(entry) = tables.notices.get_mut(&place) else {
            return Ok(Left::Nothing);
        };
        if entry.lease.is_none_or(|(holder, _)| holder != lease) {
            return Ok(Left::Nothing);
        }
        entry.lease = None;
        match end {
            ClaimEnd::Delivered { ahead } => {
                tables.notices.remove(&place);
                for notice in ahead {
                    tables.keep_receivers(notice);
                }
                if tables.first_of(place.request_id).is_some() {
                    return Ok(Left::More);
                }
            }
            ClaimEnd::TryAgain { at, tried } => {
                let mut left = tables.places(place.request_id, false).len();
                for notice in tried {
                    if let Some(entry) = tables.keep_receivers(notice) {
                        entry.attempts += 1;
                        entry.next_at = at;
                        left -= 1;
                    }
                }
                if left > 0 {
                    return Ok(Left::More);
                }
            }
            ClaimEnd::Released => {}
        }
        Ok(Left::Nothing)
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        let place = |request: &Request| (request.asked.created_at, request.id);
        let wanted = |request: &&Request| {
            let mail = request.requester_email();
            filter.request_id.is_none_or(|id| request.id == id)
                && filter
                    .channel_id
                    .as_ref()
                    .is_none_or(|id| request.asked.channel_id == *id)
                && filter
                    .account_id
                    .as_ref()
                    .is_none_or(|id| request.asked.account_id == *id)
                && filter
                    .requester_email
                    .as_ref()
                    .is_none_or(|email| mail == email)
                && filter
                    .status
                    .is_none_or(|status| request.status() == status)
                && filter
                    .from
                    .is_none_or(|from| request.asked.created_at >= from)
                && filter
                    .before
                    .is_none_or(|before| request.asked.created_at < before)
                && after.is_none_or(|last| place(request) < (last.created_at, last.id))
        };
        let mut found: Vec<Request> = self
            .tables()
            .requests
            .values()
            .filter(wanted)
            .cloned()
            .collect();
        found.sort_by_key(|request| std::cmp::Reverse(place(request)));
        found.truncate(limit);
        Ok(found.into())
    }

    async fn audit_page(
        &self,
        key: &AuditKey,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let from = after.map_or(0, |place| place.seq + 1);
        let tables = self.tables();
        let events = tables.events_from(key, from).take(limit);
        Ok(events.cloned().collect())
    }

    async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Found<Event>, StoreError> {
        let tables = self.tables();
        let mut found: Vec<Event> = tables
            .events
            .values()
            .flat_map(|history| history.values())
            .filter(|event| {
                let account = event.account_id.as_ref();
                filter
                    .account_id
                    .as_ref()
                    .is_none_or(|id| account == Some(id))
                    && filter
                        .channel_id
                        .as_ref()
                        .is_none_or(|id| event.channel_id == *id)
                    && filter.from.is_none_or(|from| event.event_time >= from)
                    && filter.before.is_none_or(|before| event.event_time < before)
                    && after.is_none_or(|after| event.sort_key().as_str() > after)
            })
            .cloned()
            .collect();
        found.sort_by_key(Event::sort_key);
        found.truncate(limit);
        Ok(found.into())
    }

    async fn heads(
        &self,
        after: Option<&AuditKey>,
        limit: usize,
    ) -> Result<Found<Head>, StoreError> {
        let tables = self.tables();
        let requests = tables.requests.values().map(|request| Head {
            key: AuditKey::Request(request.id),
            chain: request.version.chain,
            status: Some(request.status()),
        });
        let channels = tables.channels.values().map(|channel| Head {
            key: AuditKey::Config(channel.id.clone()),
            chain: channel.chain,
            status: None,
        });
        let after = after.map(ToString::to_string).unwrap_or_default();
        let mut heads: Vec<Head> = requests
            .chain(channels)
            .filter(|head| head.key.to_string() > after)
            .collect();
        heads.sort_by_key(|head| head.key.to_string());
        heads.truncate(limit);
        Ok(heads.into())
    }

    async fn inspect(&self, key: &AuditKey) -> Result<Inspected, StoreError> {
        let tables = self.tables();
        let record = match key {
            AuditKey::Request(id) => {
                let request = tables.requests.get(id).cloned();
                request.map(|request| AuditedRecord::Request(Box::new(request)))
            }
            AuditKey::Config(id) => {
                let channel = tables.channels.get(id).cloned();
                channel.map(AuditedRecord::Channel)
            }
        };
        let bound = tables.bindings.values().filter(
            |binding| matches!(key, AuditKey::Config(channel) if *channel == binding.channel_id),
        );
        Ok(Inspected {
            record,
            bindings: bound.cloned().collect(),
            events: tables.history(key),
            misfits: Vec::new(),
        })
    }

    async fn audit_keys(&self) -> Result<BTreeSet<String>, StoreError> {
        let tables = self.tables();
        Ok(tables.events.keys().map(ToString::to_string).collect())
    }

    async fn last_head_entry(&self) -> Result<Option<HeadEntry>, StoreError> {
        Ok(self.tables().head_log.last().cloned())
    }

    async fn head_entries(&self, after: u64, limit: usize) -> Result<Vec<HeadEntry>, StoreError> {
        let mut tables = self.tables();
        let later = tables.head_log.iter().filter(|entry| entry.number > after);
        let later: Vec<HeadEntry> = later.take(limit).cloned().collect();
        tables.head_entries_read += later.len();
        Ok(later)
    }

    async fn add_head_entry(&self, entry: &HeadEntry) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if tables.head_log.iter().any(|one| one.number == entry.number) {
            return Err(StoreError::Conflict(None));
        }
        tables.head_log.push(entry.clone());
        Ok(())
    }

    async fn copied_at(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        let tables = self.tables();
        let count = |wanted: &dyn Fn(&Request) -> bool| {
            tables
                .requests
                .values()
                .filter(|request| wanted(request))
                .count() as u64
        };
        let on_their_way = || tables.notices.values().filter(|entry| !entry.parked);
        Ok(Gauges {
            backlog: count(&|request| request.claimable_at().is_some_and(|at| at <= now)),
            oldest_due: tables
                .requests
                .values()
                .filter_map(Request::claimable_at)
                .filter(|at| *at <= now)
                .min(),
            live_grants: count(&|request| request.status() == Status::Granted),
            overdue_grants: count(&|request| overdue(request, now)),
            failing_removals: count(&Request::is_failing_removal),
            stuck_requests: count(&|request| {
                let since = request.failing_since();
                since.is_some_and(|since| now - since >= STUCK_AFTER)
            }),
            undelivered_notices: on_their_way().count() as u64,
            oldest_undelivered: on_their_way().map(|entry| entry.notice.created_at).min(),
            parked_notices: tables.notices.values().filter(|entry| entry.parked).count() as u64
                + tables.forgotten.values().sum::<u64>(),
        })
    }

    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut tables = self.tables();
        tables.nonces.retain(|_, until| *until >= now);
        tables
            .answers
            .retain(|_, answered| now - answered.at <= Millis::DAY);
        Ok(())
    }
}
