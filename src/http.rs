//! The HTTP API: bytes in, a verified call to the one door, JSON out.
//!
//! Nothing is decided here. `ROUTES` is the whole surface; the tests walk it.

pub mod body;
mod config;
pub mod keyring;
mod list;
pub mod listen;
mod ops;
pub mod reply;
mod requests;
pub mod signed;
pub mod unsigned;
pub mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::clock::Uptime;
use crate::code::Code;
use crate::config::Scope;
use crate::domain::{Command, RequestId, Timestamp};
use crate::service::{Handled, Service, ServiceError, Ticket};
use crate::worker::Worker;
use keyring::Keyring;
use reply::Problem;

/// More than this at once, and a caller is asked to come back.
const MOST_AT_ONCE: usize = 1024;

pub struct HttpState {
    pub service: Arc<Service>,
    pub keyring: Arc<Keyring>,
    pub metrics: PrometheusHandle,
    /// Set when the process is asked to end: long answers are cut short.
    pub stop: CancellationToken,
    /// What must run to its end even if the caller hangs up.
    pub tasks: TaskTracker,
    /// What was signed before then may have been taken where this store was copied from.
    pub signed_after: Option<Timestamp>,
    /// Whose loop must go on for this process to be ready.
    pub worker: Option<Worker>,
    places: Semaphore,
    tally: ops::CallCounters,
}

/// Of a call whose caller, or whose machine, does not wait longer than that.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBy(pub Uptime);

/// One line of the surface: what is asked, and what it takes to be heard.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub takes: Takes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A signature by a key that has this scope.
    Signature(Scope),
    /// The token of Mattermost's command.
    CommandToken,
    /// A seal that jit made for it; a click, Mattermost's signature as well.
    Seal,
    Nothing,
}

impl Route {
    /// The scope that its signature takes, if it takes one.
    pub fn scope(&self) -> Option<Scope> {
        match self.takes {
            Takes::Signature(scope) => Some(scope),
            Takes::CommandToken | Takes::Seal | Takes::Nothing => None,
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
    open("/metrics"),
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
        metrics: PrometheusHandle,
        stop: CancellationToken,
    ) -> Self {
        ops::describe();
        let (tasks, places) = (TaskTracker::new(), Semaphore::new(MOST_AT_ONCE));
        Self {
            service,
            keyring,
            metrics,
            stop,
            tasks,
            signed_after: None,
            worker: None,
            places,
            tally: ops::CallCounters::default(),
        }
    }

    /// Says one thing to one request, to the end: a caller who hangs up in the middle
    /// must not leave a commit whose work nobody was told of.
    async fn handle(
        &self,
        id: RequestId,
        command: Command,
        ticket: Arc<Ticket>,
    ) -> Result<Handled, Problem> {
        let service = self.service.clone();
        self.uncut(async move { service.handle_once(id, command, Some(&ticket)).await })
            .await
    }

    /// To its end, also if the caller hangs up.
    async fn uncut<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> Result<T, Problem> {
        match self.tasks.spawn(work).await {
            Ok(done) => Ok(done?),
            Err(error) => {
                tracing::error!(%error, "a call was not carried out");
                Err(Problem::new(
                    Code::Internal,
                    "jit failed to carry this out; see its log",
                ))
            }
        }
    }
}

/// With routes that other rooms answer, under the same roof.
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
        .route_layer(
            ServiceBuilder::new()
                .layer(middleware::from_fn_with_state(app, seat))
                .layer(CatchPanicLayer::custom(|_| {
                    Problem::new(Code::Internal, "jit failed to carry this out; see its log")
                        .into_response()
                })),
        )
}

async fn no_such_route(request: Request) -> Problem {
    let message = format!("there is nothing at {}", request.uri().path());
    Problem::new(Code::NoSuchRoute, message)
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!("{} is not answered here", request.method());
    Problem::new(Code::WrongMethod, message)
}

/// Beyond what can be served well, an early no is kinder than a late one. Either is counted.
async fn seat(State(app): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let route = ops::route_of(&request);
    let response = match app.places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => Problem::new(
            Code::TooMany,
            "too many calls at once; try again in a moment",
        )
        .into_response(),
    };
    app.tally.count(route, response.status());
    response
}
