//! The status of a request, as people and programs see it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// The status that people and programs see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Pending,
    Approved,
    Granted,
    Denied,
    Revoked,
    Expired,
    Cancelled,
    Error,
}

impl Status {
    /// The length is taken from the last status, so a status that is missing here does not compile.
    pub const ALL: [Self; Self::Error as usize + 1] = [
        Self::Pending,
        Self::Approved,
        Self::Granted,
        Self::Denied,
        Self::Revoked,
        Self::Expired,
        Self::Cancelled,
        Self::Error,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Granted => "GRANTED",
            Self::Denied => "DENIED",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or(Invalid(
                "must be PENDING, APPROVED, GRANTED, DENIED, REVOKED, EXPIRED, CANCELLED or ERROR",
            ))
    }
}
