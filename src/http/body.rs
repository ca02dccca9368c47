//! Reads a body: whole, bounded in size and in time.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;

use super::reply::Problem;
use crate::code::Code;

pub const MOST_BYTES: usize = 64 * 1024;
const MOST_DRAINED: usize = 8 * 1024 * 1024;
const BODY_PATIENCE: Duration = Duration::from_secs(10);

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
