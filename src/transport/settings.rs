//! How QUIC is set, and why.

use std::sync::Arc;
use std::time::Duration;

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::{Identity, reset};
use crate::switch::Header;

/// The largest UDP payload that path MTU discovery tries, in bytes: a jumbo frame's. Large datagrams are worth a
/// factor of three where the path carries them; discovery starts at 1,200 and climbs by itself.
pub(crate) const MAX_MTU: u16 = 8_952;
/// The largest UDP payload that a node sends or takes, in bytes: a switched packet has a header in front of QUIC's.
pub(crate) const MAX_DATAGRAM: u16 = MAX_MTU + Header::LEN as u16;
/// Streams that an authenticated neighbour or peer may have open at a time, once it uses so many.
pub(crate) const MAX_STREAMS: u32 = 1_024;
/// Streams that it may have open as soon as it is authenticated. quinn reserves 82 bytes for each at both ends, for good,
/// so [`MAX_STREAMS`] are allowed only once half of these are in use at a time.
pub(crate) const FIRST_STREAMS: u32 = 32;
/// Streams that it may open before it is authenticated: the control stream and a few.
const INITIAL_STREAMS: u32 = 16;
/// The round trip that is assumed before one is measured: a lost handshake packet is sent again after three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// A peer that was not heard of for this long is gone, and its streams end as unreachable. Long enough to outlast the
/// loss of a relay (5 s) and its restart.
const PEER_DEAD_AFTER: Duration = Duration::from_secs(15);
/// How often an otherwise silent peer connection shows that it lives.
const PEER_KEEPALIVE: Duration = Duration::from_secs(4);

/// How eagerly the loss of a neighbour is noticed, on the links that this node dials. On those that it accepts, the
/// neighbour's choice counts: whoever pays for the line is who dials out over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Liveness {
    /// A keepalive every 1.5 s; a silent neighbour is dead after 3.5 to 5 s. About 45 bytes a second each way.
    #[default]
    Default,
    /// For paid links: a keepalive every 20 s; a silent neighbour is dead after 45 to 65 s. Under 5 bytes a second each way.
    Metered,
}

impl Liveness {
    fn keepalive(self) -> Duration {
        match self {
            Self::Default => Duration::from_millis(1_500),
            Self::Metered => Duration::from_secs(20),
        }
    }

    /// QUIC's idle timer starts anew at the first packet sent after the last one heard, so a neighbour is dead between
    /// this and one keepalive later.
    fn idle(self) -> Duration {
        match self {
            Self::Default => Duration::from_millis(3_500),
            Self::Metered => Duration::from_secs(45),
        }
    }
}

/// For connections to neighbours that this node dials, with UDP payloads of up to `max_datagram` bytes.
pub(crate) fn link_transport(liveness: Liveness, max_datagram: u16) -> Arc<TransportConfig> {
    let mut config = common(max_datagram.min(MAX_MTU));
    config.keep_alive_interval(Some(liveness.keepalive()));
    config.max_idle_timeout(Some(idle(liveness.idle())));
    Arc::new(config)
}

/// For connections that neighbours dial. They send the keepalives, which are answered; of both ends' idle timeouts the
/// shorter counts, which is theirs.
///
/// `measured`: this end wants to know their round trips, for which it must send something that is answered.
pub(crate) fn accepted_link_transport(max_datagram: u16, measured: bool) -> Arc<TransportConfig> {
    let mut config = common(max_datagram.min(MAX_MTU));
    config.keep_alive_interval(measured.then(|| Liveness::Default.keepalive()));
    config.max_idle_timeout(Some(idle(Liveness::Metered.idle())));
    Arc::new(config)
}

/// For connections through the switch, with UDP payloads of up to `max_datagram` bytes, the header included; `direct`: with
/// a stream each way for what the ends say about direct paths.
pub(crate) fn peer_transport(max_datagram: u16, direct: bool) -> Arc<TransportConfig> {
    let mut config = common(max_datagram.saturating_sub(Header::LEN as u16));
    config.max_concurrent_uni_streams(VarInt::from_u32(direct.into()));
    config.keep_alive_interval(Some(PEER_KEEPALIVE));
    config.max_idle_timeout(Some(idle(PEER_DEAD_AFTER)));
    Arc::new(config)
}

fn common(max_mtu: u16) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(max_mtu);
    let mut config = TransportConfig::default();
    config
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .max_concurrent_bidi_streams(INITIAL_STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    config
}

fn idle(timeout: Duration) -> IdleTimeout {
    IdleTimeout::try_from(timeout).expect("seconds fit QUIC's milliseconds")
}

/// For the endpoint of a node with this identity.
pub(crate) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let mut config = reset::endpoint_config(identity);
    // A switched packet is told from QUIC's by the bit that greasing would randomise (RFC 9287).
    config.grease_quic_bit(false);
    config.max_udp_payload_size(MAX_DATAGRAM).expect("a jumbo frame is within what QUIC allows");
    config
}
