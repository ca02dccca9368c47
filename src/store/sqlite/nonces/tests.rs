//! Tests of the spent nonces and of their logs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::log::{LogFile, OF_STAMP, RECORD, ROOM, STAMP_TOLERANCE};
use super::*;
use crate::store::sqlite::SqliteStore;
use crate::store::{Commit, Freshness, Store};

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

fn nonce(text: &str, now: i64) -> Nonce {
    Nonce {
        text: text.into(),
        at: at(now),
        keep_until: at(now + 1000),
    }
}

fn spend(nonces: &Nonces, text: &str, now: i64) -> Freshness {
    spend_and_write(nonces, &nonce(text, now)).unwrap()
}

fn claim(nonces: &Nonces, text: &str) -> ClaimedNonce {
    nonces.claim(&nonce(text, 0)).unwrap().unwrap()
}

fn spend_and_write(nonces: &Nonces, nonce: &Nonce) -> Result<Freshness, StoreError> {
    let Some(claimed) = nonces.claim(nonce)? else {
        return Ok(Freshness::Spent);
    };
    nonces.write(&claimed)?;
    Ok(Freshness::Fresh)
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
fn one_write_is_for_all_claimed_nonces() {
    let place = TestFolder::new();
    let nonces = place.open();
    let claimed = [claim(&nonces, "a"), claim(&nonces, "b")];
    nonces.write(&claimed[1]).unwrap();
    for text in ["a", "b"] {
        assert_eq!(spend(&place.open(), text, 1000), Freshness::Spent);
    }
    nonces.write(&claimed[0]).unwrap();
}

#[tokio::test]
async fn the_store_answers_after_the_nonce_is_in_the_log() {
    let place = TestFolder::new();
    let store = SqliteStore::open(&place.store()).unwrap();
    let spent = store.spend_nonce(&nonce("a", 0)).await;
    assert_eq!(spent, Ok(Freshness::Fresh));
    assert_eq!(spend(&place.open(), "a", 1000), Freshness::Spent);
}

/// A commit whose nonce waits to be written.
fn commit(text: &str) -> Commit {
    Commit {
        writes: Vec::new(),
        nonce: Some(nonce(text, 0)),
    }
}

#[tokio::test]
async fn a_commit_writes_its_nonce_to_the_log() {
    let place = TestFolder::new();
    let store = SqliteStore::open(&place.store()).unwrap();
    store.commit(commit("a")).await.unwrap();
    assert_eq!(spend(&place.open(), "a", 1000), Freshness::Spent);
}

/// P5: another call wrote the nonces of all, and this write failed. The commit succeeded without
/// its nonce, so the same call was accepted again.
#[tokio::test]
async fn a_commit_whose_nonce_another_call_failed_to_write_is_refused() {
    let place = TestFolder::new();
    let store = SqliteStore::open(&place.store()).unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let mut held = Box::pin(store.write(move |_| {
        begun.send(()).unwrap();
        waits.lock().unwrap().recv().unwrap();
        Ok(())
    }));
    assert!((&mut held).now_or_never().is_none());
    has_begun.recv().unwrap();
    let mut queued = Box::pin(store.commit(commit("a")));
    assert!((&mut queued).now_or_never().is_none(), "the writer is busy");
    let nonces = &store.server_parts().unwrap().nonces;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let full = Arc::new(LogFile::new(full));
    let log = std::mem::replace(&mut nonces.spent().growing.file, full);
    let read = store.spend_nonce(&nonce("b", 0)).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    nonces.spent().growing.file = log;
    // The same call comes again before the first one is answered, and this time it is written.
    let again = store.spend_nonce(&nonce("a", 0)).await;
    assert_eq!(again, Ok(Freshness::Fresh));
    go.send(()).unwrap();
    held.await.unwrap();
    let refused = queued.await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    // The refused commit does not give back the nonce that the other call has spent.
    let third = store.spend_nonce(&nonce("a", 0)).await;
    assert_eq!(third, Ok(Freshness::Spent));
}

#[test]
fn a_claimed_nonce_is_written_before_the_logs_change_places() {
    let place = TestFolder::new();
    let nonces = place.open();
    let claimed = claim(&nonces, "a");
    nonces.tidy(at(0)).unwrap();
    nonces.write(&claimed).unwrap();
    assert_eq!(spend(&nonces, "b", 0), Freshness::Fresh);
    for text in ["a", "b"] {
        assert_eq!(spend(&place.open(), text, 1000), Freshness::Spent);
    }
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
    for log in [&spent.growing, &spent.older] {
        assert!(log.last.is_some(), "each log contains one nonce");
        assert!(!log.file.loose.load(Ordering::SeqCst), "not synced");
    }
}

/// On a full disk jit refuses the call; the caller can repeat it when there is room.
#[test]
fn a_nonce_that_cannot_be_written_stays_fresh() {
    let place = TestFolder::new();
    let nonces = place.open();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let full = Arc::new(LogFile::new(full));
    let empty = std::mem::replace(&mut nonces.spent().growing.file, full);
    nonces.spent().growing.length = ROOM.len() as u64;
    for _ in 0..2 {
        let claimed = [claim(&nonces, "a"), claim(&nonces, "b")];
        for claimed in claimed {
            let refused = nonces.write(&claimed);
            assert!(
                matches!(refused, Err(StoreError::Unavailable(_))),
                "{refused:?}"
            );
        }
    }
    nonces.spent().growing.file = empty;
    assert_eq!(spend(&nonces, "a", 0), Freshness::Fresh);
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
    let older = at - STAMP_TOLERANCE - 1;
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
    let tolerance = u64::try_from(STAMP_TOLERANCE).unwrap();
    std::thread::sleep(std::time::Duration::from_nanos(2 * tolerance));
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
