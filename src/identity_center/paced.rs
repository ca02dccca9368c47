//! Identity Center at the pace that AWS allows: every call waits for its turn, conflicts and
//! throttling are retried for a few seconds, and callers with the same question share one
//! call.

mod policies;
mod room_timeout;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::quota::{Limits, Quota, Room, Turn};
use super::shared_query::{SharedAnswer, SharedQuery, Tick};
use super::{
    Assignee, Assignees, AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Operation, OperationKind, Page, Progress, UserAttribute,
};
use crate::clock::{Clock, Uptime};
use crate::domain::{AccountId, Email, HoldingKey, Lane, Millis, PermissionSet, Presence, UserId};
use crate::lock::locked;
use room_timeout::RoomTimeout;

/// How long a call is retried after a conflict or throttling, before the caller gets the
/// error.
const RETRY_TIMEOUT: Millis = Millis::seconds(8);
const FIRST_PAUSE: Millis = Millis(250);
const LONGEST_PAUSE: Millis = Millis::seconds(2);
/// If this many operations run, one list call asks about all of them instead of one poll for
/// each.
const MANY: usize = 4;
const MANY_ARE_ASKED_EVERY: Millis = Millis::seconds(1);
/// How long a looked-up user is kept for later grants. A removal never looks a user up.
const KNOWN_FOR: Millis = Millis::seconds(60);
const MOST_KNOWN: usize = 10_000;

pub struct Paced {
    access: Arc<dyn IdentityCenter>,
    clock: Arc<dyn Clock>,
    quota: Quota,
    looks: SharedQuery<AssignmentPlace, Assignees>,
    under_way: SharedQuery<OperationKind, BTreeSet<String>>,
    in_flight: [AtomicUsize; 2],
    room_timeout: RoomTimeout,
    known: Mutex<HashMap<Email, (UserId, Uptime)>>,
}

/// How long a caller waits for an operation. The operation may still end later.
const OPERATION_TIMEOUT: Millis = Millis::minutes(2);

/// A call in flight.
pub type PendingCall<'c, T> =
    Pin<Box<dyn Future<Output = Result<T, IdentityCenterError>> + Send + 'c>>;

/// The check that a call which changes something must pass when its turn has come.
pub trait Gate<'c>: Send + Sync {
    /// Whether the call may be sent. The call is sent immediately after this.
    fn may_be_sent(&self) -> PendingCall<'c, ()>;
    /// AWS has answered the call: it is not in flight any more.
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
    /// It has ended, and the caller has to look at the result.
    Somehow,
    /// It has not ended within `OPERATION_TIMEOUT`.
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
            room_timeout: RoomTimeout::new(),
            known: Mutex::default(),
        }
    }

    /// The AWS identity of jit's credentials. This is no call to Identity Center, so it waits for
    /// no turn.
    pub async fn caller(&self) -> Result<String, IdentityCenterError> {
        self.access.caller().await
    }

    pub fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError> {
        self.access.permission_set_arn(set)
    }

    /// The one user with this address, looked up now or within `KNOWN_FOR`.
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

    /// Refuses an address that is one user's name and another user's e-mail.
    pub async fn look_up_user(
        &self,
        lane: Lane,
        email: &Email,
    ) -> Result<UserId, IdentityCenterError> {
        let turn = Turn::look(lane);
        let ask = |by| self.with_retries(turn, move || self.access.find_user(email, by));
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

    /// Whether the assignment exists now.
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

    /// All assignees of this set in this account, by a call that is sent from now on, perhaps by
    /// another caller.
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
        self.looks.query(place, newer, ask).await
    }

    /// Room for a create in this account; the caller keeps it until the operation has ended.
    pub async fn room_to_create(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        self.quota.room_to_create(lane, account).await
    }

    /// Room for a removal in this account; the caller keeps it until the operation has ended.
    pub async fn room_to_remove(&self, lane: Lane, account: &AccountId) -> Room<'_> {
        self.quota.room_to_remove(lane, account).await
    }

    /// Room outside the queue of an account, for a caller that waits without it.
    pub fn no_room(&self) -> Room<'_> {
        Room::anywhere()
    }

    /// Starts to make an assignment, unless the gate refuses it at its turn.
    pub async fn create<'c>(
        &'c self,
        lane: Lane,
        key: &'c HoldingKey,
        gate: &'c dyn Gate<'c>,
    ) -> Result<Operation, IdentityCenterError> {
        let call = || through(gate, self.access.create(key));
        self.with_retries(Turn::change(lane), call).await
    }

    /// Starts to remove an assignment, unless the gate refuses it at its turn.
    pub async fn delete<'c>(
        &'c self,
        lane: Lane,
        key: &'c HoldingKey,
        gate: &'c dyn Gate<'c>,
    ) -> Result<Deletion, IdentityCenterError> {
        let call = || through(gate, self.access.delete(key));
        self.with_retries(Turn::change(lane), call).await
    }

    /// Waits until the operation has ended, or for `OPERATION_TIMEOUT`; the room is freed
    /// earlier. While many operations run, only a revoke polls its own operation.
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
            // K7: other operations may begin now; AWS answers with a conflict if that is too
            // early.
            room = room.filter(|_| waited < self.room_timeout.get());
            if waited >= OPERATION_TIMEOUT {
                return Ok(OperationResult::NotYet);
            }
            if shared_query() {
                match self.is_under_way(lane, operation, accepted).await {
                    Ok(true) => continue,
                    // The look after every removal shows how it ended.
                    Ok(false) if operation.kind == OperationKind::Delete => {
                        self.room_timeout.note_end(waited);
                        return Ok(OperationResult::Somehow);
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "running operations not listed, polling one alone");
                    }
                }
            }
            let ended = match self.poll(lane, operation).await? {
                Progress::InProgress => continue,
                Progress::Succeeded => OperationResult::Well,
                Progress::Failed { why } => OperationResult::Badly { why },
            };
            self.room_timeout.note_end(waited);
            return Ok(ended);
        }
    }

    pub async fn poll(
        &self,
        lane: Lane,
        operation: &Operation,
    ) -> Result<Progress, IdentityCenterError> {
        let ask = || self.access.poll(operation);
        self.with_retries(Turn::poll(lane), ask).await
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
        let ids = self.under_way.query(&kind, recent, ask).await?;
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
        // The time at which the call for the first page was sent.
        let mut first = None;
        loop {
            let alone = turn.lane == Lane::Revoke || first.is_some();
            let call = || -> PendingCall<'c, (Page<T>, Tick, Uptime)> {
                let answer = page(after.clone());
                Box::pin(async move {
                    // A shared answer would end this wait before a call of its own has its turn.
                    // A revoke does not rely on the calls of others.
                    if !alone {
                        shared_query.let_answer_come(key, since).await;
                    }
                    let question = shared_query.send(key);
                    let sent_at = self.clock.uptime();
                    Ok((answer.await?, question.sent, sent_at))
                })
            };
            let (found, sent, sent_at) = self.with_retries(turn, call).await?;
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

    /// Retries a conflict or throttling for `RETRY_TIMEOUT`.
    async fn with_retries<'c, T>(
        &self,
        turn: Turn,
        call: impl Fn() -> PendingCall<'c, T> + Send,
    ) -> Result<T, IdentityCenterError> {
        let mut begun = None;
        loop {
            self.quota.turn(turn).await;
            let begun = *begun.get_or_insert_with(|| self.clock.uptime());
            let answer = call().await;
            self.quota.note_result(&answer);
            let now = self.clock.uptime();
            let passing = matches!(
                &answer,
                Err(IdentityCenterError {
                    kind: IdentityCenterErrorKind::Conflict | IdentityCenterErrorKind::Throttled,
                    ..
                })
            );
            if !passing || now - begun >= RETRY_TIMEOUT {
                return answer;
            }
            self.clock.sleep(between_polls(now - begun)).await;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Email, (UserId, Uptime)>> {
        locked(&self.known)
    }
}

/// The call, if the gate allows it.
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

/// Counts one running operation until it is dropped.
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

/// The pause between two polls, which grows with the time that the operation has taken.
fn between_polls(waited: Millis) -> Millis {
    Millis(waited.0 / 8).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}
