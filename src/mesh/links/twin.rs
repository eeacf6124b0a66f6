//! Another live process has this node's id: what the router has proven is reported, and a node that
//! yields withdraws to silence. A neighbour that both processes link to refuses the second one, and
//! reports that to both; the second one tries again until the first is gone.
//!
//! ```text
//!   proof ─▶ warning, event, status ──yields──▶ streams fail, no more dialling ─(a second)─▶ links close with duplicate-id
//! ```

mod drive;

use std::collections::VecDeque;

use super::link::Link;
use crate::mesh::report::status::{DuplicateStatus, ProcessStatus};
use crate::router::{Process, Router};

/// How the reason begins with which a neighbour refuses a second process; the process that keeps
/// the id follows.
const REFUSED: &str = "another live node has this id: instance ";

/// The longest address that is shown, in bytes.
const MAX_ADDRESS: usize = 64;

/// Other processes that are remembered to have been reported.
const MAX_REPORTED: usize = 16;

/// The other processes that neighbours have reported.
#[derive(Debug, Default)]
pub(crate) struct ReportedTwin {
    last: Option<DuplicateStatus>,
    /// By instance, and whether this node was the one that was refused; the oldest first.
    reported: VecDeque<(String, bool)>,
}

impl ReportedTwin {
    /// Notes a report. Returns whether it is news.
    fn note(&mut self, other: &ProcessStatus, refused: bool) -> bool {
        let ProcessStatus { instance, address } = other.clone();
        self.last = Some(DuplicateStatus { instance, address, yielded: false, refused });
        // The address may change with each attempt.
        let report = (other.instance.clone(), refused);
        if self.reported.contains(&report) {
            return false;
        }
        if self.reported.len() == MAX_REPORTED {
            self.reported.pop_front();
        }
        self.reported.push_back(report);
        true
    }

    /// A neighbour has accepted this node's link: it is no longer refused.
    pub(crate) fn accepted(&mut self) {
        if self.last.take_if(|twin| twin.refused).is_some() {
            self.reported.retain(|(_, refused)| !refused);
        }
    }

    pub(crate) fn status(&self) -> Option<DuplicateStatus> {
        self.last.clone()
    }
}

/// The reason with which a second process is refused, of the one that keeps the id.
pub(crate) fn refusal(keeps: &ProcessStatus) -> String {
    format!("{REFUSED}{} at {}", keeps.instance, keeps.place())
}

/// The process that keeps the id, out of such a reason. Another node's words: nothing in it is to
/// steer a terminal.
fn keeper(reason: &[u8]) -> Option<ProcessStatus> {
    let text = std::str::from_utf8(reason).ok()?.strip_prefix(REFUSED)?;
    let (instance, address) = text.split_once(" at ")?;
    let instance = u64::from_str_radix(instance, 16).ok().filter(|_| instance.len() == 16)?;
    Some(reported(instance, address))
}

/// A process as another node has reported it.
fn reported(instance: u64, address: &str) -> ProcessStatus {
    let shown =
        address.parse::<std::net::SocketAddr>().ok().filter(|_| address.len() <= MAX_ADDRESS);
    ProcessStatus { instance: hex(instance), address: shown.map(|address| address.to_string()) }
}

/// What status shows.
pub(crate) fn status(router: &Router) -> Option<DuplicateStatus> {
    let duplicate = router.duplicate()?;
    let ProcessStatus { instance, address } = process(&duplicate.other);
    Some(DuplicateStatus { instance, address, yielded: duplicate.yields, refused: false })
}

/// The process at the other end of a link.
pub(crate) fn process_at(link: &Link) -> ProcessStatus {
    ProcessStatus { instance: hex(link.instance), address: Some(link.address().to_string()) }
}

fn process(process: &Process) -> ProcessStatus {
    // The place may be another node's word: nothing in it is to steer a terminal.
    let place = process.place.escape_debug().to_string();
    ProcessStatus {
        instance: hex(process.instance),
        address: Some(place).filter(|place| !place.is_empty()),
    }
}

fn hex(instance: u64) -> String {
    format!("{instance:016x}")
}

impl ProcessStatus {
    /// Where the process is, for people.
    pub(crate) fn place(&self) -> &str {
        self.address.as_deref().unwrap_or("an unknown address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_process_reads_who_keeps_the_id() {
        let keeps = ProcessStatus { instance: hex(0xabc), address: Some("192.0.2.1:7".to_owned()) };
        assert_eq!(keeper(refusal(&keeps).as_bytes()), Some(keeps));
        let nowhere = ProcessStatus { instance: hex(1), address: None };
        assert_eq!(keeper(refusal(&nowhere).as_bytes()), Some(nowhere));
        let forged = format!("{REFUSED}{} at \u{1b}[2J", hex(1));
        assert_eq!(keeper(forged.as_bytes()).unwrap().address, None);
        for other in [
            &b"another live node has this id"[..],
            b"",
            b"another live node has this id: instance 7 at x",
        ] {
            assert_eq!(keeper(other), None);
        }
    }

    #[test]
    fn a_report_is_news_once_and_over_when_a_neighbour_accepts_the_node() {
        let process = |n| ProcessStatus { instance: hex(n), address: None };
        let mut twin = ReportedTwin::default();
        assert!(twin.note(&process(1), true));
        assert!(!twin.note(&process(1), true));
        assert!(twin.note(&process(2), true));
        assert!(!twin.note(&process(1), true));
        assert!(twin.status().unwrap().refused);
        twin.accepted();
        assert_eq!(twin.status(), None);
        assert!(twin.note(&process(2), false));
        twin.accepted();
        assert!(twin.status().is_some());
    }
}
