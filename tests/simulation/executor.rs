//! Tasks, polled one at a time in an order that the seed decides.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use jit::clock::Clock;
use jit::domain::Timestamp;

use crate::clock::{SimClock, Stopped};

pub struct Task {
    pub name: String,
    /// The process that it dies with.
    pub replica: Option<usize>,
    future: Pin<Box<dyn Future<Output = ()>>>,
    stopped: Stopped,
    woken: Arc<Woken>,
}

/// Whether another task rang a bell that this one waits for.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[derive(Default)]
pub struct Executor {
    tasks: Vec<Task>,
}

impl Executor {
    pub fn spawn(
        &mut self,
        name: String,
        replica: Option<usize>,
        future: impl Future<Output = ()> + 'static,
    ) {
        let future = Box::pin(future);
        self.tasks.push(Task {
            name,
            replica,
            future,
            stopped: Stopped::Yielded,
            woken: Arc::default(),
        });
    }

    /// Polls one task that can go on. None: all wait for the clock.
    pub fn poll_one(&mut self, clock: &SimClock) -> Option<()> {
        let now = clock.now();
        let ready: Vec<usize> = (0..self.tasks.len())
            .filter(|&at| match self.tasks[at].stopped {
                Stopped::Yielded => true,
                _ if self.tasks[at].woken.0.load(Ordering::SeqCst) => true,
                Stopped::Until(time) => time <= now,
                Stopped::Forever => false,
            })
            .collect();
        if ready.is_empty() {
            return None;
        }
        let at = ready[clock.below(u32::try_from(ready.len()).unwrap()) as usize];
        let task = &mut self.tasks[at];
        clock.begin_poll();
        task.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(task.woken.clone());
        let mut context = Context::from_waker(&waker);
        match task.future.as_mut().poll(&mut context) {
            Poll::Ready(()) => drop(self.tasks.swap_remove(at)),
            Poll::Pending => task.stopped = clock.end_poll(),
        }
        Some(())
    }

    /// When the next waiting task can go on.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let times = self.tasks.iter().filter_map(|task| match task.stopped {
            Stopped::Until(time) => Some(time),
            _ => None,
        });
        times.min()
    }

    /// Kills one task where it stands.
    pub fn kill_one(&mut self, clock: &SimClock) -> Option<String> {
        let mortal: Vec<usize> = (0..self.tasks.len())
            .filter(|&at| self.tasks[at].replica.is_none())
            .collect();
        let count = u32::try_from(mortal.len()).unwrap();
        if count == 0 {
            return None;
        }
        let at = mortal[clock.below(count) as usize];
        Some(self.tasks.swap_remove(at).name)
    }

    /// kill -9: everything of a process stops between two awaits.
    pub fn kill_replica(&mut self, replica: usize) {
        self.tasks.retain(|task| task.replica != Some(replica));
    }
}
