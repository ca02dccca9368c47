//! Why a call was not accepted as signed: for the log and the metrics alone.

use metrics::{counter, describe_counter};

/// Why a signature was refused. For the log and the metrics alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    Header,
    UnknownKey,
    Signature,
    SchemeNotAllowed,
    KeyExpired,
    Stale,
    Replayed,
    /// Of a slash command: not one of Mattermost's tokens, or another team's.
    Token,
    Team,
    /// Of a click or a dialog in Mattermost: not signed by the server, or nothing that jit made.
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
    /// The caller hears only that the call was refused.
    pub fn note(self, path: &str) {
        let reason = self.as_str();
        counter!("jit_signature_refusals_total", "reason" => reason).increment(1);
        tracing::warn!(reason, path, "a call was not accepted as signed");
    }
}

/// Every reason has its series from the start.
pub(super) fn describe() {
    describe_counter!(
        "jit_signature_refusals_total",
        "Calls not accepted as signed, by reason"
    );
    for why in Unsigned::ALL {
        counter!("jit_signature_refusals_total", "reason" => why.as_str()).increment(0);
    }
}
