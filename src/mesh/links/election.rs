//! The election: which of a neighbour's links carries its session. Pure.
//!
//! Of two neighbours the one with the smaller id *leads*; of a node and its stub, the node leads.
//! The leader chooses the link and announces the choice with SELECT, so that both ends always
//! agree. The session begins, at each end, with SELECT. SELECT is numbered because two of them on
//! two links may overtake each other. A link that lost is never chosen again, so that frames of an
//! old session cannot leak into a new one.
//!
//! ```text
//!   arrive ─▶ Waiting ──chosen──▶ Active ──another is chosen──▶ Draining ─▶ closed
//!                │                                                  ▲
//!                └── two links: a contest tests one ── it loses ────┘
//! ```
//!
//! Every method takes the time and a view of the [`Connections`], and returns [`Step`]s for the
//! caller to perform in order. Call [`handle_timeout`](Election::handle_timeout) at
//! [`next_timeout`](Election::next_timeout), and every tick for draining links, which have no
//! deadline of their own.
//!
//! No operation costs more than the links of one neighbour ([`MAX_LINKS_OF_ONE`]) and a logarithm
//! of all, except for `handle_timeout`, which visits the links that are not settled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::contest::{Cause, Contest, Preference};
use super::id::{LinkId, Phase};
use crate::id::NodeId;
use crate::transport::code::CloseCode;

/// Maximum number of links; further ones are refused as overloaded. The router's own limits on
/// neighbours are lower.
const MAX_LINKS: usize = 65_536 + 2 * 4_096;
/// Maximum number of links to one neighbour.
pub(crate) const MAX_LINKS_OF_ONE: usize = 4;
/// How long a link may wait to be chosen.
const CHOOSE_WITHIN: Duration = Duration::from_secs(10);
/// How long a link that lost may keep its streams.
const DRAIN_FOR: Duration = Duration::from_secs(30);
/// The same for a settled link: it may have been replaced for being slow on another network, not
/// for being dead.
const DRAIN_SETTLED_FOR: Duration = Duration::from_secs(3_600);
/// A second link this long after the first is a redial, not a simultaneous open.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// Minimum time that a link drains, for packets in flight.
const DRAIN_AT_LEAST: Duration = Duration::from_secs(1);

/// What the election reads from the connections of the links. An unknown link counts as closed.
pub(crate) trait Connections {
    /// Whether the connection has ended, or is being closed.
    fn is_closed(&self, link: LinkId) -> bool;
    /// Whether any stream is open.
    fn in_use(&self, link: LinkId) -> bool;
    /// The smoothed round-trip time.
    fn rtt(&self, link: LinkId) -> Duration;
    /// Bytes that both ends derive from the connection, and that no other connection has.
    fn exporter(&self, link: LinkId) -> [u8; 32];
}

/// What the caller has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send SELECT with this number.
    Select { link: LinkId, number: u64 },
    /// Send PING with this nonce.
    Ping { link: LinkId, nonce: u64 },
    /// Close the connection. Its end is still reported with [`Election::closed`].
    Close { link: LinkId, code: CloseCode, why: &'static str },
    /// The link carries its neighbour's session from now on.
    SessionUp(LinkId),
    /// The neighbour has no session any more.
    SessionDown(NodeId),
    /// A second live process with the neighbour's id is refused. Both links are still known.
    DuplicateId { keeps: LinkId, refused: LinkId },
}

/// What HELLO says of a new link.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: NodeId,
    /// Which process of the neighbour is at the other end.
    pub(crate) instance: u64,
    /// Whether the neighbour is a stub.
    pub(crate) stub: bool,
    /// Whether this node dialled.
    pub(crate) dialled: bool,
}

#[derive(Debug)]
struct Entry {
    arrival: Arrival,
    since: Instant,
    phase: Phase,
    /// The number with which the neighbour has chosen this link; a larger one is a later choice.
    selected: Option<u64>,
    /// Whether a [`Step::Close`] was returned for it.
    closing: bool,
}

/// The links and contests of one neighbour.
#[derive(Debug, Default)]
struct Peer {
    /// Ascending, so the youngest is last.
    links: Vec<LinkId>,
    contests: Vec<Contest>,
}

/// Why a link is closed whose neighbour has another process by now.
pub(crate) const RESTARTED: &str = "it did not answer, and another link took its place";

/// Elects one link per neighbour.
#[derive(Debug)]
pub(crate) struct Election {
    me: NodeId,
    /// Whether this node is a stub.
    stub: bool,
    entries: BTreeMap<LinkId, Entry>,
    peers: BTreeMap<NodeId, Peer>,
    active: BTreeMap<NodeId, LinkId>,
    /// Links that wait or drain.
    unsettled: BTreeSet<LinkId>,
    /// The deadline of every contest, with its nonce.
    deadlines: BTreeMap<(Instant, u64), NodeId>,
    /// The last number given to a link, a ping or a SELECT.
    last_number: u64,
}

impl Election {
    pub(crate) fn new(me: NodeId, stub: bool) -> Self {
        Self {
            me,
            stub,
            entries: BTreeMap::new(),
            peers: BTreeMap::new(),
            active: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            last_number: 0,
        }
    }

    /// The link that carries the session, by neighbour.
    pub(crate) fn active(&self) -> &BTreeMap<NodeId, LinkId> {
        &self.active
    }

    pub(crate) fn phase(&self, link: LinkId) -> Option<Phase> {
        Some(self.entries.get(&link)?.phase)
    }

    /// A number that was not used before.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Whether there is room for one more link to `peer`.
    pub(crate) fn has_room(&self, peer: &NodeId) -> bool {
        let of_peer = self.peers.get(peer).map_or(0, |peer| peer.links.len());
        self.entries.len() < MAX_LINKS && of_peer < MAX_LINKS_OF_ONE
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, apart from draining links.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.keys().next().map(|(deadline, _)| *deadline)
    }

    /// A link has exchanged HELLO. The caller has checked that there [is room](Self::has_room).
    pub(crate) fn arrive(
        &mut self,
        link: LinkId,
        arrival: Arrival,
        connections: &impl Connections,
        now: Instant,
    ) -> Vec<Step> {
        let rival = self
            .current(&arrival.peer, connections)
            .and_then(|id| Some((id, self.entries.get(&id)?)));
        let rival = rival.map(|(id, entry)| (id, entry.arrival.instance, entry.since));
        let (instance, leads) = (arrival.instance, self.leads(&arrival));
        self.peers.entry(arrival.peer.clone()).or_default().links.push(link);
        let entry =
            Entry { arrival, since: now, phase: Phase::Waiting, selected: None, closing: false };
        self.entries.insert(link, entry);
        self.unsettled.insert(link);
        let mut steps = Vec::new();
        match rival {
            None => self.choose(link, connections, now, &mut steps),
            Some((old, before, _)) if before != instance => {
                self.test(Cause::Restart, old, link, connections, now, &mut steps);
            }
            Some((old, _, since)) if leads => {
                if now >= since + SETTLED_AFTER {
                    self.test(Cause::Redial, old, link, connections, now, &mut steps);
                } else {
                    let preferred = self.preferred(link, old, connections);
                    let other = if preferred == link { old } else { link };
                    self.test(Cause::Duplicate, preferred, other, connections, now, &mut steps);
                }
            }
            // The leader decides.
            Some(_) => {}
        }
        steps
    }

    /// The neighbour has chosen a link.
    pub(crate) fn selected(
        &mut self,
        link: LinkId,
        number: u64,
        connections: &impl Connections,
        now: Instant,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(entry) = self.entries.get(&link) else { return steps };
        if self.leads(&entry.arrival) || entry.closing || connections.is_closed(link) {
            return steps;
        }
        let active = self.active.get(&entry.arrival.peer).and_then(|id| self.entries.get(id));
        let later_choice = active.is_some_and(|active| {
            active.arrival.instance == entry.arrival.instance && active.selected > Some(number)
        });
        if later_choice || matches!(entry.phase, Phase::Draining { .. }) {
            return steps;
        }
        // While it is open whether the process before is dead, the choice is noted; the contest
        // ends with its activation.
        let contests = self.peers.get(&entry.arrival.peer).map(|peer| &peer.contests);
        let contested = contests.is_some_and(|contests| {
            contests.iter().any(|contest| contest.cause == Cause::Restart && contest.rival == link)
        });
        if let Some(entry) = self.entries.get_mut(&link) {
            entry.selected = Some(number);
        }
        if !contested {
            self.activate(link, now, &mut steps);
        }
        steps
    }

    /// A ping was answered.
    pub(crate) fn answered(
        &mut self,
        link: LinkId,
        nonce: u64,
        connections: &impl Connections,
        now: Instant,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let peer =
            self.entries.get(&link).and_then(|entry| self.peers.get_mut(&entry.arrival.peer));
        let Some(peer) = peer else { return steps };
        let tested = |contest: &Contest| contest.tested == link && contest.nonce == nonce;
        if let Some(at) = peer.contests.iter().position(tested) {
            let contest = peer.contests.remove(at);
            self.deadlines.remove(&(contest.deadline, contest.nonce));
            self.tested_alive(&contest, connections, now, &mut steps);
        }
        steps
    }

    /// A link has ended.
    pub(crate) fn closed(
        &mut self,
        link: LinkId,
        connections: &impl Connections,
        now: Instant,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(entry) = self.entries.remove(&link) else { return steps };
        self.unsettled.remove(&link);
        let peer_id = entry.arrival.peer;
        let ended = self.forget(link, &peer_id);
        if self.active.get(&peer_id) == Some(&link) {
            self.active.remove(&peer_id);
            steps.push(Step::SessionDown(peer_id.clone()));
        }
        for contest in ended.iter().filter(|contest| contest.tested == link) {
            self.choose(contest.rival, connections, now, &mut steps);
        }
        if !self.active.contains_key(&peer_id) {
            match self.current(&peer_id, connections) {
                Some(other) => self.choose(other, connections, now, &mut steps),
                None => self.give_up_draining(&peer_id, &mut steps),
            }
        }
        steps
    }

    /// Decides contests whose answer is overdue, and closes links that have drained or were never
    /// chosen.
    pub(crate) fn handle_timeout(
        &mut self,
        connections: &impl Connections,
        now: Instant,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for link in self.unsettled.clone() {
            let Some(entry) = self.entries.get(&link) else { continue };
            match entry.phase {
                Phase::Draining { since }
                    if self.has_drained(link, entry, since, connections, now) =>
                {
                    let why = "another link to this neighbour is kept";
                    self.close(link, CloseCode::DuplicateLink, why, &mut steps);
                }
                Phase::Waiting if now >= entry.since + CHOOSE_WITHIN => {
                    let why = "the link was not chosen in time";
                    self.close(link, CloseCode::HandshakeTimeout, why, &mut steps);
                }
                Phase::Draining { .. } | Phase::Waiting | Phase::Active => {}
            }
        }
        while let Some(first) = self.deadlines.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, nonce), peer) = first.remove_entry();
            let Some(peer) = self.peers.get_mut(&peer) else { continue };
            if let Some(at) = peer.contests.iter().position(|contest| contest.nonce == nonce) {
                let contest = peer.contests.remove(at);
                self.tested_dead(&contest, connections, now, &mut steps);
            }
        }
        steps
    }

    /// Removes a link from the index, and returns the contests that it took part in.
    fn forget(&mut self, link: LinkId, peer_id: &NodeId) -> Vec<Contest> {
        let Some(peer) = self.peers.get_mut(peer_id) else { return Vec::new() };
        peer.links.retain(|other| *other != link);
        let takes_part = |contest: &mut Contest| contest.tested == link || contest.rival == link;
        let ended: Vec<_> = peer.contests.extract_if(.., takes_part).collect();
        for contest in &ended {
            self.deadlines.remove(&(contest.deadline, contest.nonce));
        }
        if peer.links.is_empty() {
            self.peers.remove(peer_id);
        }
        ended
    }

    /// Only draining links are left: they end, so that the neighbour is dialled again.
    fn give_up_draining(&mut self, peer: &NodeId, steps: &mut Vec<Step>) {
        let links = self.peers.get(peer).map(|peer| peer.links.clone());
        for link in links.unwrap_or_default() {
            self.close(
                link,
                CloseCode::Replaced,
                "the link that replaced this one has ended",
                steps,
            );
        }
    }

    fn close(&mut self, link: LinkId, code: CloseCode, why: &'static str, steps: &mut Vec<Step>) {
        if let Some(entry) = self.entries.get_mut(&link)
            && !std::mem::replace(&mut entry.closing, true)
        {
            steps.push(Step::Close { link, code, why });
        }
    }

    /// Whether a link that lost may be closed. The leader closes first; the other end waits twice
    /// as long, as a backstop.
    fn has_drained(
        &self,
        link: LinkId,
        entry: &Entry,
        since: Instant,
        connections: &impl Connections,
        now: Instant,
    ) -> bool {
        let leads = self.leads(&entry.arrival);
        let settled = since >= entry.since + SETTLED_AFTER;
        let limit = if settled { DRAIN_SETTLED_FOR } else { DRAIN_FOR } * if leads { 1 } else { 2 };
        now >= since + limit
            || (leads && now >= since + DRAIN_AT_LEAST && !connections.in_use(link))
    }

    fn tested_alive(
        &mut self,
        contest: &Contest,
        connections: &impl Connections,
        now: Instant,
        steps: &mut Vec<Step>,
    ) {
        match contest.cause {
            Cause::Restart => {
                steps.push(Step::DuplicateId { keeps: contest.tested, refused: contest.rival });
                let why = "another live node has this id";
                self.close(contest.rival, CloseCode::DuplicateId, why, steps);
            }
            Cause::Duplicate | Cause::Redial => {
                self.choose(contest.tested, connections, now, steps);
                self.drain(contest.rival, now);
            }
        }
    }

    fn tested_dead(
        &mut self,
        contest: &Contest,
        connections: &impl Connections,
        now: Instant,
        steps: &mut Vec<Step>,
    ) {
        if contest.cause == Cause::Restart {
            self.close(contest.tested, CloseCode::Replaced, RESTARTED, steps);
            self.choose(contest.rival, connections, now, steps);
        } else {
            self.choose(contest.rival, connections, now, steps);
            // If it is dead, it ends by itself; if it was only slow, its streams run out.
            self.drain(contest.tested, now);
        }
    }

    /// The router does not accept the session on this link. It carries nothing from now on, until
    /// it ends.
    pub(crate) fn refuse(&mut self, link: LinkId, now: Instant) {
        let Some(entry) = self.entries.get(&link) else { return };
        if self.active.get(&entry.arrival.peer) == Some(&link) {
            self.active.remove(&entry.arrival.peer);
        }
        self.drain(link, now);
    }

    fn drain(&mut self, link: LinkId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&link)
            && !matches!(entry.phase, Phase::Draining { .. })
        {
            entry.phase = Phase::Draining { since: now };
            entry.selected = None;
            self.unsettled.insert(link);
        }
    }

    /// Makes a link its neighbour's, if that is for this end to say.
    fn choose(
        &mut self,
        link: LinkId,
        connections: &impl Connections,
        now: Instant,
        steps: &mut Vec<Step>,
    ) {
        let Some(entry) = self.entries.get(&link) else { return };
        let lost = matches!(entry.phase, Phase::Draining { .. });
        if lost || entry.phase == Phase::Active || entry.closing || connections.is_closed(link) {
            return;
        }
        if self.leads(&entry.arrival) {
            let number = self.next_number();
            steps.push(Step::Select { link, number });
            self.activate(link, now, steps);
        } else if entry.selected.is_some() {
            self.activate(link, now, steps);
        }
    }

    fn activate(&mut self, link: LinkId, now: Instant, steps: &mut Vec<Step>) {
        let Some(entry) = self.entries.get_mut(&link) else { return };
        entry.phase = Phase::Active;
        self.unsettled.remove(&link);
        let before = self.active.insert(entry.arrival.peer.clone(), link);
        if before == Some(link) {
            return;
        }
        if let Some(before) = before {
            self.drain(before, now);
        }
        steps.push(Step::SessionUp(link));
    }

    fn test(
        &mut self,
        cause: Cause,
        tested: LinkId,
        rival: LinkId,
        connections: &impl Connections,
        now: Instant,
        steps: &mut Vec<Step>,
    ) {
        let nonce = self.next_number();
        let Some(entry) = self.entries.get(&tested) else { return };
        let deadline = Contest::deadline(cause, now, connections.rtt(tested));
        self.deadlines.insert((deadline, nonce), entry.arrival.peer.clone());
        let contest = Contest { cause, tested, rival, nonce, deadline };
        self.peers.entry(entry.arrival.peer.clone()).or_default().contests.push(contest);
        steps.push(Step::Ping { link: tested, nonce });
    }

    /// The link in use with a neighbour: the active one, else the youngest that has not lost.
    fn current(&self, peer: &NodeId, connections: &impl Connections) -> Option<LinkId> {
        if let Some(active) = self.active.get(peer) {
            return Some(*active);
        }
        let waits = |link: &&LinkId| {
            let entry = self.entries.get(link);
            entry.is_some_and(|entry| entry.phase == Phase::Waiting && !entry.closing)
                && !connections.is_closed(**link)
        };
        self.peers.get(peer)?.links.iter().rev().find(waits).copied()
    }

    /// Whether the choice is this end's. Most links are dialled by stubs; their acceptor can send
    /// the choice along with its HELLO, which saves a round trip.
    fn leads(&self, arrival: &Arrival) -> bool {
        match (self.stub, arrival.stub) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => self.me < arrival.peer,
        }
    }

    fn preferred(&self, a: LinkId, b: LinkId, connections: &impl Connections) -> LinkId {
        let preference = |link: LinkId| {
            let arrival = &self.entries.get(&link)?.arrival;
            let dialler = if arrival.dialled { &self.me } else { &arrival.peer };
            Some(Preference { dialler: dialler.as_str(), exporter: connections.exporter(link) })
        };
        if preference(a) < preference(b) { a } else { b }
    }
}

#[cfg(test)]
mod tests;
