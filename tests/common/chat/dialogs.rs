//! Triggers, which the server signs, and the dialogs that they open.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::nonce;
use super::Mattermost;
use super::api::{Answered, no, yes};

/// The key with which the server signs its triggers.
static KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, made.as_ref()).unwrap()
});

#[allow(clippy::disallowed_methods)] // the server has a clock of its own
pub fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

/// 7: a trigger, in which the server signs the user and the time of the action.
pub fn trigger(user: &str, at: i64) -> String {
    let id = &nonce().replace('-', "")[..26];
    let text = format!("{id}:{user}:{at}:");
    let random = aws_lc_rs::rand::SystemRandom::new();
    let signature = KEY.sign(&random, text.as_bytes()).unwrap();
    STANDARD.encode(format!("{text}{}", STANDARD.encode(signature)))
}

impl Mattermost {
    pub fn dialogs(&self) -> Vec<Value> {
        self.kept().dialogs.clone()
    }

    pub fn calls_for_the_key(&self) -> usize {
        self.kept().key_calls
    }

    /// Replaces the signing key, as a new installation of the server does.
    pub fn has_another_key(&self, key: &str) {
        self.kept().key = Some(key.to_owned());
    }

    /// The address that the server has for its users.
    pub fn has_site(&self, url: &str) {
        self.kept().site = url.to_owned();
    }

    pub(super) fn give_key(&self) -> Answered {
        self.kept().key_calls += 1;
        let key = KEY.public_key();
        let key = STANDARD.encode(AsDer::<PublicKeyX509Der>::as_der(key).unwrap().as_ref());
        let key = self.kept().key.clone().unwrap_or(key);
        let site = self.kept().site.clone();
        let client = json!({
            "AsymmetricSigningPublicKey": key, "BuildNumber": "5.37.0", "SiteURL": site,
            "RequireEmailVerification": self.kept().verifies_addresses.to_string(),
        });
        yes(200, &client)
    }

    /// 7: a caller with a trigger younger than three seconds may open any dialog.
    pub(super) fn open_dialog(&self, body: &Value) -> Answered {
        let trigger = STANDARD.decode(body["trigger_id"].as_str().unwrap());
        let trigger = String::from_utf8(trigger.unwrap()).unwrap();
        let parts: Vec<&str> = trigger.split(':').collect();
        if now() - parts[2].parse::<i64>().unwrap() > 3_000 {
            return no(400, "interactive_message.decode_trigger_id.expired");
        }
        let mut opened = body.clone();
        opened["user_id"] = parts[1].into();
        self.kept().dialogs.push(opened);
        yes(200, &json!({"status": "OK"}))
    }
}
