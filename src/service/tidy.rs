//! Removes expired nonces and answers.

use tokio_util::sync::CancellationToken;

use super::Service;
use crate::domain::Millis;

const EVERY: Millis = Millis::minutes(1);

impl Service {
    /// Removes them every minute, until `stop`.
    pub async fn tidy_up(&self, stop: CancellationToken) {
        let clock = self.clock();
        while !stop.is_cancelled() {
            if let Err(error) = self.store.tidy(clock.now()).await {
                tracing::error!(%error, "expired nonces and answers not removed, will be retried");
            }
            tokio::select! {
                () = clock.sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
