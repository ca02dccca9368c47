//! A credential session: one person fetches short-lived credentials of a role for as long as a
//! grant lasts and nobody ends the session.
//!
//! Every issue of credentials is decided anew (`decide`), for as short a time as all rules allow
//! (`terms`), and AWS gets its parameters from `assume_role`.

mod assume_role;
mod decide;
#[cfg(test)]
mod fixtures;
mod terms;

pub use assume_role::{AssumeRole, AssumeRoleOptions, SESSION_TAG};
pub use decide::{SessionBasis, SessionRefusal, SessionStart};
pub use terms::{Cap, Caps, Terms};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AccountId, Invalid, PermissionSet, Person, RequestId, RoleArn, Text, Timestamp};

/// The id of a session: 16 lowercase hexadecimal digits, so that it fits into a tag and a name at
/// AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// Takes the id from a random UUID.
    pub fn from_uuid(uuid: Uuid) -> Self {
        let (high, low) = uuid.as_u64_pair();
        Self(high ^ low)
    }
}

impl FromStr for SessionId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let number = (text.len() == 16 && text.bytes().all(is_digit))
            .then(|| u64::from_str_radix(text, 16).ok());
        let rule = "must be a session id: 16 digits of 0-9 and a-f, like 3f9c2a7be01d4c56";
        number.flatten().map(Self).ok_or(Invalid(rule))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The way in which a person fetches the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionMode {
    /// A helper on the person's machine answers SDKs over the container-credentials protocol.
    Server,
    /// An SDK starts a program that prints them (`credential_process`).
    Process,
    /// One command prints them.
    Cli,
}

/// The record of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    #[serde(rename = "session_id")]
    pub id: SessionId,
    /// The request whose grant the session uses.
    pub request_id: RequestId,
    /// The requester, the only person who gets credentials.
    pub person: Person,
    pub account_id: AccountId,
    pub permission_set: PermissionSet,
    /// The role of the permission set in this account when the session began.
    #[serde(rename = "role_arn")]
    pub role: RoleArn,
    pub state: SessionState,
    pub mode: SessionMode,
    /// The name that the client gave, such as its host; absent if it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Text>,
    pub started_at: Timestamp,
    /// The end of the grant when the session began; an extension of the grant needs a new session.
    pub expires_at: Timestamp,
    #[serde(flatten)]
    pub issued: Issued,
    /// Grows with every write.
    pub version: u64,
}

/// A session is active until one of the two ends, which are final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum SessionState {
    Active,
    Revoked {
        /// Absent if an operator wrote the status of the request into the store.
        by: Option<Person>,
        /// Absent if the owner gave none.
        reason: Option<Text>,
        at: Timestamp,
    },
    Expired {
        at: Timestamp,
    },
}

/// The credentials that the session got so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    #[serde(rename = "credential_count")]
    pub count: u64,
    /// When the owner last asked and got an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_access_at: Option<Timestamp>,
    /// When the last of the credentials stops to work.
    #[serde(
        default,
        rename = "last_credential_expires_at",
        skip_serializing_if = "Option::is_none"
    )]
    pub last_expires_at: Option<Timestamp>,
    /// The id of the newest access key, which CloudTrail shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_access_key_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_has_one_spelling() {
        let id: SessionId = "3f9c2a7be01d4c56".parse().unwrap();
        assert_eq!(id.to_string(), "3f9c2a7be01d4c56");
        let stored = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<SessionId>(&stored).unwrap(), id);
        for bad in [
            "",
            "3f9c2a7be01d4c5",
            "3f9c2a7be01d4c567",
            "3F9C2A7BE01D4C56",
            "+f9c2a7be01d4c56",
            "3f9c2a7b-01d4c56",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_record_is_one_flat_object_that_is_read_back() {
        let mut session = fixtures::session();
        session.issued = Issued {
            count: 2,
            last_access_at: Some(fixtures::now()),
            last_expires_at: Some(fixtures::now()),
            last_access_key_id: Some("ASIAEXAMPLE".into()),
        };
        let stored = serde_json::to_value(&session).unwrap();
        assert_eq!(stored["credential_count"], 2);
        assert_eq!(stored["session_id"], "00000000000000ab");
        assert_eq!(stored["state"]["is"], "active");
        assert_eq!(serde_json::from_value::<Session>(stored).unwrap(), session);
    }
}
