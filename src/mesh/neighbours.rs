//! The links, by neighbour: which one carries the session.
//!
//! Of two neighbours the one with the smaller id *leads*, and of a node and its stub the node: it chooses the link and says
//! so with SELECT, so that both ends always speak of the same one. The session begins, at each end, with SELECT. SELECT is numbered, because two of
//! them on two links may overtake each other; and a link that was given up is never taken up again, so that the frames
//! of an old session cannot get into a new one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::contest::{Cause, Contest, Preference};
use super::link::{Link, LinkId, Phase};
use super::status::ProcessStatus;
use super::twin::process_at;
use crate::id::{Cost, NodeId};
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;
use crate::transport::overlay;

/// Links at a time, at most; more are refused as overloaded. The router's own bounds on neighbours are below it.
const MAX_LINKS: usize = 65_536 + 2 * 4_096;
/// Links of one neighbour, at most.
pub(super) const MAX_LINKS_OF_ONE: usize = 4;
/// How long a link may wait to be chosen.
const CHOOSE_WITHIN: Duration = Duration::from_secs(10);
/// How long a link that lost may keep its streams.
const DRAIN_FOR: Duration = Duration::from_secs(30);
/// The same for a link that had lasted when it was replaced: it may have been slow on another network, and not dead.
const DRAIN_SETTLED_FOR: Duration = Duration::from_secs(3_600);
/// From when on a second link to a neighbour is none that both ends happened to dial.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// How long it is kept at least, for what is on its way.
const DRAIN_AT_LEAST: Duration = Duration::from_secs(1);

/// What the driver has to do after a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The link carries its neighbour's session from now on.
    SessionUp(LinkId),
    /// The neighbour has no session any more.
    SessionDown(NodeId),
    /// A second live process with the neighbour's id was refused.
    DuplicateId { node: NodeId, keeps: ProcessStatus, refused: ProcessStatus },
}

/// All links of a node.
#[derive(Debug)]
pub(crate) struct Neighbours {
    me: NodeId,
    /// Whether this node is a stub.
    stub: bool,
    links: BTreeMap<LinkId, Link>,
    active: BTreeMap<NodeId, LinkId>,
    contests: Vec<Contest>,
    /// Numbers for links and pings.
    next: u64,
}

impl Neighbours {
    pub(crate) fn new(me: NodeId, stub: bool) -> Self {
        Self { me, stub, links: BTreeMap::new(), active: BTreeMap::new(), contests: Vec::new(), next: 0 }
    }

    pub(crate) fn links(&self) -> &BTreeMap<LinkId, Link> {
        &self.links
    }

    /// The link that carries the session, by neighbour.
    pub(crate) fn active(&self) -> &BTreeMap<NodeId, LinkId> {
        &self.active
    }

    pub(crate) fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// The link that carries a neighbour's session.
    pub(crate) fn active_link(&self, peer: &NodeId) -> Option<&Link> {
        self.links.get(self.active.get(peer)?)
    }

    /// A number that was not used before.
    pub(crate) fn next_id(&mut self) -> LinkId {
        LinkId(self.next_number())
    }

    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A link whose HELLO is done.
    pub(crate) fn arrive(&mut self, link: Link, now: Instant) -> Vec<Change> {
        let of_same = self.links.values().filter(|other| other.peer == link.peer).count();
        if self.links.len() >= MAX_LINKS || of_same >= MAX_LINKS_OF_ONE {
            link.close(CloseCode::Overloaded, "too many links");
            return Vec::new();
        }
        let rival = self.current(&link.peer).map(|old| (old.id, old.instance));
        let (new, instance, leads) = (link.id, link.instance, self.leads(&link));
        self.links.insert(new, link);
        match rival {
            None => self.choose(new, now),
            Some((old, before)) if before != instance => {
                self.test(Cause::Restart, old, new, now);
                Vec::new()
            }
            Some((old, _)) if leads => {
                if self.links.get(&old).is_some_and(|link| now >= link.since + SETTLED_AFTER) {
                    self.test(Cause::Redial, old, new, now);
                } else {
                    let (tested, rival) = if self.prefers(new, old) { (new, old) } else { (old, new) };
                    self.test(Cause::Duplicate, tested, rival, now);
                }
                Vec::new()
            }
            Some(_) => Vec::new(),
        }
    }

    /// The neighbour has chosen a link.
    pub(crate) fn selected(&mut self, id: LinkId, number: u64, now: Instant) -> Vec<Change> {
        let follows = |link: &&Link| !self.leads(link) && link.connection.close_reason().is_none();
        let Some(link) = self.links.get(&id).filter(follows) else { return Vec::new() };
        let later_choice = self
            .active_link(&link.peer)
            .is_some_and(|active| active.instance == link.instance && active.selected > Some(number));
        if later_choice || matches!(link.phase, Phase::Draining { .. }) {
            return Vec::new();
        }
        // Whether the other process is dead is found out first; its contest ends with this link's activation.
        let contested = self.contests.iter().any(|c| c.cause == Cause::Restart && c.rival == id);
        if let Some(link) = self.links.get_mut(&id) {
            link.selected = Some(number);
        }
        if contested { Vec::new() } else { self.activate(id, now) }
    }

    /// A ping was answered.
    pub(crate) fn answered(&mut self, id: LinkId, nonce: u64, now: Instant) -> Vec<Change> {
        match self.contests.iter().position(|c| c.tested == id && c.nonce == nonce) {
            Some(at) => {
                let contest = self.contests.remove(at);
                self.tested_alive(&contest, now)
            }
            None => Vec::new(),
        }
    }

    /// A link has ended.
    pub(crate) fn closed(&mut self, id: LinkId, now: Instant) -> Vec<Change> {
        let Some(link) = self.links.remove(&id) else { return Vec::new() };
        let (ended, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.contests).into_iter().partition(|c| c.tested == id || c.rival == id);
        self.contests = rest;
        let mut changes = Vec::new();
        if self.active.get(&link.peer) == Some(&id) {
            self.active.remove(&link.peer);
            changes.push(Change::SessionDown(link.peer.clone()));
        }
        for contest in ended.into_iter().filter(|contest| contest.tested == id) {
            changes.extend(self.choose(contest.rival, now));
        }
        if !self.active.contains_key(&link.peer) {
            match self.current(&link.peer).map(|other| other.id) {
                Some(other) => changes.extend(self.choose(other, now)),
                None => self.give_up_drained(&link.peer),
            }
        }
        changes
    }

    /// Nothing but drained links is left: they end, so that a new one is dialled.
    fn give_up_drained(&self, peer: &NodeId) {
        for link in self.links.values().filter(|link| link.peer == *peer) {
            link.close(CloseCode::Replaced, "the link that replaced this one has ended");
        }
    }

    /// Time has passed: contests are decided, drained links closed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        let (overdue, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.contests).into_iter().partition(|c| c.deadline <= now);
        self.contests = rest;
        for link in self.links.values() {
            match link.phase {
                Phase::Draining { since } if self.drained(link, since, now) => {
                    link.close(CloseCode::DuplicateLink, "another link to this neighbour is kept");
                }
                Phase::Waiting if now >= link.since + CHOOSE_WITHIN => {
                    link.close(CloseCode::HandshakeTimeout, "the link was not chosen in time");
                }
                Phase::Draining { .. } | Phase::Waiting | Phase::Active => {}
            }
        }
        overdue.iter().flat_map(|contest| self.tested_dead(contest, now)).collect()
    }

    /// Ends every link once its neighbour has read what was sent.
    pub(crate) fn finish(&mut self) {
        self.links.values_mut().for_each(Link::finish);
    }

    /// Notes where the neighbours are now, and tells those that have moved; whether any has.
    pub(crate) fn follow_addresses(&mut self) -> bool {
        let mut moved = false;
        for link in self.links.values_mut() {
            let remote = link.connection.remote_address();
            if overlay::node_addr(remote).is_some() {
                // A link travels on the real network; a neighbour that moves it elsewhere is not followed.
                continue;
            }
            if remote != link.remote {
                moved = true;
                link.remote = remote;
                link.send(&Frame::Observed(SocketAddr::new(remote.ip().to_canonical(), remote.port())));
            }
            let local = link.connection.local_ip();
            moved |= local != link.local;
            link.local = local;
        }
        moved
    }

    /// A neighbour sees this node at another address.
    pub(crate) fn observed(&mut self, id: LinkId, at: SocketAddr) {
        if let Some(link) = self.links.get_mut(&id) {
            link.observed = at;
        }
    }

    /// Looks at the round trips of the links in use. Gives the neighbours whose links cost something else now.
    pub(crate) fn measure(&mut self, now: Instant) -> Vec<(NodeId, Cost)> {
        let measure = |link: &mut Link| {
            let measured = link.measured.as_mut().filter(|_| link.phase == Phase::Active)?;
            link.cost = measured.on_sample(link.connection.rtt(), now)?;
            Some((link.peer.clone(), link.cost))
        };
        self.links.values_mut().filter_map(measure).collect()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next, but for draining links, which no one waits for.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.contests.iter().map(|contest| contest.deadline).min()
    }

    /// Whether a link that lost may be closed. The end that leads closes first; the other one's turn is a backstop.
    fn drained(&self, link: &Link, since: Instant, now: Instant) -> bool {
        let patience = if self.leads(link) { 1 } else { 2 };
        let limit = if since >= link.since + SETTLED_AFTER { DRAIN_SETTLED_FOR } else { DRAIN_FOR };
        now >= since + limit * patience
            || (patience == 1 && now >= since + DRAIN_AT_LEAST && !link.usage.in_use())
    }

    fn tested_alive(&mut self, contest: &Contest, now: Instant) -> Vec<Change> {
        match contest.cause {
            Cause::Restart => {
                let Some(rival) = self.links.get(&contest.rival) else { return Vec::new() };
                rival.close(CloseCode::DuplicateId, "another live node has this id");
                let Some(tested) = self.links.get(&contest.tested) else { return Vec::new() };
                let (keeps, refused) = (process_at(tested), process_at(rival));
                vec![Change::DuplicateId { node: rival.peer.clone(), keeps, refused }]
            }
            Cause::Duplicate | Cause::Redial => {
                let changes = self.choose(contest.tested, now);
                self.drain(contest.rival, now);
                changes
            }
        }
    }

    fn tested_dead(&mut self, contest: &Contest, now: Instant) -> Vec<Change> {
        match (contest.cause, self.links.get(&contest.tested)) {
            (Cause::Restart, Some(tested)) => {
                tested.close(CloseCode::Replaced, "it did not answer, and another link took its place");
                self.choose(contest.rival, now)
            }
            (Cause::Restart, None) => self.choose(contest.rival, now),
            (Cause::Duplicate | Cause::Redial, _) => {
                let changes = self.choose(contest.rival, now);
                // If it is dead, it ends by itself; if it was only slow, its streams run out.
                self.drain(contest.tested, now);
                changes
            }
        }
    }

    fn drain(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.links.get_mut(&id)
            && !matches!(link.phase, Phase::Draining { .. })
        {
            link.phase = Phase::Draining { since: now };
            link.selected = None;
        }
    }

    /// Makes a link its neighbour's, if that is for this end to say.
    fn choose(&mut self, id: LinkId, now: Instant) -> Vec<Change> {
        let number = self.next_number();
        let Some(link) = self.links.get(&id) else { return Vec::new() };
        let over = matches!(link.phase, Phase::Draining { .. }) || link.connection.close_reason().is_some();
        if over || self.active.get(&link.peer) == Some(&id) {
            return Vec::new();
        }
        if self.leads(link) {
            link.send(&Frame::Select(number));
            self.activate(id, now)
        } else if link.selected.is_some() {
            self.activate(id, now)
        } else {
            Vec::new()
        }
    }

    fn activate(&mut self, id: LinkId, now: Instant) -> Vec<Change> {
        let Some(link) = self.links.get_mut(&id) else { return Vec::new() };
        link.phase = Phase::Active;
        let before = self.active.insert(link.peer.clone(), id);
        if before == Some(id) {
            return Vec::new();
        }
        if let Some(before) = before {
            self.drain(before, now);
        }
        vec![Change::SessionUp(id)]
    }

    fn test(&mut self, cause: Cause, tested: LinkId, rival: LinkId, now: Instant) {
        let nonce = self.next_number();
        if let Some(link) = self.links.get(&tested) {
            link.send(&Frame::Ping(nonce));
            let deadline = Contest::deadline(cause, now, link.connection.rtt());
            self.contests.push(Contest { cause, tested, rival, nonce, deadline });
        }
    }

    /// The link in use with a neighbour: the active one, else the youngest that has not lost.
    fn current(&self, peer: &NodeId) -> Option<&Link> {
        self.active_link(peer).or_else(|| {
            let of_peer = |link: &&Link| {
                link.peer == *peer && link.phase == Phase::Waiting && link.connection.close_reason().is_none()
            };
            self.links.values().rev().find(of_peer)
        })
    }

    /// Whether the choice is this end's. The dialler of most links is a stub, and whoever takes a link can choose it along with
    /// its HELLO: one round trip less.
    fn leads(&self, link: &Link) -> bool {
        match (self.stub, link.stub) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => self.me < link.peer,
        }
    }

    fn prefers(&self, a: LinkId, b: LinkId) -> bool {
        let preference = |id: LinkId| {
            let link = self.links.get(&id)?;
            let dialler = if link.dialled { &self.me } else { &link.peer };
            Some(Preference { dialler: dialler.as_str(), exporter: link.exporter() })
        };
        preference(a) < preference(b)
    }
}
