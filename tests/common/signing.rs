//! The signature of a call, computed from the contract without code of jit.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The four headers, v1 or v2.
pub struct Signing<'a> {
    pub key_id: &'a str,
    pub secret: &'a str,
    pub timestamp: i64,
    pub nonce: String,
}

impl Signing<'_> {
    pub fn v1(&self, method: &str, path: &str, body: &[u8]) -> String {
        let body = hex::encode(Sha256::digest(body));
        self.mac(&format!(
            "{}\n{}\n{method}\n{path}\n{body}",
            self.timestamp, self.nonce
        ))
    }

    /// `query` must be canonical.
    pub fn v2(&self, method: &str, path: &str, query: &str, body: &[u8]) -> String {
        let body = hex::encode(Sha256::digest(body));
        let (key, time, nonce) = (self.key_id, self.timestamp, &self.nonce);
        let text = format!("JIT2\n{key}\n{time}\n{nonce}\n{method}\n{path}\n{query}\n{body}");
        format!("v2={}", self.mac(&text))
    }

    fn mac(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    pub fn headers(&self, mac: String) -> Vec<(&'static str, String)> {
        vec![
            ("X-JIT-KeyID", self.key_id.to_owned()),
            ("X-JIT-Timestamp", self.timestamp.to_string()),
            ("X-JIT-Nonce", self.nonce.clone()),
            ("X-JIT-Signature", mac),
        ]
    }
}

#[allow(clippy::disallowed_methods)] // a caller has a clock of its own
pub fn now() -> i64 {
    i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap()
}

pub fn nonce() -> String {
    let bytes: [u8; 16] = rand::random();
    hex::encode(bytes)
}
