//! Brings what was committed from the write-ahead log into the file, on a thread of its
//! own: whoever waits for a commit does not wait for that as well.
//!
//! While others write, the log cannot begin anew. Once it is large, the writer itself
//! does the little that is then left to bring over (`wal_autocheckpoint`), and it does.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

/// Shorter, and commits meet it on the disk more often; longer, and each waits longer for
/// it. Measured: see `make bench`.
const PAUSE: Duration = Duration::from_millis(35);

pub(super) struct Checkpointer {
    /// Both are taken only at the end.
    asks: Option<SyncSender<()>>,
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub fn start(db: Connection) -> io::Result<Self> {
        let (asks, asked) = sync_channel(1);
        let (alive, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("jit-checkpoint".into())
            .spawn(move || serve(&db, &asked, &ended))?;
        Ok(Self {
            asks: Some(asks),
            alive: Some(alive),
            thread: Some(thread),
        })
    }

    /// Something was committed.
    pub fn ask(&self) {
        if let Some(asks) = &self.asks {
            // One that was asked already and has not begun will do.
            asks.try_send(()).ok();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        (self.asks, self.alive) = (None, None);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the store's checkpoints ended in a panic");
        }
    }
}

fn serve(db: &Connection, asked: &Receiver<()>, ended: &Receiver<()>) {
    while asked.recv().is_ok() {
        let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
        let done = db
            .prepare_cached(checkpoint)
            .and_then(|mut it| it.query_row([], |_| Ok(())));
        if let Err(error) = done {
            // Nothing is lost: it stays in the log.
            tracing::warn!(%error, "the store's log could not be brought over");
        }
        if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
