//! What the driver does when the network changes.

use std::net::IpAddr;
use std::time::Instant;

use tracing::info;

use super::MAX_ASKED_AT_ONCE;
use super::checks::Checks;
use crate::mesh::driver::Driver;
use crate::mesh::links::dialling::peer_addr::Carrier;
use crate::mesh::links::id::LinkId;
use crate::mesh::report::events::Event;
use crate::mesh::report::log::LogKind;
use crate::transport::frame::Frame;

impl Driver {
    /// Asks every link whether it still works.
    pub(crate) fn network_changed(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        self.roaming.moves += 1;
        self.paths_follow_network(now);
        self.roaming.addresses.clone_from(&addresses);
        // What was begun before the change may be on its way to nowhere.
        self.roaming.redials.abort_all();
        self.roaming.checks = Checks::default();
        self.roaming.unasked = self.neighbours.links().keys().copied().collect();
        self.roaming.changed_at = now;
        self.ask_links(now);
        self.emit(Event::NetworkChanged { addresses });
    }

    /// Pings the next links that were not asked since the network changed.
    pub(crate) fn ask_links(&mut self, now: Instant) {
        let batch = self.roaming.unasked.len().min(MAX_ASKED_AT_ONCE);
        for id in self.roaming.unasked.drain(..batch).collect::<Vec<_>>() {
            let nonce = self.neighbours.next_id().0;
            let Some(link) = self.neighbours.link(id) else { continue };
            link.send(&Frame::Ping(nonce));
            self.roaming.checks.asked(id, nonce, link.connection.rtt(), now);
        }
    }

    /// A link has ended.
    pub(crate) fn forget_link_check(&mut self, id: LinkId) {
        self.roaming.checks.ended(id);
    }

    /// A ping was answered.
    pub(crate) fn link_answered(&mut self, id: LinkId, nonce: u64) {
        self.roaming.checks.answered(id, nonce);
    }

    /// Dials those beside themselves that did not answer in time.
    pub(crate) fn redial_silent_links(&mut self, now: Instant) {
        while let Some(id) = self.roaming.checks.pop_overdue(now) {
            let Some(link) = self.neighbours.link(id) else { continue };
            // A carrier that does not answer ends with its TCP connection; its dialler opens another.
            let carried = link.carrier() != Carrier::Udp;
            if link.connection.close_reason().is_some() || self.leaving || carried {
                continue;
            }
            let (peer, address) = (link.peer.clone(), link.remote);
            if self.logs.admit(LogKind::Link, &peer) {
                info!(%peer, %address, "no answer since the network changed; dialling again");
            }
            self.roaming.redial(peer, address);
        }
    }
}
