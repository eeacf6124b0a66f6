//! A raw QUIC client with a certificate of the mesh, which says what it likes.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, TransportConfig, VarInt};

use crate::id::{Cost, NodeId, Version};
use crate::mesh::Status;
use crate::mesh::clock;
use crate::mesh::driver::stubs::attaching::attach;
use crate::mesh::links::trust::notary::CertificateNotary;
use crate::mesh::report::status::LinkState;
use crate::router::Attachment;
use crate::switch::{Cookie, ForwardingTable, Ingress, NextHop, Routes};
use crate::testing::{Mesh, VirtualSocket, mesh};
use crate::transport::code::CloseCode;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::{Frame, FrameReader, Hello};
use crate::transport::handshake::{self, Established};
use crate::transport::path_mtu::PathMtus;
use crate::transport::settings::Transports;
use crate::transport::tls::{SERVER_NAME, TlsConfig};
use crate::transport::{Identity, Socket, settings};
use crate::{Congestion, Liveness};

/// Longer than any wait in the node.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// An honest node, its honest neighbour, and the identity of one that is not.
pub(super) struct Scene {
    pub(super) mesh: Mesh,
    pub(super) identity: Identity,
}

/// A connection of the attacker, and the control stream on it.
pub(super) struct Attacker {
    pub(super) connection: Connection,
    pub(super) control: quinn::SendStream,
    pub(super) frames: FrameReader,
    // Dropped, it would close the connection.
    _endpoint: quinn::Endpoint,
}

/// The attacker as a stub of the victim's.
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    pub(super) link: Established,
    pub(super) udp: Arc<VirtualSocket>,
}

impl Scene {
    /// `victim` is linked by `honest`; `mallory` has a certificate.
    pub(super) async fn new() -> Self {
        let mesh = mesh(["honest-victim"]).await;
        let identity = mesh.authority().issue(&mallory(), 1).unwrap();
        Self { mesh, identity }
    }

    /// The same, with direct paths.
    pub(super) async fn with_direct_paths() -> Self {
        let network = crate::testing::Network::new(1);
        let mesh = Mesh::with(network, ["honest-victim"], |builder| builder.direct(true)).await;
        let identity = mesh.authority().issue(&mallory(), 1).unwrap();
        Self { mesh, identity }
    }

    /// An endpoint on a host of its own.
    pub(super) fn endpoint(&self) -> quinn::Endpoint {
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket = self.mesh.network().bind_host();
        quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            None,
            socket,
            runtime,
        )
        .unwrap()
    }

    /// A connection with a valid certificate and nothing said yet.
    pub(super) async fn connect(&self) -> (quinn::Endpoint, Connection) {
        let tls = TlsConfig::new(&self.identity, self.identity.trust());
        let mut config = quinn::ClientConfig::new(tls.client(Some(id("victim"))));
        config.transport_config(transport());
        let endpoint = self.endpoint();
        let connection = endpoint
            .connect_with(config, self.mesh.addr("victim"), SERVER_NAME)
            .unwrap()
            .await
            .unwrap();
        (endpoint, connection)
    }

    /// The control stream is open, and begins with these bytes.
    pub(super) async fn say(&self, bytes: &[u8]) -> Attacker {
        let (_endpoint, connection) = self.connect().await;
        let (mut control, recv) = connection.open_bi().await.unwrap();
        control.write_all(bytes).await.unwrap();
        Attacker { connection, control, frames: FrameReader::new(recv), _endpoint }
    }

    /// HELLO is done.
    pub(super) async fn greet(&self) -> Attacker {
        let mut attacker = self.say(&Frame::Hello(Box::new(hello())).encode()).await;
        let answer = attacker.next().await;
        assert!(matches!(&answer, Frame::Hello(hello) if hello.id == id("victim")), "{answer:?}");
        attacker
    }

    /// HELLO is done, and the session has begun.
    pub(super) async fn link(&self) -> Attacker {
        let mut attacker = self.greet().await;
        attacker.write(&Frame::Select(1).encode()).await;
        // The router speaks first of all of its digest.
        let first = attacker.next().await;
        assert!(matches!(first, Frame::Route(_)), "{first:?}");
        attacker
    }

    /// The attacker as a node would be: with a link, and a switch that sends through it.
    pub(super) async fn member(&self) -> Member {
        // As a stub it is reached without any routing.
        let mut member = self.member_saying(Hello { stub: true, transit: false, ..hello() }).await;
        assert!(matches!(member.link.frames.next().await, Ok(Some(Frame::Select(_)))));
        assert!(matches!(member.link.frames.next().await, Ok(Some(Frame::Attached(_)))));
        let proof = self.attachment(&mallory(), &id("victim"));
        member.link.control.write_all(&attach(&proof).encode()).await.unwrap();
        member
    }

    /// What `stub` would sign, if the attacker's certificate were that of `stub`.
    pub(super) fn attachment(&self, stub: &NodeId, neighbour: &NodeId) -> Attachment {
        let notary = CertificateNotary::new(&self.identity, clock::system);
        let Hello { epoch, instance, .. } = hello();
        let version = Version { epoch, sequence: 0, instance };
        notary
            .attach(stub, neighbour, version, Duration::from_secs(7_200))
            .expect("the key can sign")
    }

    /// The attacker as a node that refuses transit, with a link that is chosen, and never ends its
    /// sync.
    pub(super) async fn edge(&self) -> Member {
        let mut member = self.member_saying(Hello { transit: false, ..hello() }).await;
        member.link.control.write_all(&Frame::Select(1).encode()).await.unwrap();
        assert!(matches!(member.link.frames.next().await, Ok(Some(Frame::Route(_)))));
        member
    }

    pub(super) async fn member_saying(&self, own: Hello) -> Member {
        let (victim, mallory) = (id("victim").addr(), mallory().addr());
        let udp = self.mesh.network().bind_host();
        let socket = Socket::new(vec![udp.clone()], mallory, Arc::default()).unwrap();
        let transports = Transports {
            liveness: Liveness::default(),
            congestion: Congestion::default(),
            max_datagram: settings::MAX_DATAGRAM,
            direct: true,
            measured: false,
        };
        let endpoint = Endpoint::new(
            Arc::new(socket),
            self.identity.clone(),
            transports,
            PathMtus::new(false),
        )
        .unwrap();
        let connection =
            endpoint.dial(self.mesh.addr("victim"), None, None).unwrap().await.unwrap();
        let link = handshake::dial(connection, own.clone(), None).await.unwrap();
        let mut routes = Routes::default();
        let place = routes.place(victim);
        routes.insert(victim, [place], [], 9);
        let mut table = ForwardingTable::new(mallory, false, Arc::new(routes));
        table.admit(own.cookie, Ingress { neighbour: victim, transit: true });
        let to = link.connection.remote_address();
        table.link(NextHop {
            neighbour: victim,
            to,
            from: None,
            local_port: None,
            cookie: link.hello.cookie,
        });
        endpoint.socket().publish(table);
        Member { endpoint, link, udp }
    }

    pub(super) async fn status(&self) -> Status {
        self.mesh.node("victim").status().await.unwrap()
    }

    /// Nothing of the attacker is left at the victim, and the honest neighbour is served.
    #[track_caller]
    pub(super) fn assert_unharmed(&self, what: &str) -> impl Future<Output = ()> {
        let what = what.to_owned();
        async move {
            self.assert_serves(&what).await;
            let links: Vec<_> =
                self.status().await.links.into_iter().map(|l| (l.peer, l.state)).collect();
            assert_eq!(links, [(Some(id("honest")), LinkState::Up)], "{what}");
        }
    }

    pub(super) async fn assert_serves(&self, what: &str) {
        for (from, to) in [("honest", "victim"), ("victim", "honest")] {
            let pong = self.mesh.node(from).ping(&id(to)).await;
            assert!(pong.is_ok(), "{what}: {from} pings {to}: {pong:?}");
        }
    }

    /// The attacker says this first of all, and sees its connection closed with this code.
    pub(super) async fn assert_closed(&self, what: &str, bytes: &[u8], code: CloseCode) {
        let attacker = self.say(bytes).await;
        assert_eq!(attacker.closed().await, code, "{what}");
        self.assert_unharmed(what).await;
    }
}

impl Attacker {
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.control.write_all(bytes).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> Frame {
        let next = tokio::time::timeout(LONG, self.frames.next()).await;
        next.expect("an answer").unwrap().expect("a frame")
    }

    /// The answer to a ping: the link is up, and everything before the ping was taken.
    pub(super) async fn assert_answered(&mut self, what: &str) {
        self.write(&Frame::Ping(99).encode()).await;
        loop {
            match self.next().await {
                Frame::Pong(99) => return,
                Frame::Route(_) => {}
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    pub(super) async fn closed(&self) -> CloseCode {
        close_code(&self.connection).await
    }
}

/// The code that the other side closes with.
pub(super) async fn close_code(connection: &Connection) -> CloseCode {
    match tokio::time::timeout(LONG, connection.closed()).await.expect("the connection is closed") {
        ConnectionError::ApplicationClosed(close) => close.error_code.into(),
        other => panic!("closed without a code: {other}"),
    }
}

pub(super) fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// The attacker. Its id is smaller than the victim's: it chooses the links.
pub(super) fn mallory() -> NodeId {
    id("mallory")
}

pub(super) fn hello() -> Hello {
    Hello {
        versions: vec![1],
        id: mallory(),
        epoch: 1,
        instance: 2,
        cost: Cost::DEFAULT,
        stub: false,
        transit: true,
        observed: "10.0.0.9:7400".parse().unwrap(),
        cookie: Cookie([3; 8]),
        agent: "mallory".to_owned(),
    }
}

/// Any bytes as a frame.
pub(super) fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

/// Keeps the connection alive, and takes little that it did not ask for.
pub(super) fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.keep_alive_interval(Some(Duration::from_secs(1)));
    config.stream_receive_window(VarInt::from_u32(64 * 1024));
    Arc::new(config)
}
