//! The JSON of replies, and the one form of every error reply.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::already;
use super::unsigned::Unsigned;
use crate::code::Code;
use crate::domain::Request;
use crate::service::ServiceError;
use crate::store::StoreError;
use crate::telemetry::sampled;

/// An error reply: `{"message": "...", "code": "..."}`, with the HTTP status of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub message: String,
    /// The request whose status does not allow the command.
    pub request: Option<Box<serde_json::Value>>,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            request: None,
        }
    }

    /// Adds the request as it is now.
    pub fn about(mut self, request: &Request) -> Self {
        // A request that cannot be serialised is left out: the message is what matters.
        self.request = already::shown(request).map(Box::new);
        self
    }

    /// A refused signature. jit counts and logs the reason, and does not tell it to the caller.
    pub fn unsigned(why: Unsigned, path: &str) -> Self {
        why.note(path);
        Self::new(Code::Unsigned, "the call has no valid signature")
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
        // The cause goes to the log only: the operator can act on it, and the caller cannot.
        if let Some(unlogged) = sampled("store failure") {
            tracing::error!(%error, unlogged, "the store failed; the caller gets an error");
        }
        if matches!(error, StoreError::TooLarge(_)) {
            return Self::new(Code::TooLarge, format!("{error}; nothing was changed"));
        }
        let message = match error {
            StoreError::Unsure(_) => {
                "jit's store did not answer and may have made the change: look at the request, \
                 then try again"
            }
            _ => "jit cannot use its store at the moment; nothing was changed: try again",
        };
        Self::new(Code::Unavailable, message)
    }
}

#[derive(Serialize)]
struct Shape<'a> {
    message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a serde_json::Value>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Shape {
            message: &self.message,
            code: self.code.as_str(),
            request: self.request.as_deref(),
        };
        let mut response = json(self.code.http(), &body);
        if matches!(self.code, Code::TooMany | Code::Unavailable) {
            let soon = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }
}

/// Makes a JSON reply. If the value cannot be serialised, the reply is a 500, so that a failure
/// never looks like a success.
pub fn json(status: u16, value: &impl Serialize) -> Response {
    // Most replies have about this size.
    let mut body = Vec::with_capacity(1024);
    let written = serde_json::to_writer(&mut body, value);
    let (status, body) = match (StatusCode::from_u16(status), written) {
        (Ok(status), Ok(())) => (status, body),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::captured::CapturedLog;

    /// A5: each call during a failure of the store would write a line.
    #[test]
    fn a5_the_log_has_a_sample_of_the_failures_of_the_store() {
        let (log, _guard) = CapturedLog::start();
        for _ in 0..50 {
            let problem = Problem::from(StoreError::Unavailable("the disk is full".into()));
            assert_eq!(problem.code, Code::Unavailable);
        }
        let lines = log.text().matches("the store failed").count();
        assert!((1..=20).contains(&lines), "{lines}");
    }
}
