//! Copies committed pages from the write-ahead log into the file, on a thread of its own, so
//! that a commit does not wait for it.
//!
//! While the writer writes, the log cannot start again from its beginning. When the log is
//! large, the writer copies the few remaining pages itself (`wal_autocheckpoint`), and the log
//! starts again.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

/// The pause between two checkpoints. With a shorter one, more commits compete with it for the
/// disk; with a longer one, each of these commits waits longer. `make bench` measured it.
const PAUSE: Duration = Duration::from_millis(35);

pub(super) struct Checkpointer {
    /// `asks` and the thread are taken only when the store is dropped.
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

    /// Asks for a checkpoint after a commit.
    pub fn request(&self) {
        if let Some(asks) = &self.asks {
            // If a checkpoint is asked for already and has not begun, it covers this commit too.
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
            tracing::error!(
                "the checkpoint thread of the store panicked; report the trace as a fault of jit"
            );
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
            // No data is lost: it stays in the log.
            tracing::warn!(%error, "a checkpoint failed, the next commit tries again; if it continues to fail, check the disk");
        }
        if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
