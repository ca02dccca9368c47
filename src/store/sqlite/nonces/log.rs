//! One log of spent nonces: a file with a record of fixed size for each nonce, so that a torn
//! record damages no other.
//!
//! Two records are no nonces. The mark says to which database the log belongs, and the stamp says
//! when jit last changed the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{KnownNonces, shortened};
use crate::files;

pub(super) struct NonceLog {
    pub file: Arc<LogFile>,
    /// The offset of the next record, and the length of the file.
    next: u64,
    pub length: u64,
    /// The latest expiry of the nonces in this log.
    pub last: Option<i64>,
    /// The mark of the database to which the log belongs; a log of an earlier jit has none.
    pub mark: Option<u128>,
    /// Whether the file was there when jit opened it.
    pub was_there: bool,
    /// Whether jit was the last to change the file before it opened it.
    pub is_untouched: bool,
    /// The offset of the stamp; a log of an earlier jit has none.
    stamp: Option<u64>,
    /// When the stamp was written.
    stamped_at: Option<Instant>,
}

/// The file, which the thread that commits syncs while calls write to it.
pub(super) struct LogFile {
    file: File,
    /// Whether the file may contain records that are not synced to the disk.
    pub loose: AtomicBool,
}

/// Half of a nonce's hash, and its expiry.
pub(super) type NonceRecord = [u8; RECORD];

pub(super) const RECORD: usize = 16 + 8;
/// The file grows by this much. Zeros that are written, unlike a larger length alone, have their
/// blocks on the disk already, so a sync after a nonce need not write where the blocks are.
pub(super) static ROOM: [u8; 4096 * RECORD] = [0; 4096 * RECORD];
/// The expiry in the record of a mark. An earlier jit reads it as a nonce that has expired.
const OF_MARK: i64 = i64::MIN;
/// The expiry in the record of a stamp, which an earlier jit reads in the same way.
pub(super) const OF_STAMP: i64 = i64::MIN + 1;
/// The largest difference, in nanoseconds, between the stamp and the last change of a file that only
/// jit changed: jit writes the stamp after a change, and this changes the file once more.
pub(super) const STAMP_TOLERANCE: u128 = 100_000_000;
/// A nonce that follows the stamp so soon needs no new one: the tolerance includes it. Two more calls
/// of the kernel for each write would make reads slower.
const STAMP_COVERS: Duration = Duration::from_millis(25);
/// The number of attempts to write a stamp in time.
const STAMP_TRIES: usize = 3;

impl NonceLog {
    /// Opens the log, and adds its nonces to the known ones.
    pub fn open(path: &Path, keep_until: &mut KnownNonces) -> io::Result<Self> {
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
            // An unused place contains only zeros.
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
        let file = LogFile::new(file);
        let changed_at = file.changed_at()?;
        let is_untouched = stamp.is_some_and(|(at, _)| changed_at <= at + STAMP_TOLERANCE);
        Ok(Self {
            file: Arc::new(file),
            next,
            length: bytes.len() as u64,
            last,
            mark,
            was_there,
            is_untouched,
            stamp: stamp.map(|(_, offset)| offset),
            stamped_at: None,
        })
    }

    /// The offset of the record for a nonce with this expiry.
    pub fn offset_for(&mut self, until: i64) -> io::Result<u64> {
        let offset = self.next_offset()?;
        self.last = self.last.max(Some(until));
        Ok(offset)
    }

    /// The offset of the next record, which follows the one before.
    fn next_offset(&mut self) -> io::Result<u64> {
        let (offset, next) = (self.next, self.next + RECORD as u64);
        if next > self.length {
            self.file.file.write_all_at(&ROOM, self.length)?;
            self.length += ROOM.len() as u64;
        }
        self.next = next;
        Ok(offset)
    }

    /// Writes the records of nonces from this offset on.
    pub fn write(&mut self, offset: u64, records: &[NonceRecord]) -> io::Result<()> {
        let written = self.file.write(offset, records);
        written.and_then(|()| self.renew_stamp())
    }

    /// Marks the log as one of this database. The mark is then on the disk.
    pub fn set_mark(&mut self, database: &str) -> io::Result<()> {
        let mark = self.file.mark_for(database)?;
        let offset = self.next_offset()?;
        self.file.write(offset, &[record(mark, OF_MARK)])?;
        if self.stamp.is_none() {
            self.stamp = Some(self.next_offset()?);
        }
        self.write_stamp()?;
        self.file.sync()?;
        self.mark = Some(mark);
        Ok(())
    }

    /// Removes all records except the mark and the stamp.
    pub fn empty(&mut self) -> io::Result<()> {
        let mut length = 0;
        if let Some(mark) = self.mark {
            let offset = RECORD as u64;
            // First these two, then the new length: the log has both at every moment.
            self.stamp = Some(offset);
            self.file.write(0, &[record(mark, OF_MARK)])?;
            self.write_stamp()?;
            length = offset + RECORD as u64;
        }
        self.file.file.set_len(length)?;
        self.write_stamp()?;
        (self.next, self.length, self.last) = (length, length, None);
        Ok(())
    }

    /// Writes the stamp anew if the one in the file does not cover the writes up to now.
    fn renew_stamp(&mut self) -> io::Result<()> {
        // The file was changed before this moment.
        let is_covered = |stamped_at: Instant| stamped_at.elapsed() < STAMP_COVERS;
        if self.stamped_at.is_some_and(is_covered) {
            return Ok(());
        }
        self.write_stamp()
    }

    /// Writes when the file was last changed into the file itself. Only the kernel sets that time,
    /// so a file that was written by another program, or copied, has a later one. The clock of the
    /// process takes no part: it may be wrong.
    fn write_stamp(&mut self) -> io::Result<()> {
        let Some(offset) = self.stamp else {
            return Ok(());
        };
        for _ in 0..STAMP_TRIES {
            let before = Instant::now();
            let changed_at = self.file.changed_at()?;
            self.file.write(offset, &[record(changed_at, OF_STAMP)])?;
            if self.file.changed_at()? <= changed_at + STAMP_TOLERANCE / 2 {
                self.stamped_at = Some(before);
                break;
            }
        }
        Ok(())
    }
}

impl LogFile {
    pub fn new(file: File) -> Self {
        let loose = AtomicBool::new(true);
        Self { file, loose }
    }

    fn write(&self, offset: u64, records: &[NonceRecord]) -> io::Result<()> {
        let written = self.file.write_all_at(records.as_flattened(), offset);
        // Only after the write: a sync that starts now includes it.
        self.loose.store(true, Ordering::Release);
        written
    }

    /// The inode number differs in a copy of the file, which may lack the nonces of later calls.
    pub fn mark_for(&self, database: &str) -> io::Result<u128> {
        let inode = self.file.metadata()?.ino();
        Ok(shortened(&format!("{database} {inode}")))
    }

    /// The time of the last change of the file or of its owner, mode or links, in nanoseconds.
    fn changed_at(&self) -> io::Result<u128> {
        let metadata = self.file.metadata()?;
        let nanos =
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        Ok(u128::try_from(nanos).unwrap_or_default())
    }

    /// Returns when all records are on the disk that were written before.
    pub fn sync(&self) -> io::Result<()> {
        if self.loose.swap(false, Ordering::AcqRel) {
            self.file.sync_data().inspect_err(|_| {
                // The sync failed, so the next one must try again.
                self.loose.store(true, Ordering::Release);
            })?;
        }
        Ok(())
    }
}

pub(super) fn record(short: u128, until: i64) -> NonceRecord {
    let mut record = [0; RECORD];
    record[..16].copy_from_slice(&short.to_be_bytes());
    record[16..].copy_from_slice(&until.to_be_bytes());
    record
}

pub(super) fn read(record: &[u8]) -> Option<(u128, i64)> {
    let (short, until) = record.split_at_checked(16)?;
    Some((
        u128::from_be_bytes(short.try_into().ok()?),
        i64::from_be_bytes(until.try_into().ok()?),
    ))
}
