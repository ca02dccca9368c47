//! Identity Center at the pace that AWS allows: every call waits for its turn, what AWS
//! only asked to be tried again is tried again for a little while, and what many want
//! to know is asked once.

mod policies;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::quota::{Limits, Quota, Room, Turn};
use super::shared_query::{SharedAnswer, SharedQuery, Tick};
use super::{
    Assignee, Assignees, AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Operation, OperationKind, Page, Progress, UserAttribute,
};
use crate::clock::{Clock, Uptime};
use crate::domain::{AccountId, Email, HoldingKey, Lane, Millis, PermissionSet, Presence, UserId};

/// How long a conflict or throttling is waited out before the caller hears of it.
const SHORT_PATIENCE: Millis = Millis::seconds(8);
const FIRST_PAUSE: Millis = Millis(250);
const LONGEST_PAUSE: Millis = Millis::seconds(2);
/// From so many operations under way on, one question is asked about all of them.
const MANY: usize = 4;
const MANY_ARE_ASKED_EVERY: Millis = Millis::seconds(1);
/// How long a grant may believe who somebody is. A removal never asks.
const KNOWN_FOR: Millis = Millis::seconds(60);
const MOST_KNOWN: usize = 10_000;

pub struct Paced {
    access: Arc<dyn IdentityCenter>,
    clock: Arc<dyn Clock>,
    quota: Quota,
    looks: SharedQuery<AssignmentPlace, Assignees>,
    under_way: SharedQuery<OperationKind, BTreeSet<String>>,
    in_flight: [AtomicUsize; 2],
    known: Mutex<HashMap<Email, (UserId, Uptime)>>,
}

/// How long an operation may keep others out of its account, and a create its place among
/// ten. AWS usually takes seconds; what takes longer must not hold others up.
const ROOM_PATIENCE: Millis = Millis::seconds(30);
/// How long an operation is waited for. It may still end; whoever waits has to be told.
const OPERATION_PATIENCE: Millis = Millis::minutes(2);

/// A call on its way.
pub type PendingCall<'c, T> =
    Pin<Box<dyn Future<Output = Result<T, IdentityCenterError>> + Send + 'c>>;

/// What a call that changes something passes when its turn has come.
pub trait Gate<'c>: Send + Sync {
    /// What must still be so. Nothing comes between this and the sending of the call.
    fn may_be_sent(&self) -> PendingCall<'c, ()>;
    /// AWS has said what it makes of the call: it is not on its way any more.
    fn was_answered(&self) {}
}

impl<'c, F> Gate<'c> for F
where
    F: Fn() -> PendingCall<'c, ()> + Send + Sync,
{
    fn may_be_sent(&self) -> PendingCall<'c, ()> {
        self()
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResult {
    Well,
    Badly {
        why: String,
    },
    /// It is over, and AWS was not asked how: a look tells more.
    Somehow,
    /// It is not over, and has been waited for long enough.
    NotYet,
}

impl Paced {
    pub fn new(access: Arc<dyn IdentityCenter>, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            quota: Quota::new(limits, clock.clone()),
            access,
            clock,
            looks: SharedQuery::default(),
            under_way: SharedQuery::default(),
            in_flight: Default::default(),
            known: Mutex::default(),
        }
    }

    /// No call to Identity Center, and none that waits for a turn.
    pub async fn caller(&self) -> Result<String, IdentityCenterError> {
        self.access.caller().await
    }

    pub fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError> {
        self.access.permission_set_arn(set)
    }

    /// The one user with this address, known a little while or looked up.
    pub async fn find_user(
        &self,
        lane: Lane,
        email: &Email,
    ) -> Result<UserId, IdentityCenterError> {
        let now = self.clock.uptime();
        let known = self.known().get(email).cloned();
        if let Some((user, at)) = known
            && now - at < KNOWN_FOR
        {
            return Ok(user);
        }
        let user = self.look_up_user(lane, email).await?;
        let mut known = self.known();
        known.retain(|_, (_, at)| now - *at < KNOWN_FOR);
        if known.len() < MOST_KNOWN {
            known.insert(email.clone(), (user.clone(), now));
        }
        Ok(user)
    }

    /// A name that is one person's user name and another's address is nobody's.
    pub async fn look_up_user(
        &self,
        lane: Lane,
        email: &Email,
    ) -> Result<UserId, IdentityCenterError> {
        let turn = Turn::look(lane);
        let ask = |by| self.patiently(turn, move || self.access.find_user(email, by));
        let by_name = ask(UserAttribute::UserName).await?;
        let by_email = ask(UserAttribute::Email).await?;
        let nobody = |why: String| {
            Err(IdentityCenterError::new(
                IdentityCenterErrorKind::NoUser,
                why,
            ))
        };
        match (by_name, by_email) {
            (Some(one), Some(other)) if one != other => nobody(format!(
                "Identity Center has several users {email} ({one} by user name, {other} by e-mail)"
            )),
            (Some(user), _) | (None, Some(user)) => Ok(user),
            (None, None) => nobody(format!("Identity Center has no user {email}")),
        }
    }

    /// Is the assignment there now?
    pub async fn look(
        &self,
        lane: Lane,
        key: &HoldingKey,
    ) -> Result<Presence, IdentityCenterError> {
        let there = self.assignees(lane, &AssignmentPlace::of(key)).await?;
        Ok(if there.contains(&Assignee::User(key.user.clone())) {
            Presence::Present
        } else {
            Presence::Absent
        })
    }

    /// Everybody who has this set in this account, by an answer that was asked for from
    /// now on: perhaps by somebody else.
    pub async fn assignees(
        &self,
        lane: Lane,
        place: &AssignmentPlace,
    ) -> Result<Arc<Assignees>, IdentityCenterError> {
        let turn = Turn::look(lane);
        let asked = self.looks.moment();
        let page = |after: Option<String>| -> PendingCall<'_, Page<Assignee>> {
            Box::pin(async move { self.access.assigned(place, after.as_deref()).await })
        };
        let ask = self.every_page(turn, &self.looks, place, asked, page);
        let newer = |answer: &SharedAnswer<Assignees>| answer.sent > asked;
        self.looks.ask(place, newer, ask).await
    }

    /// Room for a create in this account; to be kept until its operation is over.
    pub async fn room_to_create(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        self.quota.room_to_create(lane, account).await
    }

    /// Room for a removal in this account; to be kept until its operation is over.
    pub async fn room_to_remove(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        self.quota.room_to_remove(lane, account).await
    }

    /// For what is waited for outside the queue of its account.
    pub fn no_room(&self) -> Room<'_> {
        Room::anywhere()
    }

    /// Starts to make an assignment, unless the gate says no once it is its turn.
    pub async fn create<'c>(
        &'c self,
        lane: Lane,
        key: &'c HoldingKey,
        gate: &'c dyn Gate<'c>,
    ) -> Result<Operation, IdentityCenterError> {
        let call = || through(gate, self.access.create(key));
        self.patiently(Turn::change(lane), call).await
    }

    /// Starts to remove an assignment, unless the gate says no once it is its turn.
    pub async fn delete<'c>(
        &'c self,
        lane: Lane,
        key: &'c HoldingKey,
        gate: &'c dyn Gate<'c>,
    ) -> Result<Deletion, IdentityCenterError> {
        let call = || through(gate, self.access.delete(key));
        self.patiently(Turn::change(lane), call).await
    }

    /// Until the operation is over, or has taken too long; its room is given up earlier. While
    /// many are under way, nobody but who revokes asks for one alone.
    pub async fn wait_for(
        &self,
        lane: Lane,
        operation: &Operation,
        room: Room<'_>,
    ) -> Result<OperationResult, IdentityCenterError> {
        let mut room = Some(room);
        let (begun, accepted) = (self.clock.uptime(), self.under_way.moment());
        let flight = Flight::begin(&self.in_flight[operation.kind as usize]);
        let shared_query =
            || lane != Lane::Revoke && self.quota.is_kept() && flight.is_one_of_many();
        loop {
            let now = self.clock.uptime();
            let pause = between_polls(now - begun);
            let pause = match shared_query() {
                true => pause.max(MANY_ARE_ASKED_EVERY),
                false => pause,
            };
            self.clock.sleep(pause).await;
            let waited = self.clock.uptime() - begun;
            // K7: others go on; AWS says so if it minds.
            room = room.filter(|_| waited < ROOM_PATIENCE);
            if waited >= OPERATION_PATIENCE {
                return Ok(OperationResult::NotYet);
            }
            if shared_query() {
                match self.is_under_way(lane, operation, accepted).await {
                    Ok(true) => continue,
                    // How it ended, the look that follows every removal shows.
                    Ok(false) if operation.kind == OperationKind::Delete => {
                        return Ok(OperationResult::Somehow);
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "operations under way cannot be listed");
                    }
                }
            }
            match self.poll(lane, operation).await? {
                Progress::InProgress => {}
                Progress::Succeeded => return Ok(OperationResult::Well),
                Progress::Failed { why } => return Ok(OperationResult::Badly { why }),
            }
        }
    }

    pub async fn poll(
        &self,
        lane: Lane,
        operation: &Operation,
    ) -> Result<Progress, IdentityCenterError> {
        let ask = || self.access.poll(operation);
        self.patiently(Turn::poll(lane), ask).await
    }

    async fn is_under_way(
        &self,
        lane: Lane,
        operation: &Operation,
        accepted: Tick,
    ) -> Result<bool, IdentityCenterError> {
        let kind = operation.kind;
        let turn = Turn::poll(lane);
        let page = |after: Option<String>| -> PendingCall<'_, Page<String>> {
            Box::pin(async move { self.access.under_way(kind, after.as_deref()).await })
        };
        let ask = self.every_page(turn, &self.under_way, &kind, accepted, page);
        let recent = |answer: &SharedAnswer<BTreeSet<String>>| {
            let age = self.clock.uptime() - answer.sent_at;
            answer.sent > accepted && age < MANY_ARE_ASKED_EVERY
        };
        let ids = self.under_way.ask(&kind, recent, ask).await?;
        Ok(ids.contains(&operation.id))
    }

    async fn every_page<'c, K, T>(
        &'c self,
        turn: Turn,
        shared_query: &'c SharedQuery<K, BTreeSet<T>>,
        key: &'c K,
        since: Tick,
        page: impl Fn(Option<String>) -> PendingCall<'c, Page<T>> + Sync,
    ) -> Result<SharedAnswer<BTreeSet<T>>, IdentityCenterError>
    where
        K: Eq + Hash + Clone + Send + Sync,
        T: Ord + Send + Sync + 'c,
    {
        let (mut all, mut after) = (BTreeSet::new(), None);
        // When the question was sent that the first page answers.
        let mut first = None;
        loop {
            let alone = turn.lane == Lane::Revoke || first.is_some();
            let call = || -> PendingCall<'c, (Page<T>, Tick, Uptime)> {
                let answer = page(after.clone());
                Box::pin(async move {
                    // Its answer would end this before it is our turn to ask. Who revokes
                    // does not count on others.
                    if !alone {
                        shared_query.let_answer_come(key, since).await;
                    }
                    let question = shared_query.send(key);
                    let sent_at = self.clock.uptime();
                    Ok((answer.await?, question.sent, sent_at))
                })
            };
            let (found, sent, sent_at) = self.patiently(turn, call).await?;
            let (sent, sent_at) = *first.get_or_insert((sent, sent_at));
            all.extend(found.items);
            after = found.next;
            if after.is_none() {
                let value = Arc::new(all);
                return Ok(SharedAnswer {
                    sent,
                    sent_at,
                    value,
                });
            }
        }
    }

    /// Tries again, for a little while, what AWS only asked to be tried again.
    async fn patiently<'c, T>(
        &self,
        turn: Turn,
        call: impl Fn() -> PendingCall<'c, T> + Send,
    ) -> Result<T, IdentityCenterError> {
        let mut begun = None;
        loop {
            self.quota.turn(turn).await;
            let begun = *begun.get_or_insert_with(|| self.clock.uptime());
            let answer = call().await;
            self.quota.hear(&answer);
            let now = self.clock.uptime();
            let passing = matches!(
                &answer,
                Err(IdentityCenterError {
                    kind: IdentityCenterErrorKind::Conflict | IdentityCenterErrorKind::Throttled,
                    ..
                })
            );
            if !passing || now - begun >= SHORT_PATIENCE {
                return answer;
            }
            self.clock.sleep(between_polls(now - begun)).await;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Email, (UserId, Uptime)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The call, if the gate still says yes.
fn through<'c, T: 'c>(gate: &'c dyn Gate<'c>, call: PendingCall<'c, T>) -> PendingCall<'c, T> {
    Box::pin(async move {
        gate.may_be_sent().await?;
        let answer = call.await;
        let unanswered =
            matches!(&answer, Err(error) if error.kind == IdentityCenterErrorKind::NoAnswer);
        if !unanswered {
            gate.was_answered();
        }
        answer
    })
}

/// One of the operations that are under way now.
struct Flight<'a>(&'a AtomicUsize);

impl<'a> Flight<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    fn is_one_of_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= MANY
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The longer something has taken, the less a little more matters.
fn between_polls(waited: Millis) -> Millis {
    Millis(waited.0 / 8).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}
