//! Delivers notices to the webhook of the plugin. Each delivery has two signatures, so that
//! both the plugin and any Standard Webhooks library can verify it.

use async_trait::async_trait;
use reqwest::{Client, redirect};

use super::notices::{DELIVERY_BOUND, NotReceived, Receiver};
use crate::clock::Clock;
use crate::config::Webhook;
use crate::domain::{Audience, Millis, Notice, ReceiverName, Timestamp};
use crate::identity_center::causes;
use crate::signature::{self, CurrentSecret, Message, Scheme};

/// The time limit of one delivery.
pub const TIMEOUT: Millis = Millis::seconds(10);
const _: () = assert!(TIMEOUT.0 < DELIVERY_BOUND.0);

pub struct WebhookReceiver {
    webhook: Webhook,
    /// The present secret; the one in `webhook` is that of the start.
    secret: CurrentSecret,
    client: Client,
    clock: std::sync::Arc<dyn Clock>,
}

impl WebhookReceiver {
    pub fn new(
        webhook: Webhook,
        secret: CurrentSecret,
        clock: std::sync::Arc<dyn Clock>,
    ) -> reqwest::Result<Self> {
        let client = Client::builder()
            .timeout(TIMEOUT.std())
            // A redirect would send the signature to another host.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("jit/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            webhook,
            secret,
            client,
            clock,
        })
    }
}

/// The headers of one delivery.
pub fn headers(
    webhook: &Webhook,
    notice: &Notice,
    body: &[u8],
    now: Timestamp,
    nonce: &str,
) -> [(&'static str, String); 8] {
    let timestamp = now.seconds().to_string();
    let message = Message {
        key_id: &webhook.key_id,
        timestamp: &timestamp,
        nonce,
        method: "POST",
        path: &webhook.signed_path,
        query: "",
        body,
    };
    let mac = signature::sign(Scheme::V1, &webhook.secret, &message);
    let id = notice.message_id();
    let standard = signature::webhook_signature(&webhook.secret, &id, &timestamp, body);
    [
        ("Content-Type", "application/json".into()),
        ("X-JIT-KeyID", webhook.key_id.clone()),
        ("X-JIT-Timestamp", timestamp.clone()),
        ("X-JIT-Nonce", nonce.to_owned()),
        ("X-JIT-Signature", mac),
        ("webhook-id", id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", standard),
    ]
}

#[async_trait]
impl Receiver for WebhookReceiver {
    fn name(&self) -> ReceiverName {
        ReceiverName::Webhook
    }

    async fn receive(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        if notice.audience != Audience::Everybody {
            return Ok(());
        }
        let body = notice.body().map_err(NotReceived::because)?;
        let nonce = self.clock.draw().to_string();
        let webhook = Webhook {
            secret: self.secret.get(),
            ..self.webhook.clone()
        };
        let mut call = self.client.post(webhook.url.clone());
        for (name, value) in headers(&webhook, notice, &body, now, &nonce) {
            call = call.header(name, value);
        }
        let reply = call.body(body).send().await.map_err(no_answer)?;
        if reply.status().is_success() {
            return Ok(());
        }
        Err(NotReceived::because(format!(
            "the webhook answered {}",
            reply.status()
        )))
    }

    fn timeout(&self) -> Millis {
        TIMEOUT
    }
}

/// The error with its causes, and without the url, which may contain a token.
fn no_answer(error: reqwest::Error) -> NotReceived {
    let why = causes(&error.without_url());
    NotReceived::because(format!("no answer from the webhook: {why}"))
}
