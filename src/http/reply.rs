//! What callers are told when the answer is no. One shape, one place.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::unsigned::Unsigned;
use crate::code::Code;
use crate::service::ServiceError;
use crate::store::StoreError;

/// `{"message": "...", "code": "..."}` and the status that belongs to the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub message: String,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The reason is noted, and not told.
    pub fn unsigned(why: Unsigned, path: &str) -> Self {
        why.note(path);
        Self::new(Code::Unsigned, "the call is not signed as it must be")
    }

    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(Code::Malformed, message)
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let message = error.to_string();
        match error {
            ServiceError::Refused(refusal) => Self::new(Code::of(&refusal), message),
            ServiceError::Unknown(_) => Self::new(Code::Unknown, message),
            ServiceError::KeyReused => Self::new(Code::WrongState, message),
            ServiceError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error == StoreError::Replayed {
            return Self::unsigned(Unsigned::Replayed, "");
        }
        // The operator reads why in the log; a caller can do nothing about it.
        tracing::error!(%error, "the store failed");
        if matches!(error, StoreError::TooLarge(_)) {
            return Self::new(Code::TooLarge, format!("{error}; nothing was changed"));
        }
        let message = match error {
            StoreError::Unsure(_) => {
                "jit's store did not answer: it may have been done; look at it, then try again"
            }
            _ => "jit cannot reach its store just now; nothing was changed, try again",
        };
        Self::new(Code::Unavailable, message)
    }
}

#[derive(Serialize)]
struct Shape<'a> {
    message: &'a str,
    code: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Shape {
            message: &self.message,
            code: self.code.as_str(),
        };
        let mut response = json(self.code.http(), &body);
        if matches!(self.code, Code::TooMany | Code::Unavailable) {
            let soon = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }
}

/// Any reply. What we write always serialises; were that ever to fail, nobody is told "done".
pub fn json(status: u16, value: &impl Serialize) -> Response {
    let (status, body) = match (StatusCode::from_u16(status), serde_json::to_vec(value)) {
        (Ok(status), Ok(body)) => (status, body),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
