//! Property tests: random sequences of commands, in any order, at any time.
//!
//! Three requests of one person share one assignment. The model of AWS carries calls out at
//! once, late or not at all. P1, P3, P4 and P6 are checked after each step.
#![allow(clippy::wildcard_enum_match_arm)] // only in tests

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::fixtures::{bob, draft, id, key, minutes, prepared};
use super::{Decision, Record, Refusal, decide, open};
use crate::domain::replay::{compare_holding, compare_request, compare_with_clock};
use crate::domain::{
    Ask, AssignmentCall, AssignmentCalls, AssignmentOutcome, AssignmentWork, Calls, Claim, Command,
    Ending, Event, Holding, Lease, LeaseHolder, LeaseToken, Millis, OldCredentialsRule, Outcome,
    Policy, Presence, Request, RequestId, State, Status, Text, Timestamp, Work, WorkFailure,
};

/// A policy that denies old credentials: requests pass through the most states.
fn policy() -> Policy {
    Policy {
        end_sessions: OldCredentialsRule::PermissionSet,
        ..super::fixtures::policy()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Open,
    Say(usize, Ask),
    BreakGlass(usize),
    /// A reconcile finds the assignment in AWS.
    Compare(usize),
    Pass(Millis),
    /// A worker claims the request if it is due.
    Claim(usize),
    /// A worker's call takes effect in AWS, and the worker reports its outcome.
    Finish(usize, Luck),
    /// A worker's call takes effect in AWS, and the worker dies before its report.
    Die(usize),
    /// A worker's call takes effect in AWS, and the worker reports that later, perhaps after it
    /// lost the lease.
    Act(usize),
}

#[derive(Clone, Copy, Debug)]
enum Luck {
    Good,
    Bad,
    /// The call took effect in AWS, and the worker reports a failure.
    Misheard,
}

#[derive(Clone)]
struct WorkerModel {
    id: RequestId,
    lease: LeaseToken,
    work: Work,
    /// The revision of the holding when the work began.
    revision: u64,
    /// The outcome of a call that has taken effect.
    done: Option<AssignmentOutcome>,
}

struct World {
    now: Timestamp,
    requests: BTreeMap<RequestId, Request>,
    histories: BTreeMap<RequestId, Vec<Event>>,
    holding: Holding,
    /// Whether AWS has the assignment.
    is_present: bool,
    workers: Vec<WorkerModel>,
    drawn: u128,
    ends: BTreeMap<RequestId, u32>,
}

impl World {
    fn new() -> Self {
        Self {
            now: Timestamp::from_seconds(1_000),
            requests: BTreeMap::new(),
            histories: BTreeMap::new(),
            holding: Holding::unheld(key()),
            is_present: false,
            workers: Vec::new(),
            drawn: 0,
            ends: BTreeMap::new(),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Open => self.open(),
            Op::Pass(span) => self.now = self.now + span,
            Op::BreakGlass(which) => {
                let id = self.pick(which);
                let (by, reason, credentials) = (bob(), None, Text::clip("role/Ops"));
                let command = Command::BreakGlassRevoked {
                    by,
                    reason,
                    credentials,
                };
                drop(id.map(|id| self.handle(id, command)));
            }
            Op::Compare(which) if self.is_present => {
                let id = self.pick(which);
                let revision = self.holding.revision;
                let found = Command::FoundPresent {
                    by: None,
                    credentials: Text::clip("arn"),
                    revision,
                };
                drop(id.map(|id| self.handle(id, found)));
            }
            Op::Compare(_) => {}
            Op::Say(which, ask) => {
                if let Some(id) = self.pick(which) {
                    let by = if ask == Ask::Cancel {
                        draft().requester
                    } else {
                        bob()
                    };
                    self.handle(id, Command::Asked { by, ask }).ok();
                }
            }
            Op::Claim(which) => {
                if let Some(id) = self.pick(which) {
                    self.claim(id);
                }
            }
            Op::Finish(which, luck) => self.finish(which, luck),
            Op::Act(which) => {
                if let Some(mut worker) = self.take_worker(which) {
                    worker.done = worker.done.or_else(|| self.act(&worker.work));
                    self.workers.push(worker);
                }
            }
            Op::Die(which) => {
                if let Some(worker) = self.take_worker(which)
                    && worker.done.is_none()
                {
                    self.act(&worker.work);
                }
            }
        }
    }

    fn open(&mut self) {
        if self.requests.len() == 3 {
            return;
        }
        let mut draft = draft();
        draft.id = id(10 + self.requests.len() as u128);
        draft.duration = minutes(10);
        let decision = open(draft, Some(super::fixtures::binding()), &policy(), self.now).unwrap();
        let id = decision.request.id;
        self.histories.insert(id, decision.events);
        self.requests.insert(id, decision.request);
    }

    fn pick(&self, which: usize) -> Option<RequestId> {
        let count = self.requests.len();
        (count > 0).then(|| *self.requests.keys().nth(which % count).unwrap())
    }

    fn record(&self, id: RequestId) -> Record {
        Record {
            request: self.requests[&id].clone(),
            binding: Some(super::fixtures::binding()),
            access: Some(self.holding.clone()).into(),
        }
    }

    fn handle(&mut self, id: RequestId, command: Command) -> Result<Decision, Refusal> {
        let decision = decide(self.record(id), &policy(), command, self.now)?;
        self.write(decision.clone());
        if let Some(co_holders) = decision.access.co_holders() {
            for other in &co_holders.requests {
                let (by, reason) = (co_holders.by.clone(), co_holders.reason.clone());
                let command = Command::RevokedWithCoHolder {
                    with: id,
                    by,
                    reason,
                };
                if let Ok(along) = decide(self.record(*other), &policy(), command, self.now) {
                    self.write(along);
                }
            }
        }
        self.compare_holders();
        Ok(decision)
    }

    /// C: the holding has the requests that say that they hold it.
    fn compare_holders(&self) {
        for request in self.requests.values() {
            let others = self.requests.iter();
            let others = others
                .map(|(id, other)| (*id, Some(other.clone())))
                .collect();
            let events = &self.histories[&request.id];
            let found = compare_holding(request, events, Some(&self.holding), &others);
            assert_eq!(found, []);
        }
    }

    fn write(&mut self, decision: Decision) {
        let after = decision.request;
        let before = self.requests.insert(after.id, after.clone()).unwrap();
        let history = self.histories.get_mut(&after.id).unwrap();
        history.extend(decision.events);
        // C: the history tells the same as the record.
        assert_eq!(compare_request(&after, history), []);
        assert_eq!(compare_with_clock(&after, self.now), []);
        if let Some(holding) = decision.access.holding().cloned() {
            assert_eq!(holding.revision, self.holding.revision + 1);
            self.holding = holding;
        }
        // P3: a request ends once; it leaves a settled state only to verify its end at AWS.
        if before.state.is_settled() {
            let reopened = matches!(
                after.state,
                State::Unsettled { .. } | State::Checking { .. }
            );
            let revoked = before.status() == Status::Error && after.status() == Status::Revoked;
            // Old credentials are worked on, or the holding keeps a late report.
            let followed = after.state == before.state;
            let well = reopened || revoked || followed;
            assert!(well, "{before:?} became {after:?}");
        } else if after.state.is_settled() && !is_asked_again(&before.state) {
            *self.ends.entry(after.id).or_default() += 1;
        }
        // P6: a request is REVOKED or EXPIRED only if AWS has no assignment of it and no create
        // that may still make one.
        if matches!(after.status(), Status::Revoked | Status::Expired) && after.state.is_settled() {
            let kept = self
                .holding
                .holders
                .iter()
                .any(|holder| *holder != after.id);
            assert!(
                !self.is_present || kept,
                "{} while the assignment exists",
                after.status()
            );
        }
    }

    fn claim(&mut self, id: RequestId) {
        self.drawn += 1;
        let lease = LeaseToken(Uuid::from_u128(self.drawn));
        let until = self.now + Millis::seconds(30);
        // The worker has watched the other lease until it lapsed.
        let lapsed = self.requests[&id]
            .schedule
            .lease
            .filter(|lease| lease.until <= self.now);
        let claim = Claim {
            lease: Lease {
                token: lease,
                until,
                by: LeaseHolder::Server,
            },
            lapsed,
            as_of: self.now,
        };
        let Ok(decision) = self.handle(id, Command::Due { claim }) else {
            return;
        };
        self.take_up(id, lease, decision.work);
    }

    fn take_up(&mut self, id: RequestId, lease: LeaseToken, work: Option<Work>) {
        let revision = self.holding.revision;
        self.workers.extend(work.map(|work| WorkerModel {
            id,
            lease,
            work,
            revision,
            done: None,
        }));
    }

    /// A worker that lost its lease finds that out before it sends a call, and only reports what
    /// it sent before. The simulation covers a worker that finds out too late.
    fn take_worker(&mut self, which: usize) -> Option<WorkerModel> {
        let requests = &self.requests;
        self.workers.retain(|worker| {
            requests[&worker.id]
                .schedule
                .lease
                .is_some_and(|lease| lease.token == worker.lease)
                || worker.done.is_some()
        });
        let count = self.workers.len();
        (count > 0).then(|| self.workers.remove(which % count))
    }

    fn finish(&mut self, which: usize, luck: Luck) {
        let Some(mut worker) = self.take_worker(which) else {
            return;
        };
        let mut unanswered = None;
        let outcome = match (worker.done.take(), luck) {
            (Some(done), Luck::Good) => done.into(),
            (Some(_), Luck::Bad | Luck::Misheard) => {
                unanswered = call_of(&worker.work);
                Outcome::Interrupted
            }
            (None, luck) => self.outcome_of(&worker, luck),
        };
        let finished = Command::Finished {
            lease: worker.lease,
            outcome,
            // In this model every call takes effect at once.
            calls: Some(Calls::Assignment(AssignmentCalls {
                unanswered,
                overran: true,
                waited_out: self.holding.unanswered().collect(),
            })),
        };
        if let Ok(decision) = self.handle(worker.id, finished) {
            self.take_up(worker.id, worker.lease, decision.work);
        }
    }

    fn outcome_of(&mut self, worker: &WorkerModel, luck: Luck) -> Outcome {
        match luck {
            Luck::Bad => WorkFailure::passing("no answer").into(),
            Luck::Misheard => {
                self.act(&worker.work);
                WorkFailure::passing("no answer").into()
            }
            Luck::Good => {
                let outcome = self.act(&worker.work);
                let presence = match self.is_present {
                    true => Presence::Present,
                    false => Presence::Absent,
                };
                outcome
                    .unwrap_or_else(|| prepared(presence, worker.revision))
                    .into()
            }
        }
    }

    /// Carries the call out in the model of AWS; none for a look.
    fn act(&mut self, work: &Work) -> Option<AssignmentOutcome> {
        let Work::Assignment(work) = work;
        match work {
            AssignmentWork::Prepare => None,
            AssignmentWork::Create(_) => {
                self.is_present = true;
                Some(AssignmentOutcome::Created)
            }
            AssignmentWork::Remove(_) => {
                self.is_present = false;
                Some(AssignmentOutcome::Gone)
            }
            AssignmentWork::DenyOldCredentials(_, before) => {
                Some(AssignmentOutcome::OldCredentialsDenied {
                    until: *before + Millis::hours(1),
                    dropped: Vec::new(),
                })
            }
            AssignmentWork::LiftDeny(_) => Some(AssignmentOutcome::DenyLifted),
            AssignmentWork::Look(_) if self.is_present => Some(AssignmentOutcome::StillThere),
            AssignmentWork::Look(_) => Some(AssignmentOutcome::Gone),
        }
    }

    fn check(&self) {
        // P1: while the assignment exists, a request that is due some day holds it.
        if self.is_present {
            let keepers = self.holding.holders.iter().map(|id| &self.requests[id]);
            let keeper = keepers
                .clone()
                .find(|request| request.schedule.due_at.is_some());
            assert!(
                keeper.is_some(),
                "no request has to remove the assignment: {:?}",
                keepers.collect::<Vec<_>>()
            );
        }
        // P6: after REVOKED was announced, the assignment does not come back.
        if self.is_present {
            let asked = self
                .requests
                .values()
                .filter_map(|request| match request.state {
                    State::Removing {
                        ending: Ending::Revoked { asked_at, .. },
                    } => Some(asked_at),
                    _ => None,
                });
            for asked_at in asked {
                let said = self.requests.values().find(|request| {
                    matches!(request.state, State::Revoked { at, .. } if at > asked_at)
                        && request.access.was_begun()
                });
                assert!(said.is_none(), "REVOKED was announced too early: {said:?}");
            }
        }
        // P4: a GRANTED request has its assignment.
        for request in self.requests.values().filter(|r| r.state == State::Granted) {
            assert!(
                self.is_present && self.holding.holds(request.id),
                "{request:?} has no assignment"
            );
        }
        for (id, ends) in &self.ends {
            assert!(*ends <= 2, "{id} ended {ends} times");
        }
    }

    /// Runs all requests to their end, with an AWS that works.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.now = self.now + Millis::minutes(10);
            self.workers.clear();
            for id in self.requests.keys().copied().collect::<Vec<_>>() {
                self.claim(id);
                while !self.workers.is_empty() {
                    self.finish(0, Luck::Good);
                }
            }
            self.check();
        }
        assert!(
            !self.is_present,
            "the assignment exists after the end of its grant"
        );
        for request in self.requests.values() {
            assert!(request.state.is_settled(), "{request:?} does not end");
            assert_eq!(
                request.access.old_credentials(),
                None,
                "{request:?} leaves a deny statement behind"
            );
        }
    }
}

/// After a verification at AWS the same end is recorded again.
fn is_asked_again(state: &State) -> bool {
    matches!(state, State::Unsettled { .. } | State::Checking { .. })
}

fn call_of(work: &Work) -> Option<AssignmentCall> {
    let Work::Assignment(work) = work;
    match work {
        AssignmentWork::Create(_) => Some(AssignmentCall::Create),
        AssignmentWork::Remove(_) => Some(AssignmentCall::Delete),
        AssignmentWork::Prepare
        | AssignmentWork::Look(_)
        | AssignmentWork::DenyOldCredentials(..)
        | AssignmentWork::LiftDeny(_) => None,
    }
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0usize..3;
    let luck = prop_oneof![4 => Just(Luck::Good), 1 => Just(Luck::Bad), 1 => Just(Luck::Misheard)];
    let ask = prop_oneof![
        8 => Just(Ask::Approve),
        1 => Just(Ask::Deny { reason: None }),
        1 => Just(Ask::Revoke { reason: None }),
        1 => Just(Ask::Cancel),
        1 => Just(Ask::Extend { minutes: minutes(5) }),
    ];
    prop_oneof![
        2 => Just(Op::Open),
        5 => (which.clone(), ask).prop_map(|(which, ask)| Op::Say(which, ask)),
        3 => (1i64..20_000).prop_map(|ms| Op::Pass(Millis(ms))),
        1 => (1i64..700_000).prop_map(|ms| Op::Pass(Millis(ms))),
        9 => which.clone().prop_map(Op::Claim),
        9 => (which.clone(), luck).prop_map(|(which, luck)| Op::Finish(which, luck)),
        1 => which.clone().prop_map(Op::BreakGlass),
        1 => which.clone().prop_map(Op::Compare),
        2 => which.clone().prop_map(Op::Act),
        1 => which.prop_map(Op::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    // P1, P3, P4, P6
    #[test]
    fn no_sequence_of_commands_breaks_p1_p3_p4_or_p6(ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
            world.check();
        }
        world.settle();
    }
}
