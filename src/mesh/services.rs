//! The services that a node offers, and the streams that come in for them.

pub(crate) mod at_once;
pub(crate) mod callers;
pub(crate) mod certificate;
pub(crate) mod connection;
pub(crate) mod credit;
pub(crate) mod datagrams;
pub(crate) mod ending;
pub(crate) mod fair;
pub(crate) mod open_streams;
pub(crate) mod opening;
pub(crate) mod patience;
pub(crate) mod serve_error;
pub(crate) mod stream;
pub(crate) mod usage;
pub(crate) mod windows;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::debug;

use self::at_once::at_once;
use self::callers::{CallerCount, Callers, Counted};
use self::connection::FirstCause;
use self::credit::StreamCredit;
use self::open_streams::OpenStreams;
use self::serve_error::{MAX_SERVICES, ServeError};
use self::stream::Stream;
use self::usage::{StreamLease, Usage};
use crate::id::{NodeId, ServiceName};
use crate::mesh::access::connection::{Access, NotAllowed};
use crate::mesh::access::grant::Grant;
use crate::mesh::services::datagrams::datagram::DatagramListeners;
use crate::mesh::services::opening::open::{OpenHeader, OpenOptions, Parsed};
use crate::mesh::services::opening::refuse::{ACCEPTED, RefuseCode, RefusedOpen};
use crate::mesh::services::windows::receive_window::ReceiveBudget;
use crate::mesh::services::windows::send_window::SendBudget;
use crate::policy::Action;
use crate::sync::lock;
use crate::transport::code::StreamCode;
use crate::transport::settings::{MAX_INCOMING_STREAMS, ReceiveLimits};

/// Maximum number of streams that wait for one service to accept them. Further ones are refused as
/// [`RefuseCode::Overloaded`] within 100 ms. It is a quarter of what one node may have open, so
/// that a service that is not drained does not use up the credit of its callers.
///
/// One caller may hold three quarters of them while no other caller waits, and fewer otherwise.
/// More wait in line, first come, first served, and are refused as [`RefuseCode::CallerLimit`]
/// after the same 100 ms. Ephemerals that share a certificate count as one caller.
pub const MAX_WAITING: usize = 256;
/// How long a stream waits for room in the queue of its service. A burst arrives faster than the
/// service's task is scheduled; a service that has not accepted anything for this long is not being
/// drained.
const QUEUE_GRACE: Duration = Duration::from_millis(100);
/// How often the streams of a connection pause for the service's task when their share of its queue
/// is used up. A burst that a running service keeps up with then needs neither a task nor a timer
/// for each stream.
const ACCEPT_YIELDS: usize = 2;
/// Incoming streams of one link, or of all connections with one peer, that may keep the packet
/// batches they arrived in: 8 MiB if none of them is read. Beyond this, payload that follows a
/// header is copied. Ephemerals that share a certificate are counted each for itself.
const SHARING_STREAMS: usize = 128;
/// How long a stream may take to say what it is for.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The services by name; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    state: Arc<Mutex<State>>,
    /// Whether no more streams are accepted.
    leaving: Arc<AtomicBool>,
    overloads: Arc<AtomicU64>,
    /// The streams that are in use, those that this node has opened included.
    pub(crate) open_streams: OpenStreams,
    /// Those that take datagrams.
    pub(crate) datagrams: DatagramListeners,
    /// How many bytes may wait to be read.
    pub(crate) windows: ReceiveBudget,
    /// What its connections may have sent without an acknowledgement.
    pub(crate) send_windows: SendBudget,
}

#[derive(Debug, Default)]
struct State {
    offered: BTreeMap<ServiceName, Offered>,
}

/// A service that is offered.
#[derive(Clone, Debug)]
struct Offered {
    queue: mpsc::Sender<Queued>,
    callers: Arc<Callers>,
    /// Whether it accepts streams beyond [`MAX_INCOMING_STREAMS`], because it bounds its work
    /// itself and serves the built-in directives.
    reserved: bool,
    admission: Admission,
}

/// Who decides whether a stream is accepted.
#[derive(Clone)]
pub(crate) enum Admission {
    /// Every stream is.
    Everybody,
    /// Every stream is, whatever the policy: the node judges what comes on it.
    Own,
    /// This function does.
    If(Arc<Permit>),
    /// The application does, when it has the stream.
    Later,
}

/// Whether streams of a caller are accepted.
type Permit = dyn Fn(&NodeId) -> Result<(), RefusedOpen> + Send + Sync;

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Everybody => "Everybody",
            Self::Own => "Own",
            Self::If(_) => "If",
            Self::Later => "Later",
        })
    }
}

impl Offered {
    /// Whether the application accepts this caller's streams.
    fn permits(&self, caller: &NodeId) -> Result<(), RefusedOpen> {
        match &self.admission {
            Admission::If(permit) => permit(caller),
            Admission::Everybody | Admission::Own | Admission::Later => Ok(()),
        }
    }

    /// Whether the policy allows a caller to open streams to this service. `None` if what comes on
    /// them is judged instead.
    fn allows(
        &self,
        name: &ServiceName,
        access: &Access,
    ) -> Result<Option<Arc<Grant>>, NotAllowed> {
        match &self.admission {
            Admission::Own => Ok(None),
            Admission::Everybody | Admission::If(_) | Admission::Later => {
                access.allow(&Action::open(name)).map(Some)
            }
        }
    }

    /// Whether the acceptance is sent before the application has the stream.
    fn accepts_at_once(&self) -> bool {
        !matches!(self.admission, Admission::Later)
    }

    /// Whether a caller with this many streams here may have one more.
    fn admits(&self, usage: &Usage) -> bool {
        self.reserved || usage.incoming_streams() <= MAX_INCOMING_STREAMS
    }

    /// Whether a caller may have another stream in the queue beside those of others.
    fn shares(&self, caller: &CallerCount) -> bool {
        fair::admits(caller.waiting(), MAX_WAITING - self.queue.capacity(), MAX_WAITING)
    }
}

/// A stream in the queue of a service.
#[derive(Debug)]
struct Queued {
    incoming: Incoming,
    /// Counts it among those of its caller until it is accepted.
    _counted: Counted,
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
    /// What the peer may do, for services of the node that judge what comes on the stream.
    pub(crate) access: Arc<Access>,
}

/// A stream that the other end opened, and what was read of it.
pub(crate) struct Opened {
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
    /// The record of its connection's end.
    pub(crate) first: FirstCause,
    /// Counts it from its first packet on: one whose header is late uses credit, too.
    pub(crate) lease: StreamLease,
    /// What its peer may do.
    pub(crate) access: Arc<Access>,
    pub(crate) came: Bytes,
}

impl Opened {
    fn stream(self, first: Bytes) -> Stream {
        Stream::new(self.send, self.recv, &self.first).with_first(first).leased(self.lease)
    }
}

/// What a stream asked for. Kept for the next one, which mostly asks for the same: that needs no
/// lock, and no look at the name.
pub(crate) struct Asked {
    /// The whole header.
    header: Bytes,
    options: OpenOptions,
    /// Whether the opener wants to be permitted more streams.
    wants_credit: bool,
    service: Offered,
    /// That the policy allows it; `None` if what comes on the stream is judged instead.
    grant: Option<Arc<Grant>>,
    caller: CallerCount,
}

impl Asked {
    /// Whether a stream that begins like this asks for the same; not once the service has been
    /// withdrawn, or is no longer allowed.
    fn is(&self, came: &Bytes) -> bool {
        came.starts_with(&self.header)
            && !self.service.queue.is_closed()
            && !self.grant.as_ref().is_some_and(|grant| grant.is_revoked())
    }

    /// A place in the service's queue; `None` if it is full, the caller has too many streams or is
    /// not permitted, or the node leaves.
    fn place(
        &self,
        peer: &NodeId,
        services: &Services,
        usage: &Usage,
    ) -> Option<mpsc::Permit<'_, Queued>> {
        let admitted = self.service.permits(peer).is_ok()
            && self.service.admits(usage)
            && !self.caller.has_line()
            && self.service.shares(&self.caller);
        if services.leaving.load(Ordering::Relaxed) || !admitted {
            return None;
        }
        self.service.queue.try_reserve().ok()
    }
}

/// A place in the queue of a service.
struct Placed {
    place: mpsc::OwnedPermit<Queued>,
    counted: Counted,
    /// Whether the stream is to be accepted before it takes the place.
    accept: bool,
    grant: Option<Arc<Grant>>,
}

/// Takes the streams that come in for one service. Dropped, it withdraws the service; streams that
/// wait are reset.
#[derive(Debug)]
pub struct Listener {
    name: ServiceName,
    incoming: mpsc::Receiver<Queued>,
    services: Services,
}

impl Listener {
    /// The next stream; `None` once the node is shut down. Cancel safe.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await.map(|queued| queued.incoming)
    }

    /// The service.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }
}

/// Yields what [`accept`](Listener::accept) returns.
impl futures_core::Stream for Listener {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.incoming.poll_recv(cx).map(|queued| Some(queued?.incoming))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.services.lock().offered.remove(&self.name);
    }
}

/// The payload that arrived with the header of a stream, to be held until the stream is read.
///
/// It shares a batch of packets of up to 64 KiB. Each of many unread streams could keep a batch of
/// its own, so a peer with more than [`SHARING_STREAMS`] gets copies.
fn kept(rest: Bytes, usage: &Usage) -> Bytes {
    if usage.incoming_streams() > SHARING_STREAMS { Bytes::copy_from_slice(&rest) } else { rest }
}

/// The answer to the header of a stream that is accepted.
fn acceptance() -> Bytes {
    Bytes::from_static(&[ACCEPTED])
}

/// Whether a stream can be served after this attempt to answer its header. An opener that wants no
/// answer, because it only sends, has stopped that direction; what it has sent is there all the
/// same.
fn is_accepted(answered: &Result<(), quinn::WriteError>) -> bool {
    matches!(answered, Ok(()) | Err(quinn::WriteError::Stopped(_)))
}

/// Sends a refusal, and waits until it has arrived: it is lost if the stream is dropped before.
async fn refuse(send: &mut quinn::SendStream, refused: &RefusedOpen) {
    if send.write_all(&refused.encode()).await.is_ok() && send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}

impl Services {
    /// No services yet.
    pub(crate) fn new(limits: ReceiveLimits) -> Self {
        Self {
            state: Arc::default(),
            leaving: Arc::default(),
            overloads: Arc::default(),
            open_streams: OpenStreams::default(),
            datagrams: DatagramListeners::default(),
            windows: ReceiveBudget::new(limits),
            send_windows: SendBudget::new(),
        }
    }

    /// Offers a service. One that is `reserved` accepts streams of callers who have no credit left
    /// for others.
    pub(crate) fn offer(
        &self,
        name: ServiceName,
        reserved: bool,
        admission: Admission,
    ) -> Result<Listener, ServeError> {
        let mut state = self.lock();
        if self.leaving.load(Ordering::Relaxed) {
            return Err(ServeError::ShutDown);
        }
        if state.offered.contains_key(&name) {
            return Err(ServeError::Taken(name));
        }
        // One is the node's own.
        if state.offered.len() > MAX_SERVICES {
            return Err(ServeError::TooMany);
        }
        let (queue, incoming) = mpsc::channel(MAX_WAITING);
        let offered = Offered { queue, callers: Arc::default(), reserved, admission };
        state.offered.insert(name.clone(), offered);
        Ok(Listener { name, incoming, services: self.clone() })
    }

    pub(crate) fn names(&self) -> Vec<ServiceName> {
        self.lock()
            .offered
            .keys()
            .filter(|name| name.as_str() != certificate::SERVICE)
            .cloned()
            .collect()
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

    /// Passes a stream that `peer` opened to the service that it asks for, if nothing has to be
    /// waited for. Otherwise returns it for [`dispatch`](Self::dispatch), with what was read of it.
    /// `last` is what the stream before it asked for, which is usually the same.
    pub(crate) async fn dispatch_at_once(
        &self,
        peer: &NodeId,
        mut opened: Opened,
        credit: &StreamCredit,
        last: &mut Option<Asked>,
    ) -> Option<Opened> {
        let Some(Ok(Some(chunk))) = at_once(opened.recv.read_chunk(usize::MAX, true)).await else {
            return Some(opened);
        };
        opened.came = chunk.bytes;
        if !last.as_ref().is_some_and(|last| last.is(&opened.came)) {
            *last = self.find(peer, &opened.came, &opened.access);
        }
        let Some(found) = last.as_ref() else { return Some(opened) };
        let mut place = found.place(peer, self, credit.usage());
        for _ in 0..ACCEPT_YIELDS {
            if place.is_some() {
                break;
            }
            tokio::task::yield_now().await;
            place = found.place(peer, self, credit.usage());
        }
        let Some(place) = place else { return Some(opened) };
        if found.service.accepts_at_once()
            && !at_once(opened.send.write_chunk(acceptance()))
                .await
                .as_ref()
                .is_some_and(is_accepted)
        {
            return Some(opened);
        }
        if found.wants_credit {
            credit.raise();
        }
        let rest = kept(opened.came.slice(found.header.len()..), credit.usage());
        opened.lease.patience = credit.usage().patience(found.options.peer_timeout);
        let (deadline, access) = (found.options.deadline, opened.access.clone());
        let stream = opened.stream(rest).counted(&self.open_streams).granted(found.grant.as_ref());
        let incoming = Incoming { peer: peer.clone(), deadline, stream, access };
        place.send(Queued { incoming, _counted: found.caller.count() });
        None
    }

    /// What the header at the start of a stream asks for, if it is all there, and the service is
    /// offered.
    fn find(&self, peer: &NodeId, came: &Bytes, access: &Access) -> Option<Asked> {
        let Parsed::Header(Ok(header), rest) = OpenHeader::parse(came) else { return None };
        let service = self.lock().offered.get(&header.service)?.clone();
        // What is not allowed is refused, counted and logged where it is dispatched.
        let grant = match &service.admission {
            Admission::Own => None,
            _ => Some(access.known(&Action::open(&header.service))?),
        };
        // A copy, since what came shares the memory of many packets.
        let bytes = Bytes::copy_from_slice(&came[..came.len() - rest.len()]);
        let caller = service.callers.of(peer);
        Some(Asked {
            header: bytes,
            options: header.options,
            wants_credit: header.wants_credit,
            service,
            grant,
            caller,
        })
    }

    /// Passes a stream that `peer` opened to the service that it asks for, or refuses it.
    pub(crate) async fn dispatch(
        self,
        peer: NodeId,
        mut opened: Opened,
        credit: Arc<StreamCredit>,
    ) {
        let reading = OpenHeader::read(std::mem::take(&mut opened.came), &mut opened.recv);
        let Ok(Some((header, rest))) = tokio::time::timeout(HEADER_TIMEOUT, reading).await else {
            debug!(%peer, "a stream did not say what it is for");
            let _ = opened.send.reset(StreamCode::BadHeader.to_quic());
            let _ = opened.recv.stop(StreamCode::BadHeader.to_quic());
            return;
        };
        // Before it may wait in line.
        let rest = kept(rest, credit.usage());
        let placed = match header {
            Ok(header) => {
                if header.wants_credit {
                    credit.raise();
                }
                self.place(&peer, &header.service, &opened.access, credit.usage())
                    .await
                    .map(|place| (place, header))
            }
            Err(code) => Err(code.into()),
        };
        let (Placed { place, counted, accept, grant }, header) = match placed {
            Ok(placed) => placed,
            Err(refused) => {
                debug!(%peer, code = %refused.code, "refused a stream");
                // It may share a batch of packets, and the refusal waits to be acknowledged.
                drop(rest);
                let refused = refuse(&mut opened.send, &refused);
                // A peer that gives no room for the answer does without it.
                let _ = tokio::time::timeout(HEADER_TIMEOUT, refused).await;
                let _ = opened.recv.stop(StreamCode::Refused.to_quic());
                return;
            }
        };
        let accepted = !accept || {
            let answer = opened.send.write_chunk(acceptance());
            tokio::time::timeout(HEADER_TIMEOUT, answer).await.as_ref().is_ok_and(is_accepted)
        };
        if accepted {
            opened.lease.patience = credit.usage().patience(header.options.peer_timeout);
            let (deadline, access) = (header.options.deadline, opened.access.clone());
            let stream = opened.stream(rest).counted(&self.open_streams).granted(grant.as_ref());
            let incoming = Incoming { peer, deadline, stream, access };
            place.send(Queued { incoming, _counted: counted });
        }
    }

    /// A place in the queue of a service, waiting for [`QUEUE_GRACE`] if it is full or the caller's
    /// share of it is.
    async fn place(
        &self,
        peer: &NodeId,
        service: &ServiceName,
        access: &Access,
        usage: &Usage,
    ) -> Result<Placed, RefusedOpen> {
        let offered = {
            let state = self.lock();
            if self.leaving.load(Ordering::Relaxed) {
                return Err(RefuseCode::Leaving.into());
            }
            state.offered.get(service).ok_or(RefuseCode::UnknownService)?.clone()
        };
        let grant = offered.allows(service, access).map_err(|NotAllowed| RefuseCode::NotAllowed)?;
        offered.permits(peer)?;
        if !offered.admits(usage) {
            return Err(self.overloaded(RefuseCode::CallerLimit).into());
        }
        let caller = offered.callers.of(peer);
        let end = tokio::time::Instant::now() + QUEUE_GRACE;
        // In a full queue the share does not matter: the wait below is for the first place of all.
        let turn = caller.turn(|| offered.queue.capacity() == 0 || offered.shares(&caller));
        let Ok(turn) = tokio::time::timeout_at(end, turn).await else {
            let full = offered.queue.capacity() == 0;
            let code = if full { RefuseCode::Overloaded } else { RefuseCode::CallerLimit };
            return Err(self.overloaded(code).into());
        };
        let reserved = tokio::time::timeout_at(end, offered.queue.clone().reserve_owned()).await;
        let counted = caller.count();
        drop(turn);
        match reserved {
            Ok(Ok(place)) => {
                Ok(Placed { place, counted, accept: offered.accepts_at_once(), grant })
            }
            Ok(Err(_withdrawn)) => Err(RefuseCode::UnknownService.into()),
            Err(_) => Err(self.overloaded(RefuseCode::Overloaded).into()),
        }
    }

    /// Counts a refusal.
    fn overloaded(&self, code: RefuseCode) -> RefuseCode {
        self.overloads.fetch_add(1, Ordering::Relaxed);
        code
    }

    /// Streams refused because a service, or all of them together, had too many.
    pub(crate) fn overloads(&self) -> u64 {
        self.overloads.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_does_not_overtake_those_in_line() {
        let services = Services::new(ReceiveLimits::default());
        let _listener =
            services.offer("echo".parse().unwrap(), false, Admission::Everybody).unwrap();
        let header = OpenHeader::encoded(&"echo".parse().unwrap(), OpenOptions::default(), false);
        let access = Access::of_test("me");
        let asked = services.find(&"me".parse().unwrap(), &header, &access).unwrap();
        let usage = Usage::default();
        assert!(asked.place(&"a".parse().unwrap(), &services, &usage).is_some());
        let mut first = Box::pin(asked.caller.turn(|| false));
        assert!(at_once(first.as_mut()).await.is_none());
        assert!(asked.place(&"a".parse().unwrap(), &services, &usage).is_none());
        drop(first);
        assert!(asked.place(&"a".parse().unwrap(), &services, &usage).is_some());
    }

    #[test]
    fn payload_is_copied_for_a_caller_with_many_streams() {
        let usage = Usage::default();
        let batch = Bytes::from(vec![7; 64 * 1024]);
        let shares = |usage: &Usage| {
            let rest = kept(batch.slice(100..200), usage);
            assert_eq!(rest.len(), 100);
            batch.as_ptr_range().contains(&rest.as_ptr())
        };
        let mut streams: Vec<_> = (0..SHARING_STREAMS).map(|_| usage.incoming()).collect();
        assert!(shares(&usage));
        streams.push(usage.incoming());
        assert!(!shares(&usage));
        streams.pop();
        assert!(shares(&usage));
    }
}
