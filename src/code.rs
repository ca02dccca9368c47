//! The error codes: the word, the HTTP status, and the refusals that each of them covers.

use crate::domain::Refusal;

/// An error code of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    Malformed,
    Unsigned,
    NotAllowed,
    Unknown,
    NoSuchRoute,
    WrongMethod,
    WrongState,
    TooEarly,
    TooLarge,
    NotJson,
    TooMany,
    Unavailable,
    Internal,
}

impl Code {
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Unsigned,
        Self::NotAllowed,
        Self::Unknown,
        Self::NoSuchRoute,
        Self::WrongMethod,
        Self::WrongState,
        Self::TooEarly,
        Self::TooLarge,
        Self::NotJson,
        Self::TooMany,
        Self::Unavailable,
        Self::Internal,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsigned => "unsigned",
            Self::NotAllowed => "not_allowed",
            Self::Unknown => "unknown",
            Self::NoSuchRoute => "no_such_route",
            Self::WrongMethod => "wrong_method",
            Self::WrongState => "wrong_state",
            Self::TooEarly => "too_early",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::TooMany => "too_many",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    pub fn http(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unsigned => 401,
            Self::NotAllowed => 403,
            Self::Unknown | Self::NoSuchRoute => 404,
            Self::WrongMethod => 405,
            Self::WrongState => 409,
            Self::TooLarge => 413,
            Self::NotJson => 415,
            Self::TooEarly => 425,
            Self::TooMany => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// Returns the code for a refusal of the domain.
    pub fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NoReason
            | Refusal::TooLong { .. }
            | Refusal::StartTooFar { .. }
            | Refusal::StartInPast { .. }
            | Refusal::UnknownPermissionSet { .. }
            | Refusal::TooManyApprovers { .. }
            | Refusal::TooManySets { .. }
            | Refusal::QuorumTooLarge { .. } => Self::Malformed,
            Refusal::NotBound { .. }
            | Refusal::SetNotAllowed { .. }
            | Refusal::NoApprovers { .. }
            | Refusal::NotAnApprover { .. }
            | Refusal::SelfApproval
            | Refusal::NoLongerAllowed { .. }
            | Refusal::ApprovalsWithdrawn { .. }
            | Refusal::NotARevoker { .. }
            | Refusal::NotTheRequester { .. }
            | Refusal::NotAnAdmin => Self::NotAllowed,
            Refusal::NothingBound { .. } | Refusal::NothingToUnbind { .. } => Self::Unknown,
            Refusal::WrongState { .. }
            | Refusal::NotWhatWasShown { .. }
            | Refusal::BeingRemoved { .. }
            | Refusal::WaitedTooLong { .. }
            | Refusal::AlreadyApproved { .. }
            | Refusal::ExtensionWaiting { .. }
            | Refusal::ExtendedTooFar { .. }
            | Refusal::BoundElsewhere { .. }
            | Refusal::TooManyAccounts { .. }
            | Refusal::TooManyApprovals { .. }
            | Refusal::TooManyPending { .. }
            | Refusal::NotGone { .. }
            | Refusal::NotDue { .. }
            | Refusal::Leased { .. } => Self::WrongState,
        }
    }
}
