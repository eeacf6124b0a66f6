//! Where a neighbour is dialled, and who is expected there.

use std::fmt;
use std::str::FromStr;

use crate::id::{InvalidName, NodeId, excerpt, text_argument};

/// A neighbour to dial: `[ID@]HOST:PORT`.
///
/// With an id, only a node that proves it is accepted; without, any node that has a certificate
/// that the mesh trusts. The host is a name, which is resolved for every attempt, or an
/// address; an IPv6 address is in brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PeerAddr {
    /// Who must answer.
    pub expected: Option<NodeId>,
    /// A name or an address, an IPv6 address without its brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

/// Why a text is not a [`PeerAddr`]. The caller's fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPeerAddr {
    /// There is no port.
    #[error("{0:?} has no port: a peer is written [ID@]HOST:PORT")]
    NoPort(String),
    /// The port is not one.
    #[error("{0:?} is not a port: 1 to 65535 is allowed")]
    BadPort(String),
    /// There is no host, or it is not one.
    #[error("{0:?} is not a host name or an address (an IPv6 address is in brackets)")]
    BadHost(String),
    /// The id before the `@` is not one.
    #[error(transparent)]
    BadId(#[from] InvalidName),
}

impl FromStr for PeerAddr {
    type Err = InvalidPeerAddr;

    fn from_str(text: &str) -> Result<Self, InvalidPeerAddr> {
        // Ids may contain `@` and `:`; hosts contain neither, except for IPv6 addresses, which are
        // in brackets.
        let (expected, address) = match text.rsplit_once('@') {
            Some((id, address)) => (Some(NodeId::try_from(id)?), address),
            None => (None, text),
        };
        let (host, port) =
            address.rsplit_once(':').ok_or_else(|| InvalidPeerAddr::NoPort(excerpt(address)))?;
        let port = match port.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(InvalidPeerAddr::BadPort(excerpt(port))),
        };
        let bad_host = || InvalidPeerAddr::BadHost(excerpt(host));
        let host = match host.strip_prefix('[') {
            Some(ip) => {
                let ip = ip.strip_suffix(']').ok_or_else(bad_host)?;
                ip.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
                ip
            }
            None => host,
        };
        let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty()
            || host.len() > 253
            || !(host.chars().all(named) || host.contains(':') && address.starts_with('['))
        {
            return Err(bad_host());
        }
        Ok(Self { expected, host: host.to_owned(), port })
    }
}

impl PeerAddr {
    /// `HOST:PORT`, an IPv6 address in brackets.
    pub(crate) fn host_and_port(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.expected {
            write!(f, "{id}@")?;
        }
        f.write_str(&self.host_and_port())
    }
}

text_argument!(InvalidPeerAddr: PeerAddr);

impl From<std::net::SocketAddr> for PeerAddr {
    fn from(addr: std::net::SocketAddr) -> Self {
        Self { expected: None, host: addr.ip().to_string(), port: addr.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_as_they_are_written() {
        for text in
            ["relay:7400", "10.0.0.1:7400", "r-1@relay.example.org:7400", "a:b@c@[2001:db8::1]:1"]
        {
            assert_eq!(text.parse::<PeerAddr>().unwrap().to_string(), text);
        }
        let peer: PeerAddr = "a:b@c@[::1]:9".parse().unwrap();
        assert_eq!(peer.expected.unwrap().as_str(), "a:b@c");
        assert_eq!(peer.host, "::1");
        assert_eq!("[::1]:9".parse::<PeerAddr>().unwrap().host_and_port(), "[::1]:9");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<PeerAddr>().unwrap_err();
        assert_eq!(error("relay"), InvalidPeerAddr::NoPort("relay".to_owned()));
        assert_eq!(error("relay:0"), InvalidPeerAddr::BadPort("0".to_owned()));
        assert_eq!(error("relay:http"), InvalidPeerAddr::BadPort("http".to_owned()));
        assert_eq!(error(":7400"), InvalidPeerAddr::BadHost(String::new()));
        assert_eq!(error("::1:7400"), InvalidPeerAddr::BadHost("::1".to_owned()));
        assert_eq!(error("re lay:7400"), InvalidPeerAddr::BadHost("re lay".to_owned()));
        assert!(matches!(error("a/b@relay:7400"), InvalidPeerAddr::BadId(_)));
    }
}
