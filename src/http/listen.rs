//! From sockets to the router: HTTP/1.1, and no patience with who does not say what he wants.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For a call's head to arrive, and for a connection to lie idle.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// Out of sockets or the like: it passes when somebody hangs up.
const AFTER_A_FAULT: Duration = Duration::from_millis(100);

/// For answers that were begun to get out once the process is asked to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Answers until `stop`; returns when the answers that were begun are out.
pub async fn listen(
    listener: TcpListener,
    router: Router,
    head_patience: Duration,
    stop: CancellationToken,
) {
    let calls = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_patience);
    let (open, tasks) = (GracefulShutdown::new(), TaskTracker::new());
    let hang_up = CancellationToken::new();
    while let Some(stream) = next(&listener, &stop).await {
        let call = http.serve_connection(TokioIo::new(stream), calls.clone());
        let (call, hang_up) = (open.watch(call), hang_up.clone());
        tasks.spawn(async move {
            let ended = tokio::select! {
                ended = call => ended,
                () = hang_up.cancelled() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_WORDS, open.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("hung up on those who had not said what they want");
    }
    hang_up.cancel();
    tasks.close();
    tasks.wait().await;
}

async fn next(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY not set");
                }
                return Some(stream);
            }
            Err(error) => {
                tracing::error!(%error, "no connection can be taken");
                tokio::time::sleep(AFTER_A_FAULT).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn heard(said: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(|| async { "hello" });
        let stop = CancellationToken::new();
        let patience = Duration::from_millis(50);
        let serving = listen(listener, router, patience, stop.clone());
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

    /// Each of these would wait for ever for a server that has patience.
    #[tokio::test]
    async fn who_says_nothing_or_half_of_it_is_hung_up_on() {
        assert_eq!(heard(b"").await, "");
        let half = heard(b"GET / HTTP/1.1\r\nHost: j").await;
        assert!(!half.contains("hello"), "{half}");
        let whole = heard(b"GET / HTTP/1.1\r\nHost: jit\r\n\r\n").await;
        assert!(whole.ends_with("hello"), "{whole}");
    }

    /// Somebody in the middle of a word does not keep the process from ending.
    #[tokio::test]
    async fn nobody_is_waited_for_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let (router, stop) = (Router::new(), CancellationToken::new());
        let patience = Duration::from_secs(3600);
        let serving = listen(listener, router, patience, stop.clone());
        let asked = async {
            // The connection is taken, then the end is asked for.
            tokio::task::yield_now().await;
            stop.cancel();
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::join!(serving, asked)
        });
        assert!(ended.await.is_ok());
    }
}
