//! The links of a node, and the session that one of each neighbour's carries: the [`Election`]
//! decides, this acts on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::by_kind::ByKind;
use super::election;
use super::election::{Arrival, Connections, Election, Step};
use super::id::{LinkId, Phase};
use super::link::Link;
use super::twin::{self, process_at};
use crate::id::{Cost, NodeId};
use crate::mesh::links::dialling::peer_addr::Carrier;
use crate::mesh::report::status::ProcessStatus;
use crate::mesh::services::ending::{Cause, EndReason};
use crate::transport::carrier;
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;
use crate::transport::overlay;

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
    links: BTreeMap<LinkId, Link>,
    by_kind: ByKind<LinkId>,
    election: Election,
}

impl Connections for BTreeMap<LinkId, Link> {
    fn is_closed(&self, link: LinkId) -> bool {
        self.get(&link).is_none_or(|link| link.connection.close_reason().is_some())
    }

    fn in_use(&self, link: LinkId) -> bool {
        self.get(&link).is_some_and(|link| link.usage.in_use())
    }

    fn rtt(&self, link: LinkId) -> Duration {
        self.get(&link).map_or(Duration::ZERO, |link| link.connection.rtt())
    }

    fn exporter(&self, link: LinkId) -> [u8; 32] {
        self.get(&link).map_or([0; 32], Link::exporter)
    }
}

impl Neighbours {
    /// The links of `me`, which is a stub or a full node.
    pub(crate) fn new(me: NodeId, stub: bool) -> Self {
        Self { links: BTreeMap::new(), by_kind: ByKind::new(), election: Election::new(me, stub) }
    }

    pub(crate) fn links(&self) -> &BTreeMap<LinkId, Link> {
        &self.links
    }

    /// The links to neighbours that are not stubs, oldest first, then at most `max_stubs` of those
    /// to stubs, ascending by id.
    pub(crate) fn routers_and_stubs(&self, max_stubs: usize) -> impl Iterator<Item = &Link> {
        let ids = self.by_kind.routers().chain(self.by_kind.stubs().take(max_stubs));
        ids.filter_map(move |id| self.links.get(&id))
    }

    pub(crate) fn stub_links(&self) -> usize {
        self.by_kind.stub_count()
    }

    /// The link that carries the session, by neighbour.
    pub(crate) fn active(&self) -> &BTreeMap<NodeId, LinkId> {
        self.election.active()
    }

    pub(crate) fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// The link, if it carries its neighbour's session.
    pub(crate) fn if_active(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id).filter(|_| self.phase(id) == Some(Phase::Active))
    }

    /// What a link is used for; `None` if it is unknown.
    pub(crate) fn phase(&self, id: LinkId) -> Option<Phase> {
        self.election.phase(id)
    }

    /// The link that carries a neighbour's session.
    pub(crate) fn active_link(&self, peer: &NodeId) -> Option<&Link> {
        self.links.get(self.active().get(peer)?)
    }

    /// A number that was not used before.
    pub(crate) fn next_id(&mut self) -> LinkId {
        LinkId(self.election.next_number())
    }

    /// A link has exchanged HELLO.
    pub(crate) fn arrive(&mut self, link: Link, now: Instant) -> Vec<Change> {
        if !self.election.has_room(&link.peer) {
            link.close(CloseCode::Overloaded, "too many links");
            return Vec::new();
        }
        let arrival = Arrival {
            peer: link.peer.clone(),
            instance: link.instance,
            stub: link.stub,
            dialled: link.dialled,
        };
        let id = link.id;
        self.by_kind.insert(id, &link.peer, link.stub);
        self.links.insert(id, link);
        let steps = self.election.arrive(id, arrival, &self.links, now);
        self.perform(steps)
    }

    /// The neighbour has chosen a link.
    pub(crate) fn selected(&mut self, id: LinkId, number: u64, now: Instant) -> Vec<Change> {
        let steps = self.election.selected(id, number, &self.links, now);
        self.perform(steps)
    }

    /// A ping was answered.
    pub(crate) fn answered(&mut self, id: LinkId, nonce: u64, now: Instant) -> Vec<Change> {
        let steps = self.election.answered(id, nonce, &self.links, now);
        self.perform(steps)
    }

    /// A link has ended.
    pub(crate) fn closed(&mut self, id: LinkId, now: Instant) -> Vec<Change> {
        if let Some(link) = self.links.remove(&id) {
            self.by_kind.remove(id, &link.peer);
        }
        let steps = self.election.closed(id, &self.links, now);
        self.perform(steps)
    }

    /// The router does not take the session on this link. It carries nothing from now on, and ends.
    pub(crate) fn refuse(&mut self, id: LinkId, now: Instant) {
        self.election.refuse(id, now);
    }

    /// Decides overdue contests, and closes links that have drained.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        let steps = self.election.handle_timeout(&self.links, now);
        self.perform(steps)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, apart from draining links.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.election.next_timeout()
    }

    fn perform(&self, steps: Vec<Step>) -> Vec<Change> {
        steps.into_iter().filter_map(|step| self.perform_one(step)).collect()
    }

    fn perform_one(&self, step: Step) -> Option<Change> {
        match step {
            Step::Select { link, number } => self.links.get(&link)?.send(&Frame::Select(number)),
            Step::Ping { link, nonce } => self.links.get(&link)?.send(&Frame::Ping(nonce)),
            Step::Close { link, code, why: election::RESTARTED } => {
                let restarted = Cause::other(EndReason::Restarted);
                self.links.get(&link)?.close_because(restarted, code, election::RESTARTED);
            }
            Step::Close { link, code, why } => self.links.get(&link)?.close(code, why),
            Step::SessionUp(link) => return Some(Change::SessionUp(link)),
            Step::SessionDown(peer) => return Some(Change::SessionDown(peer)),
            Step::DuplicateId { keeps, refused } => {
                let (kept, rival) = (self.links.get(&keeps)?, self.links.get(&refused)?);
                let (keeps, refused) = (process_at(kept), process_at(rival));
                // The first reason of a close is the one that is sent: this one names the other
                // process.
                rival.close(CloseCode::DuplicateId, &twin::refusal(&keeps));
                kept.send(&Frame::Twin(rival.instance, refused.place().to_owned()));
                return Some(Change::DuplicateId { node: rival.peer.clone(), keeps, refused });
            }
        }
        None
    }

    /// Ends every link once its neighbour has read what was sent.
    pub(crate) fn finish(&mut self) {
        self.links.values_mut().for_each(Link::finish);
    }

    /// Records the neighbours' addresses, and notifies those that have moved. Returns whether any
    /// has.
    pub(crate) fn follow_addresses(&mut self) -> bool {
        let mut moved = false;
        for link in self.links.values_mut() {
            let remote = link.connection.remote_address();
            let carried = carrier::is_carrier(remote) || link.carrier() != Carrier::Udp;
            if overlay::node_addr(remote).is_some() || carried {
                // A link travels on the real network, and one in a carrier stays there; a neighbour
                // that moves it elsewhere is not followed.
                continue;
            }
            if remote != link.remote {
                moved = true;
                link.remote = remote;
                link.send(&Frame::Observed(SocketAddr::new(
                    remote.ip().to_canonical(),
                    remote.port(),
                )));
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

    /// Samples the round trips of the links in use, and returns the neighbours whose link cost has
    /// changed.
    pub(crate) fn measure(&mut self, now: Instant) -> Vec<(NodeId, Cost)> {
        let (election, links) = (&self.election, &mut self.links);
        let measure = |link: &mut Link| {
            let active = election.phase(link.id) == Some(Phase::Active);
            let measured = link.measured.as_mut().filter(|_| active)?;
            link.cost = measured.on_sample(link.connection.rtt(), now)?;
            Some((link.peer.clone(), link.cost))
        };
        links.values_mut().filter_map(measure).collect()
    }
}
