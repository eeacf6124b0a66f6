//! Probes of direct paths, passed from the one UDP socket to the driver.
//!
//! The switch in front of quinn recognises probes by their type. A probe of a round that this node
//! does not take part in is dropped after comparing eight bytes, so that strangers cannot keep the
//! driver busy. All others wait in a bounded queue.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::sync::lock;

/// Maximum number of probes queued for the driver. Further ones are dropped, as the network might
/// do.
const MAX_WAITING: usize = 256;

/// A probe that came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReceivedProbe {
    /// Where it came from.
    pub(crate) from: SocketAddr,
    /// The local address that it was sent to; `None` if the system does not report it.
    pub(crate) to: Option<IpAddr>,
    /// The fresh port that it came to; `None` if it was one of the node's own sockets.
    pub(crate) local_port: Option<u16>,
    pub(crate) bytes: [u8; Probes::LEN],
}

/// The queue of probes, and what may go into it.
#[derive(Debug)]
pub(crate) struct Probes {
    /// The rounds whose probes are accepted; replaced as a whole.
    rounds: ArcSwap<BTreeSet<u64>>,
    queue: mpsc::Sender<ReceivedProbe>,
    received: Mutex<Option<mpsc::Receiver<ReceivedProbe>>>,
}

impl Probes {
    /// The first byte of a probe.
    pub(crate) const TYPE: u8 = 0x04;
    /// The length of a probe, in bytes.
    pub(crate) const LEN: usize = 64;

    /// The receiving end of the queue; `None` on every call but the first.
    pub(crate) fn receiver(&self) -> Option<mpsc::Receiver<ReceivedProbe>> {
        lock(&self.received).take()
    }

    /// Takes probes of these rounds from now on, and no others.
    pub(crate) fn set_rounds(&self, rounds: BTreeSet<u64>) {
        self.rounds.store(rounds.into());
    }

    /// Queues a probe. Returns whether it belongs to an accepted round and the queue had room.
    pub(in crate::transport) fn take(
        &self,
        from: SocketAddr,
        to: Option<IpAddr>,
        local_port: Option<u16>,
        packet: &[u8],
    ) -> bool {
        let Ok(bytes) = <[u8; Self::LEN]>::try_from(packet) else { return false };
        let round = bytes[2..].first_chunk().map(|round| u64::from_be_bytes(*round));
        round.is_some_and(|round| self.rounds.load().contains(&round))
            && self.queue.try_send(ReceivedProbe { from, to, local_port, bytes }).is_ok()
    }
}

impl Default for Probes {
    fn default() -> Self {
        let (queue, received) = mpsc::channel(MAX_WAITING);
        Self { rounds: ArcSwap::default(), queue, received: Mutex::new(Some(received)) }
    }
}
