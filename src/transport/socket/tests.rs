//! The socket between quinn and a network that the tests play.

mod direct;
mod fake;
mod fresh;
mod inbound;
mod mixtures;
mod outbound;
mod stubs;

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use quinn::AsyncUdpSocket;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};

use self::fake::FakeUdp;
use super::Socket;
use crate::id::NodeAddr;
use crate::switch::{
    Attachment, Cookie, DropReason, ForwardingTable, Header, Ingress, NextHop, Routes,
    SwitchCounters, SwitchStatus,
};
use crate::transport::overlay;

const ME: NodeAddr = NodeAddr(*b"--me----");
/// A neighbour that sends its own packets only.
const LEFT: NodeAddr = NodeAddr(*b"--left--");
/// A neighbour that carries other nodes' packets.
const RIGHT: NodeAddr = NodeAddr(*b"--right-");
/// A node behind `RIGHT`.
const FAR: NodeAddr = NodeAddr(*b"--far---");
/// A node that nobody has a route to.
const NOWHERE: NodeAddr = NodeAddr(*b"-nowhere");

/// What `LEFT` and `RIGHT` put into packets for this node.
const FROM_LEFT: Cookie = Cookie([0xaa; 8]);
const FROM_RIGHT: Cookie = Cookie([0xbb; 8]);
/// What this node puts into packets for them.
const TO_LEFT: Cookie = Cookie([0xa1; 8]);
const TO_RIGHT: Cookie = Cookie([0xb1; 8]);

/// The hop limit of packets that begin here.
const OWN_HOPS: u8 = 12;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn left() -> SocketAddr {
    addr("10.0.0.2:7400")
}

fn right() -> SocketAddr {
    addr("10.0.0.3:7400")
}

/// As quinn knows an IPv4 address.
fn mapped(text: &str) -> SocketAddr {
    super::mapped(addr(text))
}

fn hop(neighbour: NodeAddr) -> NextHop {
    // Links are known by the addresses that quinn gives them.
    match neighbour {
        LEFT => NextHop {
            neighbour,
            to: super::mapped(left()),
            from: None,
            local_port: None,
            cookie: TO_LEFT,
        },
        _ => NextHop {
            neighbour: RIGHT,
            to: super::mapped(right()),
            from: None,
            local_port: None,
            cookie: TO_RIGHT,
        },
    }
}

/// `LEFT` and `RIGHT` are neighbours, `FAR` is behind `RIGHT`.
fn relay() -> ForwardingTable {
    relay_with(&[])
}

/// The same with more routes, or others, by destination, neighbour, and hop limit.
fn relay_with(more: &[(NodeAddr, NodeAddr, u8)]) -> ForwardingTable {
    let known = [(LEFT, LEFT, OWN_HOPS), (RIGHT, RIGHT, OWN_HOPS), (FAR, RIGHT, OWN_HOPS)];
    let mut table = node(true, known.iter().chain(more));
    table.admit(FROM_LEFT, Ingress { neighbour: LEFT, transit: false });
    table.link(hop(LEFT));
    table.link(hop(RIGHT));
    table
}

/// The table of a node with these routes, which takes packets from `RIGHT`.
fn node<'a>(
    transit: bool,
    known: impl IntoIterator<Item = &'a (NodeAddr, NodeAddr, u8)>,
) -> ForwardingTable {
    let mut routes = Routes::default();
    for &(destination, via, hop_limit) in known {
        let place = routes.place(via);
        routes.insert(destination, [place], [], hop_limit);
    }
    let mut table = ForwardingTable::new(ME, transit, Arc::new(routes));
    table.admit(FROM_RIGHT, Ingress { neighbour: RIGHT, transit: true });
    table
}

fn header(cookie: Cookie, source: NodeAddr, destination: NodeAddr) -> Header {
    Header { hop_limit: 9, cookie, destination, source, attachment: Attachment::None }
}

/// A switched packet.
fn switched(header: Header, payload: &[u8]) -> Vec<u8> {
    [&header.encode()[..], payload].concat()
}

/// What looks like a QUIC packet.
fn quic(len: usize, fill: u8) -> Vec<u8> {
    let mut packet = vec![fill; len];
    packet[0] = 0x40 | (fill & 0x3f);
    packet
}

/// A socket under test, and the UDP socket under it.
struct Wire {
    socket: Arc<Socket>,
    udp: Arc<FakeUdp>,
    buffer_len: usize,
    buffers: usize,
}

/// A packet that quinn got.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    from: SocketAddr,
    packet: Vec<u8>,
}

/// A buffer that quinn got.
#[derive(Clone, Debug)]
struct Batch {
    meta: RecvMeta,
    contents: Vec<u8>,
}

impl Wire {
    /// A relay on one IPv4 socket.
    fn relay() -> Self {
        let wire = Self::over(FakeUdp::new("10.0.0.1:7400"));
        wire.socket.publish(relay());
        wire
    }

    fn over(udp: Arc<FakeUdp>) -> Self {
        let socket =
            Socket::new(vec![udp.clone()], ME, Arc::new(SwitchCounters::default())).unwrap();
        Self { socket: Arc::new(socket), udp, buffer_len: 64 * 1024, buffers: 4 }
    }

    /// Everything that quinn gets until there is no more.
    fn batches(&self) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(result) = self.poll(&mut cx) {
            batches.extend(result.into_iter().filter(|batch| batch.meta.len > 0));
        }
        batches
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Vec<Batch>> {
        let mut buffers = vec![vec![0; self.buffer_len]; self.buffers];
        let mut metas = vec![RecvMeta::default(); self.buffers];
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        self.socket.poll_recv(cx, &mut slices, &mut metas).map(|received| {
            let received = received.unwrap();
            let filled = metas.into_iter().zip(buffers).take(received);
            filled
                .map(|(meta, buffer)| Batch { meta, contents: buffer[..meta.len].to_vec() })
                .collect()
        })
    }

    /// The same, packet by packet, as quinn takes buffers apart.
    fn packets(&self) -> Vec<Got> {
        self.batches().iter().flat_map(Batch::packets).collect()
    }

    fn status(&self) -> SwitchStatus {
        self.socket.counters().status()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.status().dropped[&reason]
    }

    /// Asserts that these are all the drops there were.
    #[track_caller]
    fn assert_drops(&self, expected: &[(DropReason, u64)]) {
        let mut drops: Vec<_> =
            self.status().dropped.into_iter().filter(|(_, count)| *count > 0).collect();
        drops.sort();
        assert_eq!(drops, expected);
    }

    /// Sends as quinn does.
    fn send(
        &self,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> std::io::Result<()> {
        let ecn = Some(EcnCodepoint::Ect0);
        self.socket.try_send(&Transmit { destination, ecn, contents, segment_size, src_ip: None })
    }
}

impl Batch {
    fn packets(&self) -> Vec<Got> {
        assert!(self.meta.stride > 0, "a buffer that is not empty has a stride");
        let packets = self.contents.chunks(self.meta.stride);
        packets.map(|packet| Got { from: self.meta.addr, packet: packet.to_vec() }).collect()
    }
}

/// From a node, as quinn sees it.
fn got(source: NodeAddr, payload: &[u8]) -> Got {
    Got { from: overlay::socket_addr(source), packet: payload.to_vec() }
}

/// Chance for the tests: SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Socket {
    fn holds(&self) -> bool {
        !super::lock(&self.hold).is_empty()
    }
}
