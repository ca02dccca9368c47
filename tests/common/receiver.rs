//! The receiver of the webhook: it keeps each notice that it accepted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::TIMEOUT;

/// The receiver of the webhook.
#[derive(Clone)]
pub struct Channel {
    pub url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    calls: Arc<AtomicUsize>,
    answer: Arc<Mutex<Answer>>,
    news: Arc<Notify>,
}

#[derive(Clone, Debug)]
pub struct Heard {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Heard {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Fails,
    Hangs,
}

impl Channel {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            heard: Arc::default(),
            calls: Arc::default(),
            answer: Arc::new(Mutex::new(Answer::Ok)),
            news: Arc::default(),
        };
        let app = Router::new().fallback(receive).with_state(channel.clone());
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        channel
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub fn received(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until this number of deliveries was accepted.
    pub async fn wait_for(&self, count: usize) -> Vec<Heard> {
        self.wait_until(|heard| heard.len() >= count).await
    }

    pub async fn wait_until(&self, enough: impl Fn(&[Heard]) -> bool) -> Vec<Heard> {
        self.until(|channel| Some(channel.received()).filter(|heard| enough(heard)))
            .await
    }

    /// The number of deliveries, also of those without an answer.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub async fn is_called(&self, times: usize) {
        self.until(|channel| (channel.calls() >= times).then_some(()))
            .await;
    }

    async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let news = self.news.notified();
                if let Some(seen) = look(self) {
                    return seen;
                }
                news.await;
            }
        };
        tokio::time::timeout(TIMEOUT, waiting)
            .await
            .expect("the receiver is closed")
    }
}

async fn receive(
    State(channel): State<Channel>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let answer = *channel.answer.lock().unwrap();
    channel.calls.fetch_add(1, Ordering::SeqCst);
    channel.news.notify_waiters();
    match answer {
        Answer::Ok => {}
        Answer::Fails => return StatusCode::INTERNAL_SERVER_ERROR,
        Answer::Hangs => std::future::pending().await,
    }
    let heard = Heard {
        path: uri.path().to_owned(),
        headers,
        body: body.to_vec(),
    };
    channel.heard.lock().unwrap().push(heard);
    channel.news.notify_waiters();
    StatusCode::OK
}
