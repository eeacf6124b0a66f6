//! How good one direction of a link is.

use std::time::Duration;

/// How good one direction of a link between two hosts is.
///
/// Start from the default and change what matters:
/// ```
/// # use receptor_quic::testing::LinkQuality;
/// # use std::time::Duration;
/// let satellite = LinkQuality {
///     latency: Duration::from_millis(300),
///     bandwidth: Some(2_000_000),
///     loss: 0.005,
///     ..LinkQuality::default()
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkQuality {
    /// Time from the end of sending to arrival. Default 1 ms. Virtual time has a resolution of 1
    /// ms, see the [module](super#virtual-time).
    pub latency: Duration,
    /// Up to this much is added to the latency of each datagram, uniformly at random. Default zero.
    /// It does not reorder datagrams unless [`reorder`](Self::reorder) says so: one that is early
    /// waits for those before it.
    pub jitter: Duration,
    /// Whether jitter may put datagrams of one direction out of order. Default false.
    pub reorder: bool,
    /// The share of datagrams lost at random, from 0 to 1. Default 0. Values beyond count as the
    /// nearest bound, NaN as 0. A lost datagram takes its share of the bandwidth.
    pub loss: f64,
    /// Payload bytes a second. Default `None`, unlimited. `Some(0)` carries nothing: the queue is
    /// always full.
    pub bandwidth: Option<u64>,
    /// The longest datagram carried, in bytes of UDP payload; longer ones vanish, as on a path that
    /// does not fragment. Default [`ETHERNET_MTU`](Self::ETHERNET_MTU).
    pub mtu: usize,
    /// Bytes that may wait for the bandwidth, the datagram being sent included; what comes on top
    /// is dropped. A datagram that finds the link idle is always sent. Default 1 MiB. No effect
    /// with unlimited bandwidth.
    pub queue: usize,
}

impl LinkQuality {
    /// What an Ethernet frame of 1500 bytes leaves for UDP over IPv4: 1472 bytes.
    pub const ETHERNET_MTU: usize = 1500 - 20 - 8;
}

impl Default for LinkQuality {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            reorder: false,
            loss: 0.0,
            bandwidth: None,
            mtu: Self::ETHERNET_MTU,
            queue: 1 << 20,
        }
    }
}
