//! The service: all commands of people, the time and workers go through `handle`. It loads the
//! record, calls `decide` and commits the decision. After a conflict it starts again.
#![deny(clippy::wildcard_enum_match_arm)]

mod access;
mod announce;
mod call_right;
mod changes;
mod configure;
mod heads;
mod last_bindings;
pub(crate) mod notice_queue;
mod pending;
mod queries;
mod revoke;
mod sealed;
mod verify;
pub(crate) mod work_queue;

pub use announce::Announce;
pub use call_right::CallRight;
pub use configure::Configure;
pub use pending::OpenedOrFound;
pub use revoke::RevokeResult;
pub use verify::{AuditFinding, VerifiedHistory, VerifiedLog};

use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::domain::{
    self, AccessRecord, Binding, Command, Decision, Draft, Lease, LeaseHolder, Millis, Policy,
    Record, Refusal, Request, RequestId, Timestamp, Work,
};
use crate::signature::SealKeys;
use crate::store::{Answered, Commit, Guard, NoticePlace, Store, StoreError, Write};
use crate::telemetry;
use changes::RequestChanges;
use heads::HeadNotes;
use last_bindings::LastBindings;
use notice_queue::NoticeQueue;
use pending::{Asker, PendingCounts};
use work_queue::{BothClocks, ReservedWork, WorkQueue};

/// After this many conflicts in a row the command fails.
const MOST_TRIES: u32 = 40;
/// The first conflicts are followed by no pause, the later ones by pauses of growing length.
const RACES_AT_ONCE: u32 = 3;
const LONGEST_PAUSE: Millis = Millis(500);
const PAGE: usize = 200;

/// Other replicas, and operators who write into the store, do not notify the workers of this
/// process, so workers search for due work this often. A notification only makes urgent work
/// start sooner.
pub const WORKERS_SEARCH_EVERY: Millis = Millis::seconds(5);

pub struct Service {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    announce: Announce,
    /// Notified when a commit makes a request due soon.
    pub(crate) work_ready: Notify,
    pub(crate) notice_queue: NoticeQueue,
    pub(crate) work_queue: Arc<WorkQueue>,
    /// About requests that ended or were revoked.
    changes: RequestChanges,
    pending: PendingCounts,
    bindings: LastBindings,
    heads: HeadNotes,
    /// Seals the entries of the head log.
    seal_keys: SealKeys,
    /// The first entry that must have a seal; absent if the configuration does not say it.
    sealed_since: Option<u64>,
}

/// An idempotency key, with a fingerprint of the call that carried it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The name in the store, which also says who used the key.
    key: String,
    fingerprint: String,
}

impl Idempotency {
    /// The `Idempotency-Key` of a signed call. B5: it belongs to the key id. Neither of the two
    /// comes from a header with a line feed, so two pairs never have one name.
    pub fn of_call(key_id: &str, key: &str, fingerprint: String) -> Self {
        let key = format!("{key_id}\n{key}");
        Self { key, fingerprint }
    }

    /// The key of one command or one dialog in Mattermost. It has no line feed, so no signed call
    /// can name it.
    pub fn of_chat(once: &str, fingerprint: String) -> Self {
        let key = format!("mattermost:{once}");
        Self { key, fingerprint }
    }
}

/// The request after the command, and the next work of the worker that has the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    pub request: Request,
    pub work: Option<Work>,
    /// The record of its access.
    pub access: AccessRecord,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("there is no request {0}")]
    Unknown(RequestId),
    #[error("this Idempotency-Key was used for another request body; use a new key")]
    KeyReused,
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Where a command comes from.
#[derive(Clone, Copy)]
struct Origin<'t> {
    right: Option<&'t CallRight>,
    /// The key that signed the call; it stands in every event of the commit (B4).
    key_id: Option<&'t str>,
    /// The same key, if the call names no person: it is then the actor (B6).
    acting_key: Option<&'t str>,
}

impl<'t> Origin<'t> {
    /// Names the key in the events of the decision.
    fn named_in(self, mut decision: Decision) -> Decision {
        if let Some(key_id) = self.acting_key {
            decision = decision.acted_by_key(key_id);
        }
        match self.key_id {
            Some(key_id) => decision.signed_by(key_id),
            None => decision,
        }
    }

    fn of(right: Option<&'t CallRight>) -> Self {
        let key_id = right.and_then(CallRight::key_id);
        Self {
            right,
            key_id,
            acting_key: None,
        }
    }
}

impl Service {
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        policy: Policy,
        announce: Announce,
    ) -> Self {
        Self {
            store,
            clock,
            policy,
            announce,
            work_ready: Notify::new(),
            notice_queue: NoticeQueue::default(),
            work_queue: Arc::default(),
            changes: RequestChanges::default(),
            pending: PendingCounts::default(),
            bindings: LastBindings::default(),
            heads: HeadNotes::default(),
            seal_keys: SealKeys::default(),
            sealed_since: None,
        }
    }

    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub fn shared_clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Opens a request, once for each idempotency key.
    pub async fn open(
        &self,
        draft: Draft,
        idempotency: Option<Idempotency>,
        right: Option<&CallRight>,
    ) -> Result<Request, ServiceError> {
        for tried in 0..MOST_TRIES {
            self.pause_after_races(tried).await;
            let now = self.clock.now();
            if let Some(earlier) = self.opened_before(idempotency.as_ref(), now).await? {
                return Ok(earlier);
            }
            let (guard, decision) = self.draft(&draft, tried, now).await?;
            if tried == 0 {
                let asker = Asker {
                    person: draft.requester.email.clone(),
                    key_id: right.and_then(CallRight::key_id).map(str::to_owned),
                };
                self.check_pending(asker).await?;
            }
            let answered = idempotency.as_ref().map(|once| Answered {
                key: once.key.clone(),
                fingerprint: once.fingerprint.clone(),
                request_id: decision.request.id,
                at: now,
            });
            let answer = answered.map(Write::Answer);
            let written = self.write(Some(guard), vec![decision], answer, Origin::of(right));
            match written.await {
                Ok(mut written) => return written.pop().ok_or(ServiceError::Unknown(draft.id)),
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_many_conflicts())
    }

    /// Decides about a draft under the binding of its account. The first attempt takes the binding
    /// that this process read last, which saves a read of the store: the commit fails if the
    /// binding has changed, and a refusal is repeated under the stored one.
    async fn draft(
        &self,
        draft: &Draft,
        tried: u32,
        now: Timestamp,
    ) -> Result<(Guard, Decision), ServiceError> {
        let account = &draft.account_id;
        let decided = |binding: Option<Binding>| {
            let guard = Guard::of(account, binding.as_ref());
            let decision = domain::open(draft.clone(), binding, &self.policy, now);
            decision.map(|decision| (guard, decision))
        };
        let known = (tried == 0).then(|| self.bindings.last_read(account));
        if let Some(known) = known.flatten()
            && let Ok(decision) = decided(Some(known))
        {
            return Ok(decision);
        }
        let binding = self.store.binding(account).await?;
        self.bindings.note(account, binding.as_ref());
        Ok(decided(binding)?)
    }

    async fn opened_before(
        &self,
        idempotency: Option<&Idempotency>,
        now: Timestamp,
    ) -> Result<Option<Request>, ServiceError> {
        let Some(once) = idempotency else {
            return Ok(None);
        };
        let Some(answered) = self.store.answered(&once.key, now).await? else {
            return Ok(None);
        };
        if answered.fingerprint != once.fingerprint {
            return Err(ServiceError::KeyReused);
        }
        self.request(answered.request_id).await.map(Some)
    }

    /// Gives a command to a request. The nonce of `right`, of a signed call, counts once.
    pub async fn handle(
        &self,
        id: RequestId,
        command: Command,
        right: Option<&CallRight>,
    ) -> Result<Handled, ServiceError> {
        self.handle_signed(id, command, Origin::of(right)).await
    }

    async fn handle_signed(
        &self,
        id: RequestId,
        command: Command,
        origin: Origin<'_>,
    ) -> Result<Handled, ServiceError> {
        let mut found = None;
        for tried in 0..MOST_TRIES {
            self.pause_after_races(tried).await;
            let record = self.load(id, &command, found).await?;
            let guard = needs_binding(&record.request, &command)
                .then(|| Guard::of(&record.request.asked.account_id, record.binding.as_ref()));
            let (now, begun) = (self.clock.now(), BothClocks::now(self.clock()));
            let (before, access) = (record.request.state.clone(), record.access.clone());
            let binding = record.binding.clone();
            let decision = domain::decide(record, &self.policy, command.clone(), now)?;
            let (mut decision, reserved) = match command.is_asked() {
                true => self.begin(decision, &access, binding, (now, begun)),
                false => (decision, None),
            };
            let (access, work) = (access.after(&decision.access), decision.work.take());
            let along = self.decide_along(id, &decision.access, now).await?;
            let decisions = [vec![decision], along].concat();
            // The commit fails if the binding that allows the command has changed. A claim only
            // takes the lease: the commit before the create is guarded.
            let guard = guard.filter(|_| !command.is_due());
            let parked = parked_by(id, &command);
            match self.write(guard, decisions, parked, origin).await {
                Ok(mut written) => {
                    let request = written.swap_remove(0);
                    telemetry::note_revoke(&before, &request);
                    self.pending.note(&before, &request);
                    let handled = Handled {
                        request,
                        work,
                        access,
                    };
                    if let Some(reserved) = reserved {
                        reserved.begin(handled.clone());
                    }
                    return Ok(handled);
                }
                // The next decision is about the record that the other writer stored; the
                // conflict carries it.
                Err(StoreError::Conflict(winner)) => {
                    found = winner.filter(|winner| winner.id == id).map(|found| *found);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_many_conflicts())
    }

    /// Renews the lease on a request, which the worker passes as it knows it: one write without a
    /// read, unless another writer has changed the record.
    pub(crate) async fn renew(
        &self,
        known: Request,
        lease: Lease,
    ) -> Result<Request, ServiceError> {
        let id = known.id;
        let record = Record {
            binding: None,
            access: AccessRecord::unread(known.access.form()),
            request: known,
        };
        let command = Command::Renew { lease };
        let renewed = domain::decide(record, &self.policy, command.clone(), self.clock.now())?;
        match self.store.renew(renewed.request.clone()).await {
            Ok(()) => Ok(renewed.request),
            Err(StoreError::Conflict(_)) => self
                .handle(id, command, None)
                .await
                .map(|done| done.request),
            Err(error) => Err(error.into()),
        }
    }

    /// Claims the request in the same commit, if the command of a person makes it due at once and
    /// this process has a free slot.
    fn begin(
        &self,
        decision: Decision,
        access: &AccessRecord,
        binding: Option<Binding>,
        (now, begun): (Timestamp, BothClocks),
    ) -> (Decision, Option<ReservedWork>) {
        let claim = || {
            let is_open = self.work_queue.is_open();
            let lease =
                is_open.then(|| work_queue::new_lease(self.clock(), LeaseHolder::Server))?;
            let claimed = decision.claimed(access.clone(), binding, &self.policy, lease, now)?;
            let reserved = self
                .work_queue
                .reserve_for(&claimed.request, lease, begun)?;
            Some((claimed, reserved))
        };
        match claim() {
            Some((claimed, reserved)) => (claimed, Some(reserved)),
            None => (decision, None),
        }
    }

    /// K15: writers that collide at one record pause for different times.
    async fn pause_after_races(&self, lost: u32) {
        if lost >= RACES_AT_ONCE {
            let chance = self.clock.draw().as_fields().0;
            self.clock.sleep(pause_after(lost, chance)).await;
        }
    }

    async fn load(
        &self,
        id: RequestId,
        command: &Command,
        found: Option<Request>,
    ) -> Result<Record, ServiceError> {
        let request = match found {
            Some(request) => request,
            None => self.request(id).await?,
        };
        let binding = async {
            match needs_binding(&request, command) {
                true => self.store.binding(&request.asked.account_id).await,
                false => Ok(None),
            }
        };
        let access = self.access_of(&request, command);
        let (access, binding) = tokio::try_join!(access, binding)?;
        Ok(Record {
            request,
            binding,
            access,
        })
    }

    /// Commits the decisions, and notifies the workers and listeners that have work because of
    /// them. `last` is written in the same commit.
    async fn write(
        &self,
        guard: Option<Guard>,
        decisions: Vec<Decision>,
        last: Option<Write>,
        origin: Origin<'_>,
    ) -> Result<Vec<Request>, StoreError> {
        let mut commit = Commit::of(guard.map(Write::Guard));
        let right = origin.right;
        commit.nonce = right.and_then(CallRight::nonce).cloned();
        let (mut written, mut tells) = (Vec::new(), Vec::new());
        for decision in decisions {
            let mut decision = origin.named_in(decision);
            decision.notices = self.announce.notices(&mut decision);
            tells.extend(decision.notices.iter().map(|one| one.request_id));
            written.push(decision.request.clone());
            commit.writes.extend(Write::of_decision(decision));
        }
        commit.writes.extend(last);
        let done = self.commit(commit).await;
        if let Some(right) = right {
            right.note(&done);
        }
        done?;
        self.notice_queue.put(tells.into_iter());
        let heard_anyway = self.clock.now() + WORKERS_SEARCH_EVERY;
        let soon = |request: &Request| request.claimable_at().is_some_and(|at| at < heard_anyway);
        if written.iter().any(soon) {
            self.work_ready.notify_one();
        }
        let is_change =
            |request: &&Request| request.state.is_settled() || request.state.is_being_revoked();
        for request in written.iter().filter(is_change) {
            self.changes.notify(request.id);
        }
        Ok(written)
    }
}

/// Whether a decision about this command depends on the binding. B1: so does the beginning of
/// the access of an approved request.
fn needs_binding(request: &Request, command: &Command) -> bool {
    match command {
        Command::Asked { .. } | Command::DecidedOnShown { .. } | Command::RulesChanged { .. } => {
            true
        }
        Command::Due { .. } => request.state.may_begin(),
        Command::Finished { outcome, .. } => outcome.may_begin_access(),
        Command::BreakGlassRevoked { .. }
        | Command::CleanedUp { .. }
        | Command::FoundPresent { .. }
        | Command::Unbound { .. }
        | Command::RevokedWithCoHolder { .. }
        | Command::Hold { .. }
        | Command::Renew { .. }
        | Command::CardPosted { .. }
        | Command::ButtonsSealed { .. }
        | Command::ReminderPosted { .. }
        | Command::NoticeParked { .. }
        | Command::NoticesParked { .. } => false,
    }
}

fn parked_by(id: RequestId, command: &Command) -> Option<Write> {
    let seq = command.parked_notice()?;
    Some(Write::Park(NoticePlace {
        request_id: id,
        seq,
    }))
}

/// A random pause whose bound grows with each conflict, up to a limit.
fn pause_after(lost: u32, chance: u32) -> Millis {
    let doublings = lost.saturating_sub(RACES_AT_ONCE).min(10);
    let whole = Millis(4 << doublings).min(LONGEST_PAUSE).0;
    Millis(whole / 2 + i64::from(chance) % (whole / 2))
}

fn too_many_conflicts() -> ServiceError {
    let why = format!("{MOST_TRIES} conflicts in a row at the same record; try again");
    ServiceError::Store(StoreError::Unavailable(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    // K15
    #[test]
    fn the_pause_after_a_conflict_grows_up_to_a_bound() {
        let longest = |lost| (0..1000).map(|chance| pause_after(lost, chance)).max();
        assert!(longest(RACES_AT_ONCE) < longest(RACES_AT_ONCE + 2));
        assert!(longest(MOST_TRIES) <= Some(LONGEST_PAUSE));
        assert!(pause_after(RACES_AT_ONCE, 0) > Millis(0));
        assert_ne!(
            pause_after(10, 1),
            pause_after(10, 2),
            "two writers get different pauses"
        );
    }
}
