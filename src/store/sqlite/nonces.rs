//! Spent nonces. One process owns the file, so its memory decides whether a nonce is fresh; a
//! log beside the file restores this memory after a restart.
//!
//! jit writes a nonce to the log before it answers the call, so no crash of the process loses
//! one. Every commit waits until the log is on the disk, so a power failure loses no nonce of a
//! call that changed something. After it, only a call that reads could be replayed.
//! `ownership` detects that the logs are missing or belong to another database.

pub(super) mod ownership;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::domain::Timestamp;
use crate::files;
use crate::store::{Freshness, Nonce, StoreError};

pub(super) struct Nonces {
    spent: Mutex<Spent>,
}

struct Spent {
    /// The expiry of each nonce, by the first half of the nonce's hash.
    keep_until: KnownNonces,
    /// New nonces go to `growing`. `older` has older nonces; it is emptied when all of them
    /// have expired, and the two then change places.
    growing: LogFile,
    older: LogFile,
}

/// The keys are hashes already, so a quick hash of them is enough.
type KnownNonces = HashMap<u128, i64, foldhash::fast::RandomState>;

struct LogFile {
    log: Arc<NonceLog>,
    /// The offset of the next record, and the length of the file.
    next: u64,
    length: u64,
    /// The latest expiry of the nonces in this log.
    last: Option<i64>,
    /// The mark of the database to which the log belongs; a log of an earlier jit has none.
    mark: Option<u128>,
    /// Whether the file was there when jit opened it.
    was_there: bool,
    /// Whether jit was the last to change the file before it opened it.
    is_untouched: bool,
}

/// A log with a slot of fixed size for each nonce, so that a torn record damages no other.
struct NonceLog {
    file: File,
    /// Whether the log may contain records that are not synced to the disk.
    loose: AtomicBool,
    /// The offset of the stamp, or `NO_STAMP`.
    stamp: AtomicU64,
    opened: Instant,
    /// When the stamp was written, in milliseconds since `opened`, or `NEVER`.
    stamped_at: AtomicU64,
}

/// The slot of one nonce in a log.
struct NonceSlot {
    log: Arc<NonceLog>,
    offset: u64,
}

/// The size of a record: half of the nonce's hash, and its expiry.
const RECORD: usize = 16 + 8;
/// What the file grows by. Zeros that are written, unlike a larger length alone, have their blocks on
/// the disk already, so a sync after a nonce need not write where the blocks are.
static ROOM: [u8; 4096 * RECORD] = [0; 4096 * RECORD];
/// The expiry in the record of a mark. An earlier jit reads it as a nonce that has expired.
const OF_MARK: i64 = i64::MIN;
/// The expiry in the record of a stamp, which an earlier jit reads in the same way.
const OF_STAMP: i64 = i64::MIN + 1;
const NO_STAMP: u64 = u64::MAX;
/// The largest difference, in nanoseconds, between the stamp and the last change of a file that only
/// jit changed: jit writes the stamp after a change, and this changes the file once more.
const STAMP_PATIENCE: u128 = 100_000_000;
/// A nonce that follows the stamp so soon, in milliseconds, needs no new one: the patience
/// includes it. Two more calls of the kernel for each nonce would make reads slower.
const STAMP_COVERS: u64 = 25;
const NEVER: u64 = u64::MAX;
/// The number of attempts to write a stamp in time.
const STAMP_TRIES: usize = 3;

/// The ends of the names of the two logs.
pub(super) const NONCE_LOGS: [&str; 2] = ["nonces-a", "nonces-b"];

impl Nonces {
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        let mut keep_until = KnownNonces::default();
        let mut open = |name: &str| {
            let path = store.with_added_extension(name);
            LogFile::open(&path, &mut keep_until).map_err(|why| failed(&why))
        };
        let [a, b] = NONCE_LOGS;
        let (growing, older) = (open(a)?, open(b)?);
        let spent = Mutex::new(Spent {
            keep_until,
            growing,
            older,
        });
        Ok(Self { spent })
    }

    pub fn spend(&self, nonce: &Nonce) -> Result<Freshness, StoreError> {
        let (short, until) = (shortened(&nonce.text), nonce.keep_until.millis());
        let claimed = self.spent().claim(short, nonce.at.millis(), until);
        let Some(place) = claimed.map_err(|why| failed(&why))? else {
            return Ok(Freshness::Spent);
        };
        if let Err(why) = place.write(short, until) {
            self.spent().keep_until.remove(&short);
            return Err(failed(&why));
        }
        Ok(Freshness::Fresh)
    }

    /// Makes a nonce fresh again after its commit failed. The log still contains it, so after a
    /// restart it counts as spent.
    pub fn give_back(&self, nonce: &Nonce) {
        self.spent().keep_until.remove(&shortened(&nonce.text));
    }

    /// Returns when all nonces that were spent so far are on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        let logs = {
            let spent = self.spent();
            [spent.growing.log.clone(), spent.older.log.clone()]
        };
        for log in logs {
            log.sync().map_err(|why| failed(&why))?;
        }
        Ok(())
    }

    pub fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut spent = self.spent();
        let now = now.millis();
        spent.keep_until.retain(|_, until| *until >= now);
        spent.keep_until.shrink_to_fit();
        let over = |log_file: &LogFile| log_file.last.is_none_or(|last| last < now);
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
        for log_file in [&spent.growing, &spent.older] {
            let own = log_file
                .log
                .mark_for(database)
                .map_err(|why| failed(&why))?;
            if log_file.mark != Some(own) || !log_file.is_untouched {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Marks both logs as those of this database. The marks are then on the disk.
    fn mark(&self, database: &str) -> Result<(), StoreError> {
        let mut spent = self.spent();
        let Spent { growing, older, .. } = &mut *spent;
        for log_file in [growing, older] {
            log_file.set_mark(database).map_err(|why| failed(&why))?;
        }
        Ok(())
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spent {
    /// Marks a fresh nonce as spent, and returns the slot to which it must be written.
    fn claim(&mut self, short: u128, now: i64, until: i64) -> io::Result<Option<NonceSlot>> {
        if self.keep_until.get(&short).is_some_and(|kept| *kept >= now) {
            return Ok(None);
        }
        let place = self.growing.place(until)?;
        self.keep_until.insert(short, until);
        Ok(Some(place))
    }
}

impl LogFile {
    fn open(path: &Path, keep_until: &mut KnownNonces) -> io::Result<Self> {
        let was_there = path.exists();
        let file = files::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        let bytes = std::fs::read(path)?;
        let (mut last, mut next, mut mark) = (None, 0, None);
        let mut stamp: Option<(u128, u64)> = None;
        for (place, record) in bytes.chunks_exact(RECORD).enumerate() {
            // An unused slot contains only zeros.
            if let Some((short, until)) = read(record).filter(|(_, until)| *until != 0) {
                next = ((place + 1) * RECORD) as u64;
                if until == OF_MARK {
                    mark = Some(short);
                    continue;
                }
                if until == OF_STAMP {
                    stamp = stamp.max(Some((short, (place * RECORD) as u64)));
                    continue;
                }
                let known = keep_until.entry(short).or_insert(until);
                *known = until.max(*known);
                last = last.max(Some(until));
            }
        }
        let mut log = NonceLog::new(file);
        log.loose = AtomicBool::new(true);
        if let Some((_, offset)) = stamp {
            log.stamp = AtomicU64::new(offset);
        }
        let changed_at = log.changed_at()?;
        let is_untouched = stamp.is_some_and(|(at, _)| changed_at <= at + STAMP_PATIENCE);
        Ok(Self {
            log: Arc::new(log),
            next,
            length: bytes.len() as u64,
            last,
            mark,
            was_there,
            is_untouched,
        })
    }

    fn place(&mut self, until: i64) -> io::Result<NonceSlot> {
        let slot = self.next_slot()?;
        self.last = self.last.max(Some(until));
        Ok(slot)
    }

    fn next_slot(&mut self) -> io::Result<NonceSlot> {
        let (offset, next) = (self.next, self.next + RECORD as u64);
        if next > self.length {
            self.log.file.write_all_at(&ROOM, self.length)?;
            self.length += ROOM.len() as u64;
        }
        self.next = next;
        let log = self.log.clone();
        Ok(NonceSlot { log, offset })
    }

    fn set_mark(&mut self, database: &str) -> io::Result<()> {
        let mark = self.log.mark_for(database)?;
        self.next_slot()?.write(mark, OF_MARK)?;
        if self.log.stamp.load(Ordering::Acquire) == NO_STAMP {
            let offset = self.next_slot()?.offset;
            self.log.stamp.store(offset, Ordering::Release);
        }
        self.log.write_stamp()?;
        self.log.sync()?;
        self.mark = Some(mark);
        Ok(())
    }

    /// Removes all records except the mark and the stamp.
    fn empty(&mut self) -> io::Result<()> {
        let mut length = 0;
        if let Some(mark) = self.mark {
            let (log, offset) = (self.log.clone(), RECORD as u64);
            // First these two, then the new length: the log has both at every moment.
            log.stamp.store(offset, Ordering::Release);
            NonceSlot { log, offset: 0 }.write(mark, OF_MARK)?;
            length = offset + RECORD as u64;
        }
        self.log.file.set_len(length)?;
        self.log.write_stamp()?;
        (self.next, self.length, self.last) = (length, length, None);
        Ok(())
    }
}

impl NonceSlot {
    fn write(&self, short: u128, until: i64) -> io::Result<()> {
        let written = self.log.write(self.offset, short, until);
        let stamped = self.log.renew_stamp();
        // Only after the writes: a sync that starts now includes them.
        self.log.loose.store(true, Ordering::Release);
        written.and(stamped)
    }
}

impl NonceLog {
    fn new(file: File) -> Self {
        Self {
            file,
            loose: AtomicBool::new(false),
            stamp: AtomicU64::new(NO_STAMP),
            opened: Instant::now(),
            stamped_at: AtomicU64::new(NEVER),
        }
    }

    /// The inode number differs in a copy of the file, which may lack the nonces of later calls.
    fn mark_for(&self, database: &str) -> io::Result<u128> {
        let inode = self.file.metadata()?.ino();
        Ok(shortened(&format!("{database} {inode}")))
    }

    fn write(&self, offset: u64, short: u128, until: i64) -> io::Result<()> {
        let mut record = [0; RECORD];
        record[..16].copy_from_slice(&short.to_be_bytes());
        record[16..].copy_from_slice(&until.to_be_bytes());
        self.file.write_all_at(&record, offset)
    }

    /// Writes the stamp anew if the one in the file does not cover the writes up to now.
    fn renew_stamp(&self) -> io::Result<()> {
        let stamped_at = self.stamped_at.load(Ordering::Acquire);
        // The file was changed before this moment.
        if stamped_at != NEVER && self.uptime() < stamped_at + STAMP_COVERS {
            return Ok(());
        }
        self.write_stamp()
    }

    /// Writes when the file was last changed into the file itself. Only the kernel sets that time,
    /// so a file that was written by another program, or copied, has a later one. The clock of the
    /// process takes no part: it may be wrong.
    fn write_stamp(&self) -> io::Result<()> {
        let offset = self.stamp.load(Ordering::Acquire);
        if offset == NO_STAMP {
            return Ok(());
        }
        for _ in 0..STAMP_TRIES {
            let before = self.uptime();
            let changed_at = self.changed_at()?;
            self.write(offset, changed_at, OF_STAMP)?;
            if self.changed_at()? <= changed_at + STAMP_PATIENCE / 2 {
                self.stamped_at.store(before, Ordering::Release);
                break;
            }
        }
        Ok(())
    }

    fn uptime(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// The time of the last change of the file or of its owner, mode or links, in nanoseconds.
    fn changed_at(&self) -> io::Result<u128> {
        let metadata = self.file.metadata()?;
        let nanos =
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        Ok(u128::try_from(nanos).unwrap_or_default())
    }

    fn sync(&self) -> io::Result<()> {
        if self.loose.swap(false, Ordering::AcqRel) {
            self.file.sync_data().inspect_err(|_| {
                // The sync failed, so the next one must try again.
                self.loose.store(true, Ordering::Release);
            })?;
        }
        Ok(())
    }
}

fn read(record: &[u8]) -> Option<(u128, i64)> {
    let (short, until) = record.split_at_checked(16)?;
    Some((
        u128::from_be_bytes(short.try_into().ok()?),
        i64::from_be_bytes(until.try_into().ok()?),
    ))
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
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct TestFolder {
        dir: tempfile::TempDir,
    }

    impl TestFolder {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { dir }
        }

        fn store(&self) -> PathBuf {
            self.dir.path().join("jit.db")
        }

        fn open(&self) -> Nonces {
            Nonces::open(&self.store()).unwrap()
        }

        fn log(&self, name: &str) -> PathBuf {
            self.dir.path().join(format!("jit.db.nonces-{name}"))
        }

        fn size(&self, name: &str) -> u64 {
            std::fs::metadata(self.log(name)).unwrap().len()
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn spend(nonces: &Nonces, nonce: &str, now: i64) -> Freshness {
        let nonce = Nonce {
            text: nonce.into(),
            at: at(now),
            keep_until: at(now + 1000),
        };
        nonces.spend(&nonce).unwrap()
    }

    #[test]
    fn a_restart_remembers_a_nonce_that_was_never_synced() {
        let place = TestFolder::new();
        assert_eq!(spend(&place.open(), "a", 0), Freshness::Fresh);
        assert_eq!(spend(&place.open(), "a", 1000), Freshness::Spent);
        assert_eq!(spend(&place.open(), "a", 1001), Freshness::Fresh);
        assert_eq!(spend(&place.open(), "a", 2001), Freshness::Spent);
    }

    #[test]
    fn sync_includes_the_older_log() {
        let place = TestFolder::new();
        let nonces = place.open();
        nonces.sync().unwrap();
        spend(&nonces, "a", 0);
        // From here on the log with "a" is the older one.
        nonces.tidy(at(0)).unwrap();
        spend(&nonces, "b", 0);
        nonces.sync().unwrap();
        let spent = nonces.spent();
        for log_file in [&spent.growing, &spent.older] {
            assert!(log_file.last.is_some(), "each log contains one nonce");
            assert!(!log_file.log.loose.load(Ordering::SeqCst), "not synced");
        }
    }

    /// On a full disk jit refuses the call; the caller can repeat it when there is room.
    #[test]
    fn a_nonce_that_cannot_be_written_stays_fresh() {
        let place = TestFolder::new();
        let nonces = place.open();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let full = Arc::new(NonceLog::new(full));
        let empty = std::mem::replace(&mut nonces.spent().growing.log, full);
        nonces.spent().growing.length = ROOM.len() as u64;
        let nonce = Nonce {
            text: "a".into(),
            at: at(0),
            keep_until: at(1000),
        };
        for _ in 0..2 {
            let refused = nonces.spend(&nonce);
            assert!(
                matches!(refused, Err(StoreError::Unavailable(_))),
                "{refused:?}"
            );
        }
        nonces.spent().growing.log = empty;
        assert_eq!(nonces.spend(&nonce), Ok(Freshness::Fresh));
        drop(nonces);
        assert_eq!(spend(&place.open(), "a", 0), Freshness::Spent);
    }

    #[test]
    fn a_torn_record_damages_no_other_record() {
        let place = TestFolder::new();
        spend(&place.open(), "a", 0);
        let file = File::options().write(true).open(place.log("a")).unwrap();
        file.write_all_at(b"torn", RECORD as u64).unwrap();
        let nonces = place.open();
        assert_eq!(spend(&nonces, "b", 0), Freshness::Fresh);
        drop(nonces);
        let nonces = place.open();
        for nonce in ["a", "b"] {
            assert_eq!(spend(&nonces, nonce, 500), Freshness::Spent);
        }
    }

    // D5
    #[test]
    fn a_log_shows_whether_another_program_has_changed_it() {
        let place = TestFolder::new();
        let nonces = place.open();
        nonces.mark("database").unwrap();
        let is_continued = || place.open().are_continued("database").unwrap();
        assert!(is_continued(), "after the mark");
        spend(&nonces, "a", 0);
        assert!(is_continued(), "after a nonce");
        nonces.tidy(at(5000)).unwrap();
        spend(&nonces, "b", 5000);
        nonces.tidy(at(10_000)).unwrap();
        assert!(is_continued(), "after both logs were emptied");
        drop(nonces);
        // A copy over the file keeps its inode number. The stamp in it is as old as the copy.
        let log = place.log("a");
        let mut bytes = std::fs::read(&log).unwrap();
        let mut records = bytes.chunks_exact_mut(RECORD);
        let stamp = records.find(|one| one[16..] == OF_STAMP.to_be_bytes());
        let stamp = stamp.unwrap();
        let at = u128::from_be_bytes(stamp[..16].try_into().unwrap());
        let older = at - STAMP_PATIENCE - 1;
        stamp[..16].copy_from_slice(&older.to_be_bytes());
        std::fs::write(&log, bytes).unwrap();
        assert!(!is_continued());
    }

    // D5
    #[test]
    fn a_nonce_long_after_the_stamp_renews_it() {
        let place = TestFolder::new();
        let nonces = place.open();
        nonces.mark("database").unwrap();
        spend(&nonces, "a", 0);
        // The kernel sets the time of a change, so real time must pass.
        let patience = u64::try_from(STAMP_PATIENCE).unwrap();
        std::thread::sleep(std::time::Duration::from_nanos(2 * patience));
        spend(&nonces, "b", 0);
        drop(nonces);
        assert!(place.open().are_continued("database").unwrap());
    }

    #[test]
    fn tidy_forgets_only_expired_nonces() {
        let place = TestFolder::new();
        let nonces = place.open();
        for now in 0..10_000 {
            spend(&nonces, &now.to_string(), now * 100);
            nonces.tidy(at(now * 100)).unwrap();
        }
        // Both logs still have the length of their first growth.
        for name in ["a", "b"] {
            assert!(place.size(name) <= ROOM.len() as u64 + 2 * RECORD as u64);
        }
        drop(nonces);
        let nonces = place.open();
        let kept = |number: i32| spend(&nonces, &number.to_string(), 999_900) == Freshness::Spent;
        assert!((9989..10_000).all(kept));
        assert!(!(0..9989).any(kept));
    }
}
