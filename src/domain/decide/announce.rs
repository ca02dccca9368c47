//! Announces the end of a grant to the requester in advance, if jit has a chat to announce it
//! in.

use super::step::{Step, details};
use super::{Decision, Refusal};
use crate::domain::{Audience, EventKind, State, Timestamp};

/// The end of the grant, if the request is GRANTED and the end is in the future.
pub(super) fn end_ahead(step: &Step<'_>) -> Option<Timestamp> {
    let period = step.request.grant.period?;
    let is_ahead = step.request.state == State::Granted && step.now < period.until;
    is_ahead.then_some(period.until)
}

pub(super) fn announce(mut step: Step<'_>, end: Timestamp) -> Result<Decision, Refusal> {
    step.request.schedule.due_at = Some(end);
    let said = details([("end_time", Some(end.to_string()))]);
    step.record(EventKind::EndAnnounced, None, said);
    step.notify_to(Audience::Requester, None, details([]));
    step.done(None)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{alice, asked, due_at, finished, later, minutes, policy, record};
    use super::super::{Record, Refusal, decide};
    use super::*;
    use crate::domain::{Ask, AssignmentOutcome, Command, ExtensionRule, Millis, Policy, Request};

    fn rules() -> Policy {
        Policy {
            remind_before: Some(Millis::minutes(10)),
            ..policy()
        }
    }

    fn made() -> Command {
        finished(AssignmentOutcome::Created)
    }

    /// jit announces the end once, if the grant is longer than `remind_before`. P1: the
    /// announcement does not change the duty to remove the assignment at the end.
    #[test]
    fn the_end_is_announced_once_and_the_removal_begins_on_time() {
        let rules = rules();
        let granted = decide(record("Assigning"), &rules, made(), later()).unwrap();
        let until = granted.request.grant.period.unwrap().until;
        let announced_at = until + Millis::minutes(-10);
        assert_eq!(granted.request.schedule.due_at, Some(announced_at));
        let known = |request: Request| Record {
            request,
            ..record("Granted")
        };
        let due = |request: &Request, at| decide(known(request.clone()), &rules, due_at(at), at);
        let early = due(&granted.request, announced_at + Millis(-1)).unwrap_err();
        assert!(matches!(early, Refusal::NotDue { .. }), "{early:?}");
        for late in [0, 9 * 60_000, 10 * 60_000 - 1] {
            let told = due(&granted.request, announced_at + Millis(late)).unwrap();
            assert_eq!(
                (told.request.schedule.due_at, told.work),
                (Some(until), None)
            );
            assert_eq!(told.request.state, State::Granted);
            assert_eq!(told.events.len(), 1);
            let notice = &told.notices[0];
            assert_eq!(
                (notice.audience, notice.seq),
                (Audience::Requester, told.events[0].seq)
            );
        }
        // No worker announced the end in time: the grant ends without an announcement.
        let over = due(&granted.request, until).unwrap();
        assert!(matches!(over.request.state, State::Removing { .. }));
        assert!(over.notices.is_empty());
        // After an extension, jit announces the new end.
        let told = due(&granted.request, announced_at).unwrap();
        let granting = Policy {
            extension: ExtensionRule::Granted,
            ..rules.clone()
        };
        let more = Ask::Extend {
            minutes: minutes(30),
        };
        let mut reminded = known(told.request);
        reminded.request.asked.requester = alice();
        let longer = decide(reminded, &granting, asked(alice(), more), announced_at).unwrap();
        let again = until + Millis::minutes(20);
        assert_eq!(longer.request.schedule.due_at, Some(again));
    }

    #[test]
    fn the_end_of_a_short_grant_is_not_announced_and_no_end_without_remind_before() {
        for (rules, minutes) in [(rules(), 10), (policy(), 60)] {
            let mut short = record("Assigning");
            short.request.asked.duration = super::super::fixtures::minutes(minutes);
            let granted = decide(short, &rules, made(), later()).unwrap().request;
            assert_eq!(
                granted.schedule.due_at,
                Some(granted.grant.period.unwrap().until),
                "{minutes}"
            );
        }
    }
}
