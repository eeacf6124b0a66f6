//! Handles to NATs and firewalls.

pub(super) mod behaviour;
pub(super) mod gateway;
pub(super) mod transit;
pub(super) mod translation;

use super::network::Network;
use super::socket::HOST_PORT;
use super::spot::Realm;
use super::{LinkQuality, VirtualSocket};
use behaviour::{Blocked, Mapping, NatBehaviour};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::time::Instant;
use transit::GatewayId;

/// A NAT or a firewall of a [`Network`], created by [`Network::nat`], [`Network::firewall`] or
/// [`nat`](Self::nat).
///
/// Cheap to clone: all clones are the same NAT. It stays when the handle is dropped. Datagrams pass
/// two links, from the host to the NAT ([`set_lan`](Self::set_lan)) and from there on, and are
/// decided about when they reach the NAT. Rejected ones are counted as
/// [`filtered`](super::NetCounters::filtered).
#[derive(Clone)]
pub struct Nat {
    pub(super) network: Network,
    pub(super) id: GatewayId,
    pub(super) inner: Realm,
}

impl Nat {
    /// Binds port 7400 of the next host behind it: 192.168.1.2:7400, 192.168.1.3:7400 and so on,
    /// behind a firewall `[2001:db8:N::2]:7400` and so on. Hosts behind different NATs may have the
    /// same address.
    ///
    /// # Panics
    ///
    /// If all of the 65,534 hosts are taken.
    #[must_use]
    pub fn host(&self) -> Arc<VirtualSocket> {
        let mut fabric = self.network.fabric();
        let ip = fabric.next_inner(self.id);
        let at = self.inner.endpoint(SocketAddr::new(ip, HOST_PORT));
        let (id, address) = fabric.bind(at).expect("a new host has every port free");
        drop(fabric);
        Arc::new(VirtualSocket::new(self.network.clone(), id, address))
    }

    /// A NAT behind this one, as of a home behind a carrier's. Its address outside is of
    /// 100.64.0.0/10.
    ///
    /// # Panics
    ///
    /// If this is a firewall, or 65,534 NATs are behind it already.
    #[must_use]
    pub fn nat(&self, behaviour: impl Into<NatBehaviour>) -> Self {
        let (id, inner) = self.network.fabric().add_nat(Some(self.id), behaviour.into());
        Self { network: self.network.clone(), id, inner }
    }

    /// Its address outside. A firewall's says nothing: hosts behind it have their own.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.network.fabric().gateway(self.id).address
    }

    /// The number of current mappings; for a firewall, of hosts that have sent something recently.
    #[must_use]
    pub fn mappings(&self) -> usize {
        let mut fabric = self.network.fabric();
        let gateway = fabric.gateway(self.id);
        let behaviour = gateway.behaviour;
        gateway.table.len(&behaviour, Instant::now())
    }

    /// Makes it forget all mappings, as a restart does.
    pub fn flush(&self) {
        self.network.fabric().gateway(self.id).table.flush();
    }

    /// Gives it another address outside, as a provider does; the mappings go, and so does what is
    /// on its way to the old address. Returns the new one. A firewall only forgets.
    pub fn renumber(&self) -> IpAddr {
        self.network.fabric().renumber(self.id)
    }

    /// Makes it behave otherwise from now on. The mappings go. A firewall stays one, and a NAT a
    /// NAT.
    pub fn set_behaviour(&self, behaviour: impl Into<NatBehaviour>) {
        let mut behaviour = behaviour.into();
        let mut fabric = self.network.fabric();
        let gateway = fabric.gateway(self.id);
        if gateway.translates() != (behaviour.mapping != Mapping::Untranslated) {
            behaviour.mapping = gateway.behaviour.mapping;
        }
        gateway.behaviour = behaviour;
        gateway.table.flush();
    }

    /// Lets nothing through in one direction or both, or everything that the filter lets through
    /// again.
    pub fn block(&self, blocked: impl Into<Option<Blocked>>) {
        self.network.fabric().gateway(self.id).blocked = blocked.into();
    }

    /// Sets the quality between it and the hosts behind it. Default: [`LinkQuality::default`].
    pub fn set_lan(&self, quality: LinkQuality) {
        self.network.fabric().wires.set_default(self.inner, quality);
    }

    /// Gives it an access link outside, see [`Network::set_access`]; it keeps that when its address
    /// changes. No effect on a firewall: set that of its hosts.
    pub fn set_access(&self, quality: LinkQuality) {
        let mut fabric = self.network.fabric();
        let gateway = fabric.gateway(self.id);
        let spot = gateway.outer.spot(gateway.address);
        fabric.wires.set_access(spot, quality, quality);
    }
}

impl Network {
    /// Puts a NAT on the Internet: hosts [behind it](Nat::host) reach others by its address,
    /// 198.18.0.1 and so on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime: a task there lets NATs decide when a datagram reaches them. It
    /// ends with the network.
    #[must_use]
    pub fn nat(&self, behaviour: impl Into<NatBehaviour>) -> Nat {
        self.start_pump();
        let (id, inner) = self.fabric().add_nat(None, behaviour.into());
        Nat { network: self.clone(), id, inner }
    }

    /// Puts a stateful firewall on the Internet: hosts [behind it](Nat::host) have addresses of
    /// 2001:db8::/32 that are their own, and hear from others only what answers them
    /// ([`NatBehaviour::FIREWALL`]).
    ///
    /// # Panics
    ///
    /// As [`nat`](Self::nat).
    #[must_use]
    pub fn firewall(&self) -> Nat {
        self.nat(NatBehaviour::FIREWALL)
    }
}

impl fmt::Debug for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nat").field("id", &self.id.0).field("address", &self.address()).finish()
    }
}
