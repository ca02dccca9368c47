//! Notices: what jit tells about a step of a request. The commit that stores the step stores
//! its notice as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AccountId, ChannelId, RequestId, Status, Timestamp};

/// One message about one event of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The request that the notice is about.
    pub request_id: RequestId,
    /// The number of the audit event that the notice is about; notices are delivered in this
    /// order.
    pub seq: u64,
    /// The status after the event.
    pub status: Status,
    /// The AWS account of the request.
    pub account_id: AccountId,
    /// The Mattermost channel of the request.
    pub channel_id: ChannelId,
    /// The e-mail address of the person who caused the event, or `system`.
    pub actor: String,
    /// What the receiver shows of the event, by name, such as `reason` or `end_time`.
    pub details: BTreeMap<String, String>,
    /// When the decision made the notice; jit gives it up one day later.
    pub created_at: Timestamp,
    /// Which receivers get the notice; a stored notice without this field goes to all.
    #[serde(default, skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
}

/// The receivers of a notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// All receivers.
    #[default]
    Everybody,
    /// Only the request's card, which shows more steps than the channel gets notices of.
    Card,
    /// Only the requester.
    Requester,
}

impl Audience {
    fn is_everybody(&self) -> bool {
        *self == Self::Everybody
    }
}

/// The body of the webhook, with the fields that the plugin reads.
#[derive(Serialize)]
struct Payload<'a> {
    request_id: RequestId,
    status: Status,
    account_id: &'a AccountId,
    channel_id: &'a ChannelId,
    actor: &'a str,
    details: &'a BTreeMap<String, String>,
}

impl Notice {
    /// The same for every attempt, so that a receiver recognises a repeated delivery.
    pub fn message_id(&self) -> String {
        format!("{}.{}", self.request_id, self.seq)
    }

    /// The body of the webhook.
    pub fn body(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Payload {
            request_id: self.request_id,
            status: self.status,
            account_id: &self.account_id,
            channel_id: &self.channel_id,
            actor: &self.actor,
            details: &self.details,
        })
    }
}
