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

use rusqlite::{Connection, ErrorCode};
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
        let writer_thread = WriterThread::new(db, Box::new(before_commit), Box::new(after_commit))?;
        let thread = std::thread::Builder::new()
            .name("jit-store".into())
            .spawn(move || writer_thread.serve(queue))?;
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
            tracing::error!(
                "the writer thread of the store panicked at the end; report the trace as a fault of jit"
            );
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
                tracing::error!(
                    "a write panicked; jit rolled its batch back; report the trace as a fault of jit"
                );
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
            tracing::error!(
                error = %why, writes = batch.len(),
                "a batch of writes to the store failed; check that the disk works and is not full"
            );
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
        let done = self.execute("COMMIT");
        self.committing.store(false, Ordering::SeqCst);
        done.map_err(|why| commit_failed(&why, self.db.is_autocommit()))
    }

    fn run(&self, sql: &str) -> Result<(), StoreError> {
        // The error concerns the whole batch, so it must not look like a conflict of one job.
        let failed = |why: rusqlite::Error| StoreError::Unavailable(why.to_string());
        self.execute(sql).map_err(failed)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.db.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn take_back(&self) {
        if self.db.is_autocommit() {
            return;
        }
        if let Err(why) = self.run("ROLLBACK") {
            tracing::error!(
                error = %why,
                "the rollback of a failed write failed; check the disk, and restart jit if writes continue to fail"
            );
        }
    }
}

/// A COMMIT that failed and left the transaction open is rolled back. If it ended the transaction,
/// the batch may already be in the log, and the next start may find it there. On a full disk it is
/// not: the last page of the batch, which commits it, did not fit.
fn commit_failed(why: &rusqlite::Error, has_ended: bool) -> StoreError {
    match has_ended && why.sqlite_error_code() != Some(ErrorCode::DiskFull) {
        true => StoreError::Unsure(why.to_string()),
        false => StoreError::Unavailable(why.to_string()),
    }
}

#[cfg(test)]
mod tests;
