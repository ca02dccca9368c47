//! Removes nonces and answers that no call can need any more.

use tokio_util::sync::CancellationToken;

use super::Service;
use crate::domain::Millis;

const EVERY: Millis = Millis::minutes(1);

impl Service {
    /// Tidies the store every minute, until it is asked to stop.
    pub async fn tidy_up(&self, stop: CancellationToken) {
        let clock = self.clock();
        while !stop.is_cancelled() {
            if let Err(error) = self.store.tidy(clock.now()).await {
                tracing::error!(%error, "old nonces and answers could not be removed");
            }
            tokio::select! {
                () = clock.sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
