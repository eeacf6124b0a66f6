//! Lets connections in: links from outside, peer connections through the switch.
//!
//! Until a handshake has finished its peer is unknown, so it is accounted to its source: see
//! [`half_open`]. A link whose other end is authenticated and has not sent its HELLO yet has one by
//! its certificate, where outsiders cannot reach it.

use std::sync::Arc;
use std::time::Duration;

use quinn::Incoming;
use tokio::sync::{broadcast, mpsc};
use tracing::{debug, warn};

use super::half_open::{self, HalfOpen, Place, Verdict};
use crate::mesh::input::Input;
use crate::mesh::links::dialling::dialler::MakeHello;
use crate::mesh::peers::Peers;
use crate::mesh::report::events::Event;
use crate::mesh::report::refusal_log::SharedRefusalLog;
use crate::mesh::report::status::HandshakeStatus;
use crate::transport::code::CloseCode;
use crate::transport::endpoint::{Accepting, Authenticated, Endpoint, Unfinished};
use crate::transport::handshake::{self, HandshakeError, certified_names};

/// How long the handshake of a link may take, and then how long its HELLO.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to finish its handshake. It may have streams open already, and its last
/// flight may be lost several times: the longest wait between two of them is as long as a peer
/// connection stays without hearing anything.
const PEER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other end of a handshake may be silent. A client repeats what is not answered 0.3,
/// 0.9 and 2.1 s after the first time, so several packets in a row have to be lost.
const SILENCE: Duration = Duration::from_secs(3);
/// The same for peer connections: longer than the 5 s that the mesh may take to replace a relay
/// that died silently.
const PEER_SILENCE: Duration = Duration::from_secs(6);

/// The handshakes that others have begun. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes {
    links: HalfOpen,
    /// Links that are authenticated, by certificate.
    greeting: HalfOpen,
    peers: HalfOpen,
    /// TCP connections without a link.
    pub(crate) carriers: HalfOpen,
}

impl Handshakes {
    /// What became of them so far.
    pub(crate) fn status(&self) -> HandshakeStatus {
        HandshakeStatus {
            links: self.links.counts(),
            greeting: self.greeting.counts(),
            peers: self.peers.counts(),
            carriers: self.carriers.counts(),
        }
    }
}

/// What the acceptor works with.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) hello: Arc<dyn MakeHello>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) peers: Peers,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) accept_links: bool,
    pub(crate) refusals: SharedRefusalLog,
    pub(crate) handshakes: Handshakes,
}

impl Acceptor {
    /// Runs until the endpoint is closed.
    pub(crate) async fn run(self) {
        while let Some(incoming) = self.endpoint.accept().await {
            let peer = Endpoint::is_peer(&incoming);
            let carried = self.endpoint.socket().carriers().is_accepted(incoming.remote_address());
            if !self.accept_links && !peer && !carried {
                // Nothing answers where nothing listens.
                incoming.ignore();
                continue;
            }
            let Some((incoming, place)) = self.judge(incoming, peer, carried) else { continue };
            match self.endpoint.accept_attempt(incoming) {
                Ok(accepting) => {
                    let acceptor = self.clone();
                    tokio::spawn(async move {
                        match peer {
                            true => acceptor.peer(accepting, place).await,
                            false => acceptor.link(accepting, place).await,
                        }
                    });
                }
                Err(error) => debug!(%error, "turned a connection away"),
            }
        }
    }

    /// The place of an attempt, before anything costly is done for it. `None` if its source has to
    /// prove its address first.
    ///
    /// The source of an attempt in a carrier is the other end of the TCP connection, whose address
    /// TCP has proven.
    fn judge(&self, incoming: Incoming, peer: bool, carried: bool) -> Option<(Incoming, Place)> {
        let proven = carried || incoming.remote_address_validated();
        let place = self.endpoint.place(incoming.remote_address());
        let verdict = match peer {
            true => self
                .handshakes
                .peers
                .judge(half_open::peer_source(&self.endpoint, &incoming), proven),
            false => self.handshakes.links.judge(half_open::link_source(place.ip()), proven),
        };
        match verdict {
            Verdict::Admit(place) => Some((incoming, place)),
            Verdict::Retry => {
                // Only an attempt that was retried before may not be retried, and that has proven
                // its address.
                let _ = incoming.retry();
                None
            }
        }
    }

    async fn link(&self, accepting: Accepting, place: Place) {
        let address = self.endpoint.place(accepting.remote_address());
        let sighting = accepting.sighting();
        let finished = finish(accepting, SILENCE, HANDSHAKE_TIMEOUT, place, &self.handshakes.links);
        let error = match finished.await {
            Ok(connection) => match self.greet(connection).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error.refusal() {
            Some(why) => {
                let why = why.naming(&self.endpoint.identity()).presenting(sighting.presented());
                if let Some(suppressed) = self.refusals.admit(address.ip()) {
                    warn!(%address, %why, suppressed, "refused a link");
                }
                let _ = self.events.send(Event::LinkRefused { address: address.to_string(), why });
            }
            None => debug!(%address, %error, "a link did not come about"),
        }
    }

    /// Exchanges HELLO on a link whose other end is authenticated, and passes it to the driver.
    async fn greet(&self, connection: Authenticated) -> Result<(), HandshakeError> {
        let names = certified_names(&connection);
        let Some(name) = names.first() else { return Err(HandshakeError::NoHello) };
        // Its address is proven by the handshake.
        let Verdict::Admit(place) =
            self.handshakes.greeting.judge(half_open::member_source(name), true)
        else {
            return Err(HandshakeError::Timeout);
        };
        let hello = self.hello.hello(self.endpoint.place(connection.remote_address()));
        let greeted = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake::accept(connection, hello));
        match place.hold(greeted).await {
            Some(Ok(established)) => {
                let established = established?;
                self.endpoint.follow_carrier(&established.connection);
                // The driver has gone if this fails, and the connection goes with it.
                let _ = self.inputs.send(Input::Established(Box::new(established))).await;
                Ok(())
            }
            Some(Err(_)) | None => Err(HandshakeError::Timeout),
        }
    }

    async fn peer(&self, accepting: Accepting, place: Place) {
        let all = &self.handshakes.peers;
        match finish(accepting, PEER_SILENCE, PEER_HANDSHAKE_TIMEOUT, place, all).await {
            Ok(connection) => self.peers.accepted(&connection),
            Err(HandshakeError::Timeout) => {
                debug!(code = %CloseCode::HandshakeTimeout, "a peer connection did not come about");
            }
            Err(error) => debug!(%error, "a peer connection did not come about"),
        }
    }
}

/// Waits for the end of a handshake as long as it has its place and the other end is not silent.
async fn finish(
    accepting: Accepting,
    silence: Duration,
    limit: Duration,
    place: Place,
    all: &HalfOpen,
) -> Result<Authenticated, HandshakeError> {
    match place.hold(tokio::time::timeout(limit, accepting.finish(silence))).await {
        Some(Ok(Ok(connection))) => Ok(connection),
        Some(Ok(Err(Unfinished::Lost(error)))) => Err(error.into()),
        Some(Ok(Err(Unfinished::Silent))) => {
            all.fell_silent();
            Err(HandshakeError::Timeout)
        }
        Some(Err(_)) | None => Err(HandshakeError::Timeout),
    }
}
