//! Verifies a call: its signature, its timestamp, its nonce, and the scope of its key.
//!
//! A handler that takes a `Signed<…>` or an `Unspent<…>` runs only for a verified call. jit
//! counts and logs the reason of a refused signature, and does not tell it to the caller.

use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::AsHeaderName;
use axum::http::{Extensions, HeaderMap, HeaderName, Uri, header};
use serde::de::DeserializeOwned;

use super::HttpState;
use super::body::refuse_large;
use super::connections::Peer;
use super::limits::{BodyOf, Seat, SeatFor};
use super::rates::RateOf;
use super::reply::Problem;
use super::spent::spend;
use super::unsigned::Unsigned;
use crate::code::Code;
use crate::config::{KeyConfig, Scope};
use crate::domain::{Millis, RequestId, Timestamp};
use crate::service::CallRight;
use crate::signature::{self, Message, Scheme};
use crate::store::Nonce;

/// How long the store keeps a nonce. This is longer than the window of accepted timestamps, so
/// a nonce never expires while its signature is still fresh.
const NONCE_KEPT: Millis = Millis::seconds(960);

static KEY_ID: HeaderName = HeaderName::from_static("x-jit-keyid");
static TIMESTAMP: HeaderName = HeaderName::from_static("x-jit-timestamp");
static NONCE: HeaderName = HeaderName::from_static("x-jit-nonce");
static SIGNATURE: HeaderName = HeaderName::from_static("x-jit-signature");

/// The scope and the kind of seat that a route needs, as a type, so that no handler can omit the
/// check.
pub trait Needs: Send + 'static {
    const SCOPE: Scope;
    const SEAT: SeatFor;
    const RATE: RateOf;
}

macro_rules! needs {
    ($($name:ident => $scope:ident, $seat:ident, $rate:ident);+) => {
        $(#[derive(Debug)]
        pub struct $name;
        impl Needs for $name {
            const SCOPE: Scope = Scope::$scope;
            const SEAT: SeatFor = SeatFor::$seat;
            const RATE: RateOf = RateOf::$rate;
        })+
    };
}
needs!(
    ToRequest => Request, OtherCall, Creates;
    ToCancel => Request, OtherCall, OtherCalls;
    ToApprove => Approve, OtherCall, OtherCalls;
    ToRevoke => Revoke, Revoke, UnlimitedChanges;
    ToConfigure => Config, OtherCall, Creates;
    ToUnbind => Config, OtherCall, OtherCalls;
    ToRead => Read, OtherCall, OtherCalls
);

/// A verified call.
#[derive(Debug)]
pub struct Signed<N> {
    pub key_id: String,
    pub key: Arc<KeyConfig>,
    pub headers: HeaderMap,
    uri: Uri,
    body: Bytes,
    /// Given back when the handler and its task have ended.
    seat: Arc<Seat>,
    needs: PhantomData<N>,
}

/// A verified call whose nonce is not spent yet. The store spends the nonce in the same commit
/// as the change that the call asks for. If the handler commits no change, `RightCell::spend` does.
#[derive(Debug)]
pub struct Unspent<N> {
    pub call: Signed<N>,
    pub right: Arc<CallRight>,
}

/// The cell in which a verified call leaves its right; `spend` spends the nonce after the handler.
#[derive(Clone, Debug, Default)]
pub(super) struct RightCell(Arc<OnceLock<(Arc<CallRight>, RateOf)>>);

impl RightCell {
    /// Spends the nonce of the call, if it was verified, whether its handler succeeded, refused or
    /// panicked. Only a change that failed at the store leaves its nonce fresh.
    pub async fn spend(&self, app: &HttpState) -> Result<(), Problem> {
        let Some((right, rate)) = self.0.get() else {
            return Ok(());
        };
        spend(&app.service, &app.rates, *rate, right).await?;
        match right.key_id().filter(|_| right.is_refused()) {
            Some(key_id) => Err(app.rates.too_many(key_id, *rate)),
            None => Ok(()),
        }
    }
}

impl<N: Needs> FromRequest<Arc<HttpState>> for Signed<N> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<HttpState>) -> Result<Self, Problem> {
        let unspent = Unspent::from_request(request, app).await?;
        app.service.use_up(&unspent.right).await?;
        Ok(unspent.call)
    }
}

impl<N: Needs> FromRequest<Arc<HttpState>> for Unspent<N> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<HttpState>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path();
        let refused = |why| Problem::unsigned(why, path);
        let peer = Peer::of(&parts.extensions);
        let bodies = app.bodies.of(body_of::<N>(app, &parts.headers));
        let body = refuse_large(bodies, peer, &parts.headers, body).await?;
        let head = SignedHead::read(app, &parts.headers).map_err(refused)?;
        let body = body.read(bodies, peer).await?;
        let message = Message {
            key_id: head.key_id,
            timestamp: head.timestamp,
            nonce: head.nonce,
            method: parts.method.as_str(),
            path,
            query: parts.uri.query().unwrap_or_default(),
            body: &body,
        };
        let key = verified(app, &message, head.mac).map_err(refused)?;
        refuse_early::<N>(app, head.timestamp)?;
        // A call that gets no seat can be sent again as it is: its nonce is not spent.
        let seat = Arc::new(app.seats.take(N::SEAT)?);
        let now = app.service.clock().uptime();
        let rate = rate_of::<N>(&key);
        app.rates.count(head.key_id, head.nonce, rate, now)?;
        let key_id = head.key_id.to_owned();
        let right = Arc::new(CallRight::new(head.spendable(), Some(key_id.clone())));
        leave_right::<N>(&mut parts.extensions, &right)?;
        if !key.scopes.contains(&N::SCOPE) {
            let message = format!("key {key_id} lacks the scope {}", N::SCOPE.as_str());
            return Err(Problem::new(Code::NotAllowed, message));
        }
        let call = Signed {
            key_id,
            key,
            headers: parts.headers,
            uri: parts.uri,
            body,
            seat,
            needs: PhantomData,
        };
        Ok(Self { call, right })
    }
}

/// A14: a call that its key may not make costs no more than its nonce.
fn rate_of<N: Needs>(key: &KeyConfig) -> RateOf {
    match key.scopes.contains(&N::SCOPE) {
        true => N::RATE,
        false => RateOf::OtherCalls,
    }
}

/// P5: on a route without a cell the call could be repeated, so jit refuses it.
fn leave_right<N: Needs>(
    extensions: &mut Extensions,
    right: &Arc<CallRight>,
) -> Result<(), Problem> {
    let cell = extensions.remove::<RightCell>();
    let left = cell.is_some_and(|cell| cell.0.set((right.clone(), N::RATE)).is_ok());
    left.then_some(())
        .ok_or_else(|| Problem::new(Code::Internal, "nothing spends the nonce of this call"))
}

/// The headers of a signed call. Everything that needs no body is checked before jit awaits one.
struct SignedHead<'h> {
    key_id: &'h str,
    timestamp: &'h str,
    nonce: &'h str,
    mac: &'h str,
    now: Timestamp,
}

impl<'h> SignedHead<'h> {
    fn read(app: &HttpState, headers: &'h HeaderMap) -> Result<Self, Unsigned> {
        let (Some(key_id), Some(timestamp), Some(nonce), Some(mac)) = (
            only(headers, &KEY_ID),
            only(headers, &TIMESTAMP),
            only(headers, &NONCE).filter(|nonce| (1..=128).contains(&nonce.len())),
            only(headers, &SIGNATURE),
        ) else {
            return Err(Unsigned::Header);
        };
        let now = app.service.clock().now();
        if !signature::is_fresh(timestamp, now) {
            return Err(Unsigned::Stale);
        }
        Ok(Self {
            key_id,
            timestamp,
            nonce,
            mac,
            now,
        })
    }

    fn spendable(&self) -> Nonce {
        Nonce {
            text: self.nonce.to_owned(),
            at: self.now,
            keep_until: self.now + NONCE_KEPT,
        }
    }
}

/// Returns the key that signed the call. A4: an unknown key costs as much time as a wrong
/// signature, so that the time does not tell which key ids exist.
fn verified(app: &HttpState, message: &Message<'_>, mac: &str) -> Result<Arc<KeyConfig>, Unsigned> {
    // Only the named key counts: trying all keys would let one key sign in another's name.
    let key = app.keyring.key(message.key_id);
    let secret = key.as_ref().map_or(app.keyring.decoy(), |key| &key.secret);
    let scheme = black_box(signature::verify(secret, message, mac));
    let key = key.ok_or(Unsigned::UnknownKey)?;
    let scheme = scheme.map_err(|_| Unsigned::Signature)?;
    if key.require_v2 && scheme != Scheme::V2 {
        return Err(Unsigned::SchemeNotAllowed);
    }
    let has_passed = |end: Timestamp| end <= app.service.clock().now();
    if key.expires.is_some_and(has_passed) {
        return Err(Unsigned::KeyExpired);
    }
    Ok(key)
}

/// The pool in which the body of this call waits. A10: a caller that knows no key takes no place of
/// a call with a key, and no other call takes a place of a revoke.
fn body_of<N: Needs>(app: &HttpState, headers: &HeaderMap) -> BodyOf {
    let is_known = only(headers, &KEY_ID).is_some_and(|id| app.keyring.has(id));
    match (is_known, N::SEAT) {
        (false, _) => BodyOf::UnknownKey,
        (true, SeatFor::Revoke) => BodyOf::Revoke,
        (true, SeatFor::OtherCall) => BodyOf::KnownKey,
    }
}

/// Refuses a call that was signed before jit lost its nonces: it may have been accepted already.
/// A11: a revoke that comes again ends only access that its person wanted to end.
fn refuse_early<N: Needs>(app: &HttpState, timestamp: &str) -> Result<(), Problem> {
    let seconds: Option<i64> = timestamp.parse().ok();
    let is_early = |after: Timestamp| seconds.is_none_or(|seconds| seconds <= after.seconds());
    match app.signed_after.filter(|after| is_early(*after)) {
        Some(after) if N::SCOPE != Scope::Revoke => {
            let message = format!(
                "jit accepts only calls that are signed after {after}, because its store was \
                 restored or copied and may not know which earlier calls it accepted; sign the \
                 call again after that time; a revoke is accepted now"
            );
            Err(Problem::new(Code::TooEarly, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns the value of a header that occurs exactly once and is plain text.
fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

impl<N> Signed<N> {
    /// The text after `?`, or an empty one.
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// The id in `/requests/{id}/…`, as it was sent.
    pub fn id_segment(&self) -> &str {
        self.uri.path().split('/').nth(2).unwrap_or_default()
    }

    /// Parses the body. The error names the field that is wrong.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.check_content_type()?;
        // To follow the names of the fields takes time, and only an error needs them.
        serde_json::from_slice(&self.body).or_else(|_| self.json_by_field())
    }

    fn json_by_field<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let mut reader = serde_json::Deserializer::from_slice(&self.body);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let what = describe(&error.into_inner());
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

    /// The seat, for a task that continues when the caller disconnects.
    pub(super) fn seat(&self) -> Arc<Seat> {
        self.seat.clone()
    }

    /// The id in `/requests/{id}/…`. A text that is not an id is answered like an unknown request.
    pub fn request_id(&self) -> Result<RequestId, Problem> {
        self.id_segment().parse().map_err(|_| {
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
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (error.is_data(), text.find(" at line ")) {
        (true, Some(place)) => text[..place].to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::path::Path;
    use std::pin::Pin;
    use std::task::Poll;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use tokio::sync::Notify;
    use tower::Service as _;

    use crate::clock::{Clock, SystemClock};
    use crate::http::router;
    use crate::http::test_state::{self, key, secret};

    fn state(folder: &Path) -> Arc<HttpState> {
        Arc::new(test_state::state(folder, Scope::Approve))
    }

    // A14
    #[test]
    fn a14_a_revoke_of_a_key_that_may_not_revoke_counts_as_any_other_call() {
        assert_eq!(rate_of::<ToRevoke>(&key(Scope::Read)), RateOf::OtherCalls);
        assert_eq!(
            rate_of::<ToRevoke>(&key(Scope::Revoke)),
            RateOf::UnlimitedChanges
        );
    }

    fn signed(path: &str) -> Request {
        let timestamp = SystemClock.now().seconds().to_string();
        let message = Message {
            key_id: "plugin",
            timestamp: &timestamp,
            nonce: "once",
            method: "POST",
            path,
            query: "",
            body: b"",
        };
        let request = axum::http::Request::post(path)
            .header("x-jit-keyid", "plugin")
            .header("x-jit-nonce", "once")
            .header("x-jit-timestamp", &timestamp)
            .header(
                "x-jit-signature",
                signature::sign(Scheme::V2, &secret(), &message),
            );
        request.body(Body::empty()).unwrap()
    }

    async fn status(router: &mut Router, path: &str) -> StatusCode {
        router.call(signed(path)).await.unwrap().status()
    }

    async fn panics(_: Unspent<ToApprove>) {
        panic!("a handler failed");
    }

    async fn changes_nothing(_: Unspent<ToApprove>) {}

    async fn needs_another_scope(_: Unspent<ToConfigure>) {}

    /// P5: the nonce of a verified call is spent, whatever its handler does.
    #[tokio::test]
    async fn a_call_is_accepted_once_even_if_its_handler_panics_or_changes_nothing() {
        for (path, first) in [
            ("/panics", StatusCode::INTERNAL_SERVER_ERROR),
            ("/changes-nothing", StatusCode::OK),
            ("/needs-another-scope", StatusCode::FORBIDDEN),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let app = state(folder.path());
            let others = Router::new()
                .route("/panics", post(panics))
                .route("/changes-nothing", post(changes_nothing))
                .route("/needs-another-scope", post(needs_another_scope));
            let mut router = router(app.clone(), others.with_state(app));
            assert_eq!(status(&mut router, path).await, first, "{path}");
            let second = status(&mut router, path).await;
            assert_eq!(second, StatusCode::UNAUTHORIZED, "{path}");
        }
    }

    async fn waits(
        State(app): State<Arc<HttpState>>,
        Unspent { call, right }: Unspent<ToApprove>,
    ) -> Result<(), Problem> {
        let work = async {
            GO.notified().await;
            Ok(())
        };
        app.spending(&call, right, Box::pin(work)).await
    }

    static GO: Notify = Notify::const_new();

    /// P5: jit closes the connection during a call.
    #[tokio::test]
    async fn a_call_whose_connection_closes_is_accepted_once() {
        let folder = tempfile::tempdir().unwrap();
        let app = state(folder.path());
        let others = Router::new().route("/waits", post(waits));
        let mut router = router(app.clone(), others.with_state(app.clone()));
        let mut call = router.call(signed("/waits"));
        let begun = poll_fn(|context| Poll::Ready(Pin::new(&mut call).poll(context))).await;
        assert!(begun.is_pending());
        drop(call);
        // A1: a caller that disconnects gets no further seat while jit works for it.
        assert_eq!(app.seats.taken(), 1);
        GO.notify_one();
        app.tasks.close();
        app.tasks.wait().await;
        assert_eq!(app.seats.taken(), 0);
        GO.notify_one();
        assert_eq!(
            status(&mut router, "/waits").await,
            StatusCode::UNAUTHORIZED
        );
    }

    /// P5: a route outside the router of jit runs no handler.
    #[tokio::test]
    async fn a_call_is_refused_on_a_route_that_spends_no_nonces() {
        let folder = tempfile::tempdir().unwrap();
        let app = state(folder.path());
        let bare = Router::new().route("/changes-nothing", post(changes_nothing));
        let mut without = bare.clone().with_state(app.clone());
        let refused = status(&mut without, "/changes-nothing").await;
        assert_eq!(refused, StatusCode::INTERNAL_SERVER_ERROR);
        let mut with = router(app.clone(), bare.with_state(app));
        assert_eq!(status(&mut with, "/changes-nothing").await, StatusCode::OK);
    }
}
