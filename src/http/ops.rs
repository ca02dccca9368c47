//! The routes for monitoring: `/healthz`, `/readyz` and `/metrics`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::{Counter, counter, describe_counter, gauge};
use serde_json::json as object;
use tokio::sync::Mutex;

use super::reply::{Problem, json};
use super::unsigned::{self, Unsigned};
use super::{HttpState, ROUTES, Route};
use crate::clock::Uptime;
use crate::code::Code;
use crate::domain::Millis;
use crate::service::Service;
use crate::store::StoreError;
use crate::telemetry::{self, sampled};

/// The longest pass of the worker's loop that counts as progress. The loop searches for work every
/// few seconds, and may wait some seconds for the store.
const LONGEST_ROUND: Millis = Millis::minutes(1);

pub(super) async fn healthz() -> Response {
    json(200, &object!({"status": "ok"}))
}

pub(super) async fn readyz(State(app): State<Arc<HttpState>>) -> Result<Response, Problem> {
    if app.stop.is_cancelled() {
        return Err(Problem::new(Code::Unavailable, "jit is stopping"));
    }
    if let Some(worker) = &app.worker
        && let Some(since) = worker.last_round()
        && app.service.clock().uptime() - since > LONGEST_ROUND
    {
        let why = "the worker makes no progress, so this process grants and removes no access: \
                   restart it";
        return Err(Problem::new(Code::Unavailable, why));
    }
    app.store_check.read(&app.service).await?;
    Ok(json(200, &object!({"status": "ready"})))
}

/// The last check whether the store answers. Every caller can ask `/readyz` without a key, so all
/// callers of one second share one read of the store.
#[derive(Default)]
pub(super) struct StoreCheck {
    last: Mutex<Option<(Uptime, Result<(), StoreError>)>>,
}

impl StoreCheck {
    const COUNTS_FOR: Millis = Millis::seconds(1);

    async fn read(&self, service: &Service) -> Result<(), StoreError> {
        let uptime = || service.clock().uptime();
        self.within(uptime, service.check_store()).await
    }

    /// The callers that come during a read wait for its result.
    async fn within(
        &self,
        uptime: impl Fn() -> Uptime,
        read: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && uptime() - *at < Self::COUNTS_FOR
        {
            return found.clone();
        }
        let found = read.await;
        *last = Some((uptime(), found.clone()));
        found
    }
}

/// A4: metrics tell an attacker which keys exist and which signatures nearly fit.
pub(super) async fn metrics(
    State(app): State<Arc<HttpState>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let is_token = app.keyring.is_metrics_token(given.unwrap_or_default());
    match is_token.filter(|_| app.metrics.is_some()) {
        Some(true) => open_metrics(State(app)).await,
        Some(false) => Err(Problem::unsigned(Unsigned::MetricsToken, "/metrics")),
        None => Err(no_metrics()),
    }
}

fn no_metrics() -> Problem {
    let why = "/metrics is not answered here; see docs/operations.md";
    Problem::new(Code::NoSuchRoute, why)
}

pub(super) async fn open_metrics(State(app): State<Arc<HttpState>>) -> Result<Response, Problem> {
    let rendered = app.metrics.as_ref().ok_or_else(no_metrics)?;
    match app.service.gauges().await {
        Ok(gauges) => {
            telemetry::set(&gauges, app.service.clock().now());
            gauge!("jit_store_up").set(1.0);
        }
        Err(error) => {
            if let Some(unlogged) = sampled("store failure of /metrics") {
                tracing::error!(%error, unlogged, "the store did not answer; /metrics shows old figures");
            }
            gauge!("jit_store_up").set(0.0);
        }
    }
    let text = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((text, rendered.render()).into_response())
}

/// Registers the metrics at the start, so that an alarm finds every series.
pub(super) fn describe() {
    describe_counter!(
        "jit_http_requests_total",
        "HTTP calls by method, route and status"
    );
    unsigned::describe();
}

/// The method and the pattern of a route. Text from the caller never becomes a label.
type RouteLabel = (&'static str, &'static str);

pub(super) fn route_of(request: &Request) -> RouteLabel {
    let pattern = request.extensions().get::<MatchedPath>();
    let pattern = pattern.map_or("", MatchedPath::as_str);
    let method = request.method().as_str();
    let known = |route: &&Route| route.path == pattern;
    let mut routes = ROUTES.iter().filter(known).peekable();
    let path = routes.peek().map_or("", |route| route.path);
    let same = routes.find(|route| route.method == method);
    (same.map_or("other", |route| route.method), path)
}

/// Counts calls by route and status. It looks up each series once, because a lookup with every
/// call is slow.
#[derive(Default)]
pub(super) struct CallCounters {
    series: RwLock<HashMap<(RouteLabel, StatusCode), Counter, foldhash::fast::RandomState>>,
}

impl CallCounters {
    pub fn count(&self, asked: RouteLabel, status: StatusCode) {
        let known = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = known.get(&(asked, status)) {
            return counter.increment(1);
        }
        drop(known);
        let (method, route) = asked;
        let counter = counter!(
            "jit_http_requests_total",
            "method" => method, "route" => route, "status" => status.as_str().to_owned()
        );
        counter.increment(1);
        let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
        known.insert((asked, status), counter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    // A1: `/readyz` is outside the limits, so its callers must not make the store work.
    #[tokio::test]
    async fn a1_the_callers_of_one_second_share_one_read_of_the_store() {
        let (check, reads) = (StoreCheck::default(), AtomicUsize::new(0));
        let read = async |at: i64| {
            let now = || Uptime(Millis(at));
            let found = async {
                reads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Err(StoreError::Unavailable("the disk is full".into()))
            };
            check.within(now, found).await
        };
        let all = futures_util::future::join_all((0..100).map(|_| read(5_000))).await;
        assert!(all.iter().all(Result::is_err), "a failure is shared too");
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert!(read(5_999).await.is_err());
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert!(read(6_000).await.is_err());
        assert_eq!(reads.load(Ordering::SeqCst), 2);
    }
}
