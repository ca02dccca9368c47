//! Faults and limits of the simulated AWS. A test plans the faults; each call can get one.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::actions::word;
use super::{Aws, AwsError, Heard, Inner};

/// A fault of one call.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Conflict,
    Throttling,
    Denied,
    /// HTTP 500; the call is not carried out.
    Internal,
    /// The call gets no answer and is not carried out.
    Hang,
    /// The connection is closed; the call is not carried out.
    Lost,
    /// The connection is closed after the call was carried out.
    AnswerLost,
    /// The operation is accepted, and FAILED for this reason.
    Fails(&'static str),
    /// The operation is accepted and done, and its status is FAILED.
    FailsAfterEffect,
    /// The operation is accepted and not done, and its status is SUCCEEDED.
    SucceedsWithoutEffect,
}

/// The probability of each fault.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub seed: u64,
    pub all: Vec<(Fault, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the call is carried out.
    Before,
    /// After the call was carried out, before its answer.
    After,
}

impl Aws {
    /// The next call of this action has this fault.
    pub fn once(&self, action: &str, fault: Fault) {
        self.inner().planned.push_back((action.into(), fault));
    }

    pub fn by_chance(&self, rates: Rates) {
        let mut inner = self.inner();
        inner.random = StdRng::seed_from_u64(rates.seed);
        inner.rates = rates;
    }

    pub fn limit(&self, calls_per_second: f64) {
        let mut inner = self.inner();
        inner.calls_per_second = Some(calls_per_second);
        inner.tokens = calls_per_second;
        inner.filled = Instant::now();
    }

    pub fn one_at_a_time_in_an_account(&self) {
        self.inner().one_at_a_time_in_an_account = true;
    }

    /// The next operation in this account does not end; it does not block other operations.
    pub fn next_never_ends(&self, account: &str) {
        self.inner().stuck.insert(account.to_owned());
    }

    /// Raises the limit of creates for a test that does not test it.
    pub fn allow_creates(&self, most: usize) {
        self.inner().most_creates = most;
    }

    /// Delays the answers to calls of this action.
    pub fn slow(&self, action: &'static str, pause: Duration) {
        self.inner().slow = Some((action, pause));
    }

    /// The server stops at the call with this number and answers no call until `go_on`.
    pub fn stop_at(&self, number: usize, moment: Moment) {
        self.inner().stop_at = Some((number, moment));
    }

    /// The server stops at the first call of this action and answers no call until `go_on`.
    pub fn stop_at_action(&self, action: &'static str) {
        self.inner().stop_at_action = Some(action);
    }

    pub fn go_on(&self) {
        self.inner().stop_at = None;
        self.inner().stop_at_action = None;
    }

    /// Waits for the call at which the server stops.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }
}

impl Inner {
    /// Records the call and decides its fault.
    pub(super) fn arrive(
        &mut self,
        action: &str,
        input: &Value,
    ) -> (Option<Fault>, Option<Moment>) {
        self.settle();
        let account = match input["TargetId"].as_str() {
            Some(account) => account.to_owned(),
            None => word(input, "AccountId"),
        };
        self.heard.push(Heard {
            action: action.to_owned(),
            at: Instant::now(),
            account,
            user: word(input, "PrincipalId"),
            refused: false,
        });
        let number = self.heard.len();
        if self.stop_at_action == Some(action) {
            self.stop_at = Some((number, Moment::Before));
        }
        let stop = self.stop_at.filter(|(at, _)| number >= *at);
        let planned = self.planned.iter().position(|(name, _)| name == action);
        if let Some(at) = planned {
            return (self.planned.remove(at).map(|(_, fault)| fault), None);
        }
        for (fault, rate) in self.rates.all.clone() {
            if self.random.random_bool(rate) {
                return (Some(fault), stop.map(|(_, moment)| moment));
            }
        }
        (None, stop.map(|(_, moment)| moment))
    }

    pub(super) fn fill(&mut self) {
        if let Some(rate) = self.calls_per_second {
            let now = Instant::now();
            let seconds = (now - self.filled).as_secs_f64();
            self.filled = now;
            self.tokens = (self.tokens + seconds * rate).min(rate);
        }
    }
}

pub(super) fn throttled() -> AwsError {
    ("ThrottlingException", "Rate exceeded".into())
}

pub(super) fn conflict() -> AwsError {
    let why = "there is a conflicting operation in process, retry";
    ("ConflictException", why.into())
}
