//! Maps the errors of the AWS SDK to the kinds of error that decide about a retry.

use aws_sdk_ssoadmin::error::{ProvideErrorMetadata, SdkError};

use crate::identity_center::{IdentityCenterError, IdentityCenterErrorKind, aws_causes, unsent};

pub(super) fn unexpected(what: impl std::fmt::Display) -> IdentityCenterError {
    let why = format!("AWS answered something unexpected: {what}");
    IdentityCenterError::new(IdentityCenterErrorKind::NoAnswer, why)
}

pub(super) fn is_absent<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

impl<E> From<SdkError<E>> for IdentityCenterError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        refused(&error)
    }
}

fn refused<E>(error: &SdkError<E>) -> IdentityCenterError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let SdkError::ServiceError(answered) = error else {
        return unanswered(error);
    };
    let code = error.code().unwrap_or_default();
    let status = answered.raw().status().as_u16();
    let kind = match code {
        "ConflictException" => IdentityCenterErrorKind::Conflict,
        "ServiceQuotaExceededException" => IdentityCenterErrorKind::Throttled,
        "ValidationException" => IdentityCenterErrorKind::Invalid,
        _ if is_throttling(code) || status == 429 => IdentityCenterErrorKind::Throttled,
        _ if is_denial(code) || status == 403 => IdentityCenterErrorKind::Denied,
        // The resource does not exist, or not yet: a later call shows which.
        _ => IdentityCenterErrorKind::NoAnswer,
    };
    let said = error.message().unwrap_or("no message");
    let why = match code {
        "" => format!("HTTP {status}: {said}"),
        code => format!("{code}: {said}"),
    };
    IdentityCenterError::new(kind, why)
}

fn is_throttling(code: &str) -> bool {
    [
        "Throttling",
        "TooManyRequests",
        "RequestLimitExceeded",
        "SlowDown",
    ]
    .iter()
    .any(|word| code.contains(word))
}

/// The credentials are missing a permission, or are invalid.
fn is_denial(code: &str) -> bool {
    matches!(
        code,
        "AccessDeniedException"
            | "AccessDenied"
            | "UnauthorizedException"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "IncompleteSignature"
            | "OptInRequired"
            | "ExpiredToken"
            | "ExpiredTokenException"
    )
}

/// There was no answer. Without credentials or a region no call was sent, and fast retries do
/// not help.
fn unanswered<E>(error: &SdkError<E>) -> IdentityCenterError
where
    E: std::error::Error + 'static,
{
    let kind = match unsent(error) {
        Some(_) => IdentityCenterErrorKind::Unsent,
        None => IdentityCenterErrorKind::NoAnswer,
    };
    IdentityCenterError::new(kind, aws_causes(error))
}
