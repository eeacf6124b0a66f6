//! What a NAT or a firewall remembers, and what follows from it: a pure table, with time and chance
//! by argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use super::behaviour::{Filtering, Mapping, NatBehaviour, PortAssignment};
use crate::rng::SplitMix64;

/// Maximum number of mappings per NAT; packets that need another one are dropped.
const MAX_MAPPINGS: usize = 4_096;
/// Maximum number of destinations per mapping; the least recently used is evicted.
const MAX_SESSIONS: usize = 1_024;
/// Random ports that are tried before the next free one is taken.
const DRAWS: usize = 16;
/// Where ports that are not preserved begin.
const FIRST_PORT: u16 = 1_024;

/// The mappings of one NAT, by who made them: the inner endpoint, and as much of the destination as
/// counts.
#[derive(Debug, Default)]
pub(in crate::testing) struct TranslationTable {
    mappings: BTreeMap<(SocketAddr, Scope), Entry>,
    /// Flows of the NAT's own, by the remote end and the end here, and when a datagram last came:
    /// of a NAT that does not filter its input.
    unasked: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    /// When what had expired was last removed.
    swept: Option<Instant>,
}

/// Which destinations share a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

#[derive(Debug)]
struct Entry {
    outer: SocketAddr,
    /// When the host last sent, by destination; the filter lets in who stands here.
    sessions: BTreeMap<SocketAddr, Instant>,
    used: Instant,
}

/// Why a datagram from outside is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum NotLetIn {
    /// No host inside has that endpoint, or no longer.
    NoMapping,
    /// Somebody has, and has not sent to where this comes from.
    Filtered,
}

impl TranslationTable {
    /// The source that a datagram has outside, and a note that its answers may come in. `None` if
    /// no port is left.
    pub(in crate::testing) fn outbound(
        &mut self,
        behaviour: &NatBehaviour,
        address: IpAddr,
        (from, to): (SocketAddr, SocketAddr),
        rng: &mut SplitMix64,
        now: Instant,
    ) -> Option<SocketAddr> {
        let scope = match behaviour.mapping {
            Mapping::Untranslated | Mapping::EndpointIndependent => Scope::All,
            Mapping::AddressDependent => Scope::Address(to.ip()),
            Mapping::AddressAndPortDependent => Scope::Endpoint(to),
        };
        if !self.mappings.get(&(from, scope)).is_some_and(|entry| behaviour.alive(entry.used, now))
        {
            self.sweep(behaviour, now);
            if self.mappings.len() >= MAX_MAPPINGS {
                return None;
            }
            let outer = match behaviour.mapping {
                Mapping::Untranslated => from,
                _ => SocketAddr::new(
                    address,
                    self.port(behaviour.ports, (from.port(), to), scope, address, rng)?,
                ),
            };
            self.mappings
                .insert((from, scope), Entry { outer, sessions: BTreeMap::new(), used: now });
        }
        let entry = self.mappings.get_mut(&(from, scope))?;
        entry.used = now;
        entry.sessions.insert(to, now);
        if entry.sessions.len() > MAX_SESSIONS {
            let oldest = entry.sessions.iter().min_by_key(|(_, used)| **used).map(|(to, _)| *to);
            oldest.map(|oldest| entry.sessions.remove(&oldest));
        }
        Some(entry.outer)
    }

    /// The inner endpoint that a datagram from outside goes to. What comes in keeps nothing alive.
    pub(in crate::testing) fn inbound(
        &mut self,
        behaviour: &NatBehaviour,
        (from, to): (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Result<SocketAddr, NotLetIn> {
        if self.swept.is_none_or(|swept| !behaviour.alive(swept, now)) {
            self.sweep(behaviour, now);
        }
        let inside = self.inside(behaviour, (from, to), now);
        if inside.is_err() && !behaviour.filters_input && self.unasked.len() < MAX_MAPPINGS {
            self.unasked.insert((from, to), now);
        }
        inside
    }

    fn inside(
        &self,
        behaviour: &NatBehaviour,
        (from, to): (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Result<SocketAddr, NotLetIn> {
        let at_port = |entry: &Entry| entry.outer == to && behaviour.alive(entry.used, now);
        let mut mapped = self.mappings.iter().filter(|(_, entry)| at_port(entry)).peekable();
        if mapped.peek().is_none() {
            return Err(NotLetIn::NoMapping);
        }
        let lets_in = |entry: &Entry| {
            let mut sessions =
                entry.sessions.iter().filter(|(_, used)| behaviour.alive(**used, now));
            match behaviour.filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => {
                    sessions.any(|(session, _)| session.ip() == from.ip())
                }
                Filtering::AddressAndPortDependent => sessions.any(|(session, _)| *session == from),
            }
        };
        mapped
            .find(|(_, entry)| lets_in(entry))
            .map(|((inner, _), _)| *inner)
            .ok_or(NotLetIn::Filtered)
    }

    /// Forgets everything, as a restart does.
    pub(in crate::testing) fn flush(&mut self) {
        self.mappings.clear();
        self.unasked.clear();
    }

    /// How many mappings there are.
    pub(in crate::testing) fn len(&mut self, behaviour: &NatBehaviour, now: Instant) -> usize {
        self.sweep(behaviour, now);
        self.mappings.len()
    }

    /// Removes what has expired, for the room and the ports.
    fn sweep(&mut self, behaviour: &NatBehaviour, now: Instant) {
        self.swept = Some(now);
        self.unasked.retain(|_, used| behaviour.alive(*used, now));
        self.mappings.retain(|_, entry| {
            entry.sessions.retain(|_, used| behaviour.alive(*used, now));
            behaviour.alive(entry.used, now)
        });
    }

    /// A port that no other mapping with the same destinations has, nor a flow of the NAT's own
    /// with the destination.
    fn port(
        &self,
        assignment: PortAssignment,
        (wanted, to): (u16, SocketAddr),
        scope: Scope,
        address: IpAddr,
        rng: &mut SplitMix64,
    ) -> Option<u16> {
        let own = |port: u16| self.unasked.contains_key(&(to, SocketAddr::new(address, port)));
        let free = |port: &u16| {
            !own(*port)
                && !self
                    .mappings
                    .iter()
                    .any(|((_, other), entry)| *other == scope && entry.outer.port() == *port)
        };
        let first = match assignment {
            PortAssignment::Preserving => wanted,
            PortAssignment::Random => {
                let draw = |_| rng.within(u64::from(FIRST_PORT), u64::from(u16::MAX)) as u16;
                (0..DRAWS).map(draw).find(free).unwrap_or(FIRST_PORT)
            }
        };
        (first..=u16::MAX).chain(FIRST_PORT..first).find(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::nat::behaviour::NatKind;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// A table with what every call needs.
    struct Tried {
        table: TranslationTable,
        behaviour: NatBehaviour,
        rng: SplitMix64,
        now: Instant,
    }

    impl Tried {
        fn new(behaviour: impl Into<NatBehaviour>) -> Self {
            let table = TranslationTable::default();
            Self {
                table,
                behaviour: behaviour.into(),
                rng: SplitMix64::new(1),
                now: Instant::now(),
            }
        }

        fn outward(&mut self, from: &str, to: &str) -> SocketAddr {
            let pair = (addr(from), addr(to));
            let outer = addr("198.18.0.1:0").ip();
            self.table.outbound(&self.behaviour, outer, pair, &mut self.rng, self.now).unwrap()
        }

        fn inward(&mut self, from: &str, to: SocketAddr) -> Result<SocketAddr, NotLetIn> {
            self.table.inbound(&self.behaviour, (addr(from), to), self.now)
        }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const HOST: &str = "192.168.1.2:7400";
    const NEIGHBOUR: &str = "192.168.1.3:7400";
    const FAR: &str = "203.0.113.1:1";
    const FAR_OTHER_PORT: &str = "203.0.113.1:2";
    const ELSEWHERE: &str = "203.0.113.2:1";

    #[test]
    fn a_mapping_is_shared_by_as_many_destinations_as_its_kind_says() {
        for (mapping, by_port, by_address) in [
            (Mapping::EndpointIndependent, true, true),
            (Mapping::AddressDependent, true, false),
            (Mapping::AddressAndPortDependent, false, false),
        ] {
            let ports = PortAssignment::Random;
            let mut nat = Tried::new(NatBehaviour { mapping, ports, ..NatBehaviour::default() });
            let first = nat.outward(HOST, FAR);
            assert_eq!(nat.outward(HOST, FAR), first, "{mapping:?}");
            assert_eq!(nat.outward(HOST, FAR_OTHER_PORT) == first, by_port, "{mapping:?}");
            assert_eq!(nat.outward(HOST, ELSEWHERE) == first, by_address, "{mapping:?}");
        }
    }

    #[test]
    fn the_filter_lets_in_whom_its_kind_says() {
        for (filtering, other_port, elsewhere) in [
            (Filtering::EndpointIndependent, true, true),
            (Filtering::AddressDependent, true, false),
            (Filtering::AddressAndPortDependent, false, false),
        ] {
            let mut nat = Tried::new(NatBehaviour { filtering, ..NatBehaviour::default() });
            assert_eq!(nat.inward(FAR, addr("198.18.0.1:7400")), Err(NotLetIn::NoMapping));
            let outer = nat.outward(HOST, FAR);
            assert_eq!(nat.inward(FAR, outer), Ok(addr(HOST)), "{filtering:?}");
            assert_eq!(nat.inward(FAR_OTHER_PORT, outer).is_ok(), other_port, "{filtering:?}");
            assert_eq!(nat.inward(ELSEWHERE, outer).is_ok(), elsewhere, "{filtering:?}");
        }
    }

    #[test]
    fn a_port_is_preserved_unless_another_host_has_it() {
        let mut nat = Tried::new(NatKind::PortRestricted);
        assert_eq!(nat.outward(HOST, FAR), addr("198.18.0.1:7400"));
        assert_eq!(nat.outward(NEIGHBOUR, FAR), addr("198.18.0.1:7401"));
    }

    #[test]
    fn a_mapping_by_destination_can_preserve_the_port_for_all_of_them() {
        let mapping = Mapping::AddressAndPortDependent;
        let mut nat = Tried::new(NatBehaviour { mapping, ..NatBehaviour::default() });
        assert_eq!(nat.outward(HOST, FAR), addr("198.18.0.1:7400"));
        assert_eq!(nat.outward(HOST, ELSEWHERE), addr("198.18.0.1:7400"));
        assert_eq!(nat.outward(NEIGHBOUR, FAR), addr("198.18.0.1:7401"));
        assert_eq!(nat.inward(ELSEWHERE, addr("198.18.0.1:7400")), Ok(addr(HOST)));
        assert_eq!(nat.inward(ELSEWHERE, addr("198.18.0.1:7401")), Err(NotLetIn::Filtered));
    }

    #[test]
    fn what_came_in_unasked_takes_the_port_where_the_input_is_not_filtered() {
        let outer = addr("198.18.0.1:7400");
        for (kind, kept) in [(NatKind::Masquerade, false), (NatKind::PortRestricted, true)] {
            let mut nat = Tried::new(kind);
            nat.inward(FAR, outer).unwrap_err();
            assert_eq!(nat.outward(HOST, FAR) == outer, kept, "{kind:?}");
            assert_eq!(nat.outward(HOST, ELSEWHERE), outer, "{kind:?}");
            nat.inward(ELSEWHERE, outer).unwrap();
            nat.now += Duration::from_secs(31);
            assert_eq!(nat.outward(HOST, FAR), outer, "it is forgotten");
        }
    }

    #[test]
    fn a_mapping_lives_as_long_as_its_host_sends() {
        let lifetime = 10 * SECOND;
        let mut nat = Tried::new(NatBehaviour { lifetime, ..NatKind::PortRestricted.into() });
        let outer = nat.outward(HOST, FAR);
        nat.outward(HOST, ELSEWHERE);
        nat.now += 9 * SECOND;
        assert_eq!(nat.outward(HOST, FAR), outer);
        nat.now += 9 * SECOND;
        assert!(nat.inward(FAR, outer).is_ok());
        assert_eq!(
            nat.inward(ELSEWHERE, outer),
            Err(NotLetIn::Filtered),
            "nothing was sent there lately"
        );
        nat.now += SECOND;
        assert_eq!(
            nat.inward(FAR, outer),
            Err(NotLetIn::NoMapping),
            "what comes in keeps nothing alive"
        );
    }

    #[test]
    fn a_firewall_translates_nothing_and_lets_answers_in() {
        let mut firewall = Tried::new(NatBehaviour::FIREWALL);
        let (host, far) = ("[2001:db8:1::2]:7400", "[2001:db8:2::2]:7400");
        assert_eq!(firewall.inward(far, addr(host)), Err(NotLetIn::NoMapping));
        assert_eq!(firewall.outward(host, far), addr(host));
        assert_eq!(firewall.inward(far, addr(host)), Ok(addr(host)));
        assert_eq!(firewall.inward("[2001:db8:2::3]:7400", addr(host)), Err(NotLetIn::Filtered));
    }

    #[test]
    fn a_nat_without_a_free_port_drops_and_one_that_is_flushed_has_them_all() {
        let mut nat = Tried::new(NatKind::Symmetric);
        for port in 1..=MAX_MAPPINGS as u16 {
            let to = SocketAddr::new(addr(FAR).ip(), port);
            nat.outward(HOST, &to.to_string());
        }
        let pair = (addr(HOST), addr(ELSEWHERE));
        let outer = addr("198.18.0.1:0").ip();
        assert_eq!(nat.table.outbound(&nat.behaviour, outer, pair, &mut nat.rng, nat.now), None);
        nat.table.flush();
        assert_eq!(nat.table.len(&nat.behaviour, nat.now), 0);
        nat.outward(HOST, ELSEWHERE);
    }
}
