//! Carriers: UDP payloads in a TCP connection, where UDP does not pass.
//!
//! A carrier is a further way out of the node's [socket](crate::transport::Socket), below quinn. It
//! has a private address, and each packet to that address becomes a frame in the stream:
//!
//! ```text
//!            quinn, and packets for other nodes
//!      send ▼                                   ▲ poll_recv
//!   ┌───────┴───────┐                  ┌────────┴───────┐
//!   │ Queue: by flow│                  │ at most 256 KiB│   one pair for each carrier
//!   └───────┬───────┘                  └────────▲───────┘
//!           ▼ length, packet                    │ Decoder
//!   ┌───────┴───────────────────────────────────┴───────┐
//!   │ TLS 1.3, which hides and does not authenticate     │
//!   └───────────────────────┬───────────────────────────┘
//!                           ▼ TCP
//! ```
//!
//! The QUIC connection inside authenticates both ends, as it does over UDP. The TLS around it is
//! there for middleboxes: whoever terminates it sees sealed packets, as a router on a UDP path
//! does, and can do no more than drop them.

mod address;
mod counts;
mod decoder;
mod hub;
mod options;
mod outer_tls;
mod pump;
mod queue;
mod stream;

pub(crate) use address::is_carrier;
pub use counts::CarrierStatus;
#[cfg(feature = "testing")]
pub(crate) use decoder::Decoder;
pub(crate) use hub::{Carried, Carriers, ListenTcp};
pub(crate) use stream::{DialError, accept, dial};

use std::time::Duration;

use crate::transport::settings::MAX_DATAGRAM;

/// Bytes of the length in front of each packet.
pub(crate) const HEAD: usize = 2;
/// The longest packet in a frame, in bytes: the longest that a node sends by UDP.
pub(crate) const MAX_PACKET: usize = MAX_DATAGRAM as usize;
/// The application protocol (ALPN) of the outer TLS.
pub(crate) const ALPN: &[u8] = b"receptor-quic/1";
/// How long the TCP connection, and then the outer TLS, may take.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a carrier may receive nothing: longer than the 65 s after which a metered link without
/// an answer is dead.
const IDLE: Duration = Duration::from_secs(90);
