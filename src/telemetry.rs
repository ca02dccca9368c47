//! Logs and metrics.

mod cloud_watch;
mod line;
mod sample;

pub use cloud_watch::CloudWatch;
pub use sample::sampled;

use std::io::IsTerminal;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::domain::{Ending, Request, State, Timestamp};
use crate::store::Gauges;
use line::{JsonLine, TextLine, write_field};

const REVOKE_SECONDS: &str = "jit_revoke_duration_seconds";

/// The name and the description of each gauge.
const GAUGES: [(&str, &str); 10] = [
    ("jit_due_backlog", "Requests that a worker could claim now"),
    (
        "jit_oldest_due_seconds",
        "Time for which the request that is due longest has waited for a worker",
    ),
    (
        "jit_overdue_grants",
        "Grants past their end whose removal has not begun, and removals that are not finished after two minutes",
    ),
    (
        "jit_failing_removals",
        "Removals that failed at their last attempt",
    ),
    (
        "jit_stuck_requests",
        "Requests whose work at AWS has failed or not ended for five minutes",
    ),
    (
        "jit_live_grants",
        "Grants in force; on DynamoDB counted up to 1000",
    ),
    (
        "jit_oldest_undelivered_notice_seconds",
        "Age of the oldest notice that waits for delivery",
    ),
    (
        "jit_undelivered_notices",
        "Notices that wait for delivery; on DynamoDB of about 1000 requests at most",
    ),
    (
        "jit_parked_notices",
        "Notices given up, after one day or from a full outbox; on DynamoDB of about 1000 requests",
    ),
    ("jit_store_up", "1 if the store answered, else 0"),
];

/// The name and the description of each counter.
const COUNTERS: [(&str, &str); 6] = [
    (
        "jit_clock_jumps_total",
        "Changes of the wall clock and pauses of the process, by direction",
    ),
    (
        "jit_worker_panics_total",
        "Panics that the worker caught; each is a bug in jit",
    ),
    (
        "jit_unreadable_records_total",
        "Reads of unreadable records, events and notices, by kind",
    ),
    (
        "jit_store_calls_total",
        "Calls to DynamoDB by operation and outcome",
    ),
    (
        "jit_store_tenth_units_total",
        "Tenths of the capacity units that DynamoDB charges for, by kind",
    ),
    (
        "jit_aws_calls_total",
        "Calls to Identity Center by action and outcome",
    ),
];

/// Sends the log to stderr, so that stdout contains only the output that programs read.
pub fn log(format: LogFormat, level: Level) {
    // jit logs at the configured level; the libraries log only warnings and errors.
    let filter = Targets::new()
        .with_default(Level::WARN)
        .with_target("jit", level);
    let all = tracing_subscriber::registry().with(filter);
    match (format, std::io::stderr().is_terminal()) {
        (LogFormat::Text, true) => all.with(coloured(std::io::stderr)).init(),
        (LogFormat::Text, false) => {
            let stderr = || TextLine::new(std::io::stderr(), false);
            let lines = tracing_subscriber::fmt::layer().with_ansi(false);
            all.with(lines.with_writer(stderr)).init();
        }
        (LogFormat::Json, _) => {
            let stderr = || JsonLine::new(std::io::stderr());
            let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
            all.with(lines.with_writer(stderr)).init();
        }
    }
}

/// Lines of text for a terminal. The values contain no escape sequences: the colours have the only
/// ones.
fn coloured<S, M, W>(writer: M) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    M: Fn() -> W + Send + Sync + 'static,
    W: std::io::Write,
{
    let lines = move || TextLine::new(writer(), true);
    tracing_subscriber::fmt::layer()
        .with_ansi(true)
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .with_writer(lines)
}

/// Installs the recorder of the metrics, and describes each metric.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let buckets = [
        0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
    ];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(REVOKE_SECONDS.into()), &buckets)?
        .install_recorder()?;
    for (name, description) in GAUGES {
        describe_gauge!(name, description);
    }
    for (name, description) in COUNTERS {
        describe_counter!(name, description);
    }
    describe_histogram!(
        REVOKE_SECONDS,
        "Time from the acceptance of a revoke until AWS showed no assignment"
    );
    // The metric exists before the first panic, so that a query finds it.
    counter!("jit_worker_panics_total").increment(0);
    Ok(handle)
}

/// Sets the gauges that the store measured.
#[allow(clippy::cast_precision_loss)] // a graph needs no more precision
pub fn set(gauges: &Gauges, now: Timestamp) {
    let age = |oldest: Option<Timestamp>| {
        let millis = oldest.map_or(0, |oldest| (now - oldest).0.max(0));
        millis as f64 / 1000.0
    };
    gauge!("jit_due_backlog").set(gauges.backlog as f64);
    gauge!("jit_overdue_grants").set(gauges.overdue_grants as f64);
    gauge!("jit_failing_removals").set(gauges.failing_removals as f64);
    gauge!("jit_stuck_requests").set(gauges.stuck_requests as f64);
    gauge!("jit_live_grants").set(gauges.live_grants as f64);
    gauge!("jit_undelivered_notices").set(gauges.undelivered_notices as f64);
    gauge!("jit_oldest_undelivered_notice_seconds").set(age(gauges.oldest_undelivered));
    gauge!("jit_oldest_due_seconds").set(age(gauges.oldest_due));
    gauge!("jit_parked_notices").set(gauges.parked_notices as f64);
}

/// Records the duration of a revoke that just ended.
#[allow(clippy::cast_precision_loss)]
pub fn note_revoke(before: &State, after: &Request) {
    let State::Revoked { at, .. } = after.state else {
        return;
    };
    if let State::Removing {
        ending: Ending::Revoked { asked_at, .. },
    } = before
    {
        histogram!(REVOKE_SECONDS).record((at - *asked_at).0 as f64 / 1000.0);
    }
}

#[cfg(test)]
pub(crate) mod captured {
    //! The log of a test.

    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::DefaultGuard;
    use tracing_subscriber::layer::SubscriberExt;

    /// The log of this thread, without colours.
    #[derive(Clone, Default)]
    pub struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl CapturedLog {
        pub fn start() -> (Self, DefaultGuard) {
            let log = Self::default();
            let writer = log.clone();
            let lines = tracing_subscriber::fmt::layer().with_ansi(false);
            let all = tracing_subscriber::registry();
            let all = all.with(lines.with_writer(move || writer.clone()));
            (log, tracing::subscriber::set_default(all))
        }

        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for CapturedLog {
        fn write(&mut self, some: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use captured::CapturedLog;

    #[derive(Debug, thiserror::Error)]
    #[error("refused \u{1b}[2J\u{1b}]0;title\u{7}")]
    struct Hostile;

    /// A5: `%error` values are text from elsewhere.
    #[test]
    fn a5_a_value_cannot_send_escape_sequences_to_the_terminal() {
        let log = CapturedLog::default();
        let writer = log.clone();
        let all = tracing_subscriber::registry().with(coloured(move || writer.clone()));
        tracing::subscriber::with_default(all, || {
            let (error, path) = (Hostile, "/a\nb");
            tracing::warn!(%error, path, "a call \u{1b}[2J failed");
            let source: &(dyn std::error::Error + 'static) = &Hostile;
            tracing::warn!(source, "again");
        });
        let text = log.text();
        assert!(text.contains("\u{1b}[33m WARN\u{1b}[0m"), "{text:?}");
        assert!(text.contains("a call \\u{1b}[2J failed"), "{text:?}");
        assert!(
            !text.contains("\u{1b}[2J") && !text.contains('\u{7}'),
            "{text:?}"
        );
        assert!(!text.contains("\u{1b}]"), "{text:?}");
        assert_eq!(text.lines().count(), 2, "{text:?}");
    }
}
