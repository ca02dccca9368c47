//! Runs tasks: polls one at a time, in an order that the seed decides.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use jit::worker::spawn::Spawn;

use crate::clock::{ProcessId, Time};

/// The payload of a planted panic: it prints nothing and ends one task.
pub struct Planted;

/// The kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Worker::run`, `NoticeWorker::run` or `tidy_up`.
    Loop,
    /// A piece of work that a loop has spawned.
    Piece,
    /// A call of a person or an operator, whose connection can be closed.
    Call,
}

struct Task {
    name: String,
    process: ProcessId,
    kind: Kind,
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
    waker: Waker,
}

/// Whether a task was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A spawned piece of work that waits to become a task of its process.
type Spawned = (ProcessId, BoxFuture<'static, ()>);

/// The result of one poll.
pub enum Polled {
    WentOn,
    /// A task of this process ended in a planted panic.
    Panicked(String, Kind, ProcessId),
}

#[derive(Default)]
pub struct Executor {
    tasks: Vec<Task>,
    spawned: Arc<Mutex<Vec<Spawned>>>,
    frozen: BTreeSet<ProcessId>,
    ready: Vec<usize>,
    pub polls: u64,
}

/// Spawns the pieces of work of one process.
struct Spawner {
    process: ProcessId,
    spawned: Arc<Mutex<Vec<Spawned>>>,
}

impl Spawn for Spawner {
    fn spawn(&self, piece: BoxFuture<'static, ()>) {
        self.spawned.lock().unwrap().push((self.process, piece));
    }
}

impl Executor {
    pub fn spawner(&self, process: ProcessId) -> Arc<dyn Spawn> {
        let spawned = self.spawned.clone();
        Arc::new(Spawner { process, spawned })
    }

    pub fn spawn(
        &mut self,
        name: String,
        process: ProcessId,
        kind: Kind,
        future: impl Future<Output = ()> + 'static,
    ) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.tasks.push(Task {
            name,
            process,
            kind,
            future: Box::pin(future),
            waker: Waker::from(woken.clone()),
            woken,
        });
    }

    /// Polls one woken task. `None`: all tasks wait.
    pub fn poll_one(&mut self, time: &Time) -> Option<Polled> {
        self.ready.clear();
        for (at, task) in self.tasks.iter().enumerate() {
            if task.woken.0.load(Ordering::Relaxed) && !self.frozen.contains(&task.process) {
                self.ready.push(at);
            }
        }
        let at = match self.ready.len() {
            0 => return None,
            1 => self.ready[0],
            many => self.ready[time.below(u32::try_from(many).unwrap()) as usize],
        };
        self.polls += 1;
        let task = &mut self.tasks[at];
        time.runs(task.kind);
        task.woken.0.store(false, Ordering::Relaxed);
        let mut context = Context::from_waker(&task.waker);
        let poll = AssertUnwindSafe(|| task.future.as_mut().poll(&mut context));
        let polled = match catch_unwind(poll) {
            Ok(Poll::Pending) => Polled::WentOn,
            Ok(Poll::Ready(())) => {
                drop(self.tasks.swap_remove(at));
                Polled::WentOn
            }
            Err(payload) if payload.is::<Planted>() => {
                let task = self.tasks.swap_remove(at);
                Polled::Panicked(task.name.clone(), task.kind, task.process)
            }
            Err(payload) => resume_unwind(payload),
        };
        self.take_spawned();
        Some(polled)
    }

    fn take_spawned(&mut self) {
        let spawned = std::mem::take(&mut *self.spawned.lock().unwrap());
        for (process, piece) in spawned {
            let name = format!("a piece of work of {process}");
            self.spawn(name, process, Kind::Piece, piece);
        }
    }

    pub fn tasks_of(&self, process: ProcessId) -> usize {
        let own = self.tasks.iter().filter(|task| task.process == process);
        own.count()
    }

    pub fn is_running(&self, kind: Kind) -> bool {
        self.tasks.iter().any(|task| task.kind == kind)
    }

    /// Drops one call at its current await, as a closed connection does.
    pub fn hang_up_one(&mut self, time: &Time) -> Option<String> {
        let mortal: Vec<usize> = (0..self.tasks.len())
            .filter(|&at| self.tasks[at].kind == Kind::Call)
            .collect();
        if mortal.is_empty() {
            return None;
        }
        let at = mortal[time.below(u32::try_from(mortal.len()).unwrap()) as usize];
        Some(self.tasks.swap_remove(at).name)
    }

    /// kill -9: drops all tasks of a process at their current awaits.
    pub fn kill(&mut self, process: ProcessId) {
        self.frozen.remove(&process);
        self.tasks.retain(|task| task.process != process);
        // A task may have spawned work while it was dropped.
        self.spawned.lock().unwrap().clear();
    }

    pub fn freeze(&mut self, process: ProcessId) {
        self.frozen.insert(process);
    }

    pub fn thaw(&mut self, process: ProcessId) {
        self.frozen.remove(&process);
    }
}
