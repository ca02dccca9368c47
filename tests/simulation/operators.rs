//! The actions of operators: jit's own commands, from a short-lived process beside the replicas;
//! changes in the AWS console; and statuses written with a database client.

use jit::clock::Clock;
use jit::domain::{
    AssignmentProof, Command, HoldingKey, Lane, Millis, Presence, Proof, Request, RequestId, State,
    Status, Text,
};
use jit::identity_center::{Assignee, AssignmentPlace};
use jit::service::ServiceError;
use jit::store::Filter;
use jit::worker::{
    BreakGlassError, BreakGlassOperator, BreakGlassResult, Proven, remove_unrecorded,
};
use tokio_util::sync::CancellationToken;

use crate::aws::user_id;
use crate::check::ConsoleChanges;
use crate::executor::Kind;
use crate::fixtures::person;
use crate::people::{ACCOUNTS, PEOPLE};
use crate::replica::Parts;
use crate::world::World;

/// The time after which an operator stops a command with Ctrl-C.
const TIMEOUT: Millis = Millis::minutes(3);
/// After this time without a call about an assignment, no call of jit is in flight.
const QUIET: Millis = Millis::minutes(15);

/// The check that `jit cleanup` makes before it writes.
#[derive(Clone, Copy, Debug)]
enum CleanupCheck {
    Aws,
    /// With `--unverified`.
    Nothing,
}

impl World {
    pub fn an_operator_acts(&mut self) {
        match self.time.below(8) {
            0 | 1 => self.break_glass(),
            2 => self.clean_up(CleanupCheck::Nothing),
            3 => self.clean_up(CleanupCheck::Aws),
            4 | 5 => {
                self.take_away_by_hand();
                self.clean_up(CleanupCheck::Aws);
            }
            6 => self.write_a_word(),
            _ => self.reconcile(),
        }
    }

    fn operate<F>(&mut self, name: String, command: impl FnOnce(Parts) -> F)
    where
        F: Future<Output = Result<(), ServiceError>> + 'static,
    {
        let mut parts = self.build_process("an operator", Millis(0));
        parts.worker = parts.worker.of_an_operator();
        let (process, clock) = (parts.process, parts.clock.clone());
        self.log(&name);
        let done = command(parts);
        self.tasks.spawn(name, process, Kind::Call, async move {
            let gives_up = clock.uptime() + TIMEOUT;
            tokio::select! {
                biased;
                done = done => drop(done),
                () = clock.sleep_until(gives_up) => {}
            }
        });
    }

    /// A request that is not settled, preferably one that a worker has claimed.
    fn a_live_request(&self) -> Option<Request> {
        let live: Vec<Request> = self.store.read(|tables| {
            let newest = self.opened.iter().rev();
            let known = newest.filter_map(|id| tables.request(*id)).take(8);
            known
                .filter(|one| !one.state.is_settled())
                .cloned()
                .collect()
        });
        let is_at_work =
            |one: &&Request| matches!(one.state, State::Assigning | State::Removing { .. });
        let at_work: Vec<Request> = live.iter().filter(is_at_work).cloned().collect();
        let some = match at_work.is_empty() || self.time.chance(3) {
            true => live,
            false => at_work,
        };
        let count = u32::try_from(some.len()).unwrap();
        (count > 0).then(|| some[self.time.below(count) as usize].clone())
    }

    /// Runs `jit break-glass revoke`. The operator leaves an assignment from outside alone.
    fn break_glass(&mut self) {
        let Some(id) = self.a_request() else { return };
        let (console, time) = (self.console.clone(), self.time.clone());
        let name = format!("an operator breaks the glass for {id}");
        self.operate(name, move |parts| async move {
            let (request, worker) = (parts.service.request(id).await?, &parts.worker);
            let key = request.holding_key();
            if request.state.is_settled() && key.as_ref().is_some_and(|key| console.is_foreign(key))
            {
                return Ok(());
            }
            let who = BreakGlassOperator {
                by: person("olga"),
                reason: Text::clip("incident"),
                credentials: Text::clip("arn:aws:sts::1:olga"),
            };
            match (worker.record_broken_glass(&request, &who).await, &key) {
                (Ok(BreakGlassResult::Recorded), _) => {
                    // An error ends the operator's command.
                    worker.until_gone(id, |_| {}).await.ok();
                }
                (Err(BreakGlassError::Unrecorded(_)), Some(key)) => {
                    let overriding = console.begins_to_override(key, &time);
                    let removed = remove_unrecorded(&parts.access, &parts.clock, key, |_| {});
                    // An error ends the operator's command.
                    removed.await.ok();
                    drop(overriding);
                }
                (Ok(BreakGlassResult::Gone(_) | BreakGlassResult::HeldBy(_)) | Err(_), _) => {}
            }
            Ok(())
        });
    }

    /// Runs `jit cleanup`, with or without a look at AWS.
    fn clean_up(&mut self, how: CleanupCheck) {
        let Some(request) = self.a_live_request() else {
            return;
        };
        let id = request.id;
        let name = format!("an operator cleans up {id} ({how:?})");
        let pause = match self.time.chance(2) {
            true => self.time.span(Millis::seconds(15)),
            false => Millis(0),
        };
        self.operate(name, move |parts| async move {
            let worker = &parts.worker;
            let proof = match how {
                CleanupCheck::Nothing => Proof::None,
                CleanupCheck::Aws => match worker.prove_gone(id, || {}).await {
                    Ok(Proven::Gone(proof)) => proof,
                    Ok(Proven::StillThere | Proven::Over(_)) | Err(_) => return Ok(()),
                },
            };
            // The operator's process is slow: meanwhile other requests may get the same access.
            parts.clock.sleep(pause).await;
            let said = Command::CleanedUp {
                by: person("olga"),
                reason: Text::clip("by hand"),
                credentials: Text::clip("arn"),
                proof,
            };
            let cleaned = parts.service.handle(id, said, None).await;
            if let (Err(_), Proof::Assignment(AssignmentProof { lease, .. })) = (&cleaned, proof) {
                worker.let_go(id, lease).await;
            }
            cleaned.map(drop)
        });
    }

    /// Runs `jit reconcile --fix`, which removes stray access.
    fn reconcile(&mut self) {
        let console = self.console.clone();
        let name = "an operator reconciles".to_owned();
        self.operate(name, |parts| async move {
            for account in ACCOUNTS {
                for set in ["admin", "readonly"] {
                    let place = AssignmentPlace {
                        account_id: account.parse().unwrap(),
                        permission_set: set.parse().unwrap(),
                    };
                    compare(&parts, &place, &console).await?;
                }
            }
            Ok(())
        });
    }

    /// Removes an assignment of jit in the AWS console.
    fn take_away_by_hand(&mut self) {
        let Some(request) = self.a_live_request() else {
            return;
        };
        let Some(key) = request.holding_key() else {
            return;
        };
        if !self.console.is_foreign(&key) && self.aws.take_away(&key) {
            self.log(&format!("an operator takes {key} away in the AWS console"));
            self.console.took_away(&key);
        }
    }

    /// Makes an assignment in the AWS console, where jit has and will get none: AWS could not tell
    /// the two apart.
    pub fn assign_by_hand(&mut self) {
        let person = person(PEOPLE[self.time.below(3) as usize]);
        let key = HoldingKey {
            account_id: self.an_account().parse().unwrap(),
            permission_set: "readonly".parse().unwrap(),
            user: user_id(&person.email),
        };
        let is_held = self.store.read(|tables| {
            let holding = tables.holding(&key);
            holding.is_some_and(|held| !held.holders.is_empty())
                || tables.requests().any(|request| {
                    request.asked.account_id == key.account_id
                        && request.asked.requester.email == person.email
                        && !request.state.is_settled()
                })
        });
        let quiet = self
            .aws
            .is_quiet_since(&key, self.time.now() + Millis(-QUIET.0));
        if !is_held && quiet && !self.aws.stands(&key) && !self.tasks.is_running(Kind::Call) {
            self.log(&format!("a person assigns {key} in the AWS console"));
            self.console.assigned(&key);
            self.aws.assign(&key);
        }
    }

    /// An operator follows the runbook and writes a status into the table.
    pub fn write_a_word(&mut self) {
        // Also over an end, for example over an ERROR.
        let some = match self.time.chance(6) {
            true => self
                .a_request()
                .and_then(|id| self.store.read(|tables| tables.request(id).cloned())),
            false => self.a_live_request(),
        };
        let Some(request) = some else { return };
        let word = match self.time.below(6) {
            0 => Status::Expired,
            1 => Status::Error,
            _ => Status::Revoked,
        };
        if request.status() != word {
            self.log(&format!("an operator writes {word} into {}", request.id));
            let at = Some(self.time.now()).filter(|_| self.time.chance(2));
            self.store.write_status(request.id, word, at);
        }
    }
}

async fn follow_to_end(parts: &Parts, id: RequestId) -> Result<(), ServiceError> {
    let never = CancellationToken::new();
    parts
        .worker
        .follow_to_end(id, &never, |_| {})
        .await
        .map(drop)
}

async fn compare(
    parts: &Parts,
    place: &AssignmentPlace,
    console: &ConsoleChanges,
) -> Result<(), ServiceError> {
    let Ok(there) = parts.access.assignees(Lane::Other, place).await else {
        return Ok(());
    };
    for who in there.iter() {
        let Assignee::User(user) = who else { continue };
        let key = HoldingKey {
            account_id: place.account_id.clone(),
            permission_set: place.permission_set.clone(),
            user: user.clone(),
        };
        let all = parts.service.newest(&Filter::default(), usize::MAX).await?;
        let last = all
            .iter()
            .find(|one| one.holding_key().as_ref() == Some(&key));
        if let Some(last) = last {
            remove_if_it_stands(parts, last, console).await?;
        }
    }
    Ok(())
}

/// Removes an assignment that no request holds and that this request left behind.
async fn remove_if_it_stands(
    parts: &Parts,
    request: &Request,
    console: &ConsoleChanges,
) -> Result<(), ServiceError> {
    let Some(key) = request.holding_key().filter(|key| !console.is_foreign(key)) else {
        return Ok(());
    };
    let Ok(Presence::Present) = parts.access.look(Lane::Revoke, &key).await else {
        return Ok(());
    };
    let held = parts.service.holding(key.clone()).await?;
    if !held.holders.is_empty() {
        return Ok(());
    }
    let found = Command::FoundPresent {
        by: Some(person("olga")),
        credentials: Text::clip("arn"),
        revision: held.revision,
    };
    parts.service.handle(request.id, found, None).await?;
    follow_to_end(parts, request.id).await
}
