//! Many clients with one connection each, which send calls that were signed beforehand, so that
//! only the server is measured and not the signing.

use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{self, Key, OTHER_KEY, PLUGIN, sign};

pub struct Load {
    pub failed: usize,
    pub took: Vec<Duration>,
    span: Duration,
}

impl Load {
    /// Sends the calls of each client one after another until the time is over.
    pub async fn run<C>(address: &str, calls: Vec<C>, span: Duration) -> Self
    where
        C: IntoIterator<Item = Vec<u8>, IntoIter: Send> + Send + 'static,
    {
        let mut clients = tokio::task::JoinSet::new();
        let begun = Instant::now();
        for calls in calls {
            let address = address.to_owned();
            clients.spawn(async move { client(&address, calls, begun + span).await });
        }
        let done = clients.join_all().await;
        let span = begun.elapsed();
        let failed = done.iter().map(|(_, failed)| failed).sum();
        let took = done.into_iter().flat_map(|(took, _)| took).collect();
        Self { failed, took, span }
    }

    pub fn rate(&self) -> f64 {
        self.took.len() as f64 / self.span.as_secs_f64()
    }
}

/// The median, and what 99 of 100 do not exceed.
pub fn percentiles(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

async fn client(
    address: &str,
    calls: impl IntoIterator<Item = Vec<u8>>,
    end: Instant,
) -> (Vec<Duration>, usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut took, mut failed) = (Vec::new(), 0);
    let mut buffer = Vec::with_capacity(4096);
    for call in calls {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        stream.write_all(&call).await.unwrap();
        let status = answer(&mut stream, &mut buffer).await;
        took.push(begun.elapsed());
        failed += usize::from(!(200..300).contains(&status));
    }
    (took, failed)
}

/// Reads one whole answer, and returns its status.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    loop {
        if let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = std::str::from_utf8(&buffer[..head]).unwrap();
            let length = text
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse()
                        .ok()
                })
                .unwrap_or(0);
            if buffer.len() >= head + 4 + length {
                return text[9..12].parse().unwrap();
            }
        }
        let read = stream.read_buf(buffer).await.unwrap();
        assert!(read > 0, "the server closed the connection");
    }
}

/// Makes so many signed calls, and distributes them over the clients. Two keys sign them: one alone
/// would reach its limit.
pub fn signed_gets(path: &str, clients: usize, calls: usize) -> Vec<Vec<Vec<u8>>> {
    let keys = [&PLUGIN, &OTHER_KEY];
    let numbers = 0..calls;
    let call = |number| http("GET", path, "", keys[number % keys.len()]);
    deal(clients, numbers, call)
}

pub fn signed_creates(clients: usize, numbers: Range<usize>) -> Vec<Vec<Vec<u8>>> {
    deal(clients, numbers, create)
}

/// Creates that are signed when they are sent.
pub fn endless_creates(clients: usize) -> Vec<impl Iterator<Item = Vec<u8>> + Send> {
    let calls = |client| (client..).step_by(clients).map(create);
    (1_000_000..1_000_000 + clients).map(calls).collect()
}

fn create(number: usize) -> Vec<u8> {
    let body = process::wanted(number).to_string();
    http("POST", "/requests", &body, &PLUGIN)
}

fn deal(
    clients: usize,
    numbers: Range<usize>,
    call: impl Fn(usize) -> Vec<u8>,
) -> Vec<Vec<Vec<u8>>> {
    let each = numbers.len() / clients;
    let mut dealt = Vec::new();
    for client in 0..clients {
        let first = numbers.start + client * each;
        dealt.push((first..first + each).map(&call).collect());
    }
    dealt
}

/// One signed call, from its first line to its body.
pub fn http(method: &str, path: &str, body: &str, key: &Key) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: jit\r\n");
    for (name, value) in sign(key, method, path, body.as_bytes()) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str("Content-Type: application/json\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}
