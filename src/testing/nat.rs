//! NATs and firewalls, in the terms of RFC 4787.

use super::{
    LinkQuality, VirtualSocket,
    gateway::GatewayId,
    network::{HOST_PORT, Network},
    spot::Realm,
};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// The kinds of NAT that are commonly told apart, for [`Network::nat`]; each is a [`NatBehaviour`] by `into`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatKind {
    /// One mapping for all destinations, and everybody is let in.
    FullCone,
    /// One mapping for all destinations; let in is whoever has an address that the host has sent to.
    AddressRestricted,
    /// One mapping for all destinations; let in is whoever has an address and port that the host has sent to. What
    /// most homes have.
    PortRestricted,
    /// Each destination gets a mapping of its own, on a random port, and only that destination is let in. Companies,
    /// clouds, some mobile networks.
    Symmetric,
    /// Plain Linux masquerade without a filter on its own input, as on Docker hosts: as [`PortRestricted`](Self::PortRestricted),
    /// but it remembers what came in unasked, and gives the host's own flow to there another port.
    Masquerade,
}

impl NatKind {
    /// Those whose pairs do not depend on who sends first: all but [`Masquerade`](Self::Masquerade).
    pub const ALL: [Self; 4] =
        [Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];
}

impl From<NatKind> for NatBehaviour {
    fn from(kind: NatKind) -> Self {
        let (mapping, filtering, ports) = match kind {
            NatKind::FullCone => {
                (Mapping::EndpointIndependent, Filtering::EndpointIndependent, PortAssignment::Preserving)
            }
            NatKind::AddressRestricted => {
                (Mapping::EndpointIndependent, Filtering::AddressDependent, PortAssignment::Preserving)
            }
            NatKind::PortRestricted => {
                (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, PortAssignment::Preserving)
            }
            NatKind::Symmetric => {
                (Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent, PortAssignment::Random)
            }
            // Each flow is mapped by itself, to the same port while that is free.
            NatKind::Masquerade => (
                Mapping::AddressAndPortDependent,
                Filtering::AddressAndPortDependent,
                PortAssignment::Preserving,
            ),
        };
        let filters_input = kind != NatKind::Masquerade;
        Self { mapping, filtering, ports, filters_input, ..Self::default() }
    }
}

/// How a NAT or a firewall behaves.
///
/// Start from a [`NatKind`], the default ([`NatKind::PortRestricted`]) or [`FIREWALL`](Self::FIREWALL), and change
/// what matters:
/// ```
/// # use receptor_quic::testing::{NatBehaviour, NatKind, PortAssignment};
/// let linux = NatBehaviour { ports: PortAssignment::Preserving, ..NatKind::Symmetric.into() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatBehaviour {
    /// Which destinations share a mapping.
    pub mapping: Mapping,
    /// Who is let in.
    pub filtering: Filtering,
    /// Which port a mapping gets.
    pub ports: PortAssignment,
    /// How long a mapping lasts after the host last sent through it, and how long a destination is let in after the
    /// host last sent to it. What comes in prolongs neither. Default 30 s, the shortest that is common.
    pub lifetime: Duration,
    /// Whether hosts behind it reach each other by their outer addresses. Default false.
    pub hairpin: bool,
    /// Whether it drops what comes in unasked. If not, it takes that for a flow of its own: a later flow of a host to
    /// where that came from gets another port, for as long as a mapping lasts. Default true.
    pub filters_input: bool,
}

impl NatBehaviour {
    /// Translates nothing: hosts behind it have addresses that hold outside too. Only answers are let in. What stands
    /// in front of most IPv6 networks.
    pub const FIREWALL: Self = Self {
        mapping: Mapping::Untranslated,
        filtering: Filtering::AddressAndPortDependent,
        ports: PortAssignment::Preserving,
        lifetime: Duration::from_secs(30),
        hairpin: false,
        filters_input: true,
    };

    /// Whether what was last used then is remembered.
    pub(super) fn alive(&self, used: Instant, now: Instant) -> bool {
        now.saturating_duration_since(used) < self.lifetime
    }
}

impl Default for NatBehaviour {
    fn default() -> Self {
        Self { mapping: Mapping::EndpointIndependent, ..Self::FIREWALL }
    }
}

/// Which destinations share a mapping (RFC 4787 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// There are none: a firewall.
    Untranslated,
    /// All.
    EndpointIndependent,
    /// Those with the same address.
    AddressDependent,
    /// None: each address and port has its own.
    AddressAndPortDependent,
}

/// Who is let in (RFC 4787 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody, while the mapping lasts.
    EndpointIndependent,
    /// Whoever has an address that the host has sent to through the mapping.
    AddressDependent,
    /// Whoever has an address and port that the host has sent to through the mapping.
    AddressAndPortDependent,
}

/// Which port a mapping gets (RFC 4787 §4.2). No other mapping that shares destinations with it has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAssignment {
    /// The host's own, or the next free one.
    Preserving,
    /// Any, from 1024.
    Random,
}

/// What a NAT or a firewall lets nothing through of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// What comes in.
    Inbound,
    /// What goes out.
    Outbound,
    /// Both: it is off.
    Both,
}

impl Blocked {
    pub(super) fn inbound(self) -> bool {
        self != Self::Outbound
    }

    pub(super) fn outbound(self) -> bool {
        self != Self::Inbound
    }
}

/// A NAT or a firewall of a [`Network`], made by [`Network::nat`], [`Network::firewall`] or [`nat`](Self::nat).
///
/// Cheap to clone: all clones are the same NAT. It stays when the handle is dropped. Whatever passes it pays the way
/// twice: from the host to the NAT ([`set_lan`](Self::set_lan)) and from there on, each decided when the datagram gets
/// there. What it lets nobody through to is counted as [`filtered`](super::NetCounters::filtered).
#[derive(Clone)]
pub struct Nat {
    pub(super) network: Network,
    pub(super) id: GatewayId,
    pub(super) inner: Realm,
}

impl Nat {
    /// Binds port 7400 of the next host behind it: 192.168.1.2:7400, 192.168.1.3:7400 and so on, behind a firewall
    /// `[2001:db8:N::2]:7400` and so on. Hosts behind different NATs may have the same address.
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

    /// A NAT behind this one, as of a home behind a carrier's. Its address outside is of 100.64.0.0/10.
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

    /// The mappings that it has at this moment: of a firewall, the hosts that have sent something lately.
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

    /// Gives it another address outside, as a provider does; the mappings go, and so does what is on its way to the
    /// old address. Returns the new one. A firewall only forgets.
    pub fn renumber(&self) -> IpAddr {
        self.network.fabric().renumber(self.id)
    }

    /// Makes it behave otherwise from now on. The mappings go. A firewall stays one, and a NAT a NAT.
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

    /// Lets nothing through in one direction or both, or everything that the filter lets through again.
    pub fn block(&self, blocked: impl Into<Option<Blocked>>) {
        self.network.fabric().gateway(self.id).blocked = blocked.into();
    }

    /// Sets the quality between it and the hosts behind it. Default: [`LinkQuality::default`].
    pub fn set_lan(&self, quality: LinkQuality) {
        self.network.fabric().wires.set_default(self.inner, quality);
    }

    /// Gives it an access link outside, see [`Network::set_access`]; it keeps that when its address changes. No effect
    /// on a firewall: set that of its hosts.
    pub fn set_access(&self, quality: LinkQuality) {
        let mut fabric = self.network.fabric();
        let gateway = fabric.gateway(self.id);
        let spot = gateway.outer.spot(gateway.address);
        fabric.wires.set_access(spot, quality, quality);
    }
}

impl fmt::Debug for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nat").field("id", &self.id.0).field("address", &self.address()).finish()
    }
}

/// Where a host can move to, see [`VirtualSocket::roam`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Place {
    /// This address of the Internet, port included; port 0 keeps the port.
    Internet(SocketAddr),
    /// The next address behind this NAT or firewall; the port stays.
    Behind(Nat),
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::Internet(address)
    }
}

impl From<&Nat> for Place {
    fn from(nat: &Nat) -> Self {
        Self::Behind(nat.clone())
    }
}

impl Place {
    /// The endpoint for a socket that had this port.
    pub(super) fn endpoint(&self, port: u16, network: &Network) -> io::Result<super::spot::Endpoint> {
        match self {
            Self::Internet(address) if address.port() == 0 => {
                Ok(Realm::INTERNET.endpoint(SocketAddr::new(address.ip(), port)))
            }
            Self::Internet(address) => Ok(Realm::INTERNET.endpoint(*address)),
            Self::Behind(nat) if !nat.network.is(network) => Err(io::ErrorKind::AddrNotAvailable.into()),
            Self::Behind(nat) => {
                let ip = network.fabric().next_inner(nat.id);
                Ok(nat.inner.endpoint(SocketAddr::new(ip, port)))
            }
        }
    }
}
