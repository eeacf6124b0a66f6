//! A queue for searches by cost.

use std::iter::repeat_with;

/// The bits of a node's number.
pub(crate) const NODE_BITS: u32 = 24;

/// The maximum number of nodes: their indices, and the costs of paths of that many
/// links, fit into one word together.
pub(crate) const MAX_NODES: u32 = 1 << NODE_BITS;

/// A radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, 1990): a priority queue for costs that are
/// never lower than the one that came out last.
///
/// A node lies in the bucket of the highest bit in which its cost differs from the cost that came
/// out last. When the cheapest bucket is empty, the next one is spread over those below it. Each
/// node moves a few times, along memory.
#[derive(Debug)]
pub(crate) struct RadixHeap {
    last: u64,
    /// A cost and a node in one word each. Costs of paths fit: they have fewer links than there are
    /// nodes, and a link costs less than 2^16.
    buckets: Vec<Vec<u64>>,
}

impl RadixHeap {
    pub(crate) fn new() -> Self {
        let buckets = 1 + u64::BITS - NODE_BITS;
        Self { last: 0, buckets: repeat_with(Vec::new).take(buckets as usize).collect() }
    }

    pub(crate) fn push(&mut self, cost: u64, node: u32) {
        self.put(cost << NODE_BITS | u64::from(node));
    }

    /// One of the cheapest.
    pub(crate) fn pop(&mut self) -> Option<(u64, u32)> {
        if self.buckets[0].is_empty() {
            self.spread();
        }
        let word = self.buckets[0].pop()?;
        Some((word >> NODE_BITS, (word & ((1 << NODE_BITS) - 1)) as u32))
    }

    fn spread(&mut self) {
        let Some(at) = self.buckets.iter().position(|bucket| !bucket.is_empty()) else { return };
        let mut bucket = std::mem::take(&mut self.buckets[at]);
        self.last = bucket.iter().min().map_or(self.last, |word| word >> NODE_BITS);
        for word in bucket.drain(..) {
            self.put(word);
        }
        // Its memory is used again.
        self.buckets[at] = bucket;
    }

    fn put(&mut self, word: u64) {
        let differ = (word >> NODE_BITS) ^ self.last;
        self.buckets[(u64::BITS - differ.leading_zeros()) as usize].push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_comes_first_up_to_the_largest_there_can_be() {
        let nodes = (1 << NODE_BITS) - 1;
        let most = (u64::from(u16::MAX) * u64::from(nodes), nodes);
        let mut heap = RadixHeap::new();
        for (cost, node) in [most, (2, 0), (1, 9), (7, 3)] {
            heap.push(cost, node);
        }
        assert_eq!((heap.pop(), heap.pop()), (Some((1, 9)), Some((2, 0))));
        heap.push(2, 4);
        heap.push(5, 1);
        let all: Vec<_> = std::iter::from_fn(|| heap.pop()).collect();
        assert_eq!(all, [(2, 4), (5, 1), (7, 3), most]);
    }

    #[test]
    fn costs_come_out_in_order_whatever_goes_in_between() {
        let mut heap = RadixHeap::new();
        let mut random = 1_u64;
        let (mut last, mut out) = (0, 0);
        heap.push(0, 0);
        while let Some((cost, _)) = heap.pop() {
            assert!(cost >= last);
            (last, out) = (cost, out + 1);
            for node in 0..if out < 500 { 2 } else { 0 } {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                heap.push(cost + (random >> 48), node);
            }
        }
        assert_eq!(out, 999);
    }
}
