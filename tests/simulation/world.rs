//! One world: people who ask, two processes that work, and everything that goes wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use jit::access::sandbox::{Rates, Sandbox, SandboxOptions};
use jit::access::{Limits, Paced};
use jit::clock::Clock;
use jit::domain::{
    Admin, Ask, BindTerms, Command, Draft, EndSessions, HoldingKey, Millis, Minutes, Notice,
    Policy, RequestId, Status, Text, Timestamp,
};
use jit::service::{Announce, Configure, Service};
use jit::worker::Stepped;
use jit::worker::Worker;
use jit::worker::postman::Postman;
use tokio_util::sync::CancellationToken;

use crate::cast::{person, policy};
use crate::check::{self, Checker, Foreign};
use crate::clock::SimClock;
use crate::executor::Executor;
use crate::flaky::{FlakyStore, SimReceiver, SlowAccess, Weather};
use crate::memory::MemoryStore;

const OPERATIONS: u32 = 70;
const REPLICAS: usize = 2;
const HANDS: usize = 3;
const PEOPLE: [&str; 3] = ["alice", "dave", "erin"];
const ACCOUNTS: [&str; 2] = ["111122223333", "444455556666"];

pub struct Story {
    lines: Vec<String>,
    pub kinds: BTreeSet<String>,
}

pub struct Broken {
    pub promise: String,
    pub story: Story,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.promise, self.story)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

pub fn run(seed: u64) -> Result<Story, Broken> {
    let mut world = World::new(seed);
    let lived = world.live();
    let story = world.story();
    lived
        .map(|()| world.story())
        .map_err(|promise| Broken { promise, story })
}

type Nap = Arc<Mutex<Millis>>;
type Lines = Arc<Mutex<Vec<String>>>;

struct World {
    clock: SimClock,
    weather: Weather,
    store: MemoryStore,
    sandbox: Arc<Sandbox>,
    limits: Limits,
    service: Arc<Service>,
    receiver: SimReceiver,
    tasks: Executor,
    foreign: Foreign,
    opened: Arc<Mutex<Vec<RequestId>>>,
    told: Lines,
    checker: Checker,
    /// How long who has nothing to do sleeps at most.
    nap: Nap,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = SimClock::new(seed);
        // Some worlds are calm, so that what breaks there is broken without any help.
        let storm = [0, 60, 25][(seed % 3) as usize];
        let weather = Weather::new(storm);
        let store = MemoryStore::default();
        let rate = if storm == 0 {
            0.0
        } else {
            2.0 / f64::from(storm)
        };
        // In some, AWS fails so often that grants are given up.
        let fail = if seed % 6 == 5 { 0.7 } else { rate };
        let rates = Rates {
            conflict: rate,
            throttle: rate,
            fail,
            lost: rate,
        };
        let foreign = Foreign::new();
        let options = SandboxOptions {
            latency: Millis(300 + 1000 * i64::from(clock.below(9))),
            seed,
            rates,
            ..SandboxOptions::default()
        };
        let sandbox = Arc::new(Sandbox::open(options, Arc::new(clock.clone())).unwrap());
        // Half of the worlds keep to what AWS allows, and one may hardly call at all.
        let limits = match seed % 4 {
            1 => Limits::Aws {
                calls_per_second: 1,
            },
            3 => Limits::Aws {
                calls_per_second: 10,
            },
            _ => Limits::None,
        };
        let flaky = FlakyStore {
            store: store.clone(),
            clock: clock.clone(),
            weather: weather.clone(),
        };
        let service = Service::new(
            Arc::new(flaky),
            Arc::new(clock.clone()),
            Policy {
                // Every third world announces ends, every fifth ends sessions as well.
                remind_before: seed.is_multiple_of(3).then_some(Millis::minutes(20)),
                end_sessions: match seed % 5 {
                    2 => EndSessions::PermissionSet,
                    _ => EndSessions::Off,
                },
                ..policy()
            },
            Announce::ToWebhook,
        );
        let heard = Arc::default();
        let receiver = SimReceiver {
            clock: clock.clone(),
            weather: weather.clone(),
            heard,
        };
        Self {
            clock,
            weather,
            store,
            sandbox,
            limits,
            service: Arc::new(service),
            receiver,
            tasks: Executor::default(),
            foreign,
            opened: Arc::default(),
            told: Arc::default(),
            checker: Checker::default(),
            nap: Arc::new(Mutex::new(Millis(500))),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.bind();
        self.rest(Millis::seconds(5))?;
        for replica in 0..REPLICAS {
            self.start(replica);
        }
        for _ in 0..OPERATIONS {
            self.something_happens();
            let steps = self.clock.below(60);
            for _ in 0..steps {
                if self.tasks.poll_one(&self.clock).is_none() {
                    break;
                }
                self.check()?;
            }
        }
        self.weather.calm();
        self.sandbox.calm();
        *self.nap.lock().unwrap() = Millis::minutes(10);
        for replica in 0..REPLICAS {
            self.tasks.kill_replica(replica);
            self.start(replica);
        }
        self.say("all is calm");
        // Longer than every grant, and every pause.
        self.rest(Millis::hours(30))?;
        let heard: Vec<Notice> = self.receiver.heard.lock().unwrap().clone();
        check::at_rest(&self.store, &self.sandbox, &self.foreign, &heard)
    }

    fn check(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        self.checker
            .always(&self.store, &self.sandbox, &self.foreign, now)
    }

    /// Lets time pass in the steps in which things happen.
    fn rest(&mut self, span: Millis) -> Result<(), String> {
        let end = self.clock.now() + span;
        loop {
            while self.tasks.poll_one(&self.clock).is_some() {
                self.check()?;
            }
            match self.tasks.next_wake() {
                Some(time) if time <= end => self.clock.advance_to(time),
                _ => break,
            }
        }
        self.clock.advance_to(end);
        Ok(())
    }

    fn start(&mut self, replica: usize) {
        self.say(&format!("replica {replica} starts"));
        let access = SlowAccess {
            access: self.sandbox.clone(),
            clock: self.clock.clone(),
        };
        let clock = Arc::new(self.clock.clone());
        let paced = Arc::new(Paced::new(Arc::new(access), self.limits, clock));
        for hand in 0..HANDS {
            let worker = Worker::new(self.service.clone(), paced.clone());
            worker.sit_at_the_desk();
            let (clock, store, nap) = (self.clock.clone(), self.store.clone(), self.nap.clone());
            self.tasks.spawn(
                format!("worker {replica}.{hand}"),
                Some(replica),
                async move {
                    let never = CancellationToken::new();
                    loop {
                        let until = match worker.step(&never).await {
                            Ok(Stepped::Worked(_)) => clock.now() + Millis(1),
                            Ok(Stepped::Idle) => sleep(&clock, store.next_due(), &nap),
                            Err(_) => clock.now() + Millis::seconds(1),
                        };
                        clock.wait_until(until).await;
                    }
                },
            );
        }
        let postman = Postman::new(self.service.clone(), Arc::new(self.receiver.clone()));
        postman.stand_by_the_tray();
        let (clock, store, nap) = (self.clock.clone(), self.store.clone(), self.nap.clone());
        self.tasks
            .spawn(format!("postman {replica}"), Some(replica), async move {
                let never = CancellationToken::new();
                loop {
                    let until = match postman.step(&never).await {
                        Ok(0) => sleep(&clock, store.next_notice(), &nap),
                        Ok(_) => clock.now() + Millis(1),
                        Err(_) => clock.now() + Millis::seconds(1),
                    };
                    clock.wait_until(until).await;
                }
            });
    }

    fn bind(&mut self) {
        for account in ACCOUNTS {
            let service = self.service.clone();
            let configure = Configure::Bind {
                account_id: account.parse().unwrap(),
                terms: BindTerms::default(),
            };
            self.caller(format!("bind {account}"), async move {
                configured(&service, &configure).await;
            });
        }
        let service = self.service.clone();
        let approvers = vec!["bob".parse().unwrap(), "carol".parse().unwrap()];
        self.caller("approvers".into(), async move {
            let clock = service.clock();
            clock.wait_until(clock.now() + Millis::seconds(2)).await;
            configured(&service, &Configure::SetApprovers { approvers }).await;
        });
    }

    fn something_happens(&mut self) {
        match self.clock.below(32) {
            0..=4 => self.ask_for_access(),
            5..=11 => self.decide(Ask::Approve, "bob"),
            12 => self.decide(Ask::Deny { reason: None }, "carol"),
            13 => self.decide(Ask::Cancel, PEOPLE[0]),
            14..=16 => self.decide(
                Ask::Revoke {
                    reason: Some(Text::clip("incident")),
                },
                "bob",
            ),
            17 => self.decide(
                Ask::Extend {
                    minutes: Minutes::new(5).unwrap(),
                },
                PEOPLE[0],
            ),
            18..=20 => self.pass(Millis::seconds(40)),
            21 => self.pass(Millis::minutes(20)),
            22 => self.pass(Millis::hours(3)),
            23 | 24 => self.crash(),
            25 => {
                if let Some(name) = self.tasks.kill_one(&self.clock) {
                    self.say(&format!("{name} hangs up"));
                }
            }
            26 => self.somebody_assigns(),
            31 => self.somebody_updates_the_table(),
            _ => self.pass(Millis(900)),
        }
    }

    fn pass(&mut self, most: Millis) {
        let span = Millis(i64::from(
            self.clock.below(u32::try_from(most.0).unwrap()) + 1,
        ));
        self.clock.advance(span);
        self.say(&format!("{span} pass"));
    }

    fn crash(&mut self) {
        let replica = self.clock.below(REPLICAS as u32) as usize;
        self.say(&format!("replica {replica} is killed"));
        self.tasks.kill_replica(replica);
        self.start(replica);
    }

    /// Somebody gives access in the AWS console, without jit.
    fn somebody_assigns(&mut self) {
        let person = person(PEOPLE[self.clock.below(3) as usize]);
        let key = HoldingKey {
            account_id: ACCOUNTS[self.clock.below(2) as usize].parse().unwrap(),
            permission_set: "readonly".parse().unwrap(),
            user: self.sandbox.user_id(&person.email),
        };
        let ours = self
            .store
            .holding_now(&key)
            .is_some_and(|held| !held.holders.is_empty());
        let on_its_way = self.store.all_requests().iter().any(|request| {
            request.account_id == key.account_id
                && request.requester.email == person.email
                && !request.state.is_settled()
        });
        // AWS cannot tell the two apart where they meet, and neither could anybody.
        if !ours && !on_its_way && self.sandbox.assign(&key).is_ok() {
            self.say(&format!("somebody assigns {key}"));
            self.foreign.insert(key);
        }
    }

    /// An operator follows the runbook: GRANTED becomes REVOKED in the table itself.
    fn somebody_updates_the_table(&mut self) {
        let granted = self
            .store
            .all_requests()
            .into_iter()
            .find(|r| r.status() == Status::Granted);
        if let Some(request) = granted {
            self.say(&format!("somebody writes REVOKED into {}", request.id));
            self.store
                .write_status(request.id, Status::Revoked, Some(self.clock.now()));
        }
    }

    fn ask_for_access(&mut self) {
        let who = PEOPLE[self.clock.below(3) as usize];
        let account = ACCOUNTS[self.clock.below(2) as usize];
        let set = if self.clock.chance(4) {
            "readonly"
        } else {
            "admin"
        };
        let draft = Draft {
            id: RequestId::from_uuid(self.clock.draw()),
            account_id: account.parse().unwrap(),
            channel_id: "town".parse().unwrap(),
            requester: person(who),
            reason: Some(Text::clip("INC-42: db down")),
            jira: None,
            duration: Minutes::new(i64::from(self.clock.below(30) + 1)).unwrap(),
            permission_set: Some(set.parse().unwrap()),
            start_at: None,
        };
        let (service, opened) = (self.service.clone(), self.opened.clone());
        let id = draft.id;
        opened.lock().unwrap().push(id);
        self.caller(
            format!("{who} requests {set} in {account} as {id}"),
            async move {
                service.open(draft, None, None).await.ok();
            },
        );
    }

    fn decide(&mut self, ask: Ask, who: &str) {
        let ids = self.opened.lock().unwrap().clone();
        if ids.is_empty() {
            return;
        }
        // The newest are the liveliest.
        let back = self.clock.below(u32::try_from(ids.len().min(6)).unwrap()) as usize;
        let id = ids[ids.len() - 1 - back];
        let own = matches!(ask, Ask::Cancel | Ask::Extend { .. });
        let requester = self.store.all_requests().into_iter().find(|r| r.id == id);
        let by = match requester {
            Some(request) if own => request.requester,
            _ => person(who),
        };
        let service = self.service.clone();
        self.caller(format!("{} says {ask:?} to {id}", by.id), async move {
            service.handle(id, Command::Asked { by, ask }).await.ok();
        });
    }

    fn caller(&mut self, name: String, call: impl Future<Output = ()> + 'static) {
        self.say(&name);
        self.tasks.spawn(name, None, call);
    }

    fn say(&self, line: &str) {
        self.told
            .lock()
            .unwrap()
            .push(format!("{} {line}", self.clock.now()));
    }

    /// What was done to the world, and what every request made of it.
    fn story(&self) -> Story {
        let mut lines = self.told.lock().unwrap().clone();
        let mut kinds = BTreeSet::new();
        for request in self.store.all_requests() {
            for event in self
                .store
                .history(&jit::domain::AuditKey::Request(request.id))
            {
                kinds.insert(event.event_type.to_string());
                lines.push(format!(
                    "{} {} {} {}: {:?}",
                    event.event_time, event.request_id, event.seq, event.event_type, event.details
                ));
            }
        }
        // By time; what happened at one time stays in its order.
        lines.sort_by(|one, other| one[..24].cmp(&other[..24]));
        Story { lines, kinds }
    }
}

/// Until the next thing is due, but not longer than a nap.
fn sleep(clock: &SimClock, due: Option<Timestamp>, nap: &Nap) -> Timestamp {
    let soon = clock.now() + Millis(1);
    let nap = clock.now() + *nap.lock().unwrap();
    due.map_or(nap, |due| due.clamp(soon, nap))
}

async fn configured(service: &Service, configure: &Configure) {
    let admin = Admin {
        person: None,
        key_id: "sim".into(),
    };
    // The world's weather is no reason to have no bindings.
    while service
        .configure(&"town".parse().unwrap(), configure, &admin)
        .await
        .is_err()
    {
        let clock = service.clock();
        clock.wait_until(clock.now() + Millis(10)).await;
    }
}
