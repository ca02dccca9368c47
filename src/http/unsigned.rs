//! The reasons for which jit refuses a signature.

use metrics::{counter, describe_counter};

use crate::telemetry::sampled;

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
    /// A call of `/metrics` without `server.metrics_token`.
    MetricsToken,
    /// A click or a dialog that Mattermost did not sign, or that jit did not make.
    Trigger,
    Card,
    Dialog,
}

impl Unsigned {
    pub const ALL: [Self; 13] = [
        Self::Header,
        Self::UnknownKey,
        Self::Signature,
        Self::SchemeNotAllowed,
        Self::KeyExpired,
        Self::Stale,
        Self::Replayed,
        Self::Token,
        Self::Team,
        Self::MetricsToken,
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
            Self::MetricsToken => "metrics_token",
            Self::Trigger => "trigger",
            Self::Card => "card",
            Self::Dialog => "dialog",
        }
    }
}

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
        sampled(sample.as_str())
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
