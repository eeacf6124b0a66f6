//! The services that a node offers, and the streams that come in for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::debug;

use super::at_once::at_once;
use super::datagram::DatagramListeners;
use super::open::{ACCEPTED, OpenHeader, Parsed, RefuseCode, RefusedOpen};
use super::stream::{Stream, Usage};
use crate::id::{NodeId, ServiceName};
use crate::transport::code::StreamCode;

/// Streams that wait for one service to accept them, at most; more are refused as overloaded.
pub const MAX_WAITING: usize = 1_024;
/// Services that a node offers, at most.
pub const MAX_SERVICES: usize = 1_024;
/// How long a stream may take to say what it is for.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The services by name; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    state: Arc<Mutex<State>>,
    /// Whether no more streams are accepted.
    leaving: Arc<AtomicBool>,
    /// Those that take datagrams.
    pub(crate) datagrams: DatagramListeners,
}

#[derive(Debug, Default)]
struct State {
    offered: BTreeMap<ServiceName, mpsc::Sender<Incoming>>,
}

/// A stream that came in for a service.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The node at the other end, as its certificate says.
    pub peer: NodeId,
    /// How long it will wait, where it said so.
    pub deadline: Option<Duration>,
    /// The stream.
    pub stream: Stream,
}

/// What a stream asked for. Kept for the next one, which mostly asks for the same: that needs no lock, and no look at the name.
pub(crate) struct Asked {
    /// The whole header.
    header: Bytes,
    deadline: Option<Duration>,
    service: mpsc::Sender<Incoming>,
}

impl Asked {
    /// Whether a stream that begins like this asks for the same; not once the service has been withdrawn.
    fn is(&self, came: &Bytes) -> bool {
        came.starts_with(&self.header) && !self.service.is_closed()
    }

    /// A place in the service's queue, unless it is full or the node leaves.
    fn place(&self, services: &Services) -> Option<mpsc::Permit<'_, Incoming>> {
        if services.leaving.load(Ordering::Relaxed) {
            return None;
        }
        self.service.try_reserve().ok()
    }
}

/// Takes the streams that come in for one service. Dropped, it withdraws the service; streams that wait are reset.
#[derive(Debug)]
pub struct Listener {
    name: ServiceName,
    incoming: mpsc::Receiver<Incoming>,
    services: Services,
}

impl Listener {
    /// The next stream; `None` once the node is shut down. Cancel safe.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// The service.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.services.lock().offered.remove(&self.name);
    }
}

/// Why a service cannot be offered. The caller's fault; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The node offers it already.
    #[error("the service {0} is offered already")]
    Taken(ServiceName),
    /// The node offers [`MAX_SERVICES`].
    #[error("a node offers at most {MAX_SERVICES} services")]
    TooMany,
    /// The node is shut down.
    #[error("this node is shut down")]
    ShutDown,
}

/// The answer to the header of a stream that is accepted.
fn acceptance() -> Bytes {
    Bytes::from_static(&[ACCEPTED])
}

/// Sends a refusal, and waits until it has arrived: it is lost if the stream is dropped before.
async fn refuse(send: &mut quinn::SendStream, code: RefuseCode) {
    if send.write_all(&RefusedOpen::new(code).encode()).await.is_ok() && send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}

impl Services {
    pub(crate) fn offer(&self, name: ServiceName) -> Result<Listener, ServeError> {
        let mut state = self.lock();
        if self.leaving.load(Ordering::Relaxed) {
            return Err(ServeError::ShutDown);
        }
        if state.offered.contains_key(&name) {
            return Err(ServeError::Taken(name));
        }
        if state.offered.len() >= MAX_SERVICES {
            return Err(ServeError::TooMany);
        }
        let (sender, incoming) = mpsc::channel(MAX_WAITING);
        state.offered.insert(name.clone(), sender);
        Ok(Listener { name, incoming, services: self.clone() })
    }

    pub(crate) fn names(&self) -> Vec<ServiceName> {
        self.lock().offered.keys().cloned().collect()
    }

    /// Accepts no more streams.
    pub(crate) fn leave(&self) {
        // Under the lock, so that nothing is offered afterwards.
        let _state = self.lock();
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Ends every listener.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        self.leaving.store(true, Ordering::Relaxed);
        state.offered.clear();
        self.datagrams.close();
    }

    /// Hands a stream that `peer` opened to the service that it asks for, if all that this takes is there; it mostly is. Else gives
    /// it back for [`dispatch`](Self::dispatch), with what was read of it. `last` is what the stream before it asked for: mostly
    /// the same.
    pub(crate) async fn dispatch_at_once(
        &self,
        peer: &NodeId,
        (mut send, mut recv): (quinn::SendStream, quinn::RecvStream),
        usage: &Usage,
        last: &mut Option<Asked>,
    ) -> Option<(quinn::SendStream, quinn::RecvStream, Bytes)> {
        let Some(Ok(Some(chunk))) = at_once(recv.read_chunk(usize::MAX, true)).await else {
            return Some((send, recv, Bytes::new()));
        };
        let came = chunk.bytes;
        if !last.as_ref().is_some_and(|last| last.is(&came)) {
            *last = self.find(&came);
        }
        let Some((found, place)) = last.as_ref().and_then(|found| Some((found, found.place(self)?))) else {
            return Some((send, recv, came));
        };
        if !matches!(at_once(send.write_chunk(acceptance())).await, Some(Ok(()))) {
            return Some((send, recv, came));
        }
        let rest = came.slice(found.header.len()..);
        let stream = Stream::new(send, recv).with_first(rest).leased(usage.lease());
        place.send(Incoming { peer: peer.clone(), deadline: found.deadline, stream });
        None
    }

    /// What the header at the start of a stream asks for, if it is all there, and the service is offered.
    fn find(&self, came: &Bytes) -> Option<Asked> {
        let Parsed::Header(Ok(header), rest) = OpenHeader::parse(came) else { return None };
        let service = self.lock().offered.get(&header.service)?.clone();
        // A copy, since what came shares the memory of many packets.
        let bytes = Bytes::copy_from_slice(&came[..came.len() - rest.len()]);
        Some(Asked { header: bytes, deadline: header.deadline, service })
    }

    /// Hands a stream that `peer` opened to the service that it asks for, or refuses it. `came` was read of it already.
    pub(crate) async fn dispatch(
        self,
        peer: NodeId,
        (mut send, mut recv, came): (quinn::SendStream, quinn::RecvStream, Bytes),
        usage: Arc<Usage>,
    ) {
        let reading = tokio::time::timeout(HEADER_TIMEOUT, OpenHeader::read(came, &mut recv));
        let Ok(Some((header, rest))) = reading.await else {
            debug!(%peer, "a stream did not say what it is for");
            let _ = send.reset(StreamCode::BadHeader.to_quic());
            let _ = recv.stop(StreamCode::BadHeader.to_quic());
            return;
        };
        let place = header.and_then(|header| Ok((self.place(&header.service)?, header)));
        let (place, header) = match place {
            Ok(placed) => placed,
            Err(code) => {
                debug!(%peer, %code, "refused a stream");
                let refused = refuse(&mut send, code);
                // A peer that gives no room for the answer does without it.
                let _ = tokio::time::timeout(HEADER_TIMEOUT, refused).await;
                let _ = recv.stop(StreamCode::Refused.to_quic());
                return;
            }
        };
        let accepted = tokio::time::timeout(HEADER_TIMEOUT, send.write_chunk(acceptance())).await;
        if matches!(accepted, Ok(Ok(()))) {
            let stream = Stream::new(send, recv).with_first(rest).leased(usage.lease());
            place.send(Incoming { peer, deadline: header.deadline, stream });
        }
    }

    fn place(&self, service: &ServiceName) -> Result<mpsc::OwnedPermit<Incoming>, RefuseCode> {
        let state = self.lock();
        if self.leaving.load(Ordering::Relaxed) {
            return Err(RefuseCode::Leaving);
        }
        let sender = state.offered.get(service).ok_or(RefuseCode::UnknownService)?;
        sender.clone().try_reserve_owned().map_err(|_| RefuseCode::Overloaded)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change behind the lock is one step, so a panic elsewhere has not spoilt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
