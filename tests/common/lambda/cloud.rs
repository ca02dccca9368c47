//! The queue of invocations, between the Invoke API and the Runtime API.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};

use super::super::{TIMEOUT, nonce};
use super::{invoke_api, runtime_api};

/// The result of an invocation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Answered(Value),
    Failed(Value),
}

impl Outcome {
    pub fn answer(&self) -> &Value {
        match self {
            Self::Answered(value) => value,
            Self::Failed(why) => panic!("the invocation failed: {why}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) event: Bytes,
    pub(super) deadline_ms: i64,
}

#[derive(Clone)]
pub struct Cloud {
    /// `host:port` of the Runtime API.
    pub runtime_api: String,
    /// The address of the Invoke API.
    pub url: String,
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    queue: mpsc::UnboundedSender<Waiting>,
    pub(super) waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Waiting>>,
    answers: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
    pub(super) init_errors: Mutex<Vec<Value>>,
    /// The time limit of an invocation.
    time_limit: Mutex<Duration>,
    /// Every event that the Invoke API received.
    pub(super) invoked: Mutex<Vec<Value>>,
    /// The number of polls for an invocation; a notification follows each.
    pub(super) asked: Mutex<usize>,
    pub(super) news: Notify,
}

impl Cloud {
    pub async fn open() -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            queue,
            waiting: tokio::sync::Mutex::new(waiting),
            answers: Mutex::default(),
            init_errors: Mutex::default(),
            time_limit: Mutex::new(Duration::from_secs(30)),
            invoked: Mutex::default(),
            asked: Mutex::default(),
            news: Notify::new(),
        });
        let apis = runtime_api::router()
            .merge(invoke_api::router())
            .with_state(inner.clone());
        let address = serve(apis).await;
        Self {
            runtime_api: address.clone(),
            url: format!("http://{address}"),
            inner,
        }
    }

    pub fn time_limit(&self, time_limit: Duration) {
        *self.inner.time_limit.lock().unwrap() = time_limit;
    }

    pub fn invoked(&self) -> Vec<Value> {
        self.inner.invoked.lock().unwrap().clone()
    }

    pub fn init_errors(&self) -> Vec<Value> {
        self.inner.init_errors.lock().unwrap().clone()
    }

    /// Queues an event without a wait for its result.
    pub fn put(&self, event: impl Into<Bytes>) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let id = nonce();
        self.inner.answers.lock().unwrap().insert(id.clone(), tell);
        let time_limit = *self.inner.time_limit.lock().unwrap();
        let deadline_ms = now_ms() + i64::try_from(time_limit.as_millis()).unwrap();
        let event = event.into();
        let waiting = Waiting {
            id,
            event,
            deadline_ms,
        };
        self.inner.queue.send(waiting).expect("the queue is open");
        told
    }

    pub async fn invoke(&self, event: impl Into<Bytes>) -> Outcome {
        let told = self.put(event);
        let told = tokio::time::timeout(TIMEOUT, told).await;
        told.expect("an invocation is answered").unwrap()
    }

    pub async fn event(&self, event: &Value) -> Outcome {
        self.invoke(event.to_string()).await
    }

    /// Makes the next invocation fail as Lambda does when the process has exited.
    pub fn fail_the_next(&self, why: &str) {
        let next = async {
            let waiting = self.inner.waiting.lock().await.recv().await.unwrap();
            let failure = json!({"errorType": "Runtime.ExitError", "errorMessage": why});
            settle(&self.inner, &waiting.id, Outcome::Failed(failure));
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(next);
    }

    /// Waits for this number of polls for an invocation.
    pub async fn wait_for_polls(&self, times: usize) {
        let waiting = async {
            loop {
                let news = self.inner.news.notified();
                if *self.inner.asked.lock().unwrap() >= times {
                    return;
                }
                news.await;
            }
        };
        let waited = tokio::time::timeout(TIMEOUT, waiting).await;
        waited.expect("no process polls for an invocation");
    }

    pub fn times_asked(&self) -> usize {
        *self.inner.asked.lock().unwrap()
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("AWS_ENDPOINT_URL_LAMBDA", self.url.clone())]
    }
}

#[allow(clippy::disallowed_methods)] // Lambda has a clock of its own
fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

pub(super) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[allow(clippy::disallowed_methods)] // ends with the test's runtime
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

pub(super) fn settle(inner: &Inner, id: &str, outcome: Outcome) -> StatusCode {
    match inner.answers.lock().unwrap().remove(id) {
        // The caller may have disconnected.
        Some(tell) => drop(tell.send(outcome)),
        None => return StatusCode::BAD_REQUEST,
    }
    StatusCode::ACCEPTED
}
