//! Configuration changes in several commits, with another change between two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use jit::clock::{Clock, Uptime};
use jit::domain::{Admin, AuditKey, BindTerms, ChannelId, MmUserId, Timestamp};
use jit::service::{Announce, Configure, Service, VerifiedLog};
use jit::store::Store;
use uuid::Uuid;

use crate::build::{at, writing};
use crate::fixtures::policy;
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
    let service = Service::new(Arc::new(store.clone()), clock, policy(), Announce::ToNobody);
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
    let service = Service::new(Arc::new(store.clone()), clock, policy(), Announce::ToNobody);
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
