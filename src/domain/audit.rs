//! The audit: all events of a request or a channel, in order and verifiable.
//!
//! Every request (and every channel's configuration) has a chain of events. Each event carries
//! the hash of the event before it. A reader of the chain therefore finds an event that was
//! changed, removed or inserted.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{AccountId, ChannelId, Hash, Invalid, Person, RequestId, Timestamp};

/// The owner of a chain, and the audit table's `request_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditKey {
    Request(RequestId),
    /// The configuration of a channel.
    Config(ChannelId),
}

/// All kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventKind {
    Requested,
    /// An approval that does not complete the quorum.
    ApprovalRecorded,
    /// The approval that completes the quorum.
    Approved,
    Denied,
    Cancelled,
    /// A worker is about to ask AWS for the access.
    Assigning,
    Granted,
    ExtensionRequested,
    Extended,
    ExtensionDenied,
    /// The requester was told that the access ends soon.
    EndAnnounced,
    RevokeRequested,
    /// The removal at the end of a grant began.
    ExpiryStarted,
    /// jit gave the grant up, and the removal of what AWS may have made began.
    RollbackStarted,
    /// Attempts of a removal failed; recorded after 1, 2, 4, 8, … of them.
    RemovalFailing,
    /// Access of a settled request exists or may appear.
    StrayAccessFound,
    StrayAccessRemoved,
    /// A deny statement ends the old credentials.
    SessionsDenied,
    /// Old credentials do not work any more, without a deny statement.
    SessionsEnded,
    /// Attempts to deny old credentials failed.
    SessionsNotEnded,
    /// The deny statement was removed.
    SessionDenyLifted,
    /// An operator said that the access was removed by hand; AWS was not asked.
    CleanedUp,
    Revoked,
    Expired,
    Error,
    /// A notice was given up, because it could not be delivered.
    NoticeParked,
    /// A click or a dialog was not accepted as genuine.
    ForgeryRefused,
    /// An account was bound to the channel.
    Bound,
    BindingChanged,
    ApproversSet,
    Unbound,
}

impl EventKind {
    /// The length is taken from the last kind, so a kind that is missing here does not compile.
    pub const ALL: [Self; Self::Unbound as usize + 1] = [
        Self::Requested,
        Self::ApprovalRecorded,
        Self::Approved,
        Self::Denied,
        Self::Cancelled,
        Self::Assigning,
        Self::Granted,
        Self::ExtensionRequested,
        Self::Extended,
        Self::ExtensionDenied,
        Self::EndAnnounced,
        Self::RevokeRequested,
        Self::ExpiryStarted,
        Self::RollbackStarted,
        Self::RemovalFailing,
        Self::StrayAccessFound,
        Self::StrayAccessRemoved,
        Self::SessionsDenied,
        Self::SessionsEnded,
        Self::SessionsNotEnded,
        Self::SessionDenyLifted,
        Self::CleanedUp,
        Self::Revoked,
        Self::Expired,
        Self::Error,
        Self::NoticeParked,
        Self::ForgeryRefused,
        Self::Bound,
        Self::BindingChanged,
        Self::ApproversSet,
        Self::Unbound,
    ];
}

/// Where a chain ends: the number, hash and time of its last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chain {
    /// The number of the last event; 0 if there is none.
    pub version: u64,
    /// The hash of the last event.
    pub head: Hash,
    /// The time of the last event.
    pub last_at: Timestamp,
}

/// The position of an event in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPlace {
    /// The time of the event.
    pub at: Timestamp,
    /// The number of the event.
    pub seq: u64,
}

impl EventPlace {
    /// The position just before the event with this number, which is not older than `since`.
    pub fn before(seq: u64, since: Timestamp) -> Self {
        Self {
            at: since,
            seq: seq.saturating_sub(1),
        }
    }
}

/// One audit event. The fields are in alphabetical order because the hash is taken over the
/// event's JSON without `hash`, with sorted keys and no white space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The AWS account of the event; absent if the event is not about exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// The address of the person who caused the event; absent if no person is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_email: Option<String>,
    /// The Mattermost user id of that person; `key:` and the key id if the signed call names no
    /// person; absent if neither is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_mm_user_id: Option<String>,
    /// The Mattermost channel of the request or of the configuration.
    pub channel_id: ChannelId,
    /// More about the event, by name, such as `reason` or `end_time`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
    /// The number and the owner of the chain, so that it is unique.
    pub event_id: String,
    /// When the event happened, but never before the time of the event before it.
    pub event_time: Timestamp,
    /// The kind of the event.
    pub event_type: EventKind,
    /// The SHA-256 of this event without this field; the next event repeats it.
    #[serde(default, skip_serializing_if = "Hash::is_zero")]
    pub hash: Hash,
    /// The hash of the event before it.
    pub prev_hash: Hash,
    /// The owner of the chain.
    pub request_id: AuditKey,
    /// The number of the event in its chain; the first is 1.
    pub seq: u64,
    /// The request's status after the event; absent for configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<super::Status>,
}

/// The part of an event that its author supplies.
pub struct EventDraft<'a> {
    /// See [`Event::request_id`].
    pub key: AuditKey,
    /// See [`Event::event_type`].
    pub kind: EventKind,
    /// See [`Event::account_id`].
    pub account_id: Option<&'a AccountId>,
    /// See [`Event::channel_id`].
    pub channel_id: &'a ChannelId,
    /// The person who gave the command; absent for the time and for workers.
    pub actor: Option<&'a Person>,
    /// See [`Event::status`].
    pub status: Option<super::Status>,
    /// See [`Event::details`].
    pub details: BTreeMap<String, String>,
}

impl Chain {
    /// Adds the next event. Its time is never before the time of the event before it, whatever
    /// the clock says: the audit table is sorted by it.
    pub fn append(&mut self, entry: EventDraft<'_>, now: Timestamp) -> Event {
        let seq = self.version + 1;
        let mut event = Event {
            account_id: entry.account_id.cloned(),
            actor_email: entry.actor.map(|p| p.email.to_string()),
            actor_mm_user_id: entry.actor.map(|p| p.id.to_string()),
            channel_id: entry.channel_id.clone(),
            details: entry.details,
            event_id: event_id(seq, &entry.key),
            event_time: now.max(self.last_at),
            event_type: entry.kind,
            hash: Hash::default(),
            prev_hash: self.head,
            request_id: entry.key,
            seq,
            status: entry.status,
        };
        event.hash = event.compute_hash();
        *self = Self {
            version: seq,
            head: event.hash,
            last_at: event.event_time,
        };
        event
    }
}

impl Event {
    /// The sort key of the audit table.
    pub fn sort_key(&self) -> String {
        format!("{}#{}", self.event_time, self.event_id)
    }

    /// The position of the event in its history.
    pub fn place(&self) -> EventPlace {
        EventPlace {
            at: self.event_time,
            seq: self.seq,
        }
    }

    /// B4: the key is the actor of a signed call that names no person.
    pub(super) fn act_as_key(&mut self, key_id: &str) {
        if self.actor_mm_user_id.is_none() {
            self.actor_mm_user_id = Some(format!("key:{key_id}"));
        }
    }

    /// The Mattermost user id of the person who acted; `None` if a key did, which has no address.
    pub(super) fn person_id(&self) -> Option<&String> {
        self.actor_email
            .as_ref()
            .and(self.actor_mm_user_id.as_ref())
    }

    /// Puts the event behind the one with this hash, and returns its own hash.
    pub(super) fn chained_to(&mut self, before: Hash) -> Hash {
        self.prev_hash = before;
        self.hash = Hash::default();
        self.hash = self.compute_hash();
        self.hash
    }

    /// The hash of the event without its own hash.
    fn compute_hash(&self) -> Hash {
        if self.hash != Hash::default() {
            let hash = Hash::default();
            return Self {
                hash,
                ..self.clone()
            }
            .compute_hash();
        }
        // An event has only strings, numbers and a map of strings, so it can always be
        // serialised. If that failed, the empty text would fail every verification.
        let text = serde_json::to_vec(self).unwrap_or_default();
        Hash::of(&text)
    }
}

fn event_id(seq: u64, key: &AuditKey) -> String {
    format!("{seq:06}-{key}")
}

impl EventPlace {
    /// The sort key of the event at this place in the history.
    pub fn sort_key(self, key: &AuditKey) -> String {
        format!("{}#{}", self.at, event_id(self.seq, key))
    }

    /// Reads the sort key of an event of this history.
    pub fn parse(text: &str, key: &AuditKey) -> Option<Self> {
        let (at, event_id) = text.split_once('#')?;
        let (seq, _) = event_id.split_once('-')?;
        let place = Self {
            at: Timestamp::parse(at)?,
            seq: seq.parse().ok()?,
        };
        (place.sort_key(key) == text).then_some(place)
    }
}

/// Why the verification of a history failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Tampered {
    #[error("event {seq} is missing (event {found} follows {before})", before = seq - 1)]
    Missing {
        /// The number that the next event must have.
        seq: u64,
        /// The number that the next event has.
        found: u64,
    },
    #[error("event {seq} does not follow the event before it")]
    Unchained {
        /// The number of the event.
        seq: u64,
    },
    #[error("event {seq} was changed after it was written")]
    Changed {
        /// The number of the event.
        seq: u64,
    },
    #[error("the history ends at event {found}, but the record says {expected}")]
    Short {
        /// The number of events according to the record.
        expected: u64,
        /// The number of events in the history.
        found: u64,
    },
    #[error("the last event is not the one that the record was written with")]
    Head,
    #[error("the record says that its last event is of {record}, and that event is of {history}")]
    LastAt {
        /// The time in the record.
        record: Timestamp,
        /// The time of the last event.
        history: Timestamp,
    },
    #[error("the record says {record}, but its history ends in {history}")]
    Status {
        /// The status in the record, or `nothing` for a channel.
        record: String,
        /// The status after the last event, or `nothing` if the history has none.
        history: String,
    },
}

/// Walks a whole chain from its first event and returns where it ends.
pub fn verify(events: &[Event]) -> Result<Chain, Tampered> {
    let mut chain = Chain::default();
    for event in events {
        let seq = chain.version + 1;
        if event.seq != seq {
            return Err(Tampered::Missing {
                seq,
                found: event.seq,
            });
        }
        if event.prev_hash != chain.head || event.event_time < chain.last_at {
            return Err(Tampered::Unchained { seq });
        }
        if event.hash != event.compute_hash() {
            return Err(Tampered::Changed { seq });
        }
        chain = Chain {
            version: seq,
            head: event.hash,
            last_at: event.event_time,
        };
    }
    Ok(chain)
}

/// Verifies the chain, and checks that the record agrees with its end.
pub fn verify_against(
    events: &[Event],
    record: &Chain,
    status: Option<super::Status>,
) -> Result<(), Tampered> {
    let walked = verify(events)?;
    if walked.version != record.version {
        return Err(Tampered::Short {
            expected: record.version,
            found: walked.version,
        });
    }
    if walked.head != record.head {
        return Err(Tampered::Head);
    }
    // The next event would not be before this time. A record of an earlier jit has no such time.
    if record.last_at > walked.last_at {
        return Err(Tampered::LastAt {
            record: record.last_at,
            history: walked.last_at,
        });
    }
    let last = events.last().and_then(|event| event.status);
    if last != status {
        let word = |s: Option<super::Status>| s.map_or("nothing".into(), |s| s.to_string());
        return Err(Tampered::Status {
            record: word(status),
            history: word(last),
        });
    }
    Ok(())
}

impl fmt::Display for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(id) => id.fmt(f),
            Self::Config(channel) => write!(f, "config#{channel}"),
        }
    }
}

impl FromStr for AuditKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix("config#") {
            Some(channel) => channel.parse().map(Self::Config),
            None => text.parse().map(Self::Request),
        }
    }
}

impl Serialize for AuditKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AuditKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Status;
    use proptest::prelude::*;

    fn history(lengths: &[u8]) -> (Vec<Event>, Chain) {
        let channel: ChannelId = "ch1".parse().unwrap();
        let mut chain = Chain::default();
        let events = lengths
            .iter()
            .map(|n| {
                let entry = EventDraft {
                    key: AuditKey::Config(channel.clone()),
                    kind: EventKind::Bound,
                    account_id: None,
                    channel_id: &channel,
                    actor: None,
                    status: None,
                    details: BTreeMap::from([("n".into(), n.to_string())]),
                };
                chain.append(entry, Timestamp::from_seconds(i64::from(*n)))
            })
            .collect();
        (events, chain)
    }

    #[test]
    fn event_times_stay_in_order_when_the_clock_runs_back() {
        let (events, chain) = history(&[9, 3]);
        assert_eq!(events[1].event_time, events[0].event_time);
        assert!(events[1].sort_key() > events[0].sort_key());
        assert_eq!(verify_against(&events, &chain, None), Ok(()));
    }

    #[test]
    fn a_history_without_its_last_event_is_found_by_the_record() {
        let (mut events, chain) = history(&[1, 2, 3]);
        events.pop();
        assert_eq!(
            verify_against(&events, &chain, None),
            Err(Tampered::Short {
                expected: 3,
                found: 2
            })
        );
    }

    #[test]
    fn a_change_of_any_field_is_found() {
        let channel: ChannelId = "ch1".parse().unwrap();
        let account: AccountId = "111122223333".parse().unwrap();
        let actor = Person {
            id: "alice".parse().unwrap(),
            email: "alice@example.com".parse().unwrap(),
        };
        let mut chain = Chain::default();
        let entry = EventDraft {
            key: AuditKey::Config(channel.clone()),
            kind: EventKind::Bound,
            account_id: Some(&account),
            channel_id: &channel,
            actor: Some(&actor),
            status: Some(Status::Pending),
            details: BTreeMap::from([("n".into(), "1".into())]),
        };
        let event = chain.append(entry, Timestamp::from_seconds(1));
        let whole = serde_json::to_value(&event).unwrap();
        let names: Vec<&String> = whole.as_object().unwrap().keys().collect();
        for (name, other) in [
            ("account_id", "444455556666".into()),
            ("actor_email", "mallory@example.com".into()),
            ("actor_mm_user_id", "mallory".into()),
            ("channel_id", "ch2".into()),
            ("details", serde_json::json!({"n": "2"})),
            ("event_id", "000001-other".into()),
            ("event_time", "1970-01-01T00:00:02.000Z".into()),
            ("event_type", "UNBOUND".into()),
            ("hash", "1".repeat(64).into()),
            ("prev_hash", "1".repeat(64).into()),
            ("request_id", "config#ch2".into()),
            ("seq", 2.into()),
            ("status", "GRANTED".into()),
        ] {
            assert!(names.iter().any(|one| *one == name), "{name}: {whole}");
            let mut forged = whole.clone();
            forged[name] = other;
            let forged: Event = serde_json::from_value(forged).unwrap();
            assert_ne!(forged, event, "{name}");
            assert!(verify(&[forged]).is_err(), "{name}");
        }
        assert_eq!(
            names.len(),
            13,
            "fields without a change in this test: {names:?}"
        );
        assert!(verify(&[event]).is_ok());
    }

    proptest! {
        // P7
        #[test]
        fn every_changed_removed_or_inserted_event_is_found(lengths in proptest::collection::vec(0u8..9, 2..8), at in 0usize..8, how in 0..4) {
            let (mut events, chain) = history(&lengths);
            let at = at % events.len();
            match how {
                0 => { events[at].details.insert("n".into(), "forged".into()); }
                1 => { events.remove(at); }
                2 => {
                    // A recomputed hash does not match the next event, or the record.
                    events[at].actor_email = Some("mallory@example.com".into());
                    events[at].hash = events[at].compute_hash();
                }
                _ => { let twin = events[at].clone(); events.insert(at, twin); }
            }
            prop_assert!(verify_against(&events, &chain, None).is_err());
        }
    }
}
