//! How long an operation may occupy its account. AWS usually takes seconds; an operation that
//! takes much longer than the last ones must not block the others in its account.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::Millis;

const LONGEST: Millis = Millis::seconds(30);
const SHORTEST: Millis = Millis::seconds(5);
/// An operation that takes this many times as long as usual is a slow one.
const TIMES_AS_LONG: i64 = 3;

/// A moving average of how long operations took, of which each new one is an eighth. An operation
/// that does not end is not in it.
pub(super) struct RoomTimeout(AtomicI64);

impl RoomTimeout {
    pub fn new() -> Self {
        Self(AtomicI64::new(LONGEST.0 / TIMES_AS_LONG))
    }

    pub fn note_end(&self, took: Millis) {
        let average = |usual: i64| Some(usual + (took.0 - usual) / 8);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, average)
            .ok();
    }

    pub fn get(&self) -> Millis {
        let usual = self.0.load(Ordering::Relaxed);
        Millis(usual * TIMES_AS_LONG).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(operations: usize, took: Millis) -> RoomTimeout {
        let timeout = RoomTimeout::new();
        for _ in 0..operations {
            timeout.note_end(took);
        }
        timeout
    }

    #[test]
    fn the_timeout_follows_how_long_operations_take() {
        assert_eq!(RoomTimeout::new().get(), LONGEST, "nothing is known yet");
        assert_eq!(after(40, Millis::seconds(1)).get(), SHORTEST);
        assert_eq!(after(40, Millis::minutes(2)).get(), LONGEST);
        let usual = after(40, Millis::seconds(3)).get();
        assert!(
            (Millis::seconds(8)..=Millis::seconds(10)).contains(&usual),
            "{usual:?}"
        );
    }

    #[test]
    fn one_slow_operation_does_not_make_the_timeout_long() {
        let timeout = after(40, Millis::seconds(1));
        timeout.note_end(Millis::seconds(20));
        assert!(timeout.get() < Millis::seconds(15), "{:?}", timeout.get());
    }
}
