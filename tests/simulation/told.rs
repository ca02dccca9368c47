//! N1: the receivers are independent. A notice reaches a receiver that works within a bound,
//! whatever the other receiver does.

use std::collections::BTreeMap;

use jit::domain::{Millis, RequestId, Timestamp};

use crate::memory::Tables;
use crate::plan::{Fault, Plan};
use crate::watch::Scene;

/// Without faults besides the other receiver: some claims of dead processes, and the time limits
/// of some deliveries in a row.
const TOLD_WITHIN: Millis = Millis::minutes(5);
/// A failure is followed by a pause of up to five minutes.
const WITH_FAILURES: Millis = Millis::minutes(25);
/// A wrong clock may have written the end of a claim or of a pause.
const WITH_WRONG_CLOCKS: Millis = Millis::minutes(15);

pub struct Told {
    /// When each notice that waits was first seen.
    since: BTreeMap<(RequestId, u64), Timestamp>,
    within: Millis,
}

impl Told {
    pub fn new(plan: &Plan) -> Self {
        let has_failures = plan.storm > 0
            || [Fault::Panic, Fault::LateStore, Fault::Disk]
                .iter()
                .any(|fault| plan.has(*fault));
        let mut within = TOLD_WITHIN;
        for (applies, longer) in [
            (has_failures, WITH_FAILURES),
            (plan.has(Fault::Clocks), WITH_WRONG_CLOCKS),
        ] {
            if applies {
                within = Millis(within.0 + longer.0);
            }
        }
        let since = BTreeMap::new();
        Self { since, within }
    }

    /// `quiet_since`: since when a process runs undisturbed, if one does.
    pub fn look(
        &mut self,
        tables: &Tables,
        scene: &Scene<'_>,
        quiet_since: Option<Timestamp>,
    ) -> Result<(), String> {
        let before = std::mem::take(&mut self.since);
        for notice in tables.pending_notices() {
            let place = (notice.request_id, notice.seq);
            let since = before.get(&place).copied().unwrap_or(scene.now);
            self.since.insert(place, since);
            let Some(quiet_since) = quiet_since else {
                continue;
            };
            let since = since.max(quiet_since);
            let works = |name| scene.faults.deafness(name).is_none();
            let lacks = scene
                .heard
                .iter()
                .find(|(name, heard)| works(**name) && !heard.has(notice));
            if let Some((name, _)) = lacks
                && scene.now - since > self.within
            {
                let (id, seq) = place;
                return Err(format!(
                    "N1: {name:?} works, and has not got notice {seq} of {id} since {since}"
                ));
            }
        }
        Ok(())
    }
}
