//! Packet counts of the switch by outcome.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Why a switched packet was dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DropReason {
    /// Not a packet of the mesh: too short, or of an unknown type.
    BadHeader,
    /// The cookie is of no link and no direct path: an outsider, or a link or path that has ended.
    UnknownCookie,
    /// The source is this node itself, or not the neighbour that may only send its own.
    ForgedSource,
    /// This node does not provide transit, or not on the direct path that the packet arrived by.
    TransitDenied,
    /// The packet has been handled by as many nodes as its sender allowed.
    HopLimit,
    /// No route was found while the packet was held.
    NoRoute,
    /// Too many packets are held already.
    HoldFull,
    /// The socket was full, and so was the backlog.
    QueueFull,
    /// The operating system refused to send.
    SendFailed,
    /// The neighbour has used what it may have sent on, see [`Meter`](super::Meter).
    RateLimited,
    /// A probe of a direct path that belongs to no attempt of this node, or that exceeded the probe
    /// queue.
    StrayProbe,
}

impl DropReason {
    const ALL: [Self; 11] = [
        Self::BadHeader,
        Self::UnknownCookie,
        Self::ForgedSource,
        Self::TransitDenied,
        Self::HopLimit,
        Self::NoRoute,
        Self::HoldFull,
        Self::QueueFull,
        Self::SendFailed,
        Self::RateLimited,
        Self::StrayProbe,
    ];
}

/// Counts of packets by outcome, shared between the socket and its observers.
#[derive(Debug, Default)]
pub struct SwitchCounters {
    forwarded: AtomicU64,
    forwarded_bytes: AtomicU64,
    delivered: AtomicU64,
    relayed: AtomicU64,
    relayed_bytes: AtomicU64,
    direct: AtomicU64,
    direct_bytes: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl SwitchCounters {
    /// Counts packets sent on to another node.
    pub fn forwarded(&self, packets: u64, bytes: u64) {
        self.forwarded.fetch_add(packets, Ordering::Relaxed);
        self.forwarded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts packets of this node that took a direct path or were sent to a relay.
    pub fn originated(&self, direct: bool, packets: u64, bytes: u64) {
        let (count, count_bytes) = match direct {
            true => (&self.direct, &self.direct_bytes),
            false => (&self.relayed, &self.relayed_bytes),
        };
        count.fetch_add(packets, Ordering::Relaxed);
        count_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts packets that ended here.
    pub fn delivered(&self, packets: u64) {
        self.delivered.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts dropped packets.
    pub fn dropped(&self, reason: DropReason, packets: u64) {
        self.dropped[reason as usize].fetch_add(packets, Ordering::Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn status(&self) -> SwitchStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SwitchStatus {
            forwarded: count(&self.forwarded),
            forwarded_bytes: count(&self.forwarded_bytes),
            delivered: count(&self.delivered),
            relayed: count(&self.relayed),
            relayed_bytes: count(&self.relayed_bytes),
            direct: count(&self.direct),
            direct_bytes: count(&self.direct_bytes),
            dropped: DropReason::ALL
                .into_iter()
                .map(|r| (r, count(&self.dropped[r as usize])))
                .collect(),
        }
    }
}

/// Counts of switched packets since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SwitchStatus {
    /// Packets sent on for others.
    pub forwarded: u64,
    /// Their bytes, headers included.
    pub forwarded_bytes: u64,
    /// Packets that ended here.
    pub delivered: u64,
    /// Packets of this node that were sent to a neighbour for relaying.
    pub relayed: u64,
    /// Their bytes, headers included.
    pub relayed_bytes: u64,
    /// Packets of this node that were sent directly to a peer that is not a neighbour.
    pub direct: u64,
    /// Their bytes, headers included.
    pub direct_bytes: u64,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let counters = SwitchCounters::default();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            counters.dropped(reason, 1 + i as u64);
        }
        let status = counters.status();
        assert_eq!(
            status.dropped.values().copied().collect::<Vec<_>>(),
            (1..=11).collect::<Vec<_>>()
        );
    }
}
