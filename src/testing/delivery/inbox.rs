//! What is on its way to one socket, and what has arrived.

use crate::testing::spot::Endpoint;
use bytes::Bytes;
use quinn::udp::EcnCodepoint;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    task::Waker,
};
use tokio::time::Instant;

/// Bytes that a socket holds unread; what arrives on top is dropped, as in a kernel.
pub(in crate::testing) const RECEIVE_BUFFER: usize = 4 << 20;

/// Bytes that may be on their way to one socket: the network's memory is finite where a link's
/// delay is not.
pub(in crate::testing) const MAX_IN_FLIGHT: usize = 64 << 20;

/// One socket's end of the network.
#[derive(Debug)]
pub(in crate::testing) struct Inbox {
    /// Where others send to, to reach this socket.
    pub(in crate::testing) home: Endpoint,
    /// By arrival, and among simultaneous ones by order of sending.
    in_flight: BTreeMap<(Instant, u64), Parcel>,
    in_flight_bytes: usize,
    arrived: VecDeque<Parcel>,
    arrived_bytes: usize,
    waker: Option<Waker>,
}

/// A datagram on its way, or received; NATs change its ends.
#[derive(Debug)]
pub(in crate::testing) struct Parcel {
    pub(in crate::testing) source: SocketAddr,
    pub(in crate::testing) destination: SocketAddr,
    pub(in crate::testing) ecn: Option<EcnCodepoint>,
    pub(in crate::testing) contents: Bytes,
}

/// What arrived and what did not fit, for the counters.
#[derive(Debug, Default)]
pub(in crate::testing) struct Arrivals {
    pub(in crate::testing) datagrams: u64,
    pub(in crate::testing) bytes: u64,
    pub(in crate::testing) overflowed: u64,
}

impl Inbox {
    pub(in crate::testing) fn new(home: Endpoint) -> Self {
        Self {
            home,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            waker: None,
        }
    }

    /// Puts a datagram on its way. False if too much is on its way already.
    pub(in crate::testing) fn push(
        &mut self,
        due: Instant,
        sequence: u64,
        datagram: Parcel,
    ) -> bool {
        let len = datagram.contents.len();
        if self.in_flight_bytes + len > MAX_IN_FLIGHT {
            return false;
        }
        self.in_flight_bytes += len;
        self.in_flight.insert((due, sequence), datagram);
        true
    }

    /// Moves what is due to the receive buffer.
    pub(in crate::testing) fn settle(&mut self, now: Instant) -> Arrivals {
        let mut arrivals = Arrivals::default();
        while let Some(first) = self.in_flight.first_entry() {
            if first.key().0 > now {
                break;
            }
            let datagram = first.remove();
            let len = datagram.contents.len();
            self.in_flight_bytes -= len;
            if self.arrived_bytes + len > RECEIVE_BUFFER {
                arrivals.overflowed += 1;
                continue;
            }
            self.arrived_bytes += len;
            self.arrived.push_back(datagram);
            arrivals.datagrams += 1;
            arrivals.bytes += len as u64;
        }
        arrivals
    }

    /// The next datagram of the receive buffer.
    pub(in crate::testing) fn pop(&mut self) -> Option<Parcel> {
        let datagram = self.arrived.pop_front()?;
        self.arrived_bytes -= datagram.contents.len();
        Some(datagram)
    }

    /// When the next datagram arrives.
    pub(in crate::testing) fn next_due(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|((due, _), _)| *due)
    }

    pub(in crate::testing) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes what is on its way from such sources off the wire, and says how many that were.
    pub(in crate::testing) fn intercept(&mut self, from: impl Fn(SocketAddr) -> bool) -> u64 {
        let before = self.in_flight.len();
        let bytes = &mut self.in_flight_bytes;
        self.in_flight.retain(|_, datagram| {
            let stays = !from(datagram.source);
            if !stays {
                *bytes -= datagram.contents.len();
            }
            stays
        });
        (before - self.in_flight.len()) as u64
    }

    /// Remembers whom to wake. The waker it replaces is for the caller to drop, outside of any
    /// lock.
    pub(in crate::testing) fn register(&mut self, waker: &Waker) -> Option<Waker> {
        if self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return None;
        }
        self.waker.replace(waker.clone())
    }

    /// Whom to wake, if anyone waits. For the caller to wake outside of any lock.
    pub(in crate::testing) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spot::Realm;
    use std::time::Duration;

    const SOURCE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn datagram(len: usize) -> Parcel {
        Parcel {
            source: SOURCE,
            destination: SOURCE,
            ecn: None,
            contents: Bytes::from(vec![0; len]),
        }
    }

    fn inbox() -> Inbox {
        Inbox::new(Realm::INTERNET.endpoint(SOURCE))
    }

    #[test]
    fn datagrams_arrive_by_time_and_then_by_order_of_sending() {
        let (mut inbox, now) = (inbox(), Instant::now());
        let later = now + Duration::from_millis(1);
        for (due, sequence, len) in [(later, 0, 10), (now, 1, 20), (now, 2, 30)] {
            assert!(inbox.push(due, sequence, datagram(len)));
        }
        assert_eq!(inbox.settle(now).datagrams, 2);
        assert_eq!(inbox.next_due(), Some(later));
        inbox.settle(later);
        let lengths: Vec<_> =
            std::iter::from_fn(|| inbox.pop()).map(|d| d.contents.len()).collect();
        assert_eq!(lengths, [20, 30, 10]);
        assert_eq!((inbox.in_flight_bytes, inbox.arrived_bytes), (0, 0));
    }

    #[test]
    fn a_full_receive_buffer_drops_what_arrives() {
        let (mut inbox, now) = (inbox(), Instant::now());
        for sequence in 0..5 {
            assert!(inbox.push(now, sequence, datagram(RECEIVE_BUFFER / 4)));
        }
        let arrivals = inbox.settle(now);
        assert_eq!((arrivals.datagrams, arrivals.overflowed), (4, 1));
        inbox.pop();
        assert!(inbox.push(now, 5, datagram(RECEIVE_BUFFER / 4)));
        assert_eq!(inbox.settle(now).datagrams, 1);
    }

    #[test]
    fn no_more_than_the_limit_is_on_its_way() {
        let (mut inbox, now) = (inbox(), Instant::now());
        assert!(inbox.push(now, 0, datagram(MAX_IN_FLIGHT)));
        assert!(!inbox.push(now, 1, datagram(1)));
        assert_eq!(inbox.intercept(|source| source == SOURCE), 1);
        assert!(inbox.push(now, 2, datagram(1)));
    }
}
