//! Where a host is: private addresses say it only together with the network they are private to.

use std::net::{IpAddr, SocketAddr};

/// A network with addresses of its own: the Internet, or what lies behind one NAT or firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Realm(pub(super) usize);

impl Realm {
    pub(super) const INTERNET: Self = Self(0);

    pub(super) fn spot(self, ip: IpAddr) -> Spot {
        Spot { realm: self, ip: ip.to_canonical() }
    }

    pub(super) fn endpoint(self, address: SocketAddr) -> Endpoint {
        Endpoint {
            realm: self,
            address: SocketAddr::new(address.ip().to_canonical(), address.port()),
        }
    }
}

/// A host. Its address is canonical: IPv4 where it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) realm: Realm,
    pub(super) ip: IpAddr,
}

/// A port of a host: canonical, without scope and flow label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) realm: Realm,
    pub(super) address: SocketAddr,
}

impl Endpoint {
    pub(super) fn spot(self) -> Spot {
        Spot { realm: self.realm, ip: self.address.ip() }
    }
}
