//! Work that runs to its end. jit drops a call when it closes the connection, for example because it
//! stops; the work of the call then continues as a task.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// The future of some work. A task for each call would cost more than one for each call that is
/// dropped.
pub(super) struct Uncut<T: Send + 'static> {
    /// `None` when the work has ended or panicked.
    work: Option<BoxFuture<'static, T>>,
    tasks: TaskTracker,
    runtime: Handle,
}

impl<T: Send + 'static> Uncut<T> {
    /// `tasks` gets the work if this future is dropped before the work has ended.
    pub fn new(work: BoxFuture<'static, T>, tasks: &TaskTracker) -> Self {
        Self {
            work: Some(work),
            tasks: tasks.clone(),
            runtime: Handle::current(),
        }
    }
}

impl<T: Send + 'static> Future for Uncut<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Work that panics is not put back, so it is not polled again.
        let Some(mut work) = self.work.take() else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Uncut<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            let work = async move {
                if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                    tracing::error!(
                        "a call panicked after its connection closed; report the trace as a fault of jit"
                    );
                }
            };
            self.tasks.spawn_on(work, &self.runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_that_its_caller_drops_continues_as_a_task() {
        let (tasks, (go, waits), (done, ended)) =
            (TaskTracker::new(), oneshot::channel(), oneshot::channel());
        let work = async move {
            waits.await.unwrap();
            done.send("done").unwrap();
        };
        let mut uncut = Uncut::new(Box::pin(work), &tasks);
        assert!((&mut uncut).now_or_never().is_none());
        assert!(tasks.is_empty(), "a call that waits needs no task");
        drop(uncut);
        assert_eq!(tasks.len(), 1);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok("done"));
    }

    #[tokio::test]
    async fn work_that_panics_is_not_continued() {
        let tasks = TaskTracker::new();
        let uncut = Uncut::new(Box::pin(async { panic!("the work failed") }), &tasks);
        let panicked: Result<(), _> = AssertUnwindSafe(uncut).catch_unwind().await;
        assert!(panicked.is_err());
        assert!(tasks.is_empty());
    }
}
