//! Where pieces of work run.

use futures_util::future::BoxFuture;

/// A seam, so that a simulation can run each piece when it wants to.
pub trait Spawn: Send + Sync + 'static {
    fn spawn(&self, piece: BoxFuture<'static, ()>);
}

/// On the runtime that the process has.
pub struct OnRuntime;

impl Spawn for OnRuntime {
    #[expect(
        clippy::disallowed_methods,
        reason = "each piece is tracked by who spawns it, and awaited at shutdown"
    )]
    fn spawn(&self, piece: BoxFuture<'static, ()>) {
        tokio::spawn(piece);
    }
}
