//! The demo channel: it receives notices like a plugin, and checks their signatures.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::super::Failure;
use super::super::serve::failed;
use crate::clock::{Clock, SystemClock};
use crate::domain::Millis;
use crate::http::connections::Connections;
use crate::http::listen::{IDLE_TIMEOUT, listen};
use crate::signature::{self, Message, Secret};

const PLUGIN: &str = "/plugins/com.example.jit";
/// A notice that takes longer than this is lost.
const TIMEOUT: Millis = Millis::seconds(60);

pub(super) struct DemoChannel {
    pub url: String,
    pub secret_text: String,
    heard: Mutex<mpsc::Receiver<Value>>,
    /// The listener stops when the channel is dropped.
    _listening: AbortOnDropHandle<()>,
}

struct WebhookState {
    secret: Secret,
    heard: mpsc::Sender<Value>,
}

impl DemoChannel {
    pub async fn open() -> Result<Self, Failure> {
        let secret_text = SystemClock.draw().to_string();
        let (sender, heard) = mpsc::channel(16);
        let state = WebhookState {
            secret: Secret::new(secret_text.clone()),
            heard: sender,
        };
        let app = Router::new()
            .route(&format!("{PLUGIN}/webhook"), post(receive))
            .with_state(Arc::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listening = TaskTracker::new().spawn(async move {
            listen(
                listener,
                app,
                Connections::few(),
                IDLE_TIMEOUT,
                CancellationToken::new(),
            )
            .await;
        });
        Ok(Self {
            url: format!("http://{address}{PLUGIN}/webhook"),
            secret_text,
            heard: Mutex::new(heard),
            _listening: AbortOnDropHandle::new(listening),
        })
    }

    pub async fn next(&self) -> Result<Value, Failure> {
        let mut heard = self.heard.lock().await;
        tokio::select! {
            notice = heard.recv() => {
                notice.ok_or_else(|| Failure::Failed("the demo channel stopped".into()))
            }
            () = SystemClock.wait_until(SystemClock.now() + TIMEOUT) => {
                Err(Failure::Failed("the demo channel received no notice for a minute".into()))
            }
        }
    }
}

async fn receive(
    State(state): State<Arc<WebhookState>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let message = Message {
        key_id: header("x-jit-keyid").unwrap_or_default(),
        timestamp: header("x-jit-timestamp").unwrap_or_default(),
        nonce: header("x-jit-nonce").unwrap_or_default(),
        method: "POST",
        // Mattermost removes the prefix of the plugin before the plugin sees the path.
        path: "/webhook",
        query: "",
        body: &body,
    };
    let mac = header("x-jit-signature").unwrap_or_default();
    if signature::verify(&state.secret, &message, mac).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(notice) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    // A full queue: jit tries again. A closed queue: the sandbox is about to stop.
    match state.heard.try_send(notice) {
        Err(mpsc::error::TrySendError::Full(_)) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}
