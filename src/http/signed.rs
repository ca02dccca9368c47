//! From raw bytes to a call that is signed, fresh, never seen before, and allowed.
//!
//! A handler that takes a `Signed<Scope>` cannot be reached in any other way. What is
//! wrong with a signature is counted and logged, and never told.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use bytes::BytesMut;
use serde::de::DeserializeOwned;

use super::App;
use super::reply::Problem;
use crate::code::Code;
use crate::config::{Key, Scope};
use crate::domain::{Millis, RequestId};
use crate::service::Ticket;
use crate::signature::{self, Message, Scheme, Secret};
use crate::store::Nonce;

pub const MOST_BYTES: usize = 64 * 1024;
const MOST_DRAINED: usize = 8 * 1024 * 1024;
/// Ten minutes and the width of the window: no accepted timestamp outlives its nonce.
const NONCE_KEPT: Millis = Millis::seconds(960);
const BODY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// The scope that a route needs, as a type: it cannot be forgotten.
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

/// A verified call that has not been taken yet: what it asks for is written together with
/// the nonce that it spends.
#[derive(Debug)]
pub struct Untaken<N> {
    call: Signed<N>,
    ticket: Arc<Ticket>,
}

/// Why a signature was refused. For the log and the metrics alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    Header,
    UnknownKey,
    Signature,
    SchemeNotAllowed,
    KeyExpired,
    Stale,
    Replayed,
    /// Of a slash command: not one of Mattermost's tokens, or another team's.
    Token,
    Team,
    /// Of a click or a dialog in Mattermost: not signed by the server, or nothing that jit made.
    Trigger,
    Card,
    Dialog,
}

impl Unsigned {
    pub const ALL: [Self; 12] = [
        Self::Header,
        Self::UnknownKey,
        Self::Signature,
        Self::SchemeNotAllowed,
        Self::KeyExpired,
        Self::Stale,
        Self::Replayed,
        Self::Token,
        Self::Team,
        Self::Trigger,
        Self::Card,
        Self::Dialog,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::SchemeNotAllowed => "scheme_not_allowed",
            Self::KeyExpired => "key_expired",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::Token => "token",
            Self::Team => "team",
            Self::Trigger => "trigger",
            Self::Card => "card",
            Self::Dialog => "dialog",
        }
    }
}

impl<N: Needs> FromRequest<Arc<App>> for Signed<N> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let untaken = Untaken::from_request(request, app).await?;
        app.service.use_up(&untaken.ticket).await?;
        Ok(untaken.call)
    }
}

impl<N> Untaken<N> {
    /// Takes the call: whatever comes of it, it is not taken again.
    pub async fn once<F>(
        self,
        app: &App,
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

impl<N: Needs> FromRequest<Arc<App>> for Untaken<N> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read(&parts.headers, body).await?;
        let query = parts.uri.query().unwrap_or_default();
        let call = Call {
            method: &parts.method,
            path: parts.uri.path(),
            query,
            body: &body,
        };
        let checked = check(app, &parts.headers, &call).map_err(|why| refused(why, call.path));
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

/// What is wrong is for the log and the figures; the caller is told that something is.
pub(crate) fn refused(why: Unsigned, path: &str) -> Problem {
    super::ops::count_unsigned(why);
    let reason = why.as_str();
    tracing::warn!(reason, path, "a call was not accepted as signed");
    Problem::new(Code::Unsigned, "the call is not signed as it must be")
}

struct Call<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    body: &'a [u8],
}

/// The whole body, if it is no larger than anybody needs and comes in time.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    match tokio::time::timeout(BODY_PATIENCE, collect(body, announced.unwrap_or(0))).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            let message = format!("a body may have at most {MOST_BYTES} bytes");
            Err(Problem::new(Code::TooLarge, message))
        }
        Ok(Err(error)) => Err(Problem::malformed(format!(
            "the body could not be read: {error}"
        ))),
        Err(_) => Err(Problem::malformed("the body did not arrive in time")),
    }
}

/// The whole body, or none if it is too large. One that is too large is read on for a
/// while and thrown away: whoever is still sending does not hear an answer.
async fn collect(mut body: Body, announced: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut whole = BytesMut::with_capacity(announced.min(MOST_BYTES));
    let mut size = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        size += data.len();
        if size <= MOST_BYTES {
            whole.extend_from_slice(&data);
        } else if size > MOST_DRAINED {
            break;
        }
    }
    let fits = size.max(announced) <= MOST_BYTES;
    Ok(fits.then(|| whole.freeze()))
}

fn check(
    app: &App,
    headers: &HeaderMap,
    call: &Call<'_>,
) -> Result<(String, Arc<Key>, Nonce), Unsigned> {
    let (Some(key_id), Some(timestamp), Some(nonce), Some(mac)) = (
        only(headers, "x-jit-keyid"),
        only(headers, "x-jit-timestamp"),
        only(headers, "x-jit-nonce").filter(|nonce| (1..=128).contains(&nonce.len())),
        only(headers, "x-jit-signature"),
    ) else {
        return Err(Unsigned::Header);
    };
    // The key that is named, and no other.
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

/// It may have been taken where this store was copied from.
fn is_of_the_original(app: &App, timestamp: &str) -> bool {
    let seconds: Option<i64> = timestamp.parse().ok();
    app.signed_after
        .is_some_and(|after| seconds.is_none_or(|seconds| seconds <= after.seconds()))
}

/// A header that is there exactly once, in plain text.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

impl<N> Signed<N> {
    /// The body as what it must be; what is wrong with it is said by field.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.check_content_type()?;
        let mut reader = serde_json::Deserializer::from_slice(&self.body);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let what = said(&error.into_inner());
            Problem::malformed(match path.as_str() {
                "." => format!("the body is not what it must be: {what}"),
                field => format!("{field}: {what}"),
            })
        })?;
        reader
            .end()
            .map_err(|_| Problem::malformed("the body goes on after its JSON object"))?;
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

    /// The id in `/requests/{id}/…`. What is no id names no request.
    pub fn request_id(&self) -> Result<RequestId, Problem> {
        let text = self.path.split('/').nth(2).unwrap_or_default();
        text.parse().map_err(|_| {
            Problem::new(
                Code::Unknown,
                "there is no such request; an id looks like a UUID",
            )
        })
    }

    /// A header for a handler, if it is there exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        only(&self.headers, name)
    }

    /// What makes this call another than the next one with the same key.
    pub fn fingerprint(&self) -> String {
        use sha2::{Digest, Sha256};
        hex::encode(Sha256::digest(&self.body))
    }
}

/// A field is found by its name; where it stands helps only if it is no JSON at all.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (error.is_data(), text.find(" at line ")) {
        (true, Some(place)) => text[..place].to_owned(),
        _ => text,
    }
}

/// The keys as they are now, and the tokens of Mattermost's command; a rotation replaces
/// them whole.
#[derive(Debug)]
pub struct Keyring {
    held: RwLock<Arc<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    keys: BTreeMap<String, Arc<Key>>,
    command_tokens: Vec<Secret>,
}

impl Keyring {
    pub fn new(keys: BTreeMap<String, Key>, command_tokens: Vec<Secret>) -> Self {
        let held = RwLock::default();
        let keyring = Self { held };
        keyring.replace(keys, command_tokens);
        keyring
    }

    pub fn replace(&self, keys: BTreeMap<String, Key>, command_tokens: Vec<Secret>) {
        let keys = keys
            .into_iter()
            .map(|(id, key)| (id, Arc::new(key)))
            .collect();
        let held = Held {
            keys,
            command_tokens,
        };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
    }

    pub fn key(&self, id: &str) -> Option<Arc<Key>> {
        self.held().keys.get(id).cloned()
    }

    /// One of them, whichever: while a token is changed there are two.
    pub fn is_command_token(&self, text: &str) -> bool {
        let held = self.held();
        let hits = held.command_tokens.iter().filter(|token| token.is(text));
        hits.count() > 0
    }

    fn held(&self) -> Arc<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}
