//! A NAT: how it maps what is inside to ports outside, and what it lets in (RFC 4787 §4 and §5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mapping {
    Independent,
    Dependent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Filtering {
    None,
    Address,
    Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behaviour {
    pub(crate) mapping: Mapping,
    pub(crate) filtering: Filtering,
    pub(crate) hairpin: bool,
    /// What comes in unasked is remembered as a flow of the NAT's own, as Linux does where the
    /// input is not filtered.
    pub(crate) remembers: bool,
}

#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) outside: IpAddr,
    behaviour: Behaviour,
    bindings: Vec<Binding>,
    next_port: u16,
    /// Flows of the NAT's own, by the remote end and the port here, and when they were last used.
    unasked: BTreeMap<(SocketAddr, u16), Instant>,
}

#[derive(Debug)]
struct Binding {
    inside: SocketAddr,
    /// Of a NAT that maps every endpoint to another port.
    to: Option<SocketAddr>,
    port: u16,
    asked: BTreeSet<SocketAddr>,
    used: Instant,
}

const LIFETIME: Duration = Duration::from_secs(30);

impl Nat {
    pub(crate) fn new(outside: IpAddr, behaviour: Behaviour, rng: &mut Rng) -> Self {
        Self {
            outside,
            behaviour,
            bindings: Vec::new(),
            next_port: 20_000 + rng.below(40_000) as u16,
            unasked: BTreeMap::new(),
        }
    }

    pub(crate) fn hairpins(&self) -> bool {
        self.behaviour.hairpin
    }

    /// What is outside changes: all bindings are gone.
    pub(crate) fn renumber(&mut self, outside: IpAddr) {
        self.outside = outside;
        self.bindings.clear();
        self.unasked.clear();
    }

    pub(crate) fn outbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> SocketAddr {
        self.forget(now);
        let dependent = self.behaviour.mapping == Mapping::Dependent || self.behaviour.remembers;
        let key = dependent.then_some(to);
        let known =
            self.bindings.iter().position(|binding| binding.inside == from && binding.to == key);
        let at = known.unwrap_or_else(|| {
            self.next_port = if self.next_port > 64_000 { 20_000 } else { self.next_port + 7 };
            // The socket's own port, unless that flow is taken.
            let kept = self.behaviour.mapping == Mapping::Independent && self.behaviour.remembers;
            let taken = self.unasked.contains_key(&(to, from.port()))
                || self.bindings.iter().any(|known| known.to == key && known.port == from.port());
            if kept && !taken {
                let (port, asked) = (from.port(), BTreeSet::new());
                self.bindings.push(Binding { inside: from, to: key, port, asked, used: now });
                return self.bindings.len() - 1;
            }
            let asked = BTreeSet::new();
            self.bindings.push(Binding {
                inside: from,
                to: key,
                port: self.next_port,
                asked,
                used: now,
            });
            self.bindings.len() - 1
        });
        self.bindings[at].asked.insert(to);
        self.bindings[at].used = now;
        SocketAddr::new(self.outside, self.bindings[at].port)
    }

    pub(crate) fn inbound(
        &mut self,
        from: SocketAddr,
        port: u16,
        now: Instant,
    ) -> Option<SocketAddr> {
        self.forget(now);
        let here = || self.bindings.iter().filter(|binding| binding.port == port);
        let of_flow = here().find(|binding| binding.to.is_some_and(|to| to == from));
        let Some(binding) =
            of_flow.or_else(|| here().next()).filter(|_| !self.is_unasked(from, port))
        else {
            self.remember(from, port, now);
            return None;
        };
        let admitted = match self.behaviour.filtering {
            Filtering::None => true,
            Filtering::Address => binding.asked.iter().any(|asked| asked.ip() == from.ip()),
            Filtering::Port => binding.asked.contains(&from),
        };
        let inside = binding.inside;
        if !admitted {
            self.remember(from, port, now);
        }
        admitted.then_some(inside)
    }

    fn is_unasked(&self, from: SocketAddr, port: u16) -> bool {
        self.unasked.contains_key(&(from, port))
    }

    fn remember(&mut self, from: SocketAddr, port: u16, now: Instant) {
        if self.behaviour.remembers {
            self.unasked.insert((from, port), now);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.bindings.retain(|binding| now < binding.used + LIFETIME);
        self.unasked.retain(|_, used| now < *used + LIFETIME);
    }
}
