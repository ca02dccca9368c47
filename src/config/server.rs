//! The section `[server]`: its values, and whether its two listeners can have their addresses at
//! the same time.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::file::ServerSection;
use super::secret::{Elsewhere, SecretSource, Sources};
use super::{ConfigError, ServerConfig};

pub(super) fn server(
    section: ServerSection,
    elsewhere: Elsewhere<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<ServerConfig, ConfigError> {
    let has_token = section.metrics_token.is_given() || section.metrics_token_file.is_given();
    let sources = Sources {
        section: "server",
        name: "metrics_token",
        secret: section.metrics_token,
        secret_file: section.metrics_token_file,
        secret_id: SecretSource::default(),
    };
    let metrics_token = match has_token {
        true => {
            let (token, file) = sources.read(elsewhere)?;
            files.extend(file);
            Some(token)
        }
        false => None,
    };
    if section
        .metrics_listen
        .is_some_and(|own| is_taken_by(own, section.listen))
    {
        let why = "uses the port of server.listen: take another port, or set metrics_token";
        return Err(ConfigError::new("server.metrics_listen", why));
    }
    for (key, number) in [
        ("server.creates_per_second", section.creates_per_second),
        ("server.create_burst", section.create_burst),
    ] {
        if !(1..=1_000_000).contains(&number) {
            return Err(ConfigError::new(key, "expected 1 to 1000000"));
        }
    }
    Ok(ServerConfig {
        listen: section.listen,
        metrics_listen: section.metrics_listen,
        metrics_token,
        creates_per_second: section.creates_per_second,
        create_burst: section.create_burst,
    })
}

/// Reports whether a listener on one address leaves none for the other. With port 0, each listener
/// gets a free port.
fn is_taken_by(one: SocketAddr, other: SocketAddr) -> bool {
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
