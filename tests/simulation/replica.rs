//! A process that serves: its own service, pace, worker and notice worker, with the loops of
//! production. It is started, killed, stopped and frozen, and its clock is set.

use std::sync::Arc;

use jit::app::App;
use jit::clock::{Clock, Uptime};
use jit::domain::{Millis, Timestamp};
use jit::identity_center::Paced;
use jit::service::Service;
use jit::store::{Commit, Write};
use jit::worker::Worker;
use jit::worker::notices::{NoticeWorker, Receiver};
use jit::worker::tidy::tidy_up;
use tokio_util::sync::CancellationToken;

use crate::clock::{ProcessClock, ProcessId};
use crate::executor::Kind;
use crate::flaky::FlakyStore;
use crate::metrics_shown::Metrics;
use crate::plan::Fault;
use crate::receivers::{RECEIVERS, SimReceiver};
use crate::wire::Wire;
use crate::world::World;

/// The time that systemd or a platform gives a process between SIGTERM and SIGKILL.
const TIMEOUT: Millis = Millis::seconds(10);
const MOST_SKEW: Millis = Millis::minutes(1);
const LONGEST_JUMP: Millis = Millis::minutes(10);

pub struct Replica {
    pub process: ProcessId,
    pub clock: ProcessClock,
    pub service: Arc<Service>,
    worker: Worker,
    pub metrics: Metrics,
    /// Since when it has not been started, thawed or set to another time, and none of its tasks has
    /// panicked.
    pub undisturbed_since: Timestamp,
    stop: CancellationToken,
    pub phase: Phase,
    /// How far the wall clock of its machine is ahead; it survives the process.
    ahead: Millis,
    /// When the clock is corrected.
    right_at: Option<Timestamp>,
    frozen: Option<Frozen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Up,
    Stopping { until: Timestamp },
    Down { until: Timestamp },
}

#[derive(Clone, Copy)]
struct Frozen {
    since: Timestamp,
    until: Timestamp,
    /// The machine is suspended: uptime stands still.
    is_suspended: bool,
}

impl Replica {
    /// Whether its tasks run.
    pub fn works(&self) -> bool {
        self.phase == Phase::Up && self.frozen.is_none()
    }

    pub fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    /// The round that `/readyz` goes by.
    pub fn last_round(&self) -> Option<Uptime> {
        self.worker.last_round()
    }

    fn next_event(&self) -> Option<Timestamp> {
        let phase = match self.phase {
            Phase::Up => None,
            Phase::Stopping { until } | Phase::Down { until } => Some(until),
        };
        let thaw = self.frozen.map(|frozen| frozen.until);
        phase.into_iter().chain(thaw).chain(self.right_at).min()
    }
}

/// The parts of a process besides its loops.
pub struct Parts {
    pub process: ProcessId,
    pub clock: ProcessClock,
    pub service: Arc<Service>,
    pub access: Arc<Paced>,
    pub worker: Worker,
}

impl World {
    /// Makes a service and a worker on the shared store, as every process has them.
    pub fn build_process(&mut self, name: &str, ahead: Millis) -> Parts {
        self.processes += 1;
        let process = self.processes;
        let clock = ProcessClock::new(&self.time, process, ahead);
        let store = FlakyStore {
            store: self.store.clone(),
            clock: clock.clone(),
            faults: self.faults.clone(),
            tries: self.tries.clone(),
        };
        let wire = Wire {
            name: name.to_owned(),
            aws: self.aws.clone(),
            clock: clock.clone(),
            faults: self.faults.clone(),
            store: self.store.clone(),
            tries: self.tries.clone(),
        };
        let service = Arc::new(Service::new(
            Arc::new(store),
            Arc::new(clock.clone()),
            self.plan.policy.clone(),
            self.plan.announce,
        ));
        let limits = self.plan.limits;
        let paced = Paced::new(Arc::new(wire), limits, Arc::new(clock.clone()));
        let app = App::new(service, Arc::new(paced));
        Parts {
            process,
            worker: app.worker.spawning(self.tasks.spawner(process)),
            clock,
            service: app.service,
            access: app.identity_center,
        }
    }

    /// Starts the first processes.
    pub fn start_all(&mut self) {
        for number in 0..self.plan.replicas {
            let ahead = match self.plan.has(Fault::Clocks) {
                true => self.a_skew(),
                false => Millis(0),
            };
            let replica = self.start(number, ahead);
            self.replicas.push(replica);
        }
    }

    fn a_skew(&self) -> Millis {
        let skew = self.time.span(Millis(2 * MOST_SKEW.0));
        Millis(skew.0 - MOST_SKEW.0)
    }

    fn start(&mut self, number: usize, ahead: Millis) -> Replica {
        self.log(&format!("replica {number} starts"));
        let parts = self.build_process(&format!("replica {number}"), ahead);
        let receivers = RECEIVERS.map(|name| -> Arc<dyn Receiver> {
            Arc::new(SimReceiver {
                name,
                clock: parts.clock.clone(),
                faults: self.faults.clone(),
                heard: self.heard[&name].clone(),
            })
        });
        let notices = NoticeWorker::new(parts.service.clone(), receivers.to_vec());
        let notices = notices.spawning(self.tasks.spawner(parts.process));
        let stop = CancellationToken::new();
        let (worker, told) = (parts.worker.clone(), stop.clone());
        let name = format!("the worker's loop of replica {number}");
        self.tasks
            .spawn(name, parts.process, Kind::Loop, async move {
                worker.run(told).await;
            });
        let told = stop.clone();
        let name = format!("the notice worker's loop of replica {number}");
        self.tasks
            .spawn(name, parts.process, Kind::Loop, async move {
                notices.run(told).await;
            });
        let (service, told) = (parts.service.clone(), stop.clone());
        let name = format!("the tidying loop of replica {number}");
        self.tasks
            .spawn(name, parts.process, Kind::Loop, async move {
                tidy_up(&service, told).await;
            });
        Replica {
            process: parts.process,
            metrics: Metrics::of(&self.store, &parts.clock),
            clock: parts.clock,
            service: parts.service,
            worker: parts.worker,
            undisturbed_since: self.time.now(),
            stop,
            phase: Phase::Up,
            ahead,
            right_at: None,
            frozen: None,
        }
    }

    pub fn kill(&mut self, number: usize) {
        self.log(&format!("replica {number} is killed"));
        self.tasks.kill(self.replicas[number].process);
        // It is started again at once, or only later.
        let later = match self.time.chance(3) {
            true => self.time.span(Millis::minutes(2)),
            false => Millis(0),
        };
        self.goes_down(number, later);
    }

    fn goes_down(&mut self, number: usize, later: Millis) {
        let now = self.time.now();
        let replica = &mut self.replicas[number];
        replica.frozen = None;
        replica.phase = Phase::Down { until: now + later };
        self.tend_processes();
    }

    /// Sends SIGTERM; the process drains.
    pub fn stop(&mut self, number: usize) {
        let now = self.time.now();
        let replica = &mut self.replicas[number];
        if replica.phase != Phase::Up {
            return;
        }
        replica.phase = Phase::Stopping {
            until: now + TIMEOUT,
        };
        replica.stop.cancel();
        self.log(&format!("replica {number} is asked to stop"));
    }

    pub fn freeze(&mut self, number: usize) {
        let now = self.time.now();
        let until = now + self.time.span(Millis::minutes(5));
        // The test cannot distinguish a suspension from a clock that is set at the same time.
        let is_suspended = !self.plan.has(Fault::Clocks) && self.time.chance(2);
        let replica = &mut self.replicas[number];
        if !replica.works() {
            return;
        }
        replica.frozen = Some(Frozen {
            since: now,
            until,
            is_suspended,
        });
        self.tasks.freeze(replica.process);
        let how = if is_suspended { "suspended" } else { "frozen" };
        self.log(&format!("replica {number} is {how} until {until}"));
    }

    fn thaw(&mut self, number: usize) {
        let now = self.time.now();
        let replica = &mut self.replicas[number];
        let Some(frozen) = replica.frozen.take() else {
            return;
        };
        if frozen.is_suspended {
            replica.clock.stand_still(now - frozen.since);
        }
        replica.undisturbed_since = now;
        self.tasks.thaw(replica.process);
        self.log(&format!("replica {number} goes on"));
    }

    /// The wall clock of its machine jumps forward or back, and is corrected some minutes later.
    pub fn set_clock(&mut self, number: usize) {
        let ahead = Millis(self.time.span(Millis(2 * LONGEST_JUMP.0)).0 - LONGEST_JUMP.0);
        let right_at = self.time.now() + self.time.span(Millis::minutes(5));
        self.jump(number, ahead);
        self.replicas[number].right_at = Some(right_at);
    }

    fn jump(&mut self, number: usize, ahead: Millis) {
        let replica = &mut self.replicas[number];
        let seconds = (ahead.0 - replica.ahead.0) / 1000;
        (replica.ahead, replica.right_at) = (ahead, None);
        replica.clock.set(ahead);
        replica.undisturbed_since = self.time.now();
        self.log(&format!(
            "the clock of replica {number} jumps by {seconds} s"
        ));
    }

    /// A drained process exits, one that takes too long is killed, and a stopped one is started
    /// when its time has come.
    pub fn tend_processes(&mut self) {
        let now = self.time.now();
        for number in 0..self.replicas.len() {
            if self.replicas[number]
                .frozen
                .is_some_and(|frozen| frozen.until <= now)
            {
                self.thaw(number);
            }
            let replica = &self.replicas[number];
            if let Phase::Stopping { until } = replica.phase {
                let is_drained = self.tasks.tasks_of(replica.process) == 0;
                if is_drained || until <= now {
                    let how = if is_drained {
                        "stopped"
                    } else {
                        "killed while it stops"
                    };
                    self.log(&format!("replica {number} is {how}"));
                    self.tasks.kill(self.replicas[number].process);
                    let later = self.time.span(Millis::minutes(1));
                    self.goes_down(number, later);
                }
            }
            if let Phase::Down { until } = self.replicas[number].phase
                && until <= now
            {
                self.start_again(number);
            }
            if self.replicas[number].right_at.is_some_and(|at| at <= now) {
                let ahead = self.a_skew();
                self.jump(number, ahead);
            }
        }
    }

    /// A world with one process models SQLite: a process that starts there knows that the previous
    /// one has ended, and clears its leases.
    fn clear_leases(&self) {
        if self.plan.replicas > 1 {
            return;
        }
        for leased in self.store.all_requests() {
            let key = leased.holding_key();
            let held = self
                .store
                .read(|tables| key.and_then(|key| tables.holding(&key).cloned()));
            if let Some((request, orphaned)) = leased.without_its_server(held.as_ref()) {
                let mut writes = vec![Write::Request(request)];
                writes.extend(orphaned.map(Write::Holding));
                self.store.commit_now(Commit::of(writes)).unwrap();
            }
        }
    }

    /// Starts another process on the same machine.
    fn start_again(&mut self, number: usize) {
        self.clear_leases();
        let Replica {
            ahead, right_at, ..
        } = self.replicas[number];
        let replica = self.start(number, ahead);
        self.replicas[number] = Replica {
            right_at,
            ..replica
        };
    }

    /// A task of this process panicked.
    pub fn disturb(&mut self, process: ProcessId) {
        let now = self.time.now();
        for replica in &mut self.replicas {
            if replica.process == process {
                replica.undisturbed_since = now;
            }
        }
    }

    pub fn next_process_event(&self) -> Option<Timestamp> {
        self.replicas.iter().filter_map(Replica::next_event).min()
    }

    /// Replaces all processes by new ones without faults.
    pub fn restart_all(&mut self) {
        for number in 0..self.replicas.len() {
            self.tasks.kill(self.replicas[number].process);
            self.clear_leases();
            let ahead = self.replicas[number].ahead;
            // A clock that is wrong by minutes is corrected.
            let ahead = ahead.clamp(Millis(-MOST_SKEW.0), MOST_SKEW);
            self.replicas[number] = self.start(number, ahead);
        }
    }
}
