//! Metrics for CloudWatch under Lambda, where no Prometheus can read /metrics. jit writes them
//! as lines on stdout, which CloudWatch turns into metrics: those that the alarms of
//! infra/template.yaml use, and the number of live grants.

use std::collections::BTreeMap;
use std::io::Write;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};

const NAMESPACE: &str = "jit";

/// The gauges that jit sends.
const GAUGES: [(&str, &str); 8] = [
    ("jit_overdue_grants", "Count"),
    ("jit_failing_removals", "Count"),
    ("jit_stuck_requests", "Count"),
    ("jit_oldest_due_seconds", "Seconds"),
    ("jit_oldest_undelivered_notice_seconds", "Seconds"),
    ("jit_parked_notices", "Count"),
    ("jit_live_grants", "Count"),
    ("jit_due_backlog", "Count"),
];

/// The counters that jit sends; it sends the increase since the last time.
const COUNTS: [(&str, &str); 1] = [("jit_signature_refusals_total", "Count")];

pub struct CloudWatch {
    function: String,
    /// The counters as they were at the last write.
    last_written: BTreeMap<&'static str, f64>,
}

impl CloudWatch {
    pub fn of(function: String) -> Self {
        let last_written = BTreeMap::new();
        Self {
            function,
            last_written,
        }
    }

    /// Sends the counters that increased.
    pub fn emit_counts(&mut self, metrics: &PrometheusHandle) {
        let figures = self.counted(&sums(&metrics.render()));
        if !figures.is_empty() {
            self.emit(figures);
        }
    }

    /// Sends all gauges and counters.
    pub fn emit_all(&mut self, metrics: &PrometheusHandle) {
        let text = metrics.render();
        let sums = sums(&text);
        let mut figures = self.counted(&sums);
        let gauges = GAUGES.into_iter();
        figures.extend(gauges.filter_map(|(name, unit)| Some((name, unit, *sums.get(name)?))));
        self.emit(figures);
    }

    fn counted(&mut self, sums: &BTreeMap<&str, f64>) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (name, unit) in COUNTS {
            let now = sums.get(name).copied().unwrap_or_default();
            let before = self.last_written.insert(name, now).unwrap_or_default();
            if now > before {
                figures.push((name, unit, now - before));
            }
        }
        figures
    }

    fn emit(&self, figures: Vec<Figure>) {
        let declared = figures
            .iter()
            .map(|(name, unit, _)| json!({"Name": name, "Unit": unit}));
        let mut line = json!({
            "_aws": {
                "Timestamp": SystemClock.now().millis(),
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["FunctionName"]],
                    "Metrics": declared.collect::<Vec<Value>>(),
                }],
            },
            "FunctionName": self.function,
        });
        for (name, _, value) in figures {
            line[name] = value.into();
        }
        if let Err(error) = writeln!(std::io::stdout(), "{line}") {
            tracing::error!(%error, "writing metrics to stdout failed; CloudWatch misses them");
        }
    }
}

type Figure = (&'static str, &'static str, f64);

/// Returns the sum of each metric over all its labels.
fn sums(text: &str) -> BTreeMap<&str, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or_default();
        if let Ok(value) = value.parse::<f64>() {
            *sums.entry(name).or_default() += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_metric_are_added_up() {
        let text = "# TYPE a counter\na{why=\"x y\"} 2\na{why=\"z\"} 1\n\nb 0.5\n";
        assert_eq!(sums(text), BTreeMap::from([("a", 3.0), ("b", 0.5)]));
    }

    #[test]
    fn only_the_increase_of_a_counter_is_sent() {
        let mut cloud_watch = CloudWatch::of("jit-api".into());
        let name = "jit_signature_refusals_total";
        let mut counted = |now: f64| cloud_watch.counted(&BTreeMap::from([(name, now)]));
        assert_eq!(counted(3.0), [(name, "Count", 3.0)]);
        assert_eq!(counted(3.0), []);
        assert_eq!(counted(4.0), [(name, "Count", 1.0)]);
    }
}
