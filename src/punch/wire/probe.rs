//! Connectivity checks: 64-byte UDP probes that ask whether an address reaches the peer, and their
//! answers.
//!
//! ```text
//!  0      1      2            10          14                 32       48        64
//!  ┌──────┬──────┬────────────┬───────────┬──────────────────┬────────┬─────────┐
//!  │ 0x04 │ kind │ round      │ counter   │ address seen     │ zeros  │ MAC     │
//!  └──────┴──────┴────────────┴───────────┴──────────────────┴────────┴─────────┘
//! ```
//!
//! The MAC is HMAC-SHA256 under the round's key over the first 48 bytes, truncated to 16. It is
//! verified before any other field is used. An answer is as long as a probe, so there is no
//! amplification.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use std::time::Instant;

use super::mac;
use super::secret::ProbeKey;
use crate::punch::gather::candidate::canonical;
use crate::punch::role::Role;

/// A probe, or the answer to one, to be sent from the node's UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where to.
    pub to: SocketAddr,
    /// The local address to send from; `None` lets the system choose.
    pub from: Option<IpAddr>,
    /// The fresh local port to send from, see [`Event::OpenPorts`](crate::punch::Event::OpenPorts);
    /// `None` if it is the node's own socket.
    pub local_port: Option<u16>,
    /// When to send it; `None`: now.
    pub at: Option<Instant>,
    /// The datagram.
    pub bytes: [u8; Self::LEN],
}

impl Probe {
    /// The length of every probe and answer in bytes.
    pub const LEN: usize = 64;
    /// The first byte of every probe and answer.
    pub const TYPE: u8 = 0x04;

    /// The round of a datagram with the form of a probe; `None` otherwise. Nothing is verified yet:
    /// the socket uses it to drop what belongs to no round of
    /// [`Puncher::rounds`](crate::punch::Puncher::rounds).
    #[must_use]
    pub fn round_of(datagram: &[u8]) -> Option<u64> {
        let bytes: &[u8; Self::LEN] = datagram.try_into().ok()?;
        let round = u64::from_be_bytes(*bytes[2..].first_chunk()?);
        (bytes[0] == Self::TYPE).then_some(round)
    }
}

/// How a datagram arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The source address.
    pub from: SocketAddr,
    /// The local address that it arrived at; `None` if the system does not report it.
    pub to: Option<IpAddr>,
    /// The fresh local port that it arrived at, see
    /// [`Event::OpenPorts`](crate::punch::Event::OpenPorts); `None` if it was the node's own
    /// socket.
    pub local_port: Option<u16>,
}

impl Arrival {
    /// At the node's own socket, at an address that the system does not say.
    #[must_use]
    pub fn new(from: SocketAddr) -> Self {
        Self { from, to: None, local_port: None }
    }

    /// The same with addresses in their one form.
    pub(crate) fn canonical(self) -> Self {
        Self { from: canonical(self.from), to: self.to.map(|ip| ip.to_canonical()), ..self }
    }

    pub(crate) fn pair(&self) -> CandidatePair {
        CandidatePair { remote: self.from, local_port: self.local_port }
    }
}

/// Two ends of a way: a candidate pair (RFC 8445 §6.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CandidatePair {
    pub(crate) remote: SocketAddr,
    /// The fresh port at this end; `None` if it is the node's own socket.
    pub(crate) local_port: Option<u16>,
}

/// Why a datagram changed nothing. Anybody can send one: drop and count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Not 64 bytes, or of another type or kind.
    #[error("not a probe")]
    Malformed,
    /// Of no round that is known: late, or a stranger's.
    #[error("of no known round")]
    UnknownRound,
    /// From this node itself, sent back by somebody.
    #[error("this node's own")]
    Reflected,
    /// The MAC is wrong: a stranger's.
    #[error("not authentic")]
    Forged,
    /// A duplicate probe, or one too old to decide.
    #[error("a repetition")]
    Replayed,
    /// An unsolicited answer, or one from another address than was probed.
    #[error("an answer to nothing that was asked")]
    Unasked,
    /// The peer sends probes faster than they are answered.
    #[error("too many")]
    TooMany,
}

/// The content of a probe or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// The sender's role.
    pub(crate) sender: Role,
    pub(crate) round: u64,
    /// Of a probe: how many its sender has sent in the round, this one included. Of an answer: that
    /// of the probe.
    pub(crate) counter: u32,
    /// For an answer, the source of the probe; `None` for a probe.
    pub(crate) seen: Option<SocketAddr>,
}

const KIND_PROBE: u8 = 0;
const KIND_ANSWER: u8 = 1;
/// Set in the kind by the answerer, so that neither end accepts its own probes.
const SENT_BY_ANSWERER: u8 = 0x80;
/// What the MAC covers.
const COVERED: usize = 48;

impl Content {
    pub(crate) fn seal(&self, key: &ProbeKey) -> [u8; Probe::LEN] {
        let mut bytes = [0; Probe::LEN];
        bytes[0] = Probe::TYPE;
        bytes[1] = if self.seen.is_some() { KIND_ANSWER } else { KIND_PROBE };
        if self.sender == Role::Answerer {
            bytes[1] |= SENT_BY_ANSWERER;
        }
        bytes[2..10].copy_from_slice(&self.round.to_be_bytes());
        bytes[10..14].copy_from_slice(&self.counter.to_be_bytes());
        if let Some(seen) = self.seen {
            bytes[14..30].copy_from_slice(&in_ipv6(seen.ip()).octets());
            bytes[30..32].copy_from_slice(&seen.port().to_be_bytes());
        }
        let tag = mac::hmac(&key.0, &bytes[..COVERED]);
        bytes[COVERED..].copy_from_slice(&tag[..Probe::LEN - COVERED]);
        bytes
    }

    /// Reads a datagram; whether it is authentic is for [`verify`].
    pub(crate) fn parse(datagram: &[u8]) -> Result<Self, ProbeError> {
        let round = Probe::round_of(datagram).ok_or(ProbeError::Malformed)?;
        let (counter, rest) = datagram[10..].split_first_chunk().ok_or(ProbeError::Malformed)?;
        let (ip, rest) = rest.split_first_chunk::<16>().ok_or(ProbeError::Malformed)?;
        let port = rest.first_chunk().ok_or(ProbeError::Malformed)?;
        let seen = match datagram[1] & !SENT_BY_ANSWERER {
            KIND_PROBE => None,
            KIND_ANSWER => {
                let ip = IpAddr::V6(Ipv6Addr::from(*ip));
                Some(canonical(SocketAddr::new(ip, u16::from_be_bytes(*port))))
            }
            _ => return Err(ProbeError::Malformed),
        };
        let sender =
            if datagram[1] & SENT_BY_ANSWERER == 0 { Role::Offerer } else { Role::Answerer };
        Ok(Self { sender, round, counter: u32::from_be_bytes(*counter), seen })
    }
}

/// Whether a datagram that [`Content::parse`] has read is authentic.
pub(crate) fn verify(datagram: &[u8], key: &ProbeKey) -> bool {
    let Some((covered, tag)) = datagram.split_at_checked(COVERED) else { return false };
    tag.try_into().is_ok_and(|tag| mac::verify(&key.0, covered, tag))
}

fn in_ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::testing::addr;

    const KEY: ProbeKey = ProbeKey([
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 31,
    ]);

    fn contents() -> [Content; 2] {
        let probe =
            Content { sender: Role::Offerer, round: 0x0102_0304_0506_0708, counter: 1, seen: None };
        [probe, Content { sender: Role::Answerer, seen: Some(addr("192.0.2.1:4433")), ..probe }]
    }

    #[test]
    fn a_probe_is_read_as_it_was_sealed() {
        for content in contents() {
            let bytes = content.seal(&KEY);
            assert_eq!(Content::parse(&bytes), Ok(content));
            assert_eq!(Probe::round_of(&bytes), Some(content.round));
            assert!(verify(&bytes, &KEY));
        }
    }

    #[test]
    fn every_bit_counts() {
        for content in contents() {
            let bytes = content.seal(&KEY);
            for bit in 0..bytes.len() * 8 {
                let mut forged = bytes;
                forged[bit / 8] ^= 1 << (bit % 8);
                assert!(!verify(&forged, &KEY), "bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_no_probe_has_no_round() {
        let bytes = contents()[0].seal(&KEY);
        assert_eq!(Probe::round_of(&bytes[..63]), None);
        assert_eq!(Probe::round_of(&[bytes.as_slice(), &[0]].concat()), None);
        let (mut other, mut kind) = (bytes, bytes);
        other[0] = 1;
        kind[1] = 2;
        assert_eq!(Probe::round_of(&other), None);
        assert_eq!(Content::parse(&kind), Err(ProbeError::Malformed));
        assert_eq!(Content::parse(&[]), Err(ProbeError::Malformed));
    }
}
