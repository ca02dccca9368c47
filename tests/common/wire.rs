//! An HTTP server for tests, which answers a call or closes its connection.
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Closes the connection without an answer.
#[derive(Debug)]
pub struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up")
    }
}

impl std::error::Error for Hangup {}

pub async fn serve<A>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>) -> A + Clone + Send + 'static,
) where
    A: Future<Output = Result<Response<Body>, Hangup>> + Send + 'static,
{
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let service = service_fn(answer.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new();
            // Either side may close the connection.
            connection
                .serve_connection(TokioIo::new(socket), service)
                .await
                .ok();
        });
    }
}
