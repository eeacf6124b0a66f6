//! The socket under quinn, with the packet switch in it.
//!
//! To quinn every peer looks directly reachable. This socket adds a header to each packet that
//! quinn sends to an overlay address and forwards it to the next hop, and it sorts what arrives:
//!
//! ```text
//!              quinn
//!   try_send ▼       ▲ poll_recv
//!   ┌────────┴───────┴──────────────────────────┐
//!   │ overlay? ─▶ header on    header off ◀─ for me
//!   │    │                                  ▲   │
//!   │    │         ForwardingTable ── sort ─┤   │      loopback: a node's packets to itself
//!   │    │                                  ▼   │      hold: no route yet
//!   │    │                      rewrite, send on│      backlog: the socket was full
//!   └────┼──────────────────────────────────┬───┘
//!        ▼           UDP sockets            ▼
//! ```
//!
//! Batches stay whole: a buffer filled by GRO is inspected segment by segment, but forwarded or
//! delivered to quinn in runs of segments with the same header. Runs for the same next hop that
//! arrive together leave together.
//!
//! | file | contents |
//! |---|---|
//! | `quinn_face` | the traits that quinn calls |
//! | `originate`, `packet` | packets of this node |
//! | `transmit`, `bound` | the UDP sockets: which one, from which address |
//! | `sort` | received packets, by destination |
//! | `inbound` | state of the receiving side, packets pending for quinn |
//! | `forward`, `egress` | packets for other nodes |
//! | [`carrier`](super::carrier) | packets in TCP connections, beside the UDP sockets |
//! | `fresh` | additional UDP sockets for direct paths |
//! | `heard` | which UDP socket an address sends to |
//! | `attachments` | the nodes that stubs are attached to, by number |
//! | `held` | packets without a route |
//! | `release` | closing a UDP socket that quinn still holds |
//! | `replies` | the ingress neighbours of handshakes |
//! | `hops` | the neighbours that the packets of peers come through, and go to |
//! | `last_sent`, `resend` | the packets sent again when the route to a peer changes |

mod attachments;
pub(super) mod forwarding;
mod hops;
mod inbound;
mod last_sent;
mod originate;
mod packet;
pub(crate) mod probes;
mod quinn_face;
mod replies;
mod resend;
mod sort;
mod transmit;
pub(crate) mod udp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::{fmt, io, mem};

use arc_swap::ArcSwap;
use quinn::AsyncUdpSocket;

use self::attachments::Attachments;
use self::inbound::Inbound;
use self::last_sent::LastSent;
use self::probes::Probes;
use self::replies::Replies;
use self::udp::bound::Bound;
pub(super) use self::udp::bound::MAX_SEND;
pub(crate) use self::udp::bound::mapped;
use self::udp::fresh::FreshPorts;
pub(crate) use self::udp::fresh::PortOpener;
use self::udp::heard::Heard;
use self::udp::release::Releasable;
use crate::id::NodeAddr;
use crate::switch::{DropReason, ForwardingTable, HoldQueue, Meter, SwitchCounters};
use crate::sync::lock;
use crate::transport::carrier::Carriers;
use crate::transport::socket::forwarding::wanted::Wanted;

/// A quinn socket over one or more UDP sockets, with the packet switch in it.
pub(crate) struct Socket {
    sockets: Vec<Bound>,
    // More of them, for direct paths only.
    fresh: FreshPorts,
    // `Some` if addresses alone do not determine the socket of a packet.
    heard: Option<Heard>,
    // Locked for packets of handshakes only.
    replies: Replies,
    port: u16,
    max_receive_segments: usize,
    table: ArcSwap<ForwardingTable>,
    // The peers that this node has connections to.
    peers: ArcSwap<BTreeMap<NodeAddr, Arc<LastSent>>>,
    // Locked once a batch of a flow that a stub has opened.
    attachments: Mutex<Attachments>,
    // Addresses that this machine had, and has no more: nothing can be sent from them.
    gone: ArcSwap<Vec<IpAddr>>,
    counters: Arc<SwitchCounters>,
    // Packets that belong neither to QUIC nor to the switch.
    probes: Probes,
    // Locked by the endpoint's one receiving task, once a batch, and by a node's packets to itself:
    // never contended on the forwarding path.
    inbound: Mutex<Inbound>,
    // Locked for packets without a route only.
    hold: Mutex<HoldQueue>,
    // The destinations of those that proofs may lead to.
    wanted: Arc<Wanted>,
    // TCP connections that carry packets where UDP does not pass.
    carriers: Arc<Carriers>,
}

impl Socket {
    /// Wraps `sockets`, of which there is at least one.
    pub(crate) fn new(
        sockets: Vec<Arc<dyn AsyncUdpSocket>>,
        me: NodeAddr,
        counters: Arc<SwitchCounters>,
    ) -> io::Result<Self> {
        let sockets: Vec<_> = sockets
            .into_iter()
            .map(|io| {
                let io = Arc::new(Releasable::new(io)?);
                Ok(Bound { addr: io.local_addr()?, io })
            })
            .collect::<io::Result<_>>()?;
        let first = sockets.first().ok_or_else(|| io::Error::other("a node needs a socket"))?;
        Ok(Self {
            port: first.addr.port(),
            max_receive_segments: sockets
                .iter()
                .map(|s| s.io.max_receive_segments())
                .max()
                .unwrap_or(1),
            table: ArcSwap::from_pointee(ForwardingTable::new(me, false, Arc::default())),
            peers: ArcSwap::default(),
            attachments: Mutex::default(),
            gone: ArcSwap::default(),
            counters,
            probes: Probes::default(),
            inbound: Mutex::default(),
            hold: Mutex::default(),
            wanted: Arc::default(),
            carriers: Arc::default(),
            fresh: FreshPorts::default(),
            replies: Replies::default(),
            heard: udp::bound::is_ambiguous(&sockets).then(Heard::default),
            sockets,
        })
    }

    /// Lets each neighbour have this many bytes a second sent on to others, and no more.
    pub(crate) fn limit_transit(&self, bytes_per_second: NonZeroU64) {
        lock(&self.inbound).meter = Some(Meter::new(bytes_per_second));
    }

    /// What the switch did so far.
    pub(crate) fn counters(&self) -> &SwitchCounters {
        &self.counters
    }

    /// Whether this node is an attached stub, whose flows carry its attachment.
    pub(crate) fn is_attached_stub(&self) -> bool {
        self.table.load().attached_to().is_some()
    }

    /// The probes of direct paths that came in.
    pub(crate) fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Destinations of held packets that nodes list as stubs without proof.
    pub(crate) fn wanted(&self) -> Arc<Wanted> {
        Arc::clone(&self.wanted)
    }

    /// The carriers beside the UDP sockets.
    pub(crate) fn carriers(&self) -> &Arc<Carriers> {
        &self.carriers
    }

    /// The addresses of the UDP sockets.
    pub(crate) fn bound_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.addr).collect()
    }

    /// Releases the UDP sockets: nothing is received any more, and packets sent are lost.
    pub(crate) fn release(&self) {
        self.sockets.iter().chain(self.fresh.load().iter()).for_each(|socket| socket.io.release());
        self.carriers.close_all();
    }

    /// Waits until the system has the ports back. Cancel safe.
    pub(crate) async fn released(&self) {
        // Only a call in progress on another thread can still hold a socket, for microseconds.
        while !self.sockets.iter().all(|socket| socket.io.is_free()) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Replaces the forwarding table, retries held packets, and resends the last packet to every
    /// peer whose route changed.
    pub(crate) fn publish(&self, table: impl Into<Arc<ForwardingTable>>) {
        let table = table.into();
        let before = self.table.swap(table.clone());
        if before != table {
            self.retry_held(&table);
            self.resend_where_needed(&before, &table);
        }
    }

    /// Sends nothing from these addresses any more, which are not mapped ones: the system chooses
    /// others.
    pub(crate) fn set_gone(&self, addresses: Vec<IpAddr>) {
        self.gone.store(Arc::new(addresses));
    }

    /// Gives up packets that have waited too long for a route; to be called every
    /// [`HoldQueue::TICK_MILLIS`].
    pub(crate) fn tick(&self) {
        if let Some(meter) = &mut lock(&self.inbound).meter {
            meter.tick();
        }
        if let Some(heard) = &self.heard {
            heard.tick();
        }
        self.replies.tick();
        let expired = lock(&self.hold).tick();
        self.counters.dropped(DropReason::NoRoute, expired as u64);
    }

    /// Permits fresh ports, which `opener` binds. With `None`, [`open_port`](Self::open_port)
    /// fails.
    pub(crate) fn with_port_opener(mut self, opener: Option<PortOpener>) -> Self {
        self.fresh.set_opener(opener);
        self
    }

    /// Binds a UDP socket to an ephemeral port, receives from it, and returns the port.
    ///
    /// # Errors
    /// Binding failed, the socket has no opener, or `FreshPorts::MAX` ports are open. Nothing has
    /// changed.
    pub(crate) fn open_port(&self) -> io::Result<u16> {
        let port = self.fresh.open()?;
        // The receiving task registered with the sockets that existed when it last polled: wake it,
        // so that it polls the new one too.
        let waker = mem::take(&mut lock(&self.inbound).waker);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(port)
    }

    /// Closes a fresh port. Packets sent from it afterwards are dropped and counted as
    /// `send_failed`.
    pub(crate) fn close_port(&self, port: u16) {
        self.fresh.close(port);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("bound", &self.bound_addrs()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
