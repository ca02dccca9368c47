//! The stream of a connection. A write that had to wait for the caller and then went on is progress:
//! a caller that receives slowly is not idle, and one that receives nothing is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::IdleTime;

pub struct WatchedStream<S> {
    stream: S,
    idle_time: IdleTime,
    /// The last write had to wait for the caller.
    has_waited: bool,
}

impl<S> WatchedStream<S> {
    pub fn new(stream: S, idle_time: IdleTime) -> Self {
        Self {
            stream,
            idle_time,
            has_waited: false,
        }
    }

    fn watched<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if self.has_waited && written.is_ready() {
            self.idle_time.begin_again();
        }
        self.has_waited = written.is_pending();
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// Without vectored writes: to copy an answer behind its head costs less than to send two parts.
impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
