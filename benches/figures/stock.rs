//! Fills a store with many grants, and reads the results of a measurement from it.

use std::path::Path;
use std::time::Duration;

use jit::clock::{Clock, SystemClock};
use jit::domain::{
    AccessChange, AccessFacts, AccountId, AssignmentChange, AssignmentFacts, AuditKey, Decision,
    Draft, EventKind, Holding, HoldingKey, Millis, Minutes, Period, Person, RequestId, State, Text,
    Timestamp, open,
};
use jit::store::sqlite::SqliteStore;
use jit::store::{Commit, Store, Write};

use crate::aws::{ADMIN, Aws};
use crate::fixtures::{binding, policy};
use crate::process::{ACCOUNT, user_id};

/// A live grant to write: its requester, its account and its end.
struct Grant {
    number: usize,
    user: String,
    account: AccountId,
    until: Timestamp,
}

fn opened(number: usize, now: Timestamp) -> Decision {
    let email = format!("user{number}@example.com").parse().unwrap();
    let draft = Draft {
        id: RequestId::from_uuid(SystemClock.draw()),
        account_id: ACCOUNT.parse().unwrap(),
        channel_id: "town-square".parse().unwrap(),
        requester: Person {
            id: user_id(number).parse().unwrap(),
            email,
        },
        reason: Some(Text::clip("INC-42: db down: need psql")),
        jira: None,
        duration: Minutes::new(60).unwrap(),
        permission_set: None,
        start_at: None,
    };
    open(draft, Some(binding()), &policy(), now).unwrap()
}

/// Returns the number of bytes that one create writes: the record, its event and the nonce.
pub fn bytes_of_a_create() -> usize {
    let decision = opened(1, SystemClock.now());
    let record = serde_json::to_string(&decision.request).unwrap();
    let event = serde_json::to_string(&decision.events[0]).unwrap();
    record.len() + event.len() + 36
}

/// Fills a store with live grants; returns those that end soon, with their ends.
pub async fn of_grants(folder: &Path, count: usize, soon: usize) -> Vec<(RequestId, Timestamp)> {
    let store = SqliteStore::open(&folder.join("jit.db")).unwrap();
    let now = SystemClock.now();
    let mut ending = Vec::new();
    let mut number = 0;
    while number < count {
        let mut commit = Commit::default();
        for _ in 0..100 {
            let until = if number < soon {
                now + Millis::seconds(14) + Millis(i64::try_from(number).unwrap() * 50)
            } else {
                now + Millis::hours(90)
            };
            let grant = Grant {
                number,
                user: format!("user-{number}"),
                account: ACCOUNT.parse().unwrap(),
                until,
            };
            let id = put(&mut commit, grant, now);
            if number < soon {
                ending.push((id, until));
            }
            number += 1;
        }
        store.commit(commit).await.unwrap();
    }
    ending
}

fn put(commit: &mut Commit, grant: Grant, now: Timestamp) -> RequestId {
    let mut decision = opened(grant.number, now);
    let request = &mut decision.request;
    let (id, until) = (request.id, grant.until);
    request.asked.account_id = grant.account;
    request.state = State::Granted;
    request.grant.period = Some(Period { from: now, until });
    request.schedule.due_at = Some(until);
    request.access = AccessFacts::Assignment(AssignmentFacts {
        user: Some(grant.user.parse().unwrap()),
        ..AssignmentFacts::default()
    });
    let key: HoldingKey = request.holding_key().unwrap();
    decision.access = AccessChange::Assignment(AssignmentChange {
        holding: Some(Holding {
            holders: [id].into(),
            revision: 1,
            ..Holding::unheld(key)
        }),
        ..AssignmentChange::default()
    });
    decision.notices.clear();
    commit.writes.extend(Write::of_decision(decision));
    id
}

/// Stores grants in several accounts that all end at once, and as the last one a grant that
/// stays. The simulated AWS has an assignment for each.
pub async fn ending_together(
    folder: &Path,
    aws: &Aws,
    count: usize,
    accounts: usize,
    until: Timestamp,
) -> Vec<RequestId> {
    let store = SqliteStore::open(&folder.join("jit.db")).unwrap();
    let now = SystemClock.now();
    let mut commit = Commit::default();
    let mut ids = Vec::new();
    for number in 0..=count {
        let name = format!("user{number}");
        let account = format!("{:012}", number % accounts + 1);
        aws.add_user(&name, &name);
        let email = format!("{name}@example.com");
        aws.assign(&account, ADMIN, &email);
        let grant = Grant {
            number,
            user: aws.user_id(&email),
            account: account.parse().unwrap(),
            until: match number == count {
                true => now + Millis::hours(4),
                false => until,
            },
        };
        ids.push(put(&mut commit, grant, now));
    }
    store.commit(commit).await.unwrap();
    ids
}

/// Waits until these histories have ended, and returns the time of each end.
pub async fn ended(folder: &Path, ids: &[RequestId]) -> Vec<Timestamp> {
    first_ended(folder, ids, ids.len()).await
}

/// Waits until `many` of these histories have ended, and returns the time of each end.
pub async fn first_ended(folder: &Path, ids: &[RequestId], many: usize) -> Vec<Timestamp> {
    let store = SqliteStore::open_read_only(&folder.join("jit.db")).unwrap();
    let (mut ended, mut left) = (Vec::new(), ids.to_vec());
    loop {
        let mut open = Vec::new();
        for id in left {
            let history = store.audit(&AuditKey::Request(id)).await.unwrap();
            let over = history
                .iter()
                .find(|event| [EventKind::Expired, EventKind::Revoked].contains(&event.event_type));
            match over {
                Some(event) => ended.push(event.event_time),
                None => open.push(id),
            }
        }
        if ended.len() >= many {
            return ended;
        }
        left = open;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Returns the largest delay of the start of an expiry, in milliseconds.
pub async fn lateness(folder: &Path, ending: &[(RequestId, Timestamp)]) -> i64 {
    let store = SqliteStore::open_read_only(&folder.join("jit.db")).unwrap();
    let mut worst = 0;
    for (id, until) in ending {
        let begun = loop {
            let history = store.audit(&AuditKey::Request(*id)).await.unwrap();
            let begun = history
                .iter()
                .find(|event| event.event_type == EventKind::ExpiryStarted);
            if let Some(event) = begun {
                break event.event_time;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        worst = worst.max((begun - *until).0);
    }
    worst
}

/// Returns for each revoke the time from the end of the AWS operation to the answer, in
/// milliseconds.
pub fn after_removal(folder: &Path, answered: &[(String, i64)]) -> Vec<i64> {
    let db = rusqlite::Connection::open(folder.join("jit.db.sandbox")).unwrap();
    let sql = "SELECT max(ready_at) FROM operations WHERE kind = 'delete' AND user_id = ?1";
    let mut removal = db.prepare(sql).unwrap();
    let mut late = Vec::new();
    for (user, at) in answered {
        let finished: i64 = removal.query_row([user], |row| row.get(0)).unwrap();
        late.push(at - finished);
    }
    late
}
