//! The subjects of the buttons and dialogs of a card, as their seals say them.

use crate::domain::{Request, Subject};
use crate::mattermost::trust::seal::Action;

/// The subject of a button of the card of this request; `None` if it is always the same. The
/// dialog for a reason has its own subject.
pub fn of_button(request: &Request, action: Action) -> Option<Subject> {
    match action {
        Action::Approve | Action::Deny => Subject::waiting(request),
        Action::DenyWithReason | Action::Revoke | Action::RevokeWithReason | Action::Extend(_) => {
            None
        }
    }
}

/// The subject that an approver saw who pressed a button with this sealed text. A button of an
/// earlier version of jit has none, and decides on the request only.
pub fn seen(sealed: Option<&str>) -> Option<Subject> {
    match sealed {
        Some(text) => text.parse().ok(),
        None => Some(Subject::Request),
    }
}
