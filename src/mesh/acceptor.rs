//! Lets connections in: links from outside, peer connections through the switch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, broadcast, mpsc};
use tracing::{debug, warn};

use super::dialler::MakeHello;
use super::events::Event;
use super::input::Input;
use super::peers::Peers;
use super::refusal_log::SharedRefusalLog;
use crate::transport::code::CloseCode;
use crate::transport::endpoint::{Admission, Connecting, Endpoint};
use crate::transport::handshake::{self, Established, HandshakeError};

/// Handshakes under way at a time, at most; beyond that newcomers are turned away and try again.
const MAX_HANDSHAKES: usize = 512;
/// How long a newcomer may take from its first packet to its HELLO.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to end its handshake. It may have streams open already, and its last word may be lost several
/// times: the longest wait between two of them is as long as a peer connection stays without hearing anything.
const PEER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

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
}

impl Acceptor {
    /// Runs until the endpoint is closed.
    pub(crate) async fn run(self) {
        let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        while let Some(incoming) = self.endpoint.accept().await {
            if !self.accept_links && !Endpoint::is_peer(&incoming) {
                // Nothing answers where nothing listens.
                incoming.ignore();
                continue;
            }
            let Ok(place) = places.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let under_way = MAX_HANDSHAKES - places.available_permits();
            let acceptor = self.clone();
            match self.endpoint.admit(incoming, under_way) {
                Admission::Link(connecting) => {
                    tokio::spawn(async move {
                        acceptor.link(connecting).await;
                        drop(place);
                    });
                }
                Admission::Peer(connecting) => {
                    tokio::spawn(async move {
                        acceptor.peer(connecting).await;
                        drop(place);
                    });
                }
                Admission::Retried => {}
                Admission::Failed(error) => debug!(%error, "turned a connection away"),
            }
        }
    }

    async fn link(&self, connecting: Connecting) {
        let address = connecting.remote_address();
        match self.handshake(connecting).await {
            Ok(established) => {
                // The driver has gone if this fails, and the connection goes with it.
                let _ = self.inputs.send(Input::Established(Box::new(established))).await;
            }
            Err(error) => match error.refusal() {
                Some(why) => {
                    let why = why.naming(&self.endpoint.identity());
                    if let Some(suppressed) = self.refusals.admit(address.ip()) {
                        warn!(%address, %why, suppressed, "refused a link");
                    }
                    let _ = self.events.send(Event::LinkRefused { address: address.to_string(), why });
                }
                None => debug!(%address, %error, "a link did not come about"),
            },
        }
    }

    async fn handshake(&self, connecting: Connecting) -> Result<Established, HandshakeError> {
        let handshake = async {
            let connection = connecting.await?;
            let hello = self.hello.hello(connection.remote_address());
            handshake::accept(connection, hello).await
        };
        let finished = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        finished.unwrap_or(Err(HandshakeError::Timeout))
    }

    async fn peer(&self, connecting: Connecting) {
        match tokio::time::timeout(PEER_HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => self.peers.accepted(&connection),
            Ok(Err(error)) => debug!(%error, "a peer connection did not come about"),
            Err(_) => debug!(code = %CloseCode::HandshakeTimeout, "a peer connection did not come about"),
        }
    }
}
