//! Keeps a link to one configured peer: resolves, dials, waits for the link's end, and dials again.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::ConnectionError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info, info_span, warn};

use super::clock;
use super::events::Event;
use super::input::Input;
use super::peer_addr::PeerAddr;
use super::status::{Direction, LinkState, LinkStatus};
use super::view::View;
use crate::id::NodeId;
use crate::transport::backoff::Backoff;
use crate::transport::code::CloseCode;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::Hello;
use crate::transport::handshake::{self, Established, HandshakeError};
use crate::transport::{Refusal, random};

/// How long one attempt may take while the peer was linked a short while ago: its first packets may go to a process
/// that is not there yet, and the sooner the attempt is given up, the sooner the next one meets the new process.
const FRESH_ATTEMPT: Duration = Duration::from_secs(3);
/// How long one attempt may take otherwise.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long an address has to itself before the next one is tried as well (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// How long a link must have lasted for its peer to count as linked lately.
const LINKED_AFTER: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried, at most.
const MAX_ADDRS: usize = 8;

/// What every HELLO of this node says, but for what belongs to the one link.
pub(crate) trait MakeHello: Send + Sync {
    /// The HELLO for a link to `remote`.
    fn hello(&self, remote: SocketAddr) -> Hello;
}

/// How the attempts at one peer go.
#[derive(Debug, Default)]
pub(crate) struct DialState {
    pub(crate) linked: bool,
    pub(crate) dialling: bool,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
    pub(crate) refusal: Option<Refusal>,
}

/// A configured peer and how the attempts go; shared with status.
#[derive(Clone, Debug)]
pub(crate) struct Dialled {
    pub(crate) peer: PeerAddr,
    state: Arc<Mutex<DialState>>,
    /// Where the peer was found, instead of a name to look up.
    found: Option<watch::Receiver<Vec<SocketAddr>>>,
}

impl Dialled {
    pub(crate) fn new(peer: PeerAddr) -> Self {
        Self { peer, state: Arc::default(), found: None }
    }

    /// A peer that was found at these addresses, as last heard of; at least one.
    #[cfg(feature = "mdns")]
    pub(crate) fn found(id: NodeId, at: watch::Receiver<Vec<SocketAddr>>) -> Self {
        let any = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0));
        let first = at.borrow().first().copied().unwrap_or(any);
        let peer = PeerAddr { expected: Some(id), ..PeerAddr::from(first) };
        Self { found: Some(at), ..Self::new(peer) }
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, AttemptError> {
        match &self.found {
            Some(found) => Ok(found.borrow().clone()),
            None => resolve(&self.peer).await,
        }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut DialState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entry in status, while there is no link.
    pub(crate) fn status(&self) -> Option<LinkStatus> {
        self.with(|state| {
            (!state.linked).then(|| LinkStatus {
                held_ms: None,
                peer: self.peer.expected.clone(),
                state: if state.dialling { LinkState::Dialling } else { LinkState::Backoff },
                direction: Direction::Outgoing,
                address: format!("{}:{}", self.peer.host, self.peer.port),
                rtt_ms: None,
                mtu: None,
                cost: None,
                up_ms: None,
                ephemeral: false,
                observed: None,
                attempts: state.attempts,
                last_error: state.last_error.clone(),
            })
        })
    }
}

/// What a dialler works with.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) hello: Arc<dyn MakeHello>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) events: broadcast::Sender<Event>,
    /// Counts how often the network has changed.
    pub(crate) moved: watch::Receiver<u64>,
}

impl Dialler {
    /// Runs until the node is shut down, or has yielded its id.
    pub(crate) async fn keep_linked(self, dialled: Dialled) {
        let span = info_span!("dial", peer = %dialled.peer);
        let mut view = self.view.clone();
        tokio::select! {
            biased;
            _ = view.wait_for(|view| view.closed || view.leaving || view.yielded_to.is_some()) => {}
            () = self.dial_forever(&dialled).instrument(span) => {}
        }
    }

    async fn dial_forever(&self, dialled: &Dialled) {
        let mut backoff = Backoff::default();
        let mut lost_at: Option<Instant> = None;
        let mut known = dialled.peer.expected.clone();
        let mut moved = self.moved.clone();
        loop {
            dialled.with(|state| state.linked = known.as_ref().is_some_and(|id| self.linked(id)));
            self.until_unlinked(known.as_ref()).await;
            let fresh = lost_at.is_some_and(|lost| clock::now() < lost + Backoff::FRESH_FOR);
            dialled.with(|state| {
                state.linked = false;
                state.dialling = false;
            });
            if moved.has_changed().is_ok_and(|changed| changed) {
                moved.mark_unchanged();
                backoff.reset();
            }
            tokio::select! {
                biased;
                () = network_moved(&mut moved) => backoff.reset(),
                () = tokio::time::sleep(backoff.next(fresh, random::bits())) => {}
            }
            dialled.with(|state| {
                state.dialling = true;
                state.attempts = backoff.attempts();
            });
            let limit = if fresh { FRESH_ATTEMPT } else { ATTEMPT };
            let attempt = tokio::select! {
                biased;
                // What it has sent so far went out on another network: the next one begins at once.
                () = network_moved(&mut moved) => {
                    backoff.reset();
                    continue;
                }
                attempt = tokio::time::timeout(limit, self.attempt(dialled)) => attempt,
            };
            match attempt.unwrap_or(Err(AttemptError::Timeout(limit))) {
                Ok(established) => {
                    known = Some(established.hello.id.clone());
                    let connection = established.connection.clone();
                    let since = clock::now();
                    if self.inputs.send(Input::Established(Box::new(established))).await.is_err() {
                        return;
                    }
                    // What was wrong before is kept until the link has proved itself: it may be wrong again.
                    dialled.with(|state| {
                        state.linked = true;
                        state.dialling = false;
                        state.attempts = 0;
                    });
                    let why = connection.closed().await;
                    if let Some(refusal) = Refusal::from_connection_error(&why) {
                        self.report(dialled, &AttemptError::Handshake(HandshakeError::Refused(refusal)));
                    } else {
                        dialled.with(|state| state.last_error = Some(why.to_string()));
                    }
                    let up = clock::now().saturating_duration_since(since);
                    dialled.with(|state| state.linked = false);
                    if !closed_with(&why, CloseCode::DuplicateLink) {
                        backoff.link_ended(up);
                    }
                    // A link that is refused right after HELLO was never one: a twin is not to knock every other second.
                    if up >= LINKED_AFTER {
                        lost_at = Some(clock::now());
                    }
                }
                Err(error) => self.report(dialled, &error),
            }
        }
    }

    fn report(&self, dialled: &Dialled, error: &AttemptError) {
        let refusal = error.refusal();
        let repeated = dialled.with(|state| {
            let text = Some(error.to_string());
            let repeated = state.last_error == text;
            state.last_error = text;
            state.refusal = refusal.clone();
            repeated
        });
        // The same trouble again and again is worth one line to an operator; a refusal wants somebody to act.
        match &refusal {
            _ if repeated => debug!(%error, "no link"),
            // Another mesh on the same network is nobody's mistake.
            Some(_) if dialled.found.is_some() => info!(%error, "no link"),
            Some(_) => warn!(%error, "no link"),
            None => info!(%error, "no link"),
        }
        let address = dialled.peer.to_string();
        // Nobody listening is no error.
        let _ = self.events.send(match refusal {
            Some(why) => Event::LinkRefused { address, why },
            None => Event::DialFailed { address, why: error.to_string() },
        });
    }

    /// One attempt: all addresses, each a little later than the one before; the first that answers wins.
    async fn attempt(&self, dialled: &Dialled) -> Result<Established, AttemptError> {
        let addrs = dialled.addresses().await?;
        let mut race = JoinSet::new();
        for (nth, addr) in (0_u32..).zip(addrs) {
            let (dialler, expected) = (self.clone(), dialled.peer.expected.clone());
            race.spawn(async move {
                tokio::time::sleep(STAGGER * nth).await;
                dialler.dial(addr, expected.as_ref()).await
            });
        }
        let mut failed = AttemptError::NoAddress;
        while let Some(result) = race.join_next().await {
            match result {
                Ok(Ok(established)) => return Ok(established),
                Ok(Err(error)) => failed = error,
                // The dial's task does not panic, and is cancelled only with the whole race.
                Err(_) => {}
            }
        }
        Err(failed)
    }

    async fn dial(&self, addr: SocketAddr, expected: Option<&NodeId>) -> Result<Established, AttemptError> {
        let connecting =
            self.endpoint.dial(addr, expected).map_err(|error| AttemptError::Dial(error.to_string()))?;
        let connection = connecting.await.map_err(HandshakeError::from)?;
        let hello = self.hello.hello(connection.remote_address());
        Ok(handshake::dial(connection, hello, expected).await?)
    }

    /// One attempt at a neighbour where it is linked already, for a link beside that one. Without success nothing happens.
    pub(crate) async fn dial_once(&self, addr: SocketAddr, peer: &NodeId, within: Duration) {
        match tokio::time::timeout(within, self.dial(addr, Some(peer))).await {
            // An error means that the driver has gone, and the link goes with it.
            Ok(Ok(established)) => drop(self.inputs.send(Input::Established(Box::new(established))).await),
            Ok(Err(error)) => debug!(%peer, %addr, %error, "no second link"),
            Err(_) => debug!(%peer, %addr, ?within, "no second link"),
        }
    }

    fn linked(&self, id: &NodeId) -> bool {
        self.view.borrow().links.contains_key(id)
    }

    /// Waits while the peer is linked by another connection: the one that it dialled, or an earlier one of ours.
    async fn until_unlinked(&self, known: Option<&NodeId>) {
        let Some(known) = known else { return };
        let mut view = self.view.clone();
        // An error means that the driver has gone; the caller is about to be dropped as well.
        let _ = view.wait_for(|view| !view.links.contains_key(known)).await;
    }
}

/// Waits until the network changes.
async fn network_moved(moved: &mut watch::Receiver<u64>) {
    if moved.changed().await.is_err() {
        // Nobody looks at the network any more.
        std::future::pending().await
    }
}

async fn resolve(peer: &PeerAddr) -> Result<Vec<SocketAddr>, AttemptError> {
    if let Ok(ip) = peer.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, peer.port)]);
    }
    let addrs = tokio::net::lookup_host((peer.host.as_str(), peer.port))
        .await
        .map_err(|error| AttemptError::Resolve(error.to_string()))?;
    Ok(addrs.take(MAX_ADDRS).collect())
}

fn closed_with(why: &ConnectionError, code: CloseCode) -> bool {
    matches!(why, ConnectionError::ApplicationClosed(close) if CloseCode::from(close.error_code) == code)
}

/// Why an attempt failed. The next one follows by itself.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("cannot resolve the name: {0}")]
    Resolve(String),
    #[error("the name has no address")]
    NoAddress,
    #[error("{0}")]
    Dial(String),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl AttemptError {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Handshake(error) => error.refusal(),
            Self::Resolve(_) | Self::NoAddress | Self::Dial(_) | Self::Timeout(_) => None,
        }
    }
}
