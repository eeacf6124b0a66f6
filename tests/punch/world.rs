//! Punchers, the networks between them, and virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::punch::{
    Arrival, Config, Event, Explanation, HostAddress, Message, Path, Probe, Puncher, Role,
};

use crate::nat::{Behaviour, Nat};
use crate::rng::Rng;

/// The network that all others lead to.
pub(crate) const INTERNET: usize = 0;
const PORT: u16 = 7_000;

/// A network: those in it reach each other, and all else by its NAT.
struct Realm {
    /// The NAT that leads out, and the network outside it.
    out: Option<(Nat, usize)>,
}

/// An address of an end.
struct Interface {
    realm: usize,
    addr: SocketAddr,
    /// What was asked for, where only that comes in.
    firewall: Option<BTreeSet<SocketAddr>>,
}

pub(crate) struct End {
    pub(crate) id: NodeId,
    pub(crate) punch: Puncher,
    interfaces: Vec<Interface>,
    /// Fresh ports that are open, and the next one.
    pub(crate) ports: BTreeSet<u16>,
    next_port: u16,
    latency: Duration,
    pub(crate) events: Vec<(Instant, Event)>,
    /// Peers that packets are sent to all the time.
    busy: BTreeSet<NodeId>,
    /// Whether neighbours see it, and tell.
    observed: bool,
    /// Whether it hears messages about direct paths.
    pub(crate) deaf: bool,
}

/// Something on its way.
enum Flight {
    /// To an address, in a network.
    Datagram {
        realm: usize,
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Message {
        from: usize,
        to: usize,
        message: Message,
    },
    Busy,
}

/// A probe or answer that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) by: usize,
    pub(crate) probe: Probe,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    realms: Vec<Realm>,
    pub(crate) ends: Vec<End>,
    flights: BTreeMap<(Instant, u64), Flight>,
    number: u64,
    /// When the last message from one end to another arrives: messages keep their order.
    messages: BTreeMap<(usize, usize), Instant>,
    /// Probability of loss on each access link.
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// Milliseconds by which datagrams may be late, and so overtake each other.
    pub(crate) jitter: u64,
    /// Nothing goes directly.
    pub(crate) cut: bool,
    /// Nothing goes to these addresses.
    pub(crate) blocked: BTreeSet<IpAddr>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) told: Vec<(Instant, usize, Message)>,
    /// Messages that never arrive, by their places in `told`.
    pub(crate) lost: Vec<usize>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the first instant can only come from the clock; all others are counted from it"
)]
pub(crate) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            now: start(),
            rng: Rng::new(seed),
            realms: vec![Realm { out: None }],
            ends: Vec::new(),
            flights: BTreeMap::new(),
            number: 0,
            messages: BTreeMap::new(),
            loss: 0.0,
            duplication: 0.0,
            jitter: 0,
            cut: false,
            blocked: BTreeSet::new(),
            sent: Vec::new(),
            told: Vec::new(),
            lost: Vec::new(),
        };
        world.fly(world.now, Flight::Busy);
        world
    }

    /// A network behind a NAT of that behaviour.
    pub(crate) fn behind(&mut self, outside: usize, ip: &str, behaviour: Behaviour) -> usize {
        let nat = Nat::new(ip.parse().unwrap(), behaviour, &mut self.rng);
        self.realms.push(Realm { out: Some((nat, outside)) });
        self.realms.len() - 1
    }

    pub(crate) fn nat(&mut self, realm: usize) -> &mut Nat {
        &mut self.realms[realm].out.as_mut().unwrap().0
    }

    pub(crate) fn end(&mut self, name: &str) -> usize {
        let id: NodeId = name.parse().unwrap();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.number().to_be_bytes());
        let punch = Puncher::new(Config::new(id.clone(), seed), self.now);
        let latency = self.rng.between(2, 40);
        self.ends.push(End {
            id,
            punch,
            interfaces: Vec::new(),
            ports: BTreeSet::new(),
            next_port: 50_000,
            latency,
            events: Vec::new(),
            busy: BTreeSet::new(),
            observed: false,
            deaf: false,
        });
        self.ends.len() - 1
    }

    pub(crate) fn interface(&mut self, end: usize, realm: usize, ip: &str) {
        let addr = SocketAddr::new(ip.parse().unwrap(), PORT);
        self.ends[end].interfaces.push(Interface { realm, addr, firewall: None });
        self.tell_host(end);
    }

    /// All interfaces go, and others come.
    pub(crate) fn move_to(&mut self, end: usize, realm: usize, ip: &str) {
        self.ends[end].interfaces.clear();
        self.interface(end, realm, ip);
        self.observe(end);
    }

    /// What the end asks for comes in, and nothing else.
    pub(crate) fn firewall(&mut self, end: usize) {
        for interface in &mut self.ends[end].interfaces {
            interface.firewall = Some(BTreeSet::new());
        }
    }

    pub(crate) fn tell_host(&mut self, end: usize) {
        let prefix = |addr: SocketAddr| if addr.is_ipv4() { 24 } else { 64 };
        let host =
            |of: &Interface| HostAddress { prefix: prefix(of.addr), ..HostAddress::new(of.addr) };
        let hosts = self.ends[end].interfaces.iter().map(host).collect();
        self.ends[end].punch.set_host(hosts, self.now);
    }

    /// Two neighbours in the internet tell the end what they see it at, from now on.
    pub(crate) fn observe(&mut self, end: usize) {
        self.ends[end].observed = true;
        for n in 1..=2 {
            let neighbour: NodeId = format!("neighbour-{n}").parse().unwrap();
            let at = addr(&format!("203.0.113.{n}:443"));
            let seen = self.leaves(end, None, at).map(|(_, seen)| seen);
            self.ends[end].punch.observed(&neighbour, seen, self.now);
        }
    }

    /// A peer connection comes up, through relays.
    pub(crate) fn connect(&mut self, client: usize, server: usize) {
        let [a, b] = [client, server].map(|end| self.ends[end].id.clone());
        self.ends[client].punch.connected(&b, Role::Offerer, self.now);
        self.ends[server].punch.connected(&a, Role::Answerer, self.now);
    }

    /// Packets flow from one end to another from now on.
    pub(crate) fn talk(&mut self, from: usize, to: usize) {
        let peer = self.ends[to].id.clone();
        self.ends[from].punch.sent(&peer, self.now);
        self.ends[from].busy.insert(peer);
    }

    pub(crate) fn hush(&mut self) {
        self.ends.iter_mut().for_each(|end| end.busy.clear());
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.run_until(until, |_| false);
    }

    /// Runs until the condition holds; whether it did.
    pub(crate) fn run_for(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + time;
        self.run_until(until, done)
    }

    fn run_until(&mut self, until: Instant, done: impl Fn(&Self) -> bool) -> bool {
        let (mut at_once, mut last) = (0, self.now);
        loop {
            self.drain();
            if done(self) {
                return true;
            }
            let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
            let timeout = |end: &End| end.punch.poll_timeout().map(|deadline| deadline.at);
            let timeout = self.ends.iter().filter_map(timeout).min();
            let next = flight.into_iter().chain(timeout).min().unwrap();
            if next > until {
                self.now = until;
                return false;
            }
            self.now = self.now.max(next);
            at_once = if self.now == last { at_once + 1 } else { 0 };
            last = self.now;
            assert!(at_once < 20_000, "spinning");
            if flight.is_some_and(|at| at <= self.now) {
                let (_, flight) = self.flights.pop_first().unwrap();
                self.arrive(flight);
            }
            for end in &mut self.ends {
                if end.punch.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
                    end.punch.handle_timeout(self.now);
                }
            }
        }
    }

    fn drain(&mut self) {
        for end in 0..self.ends.len() {
            while let Some(event) = self.ends[end].punch.poll_event() {
                self.check_event(end, &event);
                match &event {
                    Event::OpenPorts { peer, count } => self.open_ports(end, peer, *count),
                    Event::ClosePort { port } => {
                        assert!(self.ends[end].ports.remove(port), "it was open")
                    }
                    _ => {}
                }
                self.ends[end].events.push((self.now, event));
            }
            while let Some((peer, message)) = self.ends[end].punch.poll_message() {
                self.send_message(end, &peer, message);
            }
            while let Some(probe) = self.ends[end].punch.poll_probe() {
                self.sent.push(Sent { at: self.now, by: end, probe });
                self.send_datagram(end, probe.local_port, probe.to, probe.bytes.to_vec());
            }
        }
    }

    fn open_ports(&mut self, end: usize, peer: &NodeId, count: usize) {
        let of = &mut self.ends[end];
        let ports: Vec<_> = (of.next_port..).take(count).collect();
        of.next_port += count as u16;
        of.ports.extend(&ports);
        of.punch.ports_opened(peer, ports, self.now);
    }

    /// A path that is told leads to the peer, and is the one that the puncher shows.
    fn check_event(&mut self, end: usize, event: &Event) {
        if let Event::Path { peer, path: Some(path) } = event {
            let reached =
                self.trace_from(end, path.local_port, path.to).map(|to| self.ends[to].id.clone());
            assert!(
                reached.is_none() || reached.as_ref() == Some(peer),
                "the path leads to {reached:?}"
            );
        }
    }

    fn send_message(&mut self, from: usize, peer: &NodeId, message: Message) {
        let to = self.ends.iter().position(|end| end.id == *peer).unwrap();
        self.told.push((self.now, from, message.clone()));
        if self.lost.contains(&(self.told.len() - 1)) {
            return;
        }
        let bytes = message.encode();
        assert!(bytes.len() <= Message::MAX_LEN);
        assert_eq!(Message::decode(&bytes).unwrap(), Some(message.clone()));
        let mut late = Duration::from_millis(50) + self.ends[from].latency + self.ends[to].latency;
        // What is lost is sent again by QUIC.
        while self.rng.happens(2.0 * self.loss) {
            late += Duration::from_millis(200);
        }
        let last = self.messages.get(&(from, to)).copied().unwrap_or(self.now);
        let at = last.max(self.now + late);
        self.messages.insert((from, to), at);
        self.fly(at, Flight::Message { from, to, message });
    }

    pub(crate) fn send_datagram(
        &mut self,
        end: usize,
        local_port: Option<u16>,
        to: SocketAddr,
        bytes: Vec<u8>,
    ) {
        let Some((Some(realm), from)) = self.leaves(end, local_port, to) else { return };
        let Some(receiver) = self.behind_address(realm, to.ip()) else { return };
        let copies = if self.rng.happens(self.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if self.cut
                || self.blocked.contains(&to.ip())
                || self.rng.happens(self.loss)
                || self.rng.happens(self.loss)
            {
                continue;
            }
            let jitter = self.rng.between(0, self.jitter);
            let near = self.ends[end]
                .interfaces
                .iter()
                .any(|of| of.addr.ip() == from.ip() && of.realm != INTERNET);
            let way = self.ends[end].latency + self.ends[receiver].latency;
            let way = if near { Duration::from_millis(1) } else { way };
            let bytes = bytes.clone();
            self.fly(self.now + way + jitter, Flight::Datagram { realm, from, to, bytes });
        }
    }

    fn fly(&mut self, at: Instant, flight: Flight) {
        self.number += 1;
        self.flights.insert((at, self.number), flight);
    }

    fn arrive(&mut self, flight: Flight) {
        match flight {
            Flight::Datagram { realm, from, to, bytes } => {
                let Some((end, to)) = self.arrives(realm, from, to) else { return };
                let local_port = Some(to.port()).filter(|port| *port != PORT);
                let arrival = Arrival { from, to: Some(to.ip()), local_port };
                let _ = self.ends[end].punch.handle_probe(arrival, &bytes, self.now);
            }
            Flight::Message { from, to, message } => {
                if !self.ends[to].deaf {
                    let peer = self.ends[from].id.clone();
                    self.ends[to].punch.handle_message(&peer, message, self.now).unwrap();
                }
            }
            Flight::Busy => {
                for end in &mut self.ends {
                    for peer in &end.busy {
                        end.punch.sent(peer, self.now);
                    }
                }
                for end in 0..self.ends.len() {
                    if self.ends[end].observed {
                        self.observe(end);
                    }
                }
                self.fly(self.now + Duration::from_secs(1), Flight::Busy);
            }
        }
    }

    /// Which end a datagram would reach.
    pub(crate) fn trace(&mut self, end: usize, to: SocketAddr) -> Option<usize> {
        self.trace_from(end, None, to)
    }

    pub(crate) fn trace_from(
        &mut self,
        end: usize,
        local_port: Option<u16>,
        to: SocketAddr,
    ) -> Option<usize> {
        let (realm, from) = self.leaves(end, local_port, to)?;
        self.arrives(realm?, from, to).map(|(receiver, _)| receiver)
    }

    /// A datagram leaves an end: in which network it gets to the address, if in any, and where it
    /// seems to come from.
    fn leaves(
        &mut self,
        end: usize,
        local_port: Option<u16>,
        to: SocketAddr,
    ) -> Option<(Option<usize>, SocketAddr)> {
        let usable = |of: &&mut Interface| of.addr.is_ipv4() == to.is_ipv4();
        let mut interfaces: Vec<_> = self.ends[end].interfaces.iter_mut().filter(usable).collect();
        // The interface whose network has the address, else the first.
        interfaces.sort_by_key(|of| !same_subnet(of.addr, to));
        let interface = interfaces.into_iter().next()?;
        if let Some(asked) = &mut interface.firewall {
            asked.insert(to);
        }
        let (mut realm, mut from) = (interface.realm, interface.addr);
        from.set_port(local_port.unwrap_or(PORT));
        // Outwards, until somebody in the network has the address.
        loop {
            if self.holder(realm, to.ip()).is_some() {
                break;
            }
            let now = self.now;
            let Some((nat, outside)) = &mut self.realms[realm].out else {
                return Some((None, from));
            };
            if to.is_ipv6() {
                return Some((None, from));
            }
            from = nat.outbound(from, to, now);
            let hairpin = nat.outside == to.ip() && !nat.hairpins();
            realm = *outside;
            if hairpin {
                return Some((None, from));
            }
        }
        Some((Some(realm), from))
    }

    /// A datagram gets to an address in a network: which end it reaches, and at which of its
    /// addresses.
    fn arrives(
        &mut self,
        mut realm: usize,
        from: SocketAddr,
        mut to: SocketAddr,
    ) -> Option<(usize, SocketAddr)> {
        loop {
            match self.holder(realm, to.ip())? {
                Holder::End(receiver, at) => {
                    let end = &self.ends[receiver];
                    let interface = &end.interfaces[at];
                    let admitted =
                        interface.firewall.as_ref().is_none_or(|asked| asked.contains(&from));
                    let bound = to.port() == PORT || end.ports.contains(&to.port());
                    return (admitted && bound).then_some((receiver, to));
                }
                Holder::Nat(inside) => {
                    let now = self.now;
                    to = self.nat(inside).inbound(from, to.port(), now)?;
                    realm = inside;
                }
            }
        }
    }

    /// An end that has the address in a network, or is behind the NAT that has it.
    fn behind_address(&self, realm: usize, ip: IpAddr) -> Option<usize> {
        let below = |mut inner: usize, top: usize| loop {
            if inner == top {
                return true;
            }
            let Some((_, outside)) = &self.realms[inner].out else { return false };
            inner = *outside;
        };
        match self.holder(realm, ip)? {
            Holder::End(end, _) => Some(end),
            Holder::Nat(inside) => (0..self.ends.len())
                .find(|end| self.ends[*end].interfaces.iter().any(|of| below(of.realm, inside))),
        }
    }

    /// Who has the address in a network.
    fn holder(&self, realm: usize, ip: IpAddr) -> Option<Holder> {
        for (at, end) in self.ends.iter().enumerate() {
            let here = |of: &Interface| of.realm == realm && of.addr.ip() == ip;
            if let Some(interface) = end.interfaces.iter().position(here) {
                return Some(Holder::End(at, interface));
            }
        }
        let leads = |inside: &Realm| {
            inside.out.as_ref().is_some_and(|(nat, outside)| *outside == realm && nat.outside == ip)
        };
        self.realms.iter().position(leads).map(Holder::Nat)
    }

    // What the tests look at.

    pub(crate) fn path(&self, from: usize, to: usize) -> Option<Path> {
        self.ends[from].punch.path(&self.ends[to].id)
    }

    pub(crate) fn both_direct(&self, a: usize, b: usize) -> bool {
        self.path(a, b).is_some() && self.path(b, a).is_some()
    }

    pub(crate) fn explain(&self, from: usize, to: usize) -> Explanation {
        self.ends[from].punch.explain(&self.ends[to].id).unwrap()
    }

    /// The most probes, without answers, that one end sent in any second.
    pub(crate) fn most_probes_a_second(&self, end: usize) -> usize {
        let times: Vec<_> = self
            .sent
            .iter()
            .filter(|sent| sent.by == end && is_probe(&sent.probe))
            .map(|sent| sent.at)
            .collect();
        let second = Duration::from_secs(1);
        (0..times.len())
            .map(|at| times.partition_point(|time| *time < times[at] + second) - at)
            .max()
            .unwrap_or(0)
    }
}

enum Holder {
    End(usize, usize),
    Nat(usize),
}

pub(crate) fn is_probe(probe: &Probe) -> bool {
    probe.bytes[1] & 0x7f == 0
}

fn same_subnet(mine: SocketAddr, ip: SocketAddr) -> bool {
    match (mine.ip(), ip.ip()) {
        (IpAddr::V4(mine), IpAddr::V4(ip)) => mine.octets()[..3] == ip.octets()[..3],
        (IpAddr::V6(mine), IpAddr::V6(ip)) => mine.segments()[..4] == ip.segments()[..4],
        _ => false,
    }
}
