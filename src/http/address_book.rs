//! A person whom a signed call names by an address alone (H7): the approvers who were named in
//! Mattermost have user ids that no person types.
//!
//! An address finds a person only if the call gives no user id, and only if Mattermost verifies
//! addresses. An address beside a user id never does: a plugin sends there what the user chose.
//! The rules then see the user id alone, so an address alone makes no person an approver.

use async_trait::async_trait;

use super::HttpState;
use super::reply::Problem;
use crate::code::Code;
use crate::domain::{Email, MmUserId, Person};

/// Finds users by their verified addresses.
#[async_trait]
pub trait AddressBook: Send + Sync {
    async fn user_with(&self, email: &Email) -> Result<MmUserId, NoUser>;
}

/// Why an address names no user. Each has a text that a caller can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUser {
    #[error("the address {0} finds no person, because Mattermost does not verify addresses")]
    Unverified(Email),
    #[error("no user in Mattermost has the address {0}")]
    Unknown(Email),
    #[error("the user with the address {email} may not act: {why}")]
    NotAdmitted { email: Email, why: String },
    #[error("jit cannot ask Mattermost who has the address {0} just now; nothing was changed")]
    NoAnswer(Email),
}

impl HttpState {
    /// The person whom a call names. `field` is the name of the user id in the body.
    pub(super) async fn named(
        &self,
        field: &str,
        id: Option<MmUserId>,
        email: Email,
    ) -> Result<Person, Problem> {
        if let Some(id) = id {
            return Ok(Person { id, email });
        }
        let Some(book) = &self.address_book else {
            return Err(Problem::malformed(format!(
                "{field} is missing: jit finds a person by the address only with [mattermost]"
            )));
        };
        match book.user_with(&email).await {
            Ok(id) => Ok(Person { id, email }),
            Err(why) => {
                let code = match why {
                    NoUser::NoAnswer(_) => Code::Unavailable,
                    NoUser::Unverified(_) | NoUser::Unknown(_) | NoUser::NotAdmitted { .. } => {
                        Code::NotAllowed
                    }
                };
                Err(Problem::new(code, format!("{why}; give {field}")))
            }
        }
    }
}
