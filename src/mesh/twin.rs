//! Another live process has this node's id: what the router proved is told, and a node that yields withdraws to silence.
//!
//! ```text
//!   proof ─▶ warning, event, status ──yields──▶ streams fail, no more dialling ─(a second)─▶ links close with duplicate-id
//! ```

use std::time::{Duration, Instant};

use tracing::warn;

use super::driver::{Driver, Role};
use super::events::Event;
use super::link::Link;
use super::status::{DuplicateStatus, ProcessStatus};
use crate::router::{Duplicate, Process, Router};
use crate::transport::code::CloseCode;

/// How long the neighbours have to take the last record of a node that yields.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why links and peer connections of a node that yields are closed.
const WHY: &str = "another live node has this id, and keeps it";

impl Driver {
    /// The router has proven that another process is alive, and said which of the two yields.
    pub(super) fn on_duplicate(&mut self, duplicate: &Duplicate, now: Instant) {
        let (own, other) = (process(&duplicate.own), process(&duplicate.other));
        let (keeps, yields) = if duplicate.yields { (other, own) } else { (own, other) };
        warn!(
            node = %self.id,
            keeps = keeps.place(),
            yields = yields.place(),
            this_node_yields = duplicate.yields,
            "two live nodes have this id; stop one of the two, or give it another id"
        );
        if duplicate.yields {
            self.yielded = Some(now + FAREWELL);
            self.peers.close_now(CloseCode::DuplicateId, WHY);
        }
        self.changed = true;
        self.emit(Event::DuplicateId { node: self.id.clone(), keeps, yields, yielded: duplicate.yields });
    }

    /// Closes the links of a node that has yielded, once its neighbours have had the time to take its last record.
    pub(super) fn close_if_yielded(&self, now: Instant) {
        if self.yielded.is_some_and(|at| at <= now) {
            self.neighbours.links().values().for_each(|link| link.close(CloseCode::DuplicateId, WHY));
        }
    }

    /// Where the process is that this one has yielded to.
    pub(super) fn yielded_to(&self) -> Option<String> {
        let Role::Full(router) = &self.role else { return None };
        let duplicate = router.duplicate().filter(|duplicate| duplicate.yields)?;
        Some(process(&duplicate.other).place().to_owned())
    }
}

/// What status shows.
pub(super) fn status(router: &Router) -> Option<DuplicateStatus> {
    let duplicate = router.duplicate()?;
    let ProcessStatus { instance, address } = process(&duplicate.other);
    Some(DuplicateStatus { instance, address, yielded: duplicate.yields })
}

/// The process at the other end of a link.
pub(super) fn process_at(link: &Link) -> ProcessStatus {
    let remote = std::net::SocketAddr::new(link.remote.ip().to_canonical(), link.remote.port());
    ProcessStatus { instance: hex(link.instance), address: Some(remote.to_string()) }
}

fn process(process: &Process) -> ProcessStatus {
    // The place may be another node's word: nothing in it is to steer a terminal.
    let place = process.place.escape_debug().to_string();
    ProcessStatus { instance: hex(process.instance), address: Some(place).filter(|place| !place.is_empty()) }
}

fn hex(instance: u64) -> String {
    format!("{instance:016x}")
}

impl ProcessStatus {
    /// Where the process is, for people.
    pub(super) fn place(&self) -> &str {
        self.address.as_deref().unwrap_or("an unknown address")
    }
}
