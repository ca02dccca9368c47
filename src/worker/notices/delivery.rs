//! One delivery: the claimed notice of a request goes to all receivers at once. While a receiver
//! is slow or fails, the receivers that have the notice get the later ones of the request.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::paused::PausedReceivers;
use super::{DELIVERY_BOUND, DeliveryLease, NotReceived, Receiver};
use crate::domain::{Millis, Notice, ReceiverName, RequestId};
use crate::lock::locked;
use crate::service::Service;
use crate::worker::note_panic;

/// A receiver that waits for a slower one searches this often for notices that another process
/// wrote.
const SEARCH_EVERY: Millis = Millis::seconds(1);

pub(super) struct Delivery<'a> {
    service: &'a Service,
    receivers: Receivers<'a>,
    claim: DeliveryLease,
    may_go_ahead: GoAhead,
    /// Notified when the request has a new notice.
    more: Arc<Notify>,
    /// Notified when a receiver has a notice or fails, and when more notices are known.
    changed: Notify,
    known: Mutex<KnownNotices>,
}

#[derive(Clone, Copy)]
pub(super) struct Receivers<'a> {
    pub all: &'a [Arc<dyn Receiver>],
    pub paused: &'a PausedReceivers,
}

/// Whether receivers that have the claimed notice may get later ones before all have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoAhead {
    Yes,
    /// jit gives the claimed notice up if this attempt fails.
    No,
}

/// The notices of a request that its delivery knows, and their receivers.
struct KnownNotices {
    /// The claimed notice and later ones, in order.
    notices: Vec<Notice>,
    /// Whether the later ones were read from the store.
    has_searched: bool,
    failed: BTreeSet<ReceiverName>,
    /// The first receiver that does not have the claimed notice, and why.
    not_received: Option<(ReceiverName, NotReceived)>,
}

/// The next step of a receiver.
enum Next {
    Get(Notice),
    /// Searches for later notices.
    Search,
    /// Waits for a later notice, or until the other receivers have the claimed one.
    Wait,
    End,
}

/// The result of a delivery.
pub(super) struct DeliveryResult {
    /// The claimed notice and those later ones that no receiver left out.
    pub notices: Vec<Notice>,
    /// The first receiver that does not have the claimed notice, and why.
    pub not_received: Option<(ReceiverName, NotReceived)>,
}

impl<'a> Delivery<'a> {
    pub fn new(
        service: &'a Service,
        receivers: Receivers<'a>,
        claimed: Notice,
        claim: DeliveryLease,
        may_go_ahead: GoAhead,
        more: Arc<Notify>,
    ) -> Self {
        let known = KnownNotices {
            notices: vec![claimed],
            has_searched: false,
            failed: BTreeSet::new(),
            not_received: None,
        };
        Self {
            service,
            receivers,
            claim,
            may_go_ahead,
            more,
            changed: Notify::new(),
            known: Mutex::new(known),
        }
    }

    /// Ends when each receiver has the claimed notice or has failed.
    pub async fn run(&self) {
        let all = self.receivers.all.iter();
        join_all(all.map(|one| self.walk(one.as_ref()))).await;
        if self.has_left_out_later() {
            self.search().await;
        }
    }

    /// Whether the later notices are unknown although the claimed one was not received. They wait
    /// for it, so they count as tried: otherwise the next attempt would follow without a pause.
    fn has_left_out_later(&self) -> bool {
        let known = self.known();
        known.not_received.is_some() && !known.has_searched
    }

    /// The result so far.
    pub fn result(&self) -> DeliveryResult {
        let known = self.known();
        let was_tried = |notice: &&Notice| {
            let mut all = self.receivers.all.iter().map(|one| one.name());
            all.all(|name| notice.received_by.contains(&name) || known.failed.contains(&name))
        };
        let (claimed, later) = known.notices.split_at(1);
        let later = later.iter().take_while(was_tried);
        DeliveryResult {
            notices: claimed.iter().chain(later).cloned().collect(),
            not_received: known.not_received.clone(),
        }
    }

    /// The notices that receivers or people have, of those that wait for others.
    pub fn begun(&self) -> Vec<Notice> {
        let known = self.known();
        let notices = known.notices.iter();
        let begun = notices.filter(|one| !one.received_by.is_empty() || !one.told.is_empty());
        begun.cloned().collect()
    }

    /// Gives the notices to one receiver in order, until it fails.
    async fn walk(&self, receiver: &dyn Receiver) {
        loop {
            let changed = self.changed.notified();
            match self.next(receiver) {
                Next::Get(notice) => match self.give(receiver, &notice).await {
                    Ok(()) => self.note_received(&notice, receiver.name()),
                    Err(why) => return self.note_failed(&notice, receiver.name(), why),
                },
                Next::Search => self.search().await,
                Next::Wait => {
                    let search_again = self.service.clock().sleep(SEARCH_EVERY);
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = self.more.notified() => self.search().await,
                        () = search_again => self.search().await,
                    }
                }
                Next::End => return,
            }
        }
    }

    fn next(&self, receiver: &dyn Receiver) -> Next {
        let known = self.known();
        let has = |notice: &Notice, name| notice.received_by.contains(&name);
        let Some((claimed, later)) = known.notices.split_first() else {
            return Next::End;
        };
        if !has(claimed, receiver.name()) {
            return Next::Get(claimed.clone());
        }
        let mut names = self.receivers.all.iter().map(|one| one.name());
        let all_have_it = names.clone().all(|name| has(claimed, name));
        let left = self.claim.deadline - self.service.clock().uptime();
        if all_have_it || self.may_go_ahead == GoAhead::No || left < receiver.timeout() {
            return Next::End;
        }
        if let Some(notice) = later.iter().find(|one| !has(one, receiver.name())) {
            return Next::Get(notice.clone());
        }
        let is_slow = |name| !has(claimed, name) && !known.failed.contains(&name);
        match (names.any(is_slow), known.has_searched) {
            (true, _) => Next::Wait,
            (false, false) => Next::Search,
            (false, true) => Next::End,
        }
    }

    /// Reads the later notices that this delivery does not know.
    async fn search(&self) {
        let Some(id) = self.id() else { return };
        let found = self.service.store().undelivered(id).await;
        let mut known = self.known();
        known.has_searched = true;
        match found {
            Ok(found) => {
                let last = known.notices.last().map_or(0, |notice| notice.seq);
                let new = found.into_iter().filter(|notice| notice.seq > last);
                known.notices.extend(new);
            }
            Err(error) => {
                tracing::warn!(request_id = %id, %error, "later notices not read, will be retried");
            }
        }
        self.changed.notify_waiters();
    }

    fn id(&self) -> Option<RequestId> {
        self.known().notices.first().map(|notice| notice.request_id)
    }

    async fn give(&self, receiver: &dyn Receiver, notice: &Notice) -> Result<(), NotReceived> {
        let (clock, paused) = (self.service.clock(), self.receivers.paused);
        let (name, begun) = (receiver.name(), clock.uptime());
        paused.check(name, receiver.timeout(), begun)?;
        // K6: a panic of one receiver is a failure of this receiver only.
        let received = AssertUnwindSafe(receiver.receive(notice, clock.now())).catch_unwind();
        let received = tokio::select! {
            biased;
            received = received => received.unwrap_or_else(|_| {
                note_panic("delivery");
                Err(NotReceived::because("the delivery panicked"))
            }),
            () = clock.sleep_until(self.claim.deadline) => Err(too_slow()),
        };
        let now = clock.uptime();
        paused.note(name, received.is_ok(), now - begun, now);
        received
    }

    fn note_received(&self, notice: &Notice, receiver: ReceiverName) {
        self.change(notice, |there| there.note_received(receiver));
    }

    fn note_failed(&self, notice: &Notice, receiver: ReceiverName, not_received: NotReceived) {
        let is_claimed = self.known().notices.first().map(|one| one.seq) == Some(notice.seq);
        if !is_claimed {
            tracing::warn!(
                request_id = %notice.request_id, ?receiver, error = %not_received,
                "later notice not received, will be retried"
            );
        }
        self.known().failed.insert(receiver);
        self.change(notice, |there| there.told.extend(&not_received.told));
        if is_claimed {
            let mut known = self.known();
            known.not_received.get_or_insert((receiver, not_received));
        }
    }

    fn change(&self, notice: &Notice, change: impl FnOnce(&mut Notice)) {
        let mut known = self.known();
        let mut all = known.notices.iter_mut();
        if let Some(there) = all.find(|there| there.seq == notice.seq) {
            change(there);
        }
        self.changed.notify_waiters();
    }

    fn known(&self) -> MutexGuard<'_, KnownNotices> {
        locked(&self.known)
    }
}

fn too_slow() -> NotReceived {
    let seconds = DELIVERY_BOUND.0 / 1000;
    NotReceived::because(format!("not received within {seconds} seconds"))
}
