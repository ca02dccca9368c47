//! The subject of a decision. Buttons and dialogs carry it under their seals, and the command of
//! the approver carries it to the decision, so that no approver decides on something else than what
//! the card or the dialog showed (W15).

use std::fmt;
use std::str::FromStr;

use crate::domain::{Extension, Invalid, Minutes, Request, State, Timestamp};

/// The request or the extension that waits for a decision. A request does not change, so its name
/// is enough. Two extensions with the same minutes and the same end are the same decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Request,
    Extension {
        /// See [`Extension::minutes`].
        minutes: Minutes,
        /// The end of the access without the extension.
        after: Timestamp,
    },
}

impl Subject {
    /// The subject that waits now; absent if nothing does.
    pub fn waiting(request: &Request) -> Option<Self> {
        if request.state == State::Pending {
            return Some(Self::Request);
        }
        let extension = request.waiting_extension()?;
        Some(Self::Extension {
            minutes: extension.minutes,
            after: request.end_time(),
        })
    }
}

impl Request {
    /// The extension that waits for approvals.
    pub fn waiting_extension(&self) -> Option<&Extension> {
        let extension = self.grant.extension.as_ref();
        extension.filter(|_| self.state == State::Granted)
    }
}

const EXTENSION: &str = "extension by ";
const AFTER: &str = " after ";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("request"),
            Self::Extension { minutes, after } => {
                let (minutes, after) = (minutes.get(), after.millis());
                write!(f, "{EXTENSION}{minutes}{AFTER}{after}")
            }
        }
    }
}

impl FromStr for Subject {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "request" {
            return Ok(Self::Request);
        }
        let extension = || {
            let (minutes, after) = text.strip_prefix(EXTENSION)?.split_once(AFTER)?;
            Some(Self::Extension {
                minutes: Minutes::new(minutes.parse().ok()?).ok()?,
                after: Timestamp::from_millis(after.parse().ok()?),
            })
        };
        extension().ok_or(Invalid("must name what a decision is about"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::record;

    // W15
    #[test]
    fn a_subject_is_the_same_after_it_was_sealed_as_text() {
        for (word, wanted) in [
            ("Pending", Some("request")),
            ("Extending", Some("extension by 30 after 660000")),
            ("Granted", None),
            ("Revoking", None),
        ] {
            let subject = Subject::waiting(&record(word).request);
            let text = subject.map(|subject| subject.to_string());
            assert_eq!(text.as_deref(), wanted, "{word}");
            let read = text.map(|text| text.parse().unwrap());
            assert_eq!(read, subject, "{word}");
        }
        for text in ["", "requests", "extension by 0 after 1", "extension by 1"] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}
