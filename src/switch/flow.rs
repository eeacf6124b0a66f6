//! Selection among several next hops of equal cost.

use crate::id::NodeAddr;

/// The packets from one node to another. All packets of a flow take the same path, so that they
/// arrive in order.
///
/// The next hop is selected by rendezvous hashing: the flow gives every neighbour a weight and
/// takes the highest. So every node spreads its flows independently, and when a neighbour fails,
/// only the flows through it are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// The node that originates the packets.
    pub source: NodeAddr,
    /// The node at which they end.
    pub destination: NodeAddr,
}

impl Flow {
    /// The one of `hops` that the flow ranks highest. Two multiplications for each; none for the
    /// only one.
    #[inline]
    pub(super) fn choose<T>(
        self,
        mut hops: impl Iterator<Item = (NodeAddr, T)>,
    ) -> Option<(NodeAddr, T)> {
        let mut best = hops.next()?;
        let Some(second) = hops.next() else { return Some(best) };
        let flow = self.hash();
        let mut most = weight(flow, best.0);
        for hop in std::iter::once(second).chain(hops) {
            let weight = weight(flow, hop.0);
            if weight > most {
                (best, most) = (hop, weight);
            }
        }
        Some(best)
    }

    fn hash(self) -> u64 {
        mix(number(self.source)).wrapping_add(number(self.destination))
    }
}

fn weight(flow: u64, hop: NodeAddr) -> u64 {
    mix(flow ^ number(hop))
}

fn number(addr: NodeAddr) -> u64 {
    u64::from_be_bytes(addr.0)
}

/// SplitMix64's last step: every bit of the input changes about half of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses as they are: the starts of hashes.
    fn addr(n: u64) -> NodeAddr {
        NodeAddr(mix(n.wrapping_add(0x9e37_79b9_7f4a_7c15)).to_be_bytes())
    }

    fn chosen(flow: u64, hops: &[u64]) -> u64 {
        let flow =
            Flow { source: addr(1_000_000 + flow / 40), destination: addr(2_000_000 + flow % 40) };
        flow.choose(hops.iter().map(|&hop| (addr(hop), hop))).unwrap().1
    }

    #[test]
    fn flows_are_spread_evenly() {
        for count in 2..=8 {
            let hops: Vec<u64> = (0..count).collect();
            let mut carried = vec![0u64; hops.len()];
            (0..8_000).for_each(|flow| carried[chosen(flow, &hops) as usize] += 1);
            let fair = 8_000 / count;
            assert!(carried.iter().all(|&n| n.abs_diff(fair) < fair / 5), "{carried:?}");
        }
    }

    #[test]
    fn when_a_neighbour_goes_only_its_flows_are_moved() {
        for flow in 0..1_000 {
            let before = chosen(flow, &[1, 2, 3, 4]);
            let after = chosen(flow, &[1, 2, 4]);
            assert!(before == 3 || before == after, "flow {flow}");
        }
    }

    #[test]
    fn the_choice_does_not_depend_on_the_order_of_the_neighbours() {
        for flow in 0..1_000 {
            assert_eq!(chosen(flow, &[1, 2, 3, 4]), chosen(flow, &[3, 1, 4, 2]));
        }
    }

    #[test]
    fn a_choice_upstream_does_not_decide_the_one_downstream() {
        let upstream: Vec<u64> = (0..8_000).filter(|&flow| chosen(flow, &[1, 2]) == 1).collect();
        let again = upstream.iter().filter(|&&flow| chosen(flow, &[3, 4]) == 3).count();
        assert!(
            again.abs_diff(upstream.len() / 2) < upstream.len() / 10,
            "{again} of {}",
            upstream.len()
        );
    }
}
