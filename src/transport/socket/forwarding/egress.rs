//! Collects packets for other nodes that arrived in one receive call, so that each send call
//! carries as much as possible.
//!
//! A sender's batches are short: quinn limits them to ten packets. Under load, several of them
//! arrive at a relay in one receive call. Those for the same next hop leave as one batch of up to
//! 64 KiB; joining them takes a copy, which costs a fraction of the system calls that it saves. A
//! batch that arrives alone is sent from the buffer it arrived in.

use std::io::IoSliceMut;
use std::ops::Range;

use quinn::udp::EcnCodepoint;

use crate::switch::NextHop;
use crate::transport::socket::udp::bound::MAX_SEND;

/// Maximum number of collected runs before they are sent.
const MAX_RUNS: usize = 64;

/// The runs of one call that received, in the order in which they came.
#[derive(Default)]
pub(in crate::transport::socket) struct Egress {
    /// The different next hops among them.
    hops: Vec<NextHop>,
    runs: Vec<Run>,
    /// Where runs are put together.
    joined: Vec<u8>,
}

/// Packets that lie behind each other in a buffer and go to the same next hop.
struct Run {
    /// Its next hop, by its place among them.
    hop: usize,
    /// The buffer's place among the others.
    buffer: usize,
    range: Range<usize>,
    /// The length of each packet; only the last one may be shorter.
    stride: usize,
    ecn: Option<EcnCodepoint>,
}

/// Packets to be sent at once.
pub(in crate::transport::socket) struct Batch<'a> {
    pub(in crate::transport::socket) next_hop: NextHop,
    pub(in crate::transport::socket) packets: &'a [u8],
    /// The length of each packet; only the last one may be shorter.
    pub(in crate::transport::socket) stride: usize,
    pub(in crate::transport::socket) ecn: Option<EcnCodepoint>,
}

/// A packet for another node that waits for room in the socket.
pub(in crate::transport::socket) struct Onward {
    pub(in crate::transport::socket) next_hop: NextHop,
    pub(in crate::transport::socket) ecn: Option<EcnCodepoint>,
    pub(in crate::transport::socket) packet: Vec<u8>,
}

impl Egress {
    /// Adds a run, which stays where it is until [`drain`](Self::drain).
    pub(in crate::transport::socket) fn push(
        &mut self,
        next_hop: NextHop,
        buffer: usize,
        range: Range<usize>,
        stride: usize,
        ecn: Option<EcnCodepoint>,
    ) {
        let known = self.hops.iter().position(|hop| *hop == next_hop);
        let hop = known.unwrap_or_else(|| {
            self.hops.push(next_hop);
            self.hops.len() - 1
        });
        let stride = stride.min(range.len()).max(1);
        self.runs.push(Run { hop, buffer, range, stride, ecn });
    }

    /// Whether what waits is to be sent before another run comes.
    pub(in crate::transport::socket) fn is_full(&self) -> bool {
        self.runs.len() >= MAX_RUNS
    }

    /// Whether runs of this buffer wait, so that nothing in it may be moved.
    pub(in crate::transport::socket) fn waits_in(&self, buffer: usize) -> bool {
        self.runs.iter().any(|run| run.buffer == buffer)
    }

    /// Hands everything that waits to `send`, in as few batches as possible. The packets to a next
    /// hop stay in order.
    pub(in crate::transport::socket) fn drain(
        &mut self,
        buffers: &[IoSliceMut<'_>],
        mut send: impl FnMut(Batch<'_>),
    ) {
        let Self { hops, runs, joined } = self;
        let bytes = |run: &Run| &buffers[run.buffer][run.range.clone()];
        for (hop, next_hop) in hops.iter().enumerate() {
            let mut runs = runs.iter().filter(|run| run.hop == hop).peekable();
            while let Some(first) = runs.next() {
                joined.clear();
                while let Some(next) = runs.next_if(|next| first.takes(joined.len(), next)) {
                    if joined.is_empty() {
                        joined.extend_from_slice(bytes(first));
                    }
                    joined.extend_from_slice(bytes(next));
                }
                let packets = if joined.is_empty() { bytes(first) } else { joined.as_slice() };
                send(Batch { next_hop: *next_hop, packets, stride: first.stride, ecn: first.ecn });
            }
        }
        hops.clear();
        runs.clear();
    }
}

impl Run {
    /// Whether another run can go behind this one, when it has grown to `joined` bytes; 0: it is
    /// alone.
    fn takes(&self, joined: usize, next: &Self) -> bool {
        let len = joined.max(self.range.len());
        let ends_whole = len.is_multiple_of(self.stride);
        // The batch ends with a packet that is shorter than the others.
        let shorter = next.range.len() == next.stride && next.stride <= self.stride;
        ends_whole
            && (next.stride == self.stride || shorter)
            && next.ecn == self.ecn
            && len + next.range.len() <= MAX_SEND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeAddr;
    use crate::switch::Cookie;

    fn hop(n: u8) -> NextHop {
        NextHop {
            neighbour: NodeAddr([n; 8]),
            to: "127.0.0.1:9".parse().unwrap(),
            from: None,
            local_port: None,
            cookie: Cookie([n; 8]),
        }
    }

    /// The batches, as the hop, the packets' lengths and their first byte.
    fn drained(egress: &mut Egress, buffers: &mut [Vec<u8>]) -> Vec<(u8, Vec<usize>, Vec<u8>)> {
        let buffers: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut batches = Vec::new();
        egress.drain(&buffers, |batch| {
            let packets = || batch.packets.chunks(batch.stride);
            let firsts = packets().map(|packet| packet[0]).collect();
            batches.push((
                batch.next_hop.cookie.0[0],
                packets().map(<[u8]>::len).collect(),
                firsts,
            ));
        });
        batches
    }

    #[test]
    fn runs_to_one_hop_become_one_batch_and_others_another_each_in_order() {
        let mut egress = Egress::default();
        let mut buffers = [vec![1; 200], vec![2; 100], vec![3; 250]];
        egress.push(hop(1), 0, 0..200, 100, None);
        egress.push(hop(2), 1, 0..100, 100, None);
        egress.push(hop(1), 2, 0..250, 100, None);
        let batches = drained(&mut egress, &mut buffers);
        assert_eq!(
            batches,
            [(1, vec![100, 100, 100, 100, 50], vec![1, 1, 3, 3, 3]), (2, vec![100], vec![2])]
        );
        assert!(drained(&mut egress, &mut buffers).is_empty());
    }

    #[test]
    fn nothing_goes_behind_a_shorter_packet_or_a_longer_behind_a_short_one() {
        let mut egress = Egress::default();
        let mut buffers = [vec![1; 150], vec![2; 100], vec![3; 40], vec![4; 100], vec![5; 80]];
        egress.push(hop(1), 0, 0..150, 100, None);
        egress.push(hop(1), 1, 0..100, 100, None);
        egress.push(hop(1), 2, 0..40, 100, None);
        egress.push(hop(1), 3, 0..100, 100, None);
        egress.push(hop(1), 4, 0..80, 40, None);
        let lens: Vec<_> =
            drained(&mut egress, &mut buffers).into_iter().map(|(_, lens, _)| lens).collect();
        assert_eq!(lens, [vec![100, 50], vec![100, 40], vec![100], vec![40, 40]]);
    }

    #[test]
    fn what_the_network_marked_is_not_mixed_with_what_it_did_not() {
        let mut egress = Egress::default();
        let mut buffers = [vec![1; 100], vec![2; 100]];
        egress.push(hop(1), 0, 0..100, 100, Some(EcnCodepoint::Ect0));
        egress.push(hop(1), 1, 0..100, 100, Some(EcnCodepoint::Ce));
        assert_eq!(drained(&mut egress, &mut buffers).len(), 2);
    }

    #[test]
    fn a_batch_fits_one_send() {
        let mut egress = Egress::default();
        let mut buffers = [vec![1; 30_000], vec![2; 30_000], vec![3; 30_000]];
        for nth in 0..3 {
            egress.push(hop(1), nth, 0..30_000, 1_000, None);
        }
        let lens: Vec<_> =
            drained(&mut egress, &mut buffers).into_iter().map(|(_, lens, _)| lens.len()).collect();
        assert_eq!(lens, [60, 30]);
    }
}
