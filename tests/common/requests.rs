//! The calls of a caller that configures accounts, and that creates, decides and reads requests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ACCOUNT, CHANNEL, Caller, Reply, TIMEOUT, aws};

impl Caller {
    pub async fn bind(&self) {
        self.post(
            "/config/bind",
            &json!({"channel_id": CHANNEL, "account_id": ACCOUNT}),
        )
        .await
        .is(200);
        let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob", "carol"]});
        self.post("/config/approvers", &approvers).await.is(200);
    }

    pub async fn request(&self) -> String {
        self.request_with(json!({})).await
    }

    pub async fn request_with(&self, changes: Value) -> String {
        let created = self.post("/requests", &wanted(&changes)).await.is(201);
        created["request_id"].as_str().unwrap().to_owned()
    }

    pub async fn approve(&self, id: &str) -> Reply {
        let body = json!({"approver_mm_user_id": "bob", "approver_email": "bob@example.com"});
        self.post(&format!("/requests/{id}/approve"), &body).await
    }

    pub async fn deny(&self, id: &str) -> Reply {
        let body = json!({"denier_mm_user_id": "bob", "denier_email": "bob@example.com", "reason": "too broad"});
        self.post(&format!("/requests/{id}/deny"), &body).await
    }

    pub async fn revoke(&self, id: &str) -> Reply {
        let body = json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com", "reason": "incident"});
        self.post(&format!("/requests/{id}/revoke"), &body).await
    }

    pub async fn cancel(&self, id: &str) -> Reply {
        let body = json!({"actor_mm_user_id": "alice", "actor_email": "alice@example.com"});
        self.post(&format!("/requests/{id}/cancel"), &body).await
    }

    pub async fn show(&self, id: &str) -> Value {
        self.get(&format!("/requests/{id}")).await.is(200)
    }

    pub async fn audit(&self, id: &str) -> Vec<Value> {
        let events = self.get(&format!("/requests/{id}/audit")).await.is(200);
        events.as_array().unwrap().clone()
    }

    pub async fn kinds(&self, id: &str) -> Vec<String> {
        let events = self.audit(id).await;
        events
            .iter()
            .map(|event| event["event_type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Polls until the request has this status, because another process gets no event.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            let request = self.show(id).await;
            if request["status"] == status {
                return request;
            }
            assert!(
                begun.elapsed() < TIMEOUT,
                "the status never became {status}: {request}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Polls until the history has this event.
    pub async fn until_told(&self, id: &str, kind: &str) -> Value {
        let begun = Instant::now();
        loop {
            let events = self.audit(id).await;
            if let Some(event) = events.iter().find(|event| event["event_type"] == kind) {
                return event.clone();
            }
            assert!(begun.elapsed() < TIMEOUT, "no event {kind}: {events:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn granted(&self) -> String {
        let id = self.request().await;
        self.approve(&id).await.is(200);
        self.until(&id, "GRANTED").await;
        id
    }

    /// Grants Alice access in each of this number of accounts.
    pub async fn granted_in_accounts(&self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 1..=count {
            let account = format!("{number:012}");
            let id = self.request_with(json!({"account_id": account})).await;
            self.approve(&id).await.is(200);
            ids.push(id);
        }
        for id in &ids {
            self.until(id, "GRANTED").await;
        }
        ids
    }

    /// Adds a user to AWS, requests access for the user and approves it.
    pub async fn approved_for(&self, aws: &aws::Aws, name: &str) -> String {
        aws.add_user(name, name);
        let email = format!("{name}@example.com");
        let asked = json!({"requester_mm_user_id": name, "requester_email": email});
        let id = self.request_with(asked).await;
        self.approve(&id).await.is(200);
        id
    }
}

/// The body of a request with some fields changed; null removes a field.
pub fn wanted(changes: &Value) -> Value {
    let mut body = json!({
        "account_id": ACCOUNT,
        "channel_id": CHANNEL,
        "requester_mm_user_id": "alice",
        "requester_email": "alice@example.com",
        "reason": "INC-42: db down: need psql",
        "requested_duration_minutes": 60,
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(name)),
            value => body[name] = value.clone(),
        }
    }
    body
}
