//! The work that a request is in according to its history. A status has up to three states, and
//! the work of some of them is all that ends an access: a record that says that the work is done
//! must have an event that says so too.

use super::Comparison;
use crate::domain::{Doubt, Event, EventKind, State};

/// The work of a request according to its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No end has begun.
    Running,
    Removing,
    /// A revoke of a request that ended in ERROR: a worker has to ask AWS.
    Checking,
    /// An operator said that the access is gone: a worker has to ask AWS.
    CleanedUp,
    /// AWS had an assignment after the end: a worker has to remove it.
    Stray,
    Ended,
}

impl Phase {
    fn after(self, kind: EventKind) -> Self {
        match kind {
            EventKind::RevokeRequested => match self {
                Self::Running => Self::Removing,
                Self::Ended => Self::Checking,
                // Break-glass repeats a revoke.
                Self::Removing | Self::Checking | Self::CleanedUp | Self::Stray => self,
            },
            EventKind::ExpiryStarted | EventKind::RollbackStarted => Self::Removing,
            EventKind::CleanedUp => Self::CleanedUp,
            EventKind::StrayAccessFound => match self {
                // The create of a request that ended in ERROR may still take effect.
                Self::Checking => Self::Removing,
                Self::Running | Self::Removing | Self::CleanedUp | Self::Stray | Self::Ended => {
                    Self::Stray
                }
            },
            EventKind::Denied
            | EventKind::Cancelled
            | EventKind::Revoked
            | EventKind::Expired
            | EventKind::Error
            | EventKind::StrayAccessRemoved => Self::Ended,
            EventKind::Requested
            | EventKind::ApprovalRecorded
            | EventKind::Approved
            | EventKind::Assigning
            | EventKind::Granted
            | EventKind::ExtensionRequested
            | EventKind::Extended
            | EventKind::ExtensionDenied
            | EventKind::EndAnnounced
            | EventKind::RemovalFailing
            | EventKind::SessionsDenied
            | EventKind::SessionsEnded
            | EventKind::SessionsNotEnded
            | EventKind::SessionDenyLifted
            | EventKind::NoticeParked
            | EventKind::ForgeryRefused
            | EventKind::Bound
            | EventKind::BindingChanged
            | EventKind::ApproversSet
            | EventKind::Unbound => self,
        }
    }

    /// The same, with the event that says it.
    fn shown(self, by: Option<EventKind>) -> String {
        let what = match self {
            Self::Running => "no end",
            Self::Removing => "a removal that has not ended",
            Self::Checking | Self::CleanedUp => "an end that AWS has not confirmed",
            Self::Stray => "an assignment that jit has not removed",
            Self::Ended => "an end",
        };
        by.map_or_else(|| what.to_owned(), |by| format!("{what} ({by})"))
    }
}

/// The phase, and the event with which it began.
fn phase(events: &[Event]) -> (Phase, Option<EventKind>) {
    let mut last = (Phase::Running, None);
    for event in events {
        let next = last.0.after(event.event_type);
        if next != last.0 {
            last = (next, Some(event.event_type));
        }
    }
    last
}

/// A status has up to three states; the history says which of them.
pub(super) fn compare_phase(comparison: &mut Comparison, state: &State, events: &[Event]) {
    let assigning = || {
        let mut all = events.iter().map(|event| event.event_type);
        all.find(|kind| *kind == EventKind::Assigning)
    };
    let (phase, by) = phase(events);
    let (fits, word) = match state {
        State::Pending | State::Granted => (phase == Phase::Running, "no end"),
        State::Approved => {
            comparison.same("state", None::<EventKind>, assigning());
            (phase == Phase::Running, "no end")
        }
        State::Assigning => {
            comparison.same("state", Some(EventKind::Assigning), assigning());
            (phase == Phase::Running, "no end")
        }
        State::Removing { .. } => (phase == Phase::Removing, "a removal"),
        State::Checking { .. } => (phase == Phase::Checking, "a check at AWS"),
        State::Unsettled { doubt, .. } => match doubt {
            // An operator may write a status in every phase, and no event says it before its end.
            Doubt::Outside | Doubt::OutsideWithoutTime => (true, ""),
            Doubt::LateAnswer => (phase == Phase::Stray, "the removal of an assignment"),
        },
        State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => (phase == Phase::Ended, "an end"),
    };
    if !fits {
        comparison.differs("state", Some(word.to_owned()), Some(phase.shown(by)));
    }
}

/// Whether the request is a holder of its assignment: it joined it, and has not ended since.
pub(super) fn is_holder(events: &[Event]) -> bool {
    match phase(events).0 {
        Phase::Running => events
            .iter()
            .any(|event| event.event_type == EventKind::Assigning),
        Phase::Removing | Phase::CleanedUp | Phase::Stray => true,
        Phase::Checking | Phase::Ended => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{compare_holding, compare_request};
    use super::*;
    use crate::domain::decide::fixtures::{
        alice, asked, binding, bob, draft, due_at, finished, key, later, lease, policy, prepared,
    };
    use crate::domain::decide::{Record, decide, open};
    use crate::domain::{
        AccessRecord, Ask, AssignmentCall, AssignmentCalls, AssignmentOutcome, Calls, Command,
        Holding, Outcome, Presence, Proof, Request, Text, WorkFailure,
    };
    use std::collections::BTreeMap;

    /// A request, its whole history and its holding.
    #[derive(Clone)]
    struct Life {
        request: Request,
        events: Vec<Event>,
        holding: Holding,
    }

    impl Life {
        fn approved() -> Self {
            let opened = open(draft(), Some(binding()), &policy(), later()).unwrap();
            let life = Self {
                request: opened.request,
                events: opened.events,
                holding: Holding::unheld(key()),
            };
            life.then(asked(bob(), Ask::Approve)).then(due_at(later()))
        }

        fn granted() -> Self {
            let assigning = Self::approved().then(finished(prepared(Presence::Absent, 0)));
            assigning.then(finished(AssignmentOutcome::Created))
        }

        /// A worker found an assignment from outside.
        fn not_ours() -> Self {
            Self::approved().then(finished(prepared(Presence::Present, 0)))
        }

        fn then(mut self, command: Command) -> Self {
            let record = Record {
                request: self.request,
                binding: Some(binding()),
                access: AccessRecord::from(Some(self.holding.clone())),
            };
            let after = decide(record, &policy(), command, later()).unwrap();
            self.request = after.request;
            self.events.extend(after.events);
            if let Some(holding) = after.access.holding() {
                self.holding = holding.clone();
            }
            assert_eq!(self.found(), [""; 0], "{:?}", self.request.state);
            self
        }

        fn revoked(self) -> Self {
            self.then(asked(bob(), Ask::Revoke { reason: None }))
        }

        /// The end that AWS has yet to confirm becomes one that it has confirmed.
        fn cut(mut self, end: State) -> Self {
            self.request.state = end;
            self.request.schedule.due_at = None;
            self.request.schedule.lease = None;
            self.request.schedule.failures = None;
            self.holding.holders.clear();
            self
        }

        fn found(&self) -> Vec<&'static str> {
            let mut found = compare_request(&self.request, &self.events);
            let (holding, others) = (Some(&self.holding), BTreeMap::new());
            found.extend(compare_holding(
                &self.request,
                &self.events,
                holding,
                &others,
            ));
            found.iter().map(|one| one.field).collect()
        }

        fn unsettled_end(&self) -> State {
            let State::Unsettled { end, .. } = &self.request.state else {
                panic!("{:?}", self.request.state);
            };
            (**end).clone()
        }
    }

    fn cleaned_up() -> Command {
        Command::CleanedUp {
            by: bob(),
            reason: Text::clip("by hand"),
            credentials: Text::clip("arn"),
            proof: Proof::None,
        }
    }

    /// C: no worker looked at AWS any more, and the assignment stayed.
    #[test]
    fn the_check_of_an_unverified_cleanup_cannot_be_cut_out() {
        for granted in [Life::granted(), Life::granted().revoked()] {
            let cleaned = granted.then(cleaned_up());
            let end = cleaned.unsettled_end();
            assert_eq!(cleaned.clone().cut(end.clone()).found(), ["state"]);
            // The check alone stays: it would find an assignment that no request holds.
            let mut unheld = cleaned.clone();
            unheld.holding.holders.clear();
            assert_eq!(unheld.found(), ["holders"]);
            // Break-glass asks once more, and ends nothing.
            let again = Command::BreakGlassRevoked {
                by: alice(),
                reason: None,
                credentials: Text::clip("arn"),
            };
            assert_eq!(cleaned.then(again).cut(end).found(), ["state"]);
        }
    }

    /// C: the revoke was lost.
    #[test]
    fn the_revoke_of_a_request_in_error_cannot_be_cut_out() {
        let error = Life::not_ours();
        let end = error.request.state.clone();
        assert!(end.is_error());
        let checking = error.revoked();
        assert_eq!(checking.clone().cut(end.clone()).found(), ["state"]);
        let failed = Outcome::Failed(WorkFailure::passing("throttled"));
        let failing = checking.then(due_at(later())).then(finished(failed));
        let last = failing.events.last().unwrap();
        assert_eq!(last.event_type, EventKind::RemovalFailing);
        assert_eq!(failing.cut(end).found(), ["state"]);
    }

    /// C: the assignment that a late create had made stayed.
    #[test]
    fn the_removal_of_a_stray_assignment_cannot_be_cut_out() {
        let removing = Life::granted().revoked().then(due_at(later()));
        let ended = removing.then(finished(AssignmentOutcome::Gone));
        let end = ended.request.state.clone();
        let late = Command::Finished {
            lease: lease().token,
            outcome: Outcome::Interrupted,
            calls: Some(Calls::Assignment(AssignmentCalls {
                overran: true,
                ..AssignmentCalls::unanswered(AssignmentCall::Create)
            })),
        };
        let stray = ended.then(late);
        assert_eq!(
            stray.events.last().unwrap().event_type,
            EventKind::StrayAccessFound
        );
        assert_eq!(stray.cut(end).found(), ["state"]);
    }

    /// C: a check looks for an assignment, and ends in ERROR instead of a removal.
    #[test]
    fn a_removal_that_became_a_check_is_found() {
        let error = Life::not_ours();
        let State::Error(ended) = error.request.state.clone() else {
            panic!("{:?}", error.request.state);
        };
        let (by, reason) = (bob(), None);
        let checking = State::Checking {
            by,
            reason,
            error: ended,
        };
        let found = |life: &Life| {
            let mut comparison = Comparison::of("the request".into());
            compare_phase(&mut comparison, &checking, &life.events);
            comparison.found.len()
        };
        assert_eq!(found(&error.clone().revoked()), 0);
        assert_eq!(found(&error), 1);
        assert_eq!(found(&Life::granted().revoked()), 1);
        assert_eq!(found(&Life::granted().then(cleaned_up())), 1);
    }

    /// C: a notice that was given up is an event with the status that an operator wrote.
    #[test]
    fn a_written_end_that_no_worker_has_settled_is_no_end() {
        let mut written = Life::granted();
        let now = later();
        let request = &mut written.request;
        request.apply_outside_status(crate::domain::Status::Expired, Some(now), now);
        let parked = Command::NoticeParked {
            seq: 1,
            why: Text::clip("too old"),
        };
        let parked = written.then(parked);
        let end = parked.unsettled_end();
        assert_eq!(parked.cut(end).found(), ["state"]);
    }

    /// C: a removal that began is not taken back.
    #[test]
    fn a_removal_that_was_taken_back_is_found() {
        let mut removing = Life::granted().revoked();
        let request = &mut removing.request;
        request.state = State::Granted;
        request.schedule.due_at = request.grant.period.map(|period| period.until);
        assert!(removing.found().contains(&"state"));
    }
}
