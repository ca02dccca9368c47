//! The head log: where each history ended, in entries that are chained themselves.
//!
//! A history is chained, but a store without the whole history has no trace of it. The head log
//! is one chain for all histories: an entry has the ends of the histories that got events since
//! the entry before. A history that is in the log and not in the store was deleted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Event, Hash, Timestamp};

/// The end of one history, as an entry of the head log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEnd {
    /// The number of its last event.
    pub version: u64,
    /// The hash of that event.
    pub head: Hash,
}

/// One entry of the head log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadEntry {
    /// The number of the entry; the first is 1.
    pub number: u64,
    /// When the entry was written, by the clock of its process.
    pub at: Timestamp,
    /// The histories that got events, by the text of their audit keys.
    pub ends: BTreeMap<String, HistoryEnd>,
    /// Whether the entries up to this one have every history that the store had before it. A
    /// store from before the head log gets its histories in several entries.
    pub is_whole: bool,
    /// The hash of the entry before it.
    pub prev_hash: Hash,
    /// The SHA-256 of this entry without this field and the seal.
    #[serde(default)]
    pub hash: Hash,
    /// The MAC of `hash` under `audit.seal_key`; absent if jit had no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
}

impl HistoryEnd {
    pub fn of(event: &Event) -> Self {
        Self {
            version: event.seq,
            head: event.hash,
        }
    }
}

impl HeadEntry {
    /// The largest number of histories in one entry, so that an entry fits into an item of
    /// DynamoDB.
    pub const MOST_ENDS: usize = 1_000;

    /// The entry after `last`, without a seal.
    pub fn after(
        last: Option<&Self>,
        ends: BTreeMap<String, HistoryEnd>,
        is_whole: bool,
        now: Timestamp,
    ) -> Self {
        let mut entry = Self {
            number: last.map_or(0, |last| last.number) + 1,
            at: now,
            ends,
            is_whole: is_whole || last.is_some_and(|last| last.is_whole),
            prev_hash: last.map_or_else(Hash::default, |last| last.hash),
            hash: Hash::default(),
            seal: None,
        };
        entry.hash = entry.compute_hash();
        entry
    }

    /// The text that the seal covers.
    pub fn sealed_text(&self) -> String {
        format!("jit head log\n{}\n{}", self.number, self.hash)
    }

    /// Why this entry cannot follow `last`; none if it does.
    pub fn defect_after(&self, last: Option<&Self>) -> Option<String> {
        let number = last.map_or(0, |last| last.number) + 1;
        if self.number != number {
            let found = self.number;
            return Some(format!(
                "entry {number} is missing (the next one is {found})"
            ));
        }
        if self.prev_hash != last.map_or_else(Hash::default, |last| last.hash) {
            return Some(format!(
                "entry {number} does not follow the entry before it"
            ));
        }
        (self.hash != self.compute_hash())
            .then(|| format!("entry {number} was changed after it was written"))
    }

    /// The hash of the entry without its own hash and its seal.
    fn compute_hash(&self) -> Hash {
        if self.hash != Hash::default() || self.seal.is_some() {
            let bare = Self {
                hash: Hash::default(),
                seal: None,
                ..self.clone()
            };
            return bare.compute_hash();
        }
        // An entry has only strings, numbers and maps, so it can always be serialised.
        Hash::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<HeadEntry> {
        let mut entries: Vec<HeadEntry> = Vec::new();
        for number in 1..4 {
            let end = HistoryEnd {
                version: number,
                head: Hash::of(&[1]),
            };
            let ends = BTreeMap::from([("config#ch1".to_owned(), end)]);
            let now = Timestamp::from_seconds(10);
            entries.push(HeadEntry::after(entries.last(), ends, true, now));
        }
        entries
    }

    fn defects(entries: &[HeadEntry]) -> usize {
        let mut last = None;
        let mut found = 0;
        for entry in entries {
            found += usize::from(entry.defect_after(last).is_some());
            last = Some(entry);
        }
        found
    }

    // C
    #[test]
    fn an_entry_that_was_changed_or_removed_is_found() {
        assert_eq!(defects(&log()), 0);
        let mut removed = log();
        removed.remove(1);
        assert!(defects(&removed) > 0);
        let mut changed = log();
        changed[1].ends.clear();
        assert!(defects(&changed) > 0);
        // Only the number shows that an entry is missing, if the next one was made to fit.
        let mut renumbered = log();
        renumbered[2].number = 4;
        renumbered[2].hash = renumbered[2].compute_hash();
        assert!(defects(&renumbered) > 0);
        let mut rehashed = log();
        rehashed[1].ends.clear();
        rehashed[1].hash = rehashed[1].compute_hash();
        assert!(defects(&rehashed) > 0);
    }
}
