//! Where a neighbour is dialled, and who is expected there.

use std::fmt;
use std::str::FromStr;

use crate::id::{InvalidName, NodeId, excerpt, text_argument};

/// What the packets of a link travel in.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Carrier {
    /// UDP.
    #[default]
    Udp,
    /// TLS over TCP, for networks where UDP does not pass. That TLS authenticates nobody; the QUIC
    /// connection in it does, as over UDP.
    Tls,
}

/// A neighbour to dial: `[ID@]HOST:PORT`, or `tls://[ID@]HOST[:PORT]` to reach it by TLS over TCP,
/// port 443 by default.
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
    /// The port, of UDP or of TCP.
    pub port: u16,
    /// What the link travels in.
    pub carrier: Carrier,
}

/// In front of neighbours that are reached by TLS.
const TLS: &str = "tls://";
/// The port of TLS, if none is given.
const TLS_PORT: u16 = 443;

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
    /// The scheme is not known.
    #[error("{0:?} is not a scheme: a peer is written [ID@]HOST:PORT or tls://[ID@]HOST[:PORT]")]
    BadScheme(String),
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
        let (carrier, text) = match text.strip_prefix(TLS) {
            Some(rest) => (Carrier::Tls, rest),
            None => (Carrier::Udp, text),
        };
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(InvalidPeerAddr::BadScheme(excerpt(scheme)));
        }
        // Ids may contain `@` and `:`; hosts contain neither, except for IPv6 addresses, which are
        // in brackets.
        let (expected, address) = match text.rsplit_once('@') {
            Some((id, address)) => (Some(NodeId::try_from(id)?), address),
            None => (None, text),
        };
        let is_whole = !address.contains(':') || address.ends_with(']');
        let (host, port) = match address.rsplit_once(':') {
            _ if carrier == Carrier::Tls && is_whole => (address, TLS_PORT),
            Some((host, port)) => match port.parse() {
                Ok(port) if port != 0 => (host, port),
                _ => return Err(InvalidPeerAddr::BadPort(excerpt(port))),
            },
            None => return Err(InvalidPeerAddr::NoPort(excerpt(address))),
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
        Ok(Self { expected, host: host.to_owned(), port, carrier })
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
        if self.carrier == Carrier::Tls {
            f.write_str(TLS)?;
        }
        if let Some(id) = &self.expected {
            write!(f, "{id}@")?;
        }
        f.write_str(&self.host_and_port())
    }
}

text_argument!(InvalidPeerAddr: PeerAddr);

impl From<std::net::SocketAddr> for PeerAddr {
    fn from(addr: std::net::SocketAddr) -> Self {
        let (host, port) = (addr.ip().to_string(), addr.port());
        Self { expected: None, host, port, carrier: Carrier::Udp }
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
    fn a_peer_by_tls_has_a_scheme_and_port_443_by_default() {
        for (text, written) in [
            ("tls://relay", "tls://relay:443"),
            ("tls://relay:8443", "tls://relay:8443"),
            ("tls://a:b@relay", "tls://a:b@relay:443"),
            ("tls://r-1@[2001:db8::1]", "tls://r-1@[2001:db8::1]:443"),
            ("tls://[2001:db8::1]:9", "tls://[2001:db8::1]:9"),
        ] {
            let peer: PeerAddr = text.parse().unwrap();
            assert_eq!((peer.to_string(), peer.carrier), (written.to_owned(), Carrier::Tls));
            assert_eq!(written.parse::<PeerAddr>().unwrap(), peer);
        }
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
        assert_eq!(error("tls://relay:"), InvalidPeerAddr::BadPort(String::new()));
        assert_eq!(error("tls://::1"), InvalidPeerAddr::BadHost(":".to_owned()));
        assert_eq!(error("tcp://relay:1"), InvalidPeerAddr::BadScheme("tcp".to_owned()));
        assert_eq!(error("tls://tls://relay"), InvalidPeerAddr::BadScheme("tls".to_owned()));
        assert!(matches!(error("a/b@relay:7400"), InvalidPeerAddr::BadId(_)));
    }
}
