//! Datagrams: unreliable messages to a service of another node, sealed end to end.
//!
//! ```text
//!   sender ──▶ quinn: 1 MiB, the oldest goes ──▶ network ──▶ quinn ──▶ receiving task of the connection
//!                                                                            │ by name
//!                                             listener ◀── queue: 1 MiB, the oldest of
//!                                                          the caller with most goes
//! ```
//!
//! Each is one QUIC datagram: a byte with the length of the service's name, the name, and the
//! payload.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Buf, Bytes};
use futures_core::Stream;
use quinn::SendDatagramError;
use tokio::runtime::Handle;

use super::datagram_queue::{Arrived, Datagram, Queue, Queued};
use crate::id::{NodeId, ServiceName};
use crate::mesh::access::connection::{Access, NotAllowed};
use crate::mesh::access::grant::Grant;
use crate::mesh::report::status::DatagramStatus;
use crate::mesh::services::connection::Connection;
use crate::mesh::services::ending::Ending;
use crate::mesh::services::serve_error::{MAX_SERVICES, ServeError};
use crate::mesh::services::usage::{Lease, Usage};
use crate::policy::Action;
use crate::sync::lock;
use crate::unfold::unfold;

/// A datagram for no service: its sender got nothing from this node for a while, although it
/// expected something.
pub(crate) const UNHEARD: &[u8] = &[0, 1];
/// A datagram for no service that asks for nothing but QUIC's acknowledgement.
pub(crate) const POKE: &[u8] = &[0, 2];

/// How long after a failed attempt to connect again the next one may start, at the earliest.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Sends datagrams to one service of one node. Made by [`Node::datagrams`](crate::Node::datagrams).
///
/// Clones share the connection, and it is kept for as long as one of them lives: by this end, and
/// by the other one for two minutes after the last datagram came. A sender outlives its connection:
/// once that is lost, [`send`](Self::send) fails and connects to the node again in the background,
/// and [`send_wait`](Self::send_wait) waits for the new connection.
#[derive(Clone, Debug)]
pub struct DatagramSender(Arc<Sender>);

struct Sender {
    current: ArcSwap<Bound>,
    /// The name's length and the name.
    head: Vec<u8>,
    /// Payload bytes accepted for sending, on all connections.
    sent: AtomicU64,
    listeners: DatagramListeners,
    connect: Connect,
    /// Whether an attempt in the background is under way, or ended less than
    /// [`RECONNECT_DELAY`] ago.
    reconnecting: AtomicBool,
    /// The runtime that drives the node.
    runtime: Handle,
}

/// A connection, and what keeps it.
pub(crate) struct Bound {
    pub(crate) connection: Arc<Connection>,
    pub(crate) _lease: Lease,
}

/// Connects to the node of a sender.
pub(crate) type Connect = Box<dyn Fn() -> Connecting + Send + Sync>;

/// An attempt to connect. Its failure says nothing that the sender can pass on.
pub(crate) type Connecting = Pin<Box<dyn Future<Output = Option<Bound>> + Send>>;

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl DatagramSender {
    pub(crate) fn new(
        bound: Bound,
        service: &ServiceName,
        listeners: DatagramListeners,
        connect: Connect,
        runtime: Handle,
    ) -> Self {
        let name = service.as_str().as_bytes();
        let mut head = Vec::with_capacity(1 + name.len());
        head.push(u8::try_from(name.len()).expect("a service name has at most 64 bytes"));
        head.extend_from_slice(name);
        Self(Arc::new(Sender {
            current: ArcSwap::from_pointee(bound),
            head,
            sent: AtomicU64::new(0),
            listeners,
            connect,
            reconnecting: AtomicBool::new(false),
            runtime,
        }))
    }

    /// Sends a datagram at once. It may be delivered, reordered or lost; neither end is notified.
    ///
    /// If 1 MiB waits for the network already, the oldest datagrams are dropped to make room, which
    /// [`DatagramStatus::displaced`] counts; [`send_wait`](Self::send_wait) waits instead.
    ///
    /// # Errors
    /// It is too long, the other node takes no datagrams, or the connection is lost. Nothing was
    /// sent. After a loss the node is connected to again in the background, at most once a second,
    /// and this fails until that has succeeded.
    pub fn send(&self, payload: &[u8]) -> Result<(), DatagramError> {
        let bound = self.0.current.load();
        let connection = &bound.connection;
        // Sending without dropping anything succeeds at once unless the buffer is full; only then
        // is anything displaced.
        let waiting = pin!(connection.send_datagram_wait(self.message(payload)));
        let sent = match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(sent) => sent,
            Poll::Pending => connection
                .send_datagram(self.message(payload))
                .inspect(|()| count(&self.0.listeners.0.displaced)),
        };
        self.outcome(connection, sent, payload).inspect_err(|error| {
            if matches!(error, DatagramError::Lost(_)) {
                self.reconnect_behind();
            }
        })
    }

    /// Sends a datagram once fewer than 1 MiB wait for the network, and once the node is connected
    /// again if the connection is lost. Otherwise as [`send`](Self::send). Cancel safe: dropped
    /// before it is ready, nothing is sent.
    ///
    /// # Errors
    /// As [`send`](Self::send); the connection is lost only if the node could not be connected to
    /// again, within the time that [`Node::datagrams`](crate::Node::datagrams) may take.
    pub async fn send_wait(&self, payload: &[u8]) -> Result<(), DatagramError> {
        let bound = self.0.current.load_full();
        let sent = bound.connection.send_datagram_wait(self.message(payload)).await;
        let lost = match self.outcome(&bound.connection, sent, payload) {
            Err(lost @ DatagramError::Lost(_)) => lost,
            outcome => return outcome,
        };
        if self.0.is_lost() {
            let renewed = (self.0.connect)().await.ok_or(lost)?;
            self.0.current.store(Arc::new(renewed));
        }
        // Once: a connection that is lost as soon as it is made is no help.
        let bound = self.0.current.load_full();
        let sent = bound.connection.send_datagram_wait(self.message(payload)).await;
        self.outcome(&bound.connection, sent, payload)
    }

    /// Connects again, unless that is under way or failed a moment ago.
    fn reconnect_behind(&self) {
        if self.0.reconnecting.swap(true, Ordering::AcqRel) {
            return;
        }
        // A sender that is dropped meanwhile keeps no connection.
        let sender = Arc::downgrade(&self.0);
        let connecting = (self.0.connect)();
        self.0.runtime.spawn(async move {
            let renewed = connecting.await;
            let failed = renewed.is_none();
            if let (Some(sender), Some(renewed)) = (sender.upgrade(), renewed)
                && sender.is_lost()
            {
                sender.current.store(Arc::new(renewed));
            }
            if failed {
                tokio::time::sleep(RECONNECT_DELAY).await;
            }
            if let Some(sender) = sender.upgrade() {
                sender.reconnecting.store(false, Ordering::Release);
            }
        });
    }

    fn outcome(
        &self,
        connection: &Connection,
        sent: Result<(), SendDatagramError>,
        payload: &[u8],
    ) -> Result<(), DatagramError> {
        sent.map_err(|error| self.explain(connection, error, payload))?;
        self.0.sent.fetch_add(payload.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The maximum length of a payload now, in bytes: about 1,100 at least, and more once the path
    /// is known to carry larger packets. It can become less when the path changes. 0 if the other
    /// node takes no datagrams, or while the connection is lost.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.max_len_on(&self.0.current.load().connection)
    }

    fn max_len_on(&self, connection: &Connection) -> usize {
        match connection.close_reason() {
            None => {
                let max = connection.max_datagram_size();
                max.map_or(0, |max| max.saturating_sub(self.0.head.len()))
            }
            Some(_) => 0,
        }
    }

    fn message(&self, payload: &[u8]) -> Bytes {
        let mut message = Vec::with_capacity(self.0.head.len() + payload.len());
        message.extend_from_slice(&self.0.head);
        message.extend_from_slice(payload);
        message.into()
    }

    fn explain(
        &self,
        connection: &Connection,
        error: SendDatagramError,
        payload: &[u8],
    ) -> DatagramError {
        match error {
            SendDatagramError::TooLarge => {
                DatagramError::TooLong { len: payload.len(), max: self.max_len_on(connection) }
            }
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                DatagramError::Unsupported
            }
            SendDatagramError::ConnectionLost(error) => {
                let bytes = self.0.sent.load(Ordering::Relaxed);
                DatagramError::Lost(Ending::new(connection.first_cause().of(&error), bytes))
            }
        }
    }
}

impl Sender {
    fn is_lost(&self) -> bool {
        self.current.load().connection.close_reason().is_some()
    }
}

/// Why a datagram was not sent. Nothing was sent, and what was sent before stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// It does not fit into a packet: the caller's fault. Ask [`DatagramSender::max_len`], or open
    /// a stream.
    #[error("a datagram has at most {max} bytes now; this one has {len}")]
    TooLong {
        /// What it had, in bytes.
        len: usize,
        /// What goes now, in bytes.
        max: usize,
    },
    /// The other node takes no datagrams, on no connection.
    #[error("the node takes no datagrams")]
    Unsupported,
    /// The connection has ended. The sender connects again by itself; send what is still of use
    /// then. The bytes are those accepted for sending, through all clones of the sender; how many
    /// arrived is not known.
    #[error("{0}")]
    Lost(Ending),
}

impl DatagramError {
    /// Who ended the connection, and why; `None` if it is up.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Lost(ending) => Some(ending.clone()),
            Self::TooLong { .. } | Self::Unsupported => None,
        }
    }
}

/// Receives the datagrams sent to one service by any node. Dropping it withdraws the service.
///
/// Up to [`MAX_WAITING_DATAGRAMS`] bytes wait. When the queue is full, each arrival drops the
/// oldest datagram of the peer that holds most, so no peer displaces the datagrams of others that
/// send less. Ephemeral nodes that share a certificate count as one peer.
///
/// [`MAX_WAITING_DATAGRAMS`]: crate::mesh::MAX_WAITING_DATAGRAMS
#[derive(Debug)]
pub struct DatagramListener {
    name: ServiceName,
    queue: Arc<Queue>,
    /// Taken from the queue, all at once.
    taken: VecDeque<Arrived>,
    listeners: DatagramListeners,
}

impl DatagramListener {
    /// The next datagram; `None` once the node is shut down. Cancel safe.
    pub async fn recv(&mut self) -> Option<Datagram> {
        loop {
            if let Some(arrived) = self.taken.pop_front() {
                return Some(arrived.datagram);
            }
            if self.queue.take(&mut self.taken) {
                return None;
            }
            if self.taken.is_empty() {
                // `Notify` stores a permit, so an arrival between the check and the wait is not
                // missed.
                self.queue.arrived().await;
            }
        }
    }

    /// The service.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }
}

impl DatagramListener {
    /// A stream of what [`recv`](Self::recv) returns.
    pub fn into_stream(self) -> impl Stream<Item = Datagram> + Send + Unpin + 'static {
        unfold(self, async |mut listener: Self| (listener.recv().await, listener))
    }
}

impl Drop for DatagramListener {
    fn drop(&mut self) {
        self.queue.close();
        lock(&self.listeners.0.offered).remove(&self.name);
    }
}

/// The services that take datagrams, by name; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct DatagramListeners(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    offered: Mutex<BTreeMap<ServiceName, Arc<Queue>>>,
    closed: AtomicBool,
    received: AtomicU64,
    unknown_service: AtomicU64,
    not_allowed: AtomicU64,
    overflowed: AtomicU64,
    malformed: AtomicU64,
    displaced: AtomicU64,
}

impl DatagramListeners {
    pub(crate) fn offer(&self, name: ServiceName) -> Result<DatagramListener, ServeError> {
        let mut offered = lock(&self.0.offered);
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(ServeError::ShutDown);
        }
        if offered.contains_key(&name) {
            return Err(ServeError::Taken(name));
        }
        if offered.len() >= MAX_SERVICES {
            return Err(ServeError::TooMany);
        }
        let queue = Arc::<Queue>::default();
        offered.insert(name.clone(), queue.clone());
        Ok(DatagramListener { name, queue, taken: VecDeque::new(), listeners: self.clone() })
    }

    /// Ends every listener.
    pub(crate) fn close(&self) {
        let mut offered = lock(&self.0.offered);
        self.0.closed.store(true, Ordering::Relaxed);
        offered.values().for_each(|queue| queue.close());
        offered.clear();
    }

    pub(crate) fn status(&self) -> DatagramStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DatagramStatus {
            received: count(&self.0.received),
            overflowed: count(&self.0.overflowed),
            unknown_service: count(&self.0.unknown_service),
            not_allowed: count(&self.0.not_allowed),
            malformed: count(&self.0.malformed),
            displaced: count(&self.0.displaced),
        }
    }

    /// Hands the datagrams of a connection to the listeners, until the connection ends.
    pub(crate) async fn serve(
        &self,
        connection: Connection,
        peer: NodeId,
        usage: Arc<Usage>,
        access: Arc<Access>,
    ) {
        let caller = peer.base();
        // Most come for the service that the last one came for: that is looked up without a lock.
        let mut last: Option<Found> = None;
        while let Ok(message) = connection.read_datagram().await {
            if *message == *UNHEARD {
                usage.note_unheard();
                continue;
            }
            if *message == *POKE {
                continue;
            }
            usage.note();
            let Some((name, payload)) = parse(&message) else {
                count(&self.0.malformed);
                continue;
            };
            // A listener that is gone may have been replaced.
            if !last.as_ref().is_some_and(|last| last.is(name)) {
                last = match self.find(name, &access) {
                    Ok(found) => found,
                    Err(NotAllowed) => {
                        count(&self.0.not_allowed);
                        last = None;
                        continue;
                    }
                };
            }
            let datagram = Datagram { peer: peer.clone(), payload };
            let queued =
                last.as_ref().map_or(Queued::Closed, |last| last.queue.push(&caller, datagram));
            match queued {
                Queued::Kept => count(&self.0.received),
                Queued::Instead(of) => {
                    count(&self.0.received);
                    self.0.overflowed.fetch_add(of, Ordering::Relaxed);
                }
                Queued::Closed => count(&self.0.unknown_service),
            }
        }
    }

    /// The listener for a service, if there is one.
    fn find(&self, name: &[u8], access: &Access) -> Result<Option<Found>, NotAllowed> {
        let name = std::str::from_utf8(name).ok().and_then(|name| ServiceName::try_from(name).ok());
        let Some(name) = name else { return Ok(None) };
        // Before it shows whether there is such a service.
        let grant = access.allow(&Action::datagram(&name))?;
        let queue = lock(&self.0.offered).get(&name).cloned();
        Ok(queue.map(|queue| Found { name, queue, grant }))
    }
}

/// A listener that a peer may send to.
struct Found {
    name: ServiceName,
    queue: Arc<Queue>,
    grant: Arc<Grant>,
}

impl Found {
    /// Whether it is still the one for this service.
    fn is(&self, name: &[u8]) -> bool {
        self.name.as_str().as_bytes() == name && self.queue.is_open() && !self.grant.is_revoked()
    }
}

/// The service's name and the payload.
pub(crate) fn parse(message: &Bytes) -> Option<(&[u8], Bytes)> {
    let len = usize::from(*message.first()?);
    let name = message.get(1..1 + len)?;
    let mut payload = message.clone();
    payload.advance(1 + len);
    (1..=ServiceName::MAX_LEN).contains(&len).then_some((name, payload))
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(payload: &[u8]) -> Datagram {
        Datagram { peer: "a".parse().unwrap(), payload: Bytes::copy_from_slice(payload) }
    }

    #[test]
    fn a_message_is_read_as_the_protocol_page_shows_it() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md"));
        let message = b"\x04echohello";
        let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(page.contains(&format!("`{hex}`")), "not on the page: {hex}");
        let message = Bytes::from_static(message);
        assert_eq!(parse(&message), Some((&b"echo"[..], Bytes::from_static(b"hello"))));
    }

    #[test]
    fn what_is_no_message_is_none() {
        let parse = |bytes: &[u8]| parse(&Bytes::copy_from_slice(bytes)).is_some();
        assert!(!parse(b""));
        assert!(!parse(b"\0payload"));
        assert!(!parse(b"\x05echo"));
        assert!(!parse(&[&[65][..], &[b'a'; 65]].concat()));
        assert!(parse(&[&[64][..], &[b'a'; 64]].concat()));
    }

    #[tokio::test]
    async fn a_listener_takes_what_waits_before_its_end() {
        let listeners = DatagramListeners::default();
        let mut listener = listeners.offer("s".parse().unwrap()).unwrap();
        let taken = listeners.offer("s".parse().unwrap()).unwrap_err();
        assert_eq!(taken, ServeError::Taken("s".parse().unwrap()));
        let caller: NodeId = "a".parse().unwrap();
        listener.queue.push(&caller, datagram(b"1"));
        listeners.close();
        assert_eq!(listener.queue.push(&caller, datagram(b"2")), Queued::Closed);
        assert_eq!(listener.recv().await, Some(datagram(b"1")));
        assert_eq!(listener.recv().await, None);
        assert_eq!(listener.recv().await, None);
        assert_eq!(listeners.offer("t".parse().unwrap()).unwrap_err(), ServeError::ShutDown);
    }
}
