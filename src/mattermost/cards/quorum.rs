//! How many of the needed approvals a request or its extension has. Cards, lists and answers use the
//! same count.

use std::fmt;

use crate::domain::{Binding, Policy, Request, State};

/// The approvals of a decision that waits.
pub struct ApprovalCount {
    /// The approvals that count by the binding as it is now.
    pub counted: u32,
    pub required: u32,
}

impl ApprovalCount {
    /// `None` if the request waits for no approval.
    pub fn of(request: &Request, binding: Option<&Binding>) -> Option<Self> {
        let binding = binding?;
        let given = if request.state == State::Pending {
            &request.approvals.given
        } else {
            &request.waiting_extension()?.approvals
        };
        Some(Self {
            counted: Policy::counted_approvals(given, &request.asked.requester, binding),
            required: binding.approvals_required,
        })
    }

    /// The same, if the decision needs several approvals.
    pub fn of_several(request: &Request, binding: Option<&Binding>) -> Option<Self> {
        Self::of(request, binding).filter(|count| count.required > 1)
    }

    /// The sentence after an approval that does not decide; `None` if no approval is missing.
    pub fn missing(&self) -> Option<String> {
        match self.required.saturating_sub(self.counted) {
            0 => None,
            1 => Some("One more approval is needed".to_owned()),
            many => Some(format!("{many} more approvals are needed")),
        }
    }
}

impl fmt::Display for ApprovalCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.counted, self.required)
    }
}
