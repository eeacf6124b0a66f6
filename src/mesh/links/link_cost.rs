//! What links are said to cost: a number, or their round trips.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::id::{Cost, NodeId};
use crate::router::RttCost;

/// How a node finds out what its links cost. Traffic takes the cheapest way; of what the two ends
/// of a link say, the larger counts, so one end that measures suffices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkCost {
    /// The same for each.
    Fixed(Cost),
    /// About the round trip in milliseconds, rounded up to one of few numbers, and at least 1. A
    /// change is advertised after it has lasted for ten seconds, if it is a quarter or more, and at
    /// most once in thirty seconds a link: see [`RttCost`].
    RoundTrip,
}

impl Default for LinkCost {
    fn default() -> Self {
        Self::Fixed(Cost::DEFAULT)
    }
}

impl From<Cost> for LinkCost {
    fn from(cost: Cost) -> Self {
        Self::Fixed(cost)
    }
}

/// A text that is not a [`LinkCost`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?}: a whole number from 1 to {max}, or `round-trip`", max = Cost::MAX)]
pub struct InvalidLinkCost(String);

impl FromStr for LinkCost {
    type Err = InvalidLinkCost;

    fn from_str(text: &str) -> Result<Self, InvalidLinkCost> {
        if text == "round-trip" {
            return Ok(Self::RoundTrip);
        }
        let cost = text.parse::<u32>().ok().and_then(|cost| Cost::try_from(cost).ok());
        cost.map(Self::Fixed).ok_or_else(|| InvalidLinkCost(text.to_owned()))
    }
}

/// What a node says of all its links.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkCosts {
    pub(crate) usual: LinkCost,
    /// Of those to certain neighbours: fixed.
    pub(crate) to: BTreeMap<NodeId, Cost>,
}

impl LinkCosts {
    /// What HELLO says, before it is known who listens and how far away.
    pub(crate) fn in_hello(&self) -> Cost {
        match self.usual {
            LinkCost::Fixed(cost) => cost,
            LinkCost::RoundTrip => Cost::DEFAULT,
        }
    }

    /// What a link costs that has just come up with this round trip, and what goes on measuring it.
    pub(crate) fn of(&self, peer: &NodeId, rtt: Duration, now: Instant) -> (Cost, Option<RttCost>) {
        match (self.to.get(peer), self.usual) {
            (Some(&cost), _) | (None, LinkCost::Fixed(cost)) => (cost, None),
            (None, LinkCost::RoundTrip) => {
                let measured = RttCost::new(rtt, now);
                (measured.cost(), Some(measured))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_cost_is_a_number_or_round_trip() {
        assert_eq!("7".parse(), Ok(LinkCost::Fixed(Cost::try_from(7).unwrap())));
        assert_eq!("round-trip".parse(), Ok(LinkCost::RoundTrip));
        for bad in ["0", "65536", "-1", "1.5", "", "rtt"] {
            assert_eq!(bad.parse::<LinkCost>(), Err(InvalidLinkCost(bad.to_owned())));
        }
    }

    #[test]
    fn what_was_said_of_one_neighbour_goes_over_what_is_usual() {
        let near = NodeId::try_from("near").unwrap();
        let far = NodeId::try_from("far").unwrap();
        let to = BTreeMap::from([(near.clone(), Cost::try_from(9).unwrap())]);
        let costs = LinkCosts { usual: LinkCost::RoundTrip, to };
        let now = crate::mesh::clock::now();
        let of = |peer| {
            let (cost, measured) = costs.of(peer, Duration::from_millis(30), now);
            (cost.get(), measured.is_some())
        };
        assert_eq!((of(&near), of(&far)), ((9, false), (32, true)));
    }
}
