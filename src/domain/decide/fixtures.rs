//! Test data for the table and the walks: people, records in every state, the policy.

use uuid::Uuid;

use super::{Record, open};
use crate::domain::{
    AccessForm, AccessRecord, Admins, Approval, Ask, AssignmentOutcome, AssignmentRecord, Binding,
    Chain, Claim, Command, Doubt, Draft, Ending, ErrorEnd, Extension, ExtensionRule, Holding,
    HoldingKey, Lease, LeaseHolder, LeaseToken, Millis, Minutes, OldCredentials,
    OldCredentialsRule, Outcome, Period, Person, Policy, Preparation, Presence, Request, RequestId,
    SetRule, State, Text, Timestamp,
};

/// A request in that state; a worker has its lease, `lease()`, unless it is settled.
pub(crate) fn record(word: &str) -> Record {
    let binding = Some(binding());
    let opened = open(
        draft(),
        binding.clone(),
        &policy(),
        Timestamp::from_seconds(0),
    );
    let mut request = opened.unwrap().request;
    if word == "Pending" {
        request.schedule.lease = Some(lease());
        return Record {
            request,
            binding,
            access: AccessRecord::unread(AccessForm::Assignment),
        };
    }
    advance(&mut request, word);
    let was_granted = !matches!(request.state, State::Approved | State::Error(_));
    if was_granted {
        request.grant.period = Some(Period {
            from: minute(),
            until: at_the_end(),
        });
    }
    let mut holding = Holding::unheld(key());
    if was_granted && !request.state.is_settled() {
        holding.holders.insert(request.id);
    }
    Record {
        access: request.access.was_begun().then_some(holding).into(),
        request,
        binding,
    }
}

/// The time of all that happened before.
fn minute() -> Timestamp {
    Timestamp::from_seconds(60)
}

fn advance(request: &mut Request, word: &str) {
    let at = minute();
    let (by, approvals) = (bob(), Vec::new());
    request.state = state(word);
    request.approvals.given = vec![Approval { by, at }];
    request.approvals.complete_at = Some(at);
    if word != "NeverHeld" {
        request.access.set_user("u-1".parse().unwrap());
    }
    request.grant.extension = (word == "Extending").then(|| Extension {
        by: alice(),
        minutes: minutes(30),
        approvals,
    });
    request.access.set_old_credentials(match word {
        "ToDeny" => Some(OldCredentials::Ending { before: at }),
        "DenyStands" => Some(OldCredentials::Denied { until: later() }),
        _ => None,
    });
    let is_over = request.state.is_settled() && request.access.old_credentials().is_none();
    request.schedule.due_at = (!is_over).then(later);
    request.schedule.lease = (!is_over).then(lease);
    request.version.chain = Chain {
        version: 3,
        ..Chain::default()
    };
}

fn state(word: &str) -> State {
    let (at, reason, by) = (minute(), None, Some(bob()));
    let why = Text::clip("AWS said no");
    let error = ErrorEnd {
        at,
        why: why.clone(),
    };
    match word {
        "Approved" => State::Approved,
        "Assigning" => State::Assigning,
        "Granted" | "Extending" => State::Granted,
        "Expiring" => State::Removing {
            ending: Ending::Expired,
        },
        "Revoking" => State::Removing {
            ending: Ending::Revoked {
                by,
                reason,
                asked_at: at,
            },
        },
        "RollingBack" => State::Removing {
            ending: Ending::Failed { why },
        },
        "Checking" => State::Checking {
            by: bob(),
            reason,
            error,
        },
        "Unsettled" => State::Unsettled {
            end: Box::new(State::Revoked { by, reason, at }),
            doubt: Doubt::Outside,
        },
        "Denied" => State::Denied {
            by: bob(),
            reason,
            at,
        },
        "Cancelled" => State::Cancelled { by, at },
        "Expired" => State::Expired { at },
        "Revoked" | "ToDeny" | "DenyStands" => State::Revoked { by, reason, at },
        "Error" | "NeverHeld" => State::Error(error),
        other => panic!("no such state: {other}"),
    }
}

pub(crate) fn draft() -> Draft {
    Draft {
        id: id(1),
        account_id: "123456789012".parse().unwrap(),
        channel_id: "town".parse().unwrap(),
        requester: alice(),
        reason: Some(Text::clip("INC-42: db down: need psql")),
        jira: None,
        duration: minutes(60),
        permission_set: None,
        start_at: None,
    }
}

pub(crate) fn binding() -> Binding {
    Binding {
        account_id: "123456789012".parse().unwrap(),
        channel_id: "town".parse().unwrap(),
        approvers: vec![
            "bob".parse().unwrap(),
            "carol".parse().unwrap(),
            "alice".parse().unwrap(),
        ],
        approvals_required: 1,
        allow_self_approval: false,
        max_request_hours: None,
        session_duration_minutes: 60,
        permission_sets: Vec::new(),
        updated_at: Timestamp::default(),
        revision: 1,
        bound_seq: 1,
    }
}

pub(crate) fn policy() -> Policy {
    Policy {
        permission_sets: ["admin", "readonly"]
            .map(|name| (name.parse().unwrap(), set_rule()))
            .into(),
        default_permission_set: "admin".parse().unwrap(),
        pending_lifetime: Millis::hours(8),
        max_request_hours: 4,
        max_start_ahead: Millis::hours(24 * 30),
        extension: ExtensionRule::NeedsApproval,
        grant_patience: Millis::minutes(15),
        max_pending_requests: 500,
        admins: Admins::of_policy([]),
        end_sessions: OldCredentialsRule::Off,
        remind_before: None,
    }
}

fn set_rule() -> SetRule {
    SetRule {
        form: AccessForm::Assignment,
        max_request_hours: None,
    }
}

/// The holding of a record that has one.
pub(crate) fn holding_of(record: &mut Record) -> &mut Holding {
    let AccessRecord::Assignment(AssignmentRecord { holding }) = &mut record.access;
    holding.as_mut().unwrap()
}

pub(crate) fn key() -> HoldingKey {
    HoldingKey {
        account_id: "123456789012".parse().unwrap(),
        permission_set: "admin".parse().unwrap(),
        user: "u-1".parse().unwrap(),
    }
}

pub(crate) fn asked(by: Person, ask: Ask) -> Command {
    Command::Asked { by, ask }
}

/// AWS showed this before the create, when the holding had this revision.
pub(crate) fn prepared(presence: Presence, revision: u64) -> AssignmentOutcome {
    AssignmentOutcome::Prepared(Preparation {
        user: key().user,
        presence,
        revision,
        permission_set_arn: "arn".into(),
    })
}

pub(crate) fn finished(outcome: impl Into<Outcome>) -> Command {
    Command::Finished {
        lease: lease().token,
        outcome: outcome.into(),
        calls: None,
    }
}

/// A claim under `lease()`.
pub(crate) fn due_at(now: Timestamp) -> Command {
    Command::Due {
        claim: Claim {
            lease: lease(),
            lapsed: None,
            as_of: now,
        },
    }
}

pub(crate) fn lease() -> Lease {
    Lease {
        token: LeaseToken(Uuid::from_u128(77)),
        until: later() + Millis::seconds(30),
        by: LeaseHolder::Server,
    }
}

pub(crate) fn later() -> Timestamp {
    Timestamp::from_seconds(120)
}

/// The end of every grant in these tests.
pub(crate) fn at_the_end() -> Timestamp {
    later() + Millis::minutes(9)
}

pub(crate) fn id(number: u128) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn minutes(minutes: i64) -> Minutes {
    Minutes::new(minutes).unwrap()
}

pub(crate) fn person(name: &str) -> Person {
    let email = format!("{name}@example.com").parse().unwrap();
    Person {
        id: name.parse().unwrap(),
        email,
    }
}

pub(crate) fn alice() -> Person {
    person("alice")
}

pub(crate) fn bob() -> Person {
    person("bob")
}

pub(crate) fn carol() -> Person {
    person("carol")
}
