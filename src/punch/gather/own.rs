//! Where this node may be reached: its candidates, gathered and put in order.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::candidate::{Candidate, CandidateKind, HostAddress, HostKind, canonical, is_portable};
use super::nat::{NatClass, classify};
use crate::id::NodeId;
use crate::punch::peer::volley::Base;
use crate::punch::wire::message::Message;

/// The most neighbours whose word about this node's address is kept.
const MAX_OBSERVERS: usize = 1_024;
/// The most addresses of one source that are kept.
const MAX_ADDRESSES: usize = 256;
/// Maximum number of places per rank while others wait: a hundred interfaces do not crowd out the
/// one external address.
const SHARE: usize = 8;

/// The addresses of this node, and the candidates derived from them.
#[derive(Debug, Default)]
pub(crate) struct Own {
    host: Vec<HostAddress>,
    external: Vec<SocketAddr>,
    mapped: Vec<SocketAddr>,
    /// One address per neighbour: no neighbour is trusted with more.
    observed: BTreeMap<NodeId, SocketAddr>,
    /// Something was set since the candidates were gathered.
    dirty: bool,
    candidates: Vec<Candidate>,
    class: NatClass,
    edition: Edition,
}

/// The candidates announced to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edition {
    /// Changes with any change.
    all: u64,
    /// Changes only with those that were not observed by a neighbour.
    firm: u64,
}

impl Edition {
    /// Whether a peer that has the older edition should get the newer one. What a neighbour
    /// observes may flap or be false; it does not disturb a pair that is settled, because its path
    /// answers.
    pub(crate) fn outdates(self, told: Self, settled: bool) -> bool {
        if settled { self.firm != told.firm } else { self.all != told.all }
    }
}

impl Own {
    /// Each `set_*` says whether something is new.
    pub(crate) fn set_host(&mut self, mut host: Vec<HostAddress>) -> bool {
        host.truncate(MAX_ADDRESSES);
        host.iter_mut().for_each(|host| host.addr = canonical(host.addr));
        // Systems list them in any order.
        host.sort_unstable();
        let changed = self.host != host;
        self.host = host;
        self.note(changed)
    }

    pub(crate) fn set_external(&mut self, addresses: Vec<SocketAddr>) -> bool {
        let changed = replace(&mut self.external, addresses);
        self.note(changed)
    }

    pub(crate) fn set_mapped(&mut self, addresses: Vec<SocketAddr>) -> bool {
        let changed = replace(&mut self.mapped, addresses);
        self.note(changed)
    }

    pub(crate) fn set_observed(&mut self, neighbour: &NodeId, at: Option<SocketAddr>) -> bool {
        let changed = match at.map(canonical).filter(|at| is_portable(*at)) {
            None => self.observed.remove(neighbour).is_some(),
            Some(at)
                if self.observed.contains_key(neighbour) || self.observed.len() < MAX_OBSERVERS =>
            {
                self.observed.insert(neighbour.clone(), at) != Some(at)
            }
            Some(_) => false,
        };
        self.note(changed)
    }

    fn note(&mut self, changed: bool) -> bool {
        self.dirty |= changed;
        changed
    }

    /// Gathers again if something was set.
    pub(crate) fn refresh(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        self.class = match self.class_of(SocketAddr::is_ipv4) {
            NatClass::Unknown if !self.observed.values().any(SocketAddr::is_ipv4) => {
                self.class_of(SocketAddr::is_ipv6)
            }
            class => class,
        };
        let candidates = self.gather();
        let firm = |candidates: &[Candidate]| -> Vec<Candidate> {
            candidates
                .iter()
                .filter(|own| own.kind != CandidateKind::ServerReflexive)
                .copied()
                .collect()
        };
        self.edition.all += u64::from(candidates != self.candidates);
        self.edition.firm += u64::from(firm(&candidates) != firm(&self.candidates));
        self.candidates = candidates;
    }

    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    pub(crate) fn class(&self) -> NatClass {
        self.class
    }

    /// The expected external addresses of fresh ports: a NAT that preserves the port of the node's
    /// own socket will preserve theirs. Without such a NAT the only base is the node's own socket,
    /// as observed by neighbours.
    pub(crate) fn bases(&self, ports: &[u16]) -> Vec<Base> {
        let seen = self.observed_by_votes().into_iter().find(SocketAddr::is_ipv4);
        let Some(seen) = seen else { return Vec::new() };
        let outside = |port| Candidate {
            addr: SocketAddr::new(seen.ip(), port),
            kind: CandidateKind::ServerReflexive,
        };
        if ports.is_empty() || !self.keeps_ports() {
            return vec![Base { local_port: None, outside: outside(seen.port()) }];
        }
        ports.iter().map(|port| Base { local_port: Some(*port), outside: outside(*port) }).collect()
    }

    /// Whether the NAT of IPv4 gives sockets the port outside that they have inside.
    pub(crate) fn keeps_ports(&self) -> bool {
        let inside = |addr: &SocketAddr| {
            self.host.iter().any(|host| host.addr.is_ipv4() && host.addr.port() == addr.port())
        };
        let v4 = self.observed.values().filter(|addr| addr.is_ipv4());
        self.class != NatClass::EndpointDependent
            && v4.clone().next().is_some()
            && v4.clone().all(inside)
    }

    pub(crate) fn edition(&self) -> Edition {
        self.edition
    }

    pub(crate) fn host(&self) -> &[HostAddress] {
        &self.host
    }

    /// Whether an interface has the address.
    pub(crate) fn has_local(&self, ip: IpAddr) -> bool {
        self.host.iter().any(|host| host.addr.ip() == ip)
    }

    /// Whether there is nothing but loopback, as on one machine.
    pub(crate) fn is_loopback_only(&self) -> bool {
        !self.host.is_empty() && self.host.iter().all(|host| host.addr.ip().is_loopback())
    }

    fn class_of(&self, version: impl Fn(&SocketAddr) -> bool) -> NatClass {
        let seen: Vec<_> = self.observed.values().copied().filter(&version).collect();
        classify(&seen, |addr| self.host.iter().any(|host| host.addr == *addr))
    }

    fn gather(&self) -> Vec<Candidate> {
        let mut ranked: Vec<(u8, Candidate)> = Vec::new();
        for host in &self.host {
            ranked.push((rank_of(host), Candidate { addr: host.addr, kind: CandidateKind::Host }));
        }
        for (rank, kind, addresses) in
            [(1, CandidateKind::External, &self.external), (2, CandidateKind::Mapped, &self.mapped)]
        {
            ranked.extend(addresses.iter().map(|addr| (rank, Candidate { addr: *addr, kind })));
        }
        for addr in self.observed_by_votes() {
            ranked.push((3, Candidate { addr, kind: CandidateKind::ServerReflexive }));
        }
        for addr in self.forwarded_ports() {
            ranked.push((4, Candidate { addr, kind: CandidateKind::ServerReflexive }));
        }
        let loopback = self.is_loopback_only();
        ranked
            .retain(|(_, own)| is_portable(own.addr) && (loopback || !own.addr.ip().is_loopback()));
        // An address with several sources takes the best rank, and the kind of the first source.
        let mut merged: Vec<(u8, Candidate)> = Vec::new();
        for (rank, candidate) in ranked {
            match merged.iter_mut().find(|(_, known)| known.addr == candidate.addr) {
                Some((best, _)) => *best = rank.min(*best),
                None => merged.push((rank, candidate)),
            }
        }
        merged.sort_by_key(|(rank, _)| *rank);
        share(merged)
    }

    /// What neighbours see, the most frequent first.
    fn observed_by_votes(&self) -> Vec<SocketAddr> {
        let mut votes: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for addr in self.observed.values() {
            *votes.entry(*addr).or_default() += 1;
        }
        let mut addresses: Vec<_> = votes.into_iter().collect();
        addresses.sort_by_key(|(addr, votes)| (usize::MAX - votes, *addr));
        addresses.into_iter().map(|(addr, _)| addr).collect()
    }

    /// Behind a NAT that maps every endpoint to another port, the operator may have forwarded the
    /// socket's own port.
    fn forwarded_ports(&self) -> Vec<SocketAddr> {
        if self.class_of(SocketAddr::is_ipv4) != NatClass::EndpointDependent {
            return Vec::new();
        }
        let Some(port) =
            self.host.iter().find(|host| host.addr.is_ipv4()).map(|host| host.addr.port())
        else {
            return Vec::new();
        };
        let outside = self.observed_by_votes().into_iter().filter(SocketAddr::is_ipv4);
        outside.map(|addr| SocketAddr::new(addr.ip(), port)).collect()
    }
}

/// Zero: the best.
fn rank_of(host: &HostAddress) -> u8 {
    match (host.kind, host.addr.ip()) {
        (HostKind::Bridge, _) => 7,
        (_, IpAddr::V4(ip)) if ip.is_link_local() => 7,
        (HostKind::Tunnel, _) => 6,
        // Global unicast, 2000::/3.
        (HostKind::Ordinary, IpAddr::V6(ip)) if ip.segments()[0] >> 13 == 1 => 0,
        (HostKind::Ordinary, _) => 5,
    }
}

/// The best of each rank, up to its share; then the rest, as long as there is room.
fn share(ranked: Vec<(u8, Candidate)>) -> Vec<Candidate> {
    let mut taken = [0; 8];
    let (first, rest): (Vec<_>, Vec<_>) = ranked.into_iter().partition(|(rank, _)| {
        taken[usize::from(*rank)] += 1;
        taken[usize::from(*rank)] <= SHARE
    });
    let mut chosen: Vec<_> = first.into_iter().chain(rest).take(Message::MAX_CANDIDATES).collect();
    chosen.sort_by_key(|(rank, _)| *rank);
    chosen.into_iter().map(|(_, candidate)| candidate).collect()
}

fn replace(old: &mut Vec<SocketAddr>, mut new: Vec<SocketAddr>) -> bool {
    new.truncate(MAX_ADDRESSES);
    new.iter_mut().for_each(|addr| *addr = canonical(*addr));
    let changed = *old != new;
    *old = new;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::testing::{addr, node};

    fn own(host: &[&str]) -> Own {
        let mut own = Own::default();
        own.set_host(host.iter().map(|text| HostAddress::new(addr(text))).collect());
        own
    }

    fn told(own: &mut Own) -> Vec<String> {
        own.refresh();
        own.candidates().iter().map(|own| own.addr.to_string()).collect()
    }

    #[test]
    fn the_best_candidates_come_first() {
        let mut own =
            own(&["10.0.0.1:7", "169.254.1.1:7", "[2001:db8::1]:7", "[fd00::1]:7", "[fe80::1]:7"]);
        let bridge =
            HostAddress { kind: HostKind::Bridge, ..HostAddress::new(addr("172.17.0.1:7")) };
        let host = own.host.iter().copied().chain([bridge]).collect();
        own.set_host(host);
        own.set_external(vec![addr("198.51.100.1:9")]);
        own.set_mapped(vec![addr("198.51.100.2:8")]);
        own.set_observed(&node("x"), Some(addr("192.0.2.1:7")));
        own.set_observed(&node("y"), Some(addr("192.0.2.2:7")));
        own.set_observed(&node("z"), Some(addr("192.0.2.2:7")));
        let order = [
            "[2001:db8::1]:7",
            "198.51.100.1:9",
            "198.51.100.2:8",
            "192.0.2.2:7",
            "192.0.2.1:7",
            "10.0.0.1:7",
            "[fd00::1]:7",
            "169.254.1.1:7",
            "172.17.0.1:7",
        ];
        assert_eq!(told(&mut own), order);
    }

    #[test]
    fn a_hundred_interfaces_do_not_crowd_out_the_outside_address() {
        let mut own = own(&[]);
        let host = (0..100).map(|n| HostAddress::new(addr(&format!("10.0.{n}.1:7"))));
        let global = (0..100).map(|n| HostAddress::new(addr(&format!("[2001:db8::{n}]:7"))));
        own.set_host(host.chain(global).collect());
        own.set_observed(&node("x"), Some(addr("192.0.2.1:7")));
        own.set_mapped(vec![addr("192.0.2.1:9")]);
        let told = told(&mut own);
        assert_eq!(told.len(), Message::MAX_CANDIDATES);
        assert!(told.contains(&"192.0.2.1:7".into()) && told.contains(&"192.0.2.1:9".into()));
        assert!(told.iter().filter(|text| text.starts_with("10.")).count() >= 8);
    }

    #[test]
    fn loopback_is_told_only_where_there_is_nothing_else() {
        assert_eq!(told(&mut own(&["127.0.0.1:7"])), ["127.0.0.1:7"]);
        assert_eq!(told(&mut own(&["127.0.0.1:7", "10.0.0.1:7"])), ["10.0.0.1:7"]);
    }

    #[test]
    fn what_is_seen_at_an_address_of_its_own_stays_a_host_candidate() {
        let mut own = own(&["192.0.2.1:7"]);
        own.set_observed(&node("x"), Some(addr("[::ffff:192.0.2.1]:7")));
        own.refresh();
        assert_eq!(
            own.candidates(),
            [Candidate { addr: addr("192.0.2.1:7"), kind: CandidateKind::Host }]
        );
        assert_eq!(own.class(), NatClass::Public);
    }

    #[test]
    fn behind_an_endpoint_dependent_nat_the_own_port_is_guessed_to_be_forwarded() {
        let mut own = own(&["10.0.0.1:7"]);
        own.set_observed(&node("x"), Some(addr("192.0.2.1:1001")));
        own.set_observed(&node("y"), Some(addr("192.0.2.1:1002")));
        assert_eq!(
            told(&mut own),
            ["192.0.2.1:1001", "192.0.2.1:1002", "192.0.2.1:7", "10.0.0.1:7"]
        );
        assert_eq!(own.class(), NatClass::EndpointDependent);
    }

    #[test]
    fn fresh_ports_are_expected_to_stay_the_same_where_the_socket_s_port_does() {
        let ports = |own: &Own| -> Vec<_> {
            let bases = own.bases(&[50, 51]).into_iter();
            bases.map(|base| (base.local_port, base.outside.addr.to_string())).collect()
        };
        let mut own = own(&["10.0.0.1:7"]);
        assert_eq!(ports(&own), []);
        own.set_observed(&node("x"), Some(addr("192.0.2.1:7")));
        assert_eq!(
            ports(&own),
            [(Some(50), "192.0.2.1:50".into()), (Some(51), "192.0.2.1:51".into())]
        );
        own.set_observed(&node("x"), Some(addr("192.0.2.1:1007")));
        assert_eq!(ports(&own), [(None, "192.0.2.1:1007".into())]);
    }

    #[test]
    fn one_neighbour_gives_one_candidate_whatever_it_says() {
        let mut own = own(&["10.0.0.1:7"]);
        for n in 1..100 {
            own.set_observed(&node("liar"), Some(addr(&format!("198.51.100.{n}:7"))));
        }
        assert_eq!(told(&mut own).len(), 2);
        own.set_observed(&node("liar"), Some(addr("224.0.0.1:7")));
        assert_eq!(told(&mut own), ["10.0.0.1:7"]);
    }

    #[test]
    fn what_neighbours_see_does_not_disturb_a_pair_that_has_its_path() {
        let mut own = own(&["10.0.0.1:7"]);
        own.refresh();
        let before = own.edition();
        assert!(own.set_observed(&node("x"), Some(addr("192.0.2.1:7"))));
        own.refresh();
        assert!(own.edition().outdates(before, false));
        assert!(!own.edition().outdates(before, true));
        own.set_mapped(vec![addr("192.0.2.1:9")]);
        own.refresh();
        assert!(own.edition().outdates(before, true));
    }
}
