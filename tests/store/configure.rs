//! Configuration changes in several commits, with another change between two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use jit::clock::{Clock, Uptime};
use jit::domain::{Admin, AuditKey, BindTerms, ChannelId, Draft, Minutes, MmUserId, Timestamp};
use jit::service::{Announce, Configure, Service, VerifiedLog};
use jit::store::Store;
use uuid::Uuid;

use crate::build::{at, id, writing};
use crate::fixtures::{person, policy};
use crate::memory::MemoryStore;

const ACCOUNTS: usize = 100;

fn account(number: usize) -> jit::domain::AccountId {
    format!("{number:012}").parse().unwrap()
}

fn town() -> ChannelId {
    "town".parse().unwrap()
}

/// The clock, which calls an admin who unbinds the first account during the second commit.
struct UnbindingClock {
    store: MemoryStore,
    asked: AtomicU32,
}

impl UnbindingClock {
    fn unbind_the_first(&self) {
        let unbinding = async {
            let change = jit::domain::ConfigurationChange {
                channel: self.store.channel(&town()).await.unwrap().unwrap(),
                admin: &admin(),
                policy: &policy(),
                now: at(1),
            };
            let first = self.store.binding(&account(0)).await.unwrap();
            let unbinding = change.unbind(first, &account(0)).unwrap();
            self.store.commit(writing(&unbinding)).await.unwrap();
        };
        unbinding.now_or_never().unwrap();
    }
}

#[async_trait]
impl Clock for UnbindingClock {
    fn now(&self) -> Timestamp {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 1 {
            self.unbind_the_first();
        }
        at(1)
    }
    fn uptime(&self) -> Uptime {
        Uptime::default()
    }
    async fn wait_until(&self, _: Timestamp) {}
    async fn sleep_until(&self, _: Uptime) {}
    fn draw(&self) -> Uuid {
        Uuid::nil()
    }
}

fn admin() -> Admin {
    Admin {
        person: None,
        key_id: "plugin".into(),
    }
}

async fn town_with_accounts(store: &MemoryStore) {
    let clock = Arc::new(jit::clock::SystemClock);
    let service = Service::new(Arc::new(store.clone()), clock, policy(), Announce::None);
    for number in 0..ACCOUNTS {
        let bind = Configure::Bind {
            account_id: account(number),
            terms: BindTerms::default(),
        };
        service.configure(&town(), &bind, &admin()).await.unwrap();
    }
}

// K15
#[tokio::test]
async fn an_unbind_between_two_commits_skips_no_other_account() {
    let store = MemoryStore::default();
    town_with_accounts(&store).await;
    let clock = Arc::new(UnbindingClock {
        store: store.clone(),
        asked: AtomicU32::new(0),
    });
    let service = Service::new(Arc::new(store.clone()), clock, policy(), Announce::None);
    let approvers: Vec<MmUserId> = vec!["carol".parse().unwrap()];
    let set = Configure::SetApprovers {
        approvers: approvers.clone(),
    };
    service.configure(&town(), &set, &admin()).await.unwrap();
    let bindings = store.bindings(&town()).await.unwrap();
    assert_eq!(bindings.len(), ACCOUNTS - 1);
    for binding in bindings {
        assert_eq!(binding.approvers, approvers, "{}", binding.account_id);
    }
    // C: the events name the accounts of each step, so the history tells the same.
    let key = AuditKey::Config(town());
    let verified = service.verify_history(&key, &VerifiedLog::default()).await;
    assert_eq!(verified.unwrap().findings, []);
}

fn terms(max_request_hours: u32) -> BindTerms {
    BindTerms {
        max_request_hours: Some(max_request_hours),
        ..BindTerms::default()
    }
}

fn draft(number: u128, minutes: i64) -> Draft {
    Draft {
        id: id(number),
        account_id: account(0),
        channel_id: town(),
        requester: person("alice"),
        reason: Some("the database is down".parse().unwrap()),
        jira: None,
        duration: Minutes::new(minutes).unwrap(),
        permission_set: None,
        start_at: None,
    }
}

/// B1: a process that remembers the binding of an account never decides by an old one, whether that
/// one allows more or less than the binding that another process has written.
#[tokio::test]
async fn b1_a_draft_is_decided_under_the_stored_binding() {
    let store = MemoryStore::default();
    let clock = Arc::new(jit::clock::SystemClock);
    let [own, other] = [(); 2].map(|()| {
        let shared = Arc::new(store.clone());
        Service::new(shared, clock.clone(), policy(), Announce::None)
    });
    let bind = |hours| Configure::Bind {
        account_id: account(0),
        terms: terms(hours),
    };
    let unbind = Configure::Unbind {
        account_id: account(0),
    };
    let approvers = Configure::SetApprovers {
        approvers: vec!["bob".parse().unwrap()],
    };
    let steps = [
        (vec![bind(2), approvers.clone()], 120, true),
        (vec![bind(1)], 120, false),
        (vec![bind(3)], 180, true),
        (vec![unbind], 60, false),
        (vec![bind(1), approvers], 60, true),
    ];
    for (number, (changes, minutes, is_allowed)) in (1..).zip(steps) {
        for change in changes {
            other.configure(&town(), &change, &admin()).await.unwrap();
        }
        let opened = own.open(draft(number, minutes), None, None).await;
        assert_eq!(opened.is_ok(), is_allowed, "step {number}: {opened:?}");
    }
}
