//! What a refusal of AWS's means for whoever wants to try again.

use aws_sdk_ssoadmin::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::identity_center::{IdentityCenterError, IdentityCenterErrorKind};

pub(super) fn unexpected(what: impl std::fmt::Display) -> IdentityCenterError {
    let why = format!("AWS answered something unexpected: {what}");
    IdentityCenterError::new(IdentityCenterErrorKind::NoAnswer, why)
}

pub(super) fn is_absent<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

/// What a refusal means for whoever wants to try again.
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
        // What was asked about is not there, or not yet: looking again tells.
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

/// The credentials are not good enough, or not good at all.
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

/// Nobody answered. Without credentials or a region nothing was even sent, and trying fast
/// will not help.
fn unanswered<E>(error: &SdkError<E>) -> IdentityCenterError
where
    E: std::error::Error + 'static,
{
    let why = DisplayErrorContext(error).to_string();
    let kind = if lacks_identity(error) {
        IdentityCenterErrorKind::Denied
    } else {
        IdentityCenterErrorKind::NoAnswer
    };
    IdentityCenterError::new(kind, why)
}

fn lacks_identity(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if ["credentials", "region", "identity cache"]
            .iter()
            .any(|word| said.contains(word))
        {
            return true;
        }
        cause = error.source();
    }
    false
}
