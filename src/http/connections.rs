//! The open connections. Their number is limited, as a whole and for each address. A new
//! connection beyond a limit takes the place of an idle one: a connection that waits for its next
//! call, that still receives an answer, or whose head is incomplete. Of the idle connections, jit
//! closes the one that is idle for the longest time, of the address with the most connections.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use tokio_util::sync::CancellationToken;

use crate::lock::locked;

/// More connections than this need much memory: each may send a head of `MOST_HEAD_BYTES`.
const MOST: usize = 1024;
/// Files and connections that the process needs itself, for the store, AWS and Mattermost.
const RESERVED: usize = 128;
const FEWEST: usize = 16;
/// A3: a call can open a connection of jit itself, for example to Mattermost or DynamoDB.
const FILES_OF_ONE: usize = 2;

/// The value of `idle_since` during a call.
const BUSY: u64 = u64::MAX;
/// The value of `idle_since` after another connection took the place. No call begins any more.
const CLOSING: u64 = u64::MAX - 1;

#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_of_address: usize,
    open: Mutex<Open>,
    /// The idle times count from here.
    begun: Instant,
    /// Cancelled when all connections must close.
    hang_up: CancellationToken,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    /// In nanoseconds since `Connections::begun`, or `BUSY`, or `CLOSING`.
    idle_since: Arc<AtomicU64>,
    hang_up: CancellationToken,
}

/// One open connection; dropping it removes it from the list.
#[derive(Debug)]
pub struct Connection {
    connections: Arc<Connections>,
    number: u64,
    peer: Peer,
    idle_since: Arc<AtomicU64>,
    /// Cancelled when this connection must close: it was idle too long, another one takes its
    /// place, or the process stops.
    pub hang_up: CancellationToken,
}

/// The time for which a connection has been idle.
#[derive(Clone)]
pub struct IdleTime {
    connections: Arc<Connections>,
    idle_since: Arc<AtomicU64>,
}

impl IdleTime {
    /// Counts from now on, unless the connection is in a call or about to close.
    pub fn begin_again(&self) {
        let since = self.idle_since.load(Ordering::SeqCst);
        if since < CLOSING {
            // If this fails, a call has begun meanwhile or the connection closes.
            swap(&self.idle_since, since, self.connections.moment());
        }
    }
}

impl Connections {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            // Behind a proxy, all callers have its address.
            most_of_address: most / 2,
            open: Mutex::default(),
            begun: Instant::now(),
            hang_up: CancellationToken::new(),
        })
    }

    /// A3: as many connections as the limit of open files allows, without the files that the
    /// process needs itself.
    pub fn within(open_files: u64) -> Arc<Self> {
        let files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let most = files.saturating_sub(RESERVED) / FILES_OF_ONE;
        Self::new(most.clamp(FEWEST, MOST))
    }

    /// For a listener that only a few programs call.
    pub fn few() -> Arc<Self> {
        Self::new(FEWEST)
    }

    pub fn most(&self) -> usize {
        self.most
    }

    /// The limit of open files at which no connection is refused for want of a file.
    pub fn files_wanted() -> u64 {
        u64::try_from(MOST * FILES_OF_ONE + RESERVED).unwrap_or(u64::MAX)
    }

    /// Returns `None` if the limit is reached and every connection is in a call.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Connection> {
        let address = network(address);
        let mut open = locked(&self.open);
        let crowded = open.of_address(address) >= self.most_of_address;
        if crowded || open.all.len() >= self.most {
            open.evict(|one| !crowded || one.address == address)?;
        }
        let number = open.next;
        open.next += 1;
        let idle_since = Arc::new(AtomicU64::new(self.moment()));
        let hang_up = self.hang_up.child_token();
        let entry = Entry {
            address,
            idle_since: idle_since.clone(),
            hang_up: hang_up.clone(),
        };
        open.all.insert(number, entry);
        Some(Connection {
            connections: self.clone(),
            number,
            peer: Peer(address),
            idle_since,
            hang_up,
        })
    }

    /// A2: closes the connections that have been idle for longer than `timeout`. A connection
    /// that sends no complete head, or that receives no part of an answer, is idle as well.
    pub fn close_idle(&self, timeout: Duration) {
        if let Some(latest) = self.begun.elapsed().checked_sub(timeout) {
            self.close_idle_since(nanos(latest));
        }
    }

    fn close_idle_since(&self, latest: u64) {
        for one in locked(&self.open).all.values() {
            let since = one.idle_since.load(Ordering::SeqCst);
            if since <= latest {
                one.close(since);
            }
        }
    }

    /// Closes all connections, also those in a call.
    pub fn hang_up(&self) {
        self.hang_up.cancel();
    }

    fn moment(&self) -> u64 {
        nanos(self.begun.elapsed())
    }
}

impl Open {
    fn of_address(&self, address: IpAddr) -> usize {
        let of_address = self.all.values().filter(|one| one.address == address);
        of_address.count()
    }

    /// Closes one idle connection among these; `None` if there is none.
    fn evict(&mut self, among: impl Fn(&Entry) -> bool) -> Option<()> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for one in self.all.values() {
            *counts.entry(one.address).or_default() += 1;
        }
        loop {
            let idle = self.all.iter().filter(|(_, one)| among(one));
            let idle = idle
                .map(|(number, one)| (one, one.idle_since.load(Ordering::SeqCst), *number))
                .filter(|(_, since, _)| *since != BUSY);
            let (one, since, number) =
                idle.max_by_key(|(one, since, _)| (counts.get(&one.address), Reverse(*since)))?;
            // Fails if a call has begun on it meanwhile.
            if one.close(since) {
                self.all.remove(&number);
                return Some(());
            }
        }
    }
}

impl Entry {
    /// Closes the connection if it is idle since this moment.
    fn close(&self, since: u64) -> bool {
        let closed = swap(&self.idle_since, since, CLOSING);
        if closed {
            self.hang_up.cancel();
        }
        closed
    }
}

/// A process of 500 years comes near `CLOSING`.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(CLOSING - 1)
}

fn swap(value: &AtomicU64, from: u64, to: u64) -> bool {
    let swapped = value.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    swapped.is_ok()
}

impl Connection {
    pub fn idle_time(&self) -> IdleTime {
        IdleTime {
            connections: self.connections.clone(),
            idle_since: self.idle_since.clone(),
        }
    }

    /// The router for the calls of this connection.
    pub fn calls(&self, router: TowerToHyperService<Router>) -> TrackedCalls {
        TrackedCalls {
            router,
            peer: self.peer,
            idle_time: self.idle_time(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        locked(&self.connections.open).all.remove(&self.number);
    }
}

/// The address from which a call comes; absent under Lambda.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer(IpAddr);

impl Peer {
    pub fn at(address: IpAddr) -> Self {
        Self(network(address))
    }

    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }
}

/// Marks the connection as busy during each of its calls.
#[derive(Clone)]
pub struct TrackedCalls {
    router: TowerToHyperService<Router>,
    peer: Peer,
    idle_time: IdleTime,
}

impl Service<Request<Incoming>> for TrackedCalls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if !self.begin() {
            // The connection is about to close; the caller learns that no call has begun.
            return Box::pin(pending());
        }
        request.extensions_mut().insert(self.peer);
        let done = self.router.call(request);
        let idle = self.idle_time.clone();
        Box::pin(async move {
            let answered = done.await;
            let now = idle.connections.moment();
            idle.idle_since.store(now, Ordering::SeqCst);
            answered
        })
    }
}

impl TrackedCalls {
    /// Marks the connection as busy; fails if it is about to close.
    fn begin(&self) -> bool {
        let idle_since = &self.idle_time.idle_since;
        let since = idle_since.load(Ordering::SeqCst);
        since != CLOSING && swap(idle_since, since, BUSY)
    }
}

/// The address that shares a limit: one host has all addresses of an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

    use crate::http::stream::WatchedStream;

    #[test]
    fn a2_the_addresses_of_one_ipv6_network_share_their_limit() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// A2: callers that hold connections open do not keep others out.
    #[test]
    fn a2_a_new_connection_takes_the_place_of_the_longest_idle_one() {
        let connections = Connections::new(4);
        let open = |last| connections.enter(address(last)).unwrap();
        let (first, second, third, fourth) = (open(1), open(2), open(3), open(4));
        first.idle_since.store(BUSY, Ordering::Relaxed);
        let fifth = open(5);
        assert!(second.hang_up.is_cancelled());
        for kept in [&first, &third, &fourth, &fifth] {
            assert!(!kept.hang_up.is_cancelled());
            kept.idle_since.store(BUSY, Ordering::Relaxed);
        }
        assert!(connections.enter(address(6)).is_none(), "all are in a call");
        drop(first);
        assert!(connections.enter(address(6)).is_some());
    }

    /// A2: one address has at most half of the connections, and evicts only its own.
    #[test]
    fn a2_an_address_beyond_its_share_loses_its_own_connections() {
        let connections = Connections::new(4);
        let open = |last| connections.enter(address(last)).unwrap();
        let (other, first, second) = (open(1), open(2), open(2));
        let third = open(2);
        assert!(first.hang_up.is_cancelled());
        assert!(!other.hang_up.is_cancelled());
        assert!(!second.hang_up.is_cancelled() && !third.hang_up.is_cancelled());
    }

    #[test]
    fn a3_the_number_of_connections_follows_the_limit_of_open_files() {
        assert_eq!(Connections::within(1024).most(), 448);
        assert_eq!(Connections::within(u64::MAX).most(), MOST);
        assert_eq!(Connections::within(64).most(), FEWEST);
    }

    /// A2: an honest caller with one connection is not closed for a caller with many.
    #[test]
    fn a2_the_address_with_the_most_connections_gives_one_up() {
        let connections = Connections::new(6);
        let open = |last| connections.enter(address(last)).unwrap();
        let (honest, first, second) = (open(1), open(2), open(2));
        let (third, fourth, fifth) = (open(3), open(4), open(5));
        let sixth = open(6);
        assert!(first.hang_up.is_cancelled());
        for kept in [&honest, &second, &third, &fourth, &fifth, &sixth] {
            assert!(!kept.hang_up.is_cancelled());
        }
    }

    /// A2: on one connection, a call begins or another connection takes its place, never both.
    #[test]
    fn a2_no_call_begins_on_a_connection_that_is_closing() {
        let connections = Connections::new(2);
        let open = |last| connections.enter(address(last)).unwrap();
        let (first, second) = (open(1), open(2));
        let calls = |one: &Connection| one.calls(TowerToHyperService::new(Router::new()));
        assert!(calls(&first).begin());
        let third = open(3);
        assert!(!first.hang_up.is_cancelled() && second.hang_up.is_cancelled());
        assert!(!calls(&second).begin());
        assert!(calls(&third).begin());
        let open_all = locked(&connections.open);
        let entry = open_all.all.get(&third.number).unwrap();
        assert!(!entry.close(0), "a call has begun since the look");
    }

    /// A2: a caller that receives an answer slowly stays connected, and one that receives nothing
    /// does not.
    #[tokio::test]
    async fn a2_only_a_caller_that_receives_an_answer_is_not_idle() {
        let connections = Connections::new(4);
        let (slow, silent) = (connections.enter(address(1)), connections.enter(address(2)));
        let (slow, silent) = (slow.unwrap(), silent.unwrap());
        let streams = [&slow, &silent].map(|connection| {
            connection.idle_since.store(1, Ordering::SeqCst);
            let (caller, server) = tokio::io::duplex(64);
            (caller, WatchedStream::new(server, connection.idle_time()))
        });
        let [
            (mut receives, mut answered),
            (_receives_nothing, mut unanswered),
        ] = streams;
        let answer = [0; 100];
        let mut received = [0; 100];
        let (sent, got) = tokio::join!(
            answered.write_all(&answer),
            receives.read_exact(&mut received)
        );
        sent.unwrap();
        got.unwrap();
        assert_eq!(unanswered.write(&answer).await.unwrap(), 64);
        let waiting = poll_fn(|context| {
            let rest = Pin::new(&mut unanswered).poll_write(context, &answer);
            Poll::Ready(rest)
        });
        assert!(waiting.await.is_pending());
        let latest = slow.idle_since.load(Ordering::SeqCst);
        assert!(latest > 1, "the caller received a part");
        connections.close_idle_since(latest - 1);
        assert!(silent.hang_up.is_cancelled() && !slow.hang_up.is_cancelled());
    }

    #[test]
    fn a2_a_connection_in_a_call_is_not_idle() {
        let connections = Connections::new(4);
        let (idle, busy) = (connections.enter(address(1)), connections.enter(address(2)));
        let (idle, busy) = (idle.unwrap(), busy.unwrap());
        busy.idle_since.store(BUSY, Ordering::SeqCst);
        connections.close_idle(Duration::ZERO);
        assert!(idle.hang_up.is_cancelled() && !busy.hang_up.is_cancelled());
        connections.hang_up();
        assert!(busy.hang_up.is_cancelled(), "the process stops");
    }
}
