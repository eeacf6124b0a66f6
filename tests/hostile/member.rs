//! A member of the mesh that speaks the protocol by itself, and says what it likes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{AsyncUdpSocket, Connection, ConnectionError, EndpointConfig, TransportConfig, VarInt};
use receptor_quic::id::NodeAddr;
use receptor_quic::switch::{Attachment, Cookie};
use receptor_quic::{Identity, NodeId};
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::carrier::{Carrier, Uplink, overlay};
use crate::tls::{self, Credentials};

/// Longer than any wait of a node.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// What nodes must put into packets to the attacker.
const COOKIE: [u8; 8] = [3; 8];

/// The types of frames that the attacker sends or looks for.
pub(crate) mod frame {
    pub(crate) const HELLO: u8 = 0x00;
    pub(crate) const SELECT: u8 = 0x01;
    pub(crate) const PING: u8 = 0x02;
    pub(crate) const PONG: u8 = 0x03;
    pub(crate) const QUERY: u8 = 0x04;
    pub(crate) const CONVERGE: u8 = 0x07;
    pub(crate) const OBSERVED: u8 = 0x09;
    pub(crate) const TWIN: u8 = 0x0b;
}

/// The process: an endpoint on a socket of its own, and a genuine identity.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) identity: Identity,
    pub(crate) credentials: Credentials,
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) instance: u64,
}

/// What the attacker says of itself in HELLO.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Role {
    pub(crate) stub: bool,
    pub(crate) transit: bool,
}

/// A node without transit, with a record of its own.
pub(crate) const EDGE: Role = Role { stub: false, transit: false };
/// A node that says that it forwards.
pub(crate) const RELAY: Role = Role { stub: false, transit: true };

/// A link whose HELLO is done.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) control: quinn::SendStream,
    pub(crate) frames: Frames,
    /// The neighbour, from its HELLO.
    pub(crate) neighbour: NodeId,
    pub(crate) instance: u64,
    pub(crate) cookie: Cookie,
}

/// Reads frames, without an opinion about them.
#[derive(Debug)]
pub(crate) struct Frames {
    recv: quinn::RecvStream,
}

type HelloFields = (u8, Vec<u16>, String, u64, u64, u32, bool, bool, String, ByteBuf, String);

impl Member {
    pub(crate) fn new(udp: Arc<dyn AsyncUdpSocket>, id: NodeId, identity: Identity) -> Self {
        let credentials = Credentials::of(&identity);
        let carrier = Carrier::new(udp);
        let server = quinn::ServerConfig::with_crypto(tls::server(&credentials));
        let endpoint = endpoint(carrier.clone(), Some(server));
        Self { id, identity, credentials, carrier, endpoint, instance: 2 }
    }

    /// A connection to a neighbour, or through the mesh with [`overlay`], and nothing said yet.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Result<Connection, ConnectionError> {
        let config = client_config(Some(&self.credentials));
        self.endpoint.connect_with(config, to, "receptor").unwrap().await
    }

    /// A peer connection through the mesh.
    pub(crate) async fn connect_peer(&self, node: &NodeId) -> Result<Connection, ConnectionError> {
        self.connect(overlay(node.addr())).await
    }

    /// A link whose HELLO is done. Switched packets take it from now on.
    pub(crate) async fn hello(&self, to: SocketAddr, role: Role) -> Link {
        let connection = self.connect(to).await.unwrap();
        let (mut control, recv) = connection.open_bi().await.unwrap();
        let hello: HelloFields = (
            frame::HELLO,
            vec![1],
            self.id.to_string(),
            1,
            self.instance,
            1,
            role.stub,
            role.transit,
            "10.0.0.9:7400".to_owned(),
            ByteBuf::from(COOKIE),
            "mallory".to_owned(),
        );
        control.write_all(&framed(&hello)).await.unwrap();
        let mut frames = Frames { recv };
        let answer = frames.next().await.expect("an answer");
        let (_, _, neighbour, _, instance, _, _, _, _, cookie, _): HelloFields =
            rmp_serde::from_slice(&answer).unwrap();
        let neighbour: NodeId = neighbour.parse().unwrap();
        let cookie = Cookie(cookie.as_slice().try_into().unwrap());
        let source = self.id.addr();
        let attachment =
            if role.stub { Attachment::Source(neighbour.addr()) } else { Attachment::None };
        self.carrier.set_uplink(Uplink { to, cookie, source, attachment });
        Link { connection, control, frames, neighbour, instance, cookie }
    }

    /// A link that is in use.
    pub(crate) async fn link(&self, to: SocketAddr, role: Role) -> Link {
        let mut link = self.hello(to, role).await;
        // Of two ends the one with the smaller id selects; a stub is always selected by its
        // neighbour.
        if !role.stub && self.id < link.neighbour {
            link.send(&(frame::SELECT, 1_u64)).await;
        }
        link
    }

    /// Packets have another source than the attacker's own from now on.
    pub(crate) fn pretend(&self, link: &Link, source: NodeAddr, attachment: Attachment) {
        let to = link.connection.remote_address();
        self.carrier.set_uplink(Uplink { to, cookie: link.cookie, source, attachment });
    }
}

impl Link {
    pub(crate) async fn send<T: Serialize>(&mut self, fields: &T) {
        self.write(&framed(fields)).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // A victim that has closed the link has defended itself; the test sees it by the link's
        // end.
        let _ = self.control.write_all(bytes).await;
    }
}

impl Frames {
    /// The body of the next frame; `None` at the end of the link.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        let mut len = [0; 4];
        self.recv.read_exact(&mut len).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.recv.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    /// Reads and forgets everything, so that the neighbour never waits for the attacker.
    pub(crate) async fn discard(mut self) {
        while self.next().await.is_some() {}
    }
}

/// The code that the other side closes with.
pub(crate) async fn close_code(connection: &Connection) -> u64 {
    let closed =
        tokio::time::timeout(LONG, connection.closed()).await.expect("the connection is closed");
    let code = match &closed {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    };
    code.expect("the connection is closed with a code")
}

/// A structure as a frame.
pub(crate) fn framed<T: Serialize>(fields: &T) -> Vec<u8> {
    let body = rmp_serde::to_vec(fields).unwrap();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// The type of a frame, from its body.
pub(crate) fn frame_type(body: &[u8]) -> u8 {
    match body {
        [0x90..=0x9f, 0xcc, number, ..] | [0x90..=0x9f, number, ..] | [0xdc, _, _, number, ..] => {
            *number
        }
        _ => u8::MAX,
    }
}

pub(crate) fn endpoint(
    socket: Arc<Carrier>,
    server: Option<quinn::ServerConfig>,
) -> quinn::Endpoint {
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime).unwrap()
}

pub(crate) fn client_config(credentials: Option<&Credentials>) -> quinn::ClientConfig {
    let mut config = quinn::ClientConfig::new(tls::client(credentials));
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(Duration::from_secs(1)))
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(2_000));
    config.transport_config(Arc::new(transport));
    config
}

pub(crate) fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}
