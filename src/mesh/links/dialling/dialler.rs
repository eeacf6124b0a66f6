//! Keeps a link to one configured peer: resolves, dials, waits for the link's end, and dials again.

mod error;
mod schedule;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::ConnectionError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info, info_span, warn};

use error::AttemptError;
use schedule::{Patience, Schedule, Turn};

use super::names::{Names, Resolve};
use super::peer_addr::{Carrier, PeerAddr};
use crate::id::NodeId;
use crate::mesh::clock;
use crate::mesh::input::{Command, Input};
use crate::mesh::report::events::Event;
#[cfg(feature = "mdns")]
use crate::mesh::report::log::LogLimits;
use crate::mesh::report::status::{Direction, LinkState, LinkStatus};
use crate::mesh::view::View;
use crate::sync::lock;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::Hello;
use crate::transport::handshake::{self, Established, HandshakeError};
use crate::transport::unreachable::{Reason, Reports, Unreachable};
use crate::transport::{Refusal, random};

/// How long an address has to itself before the next one is tried as well (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// How long a dial goes on after the first report that the address is unreachable: ICMP may be
/// forged, and a live peer that is not far answers in this time.
const GRACE: Duration = Duration::from_millis(100);
/// What every HELLO of this node says, except for the fields of the individual link.
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
    /// The connection that was dialled last, by its stable id, until it ends.
    connection: Option<usize>,
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

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut DialState) -> T) -> T {
        look(&mut lock(&self.state))
    }

    /// The entry in status, while there is no link.
    pub(crate) fn status(&self) -> Option<LinkStatus> {
        self.with(|state| {
            (!state.linked).then(|| LinkStatus {
                held_ms: None,
                peer: self.peer.expected.clone(),
                state: if state.dialling { LinkState::Dialling } else { LinkState::Backoff },
                direction: Direction::Outgoing,
                carrier: self.peer.carrier,
                address: self.peer.host_and_port(),
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
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) reports: Reports,
    /// For nodes that announce themselves on the local network.
    #[cfg(feature = "mdns")]
    pub(crate) logs: LogLimits,
}

impl Dialler {
    /// As [`keep_linked`](Self::keep_linked), until `stopped` says so; then the link is closed if
    /// this node dialled it. A sender that is dropped says nothing.
    pub(crate) async fn keep_linked_until(self, dialled: Dialled, stopped: oneshot::Receiver<()>) {
        let inputs = self.inputs.clone();
        tokio::select! {
            biased;
            Ok(()) = stopped => {
                if let Some(connection) = dialled.with(|state| state.connection.take()) {
                    // A driver that has gone has closed all links.
                    let _ = inputs.send(Input::Command(Command::Unlink(connection))).await;
                }
            }
            () = self.keep_linked(dialled.clone()) => {}
        }
    }

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
        let mut schedule = Schedule::default();
        let mut known = dialled.peer.expected.clone();
        let mut moved = self.moved.clone();
        let mut names = Names::new(&dialled.peer, self.resolver.clone());
        loop {
            dialled.with(|state| state.linked = known.as_ref().is_some_and(|id| self.linked(id)));
            self.until_unlinked(known.as_ref()).await;
            dialled.with(|state| {
                state.linked = false;
                state.dialling = false;
            });
            if moved.has_changed().is_ok_and(|changed| changed) {
                moved.mark_unchanged();
                names.network_moved();
                schedule.network_moved();
            }
            let Turn { delay, patience } = schedule.next(clock::now(), random::bits());
            tokio::select! {
                biased;
                () = network_moved(&mut moved) => {
                    names.network_moved();
                    schedule.network_moved();
                }
                () = tokio::time::sleep(delay) => {}
            }
            dialled.with(|state| {
                state.dialling = true;
                state.attempts = schedule.attempts();
            });
            let attempt = tokio::select! {
                biased;
                // What it has sent so far went out on another network: the next one begins at once.
                () = network_moved(&mut moved) => {
                    names.network_moved();
                    schedule.network_moved();
                    continue;
                }
                attempt = self.attempt(dialled, &mut names, patience) => attempt,
            };
            match attempt {
                Ok(established) => {
                    schedule.linked();
                    known = Some(established.hello.id.clone());
                    let connection = established.connection.clone();
                    let since = clock::now();
                    if self.inputs.send(Input::Established(Box::new(established))).await.is_err() {
                        return;
                    }
                    let why = self.until_closed(dialled, &connection).await;
                    let now = clock::now();
                    let up = now.saturating_duration_since(since);
                    schedule.link_ended(&why, up, connection.rtt(), now);
                }
                Err(error) => {
                    schedule.failed(&error);
                    self.report(dialled, &error);
                }
            }
        }
    }

    /// Waits for the end of a link that was dialled, and notes how it went.
    async fn until_closed(
        &self,
        dialled: &Dialled,
        connection: &quinn::Connection,
    ) -> ConnectionError {
        // What was wrong before is kept until the link has proved itself: it may be wrong again.
        dialled.with(|state| {
            state.linked = true;
            state.dialling = false;
            state.attempts = 0;
            state.connection = Some(connection.stable_id());
        });
        let why = connection.closed().await;
        dialled.with(|state| state.connection = None);
        match Refusal::from_connection_error(&why) {
            Some(refusal) => {
                let refused = AttemptError::Handshake(HandshakeError::Refused(refusal));
                self.report(dialled, &refused);
            }
            None => dialled.with(|state| state.last_error = Some(why.to_string())),
        }
        dialled.with(|state| state.linked = false);
        why
    }

    fn report(&self, dialled: &Dialled, error: &AttemptError) {
        let refusal = error.refusal().map(|why| why.naming(&self.endpoint.identity()));
        let why =
            refusal.as_ref().map_or_else(|| error.describe(&dialled.peer), ToString::to_string);
        let repeated = dialled.with(|state| {
            let text = Some(why.clone());
            let repeated = state.last_error == text;
            state.last_error = text;
            state.refusal = refusal.clone();
            repeated
        });
        // The same trouble again and again is worth one line to an operator; a refusal wants
        // somebody to act.
        match &refusal {
            _ if repeated => debug!(error = why, "no link"),
            // Another mesh on the same network is not an error.
            Some(_) if dialled.found.is_some() => info!(error = why, "no link"),
            Some(_) => warn!(error = why, "no link"),
            None => info!(error = why, "no link"),
        }
        let address = dialled.peer.to_string();
        // It is not an error if there are no subscribers.
        let _ = self.events.send(match refusal {
            Some(why) => Event::LinkRefused { address, why },
            None => Event::DialFailed { address, why },
        });
    }

    /// One attempt: all addresses, each a little later than the one before; the first that answers
    /// wins. Addresses that are known are dialled while the name is looked up.
    async fn attempt(
        &self,
        dialled: &Dialled,
        names: &mut Names,
        patience: Patience,
    ) -> Result<Established, AttemptError> {
        let mut race = Race {
            dialler: self,
            peer: &dialled.peer,
            patience,
            dials: JoinSet::new(),
            addrs: Vec::new(),
        };
        let mut looking = dialled.found.is_none() && !names.is_literal();
        race.add(match &dialled.found {
            Some(found) => found.borrow().clone(),
            None => names.known(),
        });
        let mut failed = None;
        loop {
            tokio::select! {
                found = names.look_up(), if looking => {
                    looking = false;
                    match found {
                        Ok(addrs) => race.add(addrs),
                        // What is known is being dialled.
                        Err(error) if !race.addrs.is_empty() => debug!(%error, "dialling the addresses of before"),
                        Err(error) => failed = Some(error.into()),
                    }
                }
                Some(ended) = race.dials.join_next() => match ended {
                    Ok(Ok(established)) => return Ok(established),
                    Ok(Err(error)) => failed = Some(error),
                    // A dial does not panic, and is cancelled only with the whole race.
                    Err(_) => {}
                },
                else => return Err(failed.unwrap_or(AttemptError::NoAddress)),
            }
        }
    }

    async fn dial(
        &self,
        addr: SocketAddr,
        expected: Option<&NodeId>,
        patience: Patience,
    ) -> Result<Established, AttemptError> {
        let mut reports = self.reports.subscribe();
        let dialling = self.shake_hands(addr, expected, patience);
        let mut dialling = pin!(tokio::time::timeout(patience.limit, dialling));
        let why = tokio::select! {
            biased;
            dialled = &mut dialling => return dialled.unwrap_or(Err(AttemptError::Timeout(patience.limit))),
            why = reported(&mut reports, addr) => why,
        };
        let unreachable = AttemptError::Unreachable { addr, why };
        match patience.heeds_reports {
            true => tokio::time::timeout(GRACE, dialling)
                .await
                .unwrap_or(Ok(Err(unreachable)))
                .unwrap_or(Err(AttemptError::Timeout(patience.limit))),
            false => dialling.await.unwrap_or(Err(unreachable)),
        }
    }

    /// Connects to an address and exchanges HELLO.
    async fn shake_hands(
        &self,
        addr: SocketAddr,
        expected: Option<&NodeId>,
        patience: Patience,
    ) -> Result<Established, AttemptError> {
        let connecting = self
            .endpoint
            .dial(addr, expected, patience.rtt)
            .map_err(|error| AttemptError::Dial(error.to_string()))?;
        let sighting = connecting.sighting();
        let refused = |error| HandshakeError::from(error).presenting(&sighting);
        let connection = connecting.await.map_err(refused)?;
        let hello = self.hello.hello(self.endpoint.place(connection.remote_address()));
        Ok(handshake::dial(connection, hello, expected).await?)
    }

    /// As [`dial`](Self::dial), through a carrier to a TCP address, whose server name is `host`.
    async fn dial_by_tls(
        &self,
        addr: SocketAddr,
        host: &str,
        expected: Option<&NodeId>,
        patience: Patience,
    ) -> Result<Established, AttemptError> {
        let dialling = async {
            let carried = self.endpoint.dial_carrier(addr, host).await?;
            let established = self.shake_hands(carried.addr(), expected, patience).await?;
            // From here on the carrier ends with the link.
            self.endpoint.follow_carrier(&established.connection);
            carried.keep();
            Ok(established)
        };
        tokio::time::timeout(patience.limit, dialling)
            .await
            .unwrap_or(Err(AttemptError::Timeout(patience.limit)))
    }

    /// One attempt at a neighbour where it is linked already, for a link beside that one. Without
    /// success nothing happens.
    pub(crate) async fn dial_once(&self, addr: SocketAddr, peer: &NodeId, within: Duration) {
        let patience = Patience { limit: within, heeds_reports: true, rtt: None };
        match self.dial(addr, Some(peer), patience).await {
            // An error means that the driver has gone, and the link goes with it.
            Ok(established) => {
                drop(self.inputs.send(Input::Established(Box::new(established))).await)
            }
            Err(error) => debug!(%peer, %addr, %error, "no second link"),
        }
    }

    fn linked(&self, id: &NodeId) -> bool {
        self.view.borrow().links.contains_key(id)
    }

    /// Waits while the peer is linked by another connection: the one that it dialled, or an earlier
    /// one of ours.
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
        // The observer of the network has ended.
        std::future::pending().await
    }
}

/// Waits until an address is reported as unreachable.
async fn reported(reports: &mut broadcast::Receiver<Unreachable>, addr: SocketAddr) -> Reason {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    loop {
        match reports.recv().await {
            Ok(Unreachable { to, why }) if to == addr => return why,
            // What was missed is reported again if it is still true.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The dials of one attempt. Dropped, it ends them.
struct Race<'a> {
    dialler: &'a Dialler,
    peer: &'a PeerAddr,
    patience: Patience,
    dials: JoinSet<Result<Established, AttemptError>>,
    addrs: Vec<SocketAddr>,
}

impl Race<'_> {
    /// Dials those of these addresses that are not in the race yet.
    fn add(&mut self, addrs: Vec<SocketAddr>) {
        let mut later = Duration::ZERO;
        for addr in addrs {
            if self.addrs.contains(&addr) {
                continue;
            }
            self.addrs.push(addr);
            let (dialler, peer, patience) =
                (self.dialler.clone(), self.peer.clone(), self.patience);
            self.dials.spawn(async move {
                tokio::time::sleep(later).await;
                let expected = peer.expected.as_ref();
                match peer.carrier {
                    Carrier::Udp => dialler.dial(addr, expected, patience).await,
                    Carrier::Tls => dialler.dial_by_tls(addr, &peer.host, expected, patience).await,
                }
            });
            later += STAGGER;
        }
    }
}
