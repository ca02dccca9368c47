//! One world: people who send commands, processes that work, and all faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jit::domain::{Ask, Millis, Minutes, ReceiverName, Request, RequestId, Text, Timestamp};

use crate::aws::Aws;
use crate::check::{self, Checker, ConsoleChanges};
use crate::clock::Time;
use crate::event_log::EventLog;
use crate::executor::{Executor, Kind, Polled};
use crate::faults::Faults;
use crate::memory::MemoryStore;
use crate::people::{PEOPLE, SignedCall};
use crate::plan::{Fault, Plan};
use crate::receivers::{Heard, RECEIVERS};
use crate::replica::Replica;
use crate::tries::Tries;
use crate::watch::{Scene, Watch};

const OPERATIONS: u32 = 200;
/// A gap longer than this is skipped: the searches for work in it are not simulated.
const SOON: Millis = Millis::seconds(6);
/// How often a worker searches ahead of its clock.
const SEARCHES_AHEAD_EVERY: Millis = Millis::minutes(1);
/// The most polls that one span of time may take.
const MOST_POLLS: u64 = 6_000;
/// Longer than every grant and every pause.
const REST: Millis = Millis::hours(40);

/// The result of a seed that broke no promise.
pub struct Passed {
    pub event_log: EventLog,
    pub kinds: BTreeSet<String>,
    pub polls: u64,
}

pub struct Broken {
    pub promise: String,
    pub event_log: EventLog,
}

/// An error that a task found.
#[derive(Clone, Default)]
pub struct Wrong(Arc<Mutex<Option<String>>>);

impl Wrong {
    pub fn report(&self, what: String) {
        self.0.lock().unwrap().get_or_insert(what);
    }

    fn check(&self) -> Result<(), String> {
        self.0.lock().unwrap().take().map_or(Ok(()), Err)
    }
}

pub fn run(plan: Plan) -> Result<Passed, Broken> {
    let mut world = World::new(plan);
    let passed = world.live();
    let event_log = world.event_log.clone();
    match passed {
        Ok(()) => Ok(Passed {
            event_log,
            kinds: world.checker.kinds(),
            polls: world.tasks.polls,
        }),
        Err(promise) => Err(Broken { promise, event_log }),
    }
}

pub struct World {
    pub plan: Plan,
    pub time: Time,
    pub event_log: EventLog,
    pub faults: Faults,
    pub store: MemoryStore,
    pub aws: Aws,
    pub tasks: Executor,
    pub replicas: Vec<Replica>,
    /// The number of processes so far.
    pub processes: u32,
    pub heard: BTreeMap<ReceiverName, Heard>,
    pub tries: Tries,
    pub opened: Vec<RequestId>,
    /// The signed calls so far.
    pub signed: Vec<SignedCall>,
    pub console: ConsoleChanges,
    pub wrong: Wrong,
    pub watch: Watch,
    checker: Checker,
}

impl World {
    fn new(plan: Plan) -> Self {
        let (time, event_log) = (Time::new(plan.seed), EventLog::default());
        Self {
            aws: Aws::new(&plan, &time, &event_log),
            faults: Faults::default(),
            watch: Watch::new(&plan, time.now()),
            store: MemoryStore::default(),
            tasks: Executor::default(),
            replicas: Vec::new(),
            processes: 0,
            heard: RECEIVERS.map(|name| (name, Heard::default())).into(),
            tries: Tries::default(),
            opened: Vec::new(),
            signed: Vec::new(),
            console: ConsoleChanges::default(),
            wrong: Wrong::default(),
            checker: Checker::new(&plan.policy),
            plan,
            time,
            event_log,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.start_all();
        self.bind_all();
        self.faults.begin(&self.plan);
        self.log(&format!("the storm begins: {:?}", self.plan));
        for _ in 0..OPERATIONS {
            self.something_happens()?;
            for _ in 0..self.time.below(60) {
                if !self.go_on()? {
                    break;
                }
            }
        }
        self.faults.calm();
        self.aws.calm();
        self.restart_all();
        self.log("all is calm");
        self.rest()?;
        check::at_rest(&self.store, &self.aws, &self.console, &self.heard)
    }

    fn something_happens(&mut self) -> Result<(), String> {
        let revoke = || Ask::Revoke {
            reason: Some(Text::clip("incident")),
        };
        let minutes = Minutes::new(5).unwrap();
        match self.time.below(100) {
            0..=13 => self.request_access(),
            14..=28 => self.decide(Ask::Approve, "bob"),
            29..=31 => self.decide(Ask::Approve, "carol"),
            32 | 33 => self.decide(Ask::Approve, "alice"),
            34 => self.decide(Ask::Deny { reason: None }, "carol"),
            35 => self.decide(Ask::Cancel, PEOPLE[0]),
            36..=43 => self.decide(revoke(), "bob"),
            44 | 45 => self.decide(Ask::Extend { minutes }, PEOPLE[0]),
            46..=55 => self.pass(Millis::seconds(1))?,
            56..=65 => self.pass(Millis::seconds(10))?,
            66..=69 => self.pass(Millis::minutes(1))?,
            70 | 71 => self.pass(Millis::minutes(10))?,
            72 => self.pass(Millis::hours(3))?,
            73..=75 => {
                let number = self.a_replica();
                self.kill(number);
            }
            76 | 77 => {
                if let Some(name) = self.tasks.hang_up_one(&self.time) {
                    self.log(&format!("hung up: {name}"));
                }
            }
            78 | 79 => self.assign_by_hand(),
            80 | 81 => self.write_a_word(),
            82..=99 => self.a_fault(),
            _ => {}
        }
        Ok(())
    }

    /// Causes one of the faults of this world.
    fn a_fault(&mut self) {
        let which = [
            Fault::Stop,
            Fault::Freeze,
            Fault::Clocks,
            Fault::Disk,
            Fault::Operators,
            Fault::Operators,
            Fault::Bindings,
            Fault::Bindings,
            Fault::Bindings,
            Fault::Long,
        ];
        let fault = which[self.time.below(10) as usize];
        if !self.plan.has(fault) {
            return;
        }
        let number = self.a_replica();
        match fault {
            Fault::Stop => self.stop(number),
            Fault::Freeze => self.freeze(number),
            Fault::Clocks => self.set_clock(number),
            Fault::Disk => {
                let is_full = self.faults.fill_or_empty_the_disk();
                self.watch.disturbed(self.time.now());
                self.log(if is_full {
                    "the disk is full"
                } else {
                    "the disk has room again"
                });
            }
            Fault::Operators => self.an_operator_acts(),
            Fault::Bindings => self.change_bindings(),
            Fault::Long => self.repeat_extensions(),
            other => unreachable!("{other:?} is no event"),
        }
    }

    fn a_replica(&self) -> usize {
        self.time.below(u32::try_from(self.replicas.len()).unwrap()) as usize
    }

    fn pass(&mut self, most: Millis) -> Result<(), String> {
        let span = self.time.span(most);
        self.log(&format!("{span} pass"));
        self.run_for(span)
    }

    /// Runs one task and checks its changes. `false`: all tasks wait.
    fn go_on(&mut self) -> Result<bool, String> {
        match self.tasks.poll_one(&self.time) {
            None => return Ok(false),
            Some(Polled::WentOn) => {}
            Some(Polled::Panicked(name, kind, process)) => {
                self.log(&format!("panics: {name}"));
                if kind != Kind::Call {
                    self.disturb(process);
                }
            }
        }
        self.check()?;
        Ok(true)
    }

    fn check(&mut self) -> Result<(), String> {
        self.wrong.check()?;
        let now = self.time.now();
        self.checker
            .always(&self.store, &self.aws, &self.console, &self.event_log, now)
    }

    /// Lets time pass in the steps in which events occur.
    pub fn run_for(&mut self, span: Millis) -> Result<(), String> {
        let end = self.time.now() + span;
        let most = self.tasks.polls + MOST_POLLS;
        while self.tasks.polls < most {
            while self.go_on()? {}
            match self.next_event() {
                Some(at) if at <= end => self.advance_to(at)?,
                _ => return self.advance_to(end),
            }
        }
        Ok(())
    }

    fn advance_to(&mut self, at: Timestamp) -> Result<(), String> {
        if at - self.time.now() > SOON {
            self.watch.skipped(at);
        }
        self.time.advance_to(at);
        let now = self.time.now();
        while self.faults.write_one_late(&self.store, now) {
            self.check()?;
        }
        self.aws.carry_out(now);
        self.tend_processes();
        self.check()?;
        if self.faults.is_disk_full() {
            self.watch.disturbed(now);
        }
        self.watch.look(&Scene {
            store: &self.store,
            replicas: &self.replicas,
            tries: &self.tries,
            heard: &self.heard,
            faults: &self.faults,
            now,
        })
    }

    fn next_event(&self) -> Option<Timestamp> {
        let world = [
            self.aws.next_event(),
            self.faults.next_late_write(),
            self.next_process_event(),
        ];
        let world = world.into_iter().flatten().min();
        let timer = self.time.next_timer();
        let timer = match (timer, self.is_idle_until()) {
            // Until then the processes only search for work.
            (Some(timer), Some(then)) => Some(then.max(timer)),
            (timer, _) => timer,
        };
        timer.into_iter().chain(world).min()
    }

    /// The time until which no process has work, if it is not soon.
    fn is_idle_until(&self) -> Option<Timestamp> {
        if self.tasks.is_running(Kind::Call) || self.aws.has_calls() {
            return None;
        }
        let now = self.time.now();
        let first = self.earliest_clock(now);
        let is_at_work = self.store.read(|tables| {
            let mut leases = tables.requests().filter_map(|one| one.schedule.lease);
            leases.any(|lease| lease.until > first) || tables.is_delivering(first)
        });
        if is_at_work {
            return None;
        }
        let due = self.store.next_due();
        let due = due.into_iter().chain(self.store.next_notice()).min();
        let ahead = self.latest_clock(now) - now;
        let due = due.map(|due| due + Millis(-ahead.0));
        // Work that a wrong clock has put off is found by a search ahead of the clock.
        let searches_ahead = self.has_work().then_some(now + SEARCHES_AHEAD_EVERY);
        let due = due.into_iter().chain(searches_ahead).min();
        match due {
            None => Some(now + Millis::hours(1)),
            Some(due) => (due > now + SOON).then_some(due),
        }
    }

    /// Whether a request is in a state that a worker must end, and not only at a date.
    fn has_work(&self) -> bool {
        let is_work = |one: &Request| one.schedule.due_at.is_some() && !one.is_dated();
        self.store.read(|tables| tables.requests().any(is_work))
    }

    fn earliest_clock(&self, now: Timestamp) -> Timestamp {
        let clocks = self.replicas.iter().map(Replica::wall);
        clocks.chain([now]).min().unwrap()
    }

    fn latest_clock(&self, now: Timestamp) -> Timestamp {
        let clocks = self.replicas.iter().map(Replica::wall);
        clocks.chain([now]).max().unwrap()
    }

    /// Runs until no work is left.
    fn rest(&mut self) -> Result<(), String> {
        let end = self.time.now() + REST;
        while self.time.now() < end {
            self.run_for(Millis::hours(1))?;
            let is_done = self.store.next_due().is_none()
                && self.store.next_notice().is_none()
                && !self.aws.has_calls();
            if is_done {
                break;
            }
        }
        Ok(())
    }

    pub fn log(&self, line: &str) {
        self.event_log.log(self.time.now(), line);
    }
}
