//! What the node does when the network under it changes: another address, another route, a machine
//! that has slept.
//!
//! QUIC helps itself where it can: the end that dialled a link may move, and the other follows with
//! the next packet. So every link is asked at once whether it still works, which makes that packet.
//! One that does not answer in time is redialled while the old link stays up: if it was only slow,
//! the contest between the two links ends it without harm to its streams, and if the other end
//! cannot be dialled, nothing is lost. That also covers the end that was dialled, which QUIC does
//! not let move.
//!
//! ```text
//!   LocalNetwork ─▶ follow ─┬─▶ socket: sources that are gone, sending restarted, last packets resent
//!                           ├─▶ diallers: at once, from the beginning
//!                           └─▶ driver: ping each link ── no pong ─▶ dial it beside itself
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::interfaces::Interfaces;
use super::interfaces::addresses::LocalNetwork;
use crate::id::NodeId;
use crate::mesh::input::Input;
use crate::mesh::links::dialling::dialler::Dialler;
use crate::mesh::links::id::LinkId;
use crate::transport::endpoint::Endpoint;
use crate::transport::renewable::Renewable;

mod checks;
mod drive;

use checks::Checks;

/// The maximum number of addresses remembered as gone; the oldest are dropped. An error of the
/// system is what it costs.
const MAX_GONE: usize = 64;
/// The maximum number of links that are redialled at a time. The others wait for their ends, or
/// for the neighbour to dial.
const MAX_REDIALS: usize = 64;
/// Maximum number of links that are pinged in a row. The driver yields to other tasks between two
/// batches.
const MAX_ASKED_AT_ONCE: usize = 64;
/// How long an attempt at a link that does not answer may take.
const REDIAL_WITHIN: Duration = Duration::from_secs(3);

/// Tells all who are concerned of changes, until the driver has gone.
pub(crate) async fn follow(
    interfaces: Interfaces,
    endpoint: Arc<Endpoint>,
    sockets: Vec<Weak<Renewable>>,
    moved: watch::Sender<u64>,
    inputs: mpsc::Sender<Input>,
) {
    let mut network = interfaces.watch();
    let mut before = network.borrow_and_update().clone();
    let mut gone = Gone::default();
    loop {
        let now = tokio::select! {
            biased;
            () = inputs.closed() => return,
            changed = network.changed() => match changed {
                Ok(()) => network.borrow_and_update().clone(),
                // The network is not observed.
                Err(_) => return,
            },
        };
        let lost = now.gone_since(&before);
        if gone.change(&lost, &now) {
            endpoint.socket().set_gone(gone.0.clone());
        }
        if !lost.is_empty() {
            sockets.iter().filter_map(Weak::upgrade).for_each(|socket| socket.renew());
        }
        if now.moved_since(&before) {
            moved.send_modify(|times| *times += 1);
            endpoint.socket().nudge();
            let addresses = now.addresses.iter().map(|address| address.ip).collect();
            if inputs.send(Input::NetworkChanged { addresses }).await.is_err() {
                return;
            }
        }
        before = now;
    }
}

/// Addresses that this machine had, and has no more.
#[derive(Debug, Default)]
struct Gone(Vec<IpAddr>);

impl Gone {
    /// Takes in what was lost, and what is there again; whether anything is different now.
    fn change(&mut self, lost: &[IpAddr], now: &LocalNetwork) -> bool {
        let before = self.0.clone();
        self.0.extend(lost);
        self.0.retain(|ip| !now.addresses.iter().any(|address| address.ip == *ip));
        let surplus = self.0.len().saturating_sub(MAX_GONE);
        self.0.drain(..surplus);
        self.0 != before
    }
}

/// The driver's part.
pub(crate) struct Roaming {
    dialler: Dialler,
    checks: Checks,
    /// Links that are still to be pinged.
    unasked: VecDeque<LinkId>,
    /// When the network last changed.
    changed_at: Instant,
    // Dropped, it ends the attempts.
    redials: JoinSet<()>,
    /// How often the network has changed.
    pub(crate) moves: u64,
    /// The addresses that the machine has, as far as they are known; best first.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Roaming {
    pub(crate) fn new(dialler: Dialler, addresses: Vec<IpAddr>, now: Instant) -> Self {
        Self {
            dialler,
            checks: Checks::default(),
            unasked: VecDeque::new(),
            changed_at: now,
            redials: JoinSet::new(),
            moves: 0,
            addresses,
        }
    }

    /// When the next links are to be pinged. Overdue links are looked for with every tick.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        (!self.unasked.is_empty()).then_some(self.changed_at)
    }

    fn redial(&mut self, peer: NodeId, address: SocketAddr) {
        // Those that have ended make room.
        while self.redials.try_join_next().is_some() {}
        if self.redials.len() >= MAX_REDIALS {
            debug!(%peer, "does not answer, and is not dialled: too many are");
            return;
        }
        let dialler = self.dialler.clone();
        self.redials.spawn(async move { dialler.dial_once(address, &peer, REDIAL_WITHIN).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::LocalAddress;

    fn network(ips: &[&str]) -> LocalNetwork {
        let addresses =
            ips.iter().map(|ip| LocalAddress::new(ip.parse().unwrap(), 24, "eth0")).collect();
        LocalNetwork { addresses, ..LocalNetwork::default() }
    }

    #[test]
    fn an_address_is_gone_until_it_is_there_again() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut gone = Gone::default();
        assert!(gone.change(&[ip("10.0.0.1")], &network(&["10.0.0.2"])));
        assert!(!gone.change(&[], &network(&["10.0.0.2"])));
        assert!(gone.change(&[ip("10.0.0.2")], &network(&["10.0.0.1"])));
        assert_eq!(gone.0, [ip("10.0.0.2")]);
    }

    #[test]
    fn of_many_addresses_that_are_gone_the_last_are_remembered() {
        let lost: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let mut gone = Gone::default();
        assert!(gone.change(&lost, &network(&[])));
        assert_eq!(gone.0, lost[100 - MAX_GONE..]);
    }
}
