//! The `/metrics` of a process, by the same functions as the route: the counts of the service, and
//! the gauges that they set. They read the store past the faults of the world.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use jit::service::{Announce, Service};
use jit::telemetry;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::clock::ProcessClock;
use crate::fixtures::policy;
use crate::memory::MemoryStore;

pub struct Metrics {
    service: Service,
    recorder: PrometheusRecorder,
}

/// The values of one scrape, by name.
pub struct Scraped(BTreeMap<String, f64>);

impl Metrics {
    pub fn of(store: &MemoryStore, clock: &ProcessClock) -> Self {
        let (store, clock) = (Arc::new(store.clone()), Arc::new(clock.clone()));
        Self {
            service: Service::new(store, clock, policy(), Announce::Webhook),
            recorder: PrometheusBuilder::new().build_recorder(),
        }
    }

    pub fn scrape(&self) -> Scraped {
        let gauges = self.service.gauges().now_or_never();
        let gauges = gauges.expect("the store in memory answers at once");
        let now = self.service.clock().now();
        metrics::with_local_recorder(&self.recorder, || telemetry::set(&gauges.unwrap(), now));
        let text = self.recorder.handle().render();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Scraped(values.collect())
    }
}

impl Scraped {
    /// The metric shows at least this value.
    pub fn shows(&self, name: &str, least: f64) -> Result<(), String> {
        match self.0.get(name) {
            Some(shown) if *shown >= least => Ok(()),
            Some(shown) => Err(format!("not shown: {name} is {shown}, and not {least}")),
            None => Err(format!("not shown: {name} has no value")),
        }
    }
}
