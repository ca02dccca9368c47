//! The HTTP API: reads and verifies a call, passes it to the service, and answers in JSON.
//!
//! This module makes no decisions about requests. `ROUTES` lists every route, and the tests
//! check that the router has exactly these.

pub mod address_book;
pub mod already;
mod answered;
pub mod body;
mod config;
pub mod connections;
pub mod keyring;
pub mod limits;
mod list;
pub mod listen;
mod ops;
mod pages;
pub mod rates;
pub mod reply;
mod requests;
pub mod signed;
mod spent;
mod stream;
#[cfg(test)]
mod test_state;
mod uncut;
pub mod unsigned;
pub mod wire;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Uptime;
use crate::code::Code;
use crate::config::Scope;
use crate::domain::{Command, RequestId, Timestamp};
use crate::service::{CallRight, Handled, Service, ServiceError};
use crate::worker::Worker;
use address_book::AddressBook;
use answered::AnswerLayer;
use keyring::Keyring;
use limits::{BodyPools, Seat, Seats};
use rates::KeyRates;
use reply::Problem;
use signed::{Needs, Signed};
use spent::spend;
use uncut::Uncut;

/// The state that all handlers share.
pub struct HttpState {
    pub service: Arc<Service>,
    pub keyring: Arc<Keyring>,
    /// `None` if the process does not answer `/metrics`.
    pub metrics: Option<PrometheusHandle>,
    /// Cancelled when the process is asked to stop. A revoke that waits for AWS then answers
    /// early.
    pub stop: CancellationToken,
    /// The work of calls whose connections have closed, and other work beside a call.
    pub tasks: TaskTracker,
    /// The time of the last copy into this store. A call that was signed before it may already
    /// have been accepted on the original store.
    pub signed_after: Option<Timestamp>,
    /// The worker of this process. `/readyz` fails when its loop makes no progress.
    pub worker: Option<Worker>,
    pub seats: Seats,
    pub bodies: BodyPools,
    pub rates: Arc<KeyRates>,
    /// `None` if no chat is configured.
    pub address_book: Option<Arc<dyn AddressBook>>,
    store_check: ops::StoreCheck,
    tally: ops::CallCounters,
}

/// The moment by which a call must be answered, because its caller or Lambda does not wait
/// longer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBy(pub Uptime);

/// The work of a call, in a box: a future of some kilobytes is not copied from task to task.
type CallWork<T> = BoxFuture<'static, Result<T, ServiceError>>;

/// One route, and the authentication that it requires.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub takes: Takes,
}

/// The authentication that a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A signature by a key that has this scope.
    Signature(Scope),
    /// The token of Mattermost's command.
    CommandToken,
    /// A seal that jit made for this button or dialog; a click also needs Mattermost's
    /// signature.
    Seal,
    /// The token `server.metrics_token`. On the address `server.metrics_listen` the route needs no
    /// authentication.
    MetricsToken,
    /// No authentication.
    Nothing,
}

impl Route {
    /// The scope that the key of the signature needs, if the route takes a signature.
    pub fn scope(&self) -> Option<Scope> {
        match self.takes {
            Takes::Signature(scope) => Some(scope),
            Takes::CommandToken | Takes::Seal | Takes::MetricsToken | Takes::Nothing => None,
        }
    }
}

const fn signed(method: &'static str, path: &'static str, scope: Scope) -> Route {
    let takes = Takes::Signature(scope);
    Route {
        method,
        path,
        takes,
    }
}

const fn open(path: &'static str) -> Route {
    Route {
        method: "GET",
        path,
        takes: Takes::Nothing,
    }
}

const fn sealed(path: &'static str) -> Route {
    Route {
        method: "POST",
        path,
        takes: Takes::Seal,
    }
}

pub const ROUTES: [Route; 19] = [
    signed("POST", "/requests", Scope::Request),
    signed("GET", "/requests", Scope::Read),
    signed("GET", "/requests/{id}", Scope::Read),
    signed("GET", "/requests/{id}/audit", Scope::Read),
    signed("POST", "/requests/{id}/approve", Scope::Approve),
    signed("POST", "/requests/{id}/deny", Scope::Approve),
    signed("POST", "/requests/{id}/revoke", Scope::Revoke),
    signed("POST", "/requests/{id}/cancel", Scope::Request),
    signed("POST", "/requests/{id}/extend", Scope::Request),
    signed("POST", "/config/bind", Scope::Config),
    signed("POST", "/config/unbind", Scope::Config),
    signed("POST", "/config/approvers", Scope::Config),
    signed("GET", "/config/accounts", Scope::Read),
    open("/healthz"),
    open("/readyz"),
    Route {
        method: "GET",
        path: "/metrics",
        takes: Takes::MetricsToken,
    },
    Route {
        method: "POST",
        path: "/mattermost/command",
        takes: Takes::CommandToken,
    },
    sealed("/mattermost/action"),
    sealed("/mattermost/dialog"),
];

impl HttpState {
    pub fn new(
        service: Arc<Service>,
        keyring: Arc<Keyring>,
        metrics: Option<PrometheusHandle>,
        stop: CancellationToken,
    ) -> Self {
        ops::describe();
        Self {
            service,
            keyring,
            metrics,
            stop,
            tasks: TaskTracker::new(),
            signed_after: None,
            worker: None,
            seats: Seats::default(),
            bodies: BodyPools::default(),
            rates: Arc::default(),
            address_book: None,
            store_check: ops::StoreCheck::default(),
            tally: ops::CallCounters::default(),
        }
    }

    /// Applies one command to one request.
    async fn command<N: Needs>(
        &self,
        call: &Signed<N>,
        id: RequestId,
        command: Command,
        right: Arc<CallRight>,
    ) -> Result<Handled, Problem> {
        let (service, given) = (self.service.clone(), right.clone());
        let handled = async move { service.handle(id, command, Some(&given)).await };
        self.spending(call, right, Box::pin(handled)).await
    }

    /// Runs the work of a call to its end, and then spends its nonce, even if the connection closes:
    /// otherwise a commit could be written without its work reaching the worker.
    async fn spending<N: Needs, T: Send + 'static>(
        &self,
        call: &Signed<N>,
        right: Arc<CallRight>,
        work: CallWork<T>,
    ) -> Result<T, Problem> {
        let (service, rates) = (self.service.clone(), self.rates.clone());
        let spent = async move {
            // Work that panics spends the nonce too.
            let done = AssertUnwindSafe(work).catch_unwind().await;
            spend(&service, &rates, N::RATE, &right).await?;
            done.unwrap_or_else(|panic| resume_unwind(panic))
        };
        self.uncut(call.seat(), Box::pin(spent)).await
    }

    /// Runs `work` to its end, even if the connection closes. The seat of the call is free when the
    /// work has ended.
    async fn uncut<T: Send + 'static>(
        &self,
        seat: Arc<Seat>,
        work: CallWork<T>,
    ) -> Result<T, Problem> {
        let seated = async move {
            let done = work.await;
            drop(seat);
            done
        };
        Ok(Uncut::new(Box::pin(seated), &self.tasks).await?)
    }
}

/// Builds the router. `others` are routes of other modules, which get the same layers.
pub fn router(app: Arc<HttpState>, others: Router) -> Router {
    Router::new()
        .route("/requests", get(requests::list).post(requests::create))
        .route("/requests/{id}", get(requests::show))
        .route("/requests/{id}/audit", get(requests::audit))
        .route("/requests/{id}/approve", post(requests::approve))
        .route("/requests/{id}/deny", post(requests::deny))
        .route("/requests/{id}/revoke", post(requests::revoke))
        .route("/requests/{id}/cancel", post(requests::cancel))
        .route("/requests/{id}/extend", post(requests::extend))
        .route("/config/bind", post(config::bind))
        .route("/config/unbind", post(config::unbind))
        .route("/config/approvers", post(config::approvers))
        .route("/config/accounts", get(config::accounts))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .with_state(app.clone())
        .merge(others)
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .route_layer(AnswerLayer::new(app))
}

/// Builds the router of `server.metrics_listen`, which answers only `/metrics`.
pub fn metrics_router(app: Arc<HttpState>) -> Router {
    Router::new()
        .route("/metrics", get(ops::open_metrics))
        .with_state(app)
}

async fn no_such_route(request: Request) -> Problem {
    let message = format!(
        "there is no route {}; see docs/api.md",
        request.uri().path()
    );
    Problem::new(Code::NoSuchRoute, message)
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!(
        "this route does not accept {}; see docs/api.md",
        request.method()
    );
    Problem::new(Code::WrongMethod, message)
}

fn failed_call() -> Problem {
    let message = "jit failed to process this call; its log names the cause";
    Problem::new(Code::Internal, message)
}
