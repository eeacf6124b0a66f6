//! A driver that takes one step at a time among real nodes: what it publishes, and before what.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::attacker::{LONG, Scene, id};
use super::hub::Stubs;
use crate::Node;
use crate::mesh::access::gate::Gate;
use crate::mesh::driver::Driver;
use crate::mesh::handle::{Mesh, Parts};
use crate::mesh::input::{Command, Input};
use crate::mesh::links::dialling::names::SystemResolver;
use crate::mesh::links::endings::MAX_AT_A_TIME;
use crate::mesh::links::link_cost::LinkCosts;
use crate::mesh::network::interfaces::Interfaces;
use crate::mesh::report::log::LogLimits;
use crate::mesh::view::View;
use crate::mesh::{Convergence, clock};
use crate::transport::settings::{MAX_DATAGRAM, ReceiveLimits};
use crate::transport::unreachable::Reports;
use crate::transport::{Congestion, Liveness, Socket};

/// How long a step waits for an input, as the loop waits for its deadline.
const STEP: Duration = Duration::from_millis(5);

/// Whether a step publishes changes after its input, as the loop does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Publishes {
    AfterInputs,
    /// The loop does not get to it: only what cannot wait is published.
    WhatCannotWait,
}

/// A node whose driver runs in [`step`](Self::step) alone.
struct Stepped {
    driver: Driver,
    queue: mpsc::Receiver<Input>,
    view: watch::Receiver<Arc<View>>,
    addr: SocketAddr,
    publishes: Publishes,
    /// Views that were published.
    published: usize,
    /// Most inputs that waited at a time.
    longest_queue: usize,
    _mesh: Mesh,
    _life: watch::Receiver<bool>,
}

impl Stepped {
    fn new(scene: &Scene, me: &str, publishes: Publishes) -> Self {
        let id = id(me);
        let udp = scene.mesh.network().bind_host();
        let addr = udp.address();
        let (mesh, driver, queue, life) = Mesh::assemble(Parts {
            identity: scene.mesh.authority().issue(&id, 1).expect("the CA can issue"),
            socket: Arc::new(
                Socket::new(vec![udp], id.addr(), Arc::default())
                    .expect("a virtual socket has an address"),
            ),
            gate: Gate::new(id.clone(), None, LogLimits::default()),
            id,
            renewable: Vec::new(),
            reports: Reports::default(),
            resolver: Arc::new(SystemResolver),
            interfaces: Interfaces::unknown(),
            #[cfg(feature = "mdns")]
            lan: false,
            #[cfg(feature = "portmap")]
            map_port: false,
            accept_links: true,
            listen_tcp: Vec::new(),
            peers: Vec::new(),
            transit: true,
            ephemeral: false,
            direct: false,
            external: Vec::new(),
            costs: LinkCosts::default(),
            liveness: Liveness::default(),
            congestion: Congestion::default(),
            peer_timeout: Duration::from_secs(5),
            receive_limits: ReceiveLimits::default(),
            max_datagram: MAX_DATAGRAM,
            epoch: 1,
            data_dir: None,
            manifest: Default::default(),
            logs: LogLimits::default(),
        })
        .expect("the parts are valid");
        let view = mesh.view();
        Self {
            driver,
            queue,
            view,
            addr,
            publishes,
            published: 0,
            longest_queue: 0,
            _mesh: mesh,
            _life: life,
        }
    }

    /// Handles the next input, or what is due if there is none.
    async fn step(&mut self) {
        let input = tokio::time::timeout(STEP, self.queue.recv()).await.ok().flatten();
        let now = clock::now();
        match input {
            Some(input) => self.driver.handle_input(input, now),
            None => self.driver.handle_timeout(now),
        }
        self.driver.drain(now);
        self.longest_queue = self.longest_queue.max(self.queue.len());
        if self.publishes == Publishes::AfterInputs {
            self.driver.publish_changes(self.queue.is_empty(), now);
        }
        self.published += usize::from(self.view.has_changed().expect("the driver lives"));
        self.view.mark_unchanged();
    }

    /// Runs the driver until something else has happened.
    async fn until<T>(&mut self, happens: impl Future<Output = T>) -> T {
        let mut happens = pin!(happens);
        let happening = async {
            loop {
                tokio::select! {
                    biased;
                    result = &mut happens => return result,
                    () = self.step() => {}
                }
            }
        };
        tokio::time::timeout(LONG, happening).await.expect("it happens within a minute")
    }

    /// A node that is linked to this one.
    async fn neighbour(&mut self, scene: &Scene, name: &str) -> Node {
        let builder = scene.mesh.joiner(name, &[]).peer(self.addr);
        let node = builder.start().await.expect("the settings are valid");
        self.until(node.linked()).await.expect("nobody refuses it");
        node
    }

    fn has_published(&self, node: &str) -> bool {
        let view = self.view.borrow();
        view.table.route(&id(node)).is_some() && view.forwarding.is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn routes_are_in_use_before_an_echo_vouches_for_them() {
    let scene = Scene::new().await;
    let mut stepped = Stepped::new(&scene, "anna", Publishes::WhatCannotWait);
    let zoe = stepped.neighbour(&scene, "zoe").await;
    assert_eq!(stepped.published, 0);
    let verdict = stepped.until(zoe.converged(LONG)).await;
    assert_eq!(verdict, Ok(Convergence::Converged { count: 2 }));
    assert!(stepped.has_published("zoe"));
}

#[tokio::test(start_paused = true)]
async fn routes_are_in_use_before_the_verdict_on_them() {
    let scene = Scene::new().await;
    let mut stepped = Stepped::new(&scene, "anna", Publishes::WhatCannotWait);
    let _zoe = stepped.neighbour(&scene, "zoe").await;
    let (reply, verdict) = oneshot::channel();
    stepped.driver.handle_input(Input::Command(Command::Converge(LONG, reply)), clock::now());
    assert_eq!(stepped.published, 0);
    let verdict = stepped.until(verdict).await;
    assert_eq!(verdict, Ok(Ok(Convergence::Converged { count: 2 })));
    assert!(stepped.has_published("zoe"));
}

#[tokio::test(start_paused = true)]
async fn stubs_lost_at_once_end_in_batches_and_are_published_together() {
    const STUBS: usize = 100;
    let scene = Scene::new().await;
    let mut stepped = Stepped::new(&scene, "anna", Publishes::AfterInputs);
    let anna = (id("anna"), stepped.addr);
    let stubs = stepped.until(Stubs::attach_to(&scene, &anna, 0..STUBS)).await;
    assert_eq!(stepped.driver.neighbours.links().len(), STUBS);
    stepped.until(tokio::time::sleep(Duration::from_secs(5))).await;
    (stepped.published, stepped.longest_queue) = (0, 0);
    stubs.endpoint.close(0_u32.into(), b"");
    stepped.until(tokio::time::sleep(Duration::from_secs(2))).await;
    assert_eq!(stepped.driver.neighbours.links().len(), 0);
    let Stepped { published, longest_queue, .. } = stepped;
    assert!((1..=STUBS / 10).contains(&published), "{published}");
    assert!((1..=MAX_AT_A_TIME).contains(&longest_queue), "{longest_queue}");
}
