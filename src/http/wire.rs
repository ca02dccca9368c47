//! The JSON objects of replies, with the fields of docs/contract.md, which the plugin reads.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::{AccountId, Binding, ChannelId, MmUserId, PermissionSet, Policy, Timestamp};

/// A binding in the reply of a configuration route.
#[derive(Serialize)]
pub struct ConfigObject<'a> {
    pub channel_id: &'a ChannelId,
    pub account_id: &'a AccountId,
    pub approver_mm_user_ids: &'a [MmUserId],
    pub approval_policy: String,
    pub approvals_required: u32,
    pub allow_self_approval: bool,
    /// The effective limit: the lower of the binding's and the policy's.
    pub max_request_hours: u32,
    pub session_duration_minutes: u32,
    #[serde(skip_serializing_if = "<[PermissionSet]>::is_empty")]
    pub permission_sets: &'a [PermissionSet],
    /// The sets that a request may name: those of the binding, or all that are configured.
    pub allowed_permission_sets: Vec<&'a PermissionSet>,
    /// The limit of each allowed set that allows less than `max_request_hours`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub max_request_hours_by_set: BTreeMap<&'a PermissionSet, u32>,
    pub updated_at: Timestamp,
}

impl<'a> ConfigObject<'a> {
    pub fn of(binding: &'a Binding, policy: &'a Policy) -> Self {
        Self {
            channel_id: &binding.channel_id,
            account_id: &binding.account_id,
            approver_mm_user_ids: &binding.approvers,
            approval_policy: binding.approval_policy(),
            approvals_required: binding.approvals_required,
            allow_self_approval: binding.allow_self_approval,
            max_request_hours: policy.longest(binding),
            session_duration_minutes: binding.session_duration_minutes,
            permission_sets: &binding.permission_sets,
            allowed_permission_sets: policy.allowed_sets(binding).collect(),
            max_request_hours_by_set: policy.lower_limits(binding).collect(),
            updated_at: binding.updated_at,
        }
    }
}
