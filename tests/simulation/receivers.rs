//! The two receivers of notices, the webhook and the cards in Mattermost, as one process reaches
//! them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jit::domain::{Millis, Notice, ReceiverName, RequestId, Timestamp};
use jit::worker::notices::{NotReceived, Receiver};

use crate::clock::ProcessClock;
use crate::faults::Faults;

pub const RECEIVERS: [ReceiverName; 2] = [ReceiverName::Webhook, ReceiverName::Mattermost];

/// How a receiver fails until the faults end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deafness {
    Refuses,
    /// It does not answer, and each call lasts as long as its own time limit.
    Hangs,
}

/// The longest call to a receiver, by its own time limit.
fn timeout(name: ReceiverName) -> Millis {
    match name {
        ReceiverName::Webhook => Millis::seconds(10),
        ReceiverName::Mattermost | ReceiverName::Messages => Millis::seconds(20),
    }
}

/// The notices that one receiver got from all processes.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<HeardNotices>>);

#[derive(Default)]
struct HeardNotices {
    in_order: Vec<Notice>,
    places: BTreeSet<(RequestId, u64)>,
}

impl Heard {
    fn hears(&self, notice: &Notice) {
        let mut heard = self.0.lock().unwrap();
        heard.places.insert((notice.request_id, notice.seq));
        heard.in_order.push(notice.clone());
    }

    pub fn has(&self, notice: &Notice) -> bool {
        let heard = self.0.lock().unwrap();
        heard.places.contains(&(notice.request_id, notice.seq))
    }

    pub fn notices(&self) -> Vec<Notice> {
        self.0.lock().unwrap().in_order.clone()
    }
}

/// A receiver that accepts notices, sometimes refuses one, and sometimes accepts one and reports a
/// failure.
#[derive(Clone)]
pub struct SimReceiver {
    pub name: ReceiverName,
    pub clock: ProcessClock,
    pub faults: Faults,
    pub heard: Heard,
}

#[async_trait]
impl Receiver for SimReceiver {
    fn name(&self) -> ReceiverName {
        self.name
    }

    fn timeout(&self) -> Millis {
        timeout(self.name)
    }

    async fn receive(&self, notice: &Notice, _now: Timestamp) -> Result<(), NotReceived> {
        let (time, faults) = (&self.clock.time, &self.faults);
        time.yield_here().await;
        faults.may_panic(time);
        match faults.deafness(self.name) {
            Some(Deafness::Refuses) => return Err(NotReceived::because("the receiver is down")),
            Some(Deafness::Hangs) => {
                let at = time.now() + timeout(self.name);
                self.clock.until_true(at).await;
                return Err(NotReceived::because("no answer"));
            }
            None => {}
        }
        if faults.strikes(time) || faults.strikes(time) {
            return Err(NotReceived::because("the receiver is down"));
        }
        // The receiver may take as long as its time limit allows.
        if faults.is_store_late() && time.chance(10) {
            let at = time.now() + time.span(timeout(self.name));
            self.clock.until_true(at).await;
        }
        self.heard.hears(notice);
        time.yield_here().await;
        if faults.strikes(time) {
            return Err(NotReceived::because("the answer was lost"));
        }
        Ok(())
    }
}
