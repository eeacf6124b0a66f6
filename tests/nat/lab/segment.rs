//! A bridge that joins namespaces: the internet, or the LAN behind a gateway.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use super::delay::Delay;
use super::gateway::Gateway;
use super::namespace::Namespace;
use super::nat::Nat;
use super::run::ip;

/// Which addresses a lab has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V4AndV6,
}

/// A segment and who routes for it.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The one that has the bridge, and is everybody's default route.
    router: Rc<Namespace>,
    bridge: &'static str,
    net: Ipv4Addr,
    prefix: u8,
    net6: Option<Ipv6Addr>,
    hosts: Cell<u32>,
}

/// A machine on a segment.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) addr: Ipv4Addr,
    pub(crate) addr6: Option<Ipv6Addr>,
}

impl Segment {
    /// The router's bridge, with an address.
    pub(super) fn new(
        router: &Rc<Namespace>,
        bridge: &'static str,
        (net, prefix): (Ipv4Addr, u8),
        net6: Option<Ipv6Addr>,
    ) -> Self {
        let segment =
            Self { router: router.clone(), bridge, net, prefix, net6, hosts: Cell::new(1) };
        // Without an address of its own a bridge takes one of its ports', and another one when that
        // port goes.
        router.ip(&format!("link add {bridge} address 02:00:00:00:00:01 type bridge"));
        router.ip(&format!("link set {bridge} up"));
        segment.assign(router, bridge, 1);
        router.route();
        segment
    }

    /// A machine on it.
    pub(crate) fn host(&self, role: &str) -> Host {
        let namespace = Namespace::new(role);
        let (addr, addr6) = self.join(&namespace, "eth0");
        Host { namespace, addr, addr6 }
    }

    /// A gateway on it, with a LAN behind.
    pub(crate) fn gateway(&self, role: &str, nat: Nat) -> Gateway {
        Gateway::new(self, role, nat)
    }

    /// A gateway on it whose LAN has the same addresses as other people's.
    pub(crate) fn usual_gateway(&self, role: &str, nat: Nat) -> Gateway {
        Gateway::numbered(self, role, nat, 201)
    }

    /// A gateway on it, by a line with that delay in each direction, which lasts as long as what is
    /// returned.
    pub(crate) fn far_gateway(&self, role: &str, nat: Nat, one_way: Duration) -> (Gateway, Delay) {
        Gateway::far(self, role, nat, one_way)
    }

    /// As [`join`](Self::join), by a line with delay.
    pub(super) fn join_by(
        &self,
        namespace: &Namespace,
        interface: &str,
        one_way: Duration,
    ) -> (Ipv4Addr, Delay) {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let port = format!("{}{number}", self.bridge);
        let delay = Delay::new((namespace, interface), (&self.router, &port, self.bridge), one_way);
        namespace.ip(&format!("link set {interface} up"));
        self.assign(namespace, interface, number);
        self.default_route(namespace);
        (self.addr(number), delay)
    }

    /// Gives a namespace an interface here, an address, and a default route.
    pub(super) fn join(
        &self,
        namespace: &Namespace,
        interface: &str,
    ) -> (Ipv4Addr, Option<Ipv6Addr>) {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let (router, bridge) = (&self.router, self.bridge);
        let port = format!("{bridge}{number}");
        ip(&format!(
            "link add {port} netns {router} type veth peer name {interface} netns {namespace}"
        ));
        router.ip(&format!("link set {port} master {bridge} up"));
        namespace.ip(&format!("link set {interface} up"));
        self.assign(namespace, interface, number);
        self.default_route(namespace);
        (self.addr(number), self.addr6(number))
    }

    /// Gives a machine here another address instead of the one that it has, and says which.
    pub(crate) fn readdress(&self, host: &Host) -> Ipv4Addr {
        self.renumber(&host.namespace, "eth0")
    }

    pub(super) fn renumber(&self, namespace: &Namespace, interface: &str) -> Ipv4Addr {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        // The default route goes with the address.
        namespace.ip(&format!("-4 addr flush dev {interface} scope global"));
        namespace.ip(&format!("addr add {}/{} dev {interface}", self.addr(number), self.prefix));
        self.default_route(namespace);
        self.addr(number)
    }

    pub(super) fn default_route(&self, namespace: &Namespace) {
        namespace.ip(&format!("route replace default via {}", self.addr(1)));
        if let Some(router) = self.addr6(1) {
            namespace.ip(&format!("-6 route replace default via {router}"));
        }
    }

    /// Where packets for an IPv6 net go from here.
    pub(super) fn route6(&self, net: Ipv6Addr, gateway: Ipv6Addr) {
        self.router.ip(&format!("-6 route add {net}/64 via {gateway}"));
    }

    pub(super) fn has_v6(&self) -> bool {
        self.net6.is_some()
    }

    fn assign(&self, namespace: &Namespace, interface: &str, number: u32) {
        namespace.ip(&format!("addr add {}/{} dev {interface}", self.addr(number), self.prefix));
        if let Some(addr) = self.addr6(number) {
            namespace.ip(&format!("addr add {addr}/64 dev {interface} nodad"));
        }
    }

    fn addr(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.net.to_bits() + number)
    }

    fn addr6(&self, number: u32) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from_bits(self.net6?.to_bits() + u128::from(number)))
    }
}

impl Host {
    /// Its address of this family.
    pub(crate) fn ip(&self, v6: bool) -> IpAddr {
        if v6 { self.addr6.expect("the lab has IPv6").into() } else { self.addr.into() }
    }
}

/// The public segment. Its addresses are of nobody's concern: nothing leaves the namespaces.
pub(crate) struct Internet;

impl Internet {
    /// A fresh one.
    #[expect(clippy::new_ret_no_self, reason = "an internet is a segment")]
    pub(crate) fn new(family: Family) -> Segment {
        let router = Rc::new(Namespace::new("net"));
        let net6 =
            (family == Family::V4AndV6).then(|| Ipv6Addr::new(0x2600, 0x51, 0, 0, 0, 0, 0, 0));
        Segment::new(&router, "net", (Ipv4Addr::new(51, 0, 0, 0), 16), net6)
    }
}
