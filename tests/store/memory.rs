//! A store in memory: the promises without a disk, for the simulation.
#![allow(dead_code)] // each target uses its part

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jit::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Event, Holding, HoldingKey, Lane, Lease,
    LeaseToken, Millis, Notice, Request, RequestId, State, Status, Timestamp,
};
use jit::store::outbox::{Claim, Fate, Waiting, fates, forgotten};
use jit::store::{
    Answered, AuditFilter, ClaimedNotice, Commit, Cursor, Due, Filter, Found, Freshness, Gauges,
    Head, Left, Nonce, NoticePlace, Settled, Store, StoreError, Taken,
};

#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Tables>>);

#[derive(Clone, Default)]
struct Tables {
    requests: BTreeMap<RequestId, Request>,
    holdings: BTreeMap<HoldingKey, Holding>,
    channels: BTreeMap<ChannelId, Channel>,
    bindings: BTreeMap<AccountId, Binding>,
    /// Shared, because every commit is made on a copy of everything.
    events: BTreeMap<AuditKey, Arc<BTreeMap<u64, Event>>>,
    notices: BTreeMap<NoticePlace, Letter>,
    /// Parked notices that are only counted.
    forgotten: u64,
    nonces: BTreeMap<String, Timestamp>,
    leases: BTreeMap<String, Lease>,
    answers: BTreeMap<String, Answered>,
    commits: u64,
}

#[derive(Clone)]
struct Letter {
    notice: Notice,
    attempts: u32,
    next_at: Timestamp,
    lease: Option<(LeaseToken, Timestamp)>,
    parked: bool,
}

impl Letter {
    fn claimable_at(&self) -> Timestamp {
        self.lease
            .map_or(self.next_at, |(_, until)| self.next_at.max(until))
    }
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }

    pub fn all_requests(&self) -> Vec<Request> {
        self.tables().requests.values().cloned().collect()
    }

    pub fn holding_now(&self, key: &HoldingKey) -> Option<Holding> {
        self.tables().holdings.get(key).cloned()
    }

    /// Grows whenever something was written.
    pub fn commits(&self) -> u64 {
        self.tables().commits
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

    /// What an operator's own update of the status does.
    pub fn write_status(&self, id: RequestId, said: Status, at: Option<Timestamp>) {
        let mut tables = self.tables();
        let request = tables.requests.get_mut(&id).unwrap();
        let since = request.chain.last_at;
        request.hear_outside(said, at, since);
        request.due_at = Some(Timestamp::default());
        request.revision += 1;
    }
}

impl Tables {
    fn history(&self, key: &AuditKey) -> Vec<Event> {
        let events = self.events.get(key);
        events
            .map(|events| events.values().cloned().collect())
            .unwrap_or_default()
    }

    fn spend(&mut self, nonce: &Nonce) -> Freshness {
        let spent = self.nonces.get(&nonce.text);
        if spent.is_some_and(|until| *until >= nonce.at) {
            return Freshness::Spent;
        }
        self.nonces.insert(nonce.text.clone(), nonce.keep_until);
        Freshness::Fresh
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        if let Some(nonce) = &commit.nonce
            && self.spend(nonce) == Freshness::Spent
        {
            return Err(StoreError::Replayed);
        }
        if let Some(guard) = commit.guard {
            let stored = self.bindings.get(&guard.account_id);
            if !guard.holds(stored) {
                return Err(StoreError::Conflict(None));
            }
        }
        for request in commit.requests {
            let before = self.requests.get(&request.id);
            in_order(before.map_or(0, |before| before.revision), request.revision)
                .map_err(|_| StoreError::Conflict(before.cloned().map(Box::new)))?;
            self.requests.insert(request.id, request);
        }
        for holding in commit.holdings {
            let before = self.holdings.get(&holding.key);
            in_order(before.map_or(0, |before| before.revision), holding.revision)?;
            self.holdings.insert(holding.key.clone(), holding);
        }
        if let Some(channel) = commit.channel {
            let before = self.channels.get(&channel.id);
            in_order(before.map_or(0, |before| before.revision), channel.revision)?;
            self.channels.insert(channel.id.clone(), channel);
        }
        if let Some(unbound) = commit.unbound {
            match self.bindings.remove(&unbound.account_id) {
                Some(before) => in_order(before.revision, unbound.revision + 1)?,
                None => return Err(StoreError::Conflict(None)),
            }
        }
        for binding in commit.bindings {
            let before = self.bindings.get(&binding.account_id);
            in_order(before.map_or(0, |before| before.revision), binding.revision)?;
            self.bindings.insert(binding.account_id.clone(), binding);
        }
        for event in commit.events {
            let history = self.events.entry(event.request_id.clone()).or_default();
            if Arc::make_mut(history).insert(event.seq, event).is_some() {
                return Err(StoreError::Conflict(None));
            }
        }
        for notice in commit.notices {
            let place = NoticePlace {
                request_id: notice.request_id,
                seq: notice.seq,
            };
            let (id, next_at) = (notice.request_id, notice.created_at);
            let letter = Letter {
                notice,
                attempts: 0,
                next_at,
                lease: None,
                parked: false,
            };
            if self.notices.insert(place, letter).is_some() {
                return Err(StoreError::Conflict(None));
            }
            self.make_room(id);
        }
        if let Some(place) = commit.parked {
            match self.notices.get_mut(&place) {
                Some(letter) if !letter.parked => (letter.parked, letter.lease) = (true, None),
                _ => return Err(StoreError::Conflict(None)),
            }
            self.forget_parked(place.request_id);
        }
        if let Some(answered) = commit.answered {
            let earlier = self.answers.get(&answered.key);
            if earlier.is_some_and(|earlier| answered.at - earlier.at <= Millis::DAY) {
                return Err(StoreError::Conflict(None));
            }
            self.answers.insert(answered.key.clone(), answered);
        }
        Ok(())
    }

    fn places(&self, id: RequestId, parked: bool) -> Vec<NoticePlace> {
        let of = |seq| NoticePlace {
            request_id: id,
            seq,
        };
        let all = self.notices.range(of(0)..=of(u64::MAX));
        let those = all.filter(|(_, letter)| letter.parked == parked);
        those.map(|(place, _)| *place).collect()
    }

    fn make_room(&mut self, id: RequestId) {
        let places = self.places(id, false);
        let waiting = places.iter().map(|place| Waiting {
            audience: Some(self.notices[place].notice.audience),
            claim: match self.notices[place].lease {
                Some(_) => Claim::Claimed,
                None => Claim::Free,
            },
        });
        let fates = fates(&waiting.collect::<Vec<_>>());
        for (place, fate) in places.iter().zip(fates) {
            match fate {
                Fate::Stays => {}
                Fate::Merged => drop(self.notices.remove(place)),
                Fate::Parked => self.notices.get_mut(place).unwrap().parked = true,
            }
        }
        self.forget_parked(id);
    }

    fn forget_parked(&mut self, id: RequestId) {
        let parked = self.places(id, true);
        for place in &parked[..forgotten(parked.len())] {
            self.notices.remove(place);
            self.forgotten += 1;
        }
    }

    fn next_notice(&self) -> Option<Timestamp> {
        let first = self.first_in_line();
        first
            .iter()
            .map(|place| self.notices[place].claimable_at())
            .min()
    }

    /// Of each request the oldest notice that is on its way.
    fn first_in_line(&self) -> Vec<NoticePlace> {
        let mut first: BTreeMap<RequestId, NoticePlace> = BTreeMap::new();
        for (place, letter) in &self.notices {
            if !letter.parked {
                first.entry(place.request_id).or_insert(*place);
            }
        }
        first.into_values().collect()
    }
}

fn in_order(stored: u64, written: u64) -> Result<(), StoreError> {
    if stored + 1 == written {
        Ok(())
    } else {
        Err(StoreError::Conflict(None))
    }
}

fn overdue(request: &Request, now: Timestamp) -> bool {
    let ended = request.granted.is_some_and(|period| period.until <= now);
    ended && matches!(request.state, State::Granted)
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

    async fn bindings(&self, channel: &ChannelId) -> Result<Found<Binding>, StoreError> {
        let tables = self.tables();
        let all = tables.bindings.values();
        Ok(all
            .filter(|binding| binding.channel_id == *channel)
            .cloned()
            .collect::<Vec<_>>()
            .into())
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        let mut tables = self.tables();
        // All or nothing: only a copy that came through whole takes the place.
        let mut next = tables.clone();
        next.commit(commit)?;
        next.commits += 1;
        *tables = next;
        Ok(())
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
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        let mut tables = self.tables();
        let held = tables.leases.get(name).copied();
        if held.is_some_and(|held| held.token != lease.token && held.until > now) {
            return Ok(Taken::ByAnother);
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
            .map(|place| (tables.notices[&place].claimable_at(), place))
            .filter(|(at, _)| *at <= now)
            .collect();
        due.sort();
        due.truncate(limit);
        let claim = |(_, place)| {
            let letter = tables.notices.get_mut(&place)?;
            letter.lease = Some((lease, lease_until));
            Some(ClaimedNotice {
                notice: letter.notice.clone(),
                attempts: letter.attempts,
            })
        };
        let ready = due.into_iter().filter_map(claim).collect();
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
        let first = tables.first_in_line();
        let place = first.into_iter().find(|place| place.request_id == id);
        let letter = place.and_then(|place| tables.notices.get_mut(&place));
        let letter = letter.filter(|letter| letter.claimable_at() <= now);
        Ok(letter.map(|letter| {
            letter.lease = Some((lease, lease_until));
            ClaimedNotice {
                notice: letter.notice.clone(),
                attempts: letter.attempts,
            }
        }))
    }

    async fn settle_notice(
        &self,
        place: NoticePlace,
        lease: LeaseToken,
        settled: Settled,
    ) -> Result<Left, StoreError> {
        let mut tables = self.tables();
        let Some(letter) = tables.notices.get_mut(&place) else {
            return Ok(Left::Nothing);
        };
        if letter.lease.is_none_or(|(holder, _)| holder != lease) {
            return Ok(Left::Nothing);
        }
        letter.lease = None;
        match settled {
            Settled::Delivered => {
                tables.notices.remove(&place);
                let mut first = tables.first_in_line().into_iter();
                if first.any(|other| other.request_id == place.request_id) {
                    return Ok(Left::More);
                }
            }
            Settled::TryAgain { at } => {
                letter.attempts += 1;
                letter.next_at = at;
            }
            Settled::Released => {}
        }
        Ok(Left::Nothing)
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Found<Request>, StoreError> {
        let place = |request: &Request| (request.created_at, request.id);
        let wanted = |request: &&Request| {
            let mail = request.requester_email();
            filter.request_id.is_none_or(|id| request.id == id)
                && filter
                    .channel_id
                    .as_ref()
                    .is_none_or(|id| request.channel_id == *id)
                && filter
                    .account_id
                    .as_ref()
                    .is_none_or(|id| request.account_id == *id)
                && filter
                    .requester_email
                    .as_ref()
                    .is_none_or(|email| mail == email)
                && filter
                    .status
                    .is_none_or(|status| request.status() == status)
                && filter.from.is_none_or(|from| request.created_at >= from)
                && filter
                    .before
                    .is_none_or(|before| request.created_at < before)
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

    async fn audit(&self, key: &AuditKey) -> Result<Vec<Event>, StoreError> {
        Ok(self.history(key))
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
            chain: request.chain,
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
        let on_their_way = || tables.notices.values().filter(|letter| !letter.parked);
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
            undelivered_notices: on_their_way().count() as u64,
            oldest_undelivered: on_their_way().map(|letter| letter.notice.created_at).min(),
            parked_notices: tables
                .notices
                .values()
                .filter(|letter| letter.parked)
                .count() as u64
                + tables.forgotten,
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
