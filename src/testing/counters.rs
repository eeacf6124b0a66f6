//! What became of the datagrams of a network.

/// What became of the datagrams of a [`Network`](super::Network), since it was made.
///
/// Nothing is lost track of: `sent` is the sum of all the others but `bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Datagrams that sockets sent, after segmentation.
    pub sent: u64,
    /// Datagrams that reached the receive buffer of a socket, read or not.
    pub delivered: u64,
    /// Datagrams on their way at this moment.
    pub in_flight: u64,
    /// Datagrams lost at random ([`LinkQuality::loss`](super::LinkQuality::loss)).
    pub lost: u64,
    /// Datagrams longer than [`LinkQuality::mtu`](super::LinkQuality::mtu).
    pub oversized: u64,
    /// Datagrams that found the queue of their link full
    /// ([`LinkQuality::queue`](super::LinkQuality::queue)), or 64 MiB on their way to their
    /// destination already.
    pub dropped_full: u64,
    /// Datagrams that found the receive buffer of their destination full (4 MiB unread).
    pub dropped_unread: u64,
    /// Datagrams stopped by a cut, a partition or an isolation, on their way when it came or sent
    /// later.
    pub dropped_partitioned: u64,
    /// Datagrams to an address that nothing was bound to, or no longer when they would have
    /// arrived.
    pub unreachable: u64,
    /// Datagrams that a NAT or a firewall filtered in either direction.
    pub filtered: u64,
    /// Payload bytes of the delivered datagrams.
    pub bytes: u64,
}
