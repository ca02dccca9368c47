//! A client of Lambda's Runtime API: four calls over one connection to the local machine.
//!
//! jit does not use a library, because jit works between its answer and the call for the next
//! invocation, and the libraries ask for the next one at once.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::domain::Timestamp;

/// A little more than Lambda's limit for the size of an event.
const MOST_BYTES: usize = 7 * 1024 * 1024;

pub(super) struct Runtime {
    address: String,
    connection: Option<SendRequest<Body>>,
    tasks: TaskTracker,
}

pub(super) struct Invocation {
    pub id: String,
    pub deadline: Timestamp,
    pub event: Bytes,
}

#[derive(Debug, thiserror::Error)]
#[error("Lambda's Runtime API at {address} {why}")]
pub struct RuntimeError {
    address: String,
    why: String,
}

impl Runtime {
    pub fn at(address: String) -> Self {
        Self {
            address,
            connection: None,
            tasks: TaskTracker::new(),
        }
    }

    /// Waits for the next invocation, without a timeout.
    pub async fn next(&mut self) -> Result<Invocation, RuntimeError> {
        let asked = self
            .send(Method::GET, "invocation/next", Body::empty())
            .await?;
        let header = |name: &str| {
            let value = asked.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let (id, deadline) = match (
            header("lambda-runtime-aws-request-id"),
            header("lambda-runtime-deadline-ms").and_then(|millis| millis.parse().ok()),
        ) {
            (Some(id), Some(deadline)) => (id, Timestamp::from_millis(deadline)),
            _ => return Err(self.wrong("sent an invocation without an id or a deadline")),
        };
        let event = axum::body::to_bytes(Body::new(asked.into_body()), MOST_BYTES).await;
        let event = event.map_err(|why| self.wrong(why))?;
        Ok(Invocation {
            id,
            deadline,
            event,
        })
    }

    pub async fn answer(&mut self, id: &str, answer: &Value) -> Result<(), RuntimeError> {
        self.post(&format!("invocation/{id}/response"), answer)
            .await
    }

    /// Reports that an invocation failed, so that its sender may repeat it.
    pub async fn fail(&mut self, id: &str, why: &str) -> Result<(), RuntimeError> {
        self.post(&format!("invocation/{id}/error"), &failure(why))
            .await
    }

    /// Reports that this process cannot start.
    pub async fn cannot_start(&mut self, why: &str) -> Result<(), RuntimeError> {
        self.post("init/error", &failure(why)).await
    }

    async fn post(&mut self, path: &str, what: &Value) -> Result<(), RuntimeError> {
        let body = Body::from(what.to_string());
        let said = self.send(Method::POST, path, body).await?;
        // The body must be read to its end before the connection can be used again.
        let heard = axum::body::to_bytes(Body::new(said.into_body()), MOST_BYTES).await;
        heard.map(drop).map_err(|why| self.wrong(why))
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, RuntimeError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("/2018-06-01/runtime/{path}"))
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|why| self.wrong(why))?;
        let mut connection = self.connected().await?;
        let answered = connection.send_request(request).await;
        let answered = answered.map_err(|why| self.wrong(why))?;
        self.connection = Some(connection);
        match answered.status() {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(answered),
            status => Err(self.wrong(format!("answers {status} to {path}"))),
        }
    }

    /// Returns the open connection, or opens a new one.
    async fn connected(&mut self) -> Result<SendRequest<Body>, RuntimeError> {
        if let Some(mut open) = self.connection.take()
            && open.ready().await.is_ok()
        {
            return Ok(open);
        }
        let stream = TcpStream::connect(&self.address).await;
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|why| self.wrong(why))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (connection, driver) = shaken.map_err(|why| self.wrong(why))?;
        self.tasks.spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "the connection to the Runtime API ended");
            }
        });
        Ok(connection)
    }

    fn wrong(&self, why: impl std::fmt::Display) -> RuntimeError {
        RuntimeError {
            address: self.address.clone(),
            why: why.to_string(),
        }
    }
}

fn failure(why: &str) -> Value {
    json!({"errorType": "jit", "errorMessage": why, "stackTrace": []})
}
