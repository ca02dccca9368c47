//! Reads the body of a call, with limits on its size, on the time that it may take, and on the
//! number of bodies that jit awaits at the same time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::BytesMut;

use super::connections::Peer;
use super::limits::BodyPool;
use super::reply::Problem;
use crate::code::Code;

pub const MOST_BYTES: usize = 64 * 1024;
const MOST_DRAINED: usize = 8 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the whole body. Fails if the body is larger than `MOST_BYTES` or arrives too late, or if
/// the pool gives its place to another call.
pub(crate) async fn read(pool: &BodyPool, request: Request) -> Result<(HeaderMap, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let peer = Peer::of(&parts.extensions);
    let unread = refuse_large(pool, peer, &parts.headers, body).await?;
    Ok((parts.headers, unread.read(pool, peer).await?))
}

/// A body that is not read yet, and that its head does not announce as too large.
pub(super) struct UnreadBody {
    body: Body,
    announced: usize,
}

/// Refuses a body that its head announces as larger than `MOST_BYTES`.
pub(super) async fn refuse_large(
    pool: &BodyPool,
    peer: Option<Peer>,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<UnreadBody, Problem> {
    let announced = announced(headers, &body);
    if announced <= MOST_BYTES {
        return Ok(UnreadBody { body, announced });
    }
    Box::pin(in_place(pool, peer, discard(&mut body, 0))).await?;
    Err(too_large())
}

impl UnreadBody {
    pub async fn read(self, pool: &BodyPool, peer: Option<Peer>) -> Result<Bytes, Problem> {
        if self.body.is_end_stream() {
            return Ok(Bytes::new());
        }
        // In a box: many calls have no body, and the future of each call is copied several times.
        let whole = Box::pin(in_place(pool, peer, collect(self.body, self.announced)));
        whole.await?.ok_or_else(too_large)
    }
}

fn too_large() -> Problem {
    let message = format!("a body may have at most {MOST_BYTES} bytes");
    Problem::new(Code::TooLarge, message)
}

/// The size of the body, as far as its head tells; an event of Lambda has the whole body.
fn announced(headers: &HeaderMap, body: &Body) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let known = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    length.unwrap_or(0).max(known)
}

/// Awaits a body. If it has not arrived completely, it needs a place in the pool.
async fn in_place<T>(
    pool: &BodyPool,
    peer: Option<Peer>,
    arriving: impl Future<Output = Result<T, axum::Error>>,
) -> Result<T, Problem> {
    let mut arriving = pin!(arriving);
    let at_once = poll_fn(|context| Poll::Ready(arriving.as_mut().poll(context))).await;
    let arrived = match at_once {
        Poll::Ready(arrived) => arrived,
        Poll::Pending => {
            let place = pool.enter(peer);
            tokio::select! {
                biased;
                arrived = arriving => arrived,
                () = tokio::time::sleep(BODY_TIMEOUT) => {
                    return Err(Problem::malformed("the body did not arrive in time"));
                }
                () = place.evicted() => {
                    let message = "jit waits for the bodies of too many calls; send the whole call";
                    return Err(Problem::new(Code::TooMany, message));
                }
            }
        }
    };
    arrived.map_err(|error| Problem::malformed(format!("the body could not be read: {error}")))
}

/// Returns the whole body, or `None` if it is too large.
async fn collect(mut body: Body, announced: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut whole = BytesMut::with_capacity(announced.min(MOST_BYTES));
    while let Some(data) = next(&mut body).await? {
        if whole.len() + data.len() > MOST_BYTES {
            discard(&mut body, whole.len() + data.len()).await?;
            return Ok(None);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Some(whole.freeze()))
}

/// Reads and discards the rest of a body that is too large, up to a limit: many clients read no
/// answer while they still send.
async fn discard(body: &mut Body, mut size: usize) -> Result<(), axum::Error> {
    while let Some(data) = next(body).await? {
        size += data.len();
        if size > MOST_DRAINED {
            break;
        }
    }
    Ok(())
}

/// The next data of the body; `None` at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, axum::Error> {
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
