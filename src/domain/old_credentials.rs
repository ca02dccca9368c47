//! C: the details of events that say which old credentials a record must have, so that `verify`
//! finds a record from which they were removed.

use super::{AccessFacts, EventKind, OldCredentials};

/// The events after which the record may have other old credentials than before: those about them,
/// and each end of an access.
pub(super) const CHANGES_OLD_CREDENTIALS: [EventKind; 11] = [
    EventKind::SessionsDenied,
    EventKind::SessionsEnded,
    EventKind::SessionsNotEnded,
    EventKind::SessionDenyLifted,
    EventKind::StrayAccessFound,
    EventKind::StrayAccessRemoved,
    EventKind::CleanedUp,
    EventKind::Cancelled,
    EventKind::Revoked,
    EventKind::Expired,
    EventKind::Error,
];

pub(super) const ENDING_DETAIL: &str = "sessions_ending_before";
pub(super) const DENIED_DETAIL: &str = "sessions_denied_until";

/// Says that the record has no old credentials. Without it, an event could be one of an older jit,
/// which wrote none of these details.
pub(super) const NONE_DETAIL: &str = "sessions_to_end";

/// The detail of an event of this kind: the old credentials that the access has then.
pub(super) fn detail(access: &AccessFacts, kind: EventKind) -> Option<(&'static str, String)> {
    // SESSIONS_DENIED has its `until`.
    if kind == EventKind::SessionsDenied || !CHANGES_OLD_CREDENTIALS.contains(&kind) {
        return None;
    }
    Some(match access.old_credentials() {
        Some(OldCredentials::Ending { before }) => (ENDING_DETAIL, before.to_string()),
        Some(OldCredentials::Denied { until }) => (DENIED_DETAIL, until.to_string()),
        None => (NONE_DETAIL, "none".to_owned()),
    })
}
