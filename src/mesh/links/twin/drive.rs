//! What the driver does about duplicate ids.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{hex, keeper, process, reported};
use crate::mesh::driver::{Driver, Role};
use crate::mesh::report::events::Event;
use crate::mesh::report::log::LogKind;
use crate::mesh::report::status::ProcessStatus;
use crate::router::Duplicate;
use crate::transport::code::CloseCode;

/// How long the neighbours have to take the last record of a node that yields.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why links and peer connections of a node that yields are closed.
const WHY: &str = "another live node has this id, and keeps it";

impl Driver {
    /// A neighbour has refused a second process with this node's id.
    pub(crate) fn on_twin_refused(
        &mut self,
        instance: u64,
        address: &str,
        seen_at: std::net::SocketAddr,
    ) {
        let other = reported(instance, address);
        if self.twin.note(&other, false) {
            let own = self.own_process(seen_at);
            if self.logs.admit(LogKind::Conflict, &self.id) {
                warn!(node = %self.id, refused = other.place(), "a second live node with this id was refused by a neighbour");
            }
            self.emit(Event::DuplicateId {
                node: self.id.clone(),
                keeps: own,
                yields: other,
                yielded: false,
            });
        }
    }

    /// A link of this node has ended. If the neighbour refused it because another process has the
    /// id, that is reported.
    pub(crate) fn on_refused_as_twin(
        &mut self,
        why: &quinn::ConnectionError,
        seen_at: std::net::SocketAddr,
    ) {
        let quinn::ConnectionError::ApplicationClosed(close) = why else { return };
        if close.error_code != CloseCode::DuplicateId.to_quic() || self.yielded.is_some() {
            return;
        }
        let unknown = || ProcessStatus { instance: String::new(), address: None };
        let other = keeper(&close.reason).unwrap_or_else(unknown);
        if self.twin.note(&other, true) {
            let own = self.own_process(seen_at);
            if self.logs.admit(LogKind::Conflict, &self.id) {
                warn!(
                    node = %self.id,
                    keeps = other.place(),
                    "refused by a neighbour: another live node has this id; trying again until it is gone"
                );
            }
            self.emit(Event::DuplicateId {
                node: self.id.clone(),
                keeps: other,
                yields: own,
                yielded: false,
            });
        }
    }

    fn own_process(&self, seen_at: std::net::SocketAddr) -> ProcessStatus {
        let seen_at = std::net::SocketAddr::new(seen_at.ip().to_canonical(), seen_at.port());
        ProcessStatus { instance: hex(self.start.instance), address: Some(seen_at.to_string()) }
    }

    /// The router has proven that another process is alive, and said which of the two yields.
    pub(crate) fn on_duplicate(&mut self, duplicate: &Duplicate, now: Instant) {
        let (own, other) = (process(&duplicate.own), process(&duplicate.other));
        let (keeps, yields) = if duplicate.yields { (other, own) } else { (own, other) };
        // A node that yields says so in any case, and only once.
        if self.logs.admit(LogKind::Conflict, &self.id) || duplicate.yields {
            warn!(
                node = %self.id,
                keeps = keeps.place(),
                yields = yields.place(),
                this_node_yields = duplicate.yields,
                "two live nodes have this id; stop one of the two, or give it another id"
            );
        }
        if duplicate.yields {
            self.yielded = Some(now + FAREWELL);
            self.peers.close_now(CloseCode::DuplicateId, WHY);
        }
        self.changed = true;
        self.emit(Event::DuplicateId {
            node: self.id.clone(),
            keeps,
            yields,
            yielded: duplicate.yields,
        });
    }

    /// Closes the links of a node that has yielded, once its neighbours have had the time to take
    /// its last record.
    pub(crate) fn close_if_yielded(&self, now: Instant) {
        if self.yielded.is_some_and(|at| at <= now) {
            self.neighbours
                .links()
                .values()
                .for_each(|link| link.close(CloseCode::DuplicateId, WHY));
        }
    }

    /// Where the process is that this one has yielded to.
    pub(crate) fn yielded_to(&self) -> Option<String> {
        let Role::Full(router) = &self.role else { return None };
        let duplicate = router.duplicate().filter(|duplicate| duplicate.yields)?;
        Some(process(&duplicate.other).place().to_owned())
    }
}
