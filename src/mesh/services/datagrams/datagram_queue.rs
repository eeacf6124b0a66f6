//! A bounded queue of datagrams for a listener, shared fairly between callers.
//!
//! When the queue is full, the oldest datagram of the caller that holds most makes room (as in
//! RFC 8290, section 4.1), so a flood displaces only the datagrams of its own sender.
//! Ephemeral nodes that share a certificate are one caller.
//!
//! quinn receives packets in batches of up to 64 KiB, and a payload keeps its whole batch in
//! memory. Only the first [`SHARED`] waiting datagrams may do so; later ones are copied, which
//! keeps the memory of the queue close to the bytes it counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::id::NodeId;
use crate::sync::lock;

/// Maximum number of bytes that wait for one listener, including 64 bytes of overhead per datagram.
/// Beyond it, older datagrams are dropped. The listener may hold as many again that it has taken.
pub const MAX_WAITING_DATAGRAMS: usize = 1024 * 1024;
/// Bytes that a waiting datagram counts for in addition to its payload.
const OVERHEAD: usize = 64;
/// Datagrams that may wait without being copied. A listener that keeps up rarely has more.
const SHARED: usize = 32;
/// Room for datagrams that an empty queue keeps, so that a caller who is alone causes no allocation
/// each time the listener wakes up.
const KEPT: usize = 1024;

/// A datagram received for a service.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Datagram {
    /// The node that sent it, as its certificate says.
    pub peer: NodeId,
    /// What it carries. It may keep up to 64 KiB of packets that arrived together in memory: copy
    /// it if you keep it for long.
    pub payload: Bytes,
}

/// What waits for one listener.
#[derive(Debug, Default)]
pub(in crate::mesh::services) struct Queue {
    waiting: Mutex<Waiting>,
    closed: AtomicBool,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By caller, without the suffix of its id.
    lanes: BTreeMap<NodeId, Lane>,
    bytes: usize,
    datagrams: usize,
    next: u64,
}

/// The datagrams of one caller, in the order of their arrival.
#[derive(Debug, Default)]
struct Lane {
    datagrams: VecDeque<Arrived>,
    bytes: usize,
}

/// A datagram with its place in the order of all.
#[derive(Debug)]
pub(in crate::mesh::services) struct Arrived {
    nth: u64,
    pub(in crate::mesh::services) datagram: Datagram,
}

/// What became of a datagram for a service that was known.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::mesh::services) enum Queued {
    /// It was queued, and nothing was dropped.
    Kept,
    /// It was queued, and this many were dropped to make room.
    Instead(u64),
    /// The listener is gone.
    Closed,
}

impl Queue {
    /// Queues a datagram of `caller`, the id of its peer without an ephemeral suffix.
    pub(in crate::mesh::services) fn push(
        &self,
        caller: &NodeId,
        mut datagram: Datagram,
    ) -> Queued {
        let mut waiting = lock(&self.waiting);
        if !self.is_open() {
            return Queued::Closed;
        }
        let first = waiting.datagrams == 0;
        if waiting.datagrams >= SHARED {
            datagram.payload = Bytes::copy_from_slice(&datagram.payload);
        }
        waiting.push(caller, datagram);
        let mut dropped = 0;
        while waiting.bytes > MAX_WAITING_DATAGRAMS {
            waiting.drop_one(caller);
            dropped += 1;
        }
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
        if dropped == 0 { Queued::Kept } else { Queued::Instead(dropped) }
    }

    /// Moves everything that waits into the empty `into`, in order of arrival. Returns true if the
    /// queue is closed and nothing was left.
    pub(in crate::mesh::services) fn take(&self, into: &mut VecDeque<Arrived>) -> bool {
        let mut waiting = lock(&self.waiting);
        let ended = waiting.datagrams == 0 && !self.is_open();
        (waiting.bytes, waiting.datagrams) = (0, 0);
        if waiting.lanes.len() == 1
            && let Some(mut only) = waiting.lanes.first_entry()
        {
            only.get_mut().take(into);
            return ended;
        }
        let taken = std::mem::take(&mut waiting.lanes);
        drop(waiting);
        for lane in taken.into_values() {
            into.extend(lane.datagrams);
        }
        into.make_contiguous().sort_unstable_by_key(|arrived| arrived.nth);
        ended
    }

    /// Waits until a datagram arrives or the queue is closed.
    pub(in crate::mesh::services) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(in crate::mesh::services) fn close(&self) {
        let waiting = lock(&self.waiting);
        self.closed.store(true, Ordering::Relaxed);
        drop(waiting);
        self.arrived.notify_one();
    }

    pub(in crate::mesh::services) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }
}

impl Waiting {
    fn push(&mut self, caller: &NodeId, datagram: Datagram) {
        let size = size(&datagram);
        let arrived = Arrived { nth: self.next, datagram };
        self.next += 1;
        match self.lanes.get_mut(caller) {
            Some(lane) => lane.push(arrived, size),
            None => self.lanes.entry(caller.clone()).or_default().push(arrived, size),
        }
        self.bytes += size;
        self.datagrams += 1;
    }

    /// Drops the oldest datagram of the caller that holds most; of `caller` itself if several do.
    fn drop_one(&mut self, caller: &NodeId) {
        let own = self.lanes.get(caller).map_or(0, |lane| lane.bytes);
        // No caller can hold more than one that holds half, so a flood needs no search.
        let greedy = if 2 * own >= self.bytes {
            caller.clone()
        } else {
            let most = self.lanes.iter().max_by_key(|(id, lane)| (lane.bytes, *id == caller));
            let Some((greedy, _)) = most else { return };
            greedy.clone()
        };
        let Some(lane) = self.lanes.get_mut(&greedy) else { return };
        if let Some(dropped) = lane.pop() {
            self.bytes -= dropped;
            self.datagrams -= 1;
        }
        // A caller without datagrams takes no memory.
        if lane.datagrams.is_empty() {
            self.lanes.remove(&greedy);
        }
    }
}

impl Lane {
    fn push(&mut self, arrived: Arrived, size: usize) {
        self.bytes += size;
        self.datagrams.push_back(arrived);
    }

    /// Moves all datagrams into the empty `into`, whose memory is used for the next ones.
    fn take(&mut self, into: &mut VecDeque<Arrived>) {
        if into.capacity() > KEPT {
            *into = VecDeque::new();
        }
        std::mem::swap(&mut self.datagrams, into);
        self.bytes = 0;
    }

    /// Drops the oldest datagram and returns its size.
    fn pop(&mut self) -> Option<usize> {
        let size = size(&self.datagrams.pop_front()?.datagram);
        self.bytes -= size;
        Some(size)
    }
}

fn size(datagram: &Datagram) -> usize {
    datagram.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(peer: &str, payload: &[u8]) -> Datagram {
        Datagram { peer: peer.parse().unwrap(), payload: Bytes::copy_from_slice(payload) }
    }

    fn push(queue: &Queue, peer: &str, payload: &[u8]) -> Queued {
        let datagram = datagram(peer, payload);
        queue.push(&datagram.peer.base(), datagram)
    }

    fn taken(queue: &Queue) -> Vec<Datagram> {
        let mut taken = VecDeque::new();
        assert!(!queue.take(&mut taken));
        taken.into_iter().map(|arrived| arrived.datagram).collect()
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let queue = Queue::default();
        let fit = MAX_WAITING_DATAGRAMS / (1_000 + OVERHEAD);
        for n in 0..fit {
            assert_eq!(push(&queue, "a", &[n as u8; 1_000]), Queued::Kept);
        }
        assert_eq!(push(&queue, "a", &[0xff; 1_000]), Queued::Instead(1));
        let taken = taken(&queue);
        assert_eq!((taken.len(), taken[0].payload[0]), (fit, 1));
        assert_eq!(taken.last(), Some(&datagram("a", &[0xff; 1_000])));
        assert_eq!(push(&queue, "a", b"later"), Queued::Kept);
    }

    #[test]
    fn datagrams_of_several_callers_keep_the_order_of_arrival() {
        let queue = Queue::default();
        let peers = ["c", "a", "b", "a", "c"];
        for (n, peer) in peers.into_iter().enumerate() {
            push(&queue, peer, &[n as u8]);
        }
        let expected: Vec<_> =
            peers.into_iter().enumerate().map(|(n, peer)| datagram(peer, &[n as u8])).collect();
        assert_eq!(taken(&queue), expected);
    }

    #[test]
    fn a_flood_displaces_nothing_of_others() {
        let queue = Queue::default();
        for n in 0..100_u8 {
            push(&queue, "modest", &[n; 1_000]);
        }
        for n in 0..10_000 {
            push(&queue, &format!("greedy~{}", n % 7), &[0; 1_000]);
        }
        let bytes = lock(&queue.waiting).bytes;
        assert!(bytes <= MAX_WAITING_DATAGRAMS, "{bytes}");
        let kept =
            taken(&queue).into_iter().filter(|datagram| datagram.peer.as_str() == "modest").count();
        assert_eq!(kept, 100);
    }

    #[test]
    fn a_caller_below_its_share_finds_room_in_a_queue_that_others_have_filled() {
        let queue = Queue::default();
        for _ in 0..10_000 {
            push(&queue, "one", &[1; 1_000]);
            push(&queue, "two", &[2; 1_000]);
        }
        for n in 0..50 {
            assert_eq!(push(&queue, "three", &[n; 1_000]), Queued::Instead(1));
        }
        let of_three =
            taken(&queue).into_iter().filter(|datagram| datagram.peer.as_str() == "three").count();
        assert_eq!(of_three, 50);
    }

    #[test]
    fn a_caller_that_sends_less_loses_nothing_beside_idle_ones() {
        let queue = Queue::default();
        for _ in 0..2_000 {
            push(&queue, "flood", &[0; 1_000]);
        }
        for n in 0..20 {
            push(&queue, &format!("idle{n}"), b"small");
        }
        for n in 0..200_u8 {
            push(&queue, "modest", &[n; 1_000]);
            push(&queue, "flood", &[0; 1_000]);
        }
        let taken = taken(&queue);
        let of = |peer: &str| taken.iter().filter(|d| d.peer.as_str().starts_with(peer)).count();
        assert_eq!((of("modest"), of("idle")), (200, 20));
    }

    #[test]
    fn of_callers_that_hold_the_same_the_sender_makes_room() {
        let queue = Queue::default();
        let push_to = |peer| push(&queue, peer, &[0; 1_060 - OVERHEAD]);
        let fit = MAX_WAITING_DATAGRAMS / 1_060;
        let mut order = ["three", "two", "one"].into_iter().cycle();
        for peer in order.by_ref().take(fit) {
            assert_eq!(push_to(peer), Queued::Kept);
        }
        assert_eq!((order.next(), push_to("one")), (Some("one"), Queued::Instead(1)));
        let lanes = &lock(&queue.waiting).lanes;
        let held: Vec<_> =
            lanes.iter().map(|(id, lane)| (id.as_str(), lane.bytes / 1_060)).collect();
        assert_eq!(held, [("one", fit / 3), ("three", fit / 3 + 1), ("two", fit / 3 + 1)]);
    }

    #[test]
    fn a_caller_alone_uses_the_same_memory_again() {
        let queue = Queue::default();
        let mut taken = VecDeque::new();
        let mut buffers = Vec::new();
        for _ in 0..4 {
            push(&queue, "a", b"datagram");
            queue.take(&mut taken);
            buffers.push(taken.as_slices().0.as_ptr());
            taken.clear();
        }
        assert_eq!(buffers[..2], buffers[2..]);
        // A burst does not keep the memory that it needed.
        for _ in 0..=KEPT {
            push(&queue, "a", b"");
        }
        queue.take(&mut taken);
        taken.clear();
        queue.take(&mut taken);
        assert!(
            taken.capacity() <= KEPT
                && lock(&queue.waiting).lanes["a"].datagrams.capacity() <= KEPT
        );
    }

    #[test]
    fn what_waits_keeps_no_batches_of_packets() {
        let queue = Queue::default();
        let batch = Bytes::from(vec![7; 64 * 1024]);
        let caller: NodeId = "a".parse().unwrap();
        for at in 0..1_000 {
            queue.push(&caller, Datagram { peer: caller.clone(), payload: batch.slice(at..=at) });
        }
        let within = batch.as_ptr_range();
        let shared = taken(&queue).iter().filter(|d| within.contains(&d.payload.as_ptr())).count();
        assert_eq!(shared, SHARED);
    }
}
