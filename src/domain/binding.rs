//! Bindings: which accounts belong to a channel, and who approves there.
//!
//! An account belongs to one channel. A change keeps the terms that it does not mention. The
//! audit chain of the channel records it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::audit::EventDraft;
use super::{
    AccountId, AuditKey, Chain, ChannelId, Event, EventKind, MmUserId, PermissionSet, Refusal,
    Timestamp,
};

/// An account that belongs to a channel, with its terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The AWS account that belongs to the channel.
    pub account_id: AccountId,
    /// The Mattermost channel whose approvers decide about access to the account.
    pub channel_id: ChannelId,
    /// The persons who may approve and deny; all accounts of a channel have the same.
    #[serde(deserialize_with = "super::ids::normal::stored_user_ids")]
    pub approvers: Vec<MmUserId>,
    /// The quorum.
    pub approvals_required: u32,
    /// Whether a requester who is an approver may approve their own request.
    pub allow_self_approval: bool,
    /// The policy's limit applies as well: a larger value has no effect.
    pub max_request_hours: Option<u32>,
    /// Kept for the plugin; jit does not use it.
    pub session_duration_minutes: u32,
    /// Empty: every configured permission set is allowed.
    pub permission_sets: Vec<PermissionSet>,
    /// When the terms or the approvers last changed.
    pub updated_at: Timestamp,
    /// Grows with every change, so that an approval can be tied to the terms under which it was
    /// given.
    pub revision: u64,
    /// The number of its BOUND event in the channel's history, which identifies this binding. 0
    /// if an older version of jit made the binding.
    #[serde(default)]
    pub bound_seq: u64,
}

/// A channel's configuration history. It is kept when its bindings are removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The Mattermost channel whose configuration this is.
    pub id: ChannelId,
    /// The end of the channel's audit chain.
    pub chain: Chain,
    /// Grows with every event.
    pub revision: u64,
}

/// The terms that a bind mentions; see [`Binding`] for each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindTerms {
    /// See [`Binding::approvals_required`].
    pub approvals_required: Option<u32>,
    /// See [`Binding::allow_self_approval`].
    pub allow_self_approval: Option<bool>,
    /// See [`Binding::max_request_hours`].
    pub max_request_hours: Option<u32>,
    /// See [`Binding::session_duration_minutes`].
    pub session_duration_minutes: Option<u32>,
    /// See [`Binding::permission_sets`].
    pub permission_sets: Option<Vec<PermissionSet>>,
}

impl Channel {
    pub fn unknown(id: ChannelId) -> Self {
        Self {
            id,
            chain: Chain::default(),
            revision: 0,
        }
    }

    /// Records a forgery: a click or a dialog of this channel that jit did not accept as genuine.
    pub fn refused(mut self, said: BTreeMap<String, String>, now: Timestamp) -> (Self, Event) {
        let entry = EventDraft {
            key: AuditKey::Config(self.id.clone()),
            kind: EventKind::ForgeryRefused,
            account_id: None,
            channel_id: &self.id,
            actor: None,
            status: None,
            details: said,
        };
        let event = self.chain.append(entry, now);
        self.revision += 1;
        (self, event)
    }
}

impl Binding {
    /// The name that the plugin knows: `one_of_n`, or `2_of_n` for a quorum of two.
    pub fn approval_policy(&self) -> String {
        match self.approvals_required {
            1 => "one_of_n".into(),
            n => format!("{n}_of_n"),
        }
    }

    /// Whether the terms allow this permission set; the policy must allow it as well.
    pub fn allows(&self, set: &PermissionSet) -> bool {
        self.permission_sets.is_empty() || self.permission_sets.contains(set)
    }

    pub(super) fn with(self, terms: BindTerms, now: Timestamp) -> Self {
        Self {
            approvals_required: terms.approvals_required.unwrap_or(self.approvals_required),
            allow_self_approval: terms
                .allow_self_approval
                .unwrap_or(self.allow_self_approval),
            max_request_hours: terms.max_request_hours.or(self.max_request_hours),
            session_duration_minutes: terms
                .session_duration_minutes
                .unwrap_or(self.session_duration_minutes),
            permission_sets: terms.permission_sets.unwrap_or(self.permission_sets),
            updated_at: now,
            revision: self.revision + 1,
            ..self
        }
    }

    /// Refuses a quorum that the approvers can never reach: otherwise only the first request
    /// under it would show that.
    pub(super) fn check_quorum(&self) -> Result<(), Refusal> {
        let named = self.approvers.len();
        if named > 0 && (named as u64) < u64::from(self.approvals_required) {
            return Err(Refusal::QuorumTooLarge {
                account_id: self.account_id.clone(),
                required: self.approvals_required,
                named,
            });
        }
        Ok(())
    }
}

impl BindTerms {
    pub(super) fn each_set_once(mut self) -> Self {
        let mut seen = BTreeSet::new();
        if let Some(sets) = &mut self.permission_sets {
            sets.retain(|set| seen.insert(set.clone()));
        }
        self
    }

    pub(super) fn details(&self) -> BTreeMap<String, String> {
        let mut details = BTreeMap::new();
        let mut mention = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                details.insert(name.to_owned(), value);
            }
        };
        mention(
            "approvals_required",
            self.approvals_required.map(|n| n.to_string()),
        );
        mention(
            "allow_self_approval",
            self.allow_self_approval.map(|b| b.to_string()),
        );
        mention(
            "max_request_hours",
            self.max_request_hours.map(|n| n.to_string()),
        );
        mention(
            "session_duration_minutes",
            self.session_duration_minutes.map(|n| n.to_string()),
        );
        mention(
            "permission_sets",
            self.permission_sets.as_ref().map(|sets| {
                sets.iter()
                    .map(PermissionSet::as_str)
                    .collect::<Vec<_>>()
                    .join(",")
            }),
        );
        details
    }
}
