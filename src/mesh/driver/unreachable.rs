//! What the driver does with reports that packets did not arrive: see
//! [`doubt`](crate::mesh::peers::doubt) for the rules.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc};
use tracing::{debug, warn};

use super::Driver;
use crate::mesh::input::{Input, UnreachableAddrs};
use crate::mesh::links::link::Link;
use crate::mesh::peers::doubt::{Due, Report};
use crate::mesh::report::log::LogKind;
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;
use crate::transport::renewable::Renewable;
use crate::transport::unreachable::Unreachable;

/// How long reports are gathered before the driver gets the next ones: it goes through all links
/// for each batch.
const GATHER: Duration = Duration::from_millis(20);
/// The maximum number of addresses in one batch. Further reports are dropped; what is still true is
/// reported again.
const MAX_BATCH: usize = 4_096;

/// Passes reports on to the driver until it has gone: at once if there was none for a while, else
/// in batches.
pub(crate) async fn follow_reports(
    mut reports: broadcast::Receiver<Unreachable>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        let first = tokio::select! {
            biased;
            () = inputs.closed() => return,
            first = reports.recv() => first,
        };
        let mut batch = UnreachableAddrs::new();
        match first {
            Ok(first) => add(&mut batch, first),
            // What was missed is made up for by the next reports.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
        while batch.len() < MAX_BATCH
            && let Ok(next) = reports.try_recv()
        {
            add(&mut batch, next);
        }
        if !batch.is_empty() && inputs.send(Input::Unreachable(batch)).await.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// A link is not doubted for what is wrong with this machine's own routes: they come back, or the
/// idle timeout ends it.
fn add(batch: &mut UnreachableAddrs, Unreachable { to, why }: Unreachable) {
    if why.is_remote() {
        // Of several reasons the one that says most.
        batch.entry(to).and_modify(|known| *known = why.min(*known)).or_insert(why);
    }
}

/// Reports what ICMP says about a socket's packets until the driver has gone.
pub(crate) async fn read_icmp(socket: Arc<Renewable>, inputs: mpsc::Sender<Input>) {
    tokio::select! {
        biased;
        () = inputs.closed() => {}
        ended = socket.report_icmp() => {
            if let Err(error) = ended {
                debug!(%error, "ICMP errors are no longer read");
            }
        }
    }
}

impl Driver {
    /// Asks the links and direct paths to addresses that are reported as unreachable.
    pub(crate) fn unreachable(&mut self, addrs: &UnreachableAddrs, now: Instant) {
        self.paths.unreachable(addrs, now);
        let report = |link: &Link| {
            let at = SocketAddr::new(link.remote.ip().to_canonical(), link.remote.port());
            let why = *addrs.get(&at)?;
            Some(Report { link: link.id, why, rtt: link.connection.rtt(), acks: acks(link) })
        };
        let reports: Vec<_> = self.neighbours.links().values().filter_map(report).collect();
        for report in reports {
            // The first ping is due at once: `decide_doubts` sends it.
            let nonce = self.neighbours.next_id().0;
            if self.doubts.reported(report, nonce, now)
                && let Some(link) = self.neighbours.link(report.link)
            {
                debug!(peer = %link.peer, address = %link.remote, why = %report.why, "reported as unreachable; pinging");
            }
        }
    }

    /// Pings doubted links, and closes those that stayed silent.
    pub(crate) fn decide_doubts(&mut self, now: Instant) {
        let neighbours = &self.neighbours;
        for due in self.doubts.handle_timeout(now, |id| neighbours.link(id).map(acks)) {
            match due {
                Due::Ping { link, nonce } => {
                    if let Some(link) = neighbours.link(link) {
                        link.send(&Frame::Ping(nonce));
                    }
                }
                Due::Silent { link } => {
                    let Some(link) = neighbours.link(link) else { continue };
                    if link.connection.close_reason().is_none() {
                        if self.logs.admit(LogKind::Closed, &link.peer) {
                            warn!(peer = %link.peer, address = %link.remote, "reported as unreachable, and does not answer");
                        }
                        link.close(
                            CloseCode::Unreachable,
                            "reported as unreachable, and does not answer",
                        );
                    }
                }
            }
        }
    }
}

/// The acknowledgements received on a link, which only its peer can have sent.
fn acks(link: &Link) -> u64 {
    link.connection.stats().frame_rx.acks
}
