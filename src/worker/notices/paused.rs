//! The receivers that gave several deliveries no answer. A delivery does not wait for such a
//! receiver: otherwise the deliveries of many requests would wait for it at the same time, and the
//! notices of other requests would get no place.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::NotReceived;
use crate::clock::Uptime;
use crate::domain::{Millis, ReceiverName};
use crate::lock::locked;

/// An attempt that failed after this time or later counts as one without an answer.
const SLOW: Millis = Millis::seconds(5);
/// A receiver is paused after so many attempts in a row without an answer. The cause of a single one
/// may be its notice.
const UNANSWERED: u32 = 3;
/// For this long no delivery tries a paused receiver.
const PAUSE: Millis = Millis::seconds(10);

#[derive(Default)]
pub(super) struct PausedReceivers(Mutex<BTreeMap<ReceiverName, Unanswered>>);

struct Unanswered {
    in_a_row: u32,
    last_at: Uptime,
    /// An attempt that began after the pause, and until when the others wait for its result.
    tried_until: Option<Uptime>,
}

impl PausedReceivers {
    /// Refuses the attempt during a pause. After it one delivery tries the receiver, and the
    /// pause of the others goes on until that attempt has ended.
    pub fn check(
        &self,
        receiver: ReceiverName,
        timeout: Millis,
        now: Uptime,
    ) -> Result<(), NotReceived> {
        let mut all = locked(&self.0);
        let paused = all.get_mut(&receiver);
        let Some(paused) = paused.filter(|one| one.in_a_row >= UNANSWERED) else {
            return Ok(());
        };
        let until = paused.tried_until.unwrap_or(paused.last_at + PAUSE);
        if now < until {
            return Err(NotReceived::because(
                "it gave no answer to other notices a moment ago",
            ));
        }
        paused.tried_until = Some(now + timeout);
        Ok(())
    }

    /// Notes the end of an attempt that took so long.
    pub fn note(&self, receiver: ReceiverName, received: bool, took: Millis, now: Uptime) {
        let mut all = locked(&self.0);
        if received || took < SLOW {
            all.remove(&receiver);
            return;
        }
        let in_a_row = all.get(&receiver).map_or(0, |before| before.in_a_row);
        let unanswered = Unanswered {
            in_a_row: in_a_row.saturating_add(1),
            last_at: now,
            tried_until: None,
        };
        all.insert(receiver, unanswered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Millis = Millis::seconds(10);

    fn at(seconds: i64) -> Uptime {
        Uptime(Millis::seconds(seconds))
    }

    // N2
    #[test]
    fn n2_only_one_delivery_tries_a_receiver_that_gave_no_answers() {
        let paused = PausedReceivers::default();
        let tries = |receiver, now| paused.check(receiver, TIMEOUT, at(now)).is_ok();
        let (webhook, cards) = (ReceiverName::Webhook, ReceiverName::Mattermost);
        for _ in 0..UNANSWERED {
            assert!(tries(webhook, 0));
            paused.note(webhook, false, TIMEOUT, at(10));
        }
        assert!(!tries(webhook, 19));
        assert!(tries(cards, 19), "the other receiver is not paused");
        assert!(tries(webhook, 20) && !tries(webhook, 29));
        paused.note(webhook, false, TIMEOUT, at(30));
        assert!(!tries(webhook, 39) && tries(webhook, 40));
        assert!(tries(webhook, 50), "the result of that attempt is lost");
        paused.note(webhook, true, TIMEOUT, at(51));
        assert!(tries(webhook, 51) && tries(webhook, 51));
    }

    // N2
    #[test]
    fn n2_a_receiver_that_answers_is_not_paused() {
        let paused = PausedReceivers::default();
        let webhook = ReceiverName::Webhook;
        for turn in 0..4 * UNANSWERED {
            // Each second answer refuses the notice at once.
            let took = Millis(SLOW.0 - i64::from(turn % 2));
            paused.note(webhook, false, took, at(0));
            assert_eq!(paused.check(webhook, TIMEOUT, at(0)), Ok(()));
        }
    }
}
