//! For unit tests: a Mattermost that gives one answer to all calls.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::api::Api;
use crate::clock::test_clock::TestClock;
use crate::signature::{CurrentSecret, Secret};

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
        let timeout = std::time::Duration::from_secs(10);
        let api = Api::new(url.parse().unwrap(), token, timeout, clock.clone());
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
