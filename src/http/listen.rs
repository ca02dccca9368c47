//! Accepts connections and serves HTTP/1.1 on them. A connection that sends no complete
//! request head in time, or that takes no answer, is closed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::Connections;
use super::stream::WatchedStream;
use crate::telemetry::sampled;

/// The largest head of a call.
const MOST_HEAD_BYTES: usize = 32 * 1024;
/// How long a connection may take to send the head of a call or to receive a part of an answer, or
/// stay idle.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often jit looks for connections that are idle too long, as a part of this time. One timer
/// for all costs less than one for each call.
const CHECKS_IN_TIMEOUT: u32 = 10;
/// The pause after a failed accept, for example when the process has no file descriptor left:
/// the next closed connection frees one.
const AFTER_A_FAULT: Duration = Duration::from_millis(100);

/// How long calls in progress may take to finish after the process is asked to stop.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(2);

/// Accepts calls until `stop`, and returns when the calls in progress are answered.
pub async fn listen(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    idle_timeout: Duration,
    stop: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    // With `half_close`, a call costs less: jit does not look during it whether the caller is still
    // there (decision 83).
    // A2: the buffer bounds only a head that arrives in parts.
    http.header_read_timeout(None)
        .max_buf_size(MOST_HEAD_BYTES)
        .max_header_size(MOST_HEAD_BYTES)
        .half_close(true);
    let (open, tasks) = (GracefulShutdown::new(), TaskTracker::new());
    let closing = tasks.spawn(close_idle(connections.clone(), idle_timeout));
    while let Some((stream, address)) = next(&listener, &stop).await {
        let Some(connection) = connections.enter(address) else {
            if let Some(unlogged) = sampled("refused connection") {
                tracing::warn!(%address, unlogged, "refused a connection: all connections are in a call");
            }
            continue;
        };
        let stream = WatchedStream::new(stream, connection.idle_time());
        let calls = connection.calls(router.clone());
        let call = open.watch(http.serve_connection(TokioIo::new(stream), calls));
        tasks.spawn(async move {
            let ended = tokio::select! {
                biased;
                ended = call => ended,
                () = connection.hang_up.cancelled() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended before its call was complete");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_MARGIN, open.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("closed the connections whose calls did not finish in time");
    }
    connections.hang_up();
    closing.abort();
    tasks.close();
    tasks.wait().await;
}

async fn close_idle(connections: Arc<Connections>, timeout: Duration) {
    let mut looks = tokio::time::interval(timeout / CHECKS_IN_TIMEOUT);
    loop {
        looks.tick().await;
        connections.close_idle(timeout);
    }
}

async fn next(listener: &TcpListener, stop: &CancellationToken) -> Option<(TcpStream, IpAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                return Some((stream, from.ip()));
            }
            Err(error) => {
                if let Some(unlogged) = sampled("failed accept") {
                    tracing::error!(%error, unlogged, "accepting a connection failed; jit tries again in 100 ms");
                }
                tokio::time::sleep(AFTER_A_FAULT).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use crate::telemetry::captured::CapturedLog;

    /// A listener on a free port, which serves until the token is cancelled.
    async fn opened(
        router: Router,
        most: usize,
        timeout: Duration,
    ) -> (impl Future<Output = ()>, SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, stop) = (Connections::new(most), CancellationToken::new());
        let serving = listen(listener, router, connections, timeout, stop.clone());
        (serving, address, stop)
    }

    fn hello() -> Router {
        Router::new().fallback(|| async { "hello" })
    }

    /// Sends two calls at once and closes this side of the connection, as some tools do. Calls
    /// `during` while the first call runs.
    async fn answers_to_two(during: impl FnOnce(&CancellationToken)) -> String {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (entered, waits) = (begun.clone(), go.clone());
        let slow = move || async move {
            entered.notify_one();
            waits.notified().await;
            "first"
        };
        let router = Router::new()
            .route("/slow", get(slow))
            .fallback(|| async { "second" });
        let (serving, address, stop) = opened(router, 8, Duration::from_secs(3600)).await;
        let talking = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let calls =
                ["/slow", "/"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: jit\r\n\r\n"));
            stream.write_all(calls.concat().as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            begun.notified().await;
            during(&stop);
            tokio::task::yield_now().await;
            go.notify_one();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.unwrap();
            stop.cancel();
            heard
        };
        tokio::join!(serving, talking).1
    }

    #[tokio::test]
    async fn calls_are_answered_in_their_order_after_the_caller_closes_its_side() {
        let heard = answers_to_two(|_| {}).await;
        let (first, second) = (heard.find("first"), heard.find("second"));
        assert!(first.is_some() && first < second, "{heard}");
    }

    #[tokio::test]
    async fn a_stop_waits_for_the_answer_to_the_present_call() {
        let heard = answers_to_two(CancellationToken::cancel).await;
        assert!(heard.contains("first"), "{heard}");
    }

    async fn answer_to(said: &[u8]) -> String {
        let (serving, address, stop) = opened(hello(), 8, Duration::from_millis(50)).await;
        let talking = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said).await.unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.unwrap();
            stop.cancel();
            heard
        };
        tokio::join!(serving, talking).1
    }

    /// Without the limit, each of these connections would stay open for ever.
    #[tokio::test]
    async fn a_connection_without_a_complete_head_is_closed() {
        assert_eq!(answer_to(b"").await, "");
        let half = answer_to(b"GET / HTTP/1.1\r\nHost: j").await;
        assert!(!half.contains("hello"), "{half}");
        let whole = answer_to(b"GET / HTTP/1.1\r\nHost: jit\r\n\r\n").await;
        assert!(whole.ends_with("hello"), "{whole}");
    }

    /// A2
    #[tokio::test]
    async fn a2_a_head_of_more_than_32_kib_is_refused() {
        // Not one byte more: the server would reset the connection with unread bytes.
        let head = format!(
            "GET / HTTP/1.1\r\nHost: jit\r\nx: {}",
            "x".repeat(MOST_HEAD_BYTES)
        );
        let refused = answer_to(&head.as_bytes()[..MOST_HEAD_BYTES]).await;
        assert!(refused.starts_with("HTTP/1.1 431 "), "{refused}");
    }

    /// A2: a larger head that arrived at once was accepted.
    #[tokio::test]
    async fn a2_a_complete_head_is_refused_above_32_kib_only() {
        for (length, wanted) in [
            (MOST_HEAD_BYTES, "HTTP/1.1 200 "),
            (MOST_HEAD_BYTES + 1, "HTTP/1.1 431 "),
            (40_000, "HTTP/1.1 431 "),
        ] {
            let (begin, end) = ("GET / HTTP/1.1\r\nHost: jit\r\nx: ", "\r\n\r\n");
            let value = "x".repeat(length - begin.len() - end.len());
            let answer = answer_to(format!("{begin}{value}{end}").as_bytes()).await;
            assert!(answer.starts_with(wanted), "{length}: {answer}");
        }
    }

    /// A client that has sent half of a head does not delay the stop of the process.
    #[tokio::test]
    async fn a_silent_connection_does_not_delay_the_stop() {
        let (serving, address, stop) = opened(hello(), 8, Duration::from_secs(3600)).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let asked = async {
            // The server must accept the connection before the stop.
            tokio::task::yield_now().await;
            stop.cancel();
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::join!(serving, asked)
        });
        assert!(ended.await.is_ok());
    }

    /// A5: a caller that opens many connections does not fill the log.
    #[tokio::test]
    async fn a5_the_log_has_a_sample_of_the_refused_connections() {
        let (log, _guard) = CapturedLog::start();
        // With a limit of one connection, the share of one address is zero, so each is refused.
        let (serving, address, stop) = opened(hello(), 1, Duration::from_secs(3600)).await;
        let talking = async {
            for _ in 0..50 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            }
            stop.cancel();
        };
        tokio::join!(serving, talking);
        let lines = log.text().matches("refused a connection").count();
        assert!((1..=20).contains(&lines), "{lines}");
    }
}
