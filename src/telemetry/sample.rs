//! Samples of the log lines that callers can cause: in a minute jit logs the first of each kind,
//! and counts the others in a later line.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::locked;

/// A5: in a minute jit logs this many lines of each kind.
const MOST_LOGGED: u64 = 20;

/// The lines of each kind that were logged lately.
static SAMPLES: Mutex<BTreeMap<&'static str, Sample>> = Mutex::new(BTreeMap::new());

/// Returns the number of lines of this kind that were left out since the last one, or `None` if
/// this one is left out as well.
pub fn sampled(kind: &'static str) -> Option<u64> {
    let mut samples = locked(&SAMPLES);
    samples.entry(kind).or_default().next(Instant::now())
}

#[derive(Debug, Default)]
struct Sample {
    minute: Option<Instant>,
    lines: u64,
}

impl Sample {
    fn next(&mut self, now: Instant) -> Option<u64> {
        let is_over = |begun: Instant| now - begun >= Duration::from_secs(60);
        let mut unlogged = 0;
        if self.minute.is_none_or(is_over) {
            unlogged = self.lines.saturating_sub(MOST_LOGGED);
            *self = Self {
                minute: Some(now),
                lines: 0,
            };
        }
        self.lines += 1;
        (self.lines <= MOST_LOGGED).then_some(unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a5_lines_beyond_twenty_in_a_minute_are_counted_in_the_next_line() {
        let (mut sample, begun) = (Sample::default(), Instant::now());
        let logged: Vec<_> = (0..50).filter_map(|_| sample.next(begun)).collect();
        assert_eq!(logged, [0; 20]);
        let minute = Duration::from_secs(60);
        assert_eq!(sample.next(begun + minute), Some(30));
        assert_eq!(sample.next(begun + minute), Some(0));
        assert_eq!(sample.next(begun + 2 * minute), Some(0));
    }

    #[test]
    fn a5_each_kind_of_line_has_its_own_sample() {
        assert_eq!((0..50).filter_map(|_| sampled("one kind")).count(), 20);
        assert_eq!(sampled("another kind"), Some(0));
    }
}
