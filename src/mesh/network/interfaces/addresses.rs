//! The addresses and routes of a machine at one moment.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Maximum addresses of a machine that are used: the best ones, in the order of [`AddressKind`].
pub const MAX_LOCAL_ADDRESSES: usize = 256;

/// What an address is good for, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AddressKind {
    /// An address like any other.
    Usual,
    /// Of an interface that looks like a bridge to containers or virtual machines: no other host is
    /// behind it.
    ContainerBridge,
    /// Valid on its own network segment only, and of no use without the interface's name.
    LinkLocal,
    /// This machine alone.
    Loopback,
}

/// An address of this machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LocalAddress {
    /// What it is good for.
    pub kind: AddressKind,
    /// The address; never a mapped one.
    pub ip: IpAddr,
    /// How many bits of it name its network: neighbours on the segment have the same.
    pub prefix: u8,
    /// The interface's name.
    pub interface: String,
}

impl LocalAddress {
    /// An address of an interface; its kind follows from both.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8, interface: impl Into<String>) -> Self {
        let (ip, interface) = (ip.to_canonical(), interface.into());
        Self { kind: kind(ip, &interface), ip, prefix, interface }
    }
}

/// The network as this machine sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LocalNetwork {
    /// Addresses of interfaces that are up, best first; at most [`MAX_LOCAL_ADDRESSES`].
    pub(crate) addresses: Vec<LocalAddress>,
    /// Where packets to the rest of the world go, as far as the system says.
    pub(crate) routes: Vec<DefaultRoute>,
    /// The addresses that packets to the rest of the world come from, by the system's choice.
    pub(crate) preferred: Vec<IpAddr>,
    /// How often this machine has been suspended, as far as its clocks show.
    pub(crate) slept: u64,
}

impl LocalNetwork {
    /// Addresses that were there in `before`, and are not now.
    pub(crate) fn gone_since(&self, before: &Self) -> Vec<IpAddr> {
        let has = |ip: IpAddr| self.addresses.iter().any(|address| address.ip == ip);
        before.addresses.iter().map(|address| address.ip).filter(|ip| !has(*ip)).collect()
    }

    /// Whether connections may have been affected by what changed since `before`. Containers come
    /// and go on busy machines, and link-local addresses with them: those alone do not justify to
    /// check a thousand links.
    pub(crate) fn moved_since(&self, before: &Self) -> bool {
        let usual = |network: &Self| {
            let usual =
                network.addresses.iter().filter(|address| address.kind == AddressKind::Usual);
            usual.map(|address| address.ip).collect::<Vec<_>>()
        };
        self.slept != before.slept
            || self.routes != before.routes
            || self.preferred != before.preferred
            || usual(self) != usual(before)
    }
}

/// A route to the rest of the world.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct DefaultRoute {
    pub(crate) interface: String,
    /// The router; unspecified if the default route has none.
    pub(crate) gateway: IpAddr,
}

/// The best of them, in order, each once.
pub(super) fn best(mut addresses: Vec<LocalAddress>) -> Vec<LocalAddress> {
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MAX_LOCAL_ADDRESSES);
    addresses
}

fn kind(ip: IpAddr, interface: &str) -> AddressKind {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_loopback() {
        AddressKind::Loopback
    } else if link_local {
        AddressKind::LinkLocal
    } else if is_container_bridge(interface) {
        AddressKind::ContainerBridge
    } else {
        AddressKind::Usual
    }
}

/// Names that Docker, Podman, libvirt, LXC, LXD, Kubernetes and Hyper-V give to what they make. A
/// guess: nothing but the order of candidates and the reasons to check links depend on it.
fn is_container_bridge(interface: &str) -> bool {
    const PREFIXES: [&str; 13] = [
        "docker",
        "veth",
        "virbr",
        "cni",
        "podman",
        "lxcbr",
        "lxdbr",
        "flannel",
        "cali",
        "cilium",
        "kube-",
        "vethernet (",
        "vmnet",
    ];
    let name = interface.to_ascii_lowercase();
    // Docker's other bridges; a router's own is `br-lan` or the like.
    let numbered =
        |digits: &str| digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.strip_prefix("br-").is_some_and(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, interface: &str) -> LocalAddress {
        LocalAddress::new(ip.parse().unwrap(), 24, interface)
    }

    fn network(addresses: &[(&str, &str)]) -> LocalNetwork {
        let addresses =
            best(addresses.iter().map(|(ip, interface)| address(ip, interface)).collect());
        LocalNetwork { addresses, ..LocalNetwork::default() }
    }

    #[test]
    fn addresses_are_ordered_by_what_they_are_good_for() {
        let network = network(&[
            ("127.0.0.1", "lo"),
            ("fe80::1", "eth0"),
            ("169.254.1.1", "eth0"),
            ("172.17.0.1", "docker0"),
            ("192.168.122.1", "virbr0"),
            ("2001:db8::1", "eth0"),
            ("10.0.0.1", "wlan0"),
        ]);
        let order: Vec<_> =
            network.addresses.iter().map(|address| address.ip.to_string()).collect();
        assert_eq!(
            order,
            [
                "10.0.0.1",
                "2001:db8::1",
                "172.17.0.1",
                "192.168.122.1",
                "169.254.1.1",
                "fe80::1",
                "127.0.0.1"
            ]
        );
        assert_eq!(network.addresses[2].kind, AddressKind::ContainerBridge);
        assert_eq!(address("172.18.0.1", "br-0123456789ab").kind, AddressKind::ContainerBridge);
        assert_eq!(address("192.168.1.1", "br-lan").kind, AddressKind::Usual);
    }

    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        assert_eq!(address("::ffff:10.0.0.1", "eth0"), address("10.0.0.1", "eth0"));
    }

    #[test]
    fn of_too_many_addresses_the_best_are_kept() {
        let mut addresses: Vec<_> = (0..MAX_LOCAL_ADDRESSES)
            .map(|n| address(&format!("172.17.{}.{}", n / 200, n % 200), "docker0"))
            .collect();
        addresses.push(address("10.0.0.1", "eth0"));
        let addresses = best(addresses);
        assert_eq!(addresses.len(), MAX_LOCAL_ADDRESSES);
        assert_eq!(addresses[0], address("10.0.0.1", "eth0"));
    }

    #[test]
    fn a_container_that_comes_or_goes_does_not_concern_the_links() {
        let before = network(&[("10.0.0.1", "eth0")]);
        let after =
            network(&[("10.0.0.1", "eth0"), ("172.17.0.1", "docker0"), ("fe80::1", "veth1")]);
        assert!(!after.moved_since(&before));
        assert_eq!(after.gone_since(&before), [] as [IpAddr; 0]);
        assert_eq!(
            before.gone_since(&after).len(),
            2,
            "but what was sent from them cannot be any more"
        );
    }

    #[test]
    fn another_address_another_route_and_sleep_concern_the_links() {
        let before = network(&[("10.0.0.1", "eth0")]);
        let other = network(&[("10.0.0.2", "eth0")]);
        assert!(other.moved_since(&before));
        assert_eq!(other.gone_since(&before), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(LocalNetwork { slept: 1, ..before.clone() }.moved_since(&before));
        let route =
            DefaultRoute { interface: "eth0".to_owned(), gateway: "10.0.0.254".parse().unwrap() };
        assert!(LocalNetwork { routes: vec![route], ..before.clone() }.moved_since(&before));
        assert!(
            LocalNetwork { preferred: vec![other.addresses[0].ip], ..before.clone() }
                .moved_since(&before)
        );
        assert!(!before.moved_since(&before.clone()));
    }
}
