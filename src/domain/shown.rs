//! The request object: the JSON that the HTTP API returns and the attributes that operators
//! see in the store. The fields are part of the contract with the plugin.

use serde::Serialize;

use super::{
    AccountId, ChannelId, Doubt, Email, Ending, MmUserId, OldCredentials, PermissionSet, Request,
    RequestId, State, Status, Text, Timestamp, UserId,
};

/// A request as the API shows it.
#[derive(Serialize)]
pub struct RequestObject<'a> {
    /// The id of the request, a UUID.
    pub request_id: RequestId,
    /// The AWS account in which the access is given.
    pub account_id: &'a AccountId,
    /// The Mattermost channel whose approvers decide about the request.
    pub channel_id: &'a ChannelId,
    /// The Mattermost user who asked for the access and gets it.
    pub requester_mm_user_id: &'a MmUserId,
    /// The address by which jit finds the requester in Identity Center.
    pub requester_email: &'a Email,
    /// The ticket that belongs to the request; absent if the requester named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jira: Option<&'a Text>,
    /// Why the requester needs the access; absent if the requester gave only a ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a Text>,
    /// How long the access was to last from the grant, in minutes, without extensions.
    pub requested_duration_minutes: u32,
    /// The configured name of the permission set, not its ARN.
    pub permission_set: &'a PermissionSet,
    /// The status that stands for the stored [`State`].
    pub status: Status,
    /// See [`State::assignment_status`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment_status: Option<&'a str>,
    /// When the requester made the request.
    pub created_at: Timestamp,
    /// The grant is not made before this time; absent if it follows the approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// When the quorum was complete; absent before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<Timestamp>,
    /// When an approver denied the request; absent if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_at: Option<Timestamp>,
    /// When the access began; absent if it was never granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_time: Option<Timestamp>,
    /// See [`Request::end_time`].
    pub end_time: Timestamp,
    /// When the request became REVOKED; absent with any other status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// When the request became EXPIRED; absent with any other status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
    /// When the request became CANCELLED; absent with any other status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    /// The Mattermost user who gave the last approval; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver_mm_user_id: Option<&'a MmUserId>,
    /// The e-mail address of that approver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver_email: Option<&'a Email>,
    /// The number of approvals so far; absent if it is 0 or the status is not PENDING.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<usize>,
    /// How much later the access would end; absent if no extension waits for approvals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_minutes: Option<u32>,
    /// The requester's user in Identity Center; absent until a worker found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_store_user_id: Option<&'a UserId>,
    /// Why the request ended in ERROR or is rolled back, else why its last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_details: Option<&'a Text>,
    /// Why the approver denied the request; absent if the approver gave no reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_reason: Option<&'a Text>,
    /// The address of the person who revoked, from the start of the removal, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<&'a Email>,
    /// Why that person revoked; absent if the person gave no reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoke_reason: Option<&'a Text>,
    /// The time until which old credentials are denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_denied_until: Option<Timestamp>,
    /// How many notices of the request jit gave up; absent if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undelivered_notices: Option<u32>,
    /// The number of audit events of the request.
    pub version: u64,
    /// A message for the caller; not part of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

/// The status in the words for people, with what jit is doing at AWS. `assignment` is
/// [`State::assignment_status`].
pub fn status_in_words(status: &str, assignment: Option<&str>) -> String {
    match assignment {
        Some("DELETING") => format!("{status}, being removed"),
        Some("CHECKING") => format!("{status}, being checked at AWS"),
        Some(_) | None => status.to_owned(),
    }
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
            identity_store_user_id: request.access.user(),
            error_details: ends.error.or(request
                .schedule
                .failures
                .as_ref()
                .map(|failing| &failing.why)),
            deny_reason: ends.deny_reason,
            revoked_by: ends.revoked_by,
            revoke_reason: ends.revoke_reason,
            sessions_denied_until: match request.access.old_credentials() {
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
            State::Unsettled { end, doubt } => Self::of(end).with_times_of(*doubt),
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Granted
            | State::Removing {
                ending: Ending::Expired,
            } => none,
        }
    }

    /// H7: an end that was written without its time has none until jit has settled it.
    fn with_times_of(self, doubt: Doubt) -> Self {
        match doubt {
            Doubt::Outside | Doubt::LateAnswer => self,
            Doubt::OutsideWithoutTime => Self {
                revoked_at: None,
                expired_at: None,
                cancelled_at: None,
                ..self
            },
        }
    }
}
