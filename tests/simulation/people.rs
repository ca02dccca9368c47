//! The actions of people, each a call to one of the processes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jit::domain::{
    Admin, Ask, BindTerms, Command, Draft, Millis, Minutes, Person, Refusal, RequestId, Text,
    Timestamp,
};
use jit::service::{CallRight, Configure, Idempotency, Service, ServiceError};
use jit::signature::WINDOW;
use jit::store::{Nonce, StoreError};

use crate::executor::Kind;
use crate::fixtures::person;
use crate::memory::MemoryStore;
use crate::plan::Fault;
use crate::replica::Phase;
use crate::rules::Repeated;
use crate::world::{World, Wrong};

pub const PEOPLE: [&str; 3] = ["alice", "dave", "erin"];
pub const ACCOUNTS: [&str; 2] = ["111122223333", "444455556666"];
pub const CHANNEL: &str = "town";

/// How long a process keeps the nonce of a call.
const NONCE_KEPT: Millis = Millis::seconds(960);

/// A call as its sender signed it. Others may send it again.
#[derive(Clone)]
pub struct SignedCall {
    id: RequestId,
    by: Person,
    ask: Ask,
    nonce: String,
    signed_at: Timestamp,
    /// How often a process accepted it and told the result.
    answered: Arc<AtomicU32>,
}

impl SignedCall {
    /// P5: a call counts once, also across processes that die.
    fn note_answer(&self, wrong: &Wrong) {
        if self.answered.fetch_add(1, Ordering::Relaxed) > 0 {
            let (by, ask, id) = (&self.by.id, &self.ask, self.id);
            wrong.report(format!(
                "P5: a replay was accepted: {by} says {ask:?} to {id}"
            ));
        }
    }
}

impl World {
    /// A process that accepts calls now.
    fn door(&self) -> Option<usize> {
        let up: Vec<usize> = (0..self.replicas.len())
            .filter(|&number| self.replicas[number].phase == Phase::Up)
            .collect();
        match up.len() {
            0 => None,
            many => Some(up[self.time.below(u32::try_from(many).unwrap()) as usize]),
        }
    }

    fn call<F>(&mut self, name: String, call: impl FnOnce(Arc<Service>) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let Some(number) = self.door() else { return };
        let replica = &self.replicas[number];
        let (process, service) = (replica.process, replica.service.clone());
        self.log(&format!("{name} (to replica {number})"));
        self.tasks.spawn(name, process, Kind::Call, call(service));
    }

    /// Binds the accounts before any fault occurs.
    pub fn bind_all(&mut self) {
        for account in ACCOUNTS {
            let terms = BindTerms::default();
            self.configure(
                &format!("bind {account}"),
                Configure::Bind {
                    account_id: account.parse().unwrap(),
                    terms,
                },
            );
        }
        self.run_for(Millis::seconds(2)).unwrap();
        self.name_approvers(&["bob", "carol"]);
        self.run_for(Millis::seconds(2)).unwrap();
    }

    fn configure(&mut self, name: &str, configure: Configure) {
        self.call(name.to_owned(), |service| async move {
            configured(&service, &configure).await;
        });
    }

    fn name_approvers(&mut self, names: &[&str]) {
        let approvers = names.iter().map(|name| name.parse().unwrap()).collect();
        let name = format!("the approvers are {names:?}");
        self.configure(&name, Configure::SetApprovers { approvers });
    }

    /// An admin changes bindings or approvers.
    pub fn change_bindings(&mut self) {
        let account = self.an_account();
        let account_id = account.parse().unwrap();
        let bind = |terms| Configure::Bind { account_id, terms };
        match self.time.below(12) {
            0 => self.name_approvers(&["bob"]),
            1 => self.name_approvers(&["carol", "alice"]),
            2 | 3 => self.name_approvers(&["bob", "carol", "alice"]),
            4 | 5 => {
                let required = 1 + self.time.below(2);
                let own = self.time.chance(2);
                let terms = BindTerms {
                    approvals_required: Some(required),
                    allow_self_approval: Some(own),
                    ..BindTerms::default()
                };
                let name = format!("{account} needs {required}, own approval: {own}");
                self.configure(&name, bind(terms));
            }
            6 | 7 => {
                let terms = BindTerms {
                    allow_self_approval: Some(false),
                    ..BindTerms::default()
                };
                self.configure(&format!("no own approval in {account}"), bind(terms));
            }
            8 | 9 => {
                let sets = match self.time.chance(2) {
                    true => Vec::new(),
                    false => vec!["readonly".parse().unwrap()],
                };
                let name = format!("{account} allows {sets:?}");
                let terms = BindTerms {
                    permission_sets: Some(sets),
                    ..BindTerms::default()
                };
                self.configure(&name, bind(terms));
            }
            10 => self.unbind_and_bind(account),
            _ => {
                let minutes = Minutes::new(5).unwrap();
                self.decide(Ask::Extend { minutes }, PEOPLE[0]);
            }
        }
    }

    fn unbind_and_bind(&mut self, account: &'static str) {
        let account_id: jit::domain::AccountId = account.parse().unwrap();
        self.call(format!("unbind and bind {account}"), |service| async move {
            let out = Configure::Unbind {
                account_id: account_id.clone(),
            };
            configured(&service, &out).await;
            let terms = BindTerms::default();
            configured(&service, &Configure::Bind { account_id, terms }).await;
            let approvers = vec!["carol".parse().unwrap()];
            configured(&service, &Configure::SetApprovers { approvers }).await;
        });
    }

    pub fn an_account(&self) -> &'static str {
        ACCOUNTS[self.time.below(2) as usize]
    }

    pub fn request_access(&mut self) {
        let (who, account) = (PEOPLE[self.time.below(3) as usize], self.an_account());
        let set = if self.time.chance(4) {
            "readonly"
        } else {
            "admin"
        };
        let longest = if self.time.chance(2) { 2 } else { 30 };
        let draft = Draft {
            id: RequestId::from_uuid(self.time.draw()),
            account_id: account.parse().unwrap(),
            channel_id: CHANNEL.parse().unwrap(),
            requester: person(who),
            reason: Some(Text::clip("INC-42: db down")),
            jira: None,
            duration: Minutes::new(i64::from(self.time.below(longest) + 1)).unwrap(),
            permission_set: Some(set.parse().unwrap()),
            start_at: None,
        };
        // A client that gets no answer repeats the call with the same idempotency key.
        let mut drafts = vec![draft];
        if self.time.chance(3) {
            for _ in 0..2 {
                let id = RequestId::from_uuid(self.time.draw());
                drafts.push(Draft {
                    id,
                    ..drafts[0].clone()
                });
            }
        }
        self.opened.extend(drafts.iter().map(|draft| draft.id));
        let (store, wrong) = (self.store.clone(), self.wrong.clone());
        let id = drafts[0].id;
        let name = format!("{who} requests {set} in {account} as {id}");
        self.call(name, |service| async move {
            let once = Idempotency::of_call("plugin", &id.to_string(), "the same call".into());
            for draft in &drafts {
                let opened = service.open(draft.clone(), Some(once.clone()), None);
                let opened = refused_wrote_nothing(&store, &wrong, &draft.id, opened).await;
                if !matches!(opened, Err(ServiceError::Store(_))) {
                    break;
                }
            }
            let is_written = |draft: &&Draft| store.read(|all| all.request(draft.id).is_some());
            let written = drafts.iter().filter(is_written).count();
            if written > 1 {
                wrong.report(format!("{id}: one call was carried out {written} times"));
            }
        });
    }

    pub fn decide(&mut self, ask: Ask, who: &str) {
        let Some(id) = self.a_request() else { return };
        let own = matches!(ask, Ask::Cancel | Ask::Extend { .. });
        let requester = self
            .store
            .read(|tables| tables.request(id).map(|one| one.asked.requester.clone()));
        let by = requester.filter(|_| own).unwrap_or_else(|| person(who));
        let signed = SignedCall {
            id,
            by,
            ask,
            nonce: self.time.draw().to_string(),
            signed_at: self.time.now(),
            answered: Arc::default(),
        };
        self.signed.push(signed.clone());
        self.send(signed);
        if self.time.chance(4) {
            self.replay();
        }
    }

    /// P5: an attacker sends a recorded signed call once more. A clock that is set back
    /// makes old signatures fresh again, so this does not happen in worlds with such clocks.
    fn replay(&mut self) {
        let newest = self.signed.len().min(5);
        if newest == 0 || self.plan.has(Fault::Clocks) {
            return;
        }
        let back = 1 + self.time.below(u32::try_from(newest).unwrap()) as usize;
        let again = self.signed[self.signed.len() - back].clone();
        self.send(again);
    }

    fn send(&mut self, signed: SignedCall) {
        let name = format!("{} says {:?} to {}", signed.by.id, signed.ask, signed.id);
        let (store, wrong) = (self.store.clone(), self.wrong.clone());
        self.call(name, |service| async move {
            let (id, by, now) = (signed.id, signed.by.clone(), service.clock().now());
            if (now - signed.signed_at).0.abs() > WINDOW.0 {
                return;
            }
            let nonce = Nonce {
                text: signed.nonce.clone(),
                at: now,
                keep_until: now + NONCE_KEPT,
            };
            let right = CallRight::new(nonce, Some("plugin".into()));
            let repeated = Repeated::before(&store, id);
            let asked = Command::Asked {
                by: by.clone(),
                ask: signed.ask.clone(),
            };
            let answer = service.handle(id, asked, Some(&right));
            let answer = refused_wrote_nothing(&store, &wrong, &id, answer).await;
            if let Err(ServiceError::Refused(Refusal::AlreadyApproved { .. })) = answer
                && let Err(what) = repeated.check(&store, &by)
            {
                wrong.report(what);
            }
            // The caller gets the answer only if the nonce is spent.
            let is_spent = service.use_up(&right).await.is_ok();
            if is_spent && !matches!(answer, Err(ServiceError::Store(_))) {
                signed.note_answer(&wrong);
            }
        });
    }

    /// K9: an extension is requested and denied a hundred times.
    pub fn repeat_extensions(&mut self) {
        let Some(id) = self.a_request() else { return };
        let Some(own) = self
            .store
            .read(|tables| tables.request(id).map(|one| one.asked.requester.clone()))
        else {
            return;
        };
        let name = format!("{} asks for more of {id} a hundred times", own.id);
        self.call(name, |service| async move {
            let minutes = Minutes::new(5).unwrap();
            let reason = Some(Text::clip(&"\u{1F525}".repeat(1000)));
            for _ in 0..100 {
                for (by, ask) in [
                    (own.clone(), Ask::Extend { minutes }),
                    (
                        person("bob"),
                        Ask::Deny {
                            reason: reason.clone(),
                        },
                    ),
                ] {
                    match service.handle(id, Command::Asked { by, ask }, None).await {
                        Ok(_) | Err(ServiceError::Store(_)) => {}
                        Err(_) => return,
                    }
                }
            }
        });
    }

    /// Prefers the newest requests, which are the most active.
    pub fn a_request(&self) -> Option<RequestId> {
        let newest: Vec<RequestId> = self.store.read(|tables| {
            let written = self.opened.iter().rev().copied();
            let written = written.filter(|id| tables.request(*id).is_some());
            written.take(6).collect()
        });
        if newest.is_empty() {
            return None;
        }
        let which = self.time.below(u32::try_from(newest.len()).unwrap());
        Some(newest[which as usize])
    }
}

/// P2: a refused call has written nothing. Every poll of a call is one step of the world, so
/// anything written during the poll was written by the call.
async fn refused_wrote_nothing<T>(
    store: &MemoryStore,
    wrong: &Wrong,
    what: &RequestId,
    call: impl Future<Output = Result<T, ServiceError>>,
) -> Result<T, ServiceError> {
    let mut call = pin!(call);
    let mut written = 0;
    let answer = poll_fn(|context| {
        let before = store.commits();
        let polled = call.as_mut().poll(context);
        written += store.commits() - before;
        polled
    })
    .await;
    if let Err(ServiceError::Store(StoreError::Unavailable(why))) = &answer
        && written > 0
    {
        wrong.report(format!(
            "P2: {what} was refused ({why}), and {written} writes of it are in the store"
        ));
    }
    answer
}

async fn configured(service: &Service, configure: &Configure) {
    let admin = Admin {
        person: None,
        key_id: "sim".into(),
    };
    // A fault of the world is retried until the bindings exist; a refusal by a rule is not.
    for _ in 0..20 {
        let channel = CHANNEL.parse().unwrap();
        match service.configure(&channel, configure, &admin).await {
            Err(ServiceError::Store(_)) => {}
            _ => return,
        }
        let clock = service.clock();
        clock.sleep_until(clock.uptime() + Millis::seconds(1)).await;
    }
}
