//! The table of all decisions: every state × every command.
//!
//! A cell is the state that follows; `=` if the state stays; `409` or `403` if the command is
//! refused with that HTTP status; or `.` if a command of a worker is refused.
//!
//! A row has the name of its variant of [`State`], with these exceptions:
//!
//! - Extending: `Granted`, and an extension waits for its approvals.
//! - Expiring: `Removing` after `end_time`.
//! - Revoking: `Removing` after a revoke.
//! - RollingBack: `Removing` after a grant that jit gave up.
//! - Unsettled: `Unsettled`, an end that a worker must verify at AWS. In the record of the row it is
//!   a REVOKED that an operator wrote into the store.
//! - ToDeny: `Revoked`, and jit has yet to deny the old credentials.
//! - DenyStands: `Revoked`, and the deny statement for the old credentials is in force.
//! - NeverHeld: `Error` of a request whose work at AWS never began.
#![allow(clippy::wildcard_enum_match_arm)] // only in tests

use super::fixtures::{
    alice, asked, at_the_end, binding, bob, draft, due_at, finished, holding_of, id, key, later,
    lease, minutes, person, policy, prepared, record,
};
use super::{Record, Refusal, decide, open};
use crate::domain::{
    Admins, Ask, AssignmentOutcome, AssignmentProof, AssignmentWork, Command, Draft, Ending,
    Holding, Millis, OldCredentials, Outcome, Person, Policy, PostId, Presence, Proof, Reminder,
    Request, State, Text, Timestamp, WorkFailure,
};
use std::fmt::Write;

/// The commands of people.
const PEOPLE: &str = "
             approve  deny    cancel    revoke   extend    unbound   glass     along    cleaned unproven  rules
Pending      Approved Denied  Cancelled 409      409       Cancelled Cancelled 409      409     409       409
Approved     409      409     409       Revoked  409       Revoked   Revoked   409      409     409       409
Assigning    409      409     409       Revoking 409       409       Revoking  Revoking 409     409       409
Granted      409      409     409       Revoking Extending 409       Revoking  Revoking Revoked Unsettled 409
Extending    Granted  Granted 409       Revoking 409       409       Revoking  Revoking Revoked Unsettled 409
Expiring     409      409     409       Revoking 409       409       Revoking  409      Revoked Unsettled 409
Revoking     409      409     409       409      409       409       =         409      Revoked Unsettled 409
RollingBack  409      409     409       Revoking 409       409       Revoking  409      Revoked Unsettled 409
Checking     409      409     409       409      409       409       =         409      409     409       409
Unsettled    409      409     409       409      409       409       =         409      Revoked 409       409
Denied       409      409     409       409      409       409       409       409      409     409       409
Cancelled    409      409     409       409      409       409       409       409      409     409       409
Expired      409      409     409       409      409       409       409       409      409     409       409
Revoked      409      409     409       409      409       409       409       409      409     409       409
ToDeny       409      409     409       409      409       409       409       409      409     409       409
DenyStands   409      409     409       409      409       409       409       409      409     409       409
Error        409      409     409       Checking 409       409       Checking  409      409     409       409
NeverHeld    409      409     409       Revoked  409       409       Revoked   409      409     409       409
";

/// The commands of workers: due work, and outcomes.
const WORK: &str = "
             due      prepared  nouser created   gone    there failed refused3    interrupted standing  denied     noneleft lifted
Pending      Expired  =         =      =         =       =     =      =           =           409       =          =        =
Approved     =        Assigning Error  =         =       =     =      Error       =           409       =          =        =
Assigning    =        =         =      Granted   =       =     =      RollingBack =           409       =          =        =
Granted      Expiring =         =      =         =       =     =      =           =           409       =          =        =
Extending    Expiring =         =      =         =       =     =      =           =           409       =          =        =
Expiring     =        =         =      =         Expired =     =      =           =           409       =          =        =
Revoking     =        =         =      =         Revoked =     =      =           =           409       =          =        =
RollingBack  =        =         =      =         Error   =     =      =           =           409       =          =        =
Checking     =        =         =      =         Revoked Error =      =           =           409       =          =        =
Unsettled    =        =         =      =         Revoked =     =      =           =           409       =          =        =
Denied       .        .         .      Unsettled .       .     .      .           .           Unsettled .          .        .
Cancelled    .        .         .      Unsettled .       .     .      .           .           Unsettled .          .        .
Expired      .        .         .      Unsettled .       .     .      .           .           Unsettled .          .        .
Revoked      .        .         .      Unsettled .       .     .      .           .           Unsettled .          .        .
ToDeny       =        =         =      =         =       =     =      =           =           Unsettled DenyStands Revoked  =
DenyStands   =        =         =      =         =       =     =      =           =           Unsettled =          =        Revoked
Error        .        .         .      Unsettled .       .     .      .           .           409       .          .        .
NeverHeld    .        .         .      .         .       .     .      .           .           409       .          .        .
";

#[test]
fn every_state_answers_the_commands_of_people_by_the_table() {
    let asks = [
        ("approve", asked(bob(), Ask::Approve)),
        ("deny", asked(bob(), Ask::Deny { reason: None })),
        ("cancel", asked(alice(), Ask::Cancel)),
        ("revoke", asked(bob(), Ask::Revoke { reason: None })),
        (
            "extend",
            asked(
                alice(),
                Ask::Extend {
                    minutes: minutes(30),
                },
            ),
        ),
        ("unbound", Command::Unbound { by: None }),
        (
            "glass",
            Command::BreakGlassRevoked {
                by: bob(),
                reason: None,
                credentials: Text::clip("role/Ops"),
            },
        ),
        (
            "along",
            Command::RevokedWithCoHolder {
                with: id(9),
                by: Some(bob()),
                reason: None,
            },
        ),
        ("cleaned", cleaned(seen_gone())),
        ("unproven", cleaned(Proof::None)),
        // The rules of the table still let an approved request begin; `at_start` has the others.
        ("rules", Command::RulesChanged { by: None }),
    ];
    compare(PEOPLE, &asks);
}

fn cleaned(proof: Proof) -> Command {
    Command::CleanedUp {
        by: bob(),
        reason: Text::clip("by hand"),
        credentials: Text::clip("arn"),
        proof,
    }
}

fn seen_gone() -> Proof {
    let lease = lease().token;
    let revision = Some(0);
    Proof::Assignment(AssignmentProof { lease, revision })
}

#[test]
fn every_state_answers_the_commands_of_workers_by_the_table() {
    let no_user = AssignmentOutcome::NoUser {
        why: Text::clip("none"),
    };
    let denied = AssignmentOutcome::OldCredentialsDenied {
        until: later(),
        dropped: Vec::new(),
    };
    let work = [
        ("due", due_at(later())),
        ("prepared", finished(prepared(Presence::Absent, 0))),
        ("nouser", finished(no_user)),
        ("created", finished(AssignmentOutcome::Created)),
        ("gone", finished(AssignmentOutcome::Gone)),
        ("there", finished(AssignmentOutcome::StillThere)),
        ("failed", finished(WorkFailure::passing("slow"))),
        ("refused3", finished(WorkFailure::refused("no"))),
        ("interrupted", finished(Outcome::Interrupted)),
        (
            "standing",
            Command::FoundPresent {
                by: None,
                credentials: Text::clip("arn"),
                revision: 0,
            },
        ),
        ("denied", finished(denied)),
        ("noneleft", finished(AssignmentOutcome::OldCredentialsGone)),
        ("lifted", finished(AssignmentOutcome::DenyLifted)),
    ];
    compare(WORK, &work);
}

/// In each state that accepts a command, the wrong person gets a 403.
#[test]
fn a_command_of_the_wrong_person_is_refused() {
    let mallory = person("mallory");
    let refusal = |state: &str, by: &Person, ask: Ask| {
        let record = record(state);
        decide(record, &policy(), asked(by.clone(), ask), later()).unwrap_err()
    };
    for (state, ask) in [
        ("Pending", Ask::Approve),
        ("Pending", Ask::Deny { reason: None }),
        ("Pending", Ask::Cancel),
        (
            "Granted",
            Ask::Extend {
                minutes: minutes(5),
            },
        ),
    ] {
        assert_eq!(
            status(&refusal(state, &mallory, ask.clone())),
            "403",
            "{state} {ask:?}"
        );
    }
    assert_eq!(
        refusal("Pending", &alice(), Ask::Approve),
        Refusal::SelfApproval
    );
    let twin = Person {
        id: "bob".parse().unwrap(),
        ..alice()
    };
    assert_eq!(
        refusal("Pending", &twin, Ask::Approve),
        Refusal::SelfApproval
    );
    // G11: if `policy.admins` names admins, the scope of a key does not allow the revoke of
    // another person's grant.
    let strict = Policy {
        admins: Admins::of_policy(["root".to_owned()]),
        ..policy()
    };
    let ask = Command::Asked {
        by: mallory,
        ask: Ask::Revoke { reason: None },
    };
    let refused = decide(record("Granted"), &strict, ask, later()).unwrap_err();
    assert_eq!(status(&refused), "403");
}

/// G10: without a binding, with a binding to another channel, or without approvers, no person
/// can approve.
#[test]
fn an_approval_without_a_binding_or_approvers_is_refused() {
    let closed: [fn(&mut Record); 3] = [
        |r| r.binding = None,
        |r| r.binding.as_mut().unwrap().approvers.clear(),
        |r| r.binding.as_mut().unwrap().channel_id = "other".parse().unwrap(),
    ];
    for close in closed {
        let mut record = record("Pending");
        close(&mut record);
        let refused = decide(record, &policy(), asked(bob(), Ask::Approve), later());
        assert_eq!(status(&refused.unwrap_err()), "403");
    }
}

/// G7: the end is counted from the grant; and an approval after the time limit is refused.
#[test]
fn a_time_limit_applies_before_a_worker_has_acted() {
    let mut late = record("Pending");
    late.request.schedule.due_at = Some(later());
    let refused = decide(late, &policy(), asked(bob(), Ask::Approve), later()).unwrap_err();
    assert!(matches!(refused, Refusal::WaitedTooLong { .. }));
    let record = record("Assigning");
    let granted = decide(
        record,
        &policy(),
        finished(AssignmentOutcome::Created),
        later(),
    )
    .unwrap()
    .request;
    assert_eq!(granted.end_time(), later() + Millis::minutes(60));
    assert_eq!(granted.schedule.due_at, Some(granted.end_time()));
}

/// T4: rules about approvers, sets and durations do not refuse a revoke.
#[test]
fn a_revoke_is_accepted_after_the_rules_have_changed() {
    let mut record = record("Granted");
    record.binding = None;
    let strict = Policy {
        max_request_hours: 0,
        permission_sets: [].into(),
        ..policy()
    };
    let ask = asked(bob(), Ask::Revoke { reason: None });
    let decision = decide(record, &strict, ask, later()).unwrap();
    assert_eq!(name(&decision.request), "Revoking");
}

/// P4, G6, T12: the assignment is removed at the end of its last holder; a revoke ends all
/// holders.
#[test]
fn a_shared_assignment_is_removed_at_the_end_of_its_last_holder() {
    let mut shared = record("Granted");
    holding_of(&mut shared).holders.insert(id(7));
    let due = due_at(at_the_end());
    let decision = decide(shared.clone(), &policy(), due, at_the_end()).unwrap();
    assert_eq!(name(&decision.request), "Expired");
    assert_eq!(decision.work, None, "the other holder keeps the assignment");
    assert!(!decision.access.holding().unwrap().holds(id(1)));
    let ask = asked(bob(), Ask::Revoke { reason: None });
    let decision = decide(shared, &policy(), ask, later()).unwrap();
    assert_eq!(decision.access.co_holders().unwrap().requests, [id(7)]);
    assert!(decision.access.holding().unwrap().removing);
}

/// P4: an assignment from outside is not used and not removed.
#[test]
fn an_assignment_from_outside_ends_the_request_in_error() {
    let mut record = record("Approved");
    record.access = Some(Holding::unheld(key())).into();
    let outcome = prepared(Presence::Present, 0);
    let decision = decide(record, &policy(), finished(outcome), later()).unwrap();
    assert_eq!(
        (name(&decision.request), decision.work),
        ("Error".into(), None)
    );
}

/// E6: a look that is older than the last change of the holding is made again.
#[test]
fn a_look_older_than_the_holding_is_repeated() {
    let outcome = prepared(Presence::Absent, 4);
    let decision = decide(record("Approved"), &policy(), finished(outcome), later()).unwrap();
    assert_eq!(decision.work, Some(AssignmentWork::Prepare.into()));
}

/// P4: a revoke ends all holders in one commit, and a commit has a limited size.
#[test]
fn an_assignment_has_at_most_32_holders() {
    for (many, ends) in [(31, "Assigning"), (32, "Error")] {
        let mut record = record("Approved");
        let mut holding = Holding::unheld(key());
        holding.holders = (100..100 + many).map(id).collect();
        record.access = Some(holding).into();
        let outcome = prepared(Presence::Present, 0);
        let decision = decide(record, &policy(), finished(outcome), later()).unwrap();
        assert_eq!(name(&decision.request), ends, "{many}");
    }
}

/// G3, E2, T2: a failing removal is retried without end, and at least once a minute.
#[test]
fn a_failing_removal_is_retried_without_end() {
    let mut record = record("Revoking");
    let mut now = later();
    for _ in 0..500 {
        let outcome = finished(WorkFailure::refused("no"));
        let decision = decide(record.clone(), &policy(), outcome, now).unwrap();
        let due = decision.request.schedule.due_at.unwrap();
        assert!(due > now && due <= now + Millis::seconds(60));
        assert_eq!(name(&decision.request), "Revoking");
        record.request = decision.request;
        record.request.schedule.lease = Some(lease());
        now = due;
    }
    let failing = record.request.schedule.failures.as_ref().unwrap();
    assert_eq!(failing.attempts, 500);
    assert!(
        record.request.version.chain.version < 15,
        "the history does not grow with every attempt"
    );
}

/// Also if the request changes meanwhile.
#[test]
fn a_deny_statement_is_removed_only_at_its_end() {
    let until = later() + Millis::hours(1);
    let mut unsettled = record("Unsettled");
    let denied = Some(OldCredentials::Denied { until });
    unsettled.request.access.set_old_credentials(denied);
    let settled = decide(
        unsettled,
        &policy(),
        finished(AssignmentOutcome::Gone),
        later(),
    )
    .unwrap();
    assert!(settled.request.state.is_settled());
    assert_eq!(settled.request.schedule.due_at, Some(until));
    // C: nor if the record has an earlier time.
    let mut early = record("ToDeny");
    early.request.access.set_old_credentials(denied);
    early.request.schedule.due_at = Some(later());
    let due = decide(early, &policy(), due_at(later()), later()).unwrap();
    assert_eq!(due.request.schedule.due_at, Some(until));
    assert_eq!(due.request.schedule.lease, None);
}

#[test]
fn a_draft_without_a_reason_or_with_wrong_terms_is_refused() {
    let refused = |change: fn(&mut Draft)| {
        let mut draft = draft();
        change(&mut draft);
        status(&open(draft, Some(binding()), &policy(), later()).unwrap_err())
    };
    assert_eq!(refused(|d| d.reason = None), "400");
    assert_eq!(refused(|d| d.duration = minutes(241)), "400");
    assert_eq!(
        refused(|d| d.permission_set = Some("none".parse().unwrap())),
        "400"
    );
    assert_eq!(refused(|d| d.channel_id = "other".parse().unwrap()), "403");
    assert_eq!(
        status(&open(draft(), None, &policy(), later()).unwrap_err()),
        "403"
    );
}

/// A card or a reminder is stored in every state, and changes nothing else.
#[test]
fn a_post_is_stored_in_every_state_and_changes_nothing_else() {
    let post: PostId = "h8juaz5zu3yfjc9ze76ww5dugc".parse().unwrap();
    let reminder = Reminder {
        post: post.clone(),
        of: 5,
    };
    let states = PEOPLE.lines().skip(2).filter_map(|l| l.split(' ').next());
    for state in states {
        let before = record(state).request;
        let after = |posted| decide(record(state), &policy(), posted, later()).unwrap();
        let revision = before.version.revision + 1;
        let card = after(Command::CardPosted {
            post: post.clone(),
            key: "first".into(),
        });
        let mut wanted = before.at_revision(revision);
        wanted.chat.card = Some(post.clone());
        wanted.chat.button_key = Some("first".into());
        assert_eq!(card.request, wanted, "{state}");
        let sealed = after(Command::ButtonsSealed {
            key: "second".into(),
        });
        let mut wanted = before.at_revision(revision);
        wanted.chat.button_key = Some("second".into());
        assert_eq!(sealed.request, wanted, "{state}");
        let told = after(Command::ReminderPosted {
            reminder: reminder.clone(),
        });
        let mut wanted = before.at_revision(revision);
        wanted.chat.reminder = Some(reminder.clone());
        assert_eq!(told.request, wanted, "{state}");
        for after in [card, sealed, told] {
            assert!(
                after.events.is_empty() && after.notices.is_empty(),
                "{state}"
            );
            assert!(after.access.is_none(), "{state}");
        }
    }
}

fn compare(expected: &str, commands: &[(&str, Command)]) {
    let states: Vec<&str> = expected
        .lines()
        .skip(2)
        .filter_map(|l| l.split(' ').next())
        .collect();
    let mut rows = vec![String::new(); states.len() + 1];
    let mut put = |row: usize, width: usize, cell: &str| {
        let line = &mut rows[row];
        write!(line, "{cell:width$} ").unwrap();
    };
    put(0, 12, "");
    for (row, state) in states.iter().enumerate() {
        put(row + 1, 12, state);
    }
    for (word, command) in commands {
        let cells: Vec<String> = states
            .iter()
            .map(|state| cell(state, command, word))
            .collect();
        let width = cells
            .iter()
            .map(String::len)
            .chain([word.len()])
            .max()
            .unwrap();
        put(0, width, word);
        for (row, cell) in cells.iter().enumerate() {
            put(row + 1, width, cell);
        }
    }
    let found: String = rows
        .iter()
        .map(|row| format!("{}\n", row.trim_end()))
        .collect();
    assert_eq!(
        found.trim_end(),
        expected.trim_start_matches('\n').trim_end(),
        "\n{found}"
    );
}

fn cell(state: &str, command: &Command, word: &str) -> String {
    let mut record = record(state);
    if word == "refused3" {
        let failures = Some(crate::domain::Failing {
            since: Timestamp::from_seconds(0),
            attempts: 2,
            refusals: 2,
            why: Text::clip("no"),
        });
        record.request.schedule.failures = failures;
    }
    if word == "due" && state == "Pending" {
        record.request.schedule.due_at = Some(later());
    }
    let now = if word == "due" { at_the_end() } else { later() };
    let before = record.clone();
    match decide(record, &policy(), command.clone(), now) {
        Ok(decision) => {
            check_invariants(&before, &decision);
            let after = name(&decision.request);
            if after == state { "=".into() } else { after }
        }
        Err(refusal) => status(&refusal),
    }
}

/// Checks what must hold for every decision.
fn check_invariants(before: &Record, after: &super::Decision) {
    let request = &after.request;
    assert_eq!(
        request.version.revision,
        before.request.version.revision + 1
    );
    assert_eq!(
        request.version.chain.version,
        before.request.version.chain.version + after.events.len() as u64,
        "a version is the number of its last event"
    );
    if request.status() != before.request.status() {
        let last = after.events.last().expect("a change of status is recorded");
        assert_eq!(last.status, Some(request.status()));
    }
    if !request.state.is_settled() {
        assert!(
            request.schedule.due_at.is_some(),
            "P1: a request that is not settled has a due time"
        );
    } else if request.access.old_credentials().is_some() {
        assert!(
            request.schedule.due_at.is_some(),
            "a deny statement is placed and later removed"
        );
    } else {
        assert_eq!(
            (request.schedule.due_at, request.schedule.lease),
            (None, None)
        );
    }
}

fn status(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Leased { .. } | Refusal::NotDue { .. } => ".".into(),
        other => crate::code::Code::of(other).http().to_string(),
    }
}

fn name(request: &Request) -> String {
    match &request.state {
        State::Granted if request.grant.extension.is_some() => "Extending".into(),
        State::Removing {
            ending: Ending::Expired,
        } => "Expiring".into(),
        State::Removing {
            ending: Ending::Revoked { .. },
        } => "Revoking".into(),
        State::Removing {
            ending: Ending::Failed { .. },
        } => "RollingBack".into(),
        State::Unsettled { .. } => "Unsettled".into(),
        State::Revoked { .. } if request.access.old_credentials().is_some() => {
            match request.access.old_credentials() {
                Some(OldCredentials::Ending { .. }) => "ToDeny".into(),
                _ => "DenyStands".into(),
            }
        }
        State::Error(_) => "Error".into(),
        other => {
            let debug = format!("{other:?}");
            debug.split([' ', '(']).next().unwrap().to_owned()
        }
    }
}
