//! The HTTP server of the simulated AWS. A planned fault can leave a call without an answer.

use std::convert::Infallible;

use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::wire::{self, Hangup};
use super::{Answer, Aws, Fault, Moment};

impl Aws {
    pub(super) async fn serve(self, listener: TcpListener) {
        let answer = move |request| {
            let aws = self.clone();
            async move { aws.answer(request).await }
        };
        wire::serve(listener, answer).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
        let target = request.headers().get("x-amz-target").cloned();
        let target = target.map(|target| target.to_str().unwrap().to_owned());
        let action = target
            .as_deref()
            .and_then(|target| target.split('.').nth(1));
        let action = action.unwrap_or("GetCallerIdentity").to_owned();
        let body = to_bytes(Body::new(request.into_body()), 1 << 20).await;
        let body = body.map_err(|_| Hangup)?;
        let input: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (fault, stop) = self.inner().arrive(&action, &input);
        if stop == Some(Moment::Before) || fault == Some(Fault::Hang) {
            return self.never(stop).await;
        }
        if fault == Some(Fault::Lost) {
            return Err(Hangup);
        }
        let answer = self.inner().carry_out(&action, &input, fault.as_ref());
        let slow = self.inner().slow.filter(|(slow, _)| *slow == action);
        if let Some((_, pause)) = slow {
            tokio::time::sleep(pause).await;
        }
        if stop == Some(Moment::After) {
            return self.never(stop).await;
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(Hangup);
        }
        Ok(self.response(&action, answer))
    }

    fn response(&self, action: &str, answer: Answer) -> Response<Body> {
        let (status, text) = match answer {
            // STS answers in XML.
            Ok(Value::String(xml)) if action == "GetCallerIdentity" => (200, xml),
            Ok(value) => (200, value.to_string()),
            Err((kind, why)) => {
                if let Some(heard) = self.inner().heard.last_mut() {
                    heard.refused = true;
                }
                let status = match kind {
                    "InternalServerException" => 500,
                    _ => 400,
                };
                let (kind, resource) = kind.split_once('/').unwrap_or((kind, "USER"));
                let value = json!({"__type": kind, "Message": why, "ResourceType": resource});
                (status, value.to_string())
            }
        };
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/x-amz-json-1.1")
            .body(Body::from(text));
        response.unwrap()
    }

    async fn never(&self, stop: Option<Moment>) -> Result<Response<Body>, Hangup> {
        if stop.is_some() {
            self.reached.notify_one();
        }
        std::future::pending::<Infallible>().await;
        Err(Hangup)
    }
}
