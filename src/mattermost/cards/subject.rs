//! The subject of a decision. Buttons and dialogs carry it under their seals, so that no approver
//! decides on something that the card or the dialog did not show.

use super::quorum::waiting_extension;
use crate::domain::{Request, State};
use crate::mattermost::trust::seal::Action;

/// The subject that waits for a decision; `None` if none does. A request does not change, so one
/// word is enough for it. Two extensions with the same minutes and the same end are the same decision.
pub fn waiting(request: &Request) -> Option<String> {
    if request.state == State::Pending {
        return Some("request".to_owned());
    }
    let extension = waiting_extension(request)?;
    let (minutes, end) = (extension.minutes.get(), request.end_time().millis());
    Some(format!("extension by {minutes} after {end}"))
}

/// The subject of a button of the card of this request; `None` if it is always the same. The
/// dialog for a reason has its own subject.
pub fn of_button(request: &Request, action: Action) -> Option<String> {
    match action {
        Action::Approve | Action::Deny => waiting(request),
        Action::DenyWithReason | Action::Revoke | Action::RevokeWithReason | Action::Extend(_) => {
            None
        }
    }
}

/// Whether a pressed button is about what waits now, or nothing waits. Buttons of an earlier version
/// of jit have no subject: while a request waits for its first decision, they can be about that only.
pub fn is_present(request: &Request, action: Action, pressed: Option<&str>) -> bool {
    let Some(now) = of_button(request, action) else {
        return true;
    };
    pressed.map_or(request.state == State::Pending, |pressed| pressed == now)
}
