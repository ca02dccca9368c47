//! The ends that a worker checks at AWS, in each store.

use std::sync::Arc;

use jit::clock::{Clock, SystemClock};
use jit::domain::{Doubt, ErrorEnd, Millis, OldCredentials, Request, State, Text};
use jit::service::{Announce, Service};
use jit::store::Filter;

use crate::build::{at, creating, granted, id, key, next, opened, with_user};
use crate::fixtures::{person, policy};
use crate::verify::each_store;

/// Each state whose request is due soon, and whether its end is checked at AWS.
fn states() -> [(State, bool); 5] {
    let by = Some(person("bob"));
    let revoked = State::Revoked {
        by,
        reason: None,
        at: at(9),
    };
    let error = ErrorEnd {
        at: at(9),
        why: Text::clip("AWS said no"),
    };
    let unsettled = |end| State::Unsettled {
        end: Box::new(end),
        doubt: Doubt::Outside,
    };
    let checking = State::Checking {
        by: person("bob"),
        reason: None,
        error: error.clone(),
    };
    [
        (unsettled(revoked.clone()), true),
        (checking, true),
        (unsettled(State::Error(error)), true),
        (State::Granted, false),
        (revoked, false),
    ]
}

// W5
#[tokio::test]
async fn w5_checked_ends_are_found_among_all_due_requests_in_each_store() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        let clock = Arc::new(SystemClock);
        let service = Service::new(store.clone(), clock, policy(), Announce::None);
        let now = SystemClock.now();
        let mut wanted = Vec::new();
        for (number, (state, is_checked)) in (1..).zip(states()) {
            let created = opened(number, at(i64::try_from(number).unwrap()));
            store.commit(creating(&created)).await.unwrap();
            let has_more_to_end = matches!(state, State::Revoked { .. });
            let due = |request: &mut Request| {
                *request = granted(request, now + Millis::minutes(1));
                request.state = state;
                request.access = with_user(key().user);
                if has_more_to_end {
                    let ending = OldCredentials::Ending { before: at(9) };
                    let jit::domain::AccessFacts::Assignment(facts) = &mut request.access;
                    facts.old_credentials = Some(ending);
                }
                request.schedule.due_at = Some(now + Millis::minutes(1));
            };
            store.commit(next(&created.request, due)).await.unwrap();
            if is_checked {
                wanted.insert(0, id(number));
            }
        }
        let ids = async |filter: Filter| -> Vec<jit::domain::RequestId> {
            let found = service.checked_ends(&filter).await.unwrap();
            assert_eq!(found.unreadable, []);
            found.items.iter().map(|one| one.id).collect()
        };
        assert_eq!(ids(Filter::default()).await, wanted);
        let of = |channel: &str| Filter {
            channel_id: Some(channel.parse().unwrap()),
            before: Some(at(3)),
            ..Filter::default()
        };
        assert_eq!(ids(of("town")).await, [id(2), id(1)]);
        assert_eq!(ids(of("other")).await, []);
    }
}
