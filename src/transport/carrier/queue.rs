//! Packets that wait for room in a carrier's stream.
//!
//! TCP accepts what it can send, and the rest waits here rather than in the kernel, where the
//! length of the queue would be the latency of everything behind it. Flows take turns by bytes
//! (deficit round robin, RFC 8290 §4.1.1). Beyond its limit the queue drops the oldest packet of
//! the flow that holds most, which is how QUIC's congestion control notices.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::id::NodeAddr;
use crate::switch::Header;
use crate::transport::carrier::MAX_PACKET;

/// The limit, as time at the measured rate.
const MAX_WAIT: Duration = Duration::from_millis(50);
/// The least limit, in bytes: costs 26 ms at 20 Mbit/s, and no throughput on a path without loss.
const MIN_LIMIT: usize = 64 * 1024;
/// The largest limit, in bytes: 50 ms at 160 Mbit/s. Faster streams are drained sooner.
const MAX_LIMIT: usize = 1024 * 1024;
/// The limit until the rate is measured.
const FIRST_LIMIT: usize = 256 * 1024;
/// Time with packets in the queue after which the rate is measured again.
const MEASURE: Duration = Duration::from_millis(20);
/// What a packet counts beside its bytes, so that the number of packets is bounded, too.
pub(super) const OVERHEAD: usize = 64;
/// What each flow may send in its turn, in bytes: the longest packet, so that each turn sends one.
const QUANTUM: usize = MAX_PACKET + OVERHEAD;

/// The maximum number of flows with turns of their own. The source of a packet is not verified
/// here, so a member can invent any number of flows; the search for the longest one is as long as
/// this.
const MAX_FLOWS: usize = 256;

/// Whose packets share a turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum FlowKey {
    /// Those of the link itself.
    Link,
    /// Those from one node to another.
    Nodes(NodeAddr, NodeAddr),
    /// Those of all flows beyond [`MAX_FLOWS`].
    Others,
}

/// The flow of a packet.
pub(super) fn flow_of(packet: &[u8]) -> FlowKey {
    Header::decode(packet)
        .map_or(FlowKey::Link, |header| FlowKey::Nodes(header.source, header.destination))
}

/// Packets of one carrier.
#[derive(Debug)]
pub(super) struct Queue {
    flows: BTreeMap<FlowKey, Flow>,
    /// Those with packets; the first sends next.
    turns: VecDeque<FlowKey>,
    /// Of all packets, with their overhead.
    size: usize,
    limit: usize,
    /// When the queue was last empty or measured, while it is not empty.
    busy_since: Option<Instant>,
    /// What was sent since, and in busy times before that were too short.
    sent: usize,
    busy: Duration,
}

#[derive(Debug, Default)]
struct Flow {
    packets: VecDeque<Vec<u8>>,
    size: usize,
    credit: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            flows: BTreeMap::new(),
            turns: VecDeque::new(),
            size: 0,
            limit: FIRST_LIMIT,
            busy_since: None,
            sent: 0,
            busy: Duration::ZERO,
        }
    }
}

impl Queue {
    /// Adds a packet. Returns how many were dropped for it.
    pub(super) fn push(&mut self, key: FlowKey, packet: Vec<u8>, now: Instant) -> u64 {
        if packet.is_empty() || packet.len() > MAX_PACKET {
            return 1;
        }
        self.busy_since.get_or_insert(now);
        let size = packet.len() + OVERHEAD;
        let has_turn = key == FlowKey::Link || self.flows.contains_key(&key);
        let key = if has_turn || self.flows.len() < MAX_FLOWS { key } else { FlowKey::Others };
        let flow = self.flows.entry(key).or_default();
        if flow.packets.is_empty() {
            self.turns.push_back(key);
        }
        flow.size += size;
        flow.packets.push_back(packet);
        self.size += size;
        let mut dropped = 0;
        while self.size > self.limit && self.drop_oldest() {
            dropped += 1;
        }
        dropped
    }

    /// The next packet to send.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            let key = *self.turns.front()?;
            let flow = self.flows.get_mut(&key)?;
            let next = flow.packets.front().map_or(0, Vec::len) + OVERHEAD;
            if flow.credit < next {
                // The turn of the next flow, and more credit for this one's next turn.
                flow.credit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            flow.credit -= next;
            let packet = self.take(key)?;
            self.sent += packet.len();
            self.measure(now);
            return Some(packet);
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let longest = self.flows.iter().max_by_key(|(_, flow)| flow.size).map(|(key, _)| *key);
        longest.is_some_and(|key| self.take(key).is_some())
    }

    /// Removes the oldest packet of a flow, and the flow with its last.
    fn take(&mut self, key: FlowKey) -> Option<Vec<u8>> {
        let flow = self.flows.get_mut(&key)?;
        let packet = flow.packets.pop_front()?;
        flow.size -= packet.len() + OVERHEAD;
        self.size -= packet.len() + OVERHEAD;
        if flow.packets.is_empty() {
            self.flows.remove(&key);
            self.turns.retain(|other| *other != key);
        }
        Some(packet)
    }

    /// Adapts the limit to the rate at which the stream accepts packets, while some wait.
    fn measure(&mut self, now: Instant) {
        let Some(since) = self.busy_since else { return };
        let busy = self.busy + now.saturating_duration_since(since);
        if busy >= MEASURE {
            let rate = self.sent as f64 / busy.as_secs_f64();
            let limit = (rate * MAX_WAIT.as_secs_f64()) as usize;
            self.limit = limit.clamp(MIN_LIMIT, MAX_LIMIT);
            (self.busy, self.sent, self.busy_since) = (Duration::ZERO, 0, Some(now));
        }
        if self.size == 0
            && let Some(since) = self.busy_since.take()
        {
            self.busy += now.saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FlowKey = FlowKey::Link;
    const B: FlowKey = FlowKey::Nodes(NodeAddr(*b"source--"), NodeAddr(*b"destinat"));

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn a_flow_that_floods_does_not_delay_another() {
        let (mut queue, now) = (Queue::default(), start());
        for _ in 0..100 {
            queue.push(A, vec![b'a'; 1_400], now);
        }
        queue.push(B, vec![b'b'; 100], now);
        let before = std::iter::from_fn(|| queue.pop(now)).position(|packet| packet[0] == b'b');
        assert!(before.unwrap() * 1_400 <= 2 * QUANTUM, "{before:?}");
    }

    #[test]
    fn flows_share_by_bytes_not_by_packets() {
        let (mut queue, now) = (Queue::default(), start());
        for nth in 0..800 {
            queue.push(A, vec![b'a'; 100], now);
            if nth < 20 {
                queue.push(B, vec![b'b'; 8_000], now);
            }
        }
        let (mut a, mut b) = (0, 0);
        for packet in std::iter::from_fn(|| queue.pop(now)).take(300) {
            match packet[0] {
                b'a' => a += packet.len() + OVERHEAD,
                _ => b += packet.len() + OVERHEAD,
            }
        }
        assert!(a.abs_diff(b) <= 2 * QUANTUM, "{a} and {b}");
    }

    #[test]
    fn beyond_the_limit_the_oldest_packet_of_the_longest_flow_is_dropped() {
        let (mut queue, now) = (Queue::default(), start());
        queue.push(B, vec![b'b'; 1_000], now);
        let mut dropped = 0;
        for nth in 0..=255_u8 {
            dropped += queue.push(A, vec![nth; 8_000], now);
            assert!(queue.size <= FIRST_LIMIT);
        }
        let left: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
        assert_eq!(left.len() as u64 + dropped, 257);
        assert!(left.iter().any(|packet| packet[0] == b'b'), "the short flow lost nothing");
        assert_eq!(left.last().unwrap()[0], 255, "the newest packet is there");
        assert_eq!((queue.size, queue.flows.len(), queue.turns.len()), (0, 0, 0));
    }

    #[test]
    fn the_number_of_the_smallest_packets_is_bounded() {
        let (mut queue, now) = (Queue::default(), start());
        let dropped: u64 = (0..100_000).map(|_| queue.push(A, vec![1], now)).sum();
        assert_eq!(100_000 - dropped, (FIRST_LIMIT / (1 + OVERHEAD)) as u64);
        assert_eq!(queue.push(A, vec![0; MAX_PACKET + 1], now), 1);
        assert_eq!(queue.push(A, Vec::new(), now), 1);
    }

    #[test]
    fn invented_flows_share_what_is_beyond_the_limit_of_flows() {
        let (mut queue, now) = (Queue::default(), start());
        queue.push(B, vec![b'b'; 100], now);
        for nth in 0..10_000_u64 {
            let invented = FlowKey::Nodes(NodeAddr(nth.to_be_bytes()), NodeAddr([0; 8]));
            queue.push(invented, vec![1], now);
            assert!(queue.flows.len() <= MAX_FLOWS + 2 && queue.turns.len() == queue.flows.len());
        }
        queue.push(A, vec![b'a'; 100], now);
        let left: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
        let at = |byte| left.iter().position(|packet| packet[0] == byte);
        // One packet of each other flow, and one turn of all that share.
        let before = MAX_FLOWS + QUANTUM / (1 + OVERHEAD) + 2;
        assert!(at(b'a').is_some_and(|at| at <= before) && at(b'b').is_some());
    }

    /// The limit after a stream has accepted 1,000 bytes every so many microseconds.
    fn limit_at(micros: u64) -> usize {
        let (mut queue, mut now) = (Queue::default(), start());
        for _ in 0..50_000 {
            for _ in 0..3 {
                queue.push(A, vec![0; 1_000], now);
            }
            now += Duration::from_micros(micros);
            queue.pop(now);
        }
        queue.limit
    }

    #[test]
    fn the_limit_is_fifty_milliseconds_at_the_measured_rate() {
        assert_eq!(limit_at(8_000), MIN_LIMIT, "1 Mbit/s");
        let at_80_mbit = limit_at(100);
        assert!((490_000..=510_000).contains(&at_80_mbit), "{at_80_mbit}");
        assert_eq!(limit_at(1), MAX_LIMIT, "8 Gbit/s");
    }
}
