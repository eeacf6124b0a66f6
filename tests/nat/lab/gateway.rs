//! A gateway: a LAN on one side, a segment on the other, and a NAT between them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::delay::Delay;
use super::namespace::Namespace;
use super::nat::Nat;
#[cfg(feature = "portmap")]
use super::port_daemon::{PortDaemon, Speaks};
use super::segment::{Host, Segment};

/// Its namespace has the interfaces `wan` and `lan`.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) namespace: Rc<Namespace>,
    pub(crate) lan: Segment,
    /// Its address on the side of the internet.
    pub(crate) public: Ipv4Addr,
}

impl Gateway {
    pub(super) fn new(outside: &Segment, role: &str, nat: Nat) -> Self {
        Self::numbered(outside, role, nat, next_lan())
    }

    /// One at the end of a line with delay, with IPv4 only.
    pub(super) fn far(outside: &Segment, role: &str, nat: Nat, one_way: Duration) -> (Self, Delay) {
        let namespace = Rc::new(Namespace::new(role));
        let (public, delay) = outside.join_by(&namespace, "wan", one_way);
        let net = Ipv4Addr::new(192, 168, next_lan() as u8, 0);
        let lan = Segment::new(&namespace, "lan", (net, 24), None);
        namespace.nft(&nat.rules(public, Ipv4Addr::from_bits(net.to_bits() + 2)));
        (Self { namespace, lan, public }, delay)
    }

    /// One whose LAN is 192.168.`number`.0/24.
    pub(super) fn numbered(outside: &Segment, role: &str, nat: Nat, number: u16) -> Self {
        let net = match nat {
            Nat::Carrier => (Ipv4Addr::new(100, 64, number as u8, 0), 24),
            _ => (Ipv4Addr::new(192, 168, number as u8, 0), 24),
        };
        let net6 = outside.has_v6().then(|| Ipv6Addr::new(0x2600, 0x52, number, 0, 0, 0, 0, 0));
        let namespace = Rc::new(Namespace::new(role));
        let (public, public6) = outside.join(&namespace, "wan");
        if let (Some(net6), Some(public6)) = (net6, public6) {
            outside.route6(net6, public6);
        }
        let lan = Segment::new(&namespace, "lan", net, net6);
        let first = Ipv4Addr::from_bits(net.0.to_bits() + 2);
        namespace.nft(&nat.rules(public, first));
        Self { namespace, lan, public }
    }

    /// A machine behind it. What a NAT lets in from outside by itself goes to the first one.
    pub(crate) fn host(&self, role: &str) -> Host {
        self.lan.host(role)
    }

    /// Forgets all mappings, as one that was switched off and on again.
    pub(crate) fn restart(&self, outside: &Segment) {
        // The kernel forgets masqueraded flows with the interface that they left by.
        self.namespace.ip("link set wan down");
        self.namespace.ip("link set wan up");
        outside.default_route(&self.namespace);
    }

    /// Forgets a UDP mapping after so many seconds without a packet, from now on.
    pub(crate) fn forget_after(&self, seconds: u32) {
        for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            self.namespace.sysctl(&format!("netfilter/{timeout}"), &seconds.to_string());
        }
    }

    /// Takes another public address, as lines do that are redialled every night.
    pub(crate) fn readdress(&self, outside: &Segment) {
        outside.renumber(&self.namespace, "wan");
    }

    /// Has it map ports for those behind it who ask in this way.
    #[cfg(feature = "portmap")]
    pub(crate) fn map_ports(&self, speaks: Speaks) -> PortDaemon {
        PortDaemon::start(&self.namespace, speaks)
    }

    /// Lets nothing through to this address, from now on.
    pub(crate) fn block(&self, addr: Ipv4Addr) {
        self.namespace.nft(&format!(
            "table inet block {{
               chain forward {{
                 type filter hook forward priority -10
                 ip daddr {addr} drop
               }}
             }}"
        ));
    }

    /// Lets no UDP through, in either direction, from now on.
    pub(crate) fn drop_udp(&self) {
        self.namespace.nft(
            "table inet no_udp {
               chain forward {
                 type filter hook forward priority -10
                 meta l4proto udp drop
               }
             }",
        );
    }

    /// Loses so many of a hundred packets, at random, in both directions.
    pub(crate) fn lose(&self, percent: u8) {
        self.namespace.nft(&format!(
            "table inet loss {{
               chain forward {{
                 type filter hook forward priority -20
                 numgen random mod 100 < {percent} drop
               }}
             }}"
        ));
    }
}

/// No two LANs of a lab have the same addresses, unless they are asked to.
fn next_lan() -> u16 {
    static LANS: AtomicU16 = AtomicU16::new(0);
    LANS.fetch_add(1, Ordering::Relaxed) % 200 + 1
}
