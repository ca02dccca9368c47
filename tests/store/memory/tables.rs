//! The tables of the store in memory, and the atomic write.

use std::collections::{BTreeMap, BTreeSet};

use jit::domain::{
    AccountId, AuditKey, Binding, Channel, ChannelId, Event, HeadEntry, Holding, HoldingKey, Lease,
    LeaseToken, Millis, Notice, Request, RequestId, Timestamp,
};
use jit::store::outbox::{NoticeChange, NoticeClaim, PendingNotice, forgotten, notice_changes};
use jit::store::{
    Answered, ClaimedNotice, Commit, Freshness, Guard, Nonce, NoticePlace, StoreError, Write,
};

#[derive(Default)]
pub struct Tables {
    pub(super) requests: BTreeMap<RequestId, Request>,
    pub(super) holdings: BTreeMap<HoldingKey, Holding>,
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    pub(super) bindings: BTreeMap<AccountId, Binding>,
    pub(super) events: BTreeMap<AuditKey, BTreeMap<u64, Event>>,
    /// How many statuses were written over an end from outside.
    pub(super) written_over: BTreeMap<RequestId, usize>,
    /// The document of each request to which a status was written, and the revision of that write.
    pub(super) documents: BTreeMap<RequestId, (u64, Request)>,
    pub(super) head_log: Vec<HeadEntry>,
    pub(super) head_entries_read: usize,
    pub(super) notices: BTreeMap<NoticePlace, OutboxEntry>,
    pub(super) nonces: BTreeMap<String, Timestamp>,
    pub(super) leases: BTreeMap<String, Lease>,
    pub(super) answers: BTreeMap<String, Answered>,
    /// How many parked notices of a request are only counted.
    pub(super) forgotten: BTreeMap<RequestId, u64>,
    pub(super) commits: u64,
    pub(super) changes: Changes,
    pub(super) panics_at_end_pauses: bool,
}

/// The changes since a test last took them.
#[derive(Default)]
pub struct Changes {
    pub requests: BTreeSet<RequestId>,
    pub holdings: BTreeSet<HoldingKey>,
}

/// Undoes one part of a commit of which another part is refused.
#[expect(
    clippy::large_enum_variant,
    reason = "a few of them live for as long as one commit takes"
)]
enum Undo {
    Request(RequestId, Option<Request>),
    Holding(HoldingKey, Option<Holding>),
    Channel(ChannelId, Option<Channel>),
    Binding(AccountId, Option<Binding>),
    Event(AuditKey, u64, Option<Event>),
    Notice(NoticePlace, Option<OutboxEntry>),
    /// The number of parked notices that are only counted.
    Forgotten(RequestId, Option<u64>),
    Nonce(String, Option<Timestamp>),
    Answer(String, Option<Answered>),
}

#[derive(Clone)]
pub(super) struct OutboxEntry {
    pub(super) notice: Notice,
    pub(super) attempts: u32,
    pub(super) next_at: Timestamp,
    pub(super) lease: Option<(LeaseToken, Timestamp)>,
    pub(super) parked: bool,
}

impl OutboxEntry {
    fn new(notice: Notice) -> Self {
        Self {
            next_at: notice.created_at,
            notice,
            attempts: 0,
            lease: None,
            parked: false,
        }
    }
}

impl Tables {
    pub fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.get(&id)
    }

    pub fn written_over(&self, id: RequestId) -> usize {
        self.written_over.get(&id).copied().unwrap_or_default()
    }

    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.values()
    }

    pub fn holding(&self, key: &HoldingKey) -> Option<&Holding> {
        self.holdings.get(key)
    }

    pub fn binding(&self, account: &AccountId) -> Option<&Binding> {
        self.bindings.get(account)
    }

    /// The events of one history, from this number on.
    pub fn events_from(&self, key: &AuditKey, seq: u64) -> impl Iterator<Item = &Event> {
        let events = self.events.get(key);
        events
            .into_iter()
            .flat_map(move |events| events.range(seq..).map(|(_, event)| event))
    }

    pub(super) fn history(&self, key: &AuditKey) -> Vec<Event> {
        self.events_from(key, 0).cloned().collect()
    }

    pub(super) fn spend(&mut self, nonce: &Nonce) -> Freshness {
        let spent = self.nonces.get(&nonce.text);
        if spent.is_some_and(|until| *until >= nonce.at) {
            return Freshness::Spent;
        }
        self.nonces.insert(nonce.text.clone(), nonce.keep_until);
        Freshness::Fresh
    }

    /// All or nothing: a refused part undoes the parts that were written.
    pub(super) fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let mut undo = Vec::new();
        let written = self.write(commit, &mut undo);
        if written.is_err() {
            while let Some(last) = undo.pop() {
                self.take_back(last);
            }
            return written;
        }
        self.commits += 1;
        for done in undo {
            match done {
                Undo::Request(id, _) => drop(self.changes.requests.insert(id)),
                Undo::Holding(key, _) => drop(self.changes.holdings.insert(key)),
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&mut self, commit: Commit, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        if let Some(nonce) = &commit.nonce {
            let before = self.nonces.get(&nonce.text).copied();
            if self.spend(nonce) == Freshness::Spent {
                return Err(StoreError::Replayed);
            }
            undo.push(Undo::Nonce(nonce.text.clone(), before));
        }
        for write in commit.writes {
            match write {
                Write::Request(request) => self.put_request(request, undo)?,
                Write::Holding(holding) => self.put_holding(holding, undo)?,
                Write::Channel(channel) => self.put_channel(channel, undo)?,
                Write::Binding(binding) => self.put_binding(binding, undo)?,
                Write::Unbind(binding) => self.unbind(&binding, undo)?,
                Write::Guard(guard) => self.check(&guard)?,
                Write::Event(event) => self.add_event(event, undo)?,
                Write::Notice(notice) => self.add_notice(notice, undo)?,
                Write::Park(place) => self.park(place, undo)?,
                Write::Answer(answered) => self.answer(answered, undo)?,
            }
        }
        Ok(())
    }

    fn put_request(&mut self, request: Request, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let before = self.requests.get(&request.id);
        in_order(
            before.map_or(0, |before| before.version.revision),
            request.version.revision,
        )
        .map_err(|_| StoreError::Conflict(before.cloned().map(Box::new)))?;
        let id = request.id;
        undo.push(Undo::Request(id, self.requests.insert(id, request)));
        Ok(())
    }

    fn put_holding(&mut self, holding: Holding, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let before = self.holdings.get(&holding.key);
        in_order(before.map_or(0, |before| before.revision), holding.revision)?;
        let key = holding.key.clone();
        let before = self.holdings.insert(key.clone(), holding);
        undo.push(Undo::Holding(key, before));
        Ok(())
    }

    fn put_channel(&mut self, channel: Channel, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let before = self.channels.get(&channel.id);
        in_order(before.map_or(0, |before| before.revision), channel.revision)?;
        let id = channel.id.clone();
        let before = self.channels.insert(id.clone(), channel);
        undo.push(Undo::Channel(id, before));
        Ok(())
    }

    fn put_binding(&mut self, binding: Binding, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let before = self.bindings.get(&binding.account_id);
        in_order(before.map_or(0, |before| before.revision), binding.revision)?;
        let account = binding.account_id.clone();
        let before = self.bindings.insert(account.clone(), binding);
        undo.push(Undo::Binding(account, before));
        Ok(())
    }

    fn unbind(&mut self, unbound: &Binding, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let account = unbound.account_id.clone();
        let Some(before) = self.bindings.remove(&account) else {
            return Err(StoreError::Conflict(None));
        };
        let revision = before.revision;
        undo.push(Undo::Binding(account, Some(before)));
        in_order(revision, unbound.revision + 1)
    }

    fn check(&self, guard: &Guard) -> Result<(), StoreError> {
        match guard.holds(self.bindings.get(&guard.account_id)) {
            true => Ok(()),
            false => Err(StoreError::Conflict(None)),
        }
    }

    fn add_event(&mut self, event: Event, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let (key, seq) = (event.request_id.clone(), event.seq);
        let history = self.events.entry(key.clone()).or_default();
        let before = history.insert(seq, event);
        let is_taken = before.is_some();
        undo.push(Undo::Event(key, seq, before));
        match is_taken {
            true => Err(StoreError::Conflict(None)),
            false => Ok(()),
        }
    }

    fn add_notice(&mut self, notice: Notice, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let place = NoticePlace {
            request_id: notice.request_id,
            seq: notice.seq,
        };
        let before = self.notices.insert(place, OutboxEntry::new(notice));
        let is_taken = before.is_some();
        undo.push(Undo::Notice(place, before));
        if is_taken {
            return Err(StoreError::Conflict(None));
        }
        self.make_room(place.request_id, undo);
        Ok(())
    }

    fn park(&mut self, place: NoticePlace, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let Some(entry) = self.notices.get_mut(&place).filter(|one| !one.parked) else {
            return Err(StoreError::Conflict(None));
        };
        undo.push(Undo::Notice(place, Some(entry.clone())));
        (entry.parked, entry.lease) = (true, None);
        self.forget_parked(place.request_id, undo);
        Ok(())
    }

    fn answer(&mut self, answered: Answered, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let earlier = self.answers.get(&answered.key);
        if earlier.is_some_and(|earlier| answered.at - earlier.at <= Millis::DAY) {
            return Err(StoreError::Conflict(None));
        }
        let key = answered.key.clone();
        let before = self.answers.insert(key.clone(), answered);
        undo.push(Undo::Answer(key, before));
        Ok(())
    }

    pub(super) fn places(&self, id: RequestId, parked: bool) -> Vec<NoticePlace> {
        let of = |seq| NoticePlace {
            request_id: id,
            seq,
        };
        let all = self.notices.range(of(0)..=of(u64::MAX));
        let those = all.filter(|(_, entry)| entry.parked == parked);
        those.map(|(place, _)| *place).collect()
    }

    fn make_room(&mut self, id: RequestId, undo: &mut Vec<Undo>) {
        let places = self.places(id, false);
        let waiting = places.iter().map(|place| PendingNotice {
            audience: Some(self.notices[place].notice.audience),
            claim: match self.notices[place].lease {
                Some(_) => NoticeClaim::Claimed,
                None => NoticeClaim::Free,
            },
        });
        let changes = notice_changes(&waiting.collect::<Vec<_>>());
        for (place, change) in places.iter().zip(changes) {
            let before = self.notices[place].clone();
            match change {
                NoticeChange::Stays => continue,
                NoticeChange::Merged => drop(self.notices.remove(place)),
                NoticeChange::Parked => self.notices.get_mut(place).unwrap().parked = true,
            }
            undo.push(Undo::Notice(*place, Some(before)));
        }
        self.forget_parked(id, undo);
    }

    fn forget_parked(&mut self, id: RequestId, undo: &mut Vec<Undo>) {
        let parked = self.places(id, true);
        for place in &parked[..forgotten(parked.len())] {
            undo.push(Undo::Notice(*place, self.notices.remove(place)));
            let before = self.forgotten.get(&id).copied();
            undo.push(Undo::Forgotten(id, before));
            self.forgotten.insert(id, before.unwrap_or(0) + 1);
        }
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Request(id, before) => put_back(&mut self.requests, id, before),
            Undo::Holding(key, before) => put_back(&mut self.holdings, key, before),
            Undo::Channel(id, before) => put_back(&mut self.channels, id, before),
            Undo::Binding(account, before) => put_back(&mut self.bindings, account, before),
            Undo::Event(key, seq, before) => {
                put_back(self.events.entry(key).or_default(), seq, before);
            }
            Undo::Notice(place, before) => put_back(&mut self.notices, place, before),
            Undo::Forgotten(id, before) => put_back(&mut self.forgotten, id, before),
            Undo::Nonce(text, before) => put_back(&mut self.nonces, text, before),
            Undo::Answer(key, before) => put_back(&mut self.answers, key, before),
        }
    }

    pub(super) fn next_notice(&self) -> Option<Timestamp> {
        let first = self.first_in_line();
        first.iter().map(|place| self.claimable_at(place)).min()
    }

    /// When the pending notices of this request can be claimed: when any of them is due.
    pub(super) fn claimable_at(&self, first: &NoticePlace) -> Timestamp {
        let pending = self.places(first.request_id, false);
        let due = pending.iter().map(|place| self.notices[place].next_at);
        let lease = self.notices[first].lease.map(|(_, until)| until);
        due.min().into_iter().chain(lease).max().unwrap()
    }

    /// Keeps which receivers have a notice.
    pub(super) fn keep_receivers(&mut self, notice: Notice) -> Option<&mut OutboxEntry> {
        let (request_id, seq) = (notice.request_id, notice.seq);
        let entry = self.notices.get_mut(&NoticePlace { request_id, seq });
        let entry = entry.filter(|entry| !entry.parked)?;
        entry.notice = notice;
        Some(entry)
    }

    /// Claims the pending notices of this request.
    pub(super) fn claim(
        &mut self,
        first: &NoticePlace,
        lease: (LeaseToken, Timestamp),
    ) -> ClaimedNotice {
        let forgotten = self.forgotten.get(&first.request_id).copied();
        let kept = self.places(first.request_id, true).len() as u64;
        let parked = kept + forgotten.unwrap_or(0);
        let entry = self.notices.get_mut(first).unwrap();
        entry.lease = Some(lease);
        ClaimedNotice {
            notice: entry.notice.clone(),
            attempts: entry.attempts,
            parked,
        }
    }

    /// The size of all notices of a request, with the parked ones.
    pub fn outbox_bytes(&self, id: RequestId) -> usize {
        let place = |seq| NoticePlace {
            request_id: id,
            seq,
        };
        let all = self.notices.range(place(0)..=place(u64::MAX));
        all.map(|(_, entry)| serde_json::to_vec(&entry.notice).unwrap().len())
            .sum()
    }

    /// Whether a delivery has claimed a notice for longer than until then.
    pub fn is_delivering(&self, then: Timestamp) -> bool {
        let mut leases = self.notices.values().filter_map(|entry| entry.lease);
        leases.any(|(_, until)| until > then)
    }

    /// The notices that wait for delivery.
    pub fn pending_notices(&self) -> impl Iterator<Item = &Notice> {
        let pending = self.notices.values().filter(|entry| !entry.parked);
        pending.map(|entry| &entry.notice)
    }

    /// The oldest pending notice of this request.
    pub(super) fn first_of(&mut self, id: RequestId) -> Option<&mut OutboxEntry> {
        let place = |seq| NoticePlace {
            request_id: id,
            seq,
        };
        let all = self.notices.range_mut(place(0)..=place(u64::MAX));
        all.map(|(_, entry)| entry).find(|entry| !entry.parked)
    }

    /// The oldest pending notice of each request.
    pub(super) fn first_in_line(&self) -> Vec<NoticePlace> {
        let mut first: BTreeMap<RequestId, NoticePlace> = BTreeMap::new();
        for (place, entry) in &self.notices {
            if !entry.parked {
                first.entry(place.request_id).or_insert(*place);
            }
        }
        first.into_values().collect()
    }
}

fn put_back<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, before: Option<V>) {
    match before {
        Some(before) => drop(table.insert(key, before)),
        None => drop(table.remove(&key)),
    }
}

fn in_order(stored: u64, written: u64) -> Result<(), StoreError> {
    if stored + 1 == written {
        Ok(())
    } else {
        Err(StoreError::Conflict(None))
    }
}
