//! Verifies a call: its signature, its timestamp, its nonce, and the scope of its key.
//!
//! A handler that takes a `Signed<…>` or an `Untaken<…>` runs only for a verified call. jit
//! counts and logs the reason of a refused signature, and does not tell it to the caller.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::HttpState;
use super::body::read;
use super::reply::Problem;
use super::unsigned::Unsigned;
use crate::code::Code;
use crate::config::{KeyConfig, Scope};
use crate::domain::{Millis, RequestId};
use crate::service::Ticket;
use crate::signature::{self, Message, Scheme};
use crate::store::Nonce;

/// How long the store keeps a nonce. This is longer than the window of accepted timestamps, so
/// a nonce never expires while its signature is still fresh.
const NONCE_KEPT: Millis = Millis::seconds(960);

/// The scope that a route needs, as a type, so that no handler can omit the check.
pub trait Needs: Send + 'static {
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($name:ident => $scope:ident),+) => {
        $(#[derive(Debug)]
        pub struct $name;
        impl Needs for $name {
            const SCOPE: Scope = Scope::$scope;
        })+
    };
}
needs!(
    ToRequest => Request,
    ToApprove => Approve,
    ToRevoke => Revoke,
    ToConfigure => Config,
    ToRead => Read
);

/// A verified call.
#[derive(Debug)]
pub struct Signed<N> {
    pub key_id: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    body: Bytes,
    needs: PhantomData<N>,
}

/// A verified call whose nonce is not spent yet. The store spends the nonce in the same commit
/// as the change that the call asks for.
#[derive(Debug)]
pub struct Untaken<N> {
    call: Signed<N>,
    ticket: Arc<Ticket>,
}

impl<N: Needs> FromRequest<Arc<HttpState>> for Signed<N> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<HttpState>) -> Result<Self, Problem> {
        let untaken = Untaken::from_request(request, app).await?;
        app.service.use_up(&untaken.ticket).await?;
        Ok(untaken.call)
    }
}

impl<N> Untaken<N> {
    /// Runs the call and spends its nonce, whether the call succeeds or fails.
    pub async fn once<F>(
        self,
        app: &HttpState,
        act: impl FnOnce(Signed<N>, Arc<Ticket>) -> F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Response, Problem>>,
    {
        let done = act(self.call, self.ticket.clone()).await;
        app.service.use_up(&self.ticket).await?;
        done
    }
}

impl<N: Needs> FromRequest<Arc<HttpState>> for Untaken<N> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<HttpState>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read(&parts.headers, body).await?;
        let query = parts.uri.query().unwrap_or_default();
        let call = SignedParts {
            method: &parts.method,
            path: parts.uri.path(),
            query,
            body: &body,
        };
        let checked =
            check(app, &parts.headers, &call).map_err(|why| Problem::unsigned(why, call.path));
        let (key_id, key, nonce) = checked?;
        let ticket = Arc::new(Ticket::new(nonce));
        if !key.scopes.contains(&N::SCOPE) {
            app.service.use_up(&ticket).await?;
            let message = format!("key {key_id} lacks the scope {}", N::SCOPE.as_str());
            return Err(Problem::new(Code::NotAllowed, message));
        }
        let call = Signed {
            key_id,
            path: parts.uri.path().to_owned(),
            query: query.to_owned(),
            headers: parts.headers,
            body,
            needs: PhantomData,
        };
        Ok(Self { call, ticket })
    }
}

struct SignedParts<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    body: &'a [u8],
}

fn check(
    app: &HttpState,
    headers: &HeaderMap,
    call: &SignedParts<'_>,
) -> Result<(String, Arc<KeyConfig>, Nonce), Unsigned> {
    let (Some(key_id), Some(timestamp), Some(nonce), Some(mac)) = (
        only(headers, "x-jit-keyid"),
        only(headers, "x-jit-timestamp"),
        only(headers, "x-jit-nonce").filter(|nonce| (1..=128).contains(&nonce.len())),
        only(headers, "x-jit-signature"),
    ) else {
        return Err(Unsigned::Header);
    };
    // Only the named key counts: trying all keys would let one key sign in another's name.
    let Some(key) = app.keyring.key(key_id) else {
        return Err(Unsigned::UnknownKey);
    };
    let message = Message {
        key_id,
        timestamp,
        nonce,
        method: call.method.as_str(),
        path: call.path,
        query: call.query,
        body: call.body,
    };
    let Ok(scheme) = signature::verify(&key.secret, &message, mac) else {
        return Err(Unsigned::Signature);
    };
    if key.require_v2 && scheme != Scheme::V2 {
        return Err(Unsigned::SchemeNotAllowed);
    }
    let now = app.service.clock().now();
    if key.expires.is_some_and(|end| end <= now) {
        return Err(Unsigned::KeyExpired);
    }
    if !signature::is_fresh(timestamp, now) || is_of_the_original(app, timestamp) {
        return Err(Unsigned::Stale);
    }
    let nonce = Nonce {
        text: nonce.to_owned(),
        at: now,
        keep_until: now + NONCE_KEPT,
    };
    Ok((key_id.to_owned(), key, nonce))
}

/// Reports whether the call was signed before this store was copied: the original store may
/// have accepted it already.
fn is_of_the_original(app: &HttpState, timestamp: &str) -> bool {
    let seconds: Option<i64> = timestamp.parse().ok();
    app.signed_after
        .is_some_and(|after| seconds.is_none_or(|seconds| seconds <= after.seconds()))
}

/// Returns the value of a header that occurs exactly once and is plain text.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

impl<N> Signed<N> {
    /// Parses the body. The error names the field that is wrong.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.check_content_type()?;
        let mut reader = serde_json::Deserializer::from_slice(&self.body);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let what = said(&error.into_inner());
            Problem::malformed(match path.as_str() {
                "." => format!("the body is not valid: {what}"),
                field => format!("{field}: {what}"),
            })
        })?;
        reader
            .end()
            .map_err(|_| Problem::malformed("the body has more text after its JSON object"))?;
        Ok(value)
    }

    fn check_content_type(&self) -> Result<(), Problem> {
        let Some(kind) = self.headers.get(header::CONTENT_TYPE) else {
            return Ok(());
        };
        let kind = kind.to_str().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        Err(Problem::new(
            Code::NotJson,
            "send Content-Type: application/json",
        ))
    }

    /// Returns the id in `/requests/{id}/…`. A text that is not an id is answered like an unknown
    /// request.
    pub fn request_id(&self) -> Result<RequestId, Problem> {
        let text = self.path.split('/').nth(2).unwrap_or_default();
        text.parse().map_err(|_| {
            Problem::new(
                Code::Unknown,
                "there is no request with this id; an id looks like a UUID",
            )
        })
    }

    /// Returns the value of a header that occurs exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        only(&self.headers, name)
    }

    /// Returns a hash that differs between different calls with the same idempotency key.
    pub fn fingerprint(&self) -> String {
        use sha2::{Digest, Sha256};
        hex::encode(Sha256::digest(&self.body))
    }
}

/// Describes a JSON error. The line and the column are kept only for text that is not JSON:
/// otherwise the field name is enough.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (error.is_data(), text.find(" at line ")) {
        (true, Some(place)) => text[..place].to_owned(),
        _ => text,
    }
}
