//! A member with a real router that is made to lie.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use receptor_quic::id::Cost;
use receptor_quic::mesh::CertificateNotary;
use receptor_quic::router::{Config, Message, NeighbourKind, Router, SessionUp};
use receptor_quic::{Identity, NodeId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::member::{Link, Member, frame, frame_type, framed};

/// What is done to the router.
type Order = Box<dyn FnOnce(&mut Router, Instant) + Send>;

/// A router that speaks over one link, and does what the test tells it.
#[derive(Debug)]
pub(crate) struct Puppet {
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
        Self { orders, task: tokio::spawn(run(config, links, received)) }
    }

    pub(crate) fn order(&self, order: impl FnOnce(&mut Router, Instant) + Send + 'static) {
        self.orders.send(Box::new(order)).unwrap();
    }

    /// Lists a stub that is not there.
    pub(crate) fn claim(&self, stub: NodeId) {
        self.order(move |router, now| {
            let (instance, cost) = (9, Cost::DEFAULT);
            let up = SessionUp { neighbour: stub, instance, cost, kind: NeighbourKind::Stub };
            router.handle_session_up(up, now).unwrap();
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
