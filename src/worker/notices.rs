//! The notice worker: it delivers each notice at least once to each receiver, and the notices of
//! one request in order.
//!
//! The store keeps the outbox, and with each notice which receivers have it. A slow or failing
//! receiver delays only its own notices, and no grant and no revoke.

mod delivery;
mod paused;

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::spawn::{OnRuntime, Spawn};
use super::{RunMode, note_panic};
use crate::clock::Uptime;
use crate::domain::{
    Command, LeaseToken, Millis, Notice, PersonMark, ReceiverName, RequestId, Text, Timestamp,
};
use crate::lock::locked;
use crate::service::{Service, ServiceError, WORKERS_SEARCH_EVERY};
use crate::store::{ClaimEnd, ClaimedNotice, Due, Left, NoticePlace};
use delivery::{Delivery, DeliveryResult, GoAhead, Receivers};
use paused::PausedReceivers;

/// The longest time of one delivery, from the claim of its notice. The receivers have shorter
/// time limits (asserted where each limit is defined).
pub const DELIVERY_BOUND: Millis = Millis::seconds(32);
/// The writes of the claim and the result take less than this, and clocks of replicas differ
/// by less.
const MARGIN: Millis = Millis::seconds(12);
/// For this long no other notice worker claims a notice that is being delivered.
const LEASE: Millis = Millis::seconds(45);
const _: () = assert!(DELIVERY_BOUND.0 + MARGIN.0 <= LEASE.0);
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
    /// The longest time of one `receive`.
    fn timeout(&self) -> Millis;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotReceived {
    pub why: String,
    /// The people who have their message of the notice, so that jit does not repeat it.
    pub told: BTreeSet<PersonMark>,
}

impl NotReceived {
    #[allow(clippy::needless_pass_by_value)] // map_err passes it by value
    pub fn because(why: impl ToString) -> Self {
        Self {
            why: why.to_string(),
            told: BTreeSet::new(),
        }
    }
}

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
    paused: Arc<PausedReceivers>,
    spawner: Arc<dyn Spawn>,
    under_way: Deliveries,
}

impl NoticeWorker {
    pub fn new(service: Arc<Service>, receivers: Vec<Arc<dyn Receiver>>) -> Self {
        Self {
            service,
            receivers: receivers.into(),
            paused: Arc::default(),
            spawner: Arc::new(OnRuntime),
            under_way: Deliveries::default(),
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
        let mut is_start = mode == RunMode::Forever;
        // K6: a panic ends only one round.
        loop {
            let ends_pauses = std::mem::take(&mut is_start);
            let rounds = async {
                if ends_pauses {
                    self.end_pauses().await;
                }
                self.make_rounds(mode, &tasks, stop, give_up).await;
            };
            if AssertUnwindSafe(rounds).catch_unwind().await.is_ok() {
                break;
            }
            note_panic("loop of the notice worker");
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
        let (mut next, mut search_at) = (None, clock.uptime());
        loop {
            let notified = self.service.notice_queue.bell.notified();
            self.start_own_notices(tasks, give_up);
            if let Some(at) = self.service.notice_queue.take_again_at() {
                next = next.into_iter().chain([at]).min();
                search_at = search_at.min(self.when_to_search(Some(at)));
            }
            if mode.searches() && clock.uptime() >= search_at {
                next = self.send_due(tasks, give_up).await;
                search_at = self.when_to_search(next);
            }
            let is_over = mode.is_over(next) || !matches!(mode, RunMode::UntilIdle(_));
            if give_up.is_cancelled() || stop.is_cancelled() && is_over && tasks.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = notified => {}
                () = clock.sleep_until(search_at), if mode.searches() => {}
                () = tasks.wait(), if !tasks.is_empty() => {}
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                () = give_up.cancelled() => {}
            }
        }
    }

    /// Due times go by the wall clock, which may be set meanwhile, so the wait has a limit.
    fn when_to_search(&self, next: Option<Timestamp>) -> Uptime {
        let clock = self.service.clock();
        let until_next = next.map_or(WORKERS_SEARCH_EVERY, |next| next - clock.now());
        clock.uptime() + until_next.clamp(Millis(0), WORKERS_SEARCH_EVERY)
    }

    fn start_own_notices(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        while tasks.len() < AT_ONCE
            && let Some(id) = self.service.notice_queue.take()
        {
            // The receivers that wait for a slower one get the new notice at once.
            if let Some(more) = locked(&self.under_way).get(&id) {
                more.notify_one();
            }
            let (notices, stop) = (self.clone(), stop.clone());
            self.start(
                tasks,
                id,
                async move { notices.deliver_all_of(id, &stop).await },
            );
        }
    }

    /// Searches for due notices and delivers them; returns when the next one is due.
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
                Err(_) => note_panic("delivery"),
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
        if claimed.parked > 0 {
            self.record_parked(claimed).await;
        }
        let place = NoticePlace {
            request_id: notice.request_id,
            seq: notice.seq,
        };
        let may_go_ahead = match is_over(notice, clock.now()) {
            true => GoAhead::No,
            false => GoAhead::Yes,
        };
        let under_way = UnderWay::begin(&self.under_way, place.request_id);
        let delivery = Delivery::new(
            &self.service,
            Receivers {
                all: &self.receivers,
                paused: &self.paused,
            },
            notice.clone(),
            claim,
            may_go_ahead,
            under_way.more.clone(),
        );
        let store = self.service.store();
        tokio::select! {
            biased;
            () = delivery.run() => {}
            () = stop.cancelled() => {
                let end = stopped(delivery.begun(), clock.now());
                store.end_claim(place, claim.lease, end).await?;
                return Ok(Left::Nothing);
            }
        }
        if may_go_ahead == GoAhead::No
            && let Some((receiver, why)) = delivery.result().not_received
        {
            self.park(place, receiver, &why).await?;
            return Ok(Left::More);
        }
        let end = self.end_of(claimed, &delivery);
        Ok(store.end_claim(place, claim.lease, end).await?)
    }

    /// The result of a delivery that has ended.
    fn end_of(&self, claimed: &ClaimedNotice, delivery: &Delivery<'_>) -> ClaimEnd {
        let notice = &claimed.notice;
        let DeliveryResult {
            not_received,
            notices,
        } = delivery.result();
        let Some((receiver, why)) = not_received else {
            let begun = delivery.begun().into_iter();
            let ahead = begun.filter(|later| later.seq != notice.seq).collect();
            return ClaimEnd::Delivered { ahead };
        };
        let at = self.service.clock().now() + pause(notice.request_id, claimed.attempts);
        tracing::warn!(
            request_id = %notice.request_id, ?receiver, error = %why, again = %at,
            "notice not received, will be retried"
        );
        self.service.notice_queue.try_again(at);
        ClaimEnd::TryAgain { at, tried: notices }
    }

    /// Records in the audit the notices that the store parked to make room, or because they are
    /// unreadable.
    async fn record_parked(&self, claimed: &ClaimedNotice) {
        let id = claimed.notice.request_id;
        let total = u32::try_from(claimed.parked).unwrap_or(u32::MAX);
        let recorded = async {
            let request = self.service.request(id).await?;
            if request.chat.parked_notices < total {
                let command = Command::NoticesParked { total };
                self.service.handle(id, command, None).await?;
            }
            Ok::<(), ServiceError>(())
        };
        if let Err(error) = recorded.await {
            tracing::error!(request_id = %id, %error, "parked notices not recorded in the audit, will be retried");
        }
    }

    async fn park(
        &self,
        place: NoticePlace,
        receiver: ReceiverName,
        why: &NotReceived,
    ) -> Result<(), ServiceError> {
        tracing::error!(
            request_id = %place.request_id, ?receiver, error = %why,
            "notice parked, not received for a day; tell the channel (runbooks/alarms.md)"
        );
        let command = Command::NoticeParked {
            seq: place.seq,
            why: Text::clip(&why.why),
        };
        self.service.handle(place.request_id, command, None).await?;
        Ok(())
    }
}

/// The deliveries of this process, by request.
type Deliveries = Arc<Mutex<HashMap<RequestId, Arc<Notify>>>>;

/// The entry of one delivery, until it ends or is dropped.
struct UnderWay<'a> {
    deliveries: &'a Deliveries,
    id: RequestId,
    /// Notified when the request has a new notice.
    more: Arc<Notify>,
}

impl<'a> UnderWay<'a> {
    fn begin(deliveries: &'a Deliveries, id: RequestId) -> Self {
        let more = Arc::new(Notify::new());
        locked(deliveries).insert(id, more.clone());
        Self {
            deliveries,
            id,
            more,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        locked(self.deliveries).remove(&self.id);
    }
}

/// The result of a delivery that was stopped: what receivers have is not repeated.
fn stopped(begun: Vec<Notice>, now: Timestamp) -> ClaimEnd {
    match begun.is_empty() {
        true => ClaimEnd::Released,
        false => ClaimEnd::TryAgain {
            at: now,
            tried: begun,
        },
    }
}

fn is_over(notice: &Notice, now: Timestamp) -> bool {
    now - notice.created_at >= GIVE_UP_AFTER
}

/// Doubling from one second to five minutes.
fn pause(id: RequestId, attempts: u32) -> Millis {
    id.spread(
        attempts,
        Millis(FIRST_PAUSE.0 << attempts.min(20)).min(LONGEST_PAUSE),
    )
}
