//! Maps errors of SQLite to `StoreError`.

use rusqlite::{Error, ErrorCode, ffi};

use crate::domain::Invalid;
use crate::store::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match &error {
            Error::SqliteFailure(failure, _) => match (failure.code, failure.extended_code) {
                // The key exists already, so another write came first.
                (
                    ErrorCode::ConstraintViolation,
                    ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE,
                ) => Self::Conflict(None),
                (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => {
                    Self::Corrupt(error.to_string())
                }
                _ => Self::Unavailable(error.to_string()),
            },
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
            | Error::SqlInputError { .. } => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Makes the error for a document that cannot be read or written. The message names the row, so
/// that an operator can find it.
pub(super) fn unreadable(what: &str, why: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("{what}: {why}"))
}

pub(super) fn unknown(what: &str, why: &Invalid) -> StoreError {
    StoreError::Corrupt(format!("{what} {why}"))
}
