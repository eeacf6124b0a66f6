//! The class of the NAT in front of the node, as observed by its neighbours (terms of RFC 4787
//! §4.1).

use std::net::SocketAddr;

/// How the NAT in front of a node maps its socket to outside addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum NatClass {
    /// Fewer than two neighbours have reported an observed address.
    #[default]
    Unknown,
    /// No NAT: neighbours observe one of the node's own addresses. There may still be a firewall.
    Public,
    /// Two neighbours see the same outside address: so will a peer.
    EndpointIndependent,
    /// Neighbours observe different external addresses: what a peer will observe cannot be
    /// predicted.
    EndpointDependent,
}

impl NatClass {
    /// All of them, in the order of [`Counters::pairs`](crate::punch::Counters::pairs).
    pub const ALL: [Self; 4] =
        [Self::Unknown, Self::Public, Self::EndpointIndependent, Self::EndpointDependent];

    /// The name for programs: `unknown`, `public`, `endpoint-independent`, `endpoint-dependent`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Public => "public",
            Self::EndpointIndependent => "endpoint-independent",
            Self::EndpointDependent => "endpoint-dependent",
        }
    }
}

/// Derives the class from the addresses that neighbours observe, one each, and the node's own
/// addresses, all of one IP version.
///
/// A neighbour in the node's own network observes one of its own addresses, which reveals nothing
/// about the NAT further out: it counts only if no neighbour observes another. Two that agree
/// outweigh any number that do not, so that a single false report has no effect.
pub(crate) fn classify(seen: &[SocketAddr], own: impl Fn(&SocketAddr) -> bool) -> NatClass {
    let mut outside: Vec<_> = seen.iter().filter(|addr| !own(addr)).collect();
    outside.sort_unstable();
    match outside.as_slice() {
        [] if seen.is_empty() => NatClass::Unknown,
        [] => NatClass::Public,
        [_] => NatClass::Unknown,
        several if several.windows(2).any(|pair| pair[0] == pair[1]) => {
            NatClass::EndpointIndependent
        }
        _ => NatClass::EndpointDependent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_tell_the_class_of_the_nat() {
        use NatClass::{EndpointDependent, EndpointIndependent, Public, Unknown};
        let own: SocketAddr = "192.168.1.5:7".parse().unwrap();
        let class = |seen: &[&str]| {
            let seen: Vec<_> = seen.iter().map(|addr| addr.parse().unwrap()).collect();
            classify(&seen, |addr| *addr == own)
        };
        assert_eq!(class(&[]), Unknown);
        assert_eq!(class(&["192.0.2.1:7"]), Unknown);
        assert_eq!(class(&["192.168.1.5:7"]), Public);
        assert_eq!(class(&["192.168.1.5:7", "192.0.2.1:7"]), Unknown, "one neighbour is near");
        assert_eq!(class(&["192.0.2.1:7", "192.0.2.1:7"]), EndpointIndependent);
        assert_eq!(class(&["192.0.2.1:7", "192.0.2.1:8"]), EndpointDependent);
        assert_eq!(
            class(&["192.0.2.1:7", "198.51.100.9:1", "192.0.2.1:7"]),
            EndpointIndependent,
            "one liar"
        );
    }
}
