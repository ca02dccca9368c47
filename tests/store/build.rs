//! Builders of records.

use jit::domain::{
    AccessFacts, Admin, AssignmentFacts, Audience, BindTerms, Binding, Channel,
    ConfigurationChange, Decision, Draft, Holding, HoldingKey, Lease, LeaseHolder, LeaseToken,
    Minutes, Notice, Period, Person, Rebinding, Refusal, Request, RequestId, State, Status, Text,
    Timestamp, UserId, open,
};
use jit::store::{ClaimEnd, Commit, Nonce, Write};
use uuid::Uuid;

use crate::fixtures::policy;

pub const T0: i64 = 1_800_000_000;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(T0 + seconds)
}

pub fn id(number: u128) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(number))
}

/// All receivers have the notice, and none has a later one.
pub fn delivered() -> ClaimEnd {
    ClaimEnd::Delivered { ahead: Vec::new() }
}

pub fn token(number: u128) -> LeaseToken {
    LeaseToken(Uuid::from_u128(number))
}

pub fn lease(number: u128, until: Timestamp) -> Lease {
    Lease {
        token: token(number),
        until,
        by: LeaseHolder::Server,
    }
}

/// A channel with its first binding.
pub fn bound(channel: &str, account: &str) -> Rebinding {
    bound_again(&Channel::unknown(channel.parse().unwrap()), account)
}

/// A binding of an account to a channel with a history.
pub fn bound_again(channel: &Channel, account: &str) -> Rebinding {
    changed(channel, |change| {
        let account = account.parse().unwrap();
        change.bind(None, &[], account, BindTerms::default())
    })
}

pub fn unbound(channel: &Channel, binding: &Binding) -> Rebinding {
    changed(channel, |change| {
        change.unbind(Some(binding.clone()), &binding.account_id)
    })
}

fn changed(
    channel: &Channel,
    make: impl FnOnce(ConfigurationChange<'_>) -> Result<Rebinding, Refusal>,
) -> Rebinding {
    let admin = Admin {
        person: None,
        key_id: "plugin".into(),
    };
    let policy = policy();
    let change = ConfigurationChange {
        channel: channel.clone(),
        admin: &admin,
        policy: &policy,
        now: at(0),
    };
    make(change).unwrap()
}

pub fn binding() -> Binding {
    let mut binding = bound("town", "111122223333").bindings.remove(0);
    binding.approvers = vec!["bob".parse().unwrap()];
    binding
}

pub fn writing(rebinding: &Rebinding) -> Commit {
    Commit::of(Write::of_rebinding(rebinding.clone()))
}

pub fn opened(number: u128, created: Timestamp) -> Decision {
    let draft = Draft {
        id: id(number),
        account_id: "111122223333".parse().unwrap(),
        channel_id: "town".parse().unwrap(),
        requester: Person {
            id: "alice".parse().unwrap(),
            email: "alice@example.com".parse().unwrap(),
        },
        reason: Some(Text::clip("INC-42: db down: need psql")),
        jira: None,
        duration: Minutes::new(60).unwrap(),
        permission_set: None,
        start_at: None,
    };
    open(draft, Some(binding()), &policy(), created).unwrap()
}

pub fn creating(decision: &Decision) -> Commit {
    Commit::of(Write::of_decision(decision.clone()))
}

/// The next revision of a record, with a change.
pub fn later(request: &Request, change: impl FnOnce(&mut Request)) -> Request {
    let mut later = request.clone();
    later.version.revision += 1;
    change(&mut later);
    later
}

/// The commit of the next revision of a record.
pub fn next(request: &Request, change: impl FnOnce(&mut Request)) -> Commit {
    Commit::of([Write::Request(later(request, change))])
}

pub fn granted(request: &Request, until: Timestamp) -> Request {
    let mut granted = request.clone();
    granted.state = State::Granted;
    granted.access = with_user("u-1".parse().unwrap());
    granted.grant.period = Some(Period {
        from: request.asked.created_at,
        until,
    });
    granted.schedule.due_at = Some(until);
    granted
}

pub fn with_user(user: UserId) -> AccessFacts {
    AccessFacts::Assignment(AssignmentFacts {
        user: Some(user),
        ..AssignmentFacts::default()
    })
}

pub fn key() -> HoldingKey {
    HoldingKey {
        account_id: "111122223333".parse().unwrap(),
        permission_set: "admin".parse().unwrap(),
        user: "u-1".parse().unwrap(),
    }
}

pub fn held(revision: u64, by: &[RequestId]) -> Holding {
    Holding {
        holders: by.iter().copied().collect(),
        revision,
        ..Holding::unheld(key())
    }
}

pub fn nonce(text: &str, now: i64, until: i64) -> Nonce {
    Nonce {
        text: text.into(),
        at: at(now),
        keep_until: at(until),
    }
}

pub fn notice(number: u128, seq: u64, created: Timestamp) -> Notice {
    Notice {
        request_id: id(number),
        seq,
        status: Status::Granted,
        account_id: "111122223333".parse().unwrap(),
        channel_id: "town".parse().unwrap(),
        actor: "system".into(),
        details: [("reason".to_owned(), "why: not".to_owned())].into(),
        created_at: created,
        audience: Audience::Everybody,
        received_by: [].into(),
        told: [].into(),
    }
}
