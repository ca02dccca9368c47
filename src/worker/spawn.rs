//! Where executions and deliveries run.

use futures_util::future::BoxFuture;

/// The simulation has its own implementation, which decides when each task runs.
pub trait Spawn: Send + Sync + 'static {
    fn spawn(&self, piece: BoxFuture<'static, ()>);
}

/// Runs tasks on the process's tokio runtime.
pub struct OnRuntime;

impl Spawn for OnRuntime {
    #[expect(
        clippy::disallowed_methods,
        reason = "the caller tracks each task, and awaits it at shutdown"
    )]
    fn spawn(&self, piece: BoxFuture<'static, ()>) {
        tokio::spawn(piece);
    }
}
