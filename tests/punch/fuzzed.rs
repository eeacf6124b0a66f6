//! What `fuzz/` runs with any bytes as messages and probes; and random bytes here.
//!
//! It does not know the rest of the tests, so that `fuzz/` can take it from here.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::punch::{Arrival, Config, HostAddress, Message, Probe, Puncher, Role};

/// The first byte says whether the rest is a message or a datagram. A message that is read is
/// written and read again as the same; one that is an offer, and any datagram, goes to a puncher,
/// which stays within its bounds.
pub(crate) fn run(bytes: &[u8]) {
    let Some((what, bytes)) = bytes.split_first() else { return };
    let mut node = Node::new();
    if what % 2 == 1 {
        assert!(
            node.punch.handle_probe(Arrival::new(node.peer_at), bytes, node.now).is_err(),
            "nobody has told the key"
        );
        return;
    }
    let Ok(Some(message)) = Message::decode(bytes) else { return };
    let told = message.encode();
    let again =
        Message::decode(&told).expect("what was written is read").expect("it is of a known type");
    assert_eq!(again.encode(), told);
    let _ = node.punch.handle_message(&node.peer, message, node.now);
    node.settle();
    assert!(node.probes <= 32 * 15, "{} probes", node.probes);
}

struct Node {
    punch: Puncher,
    peer: NodeId,
    peer_at: SocketAddr,
    now: Instant,
    probes: usize,
}

impl Node {
    fn new() -> Self {
        let now = start();
        let mut punch = Puncher::new(Config::new("me".parse().expect("a good id"), [1; 32]), now);
        let host = |n| HostAddress::new(SocketAddr::from(([10, 0, 0, n], 7)));
        punch.set_host(vec![host(1)], now);
        let peer: NodeId = "peer".parse().expect("a good id");
        punch.connected(&peer, Role::Answerer, now);
        Self { punch, peer, peer_at: host(2).addr, now, probes: 0 }
    }

    /// Lets half a minute pass.
    fn settle(&mut self) {
        let until = self.now + Duration::from_secs(30);
        for _ in 0..10_000 {
            while self.punch.poll_event().is_some() || self.punch.poll_message().is_some() {}
            while let Some(Probe { bytes, .. }) = self.punch.poll_probe() {
                self.probes += 1;
                let own = self.punch.handle_probe(Arrival::new(self.peer_at), &bytes, self.now);
                assert!(own.is_err(), "its own probe");
            }
            match self.punch.poll_timeout() {
                Some(deadline) if deadline.at <= until => self.now = self.now.max(deadline.at),
                _ => return,
            }
            self.punch.handle_timeout(self.now);
        }
        unreachable!("spinning");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the first instant can only come from the clock; all others are counted from it"
)]
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}
