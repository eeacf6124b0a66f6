//! Names of announcements, and which of the announced addresses are tried. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::id::NodeId;
use crate::mesh::network::interfaces::addresses::{AddressKind, LocalAddress};

/// The maximum number of peers on the local network that are dialled; others wait until one of them
/// has gone.
pub(crate) const MAX_FOUND: usize = 32;
/// The maximum number of addresses of one peer that are tried.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// What nodes announce themselves as.
pub(crate) const SERVICE: &str = "_receptor._udp.local.";

/// The announcement's name: 16 hexadecimal digits, the node's address.
pub(crate) fn instance_name(id: &NodeId) -> String {
    id.addr().to_string()
}

/// The host name of the announced addresses. It is not a name of the machine.
pub(crate) fn host_name(id: &NodeId) -> String {
    format!("receptor-{}.local.", instance_name(id))
}

/// Those addresses that are on a network segment with this machine: others have no business in an
/// announcement there.
pub(crate) fn on_segment(
    announced: impl Iterator<Item = SocketAddr>,
    mine: &[LocalAddress],
) -> Vec<SocketAddr> {
    let on_segment = |addr: &SocketAddr| mine.iter().any(|mine| shares_segment(mine, addr.ip()));
    let mut addresses: Vec<_> =
        announced.filter(|addr| addr.port() != 0).filter(on_segment).collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

fn shares_segment(mine: &LocalAddress, other: IpAddr) -> bool {
    // A link-local address is useless without the interface, and loopback is not a network.
    if matches!(mine.kind, AddressKind::LinkLocal | AddressKind::Loopback) {
        return false;
    }
    let prefix = u32::from(mine.prefix);
    match (mine.ip, other) {
        (IpAddr::V4(mine), IpAddr::V4(other)) => {
            let differ = mine.to_bits() ^ other.to_bits();
            prefix > 0 && differ.leading_zeros() >= prefix.min(32) && !other.is_broadcast()
        }
        (IpAddr::V6(mine), IpAddr::V6(other)) => {
            let differ = mine.to_bits() ^ other.to_bits();
            prefix > 0 && differ.leading_zeros() >= prefix.min(128)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine(addresses: &[(&str, u8, &str)]) -> Vec<LocalAddress> {
        let address = |(ip, prefix, interface): &(&str, u8, &str)| {
            LocalAddress::new(ip.parse().unwrap(), *prefix, *interface)
        };
        addresses.iter().map(address).collect()
    }

    fn kept(announced: &[&str], mine: &[LocalAddress]) -> Vec<String> {
        let announced = announced.iter().map(|addr| addr.parse().unwrap());
        on_segment(announced, mine).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_addresses_on_the_same_segment_are_tried() {
        let mine = mine(&[
            ("192.168.1.5", 24, "eth0"),
            ("2001:db8:1::5", 64, "eth0"),
            ("127.0.0.1", 8, "lo"),
        ]);
        let announced = [
            "192.168.1.7:1",
            "192.168.2.7:1",
            "8.8.8.8:53",
            "127.0.0.1:1",
            "192.168.1.7:0",
            "255.255.255.255:1",
            "[2001:db8:1::7]:1",
            "[2001:db8:2::7]:1",
            "[fe80::1]:1",
        ];
        assert_eq!(kept(&announced, &mine), ["192.168.1.7:1", "[2001:db8:1::7]:1"]);
        assert_eq!(kept(&announced, &[]), [] as [&str; 0]);
    }

    #[test]
    fn a_segment_without_a_prefix_is_not_the_whole_world() {
        assert_eq!(kept(&["8.8.8.8:53"], &mine(&[("10.0.0.1", 0, "tun0")])), [] as [&str; 0]);
        assert_eq!(kept(&["10.0.0.2:53"], &mine(&[("10.0.0.1", 32, "tun0")])), [] as [&str; 0]);
    }

    #[test]
    fn of_many_addresses_a_few_are_tried() {
        let announced: Vec<String> = (1..100).map(|n| format!("192.168.1.{n}:1")).collect();
        let announced: Vec<&str> = announced.iter().map(String::as_str).collect();
        assert_eq!(kept(&announced, &mine(&[("192.168.1.5", 24, "eth0")])).len(), MAX_ADDRESSES);
    }

    #[test]
    fn names_tell_a_hash_of_the_id_and_fit_into_a_label() {
        let id: NodeId = "a-node:with@everything_that.is-allowed".parse().unwrap();
        let name = instance_name(&id);
        assert_eq!(name.len(), 16);
        assert!(name.chars().all(|digit| digit.is_ascii_hexdigit()));
        assert!(host_name(&id).contains(&name));
    }
}
