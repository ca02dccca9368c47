//! The notice worker: it delivers each notice at least once to each receiver, and the notices of
//! one request in order.
//!
//! The store keeps the outbox, and with each notice which receivers have it. A slow or failing
//! receiver delays only its own notices, and no grant and no revoke.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::spawn::{OnRuntime, Spawn};
use super::{RunMode, note_panic};
use crate::clock::Uptime;
use crate::domain::{
    Command, LeaseToken, Millis, Notice, ReceiverName, RequestId, Text, Timestamp,
};
use crate::service::{Service, ServiceError, WORKERS_LOOK_EVERY};
use crate::store::{ClaimedNotice, Due, Left, NoticePlace, Settled};

/// The longest time of one delivery, from the claim of its notice. The receivers have shorter
/// time limits (asserted where each limit is defined).
pub const DELIVERY_BOUND: Millis = Millis::seconds(32);
/// The writes of the claim and the result take less than this, and clocks of replicas differ
/// by less.
const MARGIN: Millis = Millis::seconds(12);
/// For this long no other notice worker claims a notice that is being delivered.
const LEASE: Millis = Millis::seconds(45);
const _: () = assert!(DELIVERY_BOUND.0 + MARGIN.0 <= LEASE.0);
/// With less time than this left, no receiver begins a later notice.
const REST: Millis = Millis::seconds(20);
const _: () = assert!(REST.0 < DELIVERY_BOUND.0);
const AT_ONCE: usize = 32;
const FIRST_PAUSE: Millis = Millis::seconds(1);
const LONGEST_PAUSE: Millis = Millis::minutes(5);
const GIVE_UP_AFTER: Millis = Millis::DAY;
const AFTER_A_FAULT: Millis = Millis::seconds(1);

/// Where notices go. A test can have a receiver that does not answer.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// The name under which the outbox records what this receiver has.
    fn name(&self) -> ReceiverName;
    /// Takes a notice; a receiver that has it already recognises the repetition.
    async fn receive(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReceived(pub String);

/// The right to deliver the notices that were claimed under it, until its deadline.
#[derive(Clone, Copy)]
struct DeliveryLease {
    lease: LeaseToken,
    until: Timestamp,
    deadline: Uptime,
}

#[derive(Clone)]
pub struct NoticeWorker {
    service: Arc<Service>,
    receivers: Arc<[Arc<dyn Receiver>]>,
    spawner: Arc<dyn Spawn>,
}

impl NoticeWorker {
    pub fn new(service: Arc<Service>, receivers: Vec<Arc<dyn Receiver>>) -> Self {
        Self {
            service,
            receivers: receivers.into(),
            spawner: Arc::new(OnRuntime),
        }
    }

    /// A notice worker whose deliveries run on this spawner.
    #[must_use]
    pub fn spawning(self, spawner: Arc<dyn Spawn>) -> Self {
        Self { spawner, ..self }
    }

    /// Delivers until `stop`; deliveries that are running then are dropped, and repeated later.
    pub async fn run(&self, stop: CancellationToken) {
        self.run_as(RunMode::Forever, &stop, &stop).await;
    }

    /// Runs until the run mode ends or until `stop`. Deliveries that are left then are finished,
    /// unless `give_up` is cancelled.
    pub async fn run_as(
        &self,
        mode: RunMode,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        tasks.close();
        // From now on this process delivers the notices of its own commits.
        self.service.notice_queue.open();
        if mode == RunMode::Forever {
            self.end_pauses().await;
        }
        // K6: a panic in the loop ends only one round.
        loop {
            let rounds = self.make_rounds(mode, &tasks, stop, give_up);
            if AssertUnwindSafe(rounds).catch_unwind().await.is_ok() {
                break;
            }
            note_panic("the notice worker's loop");
            self.service.clock().sleep(AFTER_A_FAULT).await;
        }
        tasks.wait().await;
    }

    /// The receivers may work again: a server that starts tries at once.
    async fn end_pauses(&self) {
        let now = self.service.clock().now();
        if let Err(error) = self.service.store().end_pauses(now).await {
            tracing::warn!(%error, "pauses of notices not ended: they go on for at most 5 minutes");
        }
    }

    async fn make_rounds(
        &self,
        mode: RunMode,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) {
        let clock = self.service.clock();
        let (mut next, mut look_at) = (None, clock.uptime());
        loop {
            let notified = self.service.notice_queue.bell.notified();
            self.start_own_notices(tasks, give_up);
            if let Some(at) = self.service.notice_queue.take_again_at() {
                next = next.into_iter().chain([at]).min();
                look_at = look_at.min(self.when_to_look(Some(at)));
            }
            if mode.looks() && clock.uptime() >= look_at {
                next = self.send_due(tasks, give_up).await;
                look_at = self.when_to_look(next);
            }
            let is_over = mode.is_over(next) || !matches!(mode, RunMode::UntilIdle(_));
            if give_up.is_cancelled() || stop.is_cancelled() && is_over && tasks.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = notified => {}
                () = clock.sleep_until(look_at), if mode.looks() => {}
                () = tasks.wait(), if !tasks.is_empty() => {}
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                () = give_up.cancelled() => {}
            }
        }
    }

    /// Due times go by the wall clock, which may be set meanwhile, so the wait has a limit.
    fn when_to_look(&self, next: Option<Timestamp>) -> Uptime {
        let clock = self.service.clock();
        let until_next = next.map_or(WORKERS_LOOK_EVERY, |next| next - clock.now());
        clock.uptime() + until_next.clamp(Millis(0), WORKERS_LOOK_EVERY)
    }

    fn start_own_notices(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        while tasks.len() < AT_ONCE
            && let Some(id) = self.service.notice_queue.take()
        {
            let (notices, stop) = (self.clone(), stop.clone());
            self.start(
                tasks,
                id,
                async move { notices.deliver_all_of(id, &stop).await },
            );
        }
    }

    /// Looks for due notices and delivers them; returns when the next one is due.
    async fn send_due(&self, tasks: &TaskTracker, stop: &CancellationToken) -> Option<Timestamp> {
        let now = self.service.clock().now();
        let free = AT_ONCE.saturating_sub(tasks.len());
        if free == 0 {
            return Some(now + AFTER_A_FAULT);
        }
        let (claim, claimed) = match self.claim_due(free).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(%error, "due notices not read from the store, will be retried");
                return Some(now + AFTER_A_FAULT);
            }
        };
        for one in claimed.ready {
            let (notices, stop) = (self.clone(), stop.clone());
            let id = one.notice.request_id;
            self.start(tasks, id, async move {
                match notices.deliver(&one, claim, &stop).await? {
                    Left::More => notices.deliver_all_of(id, &stop).await,
                    Left::Nothing => Ok(()),
                }
            });
        }
        // More notices may be due than can be delivered at once.
        claimed.next.map(|next| {
            if next > now {
                next
            } else {
                now + AFTER_A_FAULT
            }
        })
    }

    fn start(
        &self,
        tasks: &TaskTracker,
        id: RequestId,
        carried: impl Future<Output = Result<(), ServiceError>> + Send + 'static,
    ) {
        let service = self.service.clone();
        let piece = tasks.track_future(async move {
            match AssertUnwindSafe(carried).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(request_id = %id, %error, "result of a delivery not stored, will be retried");
                }
                // The claim lapses, and the delivery is tried again.
                Err(_) => note_panic("a delivery"),
            }
            service.notice_queue.bell.notify_one();
        });
        self.spawner.spawn(Box::pin(piece));
    }

    /// Delivers the notices of one request in order, until one is not received.
    async fn deliver_all_of(
        &self,
        id: RequestId,
        stop: &CancellationToken,
    ) -> Result<(), ServiceError> {
        loop {
            let (now, claim) = self.claim();
            let store = self.service.store();
            let claimed = store.claim_notice(id, now, claim.lease, claim.until);
            let Some(one) = claimed.await? else {
                return Ok(());
            };
            if self.deliver(&one, claim, stop).await? == Left::Nothing {
                return Ok(());
            }
        }
    }

    async fn claim_due(
        &self,
        limit: usize,
    ) -> Result<(DeliveryLease, Due<ClaimedNotice>), ServiceError> {
        let (now, claim) = self.claim();
        let store = self.service.store();
        let claimed = store.claim_notices(now, claim.lease, claim.until, limit);
        Ok((claim, claimed.await?))
    }

    /// The lease of a claim that is written now; its deadline counts from before the write.
    fn claim(&self) -> (Timestamp, DeliveryLease) {
        let clock = self.service.clock();
        let (now, lease) = (clock.now(), LeaseToken(clock.draw()));
        let claim = DeliveryLease {
            lease,
            until: now + LEASE,
            deadline: clock.uptime() + DELIVERY_BOUND,
        };
        (now, claim)
    }

    async fn deliver(
        &self,
        claimed: &ClaimedNotice,
        claim: DeliveryLease,
        stop: &CancellationToken,
    ) -> Result<Left, ServiceError> {
        let (clock, notice) = (self.service.clock(), &claimed.notice);
        let place = NoticePlace {
            request_id: notice.request_id,
            seq: notice.seq,
        };
        let tried = tokio::select! {
            biased;
            tried = self.try_all(claimed, claim) => Some(tried),
            () = stop.cancelled() => None,
        };
        let now = clock.now();
        let settled = match tried {
            None => Settled::Released,
            Some(Tried { why: None, notices }) if notices.len() == 1 => Settled::Delivered,
            // All have the first, and the next attempt delivers it, at once.
            Some(Tried {
                why: None,
                notices: tried,
            }) => {
                let again = Settled::TryAgain { at: now, tried };
                let store = self.service.store();
                store.settle_notice(place, claim.lease, again).await?;
                return Ok(Left::More);
            }
            Some(Tried { why: Some(why), .. }) if self.is_over(notice) => {
                self.park(place, &why).await?;
                return Ok(Left::More);
            }
            Some(Tried {
                why: Some(why),
                notices: tried,
            }) => {
                let at = now + pause(notice.request_id, claimed.attempts);
                tracing::warn!(request_id = %notice.request_id, %why, again = %at, "notice not received");
                self.service.notice_queue.try_again(at);
                Settled::TryAgain { at, tried }
            }
        };
        let store = self.service.store();
        Ok(store.settle_notice(place, claim.lease, settled).await?)
    }

    /// Delivers the notice to all receivers at once. If one fails, those that have it get the
    /// later notices too, so that they do not wait for it. N1: a receiver that had it before this
    /// attempt gets them beside the others, which may use all the time of the attempt.
    async fn try_all(&self, claimed: &ClaimedNotice, claim: DeliveryLease) -> Tried {
        let mut notices = vec![claimed.notice.clone()];
        let had_it = &claimed.notice.received_by;
        let (mut ahead, late): (Vec<_>, Vec<_>) = self
            .receivers
            .iter()
            .partition(|receiver| had_it.contains(&receiver.name()));
        if late.is_empty() || self.is_over(&claimed.notice) {
            ahead.clear();
        }
        let first = late.iter();
        let first = first.map(|one| self.give(one.as_ref(), &claimed.notice, claim));
        let early = self.all_catch_up(ahead, claimed, claim);
        let (mut walks, given) = tokio::join!(early, join_all(first));
        let (mut now_ahead, mut why) = (Vec::new(), None);
        for (receiver, given) in late.into_iter().zip(given) {
            match given {
                Ok(()) => {
                    notices[0].received_by.insert(receiver.name());
                    now_ahead.push(receiver);
                }
                Err(not_received) => why = why.or(Some(not_received)),
            }
        }
        if why.is_some() && !self.is_over(&claimed.notice) {
            walks.extend(self.all_catch_up(now_ahead, claimed, claim).await);
        }
        // Without a failure, the later notices are stored only if a receiver got one of them.
        if why.is_none() {
            walks.retain(|walk| walk.given > 0);
        }
        notices.extend(claimed.behind.iter().cloned());
        let reached = walks.iter().map(|walk| walk.tried).min();
        // No receiver can get a later notice if none has the first.
        let reached = reached.unwrap_or(match why {
            Some(_) => claimed.behind.len(),
            None => 0,
        });
        for walk in &walks {
            for notice in notices.iter_mut().skip(1).take(walk.given) {
                notice.received_by.insert(walk.receiver);
            }
        }
        notices.truncate(1 + reached);
        Tried { notices, why }
    }

    async fn all_catch_up(
        &self,
        receivers: Vec<&Arc<dyn Receiver>>,
        claimed: &ClaimedNotice,
        claim: DeliveryLease,
    ) -> Vec<Walk> {
        let walks = receivers.into_iter();
        let walks = walks.map(|one| self.catch_up(one.as_ref(), &claimed.behind, claim));
        join_all(walks).await
    }

    /// Gives these notices to one receiver in order, until it fails or time is short.
    async fn catch_up(
        &self,
        receiver: &dyn Receiver,
        behind: &[Notice],
        claim: DeliveryLease,
    ) -> Walk {
        let clock = self.service.clock();
        let mut walk = Walk {
            receiver: receiver.name(),
            given: 0,
            tried: 0,
        };
        for notice in behind {
            if claim.deadline - clock.uptime() < REST {
                return walk;
            }
            if let Err(why) = self.give(receiver, notice, claim).await {
                tracing::warn!(request_id = %notice.request_id, %why, "later notice not received");
                walk.tried = behind.len();
                return walk;
            }
            walk.given += 1;
            walk.tried += 1;
        }
        walk
    }

    /// Gives a notice to one receiver, unless it has it.
    async fn give(
        &self,
        receiver: &dyn Receiver,
        notice: &Notice,
        claim: DeliveryLease,
    ) -> Result<(), NotReceived> {
        if notice.received_by.contains(&receiver.name()) {
            return Ok(());
        }
        let clock = self.service.clock();
        // K6: a panic of one receiver is a failure of this receiver only.
        let received = AssertUnwindSafe(receiver.receive(notice, clock.now())).catch_unwind();
        tokio::select! {
            biased;
            received = received => received.unwrap_or_else(|_| {
                note_panic("a delivery");
                Err(NotReceived("the delivery panicked".into()))
            }),
            () = clock.sleep_until(claim.deadline) => Err(too_slow()),
        }
    }

    fn is_over(&self, notice: &Notice) -> bool {
        self.service.clock().now() - notice.created_at >= GIVE_UP_AFTER
    }

    async fn park(&self, place: NoticePlace, why: &NotReceived) -> Result<(), ServiceError> {
        tracing::error!(request_id = %place.request_id, %why, "notice parked, not received for a day");
        let command = Command::NoticeParked {
            seq: place.seq,
            why: Text::clip(&why.0),
        };
        self.service.handle(place.request_id, command, None).await?;
        Ok(())
    }
}

/// Notices of one request after an attempt, with the receivers that have each, and why one of
/// the receivers does not have the first.
struct Tried {
    notices: Vec<Notice>,
    why: Option<NotReceived>,
}

/// How far one receiver came with later notices.
struct Walk {
    receiver: ReceiverName,
    given: usize,
    tried: usize,
}

fn too_slow() -> NotReceived {
    let seconds = DELIVERY_BOUND.0 / 1000;
    NotReceived(format!("not received within {seconds} seconds"))
}

/// Doubling from one second to five minutes.
fn pause(id: RequestId, attempts: u32) -> Millis {
    id.spread(
        attempts,
        Millis(FIRST_PAUSE.0 << attempts.min(20)).min(LONGEST_PAUSE),
    )
}
