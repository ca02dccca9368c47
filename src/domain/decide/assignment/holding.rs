//! A step about an assignment reads and changes the holding of its request.

use super::super::records::AccessStep;
use super::super::step::Step;
use crate::domain::{AssignmentCalls, CoHolders, Holding, LeaseToken, Person, Text};

impl Step<'_> {
    pub fn holding(&self) -> Option<&Holding> {
        match &self.access {
            AccessStep::Assignment(step) => step.holding.as_ref(),
        }
    }

    pub fn change_holding(&mut self, change: impl FnOnce(&Holding) -> Holding) {
        match &mut self.access {
            AccessStep::Assignment(step) => step.holding = step.holding.as_ref().map(change),
        }
    }

    /// From now on no request may join the assignment until AWS shows that it is gone.
    pub fn mark_removing(&mut self) {
        self.change_holding(Holding::being_removed);
    }

    /// The create of this request was answered, or AWS showed its result.
    pub fn note_create_answered(&mut self) {
        let id = self.request.id;
        self.change_holding(|holding| holding.answered(id));
    }

    pub fn leave(&mut self) {
        let id = self.request.id;
        if self.holds() {
            self.change_holding(|holding| holding.left(id));
        }
    }

    /// Leaves the assignment to its other holders, who have the duty to remove what a create of
    /// this request may still make.
    pub fn leave_to_others(&mut self) {
        let id = self.request.id;
        let call = LeaseToken::create_left_by(id, self.request.version.revision);
        self.change_holding(|holding| holding.left_to_others(id, call));
    }

    pub fn holds(&self) -> bool {
        let id = self.request.id;
        self.holding().is_some_and(|known| known.holds(id))
    }

    pub fn is_shared(&self) -> bool {
        let id = self.request.id;
        let holding = self.holding();
        holding.is_some_and(|holding| holding.is_shared(id))
    }

    /// Whether a create may still take effect: one of another holder, or one that was not
    /// answered. A look that shows no assignment proves nothing in that case.
    pub fn may_appear(&self) -> bool {
        let id = self.request.id;
        self.holding().is_some_and(|holding| {
            holding.awaits_another(id) || holding.unanswered_create.is_some()
        })
    }

    /// Whether no request holds the assignment, and an unanswered create may still make it.
    pub fn may_appear_unheld(&self) -> bool {
        self.holding().is_some_and(|holding| {
            holding.holders.is_empty() && holding.unanswered_create.is_some()
        })
    }

    /// Makes this request the holder of an assignment that must be removed and that no request
    /// holds.
    pub fn take_over(&mut self) {
        let id = self.request.id;
        self.change_holding(|holding| holding.joined(id).answered(id).being_removed());
    }

    /// Stores in the holding what the worker reported about unanswered calls.
    pub fn note_calls(&mut self, lease: LeaseToken, calls: &AssignmentCalls) {
        let call = lease.call_at(self.request.version.revision);
        self.change_holding(|holding| holding.with_calls(call, calls));
    }

    /// Revokes the other holders of the assignment in the same commit.
    pub fn end_others(&mut self, by: Option<&Person>, reason: Option<&Text>) {
        let id = self.request.id;
        match &mut self.access {
            AccessStep::Assignment(step) => {
                let holding = step.holding.iter();
                let requests: Vec<_> = holding.flat_map(|holding| holding.others(id)).collect();
                if !requests.is_empty() {
                    step.co_holders = Some(CoHolders {
                        requests,
                        by: by.cloned(),
                        reason: reason.cloned(),
                    });
                }
            }
        }
    }
}
