//! Remembers which UDP socket a remote address sends to, if addresses alone do not determine it.
//!
//! A node may listen on 127.0.0.1:1 and on 0.0.0.0:2. A packet to 127.0.0.1 may arrive at either,
//! and quinn knows the addresses of a path, but no local port. A reply from the other socket has
//! the wrong source port, and the peer drops it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use lru::LruCache;

use crate::sync::lock;

/// Maximum number of remembered addresses; the least recently heard are evicted first.
const MAX_HEARD: NonZeroUsize = NonZeroUsize::new(8_192).expect("not zero");
/// How long an address is bound to the socket that heard it, in ticks of half a second. Packets
/// with a forged source at another socket do not attract the replies while genuine ones arrive. A
/// metered link sends every 20 s.
const KEPT_TICKS: u32 = 60;

/// Which socket each remote address was heard on.
pub(in crate::transport::socket) struct Heard {
    addrs: Mutex<LruCache<SocketAddr, Place>>,
    now: AtomicU32,
}

#[derive(Clone, Copy)]
struct Place {
    socket: usize,
    /// The tick of the last packet.
    at: u32,
}

impl Default for Heard {
    fn default() -> Self {
        Self { addrs: Mutex::new(LruCache::new(MAX_HEARD)), now: AtomicU32::new(0) }
    }
}

impl Heard {
    /// A packet from this address, which is not a mapped one, came in by this socket.
    pub(in crate::transport::socket) fn note(&self, from: SocketAddr, socket: usize) {
        let at = self.now.load(Ordering::Relaxed);
        let place = Place { socket, at };
        match lock(&self.addrs).get_or_insert_mut(from, || place) {
            known if known.socket == socket || at.wrapping_sub(known.at) >= KEPT_TICKS => {
                *known = place
            }
            _ => {}
        }
    }

    /// The socket that this address was heard on.
    pub(in crate::transport::socket) fn socket(&self, from: SocketAddr) -> Option<usize> {
        lock(&self.addrs).peek(&from).map(|place| place.socket)
    }

    /// Half a second has passed.
    pub(in crate::transport::socket) fn tick(&self) {
        self.now.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn an_address_is_where_it_was_heard() {
        let heard = Heard::default();
        assert_eq!(heard.socket(addr(1)), None);
        heard.note(addr(1), 0);
        heard.note(addr(2), 1);
        assert_eq!((heard.socket(addr(1)), heard.socket(addr(2))), (Some(0), Some(1)));
    }

    #[test]
    fn a_forged_packet_at_another_socket_changes_nothing_while_true_ones_come() {
        let heard = Heard::default();
        heard.note(addr(1), 0);
        for tick in 0..10 * KEPT_TICKS {
            heard.tick();
            heard.note(addr(1), 1);
            if tick % 10 == 0 {
                heard.note(addr(1), 0);
            }
            assert_eq!(heard.socket(addr(1)), Some(0));
        }
    }

    #[test]
    fn an_address_that_was_silent_may_come_by_another_socket() {
        let heard = Heard::default();
        heard.note(addr(1), 0);
        (0..KEPT_TICKS).for_each(|_| heard.tick());
        heard.note(addr(1), 1);
        assert_eq!(heard.socket(addr(1)), Some(1));
    }
}
