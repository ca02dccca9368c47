//! What SQLite's complaints mean to a caller.

use rusqlite::{Error, ErrorCode, ffi};

use crate::domain::Invalid;
use crate::store::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match &error {
            Error::SqliteFailure(failure, _) => match (failure.code, failure.extended_code) {
                // A key that is there already: somebody was first.
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

/// A stored document that cannot be read, or an own one that cannot be written: the
/// message names the row, so that somebody can look at it.
pub(super) fn unreadable(what: &str, why: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("{what}: {why}"))
}

pub(super) fn unknown(what: &str, why: &Invalid) -> StoreError {
    StoreError::Corrupt(format!("{what} {why}"))
}
