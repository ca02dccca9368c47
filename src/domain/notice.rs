//! Notices: the messages about one step of a request. The commit that stores the step stores
//! its notice as well.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::notice_text::inactive;
use super::{AccountId, ChannelId, MmUserId, RequestId, Status, Timestamp};

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
    /// The details that the receiver shows, by name, such as `reason` or `end_time`.
    pub details: BTreeMap<String, String>,
    /// When the decision made the notice; jit gives it up one day later.
    pub created_at: Timestamp,
    /// Which receivers get the notice; a stored notice without this field goes to all.
    #[serde(default, skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
    /// Which receivers have the notice already; the others still wait for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub received_by: BTreeSet<ReceiverName>,
    /// The people who have the direct message of the notice while others still wait for theirs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub told: BTreeSet<PersonMark>,
}

/// A person in the delivery state of a notice: five bytes of the hash of the user id, because the
/// size of an outbox has a limit and a channel may have 200 approvers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PersonMark(u64);

impl PersonMark {
    pub fn of(person: &MmUserId) -> Self {
        let digest: [u8; 32] = Sha256::digest(person.as_str()).into();
        let (first, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        Self(u64::from_be_bytes(*first) >> 24)
    }
}

/// A receiver of notices, as the outbox records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiverName {
    /// The webhook of the plugin.
    Webhook,
    /// The cards in Mattermost.
    Mattermost,
    /// The direct messages in Mattermost.
    Messages,
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
    /// The card, and the people who get a direct message.
    Mattermost,
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
    details: BTreeMap<&'a str, String>,
    /// The details that `details` shows in a changed form, exactly as people wrote them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw_details: BTreeMap<&'a str, &'a str>,
}

impl Notice {
    /// The same for every attempt, so that a receiver recognises a repeated delivery.
    pub fn message_id(&self) -> String {
        format!("{}.{}", self.request_id, self.seq)
    }

    /// Records that a receiver has the notice.
    pub fn note_received(&mut self, receiver: ReceiverName) {
        self.received_by.insert(receiver);
        if receiver == ReceiverName::Messages {
            self.told.clear();
        }
    }

    /// The body of the webhook.
    pub fn body(&self) -> Result<Vec<u8>, serde_json::Error> {
        let details = self.details.iter();
        let details = details.map(|(name, said)| (name.as_str(), inactive(said)));
        let details: BTreeMap<&str, String> = details.collect();
        let said = self.details.iter();
        let said = said.map(|(name, said)| (name.as_str(), said.as_str()));
        let is_changed = |(name, said): &(&str, &str)| details[name] != *said;
        let raw_details = said.filter(is_changed).collect();
        serde_json::to_vec(&Payload {
            request_id: self.request_id,
            status: self.status,
            account_id: &self.account_id,
            channel_id: &self.channel_id,
            actor: &self.actor,
            details,
            raw_details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(reason: &str) -> serde_json::Value {
        let notice = Notice {
            request_id: RequestId::from_uuid(uuid::Uuid::from_u128(1)),
            seq: 2,
            status: Status::Denied,
            account_id: "111122223333".parse().unwrap(),
            channel_id: "town".parse().unwrap(),
            actor: "bob@example.com".into(),
            details: [("reason".to_owned(), reason.to_owned())].into(),
            created_at: Timestamp::default(),
            audience: Audience::Everybody,
            received_by: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        serde_json::from_slice(&notice.body().unwrap()).unwrap()
    }

    // N4
    #[test]
    fn a_webhook_shows_no_active_text_and_has_the_raw_text_in_its_own_field() {
        let raw = "@channel see https://evil.example";
        let active = body(raw);
        let shown = active["details"]["reason"].as_str().unwrap();
        assert!(
            !shown.contains("@channel") && !shown.contains("://"),
            "{shown}"
        );
        assert_eq!(active["raw_details"]["reason"], raw);
        let ordinary = body("INC-42: db down");
        assert_eq!(ordinary["details"]["reason"], "INC-42: db down");
        assert_eq!(ordinary.get("raw_details"), None);
    }
}
