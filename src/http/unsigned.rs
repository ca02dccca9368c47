//! The reasons for which jit refuses a signature.

use metrics::{counter, describe_counter};

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

impl Unsigned {
    /// Counts and logs the refusal.
    pub fn note(self, path: &str) {
        let reason = self.as_str();
        counter!("jit_signature_refusals_total", "reason" => reason).increment(1);
        tracing::warn!(reason, path, "a call was not accepted as signed");
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
