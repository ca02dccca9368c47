//! The writer on its own: batches, a full disk, panics.

use super::*;
use rusqlite::ffi;
use std::sync::mpsc as std_mpsc;

fn table() -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(
        "PRAGMA foreign_keys = ON;
         CREATE TABLE t (n INTEGER PRIMARY KEY);
         CREATE TABLE owed (n INTEGER REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED);",
    )
    .unwrap();
    db
}

fn put(db: &Connection, n: i64) -> Result<(), StoreError> {
    db.execute("INSERT INTO t VALUES (?1)", [n])?;
    Ok(())
}

async fn rows(writer: &Writer) -> i64 {
    writer
        .write(|db| Ok(db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?))
        .await
        .unwrap()
}

type TestJob = Box<dyn Fn(&Connection) -> Result<(), StoreError> + Send>;

fn puts(n: i64) -> TestJob {
    Box::new(move |db| put(db, n))
}

/// A job that breaks a deferred constraint, which fails only at COMMIT.
fn owes(n: i64) -> TestJob {
    Box::new(move |db| {
        db.execute("INSERT INTO owed VALUES (?1)", [n])?;
        Ok(())
    })
}

/// Queues jobs behind one that blocks the writer until all of them wait.
async fn together(writer: &Writer, jobs: Vec<TestJob>) -> Vec<Result<(), StoreError>> {
    let (open, gate) = std_mpsc::channel::<()>();
    let (begin, begun) = std_mpsc::channel::<()>();
    let held = writer.write(move |_| {
        begin.send(()).unwrap();
        gate.recv().unwrap();
        Ok(())
    });
    let jobs = jobs.into_iter().map(|job| writer.write(job));
    let mut futures: Vec<std::pin::Pin<Box<dyn Future<Output = _>>>> = vec![Box::pin(held)];
    futures.extend(jobs.map(|job| Box::pin(job) as _));
    // The first poll of each puts its job into the queue.
    let mut first = Vec::new();
    for future in &mut futures {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        first.push(future.as_mut().poll(&mut context).is_ready());
        if first.len() == 1 {
            // Jobs that are queued from here on are not in the batch of the blocking job.
            begun.recv().unwrap();
        }
    }
    assert!(first.iter().all(|ready| !ready));
    open.send(()).unwrap();
    let mut answers = Vec::new();
    for future in futures {
        answers.push(future.await);
    }
    answers.split_off(1)
}

#[tokio::test]
async fn waiting_jobs_share_one_commit() {
    let writer = Writer::start(table(), || Ok(()), || {}).unwrap();
    // The constraint fails only at COMMIT, so it shows which jobs shared one.
    let mut jobs: Vec<_> = (0..50).map(puts).collect();
    jobs.push(owes(1000));
    let answers = together(&writer, jobs).await;
    assert_eq!(answers.len(), 51);
    for answer in answers {
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{answer:?}"
        );
    }
    assert_eq!(rows(&writer).await, 0);
    assert_eq!(writer.write(|db| put(db, 7)).await, Ok(()));
    assert_eq!(rows(&writer).await, 1);
}

/// K5: a caller is told that nothing was written only if that is certain.
#[test]
fn a_commit_that_may_be_in_the_log_is_not_called_unwritten() {
    let failed = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    for (code, has_ended, is_unsure) in [
        (ffi::SQLITE_IOERR_FSYNC, true, true),
        (ffi::SQLITE_IOERR_WRITE, true, true),
        (ffi::SQLITE_NOMEM, true, true),
        (ffi::SQLITE_FULL, true, false),
        (ffi::SQLITE_BUSY, false, false),
        (ffi::SQLITE_CONSTRAINT_FOREIGNKEY, false, false),
    ] {
        let told = commit_failed(&failed(code), has_ended);
        let is_told_unsure = matches!(told, StoreError::Unsure(_));
        assert_eq!(is_told_unsure, is_unsure, "{code}: {told}");
    }
}

#[tokio::test]
async fn a_failed_job_does_not_affect_the_others() {
    let writer = Writer::start(table(), || Ok(()), || {}).unwrap();
    let answers = together(&writer, vec![puts(1), puts(1), puts(2)]).await;
    assert_eq!(answers, [Ok(()), Err(StoreError::Conflict(None)), Ok(())]);
    assert_eq!(rows(&writer).await, 2);
}

#[tokio::test]
async fn a_job_that_fails_after_a_write_leaves_nothing_behind() {
    let writer = Writer::start(table(), || Ok(()), || {}).unwrap();
    assert_eq!(writer.write(|db| put(db, 101)).await, Ok(()));
    let twice = |n: i64| {
        move |db: &Connection| {
            put(db, n)?;
            put(db, n + 100)
        }
    };
    // The job has written row 1 when its second statement fails.
    let answers = tokio::join!(
        writer.write(twice(0)),
        writer.write(twice(1)),
        writer.write(twice(2)),
    );
    assert_eq!(answers, (Ok(()), Err(StoreError::Conflict(None)), Ok(())));
    assert_eq!(rows(&writer).await, 1 + 2 + 2);
}

/// A table whose file may grow by one page only: SQLite then behaves as on a full disk.
fn full() -> Connection {
    let db = table();
    db.execute_batch("CREATE TABLE large (what BLOB)").unwrap();
    let pages: i64 = db
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    db.pragma_update(None, "max_page_count", pages + 1).unwrap();
    db
}

fn fill_up(db: &Connection) -> Result<(), StoreError> {
    assert!(!db.is_autocommit());
    let filled = db.execute("INSERT INTO large VALUES (zeroblob(1000000))", []);
    assert!(
        db.is_autocommit(),
        "SQLite rolls the transaction back: {filled:?}"
    );
    filled.map(drop).map_err(StoreError::from)
}

async fn all_are_refused_and_nothing_is_written(jobs: Vec<TestJob>) {
    let writer = Writer::start(full(), || Ok(()), || {}).unwrap();
    let count = jobs.len();
    let answers = together(&writer, jobs).await;
    assert_eq!(answers.len(), count);
    for answer in &answers {
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{answers:?}"
        );
    }
    assert_eq!(rows(&writer).await, 0);
    let freed = |db: &Connection| {
        db.execute_batch("PRAGMA max_page_count = 100000")?;
        Ok(())
    };
    assert_eq!(writer.write(freed).await, Ok(()));
    assert_eq!(writer.write(|db| put(db, 7)).await, Ok(()));
    assert_eq!(rows(&writer).await, 1);
}

// K5
#[tokio::test]
async fn a_batch_that_sqlite_rolls_back_is_refused_as_a_whole() {
    let jobs = vec![puts(1), Box::new(fill_up), puts(2), puts(3)];
    all_are_refused_and_nothing_is_written(jobs).await;
}

#[tokio::test]
async fn the_answer_says_why_sqlite_rolled_the_batch_back() {
    let writer = Writer::start(full(), || Ok(()), || {}).unwrap();
    let answers = together(&writer, vec![Box::new(fill_up), puts(2)]).await;
    for answer in answers {
        let why = answer.unwrap_err().to_string();
        assert!(why.contains("full"), "{why}");
    }
}

#[tokio::test]
async fn no_job_runs_after_the_one_in_which_sqlite_rolled_the_batch_back() {
    let writer = Writer::start(full(), || Ok(()), || {}).unwrap();
    let (ran, was_run) = std_mpsc::channel();
    let later: TestJob = Box::new(move |_| {
        ran.send(()).unwrap();
        Ok(())
    });
    let answers = together(&writer, vec![Box::new(fill_up), later]).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    assert!(was_run.try_recv().is_err());
}

#[tokio::test]
async fn writes_after_a_rollback_by_sqlite_are_not_committed() {
    let goes_on: TestJob = Box::new(|db| {
        assert!(fill_up(db).is_err());
        db.execute("INSERT INTO t VALUES (2)", []).ok();
        Ok(())
    });
    all_are_refused_and_nothing_is_written(vec![puts(1), goes_on, puts(3)]).await;
}

#[tokio::test]
async fn a_batch_that_sqlite_rolls_back_in_its_second_run_is_refused_as_a_whole() {
    let late: TestJob = Box::new(|db| {
        put(db, 2)?;
        Err(StoreError::Conflict(None))
    });
    let jobs = vec![puts(1), late, Box::new(fill_up), puts(3)];
    all_are_refused_and_nothing_is_written(jobs).await;
}

#[tokio::test]
async fn a_panic_after_sqlite_rolled_back_leaves_nothing_written() {
    let panics: TestJob = Box::new(|db| {
        fill_up(db).ok();
        db.execute("INSERT INTO t VALUES (2)", []).ok();
        panic!("a bug")
    });
    all_are_refused_and_nothing_is_written(vec![puts(1), panics, puts(3)]).await;
}

#[tokio::test]
async fn a_job_cannot_commit_by_itself() {
    let commits: TestJob = Box::new(|db| {
        put(db, 2)?;
        db.execute_batch("COMMIT").ok();
        Ok(())
    });
    all_are_refused_and_nothing_is_written(vec![puts(1), commits, puts(3)]).await;
}

#[tokio::test]
async fn a_batch_is_not_committed_if_before_commit_fails() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let sync = move || match is_broken.load(Ordering::SeqCst) {
        true => Err(StoreError::Unavailable("no disk".into())),
        false => Ok(()),
    };
    let writer = Writer::start(table(), sync, || {}).unwrap();
    let answer = writer.write(|db| put(db, 1)).await;
    assert_eq!(answer, Err(StoreError::Unavailable("no disk".into())));
    broken.store(false, Ordering::SeqCst);
    assert_eq!(rows(&writer).await, 0);
}

#[tokio::test]
async fn the_writer_continues_after_a_panic() {
    let writer = Writer::start(table(), || Ok(()), || {}).unwrap();
    let answer = writer
        .write(|db| -> Result<(), StoreError> {
            put(db, 1)?;
            panic!("a bug")
        })
        .await;
    assert!(
        matches!(answer, Err(StoreError::Unavailable(_))),
        "{answer:?}"
    );
    assert_eq!(rows(&writer).await, 0);
    assert_eq!(writer.write(|db| put(db, 2)).await, Ok(()));
}

#[tokio::test]
async fn queued_jobs_are_written_before_the_store_closes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        .unwrap();
    let writer = Writer::start(db, || Ok(()), || {}).unwrap();
    for n in 0..20 {
        let mut job = Box::pin(writer.write(move |db| put(db, n)));
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        // The job is queued, and its caller goes away without waiting.
        drop(job.as_mut().poll(&mut context));
    }
    drop(writer);
    let left: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 20);
}
