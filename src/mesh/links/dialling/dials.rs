//! The configured peers, and the tasks that keep links to them.

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use super::dialler::{Dialled, Dialler};
use super::peer_addr::PeerAddr;
use crate::sync::lock;

/// The configured peers and how their dials go, as status and those who wait for a link see them.
#[derive(Clone, Debug, Default)]
pub(crate) struct DialledPeers(Arc<Mutex<Vec<Dialled>>>);

impl DialledPeers {
    /// The peers as they are now.
    pub(crate) fn list(&self) -> Vec<Dialled> {
        lock(&self.0).clone()
    }
}

/// The tasks that keep links to the configured peers.
pub(crate) struct Dials {
    dialler: Dialler,
    span: Span,
    peers: DialledPeers,
    /// What stops each task; in the order of `peers`.
    stops: Vec<oneshot::Sender<()>>,
}

impl Dials {
    /// Starts to dial these peers; tasks log in `span`.
    pub(crate) fn start(dialler: Dialler, span: Span, peers: Vec<PeerAddr>) -> Self {
        let mut dials = Self { dialler, span, peers: DialledPeers::default(), stops: Vec::new() };
        peers.into_iter().for_each(|peer| dials.add(peer));
        dials
    }

    /// The peers, for those who look at them only.
    pub(crate) fn peers(&self) -> DialledPeers {
        self.peers.clone()
    }

    /// Dials these peers from now on, each once. Those that were dialled before are not disturbed;
    /// links of others, where this node had dialled, are closed.
    pub(crate) fn set(&mut self, wanted: Vec<PeerAddr>) {
        let mut kept = Vec::new();
        for (dialled, stop) in self.peers.list().into_iter().zip(std::mem::take(&mut self.stops)) {
            let known = |(kept, _): &(Dialled, _)| kept.peer == dialled.peer;
            if wanted.contains(&dialled.peer) && !kept.iter().any(known) {
                kept.push((dialled, stop));
            } else {
                // A task that has ended, since the node leaves, needs no stop.
                let _ = stop.send(());
            }
        }
        let (peers, stops): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        *lock(&self.peers.0) = peers;
        self.stops = stops;
        for peer in wanted {
            if !lock(&self.peers.0).iter().any(|dialled| dialled.peer == peer) {
                self.add(peer);
            }
        }
    }

    fn add(&mut self, peer: PeerAddr) {
        let dialled = Dialled::new(peer);
        let (stop, stopped) = oneshot::channel();
        let task = self.dialler.clone().keep_linked_until(dialled.clone(), stopped);
        tokio::spawn(task.instrument(self.span.clone()));
        lock(&self.peers.0).push(dialled);
        self.stops.push(stop);
    }
}
