//! Removes expired nonces and answers from the store.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::note_panic;
use crate::domain::Millis;
use crate::service::Service;

const EVERY: Millis = Millis::minutes(1);

/// Removes them every minute, until `stop`.
pub async fn tidy_up(service: &Service, stop: CancellationToken) {
    let clock = service.clock();
    while !stop.is_cancelled() {
        let tidied = AssertUnwindSafe(service.store().tidy(clock.now())).catch_unwind();
        match tidied.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "expired nonces and answers not removed, will be retried");
            }
            // K6: a panic ends only one round.
            Err(_) => note_panic("removal of expired nonces and answers"),
        }
        tokio::select! {
            () = clock.sleep(EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}
