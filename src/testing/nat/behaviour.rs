//! How NATs and firewalls behave, in the terms of RFC 4787.

use std::time::Duration;

use tokio::time::Instant;

/// The common kinds of NAT, for [`Network::nat`](crate::testing::Network::nat); each is a
/// [`NatBehaviour`] by `into`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatKind {
    /// One mapping for all destinations; admits any source.
    FullCone,
    /// One mapping for all destinations; admits addresses that the host has sent to.
    AddressRestricted,
    /// One mapping for all destinations; admits addresses and ports that the host has sent to. Most
    /// homes have this kind.
    PortRestricted,
    /// A separate mapping per destination, on a random port, which admits only that destination.
    /// Companies, clouds, some mobile networks.
    Symmetric,
    /// Plain Linux masquerade without a filter on its own input, as on Docker hosts: like
    /// [`PortRestricted`](Self::PortRestricted), but it tracks unsolicited packets, and then gives
    /// the host's own flow to their source another port.
    Masquerade,
}

impl NatKind {
    /// The kinds whose pairs do not depend on which end sends first: all except
    /// [`Masquerade`](Self::Masquerade).
    pub const ALL: [Self; 4] =
        [Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];
}

impl From<NatKind> for NatBehaviour {
    fn from(kind: NatKind) -> Self {
        let (mapping, filtering, ports) = match kind {
            NatKind::FullCone => (
                Mapping::EndpointIndependent,
                Filtering::EndpointIndependent,
                PortAssignment::Preserving,
            ),
            NatKind::AddressRestricted => (
                Mapping::EndpointIndependent,
                Filtering::AddressDependent,
                PortAssignment::Preserving,
            ),
            NatKind::PortRestricted => (
                Mapping::EndpointIndependent,
                Filtering::AddressAndPortDependent,
                PortAssignment::Preserving,
            ),
            NatKind::Symmetric => (
                Mapping::AddressAndPortDependent,
                Filtering::AddressAndPortDependent,
                PortAssignment::Random,
            ),
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
/// Start from a [`NatKind`], the default ([`NatKind::PortRestricted`]) or
/// [`FIREWALL`](Self::FIREWALL), and change what matters:
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
    /// How long a mapping lasts after the host last sent through it, and how long a destination is
    /// let in after the host last sent to it. What comes in prolongs neither. Default 30 s, the
    /// shortest that is common.
    pub lifetime: Duration,
    /// Whether hosts behind it reach each other by their outer addresses. Default false.
    pub hairpin: bool,
    /// Whether it drops what comes in unasked. If not, it takes that for a flow of its own: a later
    /// flow of a host to where that came from gets another port, for as long as a mapping lasts.
    /// Default true.
    pub filters_input: bool,
}

impl NatBehaviour {
    /// Translates nothing: hosts behind it have addresses that hold outside too. Only answers are
    /// let in. What stands in front of most IPv6 networks.
    pub const FIREWALL: Self = Self {
        mapping: Mapping::Untranslated,
        filtering: Filtering::AddressAndPortDependent,
        ports: PortAssignment::Preserving,
        lifetime: Duration::from_secs(30),
        hairpin: false,
        filters_input: true,
    };

    /// Whether what was last used then is remembered.
    pub(in crate::testing) fn alive(&self, used: Instant, now: Instant) -> bool {
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
    /// No mappings: a firewall.
    Untranslated,
    /// All.
    EndpointIndependent,
    /// Those with the same address.
    AddressDependent,
    /// Each destination address and port has its own mapping.
    AddressAndPortDependent,
}

/// Which sources are admitted (RFC 4787 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Any host, while the mapping lasts.
    EndpointIndependent,
    /// Addresses that the host has sent to through the mapping.
    AddressDependent,
    /// Addresses and ports that the host has sent to through the mapping.
    AddressAndPortDependent,
}

/// Which port a mapping gets (RFC 4787 §4.2). No other mapping that shares destinations with it has
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAssignment {
    /// The host's own, or the next free one.
    Preserving,
    /// Any, from 1024.
    Random,
}

/// The directions that a NAT or a firewall blocks.
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
    pub(in crate::testing) fn inbound(self) -> bool {
        self != Self::Outbound
    }

    pub(in crate::testing) fn outbound(self) -> bool {
        self != Self::Inbound
    }
}
