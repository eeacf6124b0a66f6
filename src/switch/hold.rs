//! Packets that wait for a route.

use std::collections::VecDeque;

use crate::id::NodeAddr;

/// A packet without a route, with what is needed to retry it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldPacket {
    /// The ingress neighbour; `None` for packets of this node.
    pub ingress: Option<NodeAddr>,
    /// The node it is for.
    pub destination: NodeAddr,
    /// The whole packet, header included.
    pub packet: Vec<u8>,
}

/// A bounded queue of packets that wait for a route for one to two ticks.
///
/// It has no clock: the owner calls [`tick`](Self::tick) every [`TICK_MILLIS`](Self::TICK_MILLIS)
/// milliseconds, and a packet expires at its second tick.
#[derive(Debug, Default)]
pub struct HoldQueue {
    old: VecDeque<HeldPacket>,
    young: VecDeque<HeldPacket>,
    bytes: usize,
}

impl HoldQueue {
    /// The most packets held at a time.
    pub const MAX_PACKETS: usize = 256;
    /// The most bytes held at a time.
    pub const MAX_BYTES: usize = 512 * 1024;
    /// The time between two ticks, in milliseconds: a packet is held for half a second to a second.
    pub const TICK_MILLIS: u64 = 500;

    /// Holds a packet; `false` if the queue is full.
    #[must_use]
    pub fn push(&mut self, packet: HeldPacket) -> bool {
        let len = packet.packet.len();
        if self.old.len() + self.young.len() >= Self::MAX_PACKETS
            || self.bytes + len > Self::MAX_BYTES
        {
            return false;
        }
        self.bytes += len;
        self.young.push_back(packet);
        true
    }

    /// Removes the packets that `find` returns a route for, oldest first, and returns them with
    /// their routes. The others stay and keep their age.
    #[must_use]
    pub fn take_routable<T>(
        &mut self,
        mut find: impl FnMut(&HeldPacket) -> Option<T>,
    ) -> Vec<(HeldPacket, T)> {
        let mut found = Vec::new();
        for queue in [&mut self.old, &mut self.young] {
            for held in std::mem::take(queue) {
                match find(&held) {
                    Some(way) => found.push((held, way)),
                    None => queue.push_back(held),
                }
            }
        }
        self.bytes -= found.iter().map(|(held, _)| held.packet.len()).sum::<usize>();
        found
    }

    /// Says that a tick has passed; returns how many packets were given up.
    pub fn tick(&mut self) -> usize {
        let expired = self.old.len();
        self.bytes -= self.old.iter().map(|held| held.packet.len()).sum::<usize>();
        self.old = std::mem::take(&mut self.young);
        expired
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.old.is_empty() && self.young.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(len: usize) -> HeldPacket {
        HeldPacket { ingress: None, destination: NodeAddr([1; 8]), packet: vec![0; len] }
    }

    #[test]
    fn a_packet_is_given_up_at_its_second_tick() {
        let mut hold = HoldQueue::default();
        assert!(hold.push(packet(10)));
        assert_eq!(hold.tick(), 0);
        assert!(hold.push(packet(20)));
        assert_eq!(hold.tick(), 1);
        assert_eq!(hold.take_routable(|_| Some(())), vec![(packet(20), ())]);
        assert!(hold.is_empty());
    }

    #[test]
    fn packets_without_a_way_stay_as_old_as_they_are() {
        let mut hold = HoldQueue::default();
        assert!(hold.push(packet(10)) && hold.push(packet(20)));
        hold.tick();
        assert!(hold.push(packet(30)) && hold.push(packet(20)));
        let twenties = hold.take_routable(|held| (held.packet.len() == 20).then_some(()));
        assert_eq!(twenties.len(), 2);
        assert_eq!(hold.tick(), 1);
        assert_eq!(hold.bytes, 30);
        assert_eq!(hold.take_routable(|_| Some(())), vec![(packet(30), ())]);
        assert_eq!(hold.bytes, 0);
    }

    #[test]
    fn the_queue_is_bounded_in_packets_and_bytes() {
        let mut hold = HoldQueue::default();
        assert_eq!((0..300).filter(|_| hold.push(packet(1))).count(), HoldQueue::MAX_PACKETS);
        let mut hold = HoldQueue::default();
        assert_eq!((0..9).filter(|_| hold.push(packet(64 * 1024))).count(), 8);
        hold.tick();
        hold.tick();
        assert!(hold.push(packet(64 * 1024)), "what was given up makes room");
    }
}
