//! B1: an approver approves before the access begins. When it begins, jit checks the binding, the
//! approvals, the terms and the start again, by the rules and the clock as they are then.

use super::step::Step;
use super::{Decision, Refusal};
use crate::domain::{Person, State, Text, Timestamp};

/// The start of an approved request, if it is ahead. C: the due time alone begins no access,
/// because a person who can write the store can change it.
pub(super) fn start_ahead(step: &Step<'_>) -> Option<Timestamp> {
    let start = step.request.asked.start_at;
    start.filter(|start| *start > step.now)
}

pub(super) fn wait_for_start(mut step: Step<'_>, start: Timestamp) -> Result<Decision, Refusal> {
    step.request.schedule.due_at = Some(start);
    step.give_back()
}

/// Why the access of an approved request may not begin now; none if it may.
pub(super) fn withdrawn(step: &Step<'_>) -> Option<Text> {
    let (policy, binding) = (step.policy, step.binding.as_ref());
    let refusal = policy.check_begin(&step.request, binding).err()?;
    Some(Text::clip(&format!("the access did not begin: {refusal}")))
}

/// Ends a request that was approved and has not begun, if the present binding and policy do not
/// allow it.
pub(super) fn rules_changed(step: Step<'_>, by: Option<Person>) -> Result<Decision, Refusal> {
    if step.request.state == State::Approved
        && let Some(why) = withdrawn(&step)
    {
        return step.end_revoked(by, Some(why));
    }
    Err(Refusal::WrongState {
        status: step.request.status(),
        done: "ended by the new rules",
        hint: "",
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{
        alice, asked, bob, due_at, finished, later, policy, prepared, record,
    };
    use super::super::{Record, decide, open};
    use crate::domain::{
        Ask, AssignmentWork, Command, Ending, EventKind, Millis, Policy, Presence, Refusal, State,
        Timestamp, Work, WorkFailure,
    };

    type Change = fn(&mut Record, &mut Policy);

    /// Each change that makes the approval invalid, and a word that the reason contains.
    fn changes() -> [(Change, &'static str); 8] {
        [
            (|record, _| record.binding = None, "not bound"),
            (
                |record, _| record.binding.as_mut().unwrap().channel_id = "other".parse().unwrap(),
                "not bound",
            ),
            (
                |record, _| {
                    let approvers = &mut record.binding.as_mut().unwrap().approvers;
                    approvers.retain(|approver| approver.as_str() != "bob");
                },
                "0 of 1",
            ),
            (
                |record, _| record.binding.as_mut().unwrap().approvals_required = 2,
                "1 of 2",
            ),
            (
                |record, _| {
                    record.request.approvals.given[0].by = alice();
                    record.binding.as_mut().unwrap().allow_self_approval = false;
                },
                "0 of 1",
            ),
            (
                |record, _| {
                    let sets = &mut record.binding.as_mut().unwrap().permission_sets;
                    sets.push("readonly".parse().unwrap());
                },
                "not allowed",
            ),
            (
                |record, _| {
                    record.binding.as_mut().unwrap().max_request_hours = Some(1);
                    record.request.asked.duration = super::super::fixtures::minutes(61);
                },
                "at most 60",
            ),
            (|_, policy| policy.permission_sets.clear(), "not configured"),
        ]
    }

    fn reason(state: &State) -> String {
        let (State::Revoked {
            reason: Some(reason),
            ..
        }
        | State::Removing {
            ending:
                Ending::Revoked {
                    reason: Some(reason),
                    ..
                },
        }) = state
        else {
            panic!("it did not end: {state:?}");
        };
        reason.to_string()
    }

    // B1
    #[test]
    fn access_does_not_begin_after_binding_or_approver_was_removed() {
        for (change, word) in changes() {
            for command in [due_at(later()), finished(prepared(Presence::Absent, 0))] {
                let (mut record, mut policy) = (record("Approved"), policy());
                let stands = decide(record.clone(), &policy, command.clone(), later()).unwrap();
                assert!(stands.work.is_some());
                change(&mut record, &mut policy);
                let ended = decide(record, &policy, command, later()).unwrap();
                let why = reason(&ended.request.state);
                assert!(why.contains(word), "{why}");
                assert_eq!(ended.work, None);
                let event = ended.events.last().unwrap();
                assert_eq!(event.event_type, EventKind::Revoked);
                assert_eq!(event.details["reason"], why);
                assert_eq!(ended.notices[0].details["reason"], why);
            }
        }
    }

    // C
    #[test]
    fn access_does_not_begin_before_its_start_although_the_request_is_due() {
        let start = later() + Millis::hours(1);
        for command in [due_at(later()), finished(prepared(Presence::Absent, 0))] {
            let mut early = record("Approved");
            early.request.asked.start_at = Some(start);
            let waits = decide(early.clone(), &policy(), command, later()).unwrap();
            assert_eq!(waits.request.state, State::Approved);
            let schedule = waits.request.schedule;
            assert_eq!((schedule.due_at, schedule.lease), (Some(start), None));
            assert!(waits.events.is_empty() && waits.work.is_none());
            let on_time = decide(early, &policy(), due_at(start), start).unwrap();
            assert!(on_time.work.is_some());
        }
    }

    // C: the clock was set back between the claim and the failure.
    #[test]
    fn a_next_try_of_an_approved_request_is_not_before_its_start() {
        let start = later() + Millis::hours(1);
        let mut early = record("Approved");
        early.request.asked.start_at = Some(start);
        let failed = finished(WorkFailure::passing("no answer"));
        let waits = decide(early, &policy(), failed, later()).unwrap();
        assert_eq!(waits.request.schedule.due_at, Some(start));
    }

    // B1: a create that is tried again is a beginning as well. What an earlier try may have made
    // is removed first.
    #[test]
    fn a_create_is_not_tried_again_after_its_approval_was_withdrawn() {
        for (change, word) in changes() {
            let (mut record, mut policy) = (record("Assigning"), policy());
            change(&mut record, &mut policy);
            let ended = decide(record, &policy, due_at(later()), later()).unwrap();
            assert!(reason(&ended.request.state).contains(word));
            let Some(Work::Assignment(AssignmentWork::Remove(_))) = ended.work else {
                panic!("no removal: {:?}", ended.work);
            };
        }
    }

    // B1
    #[test]
    fn an_approved_request_ends_as_soon_as_its_approval_does_not_count_any_more() {
        let changed = || Command::RulesChanged { by: Some(bob()) };
        let stands = decide(record("Approved"), &policy(), changed(), later());
        assert!(matches!(stands, Err(Refusal::WrongState { .. })));
        for (change, word) in changes() {
            let (mut record, mut policy) = (record("Approved"), policy());
            record.request.asked.start_at = Some(later() + Millis::hours(5));
            change(&mut record, &mut policy);
            let ended = decide(record, &policy, changed(), later()).unwrap();
            assert!(reason(&ended.request.state).contains(word));
            assert_eq!(ended.notices.len(), 1, "{word}");
        }
    }

    // B1
    #[test]
    fn an_unbind_ends_an_approved_request() {
        let by = Some(bob());
        let ended = decide(
            record("Approved"),
            &policy(),
            Command::Unbound { by },
            later(),
        )
        .unwrap();
        let State::Revoked { by, reason, .. } = ended.request.state else {
            panic!("{:?}", ended.request.state);
        };
        assert_eq!(by, Some(bob()));
        assert!(reason.unwrap().as_str().contains("unbound"));
        assert_eq!(ended.notices.len(), 1);
    }

    // B1
    #[test]
    fn a_start_too_far_ahead_or_in_the_past_is_refused() {
        let (now, rules) = (Timestamp::from_seconds(1_000_000), policy());
        let asked_for = |ahead: Millis| {
            let mut draft = super::super::fixtures::draft();
            draft.start_at = Some(now + ahead);
            open(draft, Some(super::super::fixtures::binding()), &rules, now)
        };
        let most = rules.max_start_ahead;
        let tolerated = Millis::minutes(-5);
        for good in [most, Millis(0), tolerated] {
            assert!(asked_for(good).is_ok(), "{good:?}");
        }
        let far = asked_for(Millis(most.0 + 1)).unwrap_err();
        assert!(matches!(far, Refusal::StartTooFar { .. }), "{far}");
        let past = asked_for(Millis(tolerated.0 - 1)).unwrap_err();
        assert!(matches!(past, Refusal::StartInPast { .. }), "{past}");
        assert!(far.to_string().contains(&(now + most).to_string()), "{far}");
        assert!(past.to_string().contains(&now.to_string()), "{past}");
    }

    // B1: the approval in the same commit claims the work only if the access may begin.
    #[test]
    fn an_approval_is_claimed_with_the_binding_that_it_was_given_under() {
        let record = record("Pending");
        let (binding, access) = (record.binding.clone(), record.access.clone());
        let approved = decide(record, &policy(), asked(bob(), Ask::Approve), later()).unwrap();
        let claimed = |binding| {
            let lease = super::super::fixtures::lease();
            approved.claimed(access.clone(), binding, &policy(), lease, later())
        };
        assert!(claimed(binding).is_some());
        assert!(claimed(None).is_none());
    }
}
