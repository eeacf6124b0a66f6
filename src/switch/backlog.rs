//! Packets that wait because the socket was full.

use std::collections::{BTreeMap, VecDeque};

use crate::id::NodeAddr;

/// A bounded FIFO queue in which each source node is limited to its share.
///
/// A source may fill free places, but beyond half of the queue only up to an equal share among the
/// sources that have packets queued. Packets leave in the order of arrival, so a limit on places is
/// also a limit on rate (the dynamic thresholds of Choudhury and Hahne, 1998, in their simplest
/// form).
#[derive(Debug)]
pub struct Backlog<T> {
    waiting: VecDeque<(NodeAddr, T)>,
    /// How many packets of each source wait.
    of: BTreeMap<NodeAddr, usize>,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), of: BTreeMap::new() }
    }
}

impl<T> Backlog<T> {
    /// The most packets that wait.
    pub const MAX_PACKETS: usize = 512;

    /// Whether there is a place for a packet of `source`: the queue is not full, and the source has
    /// not got its share of it.
    #[must_use]
    pub fn has_place_for(&self, source: NodeAddr) -> bool {
        let has = self.of.get(&source).copied().unwrap_or_default();
        let sharers = self.of.len() + usize::from(has == 0);
        let share = (Self::MAX_PACKETS / sharers / 2).max(1);
        let crowded = self.waiting.len() >= Self::MAX_PACKETS / 2;
        self.waiting.len() < Self::MAX_PACKETS && (!crowded || has < share)
    }

    /// Queues a packet; the caller has checked that there is a place.
    pub fn push(&mut self, source: NodeAddr, packet: T) {
        *self.of.entry(source).or_default() += 1;
        self.waiting.push_back((source, packet));
    }

    /// The packet that is to be sent next.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.waiting.front().map(|(_, packet)| packet)
    }

    /// Takes it out.
    pub fn pop(&mut self) -> Option<T> {
        let (source, packet) = self.waiting.pop_front()?;
        if let Some(has) = self.of.get_mut(&source) {
            *has -= 1;
            if *has == 0 {
                self.of.remove(&source);
            }
        }
        Some(packet)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: NodeAddr = NodeAddr([1; 8]);
    const MODEST: NodeAddr = NodeAddr([2; 8]);

    fn offer<T>(backlog: &mut Backlog<T>, source: NodeAddr, packet: T) -> bool {
        let has_place = backlog.has_place_for(source);
        if has_place {
            backlog.push(source, packet);
        }
        has_place
    }

    #[test]
    fn a_source_alone_takes_half_and_leaves_room_for_others() {
        let mut backlog = Backlog::default();
        let taken = (0..1_000).filter(|&i| offer(&mut backlog, GREEDY, i)).count();
        assert_eq!(taken, Backlog::<u32>::MAX_PACKETS / 2);
        assert!(offer(&mut backlog, MODEST, 0));
    }

    #[test]
    fn under_overload_the_greedy_and_the_modest_get_the_same() {
        let mut backlog = Backlog::default();
        let mut sent = BTreeMap::<NodeAddr, u32>::new();
        for _ in 0..10_000 {
            for _ in 0..10 {
                offer(&mut backlog, GREEDY, GREEDY);
            }
            offer(&mut backlog, MODEST, MODEST);
            *sent.entry(backlog.pop().unwrap()).or_default() += 1;
        }
        let (greedy, modest) = (sent[&GREEDY], sent[&MODEST]);
        assert!(modest * 10 >= greedy * 9, "greedy {greedy}, modest {modest}");
    }

    #[test]
    fn the_queue_is_bounded_whoever_sends() {
        let mut backlog = Backlog::default();
        for i in 0..10_000_u32 {
            let [a, b, c, d] = i.to_be_bytes();
            offer(&mut backlog, NodeAddr([a, b, c, d, 0, 0, 0, 0]), i);
        }
        assert_eq!(backlog.waiting.len(), Backlog::<u32>::MAX_PACKETS);
        while backlog.pop().is_some() {}
        assert!(backlog.is_empty() && backlog.of.is_empty());
    }

    #[test]
    fn packets_leave_in_the_order_they_came() {
        let mut backlog = Backlog::default();
        for i in 0..9 {
            backlog.push(if i % 2 == 0 { GREEDY } else { MODEST }, i);
        }
        assert_eq!(backlog.front(), Some(&0));
        assert_eq!(
            (0..9).map(|_| backlog.pop().unwrap()).collect::<Vec<_>>(),
            (0..9).collect::<Vec<_>>()
        );
    }
}
