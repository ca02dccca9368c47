//! Keeps the head log: where each history ended.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::note_panic;
use crate::domain::Millis;
use crate::service::Service;
use crate::store::StoreError;

/// An attacker who deletes a whole history before its entry leaves no trace, so this is short.
const EVERY: Millis = Millis::seconds(1);
/// How often jit looks for events of processes without this loop.
const CATCHES_UP_EVERY: Millis = Millis::minutes(1);

/// Whether this process also adds the entries that other processes did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    EachMinute,
    /// Another process adds them.
    Never,
}

/// Writes an entry every second in which this process wrote events, until `stop`, and then the
/// last one.
pub async fn keep_heads(service: &Service, catch_up: CatchUp, stop: CancellationToken) {
    let clock = service.clock();
    let mut catches_up_at = match catch_up {
        CatchUp::EachMinute => Some(clock.uptime()),
        CatchUp::Never => None,
    };
    loop {
        let is_last = stop.is_cancelled();
        let now = clock.uptime();
        let catches_up = catches_up_at.is_some_and(|at| now >= at) && !is_last;
        let written = AssertUnwindSafe(write(service, catches_up)).catch_unwind();
        match written.await {
            Ok(Ok(())) if catches_up => catches_up_at = Some(now + CATCHES_UP_EVERY),
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "head log not written, will be retried");
            }
            // K6: a panic ends only one round.
            Err(_) => note_panic("head log"),
        }
        if is_last {
            return;
        }
        tokio::select! {
            () = clock.sleep(EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Writes what this process noted, and adds what other processes left out.
pub async fn write(service: &Service, catches_up: bool) -> Result<(), StoreError> {
    service.write_heads().await?;
    match catches_up {
        true => service.catch_up_heads().await,
        false => Ok(()),
    }
}
