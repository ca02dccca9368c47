//! The notices of a decision: which events the configured receivers get.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{MattermostConfig, Webhook};
use crate::domain::{Audience, Decision, EventKind, Notice};

/// The configured receivers. Without a receiver jit stores no notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    None,
    Webhook,
    Cards,
    Both,
}

impl Announce {
    pub fn to(webhook: Option<&Webhook>, mattermost: Option<&MattermostConfig>) -> Self {
        match (webhook, mattermost) {
            (None, None) => Self::None,
            (Some(_), None) => Self::Webhook,
            (None, Some(_)) => Self::Cards,
            (Some(_), Some(_)) => Self::Both,
        }
    }

    /// The notices of one decision. A card also shows steps for which the channel gets no notice.
    pub(super) fn notices(self, decision: &mut Decision) -> Vec<Notice> {
        let shows_cards = match self {
            Self::None => return Vec::new(),
            Self::Webhook => false,
            Self::Cards | Self::Both => true,
        };
        if !decision.notices.is_empty() || !shows_cards {
            return std::mem::take(&mut decision.notices);
        }
        let shown = decision.events.last();
        let Some(last) = shown.filter(|last| is_shown(last.event_type)) else {
            return Vec::new();
        };
        let request = &decision.request;
        vec![Notice {
            request_id: request.id,
            seq: last.seq,
            status: request.status(),
            account_id: request.asked.account_id.clone(),
            channel_id: request.asked.channel_id.clone(),
            actor: last.actor_email.clone().unwrap_or_default(),
            details: BTreeMap::new(),
            created_at: last.event_time,
            audience: audience(last.event_type),
            received_by: BTreeSet::new(),
            told: BTreeSet::new(),
        }]
    }
}

/// The receivers of a notice, except the channel: of these steps, people get direct messages too.
fn audience(kind: EventKind) -> Audience {
    let has_messages = [
        EventKind::Requested,
        EventKind::Cancelled,
        EventKind::ExtensionRequested,
        EventKind::ExtensionDenied,
    ];
    match has_messages.contains(&kind) {
        true => Audience::Mattermost,
        false => Audience::Card,
    }
}

/// Whether an event of this kind changes the card.
fn is_shown(kind: EventKind) -> bool {
    match kind {
        EventKind::Requested
        | EventKind::ApprovalRecorded
        | EventKind::Approved
        | EventKind::Denied
        | EventKind::Cancelled
        | EventKind::Granted
        | EventKind::ExtensionRequested
        | EventKind::Extended
        | EventKind::ExtensionDenied
        | EventKind::RevokeRequested
        | EventKind::ExpiryStarted
        | EventKind::RollbackStarted
        | EventKind::RemovalFailing
        | EventKind::CleanedUp
        | EventKind::Revoked
        | EventKind::Expired
        | EventKind::Error => true,
        EventKind::Assigning
        | EventKind::StrayAccessFound
        | EventKind::StrayAccessRemoved
        | EventKind::SessionsDenied
        | EventKind::SessionsEnded
        | EventKind::SessionsNotEnded
        | EventKind::SessionDenyLifted
        | EventKind::EndAnnounced
        | EventKind::NoticeParked
        | EventKind::ForgeryRefused
        | EventKind::Bound
        | EventKind::BindingChanged
        | EventKind::ApproversSet
        | EventKind::Unbound => false,
    }
}
