//! The simulated Identity Center and the network to it.
//!
//! A call is queued when it is made, with the time at which it arrives. From then on it does not
//! depend on its sender: AWS carries it out in the order of arrival and answers with its state at
//! that time. Operations are asynchronous, an assignment takes one operation at a time, and at
//! most ten creates run at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use jit::domain::{Email, HoldingKey, Millis, PermissionSet, Timestamp, UserId};
use jit::identity_center::{
    Assignee, AssignmentPlace, Deletion, IdentityCenterError, IdentityCenterErrorKind, Operation,
    OperationKind, Page, Progress, Provisioning, progress_of_failure,
};

use crate::clock::Time;
use crate::event_log::EventLog;
use crate::plan::{Fault, Plan};

const MOST_OUTSTANDING_CREATES: usize = 10;
const NOTHING_TO_DELETE: &str = "Received a 404 status error: Assignment not found";
pub const SESSIONS_LAST: Millis = Millis::hours(1);

#[derive(Clone, Debug)]
pub enum Question {
    FindUser(Email),
    Assigned(AssignmentPlace, Option<String>),
    UnderWay(OperationKind, Option<String>),
    Create(HoldingKey),
    Delete(HoldingKey),
    Poll(Operation),
    SessionDuration,
    InlinePolicy(PermissionSet),
    SetInlinePolicy(PermissionSet, Option<String>),
    Provision(AssignmentPlace),
    Provisioned,
}

impl Question {
    pub fn changes(&self) -> bool {
        matches!(
            self,
            Self::Create(_) | Self::Delete(_) | Self::SetInlinePolicy(..) | Self::Provision(_)
        )
    }
}

#[derive(Clone, Debug)]
pub enum Answer {
    User(UserId),
    Assigned(Page<Assignee>),
    UnderWay(Page<String>),
    Created(Operation),
    Deleted(Deletion),
    Progress(Progress),
    Duration(Millis),
    Policy(Option<String>),
    Set,
    Provisioning(Provisioning),
}

/// The place where the sender of a call finds its answer.
pub type Slot = Arc<Mutex<Option<Result<Answer, IdentityCenterError>>>>;

struct Sent {
    by: String,
    question: Question,
    slot: Slot,
    sent_at: Timestamp,
}

struct Begun {
    kind: OperationKind,
    key: HoldingKey,
    /// `None`: not before the faults end.
    ends_at: Option<Timestamp>,
    failure: Option<&'static str>,
    is_over: bool,
}

#[derive(Clone)]
pub struct Aws(Arc<Mutex<Center>>);

struct Center {
    time: Time,
    event_log: EventLog,
    /// The approximate duration of an operation.
    latency: Millis,
    /// The rate of conflicts and of throttling.
    rate: f64,
    fails: f64,
    stuck: bool,
    page: usize,
    assignments: BTreeSet<HoldingKey>,
    operations: BTreeMap<String, Begun>,
    /// The operations in progress, in the order of their start.
    open: Vec<String>,
    policies: BTreeMap<PermissionSet, String>,
    wire: BTreeMap<(Timestamp, u64), Sent>,
    numbers: u64,
    changes: u64,
    changed: BTreeSet<HoldingKey>,
    /// The time of the last call or change.
    touched: BTreeMap<HoldingKey, Timestamp>,
}

impl Aws {
    pub fn new(plan: &Plan, time: &Time, event_log: &EventLog) -> Self {
        Self(Arc::new(Mutex::new(Center {
            latency: Millis([300, 1_000, 3_000, 8_000][time.below(4) as usize]),
            time: time.clone(),
            event_log: event_log.clone(),
            rate: plan.rate(),
            fails: plan.fails,
            stuck: plan.has(Fault::Stuck),
            page: plan.page,
            assignments: BTreeSet::new(),
            operations: BTreeMap::new(),
            open: Vec::new(),
            policies: BTreeMap::new(),
            wire: BTreeMap::new(),
            numbers: 0,
            changes: 0,
            changed: BTreeSet::new(),
            touched: BTreeMap::new(),
        })))
    }

    fn center(&self) -> MutexGuard<'_, Center> {
        self.0.lock().unwrap()
    }

    /// Sends a call. It arrives at the given time, even if its sender ends before.
    pub fn send(&self, by: String, question: Question, arrives_at: Timestamp) -> Slot {
        let slot = Slot::default();
        let mut center = self.center();
        let sent_at = center.time.now();
        let sent = Sent {
            by,
            question,
            slot: slot.clone(),
            sent_at,
        };
        if arrives_at <= sent_at {
            center.settle(sent_at);
            center.arrive(&sent, sent_at);
        } else {
            center.numbers += 1;
            let number = center.numbers;
            center.wire.insert((arrives_at, number), sent);
        }
        slot
    }

    /// Carries out the calls that have arrived and ends the operations that are over, in the order
    /// of time.
    pub fn carry_out(&self, now: Timestamp) {
        self.center().carry_out(now);
    }

    pub fn next_event(&self) -> Option<Timestamp> {
        let center = self.center();
        let arrival = center.wire.keys().next().map(|(at, _)| *at);
        let ends = center.open.iter();
        let end = ends.filter_map(|id| center.operations[id].ends_at).min();
        arrival.into_iter().chain(end).min()
    }

    /// Whether a call is in flight.
    pub fn has_calls(&self) -> bool {
        !self.center().wire.is_empty()
    }

    /// Ends all faults; every operation ends from here on.
    pub fn calm(&self) {
        let mut center = self.center();
        (center.rate, center.fails, center.stuck) = (0.0, 0.0, false);
        let soon = center.time.now() + center.latency;
        let Center {
            open, operations, ..
        } = &mut *center;
        for id in open {
            let begun = operations.get_mut(id).unwrap();
            begun.ends_at = Some(begun.ends_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// Makes an assignment from outside, as in the AWS console.
    pub fn assign(&self, key: &HoldingKey) {
        self.center().put(key, true);
    }

    /// Removes an assignment from outside. `false`: there is no assignment, or an operation is in
    /// progress.
    pub fn take_away(&self, key: &HoldingKey) -> bool {
        let mut center = self.center();
        if center.is_busy(key) || !center.assignments.contains(key) {
            return false;
        }
        center.put(key, false);
        true
    }

    /// Whether jit has made no call about it since then, and no call is in flight.
    pub fn is_quiet_since(&self, key: &HoldingKey, then: Timestamp) -> bool {
        let center = self.center();
        let of_key = |sent: &Sent| matches!(&sent.question, Question::Create(one) | Question::Delete(one) if one == key);
        let touched = center.touched.get(key).is_some_and(|at| *at >= then);
        !touched && !center.is_busy(key) && !center.wire.values().any(of_key)
    }

    pub fn stands(&self, key: &HoldingKey) -> bool {
        self.center().assignments.contains(key)
    }

    pub fn standing(&self) -> BTreeSet<HoldingKey> {
        self.center().assignments.clone()
    }

    pub fn policy(&self, set: &PermissionSet) -> Option<String> {
        self.center().policies.get(set).cloned()
    }

    /// Increases whenever an assignment or a policy changes.
    pub fn changes(&self) -> u64 {
        self.center().changes
    }

    pub fn take_changed(&self) -> BTreeSet<HoldingKey> {
        std::mem::take(&mut self.center().changed)
    }

    /// The assignment that an operation is about.
    pub fn key_of(&self, operation: &Operation) -> Option<HoldingKey> {
        let center = self.center();
        let begun = center.operations.get(&operation.id)?;
        Some(begun.key.clone())
    }
}

pub fn user_id(email: &Email) -> UserId {
    let name = email.as_str().split('@').next().unwrap();
    format!("u-{name}").parse().unwrap()
}

impl Center {
    fn carry_out(&mut self, now: Timestamp) {
        while let Some(arrival) = self.wire.first_entry() {
            let (at, _) = *arrival.key();
            if at > now {
                break;
            }
            let sent = arrival.remove();
            self.settle(at);
            self.arrive(&sent, at);
        }
        self.settle(now);
    }

    /// Ends the operations that are over.
    fn settle(&mut self, now: Timestamp) {
        loop {
            let due = self.open.iter().enumerate();
            let due = due.filter_map(|(at, id)| Some((self.operations[id].ends_at?, at)));
            let Some((_, at)) = due.filter(|(end, _)| *end <= now).min() else {
                return;
            };
            let id = self.open.remove(at);
            let begun = self.operations.get_mut(&id).unwrap();
            begun.is_over = true;
            if begun.failure.is_none() {
                let (key, made) = (begun.key.clone(), begun.kind == OperationKind::Create);
                self.put(&key, made);
            }
        }
    }

    fn put(&mut self, key: &HoldingKey, is_there: bool) {
        let changed = match is_there {
            true => self.assignments.insert(key.clone()),
            false => self.assignments.remove(key),
        };
        self.touched.insert(key.clone(), self.time.now());
        if changed {
            self.changes += 1;
            self.changed.insert(key.clone());
            let what = if is_there { "stands" } else { "is gone" };
            self.event_log
                .log(self.time.now(), &format!("AWS: {key} {what}"));
        }
    }

    fn arrive(&mut self, sent: &Sent, now: Timestamp) {
        let answer = self.answer(&sent.question, now);
        if sent.question.changes() {
            let late = now - sent.sent_at;
            let late = match late {
                Millis(0) => String::new(),
                late => format!(", sent {late} ago, arrives"),
            };
            let came = match &answer {
                Ok(_) => "accepted".to_owned(),
                Err(error) => error.to_string(),
            };
            let what = describe(&sent.question);
            let line = format!("AWS: {what} by {}{late}: {came}", sent.by);
            self.event_log.log(now, &line);
        }
        *sent.slot.lock().unwrap() = Some(answer);
    }

    fn answer(
        &mut self,
        question: &Question,
        now: Timestamp,
    ) -> Result<Answer, IdentityCenterError> {
        if self.time.strikes(self.rate) {
            return Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Throttled,
                "Rate exceeded",
            ));
        }
        Ok(match question {
            Question::FindUser(email) => Answer::User(user_id(email)),
            Question::Assigned(place, after) => {
                Answer::Assigned(self.assigned(place, after.as_ref()))
            }
            Question::UnderWay(kind, after) => {
                Answer::UnderWay(self.under_way(*kind, after.as_ref()))
            }
            Question::Create(key) => Answer::Created(self.create(key, now)?),
            Question::Delete(key) => Answer::Deleted(self.delete(key, now)?),
            Question::Poll(operation) => Answer::Progress(self.poll(operation)?),
            Question::SessionDuration => Answer::Duration(SESSIONS_LAST),
            Question::InlinePolicy(set) => Answer::Policy(self.policies.get(set).cloned()),
            Question::SetInlinePolicy(set, policy) => {
                match policy {
                    Some(policy) => drop(self.policies.insert(set.clone(), policy.clone())),
                    None => drop(self.policies.remove(set)),
                }
                self.changes += 1;
                Answer::Set
            }
            Question::Provision(place) => {
                Answer::Provisioning(Provisioning(place.account_id.to_string()))
            }
            Question::Provisioned => Answer::Progress(Progress::Succeeded),
        })
    }

    /// Assignments by user, from the first user after `after`.
    fn assigned(&self, place: &AssignmentPlace, after: Option<&String>) -> Page<Assignee> {
        let here = self
            .assignments
            .iter()
            .filter(|key| AssignmentPlace::of(key) == *place);
        let rest = here.filter(|key| after.is_none_or(|after| key.user.as_str() > after.as_str()));
        let mut users: Vec<UserId> = rest.map(|key| key.user.clone()).collect();
        users.sort();
        let next = (users.len() > self.page).then(|| users[self.page - 1].to_string());
        users.truncate(self.page);
        Page {
            items: users.into_iter().map(Assignee::User).collect(),
            next,
        }
    }

    fn under_way(&self, kind: OperationKind, after: Option<&String>) -> Page<String> {
        let open = self
            .open
            .iter()
            .filter(|id| self.operations[*id].kind == kind);
        let mut ids: Vec<String> = open.filter(|id| Some(*id) > after).cloned().collect();
        ids.sort();
        let next = (ids.len() > self.page).then(|| ids[self.page - 1].clone());
        ids.truncate(self.page);
        Page { items: ids, next }
    }

    fn is_busy(&self, key: &HoldingKey) -> bool {
        self.open.iter().any(|id| self.operations[id].key == *key)
    }

    fn check_free(&mut self, key: &HoldingKey) -> Result<(), IdentityCenterError> {
        self.touched.insert(key.clone(), self.time.now());
        if self.is_busy(key) || self.time.strikes(self.rate) {
            let why = format!("another operation on {key} is in progress");
            return Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Conflict,
                why,
            ));
        }
        Ok(())
    }

    fn create(
        &mut self,
        key: &HoldingKey,
        now: Timestamp,
    ) -> Result<Operation, IdentityCenterError> {
        self.check_free(key)?;
        let creates = self
            .open
            .iter()
            .filter(|id| self.operations[*id].kind == OperationKind::Create);
        if creates.count() >= MOST_OUTSTANDING_CREATES {
            let why = "too many creates are outstanding";
            return Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Throttled,
                why,
            ));
        }
        Ok(self.begin(OperationKind::Create, key, now, None))
    }

    fn delete(
        &mut self,
        key: &HoldingKey,
        now: Timestamp,
    ) -> Result<Deletion, IdentityCenterError> {
        self.check_free(key)?;
        let failure = match self.assignments.contains(key) {
            true => None,
            // AWS reports a missing assignment in two ways.
            false if self.time.chance(2) => return Ok(Deletion::NothingThere),
            false => Some(NOTHING_TO_DELETE),
        };
        Ok(Deletion::Started(self.begin(
            OperationKind::Delete,
            key,
            now,
            failure,
        )))
    }

    fn begin(
        &mut self,
        kind: OperationKind,
        key: &HoldingKey,
        now: Timestamp,
        must: Option<&'static str>,
    ) -> Operation {
        let fails = must.is_none() && self.time.strikes(self.fails);
        let takes = Millis(self.latency.0 / 2 + self.time.span(self.latency).0);
        let ends_at = match self.stuck {
            true if self.time.chance(6) => None,
            true if self.time.chance(6) => {
                Some(now + Millis::minutes(10) + self.time.span(Millis::hours(3)))
            }
            _ => Some(now + takes),
        };
        if ends_at.is_none_or(|at| at - now >= Millis::minutes(10)) {
            self.event_log
                .log(now, &format!("AWS: this {kind:?} of {key} will take long"));
        }
        let id = self.time.draw().to_string();
        self.open.push(id.clone());
        self.operations.insert(
            id.clone(),
            Begun {
                kind,
                key: key.clone(),
                ends_at,
                failure: must.or(fails.then_some("Internal failure")),
                is_over: false,
            },
        );
        Operation { kind, id }
    }

    fn poll(&self, operation: &Operation) -> Result<Progress, IdentityCenterError> {
        match self.operations.get(&operation.id) {
            None => Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Invalid,
                "there is no such operation",
            )),
            Some(begun) if !begun.is_over => Ok(Progress::InProgress),
            Some(Begun { failure: None, .. }) => Ok(Progress::Succeeded),
            Some(Begun {
                failure: Some(why), ..
            }) => Ok(progress_of_failure(operation.kind, (*why).to_owned())),
        }
    }
}

fn describe(question: &Question) -> String {
    match question {
        Question::Create(key) => format!("the create of {key}"),
        Question::Delete(key) => format!("the delete of {key}"),
        Question::SetInlinePolicy(set, _) => format!("the new policy of {set}"),
        Question::Provision(place) => format!("the provisioning of {}", place.permission_set),
        _ => "a question".to_owned(),
    }
}
