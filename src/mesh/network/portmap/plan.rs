//! Whether, whom and when to ask for a mapping. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::mesh::network::interfaces::addresses::LocalNetwork;

/// The shortest time between two renewals, whatever the gateway grants.
const RENEW_AT_LEAST: Duration = Duration::from_secs(30);
/// Until the first new attempt, and at most.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_AT_MOST: Duration = Duration::from_secs(15 * 60);

/// Where a machine is, seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Its own address is one that the world knows: nothing is to be mapped.
    Public,
    /// It has no IPv4 address on the way out.
    Nowhere,
    /// It has a private address, and a router, according to the system.
    Behind { local: Ipv4Addr, gateway: Option<Ipv4Addr> },
}

impl Place {
    pub(crate) fn of(network: &LocalNetwork) -> Self {
        let v4 = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) if !ip.is_unspecified() && !ip.is_loopback() => Some(*ip),
            _ => None,
        };
        let Some(local) = network.preferred.iter().find_map(v4) else { return Self::Nowhere };
        if is_global(local) {
            return Self::Public;
        }
        let gateway = network.routes.iter().find_map(|route| v4(&route.gateway));
        Self::Behind { local, gateway }
    }
}

/// Why a mapping to this address is of no use to the world, if it is of none.
pub(crate) fn usable_outside(external: IpAddr) -> Result<(), String> {
    match external {
        IpAddr::V4(ip) if !is_global(ip) => Err(format!(
            "the router's own outer address, {ip}, is a private one: there is another NAT in front of it"
        )),
        _ => Ok(()),
    }
}

/// When to renew a mapping of this lifetime: at half of it.
pub(crate) fn renew_after(lifetime: Duration) -> Duration {
    (lifetime / 2).max(RENEW_AT_LEAST)
}

/// How long to wait after failures: a minute, doubling up to a quarter of an hour.
#[derive(Debug, Default)]
pub(crate) struct RetryDelay(Duration);

impl RetryDelay {
    pub(crate) fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(RETRY_FIRST, RETRY_AT_MOST);
        self.0
    }
}

fn is_global(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let shared = first == 100 && (64..128).contains(&second);
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::network::interfaces::addresses::DefaultRoute;

    fn place(preferred: &[&str], gateway: Option<&str>) -> Place {
        let route = |gateway: &str| DefaultRoute {
            interface: "eth0".to_owned(),
            gateway: gateway.parse().unwrap(),
        };
        Place::of(&LocalNetwork {
            preferred: preferred.iter().map(|ip| ip.parse().unwrap()).collect(),
            routes: gateway.map(route).into_iter().collect(),
            ..LocalNetwork::default()
        })
    }

    #[test]
    fn only_a_machine_with_a_private_address_asks() {
        assert_eq!(place(&["8.8.8.8"], Some("8.8.8.1")), Place::Public);
        assert_eq!(place(&["2001:db8::1"], Some("fe80::1")), Place::Nowhere);
        assert_eq!(place(&["0.0.0.0"], None), Place::Nowhere);
        for local in ["192.168.1.5", "100.64.0.1", "100.127.255.255", "10.0.0.1"] {
            let behind = Place::Behind {
                local: local.parse().unwrap(),
                gateway: Some([192, 168, 1, 1].into()),
            };
            assert_eq!(place(&[local], Some("192.168.1.1")), behind);
        }
        assert_eq!(place(&["100.128.0.1"], None), Place::Public);
        assert_eq!(
            place(&["2001:db8::1", "10.0.0.1"], Some("0.0.0.0")),
            Place::Behind { local: [10, 0, 0, 1].into(), gateway: None }
        );
    }

    #[test]
    fn a_mapping_to_another_private_address_is_told_from_a_good_one() {
        assert_eq!(usable_outside([203, 0, 113, 7].into()), Ok(()));
        let why = usable_outside([100, 64, 3, 4].into()).unwrap_err();
        assert!(why.contains("100.64.3.4") && why.contains("another NAT"), "{why}");
    }

    #[test]
    fn a_mapping_is_renewed_at_half_its_life_and_not_in_a_frenzy() {
        let seconds = Duration::from_secs;
        assert_eq!(renew_after(seconds(3_600)), seconds(1_800));
        assert_eq!(renew_after(seconds(2)), RENEW_AT_LEAST);
    }

    #[test]
    fn failures_are_tried_again_ever_more_rarely() {
        let mut delay = RetryDelay::default();
        let delays: Vec<_> = (0..6).map(|_| delay.next().as_secs() / 60).collect();
        assert_eq!(delays, [1, 2, 4, 8, 15, 15]);
    }
}
