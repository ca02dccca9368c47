//! The layer around every call: a panic in a handler gives one caller a 500, the nonce of a verified
//! call is spent, and the call is counted.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use super::signed::RightCell;
use super::{HttpState, failed_call, ops};

#[derive(Clone)]
pub(super) struct AnswerLayer(Arc<HttpState>);

/// One route within the layer.
#[derive(Clone)]
pub(super) struct AnsweredRoute<S> {
    app: Arc<HttpState>,
    route: S,
}

impl AnswerLayer {
    pub fn new(app: Arc<HttpState>) -> Self {
        Self(app)
    }
}

impl<S> Layer<S> for AnswerLayer {
    type Service = AnsweredRoute<S>;

    fn layer(&self, route: S) -> AnsweredRoute<S> {
        let app = self.0.clone();
        AnsweredRoute { app, route }
    }
}

impl<S> Service<Request> for AnsweredRoute<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let (label, cell) = (ops::route_of(&request), RightCell::default());
        request.extensions_mut().insert(cell.clone());
        let (app, handled) = (self.app.clone(), self.route.call(request));
        Box::pin(async move {
            let handled = AssertUnwindSafe(handled).catch_unwind().await;
            let response = match handled {
                Ok(Ok(response)) => response,
                Err(_) => {
                    let (method, route) = label;
                    tracing::error!(
                        method,
                        route,
                        "a call panicked; its caller gets a 500; report the trace as a fault of jit"
                    );
                    failed_call().into_response()
                }
            };
            let response = match cell.spend(&app).await {
                Ok(()) => response,
                Err(problem) => problem.into_response(),
            };
            app.tally.count(label, response.status());
            Ok(response)
        })
    }
}
