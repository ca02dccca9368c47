//! Writes the head log: once a second the ends of the histories that got events.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{MOST_TRIES, PAGE, Service};
use crate::domain::{AuditKey, Hash, HeadEntry, HistoryEnd, Millis, Timestamp};
use crate::lock::locked;
use crate::signature::SealKeys;
use crate::store::{AuditFilter, Commit, StoreError, Write};

/// The store may receive an event this long after the time of the event, because the clocks of
/// replicas differ and a write may be slow.
pub(super) const HEADS_LATE: Millis = Millis::minutes(5);
/// The last entries hold the histories of the last minutes, so these are not logged twice.
const RECENT_ENTRIES: u64 = 600;

/// The largest number of noted histories. While no entry can be written, jit drops further notes,
/// and the next catch-up finds these histories.
const MOST_NOTES: usize = 20_000;

type Ends = BTreeMap<String, HistoryEnd>;

/// The knowledge of this process about the head log.
#[derive(Default)]
pub(super) struct HeadNotes {
    /// The histories that got events in commits of this process since the last entry.
    ends: Mutex<Ends>,
    /// The number and hash of the last entry that this process wrote.
    written: Mutex<Option<(u64, Hash)>>,
    /// The entries that the last catch-up read, so that the next one reads only those after them.
    recent: Mutex<RecentEnds>,
    /// This process has seen a seal at the end of the log.
    saw_seal: AtomicBool,
    /// When this process last added the events of others, by its wall clock.
    caught_up: Mutex<Option<Timestamp>>,
}

/// The ends in the last `RECENT_ENTRIES` entries up to `read`, each with the number of its entry.
#[derive(Default)]
struct RecentEnds {
    read: u64,
    ends: BTreeMap<String, (u64, HistoryEnd)>,
    /// The times of the newer half of these entries. C: one wrong clock does not decide how far
    /// back a catch-up reads.
    times: BTreeMap<u64, Timestamp>,
}

impl RecentEnds {
    fn add(&mut self, entry: HeadEntry) {
        self.read = entry.number;
        self.times.insert(entry.number, entry.at);
        for (key, end) in entry.ends {
            let known = self.ends.entry(key).or_insert((entry.number, end));
            known.0 = entry.number;
            if end.version > known.1.version {
                known.1 = end;
            }
        }
    }

    fn forget_before(&mut self, last: u64) {
        let from = last.saturating_sub(RECENT_ENTRIES);
        self.ends.retain(|_, (number, _)| *number > from);
        let newer = last.saturating_sub(RECENT_ENTRIES / 2);
        self.times.retain(|number, _| *number > newer);
    }

    fn has(&self, key: &str, end: HistoryEnd) -> bool {
        let known = self.ends.get(key);
        known.is_some_and(|(_, known)| known.version >= end.version)
    }
}

impl HeadNotes {
    fn add(&self, new: Ends) {
        let mut ends = locked(&self.ends);
        for (key, end) in new {
            add_end(&mut ends, key, end);
        }
        if ends.len() > MOST_NOTES {
            ends.clear();
        }
    }

    fn take(&self) -> Ends {
        std::mem::take(&mut *locked(&self.ends))
    }

    pub(super) fn written(&self) -> Option<(u64, Hash)> {
        *locked(&self.written)
    }

    pub(super) fn saw_seal(&self) -> bool {
        self.saw_seal.load(Ordering::SeqCst)
    }

    pub(super) fn note_seal(&self) {
        self.saw_seal.store(true, Ordering::SeqCst);
    }

    /// The log has every event from before this time. C: after a start, and after the clock was
    /// set back, the last entry may have the time of a wrong clock, so the entries before it count.
    fn logged_until(&self, recent: &RecentEnds, now: Timestamp) -> Timestamp {
        let known = locked(&self.caught_up).filter(|then| *then <= now);
        let earliest = recent.times.values().min().copied();
        known.unwrap_or_else(|| earliest.map_or(now, |earliest| earliest.min(now)))
    }
}

/// Keeps the later end of a history.
pub(super) fn add_end(ends: &mut Ends, key: String, end: HistoryEnd) {
    let known = ends.entry(key).or_insert(end);
    if end.version > known.version {
        *known = end;
    }
}

impl Service {
    /// Seals the entries of the head log with these keys.
    #[must_use]
    pub fn sealing(self, seal_keys: SealKeys) -> Self {
        Self { seal_keys, ..self }
    }

    /// Commits, and notes the histories that got events for the next entry of the head log.
    pub(super) async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        let mut ends = Ends::new();
        for write in &commit.writes {
            if let Write::Event(event) = write {
                let key = event.request_id.to_string();
                add_end(&mut ends, key, HistoryEnd::of(event));
            }
        }
        self.store.commit(commit).await?;
        self.heads.add(ends);
        Ok(())
    }

    /// Writes the first entry of the head log if the log is empty, and the first one with the seal
    /// of a key that was configured since.
    pub async fn begin_heads(&self) -> Result<(), StoreError> {
        let Some(last) = self.store.last_head_entry().await? else {
            let is_new = self.store.heads(None, 1).await?.is_empty();
            return self.append(Ends::new(), is_new).await;
        };
        let entries = last.number;
        match self.is_to_be_sealed(&last) {
            false => return Ok(()),
            true if last.seal.is_none() => tracing::warn!(
                entries,
                sealed_since = entries + 1,
                "jit seals the head log from here on; earlier entries have no seal; set \
                 audit.sealed_since to this number"
            ),
            true => tracing::info!(
                entries,
                "jit seals the head log with a new key from here on"
            ),
        }
        self.append(Ends::new(), false).await
    }

    /// Whether the last entry has no seal of the present key.
    fn is_to_be_sealed(&self, last: &HeadEntry) -> bool {
        let seal = last.seal.as_ref();
        let age = seal.and_then(|seal| self.seal_keys.age_of(&last.sealed_text(), seal));
        self.seal_keys.is_set() && age != Some(0)
    }

    /// Writes the ends that were noted since the last entry, if there are any.
    pub async fn write_heads(&self) -> Result<(), StoreError> {
        let ends = self.heads.take();
        if ends.is_empty() {
            return Ok(());
        }
        let written = self.append(ends.clone(), false).await;
        if written.is_err() {
            self.heads.add(ends);
        }
        written
    }

    /// Adds the histories that a process wrote without an entry, because it ended or has no
    /// worker: all histories of a store from before the head log, else those with recent events.
    pub async fn catch_up_heads(&self) -> Result<(), StoreError> {
        let Some(last) = self.store.last_head_entry().await? else {
            return self.begin_heads().await;
        };
        if !last.is_whole {
            return self.log_all().await;
        }
        if self.is_to_be_sealed(&last) {
            self.begin_heads().await?;
        }
        let now = self.clock.now();
        let recent = self.read_recent(last.number).await?;
        let until = self.heads.logged_until(&recent, now);
        let filter = AuditFilter {
            from: Some(until + Millis(-HEADS_LATE.0)),
            ..AuditFilter::default()
        };
        let (mut ends, mut after) = (Ends::new(), None::<String>);
        loop {
            let page = self.store.export(&filter, after.as_deref(), PAGE).await?;
            let Some(end) = page.last() else { break };
            after = Some(end.sort_key());
            for event in &page.items {
                let key = event.request_id.to_string();
                add_end(&mut ends, key, HistoryEnd::of(event));
            }
        }
        ends.retain(|key, end| !recent.has(key, *end));
        *locked(&self.heads.recent) = recent;
        if !ends.is_empty() {
            self.append(ends, false).await?;
        }
        *locked(&self.heads.caught_up) = Some(now);
        Ok(())
    }

    async fn log_all(&self) -> Result<(), StoreError> {
        let mut after: Option<AuditKey> = None;
        let mut ends = Ends::new();
        loop {
            let page = self.store.heads(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for head in page.items {
                let (version, end) = (head.chain.version, head.chain.head);
                let end = HistoryEnd { version, head: end };
                add_end(&mut ends, head.key.to_string(), end);
            }
            if ends.len() >= HeadEntry::MOST_ENDS {
                self.append(std::mem::take(&mut ends), false).await?;
            }
        }
        self.append(ends, true).await
    }

    /// Returns the ends in the last entries, up to the entry `last` at least.
    async fn read_recent(&self, last: u64) -> Result<RecentEnds, StoreError> {
        let mut recent = std::mem::take(&mut *locked(&self.heads.recent));
        let from = last.saturating_sub(RECENT_ENTRIES);
        // A log that lost entries is not the one that this process read.
        if recent.read > last {
            recent = RecentEnds::default();
        }
        recent.read = recent.read.max(from);
        loop {
            let entries = self.store.head_entries(recent.read, PAGE).await?;
            if entries.is_empty() {
                recent.forget_before(last);
                return Ok(recent);
            }
            entries.into_iter().for_each(|entry| recent.add(entry));
        }
    }

    /// Adds these ends in as many entries as they need.
    async fn append(&self, mut ends: Ends, is_whole: bool) -> Result<(), StoreError> {
        loop {
            let rest = match ends.keys().nth(HeadEntry::MOST_ENDS).cloned() {
                Some(key) => ends.split_off(&key),
                None => Ends::new(),
            };
            let is_last = rest.is_empty();
            self.append_one(ends, is_whole && is_last).await?;
            if is_last {
                return Ok(());
            }
            ends = rest;
        }
    }

    /// Other replicas add entries as well: the one that comes later follows the other.
    async fn append_one(&self, ends: Ends, is_whole: bool) -> Result<(), StoreError> {
        for tried in 0..MOST_TRIES {
            self.pause_after_races(tried).await;
            let last = self.store.last_head_entry().await?;
            self.check_last(last.as_ref())?;
            self.check_kept(last.as_ref()).await?;
            let now: Timestamp = self.clock.now();
            let mut entry = HeadEntry::after(last.as_ref(), ends.clone(), is_whole, now);
            entry.seal = self.seal_keys.seal(&entry.sealed_text());
            match self.store.add_head_entry(&entry).await {
                Err(StoreError::Conflict(_)) => {}
                added => {
                    added?;
                    let written = Some((entry.number, entry.hash));
                    *locked(&self.heads.written) = written;
                    if entry.seal.is_some() {
                        self.heads.note_seal();
                    }
                    return Ok(());
                }
            }
        }
        let why = "other processes add entries to the head log too fast";
        Err(StoreError::Unavailable(why.into()))
    }

    /// jit does not continue, and so does not seal, a log that was changed under it.
    fn check_last(&self, last: Option<&HeadEntry>) -> Result<(), StoreError> {
        let changed = |why: String| Err(changed(&why));
        let (number, hash) = last.map_or((0, Hash::default()), |last| (last.number, last.hash));
        if let Some((written, then)) = self.heads.written()
            && (number < written || number == written && hash != then)
        {
            return changed(format!("entry {written} of this process is not in it"));
        }
        let Some((last, seal)) = last.and_then(|last| Some((last, last.seal.as_ref()?))) else {
            return Ok(());
        };
        // After an entry of this process, no process adds one with an older key.
        let oldest = match self.heads.written() {
            Some(_) => 0,
            None => usize::MAX,
        };
        let age = self.seal_keys.age_of(&last.sealed_text(), seal);
        match self.seal_keys.is_set() && age.is_none_or(|age| age > oldest) {
            true => changed(format!("the seal of entry {number} is wrong")),
            false => Ok(()),
        }
    }
}

pub(super) fn changed(why: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "the head log was changed: {why}; jit adds nothing to it; run jit audit verify"
    ))
}
