//! When the candidates of a round are probed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::punch::gather::candidate::{Candidate, CandidateKind, HostKind, canonical, is_portable};
use crate::punch::gather::own::Own;
use crate::punch::wire::message::Message;
use crate::punch::wire::probe::{Arrival, CandidatePair};

/// Waits before each probe to a candidate after the first, in milliseconds. Short at first, since
/// one lost packet must not cost a second. Then constant for three seconds: the answerer spends its
/// first probes on a NAT that is closed until the answer has arrived, and some of the following
/// must succeed with a loss of one fifth. The schedule ends after six seconds.
const WAITS: [u64; 14] = [33, 67, 133, 267, 300, 300, 300, 300, 300, 300, 300, 300, 1_000, 2_000];
/// The probes that a candidate gets once there is a path.
const PROBES_WITH_PATH: u32 = 5;
/// Probes that a candidate gets where none is answered.
pub(crate) const PROBES: usize = WAITS.len() + 1;
/// The most probes of one round to listed candidates of one IP address: it may be a bystander's,
/// whom a peer names.
const PROBES_PER_IP: u32 = 18;
/// The most addresses of one round that are learned from probes,
const MAX_REFLEXIVE: usize = 8;
/// Maximum per IP address: a peer can fake the source of its probes.
const MAX_REFLEXIVE_PER_IP: usize = 4;
/// Probes to one address whose answers are awaited at a time.
const MAX_PENDING: usize = 16;

/// A candidate of the peer, and the probes to it.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) candidate: Candidate,
    /// The fresh port that it is probed from; `None` if it is the node's own socket.
    pub(crate) local_port: Option<u16>,
    /// One probe of a volley, which is repeated only once the peer is heard.
    volley: bool,
    /// The local address at which the peer's probe arrived.
    pub(crate) from: Option<IpAddr>,
    pub(crate) probes: u32,
    /// When the next probe is due; `None` if the schedule is complete.
    pub(crate) next: Option<Instant>,
    /// The source of an authentic probe of the peer. It is not limited per IP address.
    heard: bool,
    /// The address has answered before: probes to it are not limited by what the peer has sent.
    proven: bool,
    /// Counters and times of the newest probes.
    pending: Vec<(u32, Instant)>,
    pub(crate) rtt: Option<Duration>,
}

impl Check {
    fn new(candidate: Candidate, local_port: Option<u16>, next: Instant) -> Self {
        let (from, next, pending) = (None, Some(next), Vec::new());
        let (volley, heard, proven) = (false, false, false);
        Self {
            candidate,
            local_port,
            volley,
            from,
            probes: 0,
            next,
            heard,
            proven,
            pending,
            rtt: None,
        }
    }

    fn pair(&self) -> CandidatePair {
        CandidatePair { remote: self.candidate.addr, local_port: self.local_port }
    }
}

/// The candidates of a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    list: Vec<Check>,
    /// Probes to listed candidates.
    per_ip: BTreeMap<IpAddr, u32>,
    /// A path exists: the remaining candidates get shorter schedules.
    found: bool,
}

impl Checks {
    pub(crate) fn list(&self) -> &[Check] {
        &self.list
    }

    /// Adds what the peer listed.
    pub(crate) fn add(&mut self, candidates: Vec<Candidate>, start: Instant) {
        for candidate in candidates {
            let pair = CandidatePair { remote: candidate.addr, local_port: None };
            match self.list.iter_mut().find(|check| check.pair() == pair) {
                Some(known) => known.candidate.kind = candidate.kind,
                None => self.list.push(Check::new(candidate, None, start)),
            }
        }
    }

    /// Adds addresses of paths that died: they have answered before.
    pub(crate) fn add_proven(&mut self, candidates: Vec<Candidate>, start: Instant) {
        let proven: Vec<_> = candidates.iter().map(|candidate| candidate.addr).collect();
        self.add(candidates, start);
        let again = |check: &&mut Check| proven.contains(&check.candidate.addr);
        self.list.iter_mut().filter(again).for_each(|check| check.proven = true);
    }

    /// The pairs of a volley from fresh ports replace those of the previous one.
    pub(crate) fn add_volley(&mut self, pairs: Vec<(Option<u16>, Candidate)>, now: Instant) {
        self.list.retain(|check| !check.volley || check.heard || check.rtt.is_some());
        for (local_port, candidate) in pairs {
            let pair = CandidatePair { remote: candidate.addr, local_port };
            if self.list.iter().all(|check| check.pair() != pair) {
                self.list.push(Check { volley: true, ..Check::new(candidate, local_port, now) });
            }
        }
    }

    /// Probes that wait for the first volley are due now.
    pub(crate) fn start(&mut self, now: Instant) {
        for check in self.list.iter_mut().filter(|check| check.probes == 0) {
            check.next = check.next.map(|_| now);
        }
    }

    /// The next check whose first probe is due, in the order of the list.
    pub(crate) fn take_first(&mut self, now: Instant) -> Option<&mut Check> {
        let due = |check: &Check| check.probes == 0 && check.next.is_some_and(|next| next <= now);
        let at = self.list.iter().position(due)?;
        self.spend(at).then(|| &mut self.list[at])
    }

    /// A probe of the peer arrived: its source is probed at once.
    pub(crate) fn trigger(&mut self, candidate: Candidate, arrival: Arrival, now: Instant) {
        let known = self.list.iter().position(|check| check.pair() == arrival.pair());
        let at = known.or_else(|| {
            let reflexive = || {
                self.list
                    .iter()
                    .filter(|check| check.candidate.kind == CandidateKind::PeerReflexive)
            };
            let near = reflexive().filter(|check| check.candidate.addr.ip() == candidate.addr.ip());
            let room = reflexive().count() < MAX_REFLEXIVE && near.count() < MAX_REFLEXIVE_PER_IP;
            room.then(|| {
                self.list.push(Check::new(candidate, arrival.local_port, now));
                self.list.len() - 1
            })
        });
        if let Some(check) = at.and_then(|at| self.list.get_mut(at)) {
            (check.from, check.heard, check.next) = (arrival.to, true, Some(now));
        }
    }

    /// There is a path.
    pub(crate) fn found(&mut self, drop_unstarted: bool) {
        self.found = true;
        for check in &mut self.list {
            let spent = check.probes >= PROBES_WITH_PATH || (drop_unstarted && check.probes == 0);
            if spent && !check.heard {
                check.next = None;
            }
        }
    }

    pub(crate) fn has_found(&self) -> bool {
        self.found
    }

    pub(crate) fn stop(&mut self) {
        self.list.iter_mut().for_each(|check| check.next = None);
    }

    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.list.iter().filter_map(|check| check.next).min()
    }

    /// The check that is due first, if one is.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<&mut Check> {
        loop {
            let due = |check: &Check| check.next.is_some_and(|next| next <= now);
            let at = (0..self.list.len())
                .filter(|at| due(&self.list[*at]))
                .min_by_key(|at| self.list[*at].next)?;
            if self.spend(at) {
                return self.list.get_mut(at);
            }
        }
    }

    /// Whether a check may send one more probe. The number of volleys is limited, and so is that of
    /// their probes.
    fn spend(&mut self, at: usize) -> bool {
        let check = &mut self.list[at];
        if check.heard || check.volley {
            return true;
        }
        let spent = self.per_ip.entry(check.candidate.addr.ip()).or_default();
        if *spent >= PROBES_PER_IP {
            check.next = None;
            return false;
        }
        *spent += 1;
        true
    }

    /// The next check of the volley that is being sent.
    pub(crate) fn take_of_volley(&mut self, _: Instant) -> Option<&mut Check> {
        self.list.iter_mut().find(|check| check.volley && check.probes == 0)
    }

    /// The answer to one of the probes, from where it was sent to.
    pub(crate) fn answered(
        &mut self,
        pair: CandidatePair,
        counter: u32,
        now: Instant,
    ) -> Option<(Candidate, Duration)> {
        let check = self.list.iter_mut().find(|check| check.pair() == pair)?;
        let (_, at) = *check.pending.iter().find(|(pending, _)| *pending == counter)?;
        let rtt = now.saturating_duration_since(at);
        check.pending.clear();
        check.next = None;
        check.rtt = Some(rtt);
        Some((check.candidate, rtt))
    }
}

impl Check {
    /// Whether the address has answered, in this round or before.
    pub(crate) fn has_answered(&self) -> bool {
        self.proven || self.rtt.is_some()
    }

    /// The peer has not sent enough for another probe.
    pub(crate) fn withhold(&mut self) {
        self.next = None;
    }

    /// Records that the probe with that counter is sent.
    pub(crate) fn sent(&mut self, counter: u32, now: Instant, found: bool) {
        self.probes += 1;
        if self.pending.len() == MAX_PENDING {
            self.pending.remove(0);
        }
        self.pending.push((counter, now));
        let most = if found { PROBES_WITH_PATH } else { u32::MAX };
        let wait = WAITS.get(self.probes as usize - 1).filter(|_| self.probes < most);
        let once = self.volley && !self.heard;
        self.next = wait.filter(|_| !once).map(|wait| now + Duration::from_millis(*wait));
    }
}

/// What of the peer's list is worth a probe, the best first.
pub(crate) fn worthwhile(theirs: &[Candidate], own: &Own) -> Vec<Candidate> {
    let mut chosen: Vec<Candidate> = Vec::new();
    for candidate in theirs.iter().take(Message::MAX_CANDIDATES) {
        let addr = canonical(candidate.addr);
        let family = own.host().is_empty()
            || own.host().iter().any(|host| host.addr.is_ipv4() == addr.is_ipv4());
        let loopback = addr.ip().is_loopback() && !own.is_loopback_only();
        let mine = own.host().iter().any(|host| host.addr == addr);
        let to_all = own.host().iter().any(|host| host.broadcast() == Some(addr.ip()));
        let known = chosen.iter().any(|known| known.addr == addr);
        let told = candidate.kind != CandidateKind::PeerReflexive;
        if is_portable(addr) && family && told && !loopback && !mine && !to_all && !known {
            chosen.push(Candidate { addr, ..*candidate });
        }
    }
    // The sort is stable: otherwise the peer knows best.
    chosen.sort_by_key(|candidate| place(candidate.addr.ip(), own));
    chosen
}

/// In a network that both ends share: first. On a bridge to this node's own containers: last.
fn place(ip: IpAddr, own: &Own) -> u8 {
    let near = own.host().iter().filter(|host| host.has_in_subnet(ip)).map(|host| host.kind).min();
    match near {
        Some(HostKind::Ordinary) => 0,
        Some(HostKind::Bridge) => 2,
        _ => 1,
    }
}
