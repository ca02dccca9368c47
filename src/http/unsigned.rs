//! The reasons for which jit refuses a signature.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use metrics::{counter, describe_counter};

use crate::service::work_queue::locked;

/// The reason for which a signature was refused. It appears only in the log and the metrics,
/// because a detailed answer would help an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    Header,
    UnknownKey,
    Signature,
    SchemeNotAllowed,
    KeyExpired,
    Stale,
    Replayed,
    /// A slash command without one of the configured tokens, or of another team.
    Token,
    Team,
    /// A click or a dialog that Mattermost did not sign, or that jit did not make.
    Trigger,
    Card,
    Dialog,
}

impl Unsigned {
    pub const ALL: [Self; 12] = [
        Self::Header,
        Self::UnknownKey,
        Self::Signature,
        Self::SchemeNotAllowed,
        Self::KeyExpired,
        Self::Stale,
        Self::Replayed,
        Self::Token,
        Self::Team,
        Self::Trigger,
        Self::Card,
        Self::Dialog,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::SchemeNotAllowed => "scheme_not_allowed",
            Self::KeyExpired => "key_expired",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::Token => "token",
            Self::Team => "team",
            Self::Trigger => "trigger",
            Self::Card => "card",
            Self::Dialog => "dialog",
        }
    }
}

/// A5: callers without a key can cause refusals. In a minute jit logs this many of each reason,
/// and counts all.
const MOST_LOGGED: u64 = 20;
const LONGEST_PATH: usize = 200;

impl Unsigned {
    /// Counts the refusal and logs it, unless the log has many of the same reason.
    pub fn note(self, path: &str) {
        let reason = self.as_str();
        counter!("jit_signature_refusals_total", "reason" => reason).increment(1);
        let Some(unlogged) = self.unlogged() else {
            return;
        };
        let path: String = path.chars().take(LONGEST_PATH).collect();
        tracing::warn!(
            reason,
            path,
            unlogged,
            "call not accepted as signed; the caller gets 401"
        );
    }

    /// The number of refusals since the last line, or `None` if this one gets no line.
    fn unlogged(self) -> Option<u64> {
        // A4: the two share a sample, or the time of the line would tell which key ids exist.
        let sample = match self {
            Self::UnknownKey | Self::Signature => Self::Signature,
            other => other,
        };
        let mut samples = locked(&SAMPLES);
        samples
            .entry(sample.as_str())
            .or_default()
            .next(Instant::now())
    }
}

/// The refusals of one reason that were logged lately.
static SAMPLES: Mutex<BTreeMap<&'static str, Sample>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Sample {
    minute: Option<Instant>,
    refusals: u64,
}

impl Sample {
    /// Returns the number of refusals that were not logged before this one, or `None` if this one
    /// is not logged either.
    fn next(&mut self, now: Instant) -> Option<u64> {
        let is_over = |begun: Instant| now - begun >= Duration::from_secs(60);
        let mut unlogged = 0;
        if self.minute.is_none_or(is_over) {
            unlogged = self.refusals.saturating_sub(MOST_LOGGED);
            *self = Self {
                minute: Some(now),
                refusals: 0,
            };
        }
        self.refusals += 1;
        (self.refusals <= MOST_LOGGED).then_some(unlogged)
    }
}

/// Registers a series for every reason at the start, so that an alarm finds it.
pub(super) fn describe() {
    describe_counter!(
        "jit_signature_refusals_total",
        "Calls with a refused signature, by reason"
    );
    for why in Unsigned::ALL {
        counter!("jit_signature_refusals_total", "reason" => why.as_str()).increment(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a5_refusals_beyond_twenty_in_a_minute_are_counted_in_the_next_line() {
        let (mut sample, begun) = (Sample::default(), Instant::now());
        let logged: Vec<_> = (0..50).filter_map(|_| sample.next(begun)).collect();
        assert_eq!(logged, [0; 20]);
        let minute = Duration::from_secs(60);
        assert_eq!(sample.next(begun + minute), Some(30));
        assert_eq!(sample.next(begun + minute), Some(0));
        assert_eq!(sample.next(begun + 2 * minute), Some(0));
    }
}
