//! For unit tests: a Mattermost that gives one answer to all calls, and a clock that a test sets.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::api::Api;
use crate::clock::{Clock, Uptime};
use crate::domain::{Millis, Timestamp};
use crate::signature::{CurrentSecret, Secret};

/// The wall clock and the uptime, in milliseconds.
#[derive(Default)]
pub struct TestClock {
    wall: AtomicI64,
    up: AtomicI64,
}

impl TestClock {
    /// The wall clock is set back during the time that passes.
    pub fn pass_and_set_back(&self, passed: Millis, back: Millis) {
        self.up.fetch_add(passed.0, Ordering::SeqCst);
        self.wall.fetch_add(passed.0 - back.0, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::SeqCst))
    }
    fn uptime(&self) -> Uptime {
        Uptime(Millis(self.up.load(Ordering::SeqCst)))
    }
    async fn wait_until(&self, _: Timestamp) {}
    async fn sleep_until(&self, _: Uptime) {}
    fn draw(&self) -> Uuid {
        Uuid::nil()
    }
}

pub struct TestServer {
    pub api: Api,
    pub clock: Arc<TestClock>,
    answer: Arc<Mutex<Value>>,
}

impl TestServer {
    pub async fn open(answer: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(answer));
        let given = answer.clone();
        #[allow(clippy::disallowed_methods)] // ends with the test's runtime
        tokio::spawn(async move {
            while let Ok((mut call, _)) = listener.accept().await {
                let mut read = Vec::new();
                while !read.ends_with(b"\r\n\r\n") {
                    read.push(call.read_u8().await.unwrap());
                }
                let body = given.lock().unwrap().to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                call.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        let clock = Arc::new(TestClock::default());
        let token = CurrentSecret::new(Secret::new("token".into()));
        let patience = std::time::Duration::from_secs(10);
        let api = Api::new(url.parse().unwrap(), token, patience, clock.clone());
        Self {
            api: api.unwrap(),
            clock,
            answer,
        }
    }

    pub fn answers(&self, answer: Value) {
        *self.answer.lock().unwrap() = answer;
    }
}
