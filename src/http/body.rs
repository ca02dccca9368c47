//! Reads the body of a call, with a limit on its size and on the time that it may take.

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

/// Reads the whole body. Fails if the body is larger than `MOST_BYTES` or arrives too late.
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

/// Returns the whole body, or `None` if it is too large. It reads and discards the rest of a
/// body that is too large, up to a limit: many clients read no answer while they still send.
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
