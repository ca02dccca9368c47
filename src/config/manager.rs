//! Fetches the secrets from AWS Secrets Manager, all at the same time, before the check.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::Client;
use futures_util::future::join_all;

/// The time limit for one secret, with retries: a Lambda start must end within ten seconds.
const TIMEOUT: Duration = Duration::from_secs(8);

/// The text of each secret, or the error of its fetch.
#[derive(Default)]
pub(super) struct FetchedSecrets(BTreeMap<String, Result<String, String>>);

impl FetchedSecrets {
    pub async fn fetch(ids: impl IntoIterator<Item = &str>) -> Self {
        let ids: BTreeSet<&str> = ids.into_iter().collect();
        if ids.is_empty() {
            return Self::default();
        }
        let timeout = TimeoutConfig::builder().operation_timeout(TIMEOUT);
        let environment = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .timeout_config(timeout.build())
            .load()
            .await;
        let client = Client::new(&environment);
        let asked = ids.into_iter().map(async |id| {
            let secret = one(&client, id).await;
            (id.to_owned(), secret)
        });
        Self(join_all(asked).await.into_iter().collect())
    }

    /// Returns a different placeholder for each secret, because two keys may not share a secret.
    pub fn unread<'i>(ids: impl IntoIterator<Item = &'i str>) -> Self {
        let unread = |id: &str| (id.to_owned(), Ok(format!("the-unread-secret-{id}")));
        Self(ids.into_iter().map(unread).collect())
    }

    pub fn of(&self, id: &str) -> Result<&str, &str> {
        match self.0.get(id) {
            Some(Ok(secret)) => Ok(secret),
            Some(Err(why)) => Err(why),
            None => Err("was not fetched"),
        }
    }
}

async fn one(client: &Client, id: &str) -> Result<String, String> {
    let asked = client.get_secret_value().secret_id(id).send().await;
    let found = asked.map_err(|why| {
        // The error does not show the id: it may be the secret itself, under the wrong key.
        let why = crate::identity_center::aws_causes(&why).replace(id, "…");
        format!("cannot be read from Secrets Manager: {why}")
    })?;
    let text = found
        .secret_string
        .ok_or("names a binary secret: keep the secret as a text")?;
    // The whole JSON text as a secret would not match the secret that callers use.
    if text.trim_start().starts_with('{') {
        let next = "keep the secret itself as the text, without a name and braces";
        return Err(format!("names a secret that holds JSON: {next}"));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
