//! The trigger of a click, which Mattermost signs: it proves that this user acted in
//! Mattermost at this millisecond. The seal of the button proves which action it was.

use std::sync::Mutex;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::clock::Uptime;
use crate::domain::{Millis, Timestamp};
use crate::lock::locked;
use crate::mattermost::client::api::{Api, ApiError};

/// The greatest difference of the two clocks, and the longest delivery time of a click.
const FRESH: Millis = Millis::minutes(1);
/// A new server has another key: jit asks for the key again after this time.
const ASK_AGAIN: Millis = Millis::seconds(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Unique for each click.
    pub id: String,
    pub user: String,
    pub at: Timestamp,
    signature: Vec<u8>,
}

impl Trigger {
    pub fn read(text: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
        let mut parts = text.split(':');
        let (id, user, at) = (parts.next()?, parts.next()?, parts.next()?);
        let signature = STANDARD.decode(parts.next()?).ok()?;
        let is_whole = parts.next().is_none() && !id.is_empty() && id.len() <= 64;
        is_whole.then_some(Self {
            id: id.to_owned(),
            user: user.to_owned(),
            at: Timestamp::from_millis(at.parse().ok()?),
            signature,
        })
    }

    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now - self.at <= FRESH && self.at - now <= FRESH
    }

    fn is_signed_by(&self, key: &[u8]) -> bool {
        let text = format!("{}:{}:{}:", self.id, self.user, self.at.millis());
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(text.as_bytes(), &self.signature)
            .is_ok()
    }
}

/// After a failed call jit answers with the same failure for this time: every caller can send
/// clicks whose signature fails, and each would make a call.
const FAILED_FOR: Millis = Millis::seconds(5);

/// The public key of the server. jit asks for it once, and again after a failed check; one click
/// asks, and the others wait for its answer.
pub struct ServerKey {
    api: Api,
    /// With the uptime at which jit asked.
    known: Mutex<Option<(Vec<u8>, Uptime)>>,
    /// The last failed call. The click that asks holds the lock.
    failed: tokio::sync::Mutex<Option<(ApiError, Uptime)>>,
}

impl ServerKey {
    pub fn new(api: Api) -> Self {
        Self {
            api,
            known: Mutex::default(),
            failed: tokio::sync::Mutex::default(),
        }
    }

    pub async fn has_signed(&self, trigger: &Trigger) -> Result<bool, ApiError> {
        if let Some(is_signed) = self.by_the_known_key(trigger) {
            return Ok(is_signed);
        }
        let mut failed = self.failed.lock().await;
        // Another click may have asked in the meantime.
        if let Some(is_signed) = self.by_the_known_key(trigger) {
            return Ok(is_signed);
        }
        let clock = self.api.clock();
        match &*failed {
            Some((why, at)) if clock.uptime() - *at < FAILED_FOR => return Err(why.clone()),
            Some(_) | None => {}
        }
        match self.fetch_key().await {
            Ok(key) => {
                let is_signed = trigger.is_signed_by(&key);
                *self.known() = Some((key, clock.uptime()));
                Ok(is_signed)
            }
            Err(why) => {
                *failed = Some((why.clone(), clock.uptime()));
                Err(why)
            }
        }
    }

    /// Whether the known key signed the trigger; `None` if jit must ask for the key.
    fn by_the_known_key(&self, trigger: &Trigger) -> Option<bool> {
        let known = self.known();
        let (key, asked_at) = known.as_ref()?;
        if trigger.is_signed_by(key) {
            return Some(true);
        }
        let is_new = self.api.clock().uptime() - *asked_at < ASK_AGAIN;
        is_new.then_some(false)
    }

    async fn fetch_key(&self) -> Result<Vec<u8>, ApiError> {
        let config = self.api.get("config/client?format=old").await?;
        let key = config["AsymmetricSigningPublicKey"].as_str();
        let key = key.and_then(|key| STANDARD.decode(key).ok());
        key.ok_or_else(|| ApiError::NoAnswer("it does not publish its signing key".into()))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<(Vec<u8>, Uptime)>> {
        locked(&self.known)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mattermost::client::test_server::TestServer;

    fn vector() -> serde_json::Value {
        serde_json::from_str(include_str!(
            "../../../tests/mattermost/captures/trigger-id-vector.json"
        ))
        .unwrap()
    }

    /// Trap 7, with the signature of a real server.
    #[test]
    fn the_signature_of_a_real_server_is_valid_and_a_changed_one_is_not() {
        let vector = vector();
        let text = vector["trigger_id"].as_str().unwrap();
        let key = STANDARD
            .decode(vector["AsymmetricSigningPublicKey"].as_str().unwrap())
            .unwrap();
        let trigger = Trigger::read(text).unwrap();
        assert_eq!(trigger.user, vector["user_id"].as_str().unwrap());
        assert!(trigger.is_signed_by(&key));
        let altered = |change: fn(&mut Trigger)| {
            let mut trigger = trigger.clone();
            change(&mut trigger);
            trigger.is_signed_by(&key)
        };
        assert!(!altered(
            |trigger| trigger.user = "o1pfxbncs7f43jbskgik8zuwxc".into()
        ));
        assert!(!altered(|trigger| trigger.at = trigger.at + Millis(1)));
        assert!(!altered(|trigger| trigger.id.push('x')));
        assert!(!altered(|trigger| trigger.signature[9] ^= 1));
        let mut other = key.clone();
        other[40] ^= 1;
        assert!(!trigger.is_signed_by(&other));
        for rubbish in ["", "x", "YQ==", &STANDARD.encode("a:b:c:d"), &text[3..]] {
            assert_eq!(Trigger::read(rubbish), None, "{rubbish}");
        }
    }

    /// K8: after the wall clock was set back, jit did not ask for the key of a new server for that
    /// time, and refused all clicks.
    #[tokio::test]
    async fn a_new_key_is_asked_for_after_thirty_seconds_if_the_clock_is_set_back() {
        let key = vector()["AsymmetricSigningPublicKey"].clone();
        let published = |key: serde_json::Value| json!({"AsymmetricSigningPublicKey": key});
        let other = STANDARD.encode("another key").into();
        let server = TestServer::open(published(other)).await;
        let known = ServerKey::new(server.api.clone());
        let trigger = Trigger::read(vector()["trigger_id"].as_str().unwrap()).unwrap();
        assert_eq!(known.has_signed(&trigger).await, Ok(false));
        server.answers(published(key));
        server.clock.pass(29, 29 - 3600);
        assert_eq!(known.has_signed(&trigger).await, Ok(false));
        server.clock.pass(1, 1);
        assert_eq!(known.has_signed(&trigger).await, Ok(true));
    }

    #[test]
    fn a_click_is_fresh_for_one_minute() {
        let trigger = Trigger::read(vector()["trigger_id"].as_str().unwrap()).unwrap();
        for (late, is_fresh) in [(0, true), (60_000, true), (60_001, false), (-60_001, false)] {
            assert_eq!(
                trigger.is_fresh(trigger.at + Millis(late)),
                is_fresh,
                "{late}"
            );
        }
    }
}
