//! The thread that writes. It commits all waiting jobs in one batch, with one wait for the disk.
//!
//! A job that fails does not affect the other jobs of the batch. The thread answers no caller
//! before the batch is committed.
//!
//! On a full disk, an I/O error or a lack of memory SQLite rolls the whole transaction back
//! by itself, in the middle of a job (sqlite.org/lang_transaction.html). A statement that
//! runs after that would commit by itself. So the thread checks the transaction after every
//! job: if it is gone, the whole batch fails and no later job runs. The commit hook refuses
//! what a job writes after the rollback: this connection commits whole batches only.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// The largest number of jobs in one batch. With more, the first job would wait too long.
const BATCH: usize = 256;
const QUEUE: usize = 1024;

pub(super) struct Writer {
    /// Taken only when the store is dropped, which ends the thread.
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// A write with its waiting caller. The thread may run it a second time, after it has rolled
/// back the first run.
trait Job: Send {
    fn run(&mut self, db: &Connection) -> AfterJob;
    /// Returns the error of the last run.
    fn error(&self) -> Option<&StoreError>;
    fn answer(self: Box<Self>, batch: Result<(), StoreError>);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterJob {
    Keep,
    TakeBack,
}

struct WriteJob<W, T> {
    work: W,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<W, T> Job for WriteJob<W, T>
where
    W: Fn(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn run(&mut self, db: &Connection) -> AfterJob {
        match self.result.insert((self.work)(db)) {
            Ok(_) => AfterJob::Keep,
            Err(_) => AfterJob::TakeBack,
        }
    }

    fn error(&self) -> Option<&StoreError> {
        self.result.as_ref()?.as_ref().err()
    }

    fn answer(self: Box<Self>, batch: Result<(), StoreError>) {
        let own = self.result.unwrap_or_else(|| Err(stopped()));
        if self.caller.send(batch.and(own)).is_err() {
            tracing::debug!("the caller of a write no longer waits for its result");
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer has stopped".into())
}

impl Writer {
    /// Starts the thread. `before_commit` makes everything durable that must be on the disk
    /// before the commit is.
    pub fn start(
        db: Connection,
        before_commit: impl Fn() -> Result<(), StoreError> + Send + 'static,
        after_commit: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let books = WriterThread::new(db, Box::new(before_commit), Box::new(after_commit))?;
        let thread = std::thread::Builder::new()
            .name("jit-store".into())
            .spawn(move || books.serve(queue))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs `work` in a batch, and returns its result when it is on the disk. If `work` fails,
    /// none of its changes remains.
    pub async fn write<W, T>(&self, work: W) -> Result<T, StoreError>
    where
        W: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let job = Box::new(WriteJob {
            work,
            result: None,
            caller,
        });
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the writer thread of the store panicked");
        }
    }
}

/// The state of the thread. Its connection is closed last, so that SQLite removes the log and
/// one file remains.
struct WriterThread {
    before_commit: Box<BeforeCommit>,
    after_commit: Box<AfterCommit>,
    /// Set while the COMMIT of a batch runs; the commit hook refuses any other commit.
    committing: Arc<AtomicBool>,
    db: Connection,
}

type BeforeCommit = dyn Fn() -> Result<(), StoreError> + Send;
type AfterCommit = dyn Fn() + Send;

enum Failed {
    /// A job failed after it had written something.
    OneToTakeBack,
    All(StoreError),
}

impl From<StoreError> for Failed {
    fn from(why: StoreError) -> Self {
        Self::All(why)
    }
}

impl WriterThread {
    fn new(
        mut db: Connection,
        before_commit: Box<BeforeCommit>,
        after_commit: Box<AfterCommit>,
    ) -> io::Result<Self> {
        let committing = Arc::new(AtomicBool::new(false));
        let of_a_batch = committing.clone();
        let refused = move || !of_a_batch.load(Ordering::SeqCst);
        db.commit_hook(Some(refused)).map_err(io::Error::other)?;
        Ok(Self {
            before_commit,
            after_commit,
            committing,
            db,
        })
    }

    fn serve(&self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            // A panic in one job must not end the thread: it rolls the batch back, its callers
            // get an error from the closed channel, and the next batch runs.
            let waiting = std::mem::take(&mut batch);
            if catch_unwind(AssertUnwindSafe(|| self.commit_together(waiting))).is_err() {
                tracing::error!("a write panicked; jit rolled its batch back");
                self.take_back();
            }
        }
    }

    fn commit_together(&self, mut batch: Vec<Box<dyn Job>>) {
        let committed = match self.attempt(&mut batch) {
            Ok(()) => Ok(()),
            Err(Failed::OneToTakeBack) => {
                self.take_back();
                self.attempt_each(&mut batch)
            }
            Err(Failed::All(why)) => Err(why),
        };
        if let Err(why) = &committed {
            tracing::error!(%why, writes = batch.len(), "nothing could be written to the store");
            self.take_back();
        }
        for job in batch {
            job.answer(committed.clone());
        }
        (self.after_commit)();
    }

    /// Runs all jobs in one transaction without savepoints. That is nearly always enough, because
    /// a job that fails has usually written nothing.
    fn attempt(&self, batch: &mut [Box<dyn Job>]) -> Result<(), Failed> {
        self.run("BEGIN IMMEDIATE")?;
        for job in batch {
            let written = self.db.total_changes();
            let verdict = self.run_job(job.as_mut())?;
            if verdict == AfterJob::TakeBack && self.db.total_changes() != written {
                return Err(Failed::OneToTakeBack);
            }
        }
        Ok(self.commit()?)
    }

    /// Runs the jobs with a savepoint for each, which is a third slower.
    fn attempt_each(&self, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE")?;
        for job in batch {
            self.run_within("SAVEPOINT job")?;
            if self.run_job(job.as_mut())? == AfterJob::TakeBack {
                self.run_within("ROLLBACK TO job")?;
            }
            self.run_within("RELEASE job")?;
        }
        self.commit()
    }

    /// Runs a job. Fails if the transaction is gone afterwards, whatever the job returned.
    fn run_job(&self, job: &mut dyn Job) -> Result<AfterJob, StoreError> {
        let verdict = job.run(&self.db);
        self.check_transaction(job.error())?;
        Ok(verdict)
    }

    /// Runs a statement that leaves the transaction open. SAVEPOINT without a transaction
    /// would begin one of its own.
    fn run_within(&self, sql: &str) -> Result<(), StoreError> {
        self.check_transaction(None)?;
        let done = self.run(sql);
        self.check_transaction(done.as_ref().err())?;
        done
    }

    fn check_transaction(&self, error: Option<&StoreError>) -> Result<(), StoreError> {
        if !self.db.is_autocommit() {
            return Ok(());
        }
        let because = error.map_or_else(String::new, |error| format!(": {error}"));
        let why = format!("SQLite rolled the whole batch back by itself{because}");
        Err(StoreError::Unavailable(why))
    }

    fn commit(&self) -> Result<(), StoreError> {
        (self.before_commit)()?;
        self.check_transaction(None)?;
        self.committing.store(true, Ordering::SeqCst);
        let done = self.run("COMMIT");
        self.committing.store(false, Ordering::SeqCst);
        done
    }

    fn run(&self, sql: &str) -> Result<(), StoreError> {
        match self
            .db
            .prepare_cached(sql)
            .and_then(|mut it| it.execute([]))
        {
            Ok(_) => Ok(()),
            // The error concerns the whole batch, so it must not look like a conflict of one job.
            Err(why) => Err(StoreError::Unavailable(why.to_string())),
        }
    }

    fn take_back(&self) {
        if self.db.is_autocommit() {
            return;
        }
        if let Err(why) = self.run("ROLLBACK") {
            tracing::error!(%why, "the rollback of a failed write failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    async fn what_a_job_writes_after_sqlite_rolled_back_is_not_committed() {
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
}
