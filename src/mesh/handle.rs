//! The handle to a running mesh: what the node and the work layer use.

mod leave;
mod open;
mod routes;
mod spawn;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{Instrument, info_span};

use crate::id::{NodeId, ServiceName};
use crate::mesh::access::gate::Gate;
use crate::mesh::driver::shutdown::{ShutDown, Shutdown};
use crate::mesh::input::{Command, Input};
use crate::mesh::links::dialling::dials::DialledPeers;
use crate::mesh::links::dialling::peer_addr::PeerAddr;
use crate::mesh::links::trust::vetting::Vetting;
use crate::mesh::network::outside::Outside;
use crate::mesh::peers::Peers;
use crate::mesh::report::convergence::{ConvergeError, Convergence};
use crate::mesh::report::events::Event;
use crate::mesh::report::explanation::NodeExplanation;
use crate::mesh::report::status::{Status, StatusOptions};
use crate::mesh::services::datagrams::datagram::DatagramListener;
use crate::mesh::services::serve_error::ServeError;
use crate::mesh::services::{Admission, Listener, Services};
use crate::mesh::view::View;
use crate::policy::{Policy, TransitDefault};
use crate::transport::endpoint::Endpoint;
#[cfg(feature = "testing")]
use crate::transport::unreachable::Reports;
use crate::transport::{Identity, Refusal};

pub(crate) use routes::next_hop;
pub(crate) use spawn::Parts;

/// How long to wait for a route that is not there: the flood that brings it is usually just behind.
const ROUTE_WAIT: Duration = Duration::from_secs(1);
/// How long an explanation waits for the proofs of claims about a stub: an answer is asked for
/// twice, a second each.
const EXPLAIN_WAIT: Duration = Duration::from_millis(2_500);

/// A running mesh; clones share it. When the last one is dropped, the mesh is closed, without a
/// farewell.
#[derive(Clone)]
pub(crate) struct Mesh(Arc<Inner>);

struct Inner {
    id: NodeId,
    endpoint: Arc<Endpoint>,
    services: Services,
    peers: Peers,
    vetting: Vetting,
    dialled: DialledPeers,
    inputs: mpsc::Sender<Input>,
    /// Held while the identity or the policy is replaced.
    reloading: tokio::sync::Mutex<()>,
    capabilities: watch::Sender<bytes::Bytes>,
    view: watch::Receiver<Arc<View>>,
    /// Weak, so that listeners see the end when the tasks that report events have gone.
    events: broadcast::WeakSender<Event>,
    #[cfg(feature = "testing")]
    reports: Reports,
    outside: Outside,
    /// Where links by TLS are let in.
    listen_tcp: Vec<SocketAddr>,
    /// The runtime that drives the node. A caller's may be another one, and end sooner.
    runtime: Handle,
    shutdown: Shutdown,
    /// Dropped, or sent `true`, it ends the driver.
    life: watch::Sender<bool>,
}

/// A reference to a mesh that does not keep it running.
#[derive(Clone)]
pub(crate) struct WeakMesh(Weak<Inner>);

impl WeakMesh {
    /// The mesh, if somebody else keeps it running.
    pub(crate) fn upgrade(&self) -> Option<Mesh> {
        self.0.upgrade().map(Mesh)
    }
}

impl Mesh {
    pub(crate) fn id(&self) -> &NodeId {
        &self.0.id
    }

    pub(crate) fn downgrade(&self) -> WeakMesh {
        WeakMesh(Arc::downgrade(&self.0))
    }

    /// Plays an ICMP message that says that nothing listens at `addr`.
    #[cfg(feature = "testing")]
    pub(crate) fn report_closed_port(&self, addr: SocketAddr) {
        self.0.reports.report(addr, crate::transport::unreachable::Reason::Port);
    }

    /// Where the node takes packets.
    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.endpoint.socket().bound_addrs()
    }

    /// Where the node takes links by TLS.
    pub(crate) fn local_tcp_addrs(&self) -> Vec<SocketAddr> {
        self.0.listen_tcp.clone()
    }

    /// Offers a service.
    pub(crate) fn serve(
        &self,
        service: ServiceName,
        admission: Admission,
    ) -> Result<Listener, ServeError> {
        self.0.services.offer(service, false, admission)
    }

    /// Offers the service of calls, which accepts streams of callers who have no credit left for
    /// others.
    pub(crate) fn serve_calls(&self, service: ServiceName) -> Result<Listener, ServeError> {
        self.0.services.offer(service, true, Admission::Own)
    }

    /// Takes datagrams for a service.
    pub(crate) fn serve_datagrams(
        &self,
        service: ServiceName,
    ) -> Result<DatagramListener, ServeError> {
        self.0.services.datagrams.offer(service)
    }

    /// The routes and links as they are now, and as they change.
    pub(crate) fn view(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.clone()
    }

    /// Waits until the node is part of the mesh, or every configured peer has refused it. An empty
    /// error: it never will.
    pub(crate) async fn linked(&self) -> Result<(), Vec<(PeerAddr, Refusal)>> {
        let mut events = self.events();
        let mut view = self.0.view.clone();
        loop {
            let dialled = self.0.dialled.list();
            let refusals: Vec<_> = dialled
                .iter()
                .filter_map(|dialled| {
                    Some((dialled.peer.clone(), dialled.with(|state| state.refusal.clone())?))
                })
                .collect();
            if !refusals.is_empty() && refusals.len() == dialled.len() {
                return Err(refusals);
            }
            tokio::select! {
                biased;
                linked = view.wait_for(|view| view.linked || view.closed || view.yielded_to.is_some()) => {
                    return match linked {
                        Ok(view) if view.linked && view.yielded_to.is_none() => Ok(()),
                        _ => Err(Vec::new()),
                    };
                }
                // Whatever happened, the peers are looked at again.
                _ = events.recv() => {}
            }
        }
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        // Without a sender, it is at its end.
        self.0.events.upgrade().unwrap_or_else(|| broadcast::channel(1).0).subscribe()
    }

    pub(crate) async fn status(&self, options: StatusOptions) -> Result<Status, ShutDown> {
        let snapshot = self.ask(|reply| Command::Status(options, reply)).await?;
        if snapshot.is_small() {
            return Ok(snapshot.into_status());
        }
        // Neither the driver nor this runtime's other tasks wait for it.
        let building = self.0.runtime.spawn_blocking(move || snapshot.into_status());
        building.await.map_err(|_| ShutDown)
    }

    pub(crate) async fn explain(&self, node: &NodeId) -> Result<NodeExplanation, ShutDown> {
        let stub = self.0.view.borrow().stub;
        if stub && *node != self.0.id {
            // Its neighbour knows whether the node has left. What it answers is kept.
            let answer = self.ask(|reply| Command::Query(node.clone(), reply));
            let _ = tokio::time::timeout(ROUTE_WAIT, answer).await;
        }
        let known = self.ask(|reply| Command::Explain(node.clone(), reply)).await?;
        if !known.awaits_proof() {
            return Ok(known);
        }
        // The claims about a stub are verified when somebody asks for it.
        let mut view = self.0.view.clone();
        let verified = async {
            self.0
                .inputs
                .send(Input::Command(Command::Verify(node.clone())))
                .await
                .map_err(|_| ShutDown)?;
            loop {
                view.changed().await.map_err(|_| ShutDown)?;
                let known = self.ask(|reply| Command::Explain(node.clone(), reply)).await?;
                if !known.awaits_proof() {
                    return Ok(known);
                }
            }
        };
        tokio::time::timeout(EXPLAIN_WAIT, verified).await.unwrap_or(Ok(known))
    }

    /// Whether all nodes have the route to this one. Dropped, it gives the request up.
    pub(crate) async fn converged(&self, within: Duration) -> Result<Convergence, ConvergeError> {
        let answer = self.ask(|reply| Command::Converge(within, reply)).await;
        answer.unwrap_or(Err(ConvergeError::ShutDown))
    }

    /// Replaces what the node advertises of itself. `current` is called under a lock, so that of
    /// two changes at once the later one to be made is also the later one to be seen.
    pub(crate) fn set_capabilities(&self, current: impl FnOnce() -> bytes::Bytes) {
        self.0.capabilities.send_modify(|capabilities| *capabilities = current());
    }

    /// Shows another identity from now on, proves it on live connections, and closes those that it
    /// does not accept.
    pub(crate) async fn reload(&self, identity: Identity) -> Result<(), ShutDown> {
        let _turn = self.0.reloading.lock().await;
        self.show(self.gate().judging_transit(identity)).await
    }

    /// Decides by this policy from now on.
    pub(crate) async fn set_policy(&self, policy: Option<Policy>) -> Result<(), ShutDown> {
        let _turn = self.0.reloading.lock().await;
        let restricts = |policy: Option<&Policy>| {
            policy.map(Policy::transit_default) == Some(TransitDefault::Deny)
        };
        let changes_transit =
            restricts(self.gate().policy().as_deref()) || restricts(policy.as_ref());
        let gate = self.gate().clone();
        // With many rules and connections it takes a while, and other tasks go on.
        let deciding = self.0.runtime.spawn_blocking(move || gate.set_policy(policy));
        deciding.await.map_err(|_| ShutDown)?;
        if !changes_transit {
            return Ok(());
        }
        let identity = Identity::clone(&self.0.endpoint.identity());
        self.show(self.gate().judging_transit(identity)).await
    }

    async fn show(&self, identity: Identity) -> Result<(), ShutDown> {
        self.0.vetting.reload(identity.clone());
        let reload = Input::Command(Command::Reload(Box::new(identity)));
        self.0.inputs.send(reload).await.map_err(|_| ShutDown)
    }

    /// Who may do what.
    pub(crate) fn gate(&self) -> &Gate {
        self.0.vetting.gate()
    }

    /// Dials these peers from now on.
    pub(crate) async fn set_peers(&self, peers: Vec<PeerAddr>) -> Result<(), ShutDown> {
        self.ask(|reply| Command::SetPeers(peers, reply)).await
    }

    /// Runs a task on the runtime that drives the node. It is dropped at once if that is gone.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(task.instrument(info_span!("node", id = %self.0.id)));
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ShutDown> {
        let (reply, answer) = oneshot::channel();
        self.0.inputs.send(Input::Command(command(reply))).await.map_err(|_| ShutDown)?;
        answer.await.map_err(|_| ShutDown)
    }
}
