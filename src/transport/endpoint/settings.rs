//! How QUIC is set, and why.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::reset::{self, ResetKey};
use crate::switch::Header;
use crate::transport::{Congestion, Identity};

/// Maximum UDP payload that path MTU discovery tries, in bytes: that of a jumbo frame. Large
/// datagrams are worth a factor of three on paths that support them; discovery starts at 1,200.
pub(crate) const MAX_MTU: u16 = 8_952;
/// Path MTU discovery ends when the next step would be less than this part of the bound: 223 bytes
/// of 8,952, 36 of 1,472. Each probe is padded to its size, and quinn reads padding byte by byte:
/// at steps of 20 bytes, to 8,952, that was a third of the CPU of links that come up. Where a jumbo
/// frame's bound meets a path of 1,500 bytes, packets have 1,441 then, and not 1,472.
const MTU_STEPS: u16 = 40;
/// Maximum UDP payload that a node sends or accepts, in bytes: a switched packet has a header in
/// front of QUIC's.
pub(crate) const MAX_DATAGRAM: u16 = MAX_MTU + Header::MAX_LEN as u16;
/// Streams that a node's application, its calls included, may have open to one other node at a
/// time. More wait for a place: until their deadline, or for about a second. Streams of the
/// built-in directives do not count.
pub const MAX_STREAMS: usize = 1_023;
/// Streams that an authenticated neighbour or peer may have open once it uses [`CREDIT_WANTED_AT`]:
/// [`MAX_STREAMS`], the eighth that quinn withholds before it announces what was freed, and some
/// 300 for built-in directives and for streams that only one end is done with. quinn reserves 82
/// bytes for each at 1,024, for the life of the connection. Its maps double in size, so up to 1,792
/// cost the same.
pub(crate) const STREAM_CREDIT: u32 = 1_536;
/// Streams of the other end that live here, beyond which new ones are refused, except for the
/// service of calls: what an opener has given up but its handlers here have not counts as well, and
/// must not use up the credit.
pub(crate) const MAX_INCOMING_STREAMS: usize = 1_280;
/// Streams that it may have open as soon as it is authenticated, which is enough for most.
pub(crate) const FIRST_STREAMS: u32 = 32;
/// Streams at either end that raise the permission from [`FIRST_STREAMS`] to [`STREAM_CREDIT`].
pub(crate) const CREDIT_WANTED_AT: usize = 12;
/// Streams that it may open before it is authenticated: the control stream and a few.
const INITIAL_STREAMS: u32 = 16;
/// Bytes of one stream that may wait to be read: 100 Mbit/s over a round trip of 100 ms.
pub(crate) const STREAM_WINDOW: u64 = 1_250_000;
/// Bytes of all streams of a connection that may wait to be read, until it has several streams:
/// those of one stream that is not read, and a quarter of that for others.
pub(crate) const FIRST_WINDOW: u64 = STREAM_WINDOW + STREAM_WINDOW / 4;
/// Default maximum of unread bytes from one peer over all of its streams: 56 MiB, the windows of 46
/// streams. A peer with more unread streams waits; a node under such an attack is not affected
/// otherwise.
pub const DEFAULT_RECEIVE_WINDOW: u64 = 56 << 20;
/// The bounds of a peer's receive window, in bytes.
pub const RECEIVE_WINDOWS: RangeInclusive<u64> = 2 << 20..=4 << 30;
/// Default maximum of unread bytes from all peers: 256 MiB, plus 1.6 MB per connection.
pub const DEFAULT_RECEIVE_MEMORY: u64 = 256 << 20;

/// Bytes that a connection may have sent without an acknowledgement, until its congestion window
/// needs more: 20 Mbit/s over a round trip of 100 ms.
pub(crate) const FIRST_SEND_WINDOW: u64 = 256 * 1024;
/// The largest send window of a connection: 800 Mbit/s over a round trip of 100 ms. It is quinn's
/// default.
pub(crate) const MAX_SEND_WINDOW: u64 = 8 * STREAM_WINDOW;
/// Bytes that all connections with one peer may have sent without an acknowledgement.
pub(crate) const SEND_WINDOW_PER_PEER: u64 = 4 * MAX_SEND_WINDOW;
/// Bytes that all connections together may have sent without an acknowledgement, beside
/// [`FIRST_SEND_WINDOW`] for each.
pub(crate) const SEND_MEMORY: u64 = 256 << 20;

/// How many bytes may wait to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReceiveLimits {
    /// From one peer.
    pub(crate) per_peer: u64,
    /// From all peers together, beside [`FIRST_WINDOW`] for each connection.
    pub(crate) all: u64,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        Self { per_peer: DEFAULT_RECEIVE_WINDOW, all: DEFAULT_RECEIVE_MEMORY }
    }
}

/// The round trip that is assumed before one is measured: a lost handshake packet is sent again
/// after three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// The least that is assumed on a path whose round trip is known from the connection before (RFC
/// 9002, section 6.2.2): a process that has just started is slow to answer.
const RESUMED_RTT: Duration = Duration::from_millis(20);
/// Silence after which a peer is considered gone and its streams end as unreachable, even if it has
/// a route. Long enough to outlast the loss of a relay (5 s) and its restart. Without a route, or
/// if it is longer, the peer timeout applies.
pub(crate) const PEER_DEAD_AFTER: Duration = Duration::from_secs(15);
/// QUIC's idle timeout of peer connections, beyond the longest peer timeout. The mesh closes silent
/// connections earlier, because each stream has its own peer timeout; QUIC's timeout only catches
/// connections that the mesh does not track.
const PEER_IDLE: Duration = Duration::from_secs(620);
/// How often an otherwise silent peer connection shows that it lives.
const PEER_KEEPALIVE: Duration = Duration::from_secs(4);

/// Default time after its last packet at which connections, streams and calls to a peer without a
/// route end. Equal to the time in which a silent link is declared dead, so that the mesh can find
/// another path.
pub const DEFAULT_PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a neighbour on a carrier is dead: several retransmissions of TCP, which wait
/// twice as long each time.
const CARRIED_IDLE: Duration = Duration::from_secs(10);
/// The bounds of the peer timeout.
pub const PEER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(600);

/// Liveness profile of the links that this node dials. On links that it accepts, the neighbour's
/// profile applies: the dialling end pays for the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Liveness {
    /// A keepalive after a second without packets from the neighbour, so that its restart is
    /// noticed within that time; a silent neighbour is dead after 3.5 to 4.5 s. About 70 bytes/s
    /// each way.
    #[default]
    Default,
    /// For links where the extra packets are acceptable: a keepalive after 300 ms without packets
    /// from the neighbour; a silent neighbour is dead after 1 to 1.3 s, or after three probe
    /// timeouts (RFC 9000, section 10.1) if the round trip is so long that those take longer. About
    /// 230 bytes/s each way. A process that is stopped or starved for as long loses its links.
    Fast,
    /// For metered links: a keepalive every 20 s; a silent neighbour is dead after 45 to 65 s. Less
    /// than 5 bytes/s in each direction.
    Metered,
}

impl Liveness {
    fn keepalive(self) -> Duration {
        match self {
            Self::Default => Duration::from_secs(1),
            Self::Fast => Duration::from_millis(300),
            Self::Metered => Duration::from_secs(20),
        }
    }

    /// QUIC's idle timer restarts with the first packet sent after the last one received, so a
    /// neighbour is dead between this and one keepalive later.
    fn idle(self) -> Duration {
        match self {
            Self::Default => Duration::from_millis(3_500),
            Self::Fast => Duration::from_secs(1),
            Self::Metered => Duration::from_secs(45),
        }
    }
}

/// How the connections of one node are set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transports {
    pub(crate) liveness: Liveness,
    pub(crate) congestion: Congestion,
    /// The largest UDP payload, in bytes.
    pub(crate) max_datagram: u16,
    /// Whether peers may speak about direct paths.
    pub(crate) direct: bool,
    /// Whether the round trips of links that others dialled count.
    pub(crate) measured: bool,
}

impl Transports {
    /// Transport of links that this node dials over a path with UDP payloads of up to `path_mtu`
    /// bytes. `rtt` is the round-trip time of the previous link; `None` if there was none.
    pub(crate) fn link(&self, path_mtu: u16, rtt: Option<Duration>) -> TransportConfig {
        let mut config = self.common(self.max_datagram.min(path_mtu).min(MAX_MTU));
        if let Some(rtt) = rtt {
            // Twice as long, for the variance.
            config.initial_rtt((rtt * 2).clamp(RESUMED_RTT, INITIAL_RTT));
        }
        config.keep_alive_interval(Some(self.liveness.keepalive()));
        config.max_idle_timeout(Some(idle(self.liveness.idle())));
        config
    }

    /// Transport of links that this node dials through a carrier. TCP passes nothing on while it
    /// repeats a lost segment, so silence lasts longer before it means that the neighbour is dead;
    /// that the TCP connection ends is noticed at once.
    pub(crate) fn carried_link(&self, rtt: Option<Duration>) -> TransportConfig {
        let mut config = self.link(u16::MAX, rtt);
        config.max_idle_timeout(Some(idle(self.liveness.idle().max(CARRIED_IDLE))));
        config
    }

    /// For connections that neighbours dial. They send the keepalives, which are answered; of both
    /// ends' idle timeouts the shorter counts, which is theirs. Where round trips count, this end
    /// must send something that is answered.
    pub(crate) fn accepted_link(&self, path_mtu: u16) -> TransportConfig {
        let mut config = self.common(self.max_datagram.min(path_mtu).min(MAX_MTU));
        config.keep_alive_interval(self.measured.then(|| Liveness::Default.keepalive()));
        config.max_idle_timeout(Some(idle(Liveness::Metered.idle())));
        config
    }

    /// Transport of connections through the switch, which adds a header to each packet; with a
    /// stream in each direction for path messages if direct paths are permitted.
    pub(crate) fn peer(&self, path_mtu: u16) -> TransportConfig {
        let mut config =
            self.common(self.max_datagram.min(path_mtu).saturating_sub(Header::MAX_LEN as u16));
        config.max_concurrent_uni_streams(VarInt::from_u32(self.direct.into()));
        config.keep_alive_interval(Some(PEER_KEEPALIVE));
        config.max_idle_timeout(Some(idle(PEER_IDLE)));
        config
    }

    fn common(&self, max_mtu: u16) -> TransportConfig {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(max_mtu).minimum_change(max_mtu / MTU_STEPS);
        let mut config = TransportConfig::default();
        config
            .initial_rtt(INITIAL_RTT)
            .congestion_controller_factory(self.congestion.factory())
            .mtu_discovery_config(Some(mtu))
            .stream_receive_window(window(STREAM_WINDOW))
            .receive_window(window(FIRST_WINDOW))
            .send_window(FIRST_SEND_WINDOW)
            .max_concurrent_bidi_streams(INITIAL_STREAMS.into())
            .max_concurrent_uni_streams(VarInt::from_u32(0));
        config
    }
}

fn window(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).expect("memory is measured in less than 62 bits")
}

fn idle(timeout: Duration) -> IdleTimeout {
    IdleTimeout::try_from(timeout).expect("seconds fit QUIC's milliseconds")
}

/// For the endpoint of a node with this identity.
pub(crate) fn endpoint_config(identity: &Identity) -> (EndpointConfig, Arc<ResetKey>) {
    let (mut config, key) = reset::endpoint_config(identity);
    // The bit that greasing would randomise (RFC 9287) distinguishes switched packets from QUIC's.
    config.grease_quic_bit(false);
    config.max_udp_payload_size(MAX_DATAGRAM).expect("a jumbo frame is within what QUIC allows");
    (config, key)
}
