//! Ids, names and other checked values. Each is parsed once, where it enters jit; after that
//! it is valid.

pub(super) mod normal;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::Millis;

/// Why a value is invalid. The text completes "`<field>` …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// A string with a rule: `FromStr` checks it, serde goes through `FromStr`.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let check: fn(&str) -> Result<String, Invalid> = $check;
                check(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text!(
    /// An AWS account: twelve digits.
    AccountId,
    |text| {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            Ok(text.into())
        } else {
            Err(Invalid("must be the 12 digits of an AWS account"))
        }
    }
);

checked_text!(
    /// A Mattermost channel id.
    ChannelId,
    |text| plain_word(text, "must be a Mattermost channel id: 1 to 64 letters, digits, - or _")
);

checked_text!(
    /// A Mattermost user id in lower case. A user can change the user name, but not the id.
    MmUserId,
    normal::user_id
);

checked_text!(
    /// A post in Mattermost.
    PostId,
    |text| plain_word(text, "must be a Mattermost post id: 1 to 64 letters, digits, - or _")
);

checked_text!(
    /// The configured name of a permission set, never its ARN.
    PermissionSet,
    |text| plain_word(text, "must be a permission set's name: 1 to 64 letters, digits, - or _")
);

checked_text!(
    /// An Identity Store user id.
    UserId,
    |text| plain_word(text, "must be an Identity Store user id")
);

checked_text!(
    /// An e-mail address in its normal form.
    Email,
    normal::address
);

checked_text!(
    /// A text that a person wrote: a reason or a ticket. It may have line breaks.
    Text,
    |text| {
        let text = text.trim();
        if text.is_empty() || text.chars().count() > 1000 {
            Err(Invalid("must be 1 to 1000 characters"))
        } else if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            Err(Invalid("must not contain control characters"))
        } else {
            Ok(text.into())
        }
    }
);

impl Text {
    /// Makes a valid text out of one that jit or AWS wrote: it is cut and cleaned, not refused.
    pub fn clip(text: &str) -> Self {
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(1000)
            .collect();
        let clean = clean.trim();
        Self(if clean.is_empty() { "unknown" } else { clean }.into())
    }
}

fn plain_word(text: &str, rule: &'static str) -> Result<String, Invalid> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err(Invalid(rule))
    }
}

/// A request's id, a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The id of no request.
    pub const NIL: Self = Self(Uuid::nil());

    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Puts requests into an order that differs for each `salt`.
    pub const fn salted(self, salt: u128) -> u128 {
        self.0.as_u128() ^ salt
    }

    /// A pause in the second half of `whole`. It differs for each request and each turn, so that
    /// requests which failed together are not retried together; it needs no random numbers.
    pub fn spread(self, turn: u32, whole: Millis) -> Millis {
        let half = whole.0 / 2;
        let (high, low) = self.0.as_u64_pair();
        let mixed = (high ^ low)
            .rotate_left(turn)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 44;
        Millis(half + i64::try_from(mixed).unwrap_or(0) * half / (1 << 20))
    }
}

impl FromStr for RequestId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Only the hyphenated form, so that each request id has one spelling.
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
            Ok(_) | Err(_) => Err(Invalid("must be a request id (a UUID)")),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The id of a lease; a new one for every claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseToken(pub Uuid);

impl LeaseToken {
    /// The name of an unanswered call that the commit after this revision records. The name is new,
    /// so each process begins its wait for this call when it first reads the name, even if it has
    /// waited out an earlier call of the same lease.
    pub(super) fn call_at(self, revision: u64) -> Self {
        Self(Uuid::from_u128(self.0.as_u128() ^ u128::from(revision + 1)))
    }

    /// The same for a create that this request leaves to the other holders.
    pub(super) fn create_left_by(id: RequestId, revision: u64) -> Self {
        Self(id.0).call_at(revision)
    }
}

/// The duration of an access: at least a minute, at most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Minutes(u32);

impl Minutes {
    const MOST: i64 = 366 * 24 * 60;

    pub fn new(minutes: i64) -> Result<Self, Invalid> {
        match u32::try_from(minutes) {
            Ok(value) if (1..=Self::MOST).contains(&minutes) => Ok(Self(value)),
            Ok(_) | Err(_) => Err(Invalid("must be a whole number of minutes, at least 1")),
        }
    }

    pub fn get(self) -> u32 {
        self.0
    }

    pub fn span(self) -> super::Millis {
        super::Millis::minutes(i64::from(self.0))
    }
}

impl<'de> Deserialize<'de> for Minutes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(i64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A person who gives a command, as named by the signed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The Mattermost user id; jit derives one for an operator who gives none.
    #[serde(deserialize_with = "normal::stored_user_id")]
    pub id: MmUserId,
    /// The e-mail address; a requester has the same one in Identity Center.
    #[serde(deserialize_with = "normal::stored_address")]
    pub email: Email,
}

impl Person {
    /// Whether both are the same person: by the user id or by the address. A second account with
    /// the same address, or a changed address, is still the same person.
    pub fn is(&self, other: &Person) -> bool {
        self.id == other.id || self.email == other.email
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_id_or_text_is_refused() {
        assert!("123456789012".parse::<AccountId>().is_ok());
        for bad in [
            "1234567890123",
            "12345678901",
            "12345678901a",
            "１２３４５６７８９０１２",
            "",
        ] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a\u{0}b", "a/b", "ü"] {
            assert!(bad.parse::<ChannelId>().is_err(), "{bad:?}");
        }
        for bad in ["", "alice", "@x", "a@", "a b@x", "a@b@c", "a@b\n"] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
        // K9, K12: a value that is accepted is read back unchanged.
        let long = format!("{}@x", "\u{130}".repeat(126));
        assert!(long.parse::<Email>().is_err());
        for bad in ["", "   ", "a\u{7}b", "\u{1b}[31m"] {
            assert!(bad.parse::<Text>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(1001).parse::<Text>().is_err());
    }

    #[test]
    fn minutes_of_zero_or_more_than_a_year_are_refused() {
        for bad in [0, -5, i64::MIN, i64::MAX, 600_000] {
            assert!(Minutes::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Minutes::new(60).map(Minutes::get), Ok(60));
    }

    #[test]
    fn a_request_id_has_one_spelling() {
        let id = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
        assert_eq!(id.parse::<RequestId>().unwrap().to_string(), id);
        assert!(id.replace('-', "").parse::<RequestId>().is_err());
        assert!("req-123".parse::<RequestId>().is_err());
    }
}
