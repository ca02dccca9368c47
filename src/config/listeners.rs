//! Whether two listeners of one process can have their addresses at the same time.

use std::net::{IpAddr, SocketAddr};

/// Reports whether a listener on one address leaves none for the other. With port 0, each listener
/// gets a free port.
pub(super) fn is_taken_by(one: SocketAddr, other: SocketAddr) -> bool {
    let (first, second) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0
        && one.port() == other.port()
        && (first == second || covers(first, second) || covers(second, first))
}

/// `[::]` covers all addresses, `0.0.0.0` those of IPv4.
fn covers(all: IpAddr, one: IpAddr) -> bool {
    all.is_unspecified() && (all.is_ipv6() || one.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A4: the start would fail later, with an error of the system that names neither key.
    #[test]
    fn a4_addresses_that_cover_each_other_need_two_ports() {
        let taken = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(is_taken_by(one, other), is_taken_by(other, one));
            is_taken_by(one, other)
        };
        assert!(taken("127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(taken("0.0.0.0:8080", "127.0.0.1:8080"));
        assert!(taken("[::]:8080", "127.0.0.1:8080"));
        assert!(taken("[::]:8080", "[::1]:8080"));
        assert!(taken("[::ffff:127.0.0.1]:8080", "127.0.0.1:8080"));
        assert!(!taken("0.0.0.0:8080", "[::1]:8080"));
        assert!(!taken("127.0.0.1:8080", "127.0.0.2:8080"));
        assert!(!taken("0.0.0.0:8080", "127.0.0.1:9464"));
        assert!(
            !taken("127.0.0.1:0", "127.0.0.1:0"),
            "each gets a free port"
        );
    }
}
