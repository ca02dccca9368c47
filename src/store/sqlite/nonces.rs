//! Spent nonces. One process owns the file, so its memory decides whether a nonce is fresh; a
//! log beside the file restores this memory after a restart.
//!
//! jit writes a nonce to the log before it answers the call, so no crash of the process loses
//! one; calls that are in progress together write their nonces together. Every commit waits until
//! the log is on the disk, so a power failure loses no nonce of a call that changed something.
//! After it, only a call that reads could be replayed.
//! `ownership` detects that the logs are missing or belong to another database.

mod log;
pub(super) mod ownership;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sha2::{Digest, Sha256};

use crate::domain::Timestamp;
use crate::store::{Nonce, StoreError};
use log::{NonceLog, NonceRecord, read, record};

pub(super) struct Nonces {
    spent: Mutex<Spent>,
}

struct Spent {
    /// The expiry of each nonce, by the first half of the nonce's hash.
    keep_until: KnownNonces,
    /// The claimed nonces that are not in a log yet.
    unwritten: Option<Unwritten>,
    /// New nonces go to `growing`. `older` has older nonces; it is emptied when all of them
    /// have expired, and the two then change places.
    growing: NonceLog,
    older: NonceLog,
}

/// The keys are hashes already, so a quick hash of them is enough.
type KnownNonces = HashMap<u128, i64, foldhash::fast::RandomState>;

/// Records that one write brings into the growing log.
struct Unwritten {
    /// The offset of the first record; the others follow it.
    offset: u64,
    records: Vec<NonceRecord>,
    outcome: Arc<Outcome>,
}

/// The result of a write, when it has ended.
type Outcome = OnceLock<Result<(), StoreError>>;

/// A nonce that is spent in memory. Its call must not be answered, and no change of it committed,
/// before `Nonces::write` has written it.
#[derive(Clone)]
pub(super) struct ClaimedNonce {
    short: u128,
    outcome: Arc<Outcome>,
}

/// The ends of the names of the two logs.
pub(super) const NONCE_LOGS: [&str; 2] = ["nonces-a", "nonces-b"];

impl Nonces {
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        let mut keep_until = KnownNonces::default();
        let mut open = |name: &str| {
            let path = store.with_added_extension(name);
            NonceLog::open(&path, &mut keep_until).map_err(|why| failed(&why))
        };
        let [a, b] = NONCE_LOGS;
        let (growing, older) = (open(a)?, open(b)?);
        let spent = Mutex::new(Spent {
            keep_until,
            unwritten: None,
            growing,
            older,
        });
        Ok(Self { spent })
    }

    /// Spends a nonce in memory. Returns `None` if it was spent before.
    pub fn claim(&self, nonce: &Nonce) -> Result<Option<ClaimedNonce>, StoreError> {
        let (short, until) = (shortened(&nonce.text), nonce.keep_until.millis());
        let claimed = self.spent().claim(short, nonce.at.millis(), until);
        claimed.map_err(|why| failed(&why))
    }

    /// Writes this nonce, and all others that are claimed, to the log. Returns when this nonce is
    /// there.
    pub fn write(&self, claimed: &ClaimedNonce) -> Result<(), StoreError> {
        if let Some(written) = claimed.outcome.get() {
            return written.clone();
        }
        let written = self.spent().write();
        // Another call may have written this nonce in the meantime.
        claimed.outcome.get().cloned().unwrap_or(written)
    }

    /// Makes a nonce fresh again after its commit failed. The log may contain it, so after a restart
    /// it counts as spent.
    pub fn give_back(&self, claimed: &ClaimedNonce) {
        let mut spent = self.spent();
        // A failed write has made it fresh already, and the same call may have claimed it again.
        if !matches!(claimed.outcome.get(), Some(Err(_))) {
            spent.keep_until.remove(&claimed.short);
        }
    }

    /// Returns when all nonces that are in the logs are on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        let files = {
            let spent = self.spent();
            [spent.growing.file.clone(), spent.older.file.clone()]
        };
        for file in files {
            file.sync().map_err(|why| failed(&why))?;
        }
        Ok(())
    }

    pub fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut spent = self.spent();
        spent.write()?;
        let now = now.millis();
        spent.keep_until.retain(|_, until| *until >= now);
        spent.keep_until.shrink_to_fit();
        let over = |log: &NonceLog| log.last.is_none_or(|last| last < now);
        if spent.growing.last.is_some() && over(&spent.older) {
            let Spent { growing, older, .. } = &mut *spent;
            older.empty().map_err(|why| failed(&why))?;
            std::mem::swap(growing, older);
        }
        Ok(())
    }

    /// Reports whether both logs were there when jit opened them.
    fn were_there(&self) -> bool {
        let spent = self.spent();
        spent.growing.was_there && spent.older.was_there
    }

    /// Reports whether both logs have the mark of this database, and only jit has changed them.
    fn are_continued(&self, database: &str) -> Result<bool, StoreError> {
        let spent = self.spent();
        for log in [&spent.growing, &spent.older] {
            let own = log.file.mark_for(database).map_err(|why| failed(&why))?;
            if log.mark != Some(own) || !log.is_untouched {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Marks both logs as those of this database. The marks are then on the disk.
    fn mark(&self, database: &str) -> Result<(), StoreError> {
        let mut spent = self.spent();
        spent.write()?;
        let Spent { growing, older, .. } = &mut *spent;
        for log in [growing, older] {
            log.set_mark(database).map_err(|why| failed(&why))?;
        }
        Ok(())
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spent {
    /// Spends a fresh nonce, and adds it to the unwritten ones.
    fn claim(&mut self, short: u128, now: i64, until: i64) -> io::Result<Option<ClaimedNonce>> {
        if self.keep_until.get(&short).is_some_and(|kept| *kept >= now) {
            return Ok(None);
        }
        let offset = self.growing.offset_for(until)?;
        let unwritten = self.unwritten.get_or_insert_with(|| Unwritten {
            offset,
            records: Vec::new(),
            outcome: Arc::default(),
        });
        unwritten.records.push(record(short, until));
        self.keep_until.insert(short, until);
        let outcome = unwritten.outcome.clone();
        Ok(Some(ClaimedNonce { short, outcome }))
    }

    /// Writes the unwritten nonces to the growing log. If that fails, they are fresh again.
    fn write(&mut self) -> Result<(), StoreError> {
        let Some(unwritten) = self.unwritten.take() else {
            return Ok(());
        };
        let Unwritten {
            offset,
            records,
            outcome,
        } = unwritten;
        let written = self.growing.write(offset, &records);
        let written = written.map_err(|why| failed(&why));
        if written.is_err() {
            for (short, _) in records.iter().filter_map(|record| read(record)) {
                self.keep_until.remove(&short);
            }
        }
        outcome.get_or_init(|| written).clone()
    }
}

fn shortened(nonce: &str) -> u128 {
    let hash: [u8; 32] = Sha256::digest(nonce).into();
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(short)
}

fn failed(why: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("the log of spent nonces: {why}"))
}

#[cfg(test)]
mod tests;
