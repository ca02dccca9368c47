//! The request object: the JSON that the HTTP API returns and the attributes that operators
//! see in the store. The fields are part of the contract with the plugin.

use serde::Serialize;

use super::{
    AccountId, ChannelId, Email, Ending, MmUserId, OldCredentials, PermissionSet, Request,
    RequestId, State, Status, Text, Timestamp, UserId,
};

#[derive(Serialize)]
pub struct RequestObject<'a> {
    pub request_id: RequestId,
    pub account_id: &'a AccountId,
    pub channel_id: &'a ChannelId,
    pub requester_mm_user_id: &'a MmUserId,
    pub requester_email: &'a Email,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jira: Option<&'a Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a Text>,
    pub requested_duration_minutes: u32,
    pub permission_set: &'a PermissionSet,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment_status: Option<&'a str>,
    pub created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_time: Option<Timestamp>,
    pub end_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver_mm_user_id: Option<&'a MmUserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver_email: Option<&'a Email>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_minutes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_store_user_id: Option<&'a UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_details: Option<&'a Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_reason: Option<&'a Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<&'a Email>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoke_reason: Option<&'a Text>,
    /// The time until which old credentials are denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_denied_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undelivered_notices: Option<u32>,
    pub version: u64,
    /// A message for the caller; not part of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

impl<'a> From<&'a Request> for RequestObject<'a> {
    fn from(request: &'a Request) -> Self {
        let ends = EndFields::of(&request.state);
        let approver = request.approvals.given.last().map(|approval| &approval.by);
        // The approvals are shown only while the request has some of the approvals that it needs.
        let waiting = request.state == State::Pending && !request.approvals.given.is_empty();
        Self {
            request_id: request.id,
            account_id: &request.asked.account_id,
            channel_id: &request.asked.channel_id,
            requester_mm_user_id: &request.asked.requester.id,
            requester_email: &request.asked.requester.email,
            jira: request.asked.jira.as_ref(),
            reason: request.asked.reason.as_ref(),
            requested_duration_minutes: request.asked.duration.get(),
            permission_set: &request.asked.permission_set,
            status: request.status(),
            assignment_status: request.state.assignment_status(request.grant.period),
            created_at: request.asked.created_at,
            start_at: request.asked.start_at,
            approved_at: request.approvals.complete_at,
            denied_at: ends.denied_at,
            grant_time: request.grant.period.map(|period| period.from),
            end_time: request.end_time(),
            revoked_at: ends.revoked_at,
            expired_at: ends.expired_at,
            cancelled_at: ends.cancelled_at,
            approver_mm_user_id: approver.map(|person| &person.id),
            approver_email: approver.map(|person| &person.email),
            approvals: waiting.then_some(request.approvals.given.len()),
            extension_minutes: request
                .grant
                .extension
                .as_ref()
                .map(|extension| extension.minutes.get()),
            identity_store_user_id: request.assignment.user.as_ref(),
            error_details: ends.error.or(request
                .schedule
                .trouble
                .as_ref()
                .map(|failing| &failing.why)),
            deny_reason: ends.deny_reason,
            revoked_by: ends.revoked_by,
            revoke_reason: ends.revoke_reason,
            sessions_denied_until: match request.assignment.old_credentials {
                Some(OldCredentials::Denied { until }) => Some(until),
                Some(OldCredentials::Ending { .. }) | None => None,
            },
            undelivered_notices: (request.chat.parked_notices > 0)
                .then_some(request.chat.parked_notices),
            version: request.version.chain.version,
            message: None,
        }
    }
}

/// The times and texts of an end, by the field that shows them.
#[derive(Default)]
struct EndFields<'a> {
    denied_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    expired_at: Option<Timestamp>,
    cancelled_at: Option<Timestamp>,
    error: Option<&'a Text>,
    deny_reason: Option<&'a Text>,
    revoked_by: Option<&'a Email>,
    revoke_reason: Option<&'a Text>,
}

impl<'a> EndFields<'a> {
    fn of(state: &'a State) -> Self {
        let none = Self::default();
        match state {
            State::Denied { reason, at, .. } => Self {
                denied_at: Some(*at),
                deny_reason: reason.as_ref(),
                ..none
            },
            State::Revoked { by, reason, at } => Self {
                revoked_at: Some(*at),
                revoked_by: by.as_ref().map(|person| &person.email),
                revoke_reason: reason.as_ref(),
                ..none
            },
            State::Removing {
                ending: Ending::Revoked { by, reason, .. },
            } => Self {
                revoked_by: by.as_ref().map(|person| &person.email),
                revoke_reason: reason.as_ref(),
                ..none
            },
            State::Removing {
                ending: Ending::Failed { why },
            } => Self {
                error: Some(why),
                ..none
            },
            State::Expired { at } => Self {
                expired_at: Some(*at),
                ..none
            },
            State::Cancelled { at, .. } => Self {
                cancelled_at: Some(*at),
                ..none
            },
            State::Error(error) | State::Checking { error, .. } => Self {
                error: Some(&error.why),
                ..none
            },
            State::Unsettled { end, .. } => Self::of(end),
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Granted
            | State::Removing {
                ending: Ending::Expired,
            } => none,
        }
    }
}
