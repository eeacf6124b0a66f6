//! A member with a real router that is made to lie.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use receptor_quic::id::Cost;
use receptor_quic::id::Version;
use receptor_quic::mesh::CertificateNotary;
use receptor_quic::router::{
    Attachment, Config, CredentialName, Message, NeighbourKind, Notary as _, Router, SessionUp,
};
use receptor_quic::{Identity, NodeId};
use rustls::SignatureScheme;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::member::{Link, Member, frame, frame_type, framed};

/// What signatures over attachments begin with.
const ATTACHMENT: &[u8] = b"receptor-quic attachment 1\0";
/// The instance of every stub that is made up.
const STUB_INSTANCE: u64 = 9;

/// What is done to the router.
type Order = Box<dyn FnOnce(&mut Router, Instant) + Send>;

/// A router that speaks over one link, and does what the test tells it.
#[derive(Debug)]
pub(crate) struct Puppet {
    id: NodeId,
    forger: Forger,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Puppet {
    /// Takes over a link. The record says what `transit` says.
    pub(crate) fn start(member: &Member, link: Link, transit: bool) -> Self {
        Self::start_with(member, vec![link], transit)
    }

    /// As [`start`](Self::start), with several links.
    pub(crate) fn start_with(member: &Member, links: Vec<Link>, transit: bool) -> Self {
        let notary = CertificateNotary::new(&member.identity, wall_clock);
        let config = Config {
            transit,
            notary: Some(Arc::new(notary)),
            ..Config::new(member.id.clone(), 1, member.instance, 7)
        };
        let (orders, received) = mpsc::unbounded_channel();
        let forger = Forger::new(member);
        Self {
            id: member.id.clone(),
            forger,
            orders,
            task: tokio::spawn(run(config, links, received)),
        }
    }

    pub(crate) fn order(&self, order: impl FnOnce(&mut Router, Instant) + Send + 'static) {
        self.orders.send(Box::new(order)).unwrap();
    }

    /// Lists a stub that is not there, with a proof that the attacker signs: worth nothing, unless
    /// the stub has the attacker's own name and a suffix.
    pub(crate) fn claim(&self, stub: NodeId) {
        let proof = self.forger.sign(&stub, &self.id);
        self.order(move |router, now| {
            let (instance, cost) = (STUB_INSTANCE, Cost::DEFAULT);
            let neighbour = stub;
            let up = SessionUp { neighbour, instance, cost, kind: NeighbourKind::Stub };
            router.handle_session_up(up, now).unwrap();
            assert!(
                router.set_attachment(proof, Duration::from_secs(3_000), now),
                "the puppet lists it"
            );
        });
    }

    /// Does not list it any more.
    pub(crate) fn disclaim(&self, stub: NodeId) {
        self.order(move |router, now| router.handle_session_down(&stub, now));
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(config: Config, links: Vec<Link>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let (forward, mut bodies) = mpsc::channel(64);
    let mut router = Router::new(config, now());
    let mut controls = BTreeMap::new();
    let mut connections = Vec::new();
    for link in links {
        let Link { connection, control, mut frames, neighbour, instance, .. } = link;
        connections.push(connection);
        controls.insert(neighbour.clone(), control);
        let (forward, from) = (forward.clone(), neighbour.clone());
        // Reading a frame cannot be interrupted.
        tokio::spawn(async move {
            while let Some(body) = frames.next().await {
                if forward.send((from.clone(), body)).await.is_err() {
                    return;
                }
            }
        });
        let (cost, kind) = (Cost::DEFAULT, NeighbourKind::Full);
        router.handle_session_up(SessionUp { neighbour, instance, cost, kind }, now()).unwrap();
    }
    drop(forward);
    loop {
        while router.poll_event().is_some() {}
        while let Some(transmit) = router.poll_transmit() {
            // Neighbours that it made up get nothing.
            if let Some(control) = controls.get_mut(&transmit.to) {
                let body = transmit.message.encode();
                let frame = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
                let _ = control.write_all(&frame).await;
                router.handle_writable(&transmit.to, now());
            }
        }
        let later = || now() + Duration::from_secs(1);
        let deadline = router.poll_timeout().map_or_else(later, |deadline| deadline.at);
        tokio::select! {
            biased;
            Some(order) = orders.recv() => order(&mut router, now()),
            body = bodies.recv() => match body {
                Some((from, body)) if frame_type(&body) == frame::PING => {
                    let (_, nonce): (u8, u64) = rmp_serde::from_slice(&body).unwrap();
                    let control = controls.get_mut(&from).unwrap();
                    let _ = control.write_all(&framed(&(frame::PONG, nonce))).await;
                }
                Some((from, body)) => {
                    if let Ok(Some(message)) = Message::decode(&body) {
                        let _ = router.handle_message(&from, message, now());
                    }
                }
                None => return,
            },
            () = tokio::time::sleep_until(deadline.into()) => router.handle_timeout(now()),
        }
    }
}

/// Signs attachments with the attacker's key, for whatever stub.
struct Forger {
    credential: Bytes,
    signer: Box<dyn rustls::sign::Signer>,
}

impl Forger {
    fn new(member: &Member) -> Self {
        let key = rustls::crypto::ring::sign::any_supported_type(&member.credentials.key).unwrap();
        // What `Authority` issues.
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        Self { credential: notary(&member.identity).credential(), signer }
    }

    fn sign(&self, stub: &NodeId, neighbour: &NodeId) -> Attachment {
        let since_1970 = wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let version = Version { epoch: u64::MAX >> 20, sequence: 1, instance: STUB_INSTANCE };
        let body = Attachment::body(stub, neighbour, version, since_1970.as_secs() + 3_000);
        let name = CredentialName::of(&self.credential).0;
        let signature = self.signer.sign(&[ATTACHMENT, &name, &body].concat()).unwrap();
        let signature = [&u16::from(self.signer.scheme()).to_be_bytes()[..], &signature].concat();
        Attachment::decode(body, signature.into(), self.credential.clone()).unwrap()
    }
}

impl std::fmt::Debug for Forger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forger")
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the certificates of the test are of today")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A notary of this identity, for records that the attacker writes by hand.
pub(crate) fn notary(identity: &Identity) -> CertificateNotary {
    CertificateNotary::new(identity, wall_clock)
}
