//! Handshakes that have not finished, by the source of their first packet.
//!
//! Anybody can begin a handshake. Sources that only begin them must not keep others from finishing
//! theirs. Links and peer connections have a budget each, in which every source has its share:
//!
//! | budget | levels of a source |
//! |---|---|
//! | links | IPv4 /24, /32; IPv6 /48, /64, address |
//! | peer connections | neighbour that the packet arrived through, node that the stub is attached to, node |
//!
//! ```text
//!   first packet ─▶ address proven? ─ no ─▶ over its share, or many under way ─ yes ─▶ Retry (RFC 9000 §8.1.2)
//!                          │ yes                       │ no
//!                          ▼                           ▼
//!                    take a place; if all are taken, the oldest of the source that holds most is dropped
//! ```
//!
//! Sources whose address is not proven can be forged, so they get few of the places together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::budget::{Budget, Source};
use crate::id::{NodeAddr, NodeId};
use crate::sync::lock;
use crate::transport::endpoint::Endpoint;

/// Handshakes of one kind under way at a time. Each holds some 30 KiB.
const PLACES: usize = 512;
/// Levels of a source.
const LEVELS: usize = 3;
/// Handshakes of one kind under way beyond which every newcomer has to prove its address.
const PROVE_ABOVE: usize = 64;
/// Handshakes of one source, by level, from which on its newcomers have to prove their address. A
/// node that dials two addresses, or repeats a lost attempt, stays below the last.
const UNPROVEN_SHARES: [usize; LEVELS] = [32, 16, 8];

/// The handshakes of one kind. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    budget: Budget<LEVELS>,
    /// Dropped, it ends the handshake.
    displaced: BTreeMap<u64, oneshot::Sender<()>>,
    counts: HandshakeCounts,
}

/// What became of handshakes that others began. The counts only grow, except for the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HandshakeCounts {
    /// Handshakes under way.
    pub half_open: usize,
    /// Attempts that were answered with a Retry packet, because their source had more under way
    /// than its share, or because many were under way.
    pub retried: u64,
    /// Handshakes that were dropped in favour of a newcomer, because their source held more of the
    /// places than any other.
    pub displaced: u64,
    /// Handshakes that were dropped because nothing more arrived from the other end.
    pub silent: u64,
}

/// A handshake's place. Dropped, it is free.
#[derive(Debug)]
pub(crate) struct Place {
    all: HalfOpen,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

/// What to do with an attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on with the handshake as long as it has its place.
    Admit(Place),
    /// Let the source prove its address first.
    Retry,
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            budget: Budget::new(PLACES),
            displaced: BTreeMap::new(),
            counts: HandshakeCounts::default(),
        })))
    }
}

impl HalfOpen {
    /// Judges an attempt by its source, and by whether that has proven its address.
    pub(crate) fn judge(&self, source: Source<LEVELS>, proven: bool) -> Verdict {
        let mut state = self.lock();
        let over = || {
            state
                .budget
                .held_by(&source)
                .iter()
                .zip(UNPROVEN_SHARES)
                .any(|(held, share)| *held >= share)
        };
        if !proven && (state.budget.taken() >= PROVE_ABOVE || over()) {
            state.counts.retried += 1;
            return Verdict::Retry;
        }
        let (number, displaced) = state.budget.enter(source);
        if let Some(displaced) = displaced {
            state.counts.displaced += 1;
            state.displaced.remove(&displaced);
        }
        let (sender, displaced) = oneshot::channel();
        state.displaced.insert(number, sender);
        Verdict::Admit(Place { all: self.clone(), number, displaced })
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> HandshakeCounts {
        let state = self.lock();
        HandshakeCounts { half_open: state.budget.taken(), ..state.counts }
    }

    /// Counts a handshake that ended because nothing more arrived.
    pub(crate) fn fell_silent(&self) {
        self.lock().counts.silent += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Place {
    /// Does `work` as long as the place is held. `None` if it was displaced.
    pub(crate) async fn hold<T>(mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = &mut self.displaced => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.budget.leave(self.number);
        state.displaced.remove(&self.number);
    }
}

/// The source of an attempt at a link.
pub(crate) fn link_source(ip: IpAddr) -> Source<LEVELS> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let address = ip.to_ipv6_mapped();
            [prefix(address, 96 + 24), address.to_bits(), address.to_bits()]
        }
        IpAddr::V6(address) => [prefix(address, 48), prefix(address, 64), address.to_bits()],
    }
}

fn prefix(address: Ipv6Addr, bits: u32) -> u128 {
    address.to_bits() & (u128::MAX << (128 - bits))
}

/// The source of an attempt at a peer connection.
pub(crate) fn peer_source(endpoint: &Endpoint, incoming: &Incoming) -> Source<LEVELS> {
    let number = |node: Option<NodeAddr>| node.map_or(0, |node| u64::from_be_bytes(node.0).into());
    let origin = endpoint.origin(incoming);
    // Packets of a node's own, or of a direct path, come through no neighbour.
    [
        number(origin.through.or(origin.node)),
        number(origin.attached_to.or(origin.node)),
        number(origin.node),
    ]
}

/// The source of a HELLO that is due: the id that the certificate has.
pub(crate) fn member_source(id: &NodeId) -> Source<LEVELS> {
    let number = u64::from_be_bytes(id.base().addr().0).into();
    [number; LEVELS]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source<LEVELS> {
        link_source(text.parse().unwrap())
    }

    fn admit(all: &HalfOpen, source: Source<LEVELS>, proven: bool) -> Option<Place> {
        match all.judge(source, proven) {
            Verdict::Admit(place) => Some(place),
            Verdict::Retry => None,
        }
    }

    #[test]
    fn sources_are_prefixes() {
        let common = |a: &str, b: &str| {
            source(a).iter().zip(source(b)).take_while(|(a, b)| **a == *b).count()
        };
        assert_eq!(common("192.0.2.1", "192.0.2.200"), 1);
        assert_eq!(common("192.0.2.1", "::ffff:192.0.2.1"), 3);
        assert_eq!(common("192.0.2.1", "192.0.3.1"), 0);
        assert_eq!(common("2001:db8:0:1::1", "2001:db8:0:1:f::2"), 2);
        assert_eq!(common("2001:db8:0:1::1", "2001:db8:0:2::1"), 1);
        assert_eq!(common("2001:db8:0:1::1", "2001:db8:1:1::1"), 0);
    }

    #[test]
    fn a_source_over_its_share_has_to_prove_its_address() {
        let all = HalfOpen::default();
        let mut places: Vec<_> =
            (0..8).map(|_| admit(&all, source("192.0.2.1"), false).expect("its share")).collect();
        assert!(admit(&all, source("192.0.2.1"), false).is_none());
        places.extend(admit(&all, source("192.0.2.2"), false));
        places.extend(admit(&all, source("192.0.2.1"), true));
        assert_eq!(
            all.counts(),
            HandshakeCounts { half_open: 10, retried: 1, ..HandshakeCounts::default() }
        );
        drop(places);
        assert_eq!(all.counts().half_open, 0);
    }

    #[test]
    fn forged_sources_get_few_places_together() {
        let all = HalfOpen::default();
        let forged = |n: u32| link_source(IpAddr::V4((0x0a00_0000 + n * 256).into()));
        let places: Vec<_> = (0..1_000).filter_map(|n| admit(&all, forged(n), false)).collect();
        assert_eq!(places.len(), PROVE_ABOVE);
        assert!(admit(&all, source("192.0.2.1"), true).is_some());
        assert_eq!(all.counts().displaced, 0);
    }

    #[tokio::test]
    async fn a_flood_of_one_source_ends_its_own_handshakes() {
        let all = HalfOpen::default();
        let honest = admit(&all, source("198.51.100.1"), true).expect("a place");
        let mut flood: Vec<_> =
            (0..PLACES).filter_map(|_| admit(&all, source("192.0.2.1"), true)).collect();
        assert_eq!((all.counts().half_open, all.counts().displaced), (PLACES, 1));
        let oldest = flood.remove(0);
        assert_eq!(oldest.hold(std::future::pending::<()>()).await, None);
        assert_eq!(honest.hold(async { 7 }).await, Some(7));
        assert_eq!(all.counts().half_open, PLACES - 1);
        drop(flood);
        assert_eq!(all.counts().half_open, 0);
    }
}
