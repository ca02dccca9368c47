//! Signs and verifies calls and notices, in both schemes. This module uses no clock and no I/O.
//!
//! The public plugin uses v1. v2 also covers the key id and the query, so that neither of them
//! can be altered on the way.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::domain::{Hash, Millis, Timestamp};

/// The largest accepted difference between the caller's clock and jit's, in seconds.
const WINDOW_SECONDS: i64 = 300;
const V2: &str = "v2=";

/// A secret that an operator can replace while jit runs. All clones have the same value, and each
/// use takes the current one.
#[derive(Clone, Debug)]
pub struct CurrentSecret(Arc<RwLock<Secret>>);

impl CurrentSecret {
    pub fn new(secret: Secret) -> Self {
        Self(Arc::new(RwLock::new(secret)))
    }

    pub fn get(&self) -> Secret {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    pub fn replace(&self, secret: Secret) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = secret;
    }
}

/// A shared secret. The HMAC key is its UTF-8 bytes. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret {
    text: SecretString,
    /// The prepared HMAC: preparing it with every call would be slow.
    keyed: Hmac<Sha256>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    V1,
    V2,
}

/// The parts of a call that a signature covers, as they were sent.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub key_id: &'a str,
    pub timestamp: &'a str,
    pub nonce: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub body: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct Mismatch;

/// Returns the value of the header `X-JIT-Signature` for a call.
pub fn sign(scheme: Scheme, secret: &Secret, message: &Message<'_>) -> String {
    let mac = secret.mac_of(message, scheme);
    let hex = hex::encode(mac.finalize().into_bytes());
    match scheme {
        Scheme::V1 => hex,
        Scheme::V2 => format!("{V2}{hex}"),
    }
}

/// Returns the scheme of a valid signature. The comparison takes constant time.
pub fn verify(secret: &Secret, message: &Message<'_>, mac: &str) -> Result<Scheme, Mismatch> {
    let (scheme, hex) = match mac.strip_prefix(V2) {
        Some(hex) => (Scheme::V2, hex),
        None => (Scheme::V1, mac),
    };
    // Only lower-case hex is valid, so that a signature has one form only.
    let lowercase = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let mut bytes = [0; 32];
    if !hex.bytes().all(lowercase) || hex::decode_to_slice(hex, &mut bytes).is_err() {
        return Err(Mismatch);
    }
    let expected = secret.mac_of(message, scheme);
    expected
        .verify_slice(&bytes)
        .map(|()| scheme)
        .map_err(|_| Mismatch)
}

/// The largest accepted difference between the caller's clock and jit's.
pub const WINDOW: Millis = Millis::seconds(WINDOW_SECONDS);

/// Reports whether a timestamp, as sent, is within `WINDOW` of `now`.
pub fn is_fresh(timestamp: &str, now: Timestamp) -> bool {
    let plain =
        (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
    let Ok(seconds) = timestamp.parse::<i64>() else {
        return false;
    };
    plain && (now.seconds() - seconds).abs() <= WINDOW_SECONDS
}

/// Returns the signature for the Standard Webhooks headers.
pub fn webhook_signature(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut text = format!("{id}.{timestamp}.").into_bytes();
    text.extend_from_slice(body);
    format!(
        "v1,{}",
        STANDARD.encode(secret.mac(&text).finalize().into_bytes())
    )
}

/// The keys that seal the head log: one makes new seals, and older ones only check.
#[derive(Clone, Debug, Default)]
pub struct SealKeys {
    /// The newest first; none if the log is not sealed.
    keys: Vec<Secret>,
}

impl SealKeys {
    /// `older` begins with the key that was replaced last.
    pub fn new(present: Secret, older: Vec<Secret>) -> Self {
        let keys = std::iter::once(present).chain(older).collect();
        Self { keys }
    }

    pub fn is_set(&self) -> bool {
        !self.keys.is_empty()
    }

    pub fn present(&self) -> Option<&Secret> {
        self.keys.first()
    }

    pub fn older(&self) -> impl Iterator<Item = &Secret> {
        self.keys.iter().skip(1)
    }

    /// Returns a seal with the present key.
    pub fn seal(&self, text: &str) -> Option<String> {
        self.present().map(|key| seal(key, text))
    }

    /// Returns the age of the key that made the seal: 0 for the present key, 1 for the one
    /// before. None if no key made it.
    pub fn age_of(&self, text: &str, sealed: &str) -> Option<usize> {
        self.keys.iter().position(|key| is_seal(key, text, sealed))
    }
}

/// Returns a seal for a text that jit hands out and later accepts only unaltered.
pub fn seal(secret: &Secret, text: &str) -> String {
    hex::encode(secret.mac(text.as_bytes()).finalize().into_bytes())
}

/// Reports whether `seal` is jit's seal on this text. The comparison takes constant time.
pub fn is_seal(secret: &Secret, text: &str, seal: &str) -> bool {
    hex::decode(seal).is_ok_and(|seal| secret.mac(text.as_bytes()).verify_slice(&seal).is_ok())
}

/// Returns the decoded pairs of a query, or `None` if an escape is invalid or the result is not
/// UTF-8. A `+` is a plus and not a space, as in RFC 3986.
pub fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Some((percent_decoded(name)?, percent_decoded(value)?))
        })
        .collect()
}

pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair = [rest.next()?, rest.next()?];
            let mut decoded = [0];
            hex::decode_to_slice(pair, &mut decoded).ok()?;
            bytes.push(decoded[0]);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

impl Message<'_> {
    /// Passes the parts of the canonical form to `add`, in their order.
    fn canonical(&self, scheme: Scheme, mut add: impl FnMut(&str)) {
        let Self {
            key_id,
            timestamp,
            nonce,
            path,
            ..
        } = *self;
        let method = &*self.method.to_ascii_uppercase();
        let query;
        let lines: &[&str] = match scheme {
            Scheme::V1 => &[timestamp, nonce, method, path],
            Scheme::V2 => {
                query = canonical_query(self.query);
                &["JIT2", key_id, timestamp, nonce, method, path, &query]
            }
        };
        for line in lines {
            add(line);
            add("\n");
        }
        add(&Hash::of(self.body).to_string());
    }
}

/// Returns the canonical form of a query. A query that cannot be decoded is signed unchanged;
/// the handler that parses it refuses it.
fn canonical_query(query: &str) -> String {
    let Some(mut pairs) = pairs(query) else {
        return query.to_owned();
    };
    pairs.sort();
    let encoded = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)));
    encoded.collect::<Vec<_>>().join("&")
}

/// Encodes every character except the unreserved ones of RFC 3986.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

impl Secret {
    pub fn new(text: String) -> Self {
        // HMAC accepts keys of every length, so this error cannot happen. The fallback is an
        // empty key, which verifies no signature made with this secret.
        let keyed = Hmac::<Sha256>::new_from_slice(text.as_bytes())
            .unwrap_or_else(|_| Hmac::<Sha256>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
        let text = SecretString::from(text);
        Self { text, keyed }
    }

    /// Compares two secrets of one configuration; this does not authenticate a caller.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.text.expose_secret() == other.text.expose_secret()
    }

    /// Compares a secret that a caller sends in plain text, in constant time.
    pub fn is(&self, text: &str) -> bool {
        self.text
            .expose_secret()
            .as_bytes()
            .ct_eq(text.as_bytes())
            .into()
    }

    /// Returns the secret, for use in a header only; it must not be logged or stored.
    pub(crate) fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    pub fn is_empty(&self) -> bool {
        self.text.expose_secret().is_empty()
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(text);
        mac
    }

    /// The MAC of the canonical form of a call.
    fn mac_of(&self, message: &Message<'_>, scheme: Scheme) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        message.canonical(scheme, |part| mac.update(part.as_bytes()));
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Vec<Value> {
        let all: Value =
            serde_json::from_str(include_str!("../tests/data/signing-vectors.json")).unwrap();
        all["cases"].as_array().unwrap().clone()
    }

    fn message(case: &Value) -> Message<'_> {
        let word = |name: &str| case[name].as_str().unwrap();
        Message {
            key_id: word("key_id"),
            timestamp: word("timestamp"),
            nonce: word("nonce"),
            method: word("method"),
            path: word("path"),
            query: word("query"),
            body: word("body").as_bytes(),
        }
    }

    #[test]
    fn every_published_vector_is_signed_and_verified() {
        let cases = vectors();
        assert!(cases.len() >= 5);
        for case in &cases {
            let secret = Secret::new(case["secret"].as_str().unwrap().to_owned());
            for (scheme, name) in [(Scheme::V1, "v1"), (Scheme::V2, "v2")] {
                let signed = case[name]["signature"].as_str().unwrap();
                let canonical = case[name]["canonical"].as_str().unwrap();
                let mut text = String::new();
                message(case).canonical(scheme, |part| text.push_str(part));
                assert_eq!(text, canonical, "{}", case["name"]);
                assert_eq!(
                    sign(scheme, &secret, &message(case)),
                    signed,
                    "{}",
                    case["name"]
                );
                assert_eq!(verify(&secret, &message(case), signed), Ok(scheme));
            }
        }
    }

    // P5, G1, G2: a change of any signed part makes the signature invalid.
    #[test]
    fn an_altered_call_does_not_verify() {
        for case in &vectors() {
            let secret = Secret::new(case["secret"].as_str().unwrap().to_owned());
            let v2 = case["v2"]["signature"].as_str().unwrap();
            let good = message(case);
            let body = [good.body, b" "].concat();
            for altered in [
                Message {
                    key_id: "other",
                    ..good
                },
                Message {
                    timestamp: "1768471999",
                    ..good
                },
                Message {
                    nonce: "other",
                    ..good
                },
                Message {
                    method: "PUT",
                    ..good
                },
                Message {
                    path: "/other",
                    ..good
                },
                Message {
                    query: "status=DENIED",
                    ..good
                },
                Message {
                    body: &body,
                    ..good
                },
            ] {
                assert_eq!(verify(&secret, &altered, v2), Err(Mismatch), "{altered:?}");
            }
            let other = Secret::new("another".into());
            assert_eq!(verify(&other, &good, v2), Err(Mismatch));
            for broken in [
                "",
                "v2=",
                &v2.to_uppercase(),
                &v2[..66],
                &format!("{v2}0"),
                "v3=00",
            ] {
                assert_eq!(verify(&secret, &good, broken), Err(Mismatch), "{broken}");
            }
        }
    }

    #[test]
    fn equivalent_queries_have_one_canonical_form() {
        for (one, other) in [
            ("a=1&b=2", "b=2&a=1"),
            ("a=%7E", "a=~"),
            ("a", "a="),
            ("a=1&&b=2", "a=1&b=2"),
            ("a=x&a=b", "a=b&a=x"),
        ] {
            assert_eq!(canonical_query(one), canonical_query(other));
        }
        assert_ne!(canonical_query("a=1+1"), canonical_query("a=1%201"));
        assert_eq!(canonical_query("a=%zz"), "a=%zz");
    }

    #[test]
    fn only_a_plain_timestamp_within_the_window_is_fresh() {
        let now = Timestamp::from_seconds(1_000_000);
        for fresh in ["1000000", "999700", "1000300"] {
            assert!(is_fresh(fresh, now), "{fresh}");
        }
        for stale in [
            "999699",
            "1000301",
            "",
            "-1",
            "+1000000",
            "1e6",
            "1000000.0",
            "0x1",
            " 1000000",
        ] {
            assert!(!is_fresh(stale, now), "{stale}");
        }
    }

    #[test]
    fn debug_does_not_show_a_secret() {
        assert_eq!(format!("{:?}", Secret::new("hush".into())), "Secret(…)");
    }

    // The Standard Webhooks specification defines it: the key is the bytes of the secret, and
    // the signed text is id.timestamp.body.
    #[test]
    fn a_webhook_signature_follows_standard_webhooks() {
        let secret = Secret::new("key".into());
        let signed = webhook_signature(&secret, "msg_1", "1614265330", b"{}");
        let mac = secret.mac(b"msg_1.1614265330.{}").finalize().into_bytes();
        assert_eq!(signed, format!("v1,{}", STANDARD.encode(mac)));
    }
}
