//! A refused command whose aim is reached already counts as an answer.

use serde_json::Value;

use super::Failure;
use super::output::one_line;
pub(super) use crate::http::already::Aim;
use crate::http::already::{Wording, sentence};

/// The request of the refusal, and a sentence about it, if the aim of the command is reached.
pub(super) fn reached(refused: &Failure, aim: &Aim<'_>) -> Option<(Value, String)> {
    let Failure::Refused {
        request: Some(request),
        ..
    } = refused
    else {
        return None;
    };
    let wording = Wording {
        time: &one_line,
        person: &one_line,
    };
    let said = sentence(request, aim, &wording)?;
    Some((*request.clone(), said))
}
