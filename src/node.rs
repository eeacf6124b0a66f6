//! A node: the whole of it, from configuration to shutdown.
//!
//! ```text
//!   builder ─▶ checked parts ─▶ spawn ─▶ Node ─▶ shutdown: refuse, drain, withdraw, close
//! ```

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use crate::id::{Cost, Directive, InvalidDirective, InvalidName, NodeId, ServiceName};
#[cfg(feature = "testing")]
use crate::mesh::LocalAddress;
use crate::mesh::core::{Mesh, Parts};
use crate::mesh::data_dir::datadir::{DataDir, Manifest};
use crate::mesh::data_dir::pid_lock;
use crate::mesh::data_dir::pid_lock::LockError;
use crate::mesh::links::names::{Resolve, SystemResolver};
use crate::mesh::network::interfaces::Interfaces;
use crate::mesh::services::usage::Purpose;
use crate::mesh::{
    ConvergeError, Convergence, DatagramListener, DatagramSender, Event, InvalidPeerAddr, LinkCost,
    LinkCosts, Listener, NodeExplanation, OpenError, OpenOptions, PeerAddr, ServeError, ShutDown,
    Status, StatusOptions, Stream, clock,
};
use crate::switch::SwitchCounters;
use crate::transport::settings::ReceiveLimits;
use crate::transport::unreachable::Reports;
use crate::transport::{
    Congestion, DEFAULT_PEER_TIMEOUT, Identity, InvalidListenAddr, ListenAddr, Liveness,
    PEER_TIMEOUTS, PortOpener, RECEIVE_WINDOWS, Refusal, Socket, bind, random, settings,
};
use crate::work::unit::{
    Engine, OpenUnitsError, OpenedUnits, SharedRef, Submit, UnitPayload, Units, UnitsConfig,
};
use crate::work::{
    self, Call, CallOptions, Command, HandlerError, PingError, Pong, RegisterError, Registry,
    Request, Responder, RpcError, TraceHop,
};

/// How long calls and streams may go on after [`Node::shutdown`] was called. Short enough for a
/// supervisor that kills after ten seconds, as Docker does; [`Node::shutdown_within`] takes
/// another.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Sockets that a node listens on, at most.
pub const MAX_LISTEN: usize = 8;
/// External addresses of a node, at most.
pub const MAX_EXTERNAL: usize = 8;

/// How long [`NodeBuilder::start`] waits for the data directory: a node of this process that was
/// shut down a moment ago may still be writing its last state.
const DATA_DIR_WAIT: Duration = Duration::from_secs(1);
/// Poll interval for the directory's lock, which has no notification.
const DATA_DIR_POLL: Duration = Duration::from_millis(20);

/// A node of the mesh.
///
/// Clones are cheap and share the node. When the last one is dropped, the node is closed at once:
/// its neighbours see the connections end, and streams fail. [`shutdown`](Self::shutdown) is the
/// orderly way. A handler that holds a clone of the node that it is registered with keeps it alive
/// until then.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    registry: Registry,
    /// `None` if the node keeps no units.
    units: Option<Engine>,
}

impl Node {
    /// Begins a node with this id, which the identity's certificate must carry.
    ///
    /// The id is a [`NodeId`], or text to be parsed; if that is not valid,
    /// [`start`](NodeBuilder::start) fails.
    pub fn builder(
        id: impl TryInto<NodeId, Error: Into<InvalidName>>,
        identity: Identity,
    ) -> NodeBuilder {
        NodeBuilder {
            id: name(id),
            invalid: None,
            identity,
            listen: Vec::new(),
            peers: Vec::new(),
            transit: false,
            transit_rate: None,
            ephemeral: false,
            direct: None,
            external: Vec::new(),
            data_dir: None,
            costs: LinkCosts::default(),
            liveness: Liveness::default(),
            congestion: Congestion::default(),
            peer_timeout: DEFAULT_PEER_TIMEOUT,
            receive_limits: ReceiveLimits::default(),
            max_datagram: settings::MAX_DATAGRAM,
            wait_converged: None,
            registry: Registry::new(),
            units: None,
            sockets: None,
            port_opener: None,
            resolver: Arc::new(SystemResolver),
            interfaces: None,
            #[cfg(feature = "mdns")]
            lan: false,
            #[cfg(feature = "portmap")]
            map_port: false,
        }
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.0.mesh.id()
    }

    /// Where the node takes packets, with the ports that the system chose.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.mesh.local_addrs()
    }

    /// Reports to the node that nothing listens at `addr`, as ICMP does. The virtual network
    /// carries no ICMP.
    #[cfg(feature = "testing")]
    pub fn report_closed_port(&self, addr: SocketAddr) {
        self.0.mesh.report_closed_port(addr);
    }

    /// Waits until the node is part of the mesh: synced with a neighbour or, as an ephemeral,
    /// attached to one.
    ///
    /// A node without configured peers waits until somebody links to it. Cancel safe.
    ///
    /// # Errors
    /// Every configured peer has refused this node, or is refused by it: the node goes on trying
    /// all the same. Or the node was shut down, or has yielded its id to another live process.
    pub async fn linked(&self) -> Result<(), NotLinked> {
        let yielded_to = || self.0.mesh.view().borrow().yielded_to.clone();
        self.0.mesh.linked().await.map_err(|refusals| match yielded_to() {
            Some(to) => NotLinked::Yielded { to },
            None if refusals.is_empty() => NotLinked::ShutDown,
            None => NotLinked::Refused(refusals),
        })
    }

    /// Waits until this node has yielded its id to another live process, and returns where that is,
    /// for people. From then on the node has no links and stays silent: shut it down, and start it
    /// again when the other process is gone. `None` once the node is shut down. Cancel safe.
    ///
    /// A node that a neighbour merely [refuses](crate::mesh::DuplicateStatus::refused) because of
    /// another process has not yielded: it keeps trying, and is back when the other one is gone.
    pub async fn yielded(&self) -> Option<String> {
        let mut view = self.0.mesh.view();
        let over = view.wait_for(|view| view.closed || view.yielded_to.is_some()).await;
        over.ok()?.yielded_to.clone()
    }

    /// Waits until this node has a way to `node`, for as long as it takes. Cancel safe.
    ///
    /// # Errors
    /// The name is not valid, or the node is shut down.
    pub async fn routable(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
    ) -> Result<(), LookupError> {
        Ok(self.0.mesh.routable(&name(node)?).await?)
    }

    /// Waits until every node that this one can reach has installed the route to it, or for
    /// `within`, which counts up to a day.
    ///
    /// [`Convergence::Converged`] means that each of them answered a record of this node that is
    /// younger than the call, and had put the route to use before: what they send to this node from
    /// now on has a way. It says nothing of what cannot be reached: the far side of a partition
    /// that is not noticed yet is still waited for, and one that is noticed is not. It holds for
    /// the moment; links may break the next. Nodes that this one has not heard of yet are asked,
    /// too, if they become reachable meanwhile. A node that is not linked is all of its mesh, and
    /// converged at once: wait for [`linked`](Self::linked) first. [`Convergence::Partial`] comes
    /// when the time is over; the mesh goes on converging all the same.
    ///
    /// For an ephemeral node its neighbour asks, and the nodes that answer know where it is
    /// attached; each fetches the proof when it first uses the ephemeral. The call waits up to a
    /// second longer for the answer, and one that comes while another waits may share its verdict.
    /// An ephemeral needs this only where others begin: what it sends itself works from the moment
    /// that it is linked.
    ///
    /// Cancel safe: dropping the future gives the request up. It costs a flood and its answers, two
    /// messages a link; up to 1,024 calls at a time share them.
    ///
    /// # Errors
    /// Too many wait, or the node leaves, has yielded its id, or is shut down.
    pub async fn converged(&self, within: Duration) -> Result<Convergence, ConvergeError> {
        self.0.mesh.converged(within).await
    }

    /// Opens a stream to a service of a node, whether it is a neighbour, far away, or this one.
    ///
    /// Returns as soon as the request is on its way: on a connection that is up no round trip is
    /// spent before data flows. What the other side answers shows at the first read, or with
    /// [`Stream::accepted`]. If there is no route, one is waited for, for a second. Cancel safe.
    ///
    /// # Errors
    /// [`OpenError`] says whose fault it is and what to do.
    pub async fn open(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<Stream, OpenError> {
        self.open_with(node, service, OpenOptions::default()).await
    }

    /// As [`open`](Self::open), giving up after `deadline`; the other side is told of it.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`OpenError::Deadline`].
    pub async fn open_within(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
        deadline: Duration,
    ) -> Result<Stream, OpenError> {
        let options = OpenOptions { deadline: Some(deadline), ..OpenOptions::default() };
        self.open_with(node, service, options).await
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open_within`](Self::open_within).
    pub async fn open_with(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
        options: OpenOptions,
    ) -> Result<Stream, OpenError> {
        self.0.mesh.open(&name(node)?, &name(service)?, options, Purpose::Application).await
    }

    /// Offers a service: streams that other nodes open to it come out of the listener until that is
    /// dropped.
    ///
    /// # Errors
    /// The service is offered already, there are too many, or the node is shut down.
    pub fn serve(
        &self,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<Listener, ServeError> {
        self.0.mesh.serve(name(service)?)
    }

    /// Makes a sender of datagrams to a service of a node: messages of at most a packet each,
    /// unreliable, in no order, and sealed end to end. The node is connected to first, if it is not
    /// yet; if there is no route, one is waited for, for a second. Cancel safe.
    ///
    /// Whether the node takes datagrams for the service, nobody says: those that it does not take
    /// are dropped there, and [counted](crate::mesh::DatagramStatus). Services of datagrams and of
    /// streams have nothing to do with each other, whatever their names.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn datagrams(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<DatagramSender, OpenError> {
        self.0.mesh.datagrams(&name(node)?, &name(service)?).await
    }

    /// Takes the datagrams that other nodes send to a service: they come out of the listener until
    /// that is dropped.
    ///
    /// # Errors
    /// The node takes datagrams for the service already, or for too many, or is shut down.
    pub fn serve_datagrams(
        &self,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<DatagramListener, ServeError> {
        self.0.mesh.serve_datagrams(name(service)?)
    }

    /// Handles calls for a directive with a function.
    ///
    /// # Errors
    /// The directive is handled already, there are too many, or the node is shut down.
    pub fn handle<F, Fut>(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        handler: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn(Request, Responder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.0.registry.handle(directive, handler)?;
        self.0.mesh.set_capabilities(|| work::capabilities(&self.0.registry));
        Ok(())
    }

    /// Handles calls for a directive with an external command.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    pub fn command(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        command: Command,
    ) -> Result<(), RegisterError> {
        self.0.registry.command(directive, command)?;
        self.0.mesh.set_capabilities(|| work::capabilities(&self.0.registry));
        Ok(())
    }

    /// Calls a directive on a node. The payload is written and the responses are read with the
    /// [`Call`].
    ///
    /// # Errors
    /// The call could not be sent. What happens to it afterwards, the call's own errors say.
    pub async fn call(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
    ) -> Result<Call, OpenError> {
        self.call_with(node, directive, CallOptions::default()).await
    }

    /// As [`call`](Self::call), with options.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_with(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        options: CallOptions,
    ) -> Result<Call, OpenError> {
        let (node, directive) = (name(node)?, parse_directive(directive)?);
        work::call_node(&self.0.mesh, &node, directive, options, Purpose::Application).await
    }

    /// Calls a directive with a request of serde, and decodes the response: see
    /// [`serve_rpc`](Self::serve_rpc).
    ///
    /// Gives up after [`RPC_DEADLINE`](work::RPC_DEADLINE); [`rpc_with`](Self::rpc_with) takes
    /// another deadline. Dropping the future cancels the call: the handler may have run by then.
    ///
    /// # Errors
    /// [`RpcError`] says whose fault it is, and whether the handler may have run.
    ///
    /// ```
    /// use receptor_quic::{Node, RpcError};
    ///
    /// async fn sum(node: &Node) -> Result<u64, RpcError> {
    ///     node.rpc("bob", "math:sum", &[1_u64, 2, 3]).await
    /// }
    /// ```
    pub async fn rpc<Req, Resp>(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        request: &Req,
    ) -> Result<Resp, RpcError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        let options = CallOptions { deadline: Some(work::RPC_DEADLINE), ..CallOptions::default() };
        self.rpc_with(node, directive, request, options).await
    }

    /// As [`rpc`](Self::rpc), with options; without a deadline in them, the call waits without a
    /// limit.
    ///
    /// # Errors
    /// As [`rpc`](Self::rpc).
    pub async fn rpc_with<Req, Resp>(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        request: &Req,
        options: CallOptions,
    ) -> Result<Resp, RpcError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        let payload = work::encode_request(request)?;
        let call = self.call_with(node, directive, options).await?;
        work::decode_response(&call.exchange(payload, work::MAX_RPC).await?)
    }

    /// Handles typed calls for a directive: the function gets the caller and the decoded request.
    /// What it returns is the response; any error is a failure at the caller, with its text.
    ///
    /// Requests and responses are MessagePack maps of at most [`MAX_RPC`](work::MAX_RPC) bytes
    /// each. A request that cannot be decoded fails the call without running the function. The
    /// function is dropped at its next await when the call is over.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    pub fn serve_rpc<Req, Resp, E, F, Fut>(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        handler: F,
    ) -> Result<(), RegisterError>
    where
        Req: DeserializeOwned + Send + 'static,
        Resp: Serialize + Send + Sync + 'static,
        E: Into<HandlerError> + Send + 'static,
        F: Fn(NodeId, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Resp, E>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.handle(directive, move |mut request, responder| {
            let handler = handler.clone();
            async move {
                let decoded: Req = work::read_request(&mut request).await?;
                let response =
                    handler(request.caller.clone(), decoded).await.map_err(Into::into)?;
                work::respond(&responder, &response).await
            }
        })
    }

    /// Removes the handler of a directive; calls that run go on. Returns whether there was one. The
    /// built-in directives, `receptor:…`, cannot be removed.
    ///
    /// # Errors
    /// The directive is not valid.
    pub fn remove_handler(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
    ) -> Result<bool, InvalidDirective> {
        let directive = parse_directive(directive)?;
        let removed = directive.namespace() != "receptor" && self.0.registry.remove(&directive);
        self.0.mesh.set_capabilities(|| work::capabilities(&self.0.registry));
        Ok(removed)
    }

    /// The directives that this node handles, sorted, the built-in ones included.
    #[must_use]
    pub fn directives(&self) -> Vec<Directive> {
        self.0.registry.directives()
    }

    /// Prepares a unit of work: a job that is handed to `node` as soon as that can be reached,
    /// starts at most once, and outlives every process involved. See [`work::unit`].
    ///
    /// The node needs [units](NodeBuilder::units); otherwise the submission fails.
    pub fn submit(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        payload: impl Into<UnitPayload>,
    ) -> Submit {
        Submit::new(self.units_shared(), name(node), parse_directive(directive), payload.into())
    }

    /// The units that this node has submitted, and those that it executes.
    #[must_use]
    pub fn units(&self) -> Units {
        Units::new(self.units_shared())
    }

    fn units_shared(&self) -> Option<SharedRef> {
        self.0.units.as_ref().map(|engine| engine.shared().clone())
    }

    /// Asks a node whether it is there, and what it is doing.
    ///
    /// # Errors
    /// The node could not be asked, or did not answer.
    pub async fn ping(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
    ) -> Result<Pong, PingError> {
        work::ping(&self.0.mesh, &name(node).map_err(OpenError::from)?).await
    }

    /// The nodes that packets for `node` pass, in order, as each of them says itself, with the
    /// round trip to each.
    ///
    /// # Errors
    /// There is no route, or a node on the way did not answer.
    pub async fn trace(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
    ) -> Result<Vec<TraceHop>, PingError> {
        work::trace(&self.0.mesh, &name(node).map_err(OpenError::from)?).await
    }

    /// A snapshot of the node, with everything it knows: on a hub with thousands of stubs, some
    /// megabytes. [`status_with`](Self::status_with) limits the stubs that are listed.
    ///
    /// # Errors
    /// The node is shut down.
    pub async fn status(&self) -> Result<Status, ShutDown> {
        self.status_with(StatusOptions::default()).await
    }

    /// A snapshot of the node with a limit on the stubs that are listed. [`Status::stubs`] counts
    /// all of them.
    ///
    /// # Errors
    /// The node is shut down.
    pub async fn status_with(&self, options: StatusOptions) -> Result<Status, ShutDown> {
        let mut status = self.0.mesh.status(options).await?;
        status.running_calls = self.0.registry.running().len();
        for route in &mut status.routes {
            route.directives =
                work::directives(&route.capabilities).iter().map(ToString::to_string).collect();
        }
        Ok(status)
    }

    /// Why a node is, or is not, reachable, as far as this node knows, and how its packets travel.
    ///
    /// # Errors
    /// The name is not valid, or the node is shut down.
    pub async fn explain(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
    ) -> Result<NodeExplanation, LookupError> {
        Ok(self.0.mesh.explain(&name(node)?).await?)
    }

    /// What happens from now on, until the node is shut down. A listener that falls more than 1,024
    /// events behind misses the oldest, and gets an error that says how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.mesh.events()
    }

    /// Shows another identity for the same id from now on, and accepts others by its trust.
    ///
    /// The new certificate is proven to the peer of every live connection, which is judged by the
    /// newest certificate that its peer has proven: certificates and CAs can be replaced for good
    /// without losing a stream, one node after the other. A connection whose newest certificate the
    /// new trust does not accept is closed, at once where the peer is denied or its certificate
    /// revoked, and after 1.5 s where a renewed certificate may be on its way. Handshakes that
    /// began before are judged again when they complete. Returns at once; the connections are dealt
    /// with on another task.
    ///
    /// # Errors
    /// The certificate does not carry the node's id: the old identity stays in use. Or the node is
    /// shut down.
    pub async fn reload(&self, identity: Identity) -> Result<(), StartError> {
        check_identity(self.id(), &identity)?;
        Ok(self.0.mesh.reload(identity).await?)
    }

    /// Waits until the node is linked, if it dials anybody, and has converged; says in the log if
    /// it has not.
    async fn settle(&self, within: Duration, dials: bool) {
        let start = tokio::time::Instant::now();
        if dials {
            match tokio::time::timeout(within, self.linked()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    return tracing::warn!(node = %self.id(), %error, "started without a link");
                }
                Err(_) => {
                    return tracing::warn!(node = %self.id(), ?within, "started without a link");
                }
            }
        }
        match self.converged(within.saturating_sub(start.elapsed())).await {
            Ok(Convergence::Converged { count }) => {
                tracing::info!(node = %self.id(), count, "converged")
            }
            Ok(Convergence::Partial { count, expected }) => {
                tracing::warn!(node = %self.id(), count, expected, "started before all nodes have its route");
            }
            Err(error) => tracing::warn!(node = %self.id(), %error, "not converged"),
        }
    }

    /// Leaves in order, with a grace period of [`SHUTDOWN_GRACE`]: as
    /// [`shutdown_within`](Self::shutdown_within).
    pub async fn shutdown(&self) {
        self.shutdown_within(SHUTDOWN_GRACE).await;
    }

    /// Leaves in order, and frees the port.
    ///
    /// From the first poll on, new calls and streams are refused with
    /// [`RefuseCode::Leaving`](crate::mesh::RefuseCode). Calls and streams that are open may end
    /// for up to `grace`, those that this node has opened included; a stream has ended when both
    /// directions are finished and delivered, reset or stopped, whether or not it is still held.
    /// What is left then ends with the code `leaving`: calls get it as their last response, streams
    /// by the close of their connection. Then the node withdraws from the mesh and closes its
    /// connections. Takes at most 15 seconds more than `grace`, which is cut to a day, and a few
    /// milliseconds more than a round trip if nothing is left.
    ///
    /// [Units](crate::work::unit) are not started any more. Commands of those that run go on, and
    /// the node finds them again when it is started again; functions end as calls do.
    ///
    /// The shutdown runs on a task of its own, on the runtime that drives the node: dropping the
    /// future does not interrupt it. Calls that come while it runs share its outcome, and the
    /// earliest end of a grace period counts. Afterwards the methods of all clones return errors
    /// that say that the node is shut down.
    ///
    /// Within a handler of this node, the handler's own call is not waited for; it is cut off after
    /// all others, and its caller gets [`CallError::Leaving`](crate::CallError::Leaving). To answer
    /// the caller first, spawn the shutdown and return from the handler.
    pub async fn shutdown_within(&self, grace: Duration) {
        let _waiver = self.0.registry.waive_own_call();
        let shutdown = self.0.mesh.shutdown();
        if shutdown.begin(grace) {
            let leaving = Leaving(self.clone());
            self.0.mesh.run(async move { leaving.run().await });
        }
        shutdown.done().await;
    }
}

/// A shutdown that runs. Dropped, with its runtime for instance, it lets its callers go.
struct Leaving(Node);

impl Leaving {
    async fn run(&self) {
        let Inner { mesh, registry, units } = &*self.0.0;
        // First, so that no unit is started whose handler could not be called.
        if let Some(units) = units {
            units.drain();
        }
        mesh.refuse_streams();
        registry.drain();
        let ended = async {
            registry.idle().await;
            mesh.streams_ended().await;
        };
        tokio::select! {
            biased;
            () = ended => {}
            () = mesh.shutdown().grace_over() => {}
        }
        registry.shutdown(Duration::ZERO).await;
        if let Some(units) = units {
            units.close();
        }
        mesh.leave().await;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.0.mesh.shutdown().finished();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The built-in handlers hold the registry, and it holds them.
        work::remove_builtins(&self.registry);
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", self.id()).finish_non_exhaustive()
    }
}

/// What a node will be.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct NodeBuilder {
    id: Result<NodeId, InvalidName>,
    /// The first argument of a setter that is not valid.
    invalid: Option<StartError>,
    identity: Identity,
    listen: Vec<ListenAddr>,
    peers: Vec<PeerAddr>,
    transit: bool,
    transit_rate: Option<NonZeroU64>,
    ephemeral: bool,
    direct: Option<bool>,
    external: Vec<SocketAddr>,
    data_dir: Option<PathBuf>,
    costs: LinkCosts,
    liveness: Liveness,
    congestion: Congestion,
    peer_timeout: Duration,
    receive_limits: ReceiveLimits,
    max_datagram: u16,
    wait_converged: Option<Duration>,
    registry: Registry,
    units: Option<UnitsConfig>,
    sockets: Option<Vec<Arc<dyn quinn::AsyncUdpSocket>>>,
    port_opener: Option<PortOpener>,
    resolver: Arc<dyn Resolve>,
    interfaces: Option<Interfaces>,
    #[cfg(feature = "mdns")]
    lan: bool,
    #[cfg(feature = "portmap")]
    map_port: bool,
}

impl NodeBuilder {
    /// Listens on this UDP address; port 0 lets the system choose. May be given up to
    /// [`MAX_LISTEN`] times, each with another IP address. Without any, the node only dials: it
    /// uses any port, and answers nobody who dials it.
    ///
    /// `[::]` includes IPv4, unless an IPv4 address is given as well: then each family has sockets
    /// of its own. On a host without IPv6 it is an error; see [`listen_any`](Self::listen_any).
    ///
    /// Takes a `SocketAddr`, or text such as `127.0.0.1:0`; `:4433` is
    /// [`listen_any`](Self::listen_any). If the text is not valid, [`start`](Self::start) fails.
    pub fn listen(
        mut self,
        addr: impl TryInto<ListenAddr, Error: Into<InvalidListenAddr>>,
    ) -> Self {
        match addr.try_into() {
            Ok(addr) => self.listen.push(addr),
            Err(invalid) => self.reject(StartError::InvalidListen(invalid.into())),
        }
        self
    }

    /// Listens on this UDP port of all interfaces, by IPv4 and IPv6, or by IPv4 alone on a host
    /// without IPv6. Port 0 lets the system choose. Counts as one address of
    /// [`listen`](Self::listen).
    pub fn listen_any(mut self, port: u16) -> Self {
        self.listen.push(ListenAddr::Any(port));
        self
    }

    /// Keeps a link to this neighbour. May be given several times.
    ///
    /// Takes a [`PeerAddr`], a `SocketAddr`, or text such as `relay@host:7400`. If the text is not
    /// valid, [`start`](Self::start) fails.
    pub fn peer(mut self, peer: impl TryInto<PeerAddr, Error: Into<InvalidPeerAddr>>) -> Self {
        match peer.try_into() {
            Ok(peer) => self.peers.push(peer),
            Err(invalid) => self.reject(StartError::InvalidPeer(invalid.into())),
        }
        self
    }

    /// Whether the node carries other nodes' packets. Off by default: relays grant it, edges do
    /// not.
    pub fn transit(mut self, transit: bool) -> Self {
        self.transit = transit;
        self
    }

    /// What each neighbour may have sent on to others, in bytes a second, headers included; packets
    /// beyond that are dropped, and counted as `rate_limited`. No limit by default. Half a second's
    /// worth may come at once, or a second's after a silence; what ends at this node is not
    /// limited.
    pub fn transit_rate(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.transit_rate = Some(bytes_per_second);
        self
    }

    /// Makes the node an ephemeral: it dials, has no record and no database of its own, and leaves
    /// nothing behind.
    pub fn ephemeral(mut self, ephemeral: bool) -> Self {
        self.ephemeral = ephemeral;
        self
    }

    /// Makes the node an [ephemeral](Self::ephemeral) named `NAME~SUFFIX`, where NAME is the base
    /// of its id and the suffix is drawn at random, so that any number of them run at a time under
    /// one certificate. Others see the whole id; [`NodeId::base`] is what the certificate carries.
    ///
    /// Every node of the mesh must run a version that knows such ids; nodes of older versions close
    /// links over them.
    pub fn one_shot(mut self) -> Self {
        let suffix = format!("{:012x}", random::bits() >> 16);
        self.ephemeral = true;
        // A base that leaves no room for a suffix is used as it is.
        self.id = self.id.map(|id| id.with_suffix(&suffix).unwrap_or(id));
        self
    }

    /// Whether the node looks for direct paths to the peers that it has traffic with, and takes
    /// them, where they are no neighbours. On by default, off for ephemeral nodes, which are seldom
    /// there for long enough. Off, all packets for such peers go through other nodes, and both ends
    /// say why.
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = Some(direct);
        self
    }

    /// An address at which others reach this node's UDP port, where they cannot see that
    /// themselves: a static mapping of the NAT in front. Peers try it for direct paths. May be
    /// given up to [`MAX_EXTERNAL`] times.
    pub fn external_addr(mut self, addr: SocketAddr) -> Self {
        self.external.push(addr);
        self
    }

    /// Where the node keeps its epoch and its connection manifest between runs. Without, it keeps
    /// nothing, and is recognised after a restart all the same; it then needs one flood more.
    ///
    /// The directory is created if it does not exist, and locked while the node runs: a second node
    /// with the same directory does not start. A directory that cannot be written costs a warning,
    /// and the node runs without it.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// What this node says that its links cost: a [`Cost`], 1 by default, or
    /// [`LinkCost::RoundTrip`]. The larger of the two ends' counts.
    pub fn cost(mut self, cost: impl Into<LinkCost>) -> Self {
        self.costs.usual = cost.into();
        self
    }

    /// What this node says that a link to `neighbour` costs, whoever dials it. Goes over
    /// [`cost`](Self::cost); given twice for a neighbour, the last counts.
    pub fn cost_to(
        mut self,
        neighbour: impl TryInto<NodeId, Error: Into<InvalidName>>,
        cost: Cost,
    ) -> Self {
        match name(neighbour) {
            Ok(neighbour) => drop(self.costs.to.insert(neighbour, cost)),
            Err(invalid) => self.reject(StartError::InvalidNeighbour(invalid)),
        }
        self
    }

    /// Keeps the first argument that is not valid, for [`start`](Self::start).
    fn reject(&mut self, invalid: StartError) {
        self.invalid.get_or_insert(invalid);
    }

    /// How eagerly the loss of a neighbour is noticed, on the links that this node dials.
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// Congestion control of what this node sends, on its links and to its peers. By default
    /// [`Congestion::Cubic`]; [`Congestion::Westwood`] keeps its rate on paths with random loss. The
    /// other end chooses for what it sends.
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.congestion = congestion;
        self
    }

    /// How long a node that is not a neighbour may be unreachable, without a route to it and
    /// without a packet from it, before its streams and calls end and connecting to it fails. 5 s
    /// by default, which is what the mesh takes to notice a silent death: then callers learn of it
    /// as soon as routing does. From 0.5 s to 10 min, or the node does not start.
    ///
    /// A longer time carries streams over longer outages of the only path, if both ends wait as
    /// long: set both so, or use [`OpenOptions::peer_timeout`] or [`CallOptions::peer_timeout`] for
    /// a single stream or call, which the other end then follows. As long as there is a route, a
    /// silent node is given up after 15 s, or this if that is longer; and an attempt to connect
    /// takes at most 10 s. Streams to a neighbour end with their link, see
    /// [`liveness`](Self::liveness).
    pub fn peer_timeout(mut self, timeout: Duration) -> Self {
        self.peer_timeout = timeout;
        self
    }

    /// Bytes that one peer may have sent and nobody has read, in all of its streams to this node
    /// together; ephemerals that share a certificate count as one peer. 56 MiB by default, the
    /// windows of 46 streams: a peer whose streams hold that much waits until some of it is read,
    /// and delays nobody else. From 2 MiB to 4 GiB, or the node does not start.
    ///
    /// The window of a single stream is 1.25 MB, which is 100 Mbit/s over a round trip of 100 ms.
    /// As long as the peer has not reached its limit, a stream that is not read delays no other.
    ///
    /// At its limit, everything that it sends on the connection waits: new calls and pings, and its
    /// answers to calls and pings of this node. QUIC's credit for a connection (RFC 9000 §4.1) is
    /// spent by whichever stream sends first, so no part of it can be reserved for the built-in
    /// directives. The connection itself stays up, since keepalives take no credit.
    pub fn receive_window(mut self, bytes: u64) -> Self {
        self.receive_limits.per_peer = bytes;
        self
    }

    /// Bytes that all peers together may have sent and nobody has read, beside 1.6 MB for each
    /// connection. 256 MiB by default. A peer gets at most half of what is left, so that those who
    /// come later get something.
    pub fn receive_memory(mut self, bytes: u64) -> Self {
        self.receive_limits.all = bytes;
        self
    }

    /// Sends UDP payloads of at most so many bytes, however much the path carries: at least 1,226.
    /// For benches, where loopback would carry jumbo frames.
    #[doc(hidden)]
    pub fn max_datagram(mut self, bytes: u16) -> Self {
        self.max_datagram = bytes.min(settings::MAX_DATAGRAM);
        self
    }

    /// Has [`start`](Self::start) wait, for `within` at most, until the node is linked and has
    /// [`converged`](Node::converged). By default it does not wait.
    ///
    /// A mesh that is not converged by then is no error: the node is started, a warning is logged,
    /// and [`Node::converged`] can be asked again. Dropping the future stops the node. A node
    /// without configured peers does not wait for somebody to link to it.
    pub fn wait_converged(mut self, within: Duration) -> Self {
        self.wait_converged = Some(within);
        self
    }

    /// Handles calls for a directive with a function, from the first moment on.
    ///
    /// # Errors
    /// As [`Node::handle`].
    pub fn handle<F, Fut>(
        self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        handler: F,
    ) -> Result<Self, RegisterError>
    where
        F: Fn(Request, Responder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.registry.handle(directive, handler)?;
        Ok(self)
    }

    /// Handles calls for a directive with an external command, from the first moment on.
    ///
    /// # Errors
    /// As [`Node::handle`].
    pub fn command(
        self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        command: Command,
    ) -> Result<Self, RegisterError> {
        self.registry.command(directive, command)?;
        Ok(self)
    }

    /// Maximum number of calls that run at the same time:
    /// [`DEFAULT_MAX_RUNNING`](work::DEFAULT_MAX_RUNNING), which is 1,024, by default. Calls beyond
    /// are refused; [`Registry::with_max_running`] has the share of a single caller. The built-in
    /// directives have places of their own.
    pub fn max_running_calls(self, max: usize) -> Self {
        self.registry.set_max_running(max);
        self
    }

    /// Keeps units of work: those that this node [submits](Node::submit), and those that it
    /// executes for others. Needs a [data directory](Self::data_dir), or a directory in the
    /// configuration; off by default.
    pub fn units(mut self, config: UnitsConfig) -> Self {
        self.units = Some(config);
        self
    }

    /// Whether nodes on the local network are found and linked to, by multicast DNS. Off by
    /// default.
    ///
    /// A node that listens on an address other than loopback is announced there as well: with its
    /// id, its port, and its addresses on the segment, and nothing else. Whoever is found, up to 32
    /// nodes, is dialled, and authenticated as any other neighbour. An announcement is taken back
    /// at [`Node::shutdown`]; else it ends within two minutes.
    #[cfg(feature = "mdns")]
    pub fn lan(mut self, lan: bool) -> Self {
        self.lan = lan;
        self
    }

    /// Whether a UDP port of the router is mapped to this node's, by PCP, NAT-PMP or UPnP IGD,
    /// whatever the router speaks. Off by default.
    ///
    /// The mapping lasts an hour, is renewed at half of that, asked for anew when the network
    /// changes, and removed at [`Node::shutdown`]. That there is none is no error: why, stands in
    /// [`Status`], under `network`.
    #[cfg(feature = "portmap")]
    pub fn map_port(mut self, map_port: bool) -> Self {
        self.map_port = map_port;
        self
    }

    /// Uses this socket instead of binding one: the virtual network's.
    #[cfg(feature = "testing")]
    pub fn socket(mut self, socket: Arc<dyn quinn::AsyncUdpSocket>) -> Self {
        self.sockets.get_or_insert_default().push(socket);
        self
    }

    /// Opens fresh local ports for direct paths with this function, beside the sockets that were
    /// [given](Self::socket). Default: none can be opened.
    #[cfg(feature = "testing")]
    pub fn fresh_ports(
        mut self,
        open: impl Fn() -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> + Send + Sync + 'static,
    ) -> Self {
        self.port_opener = Some(PortOpener::new(open));
        self
    }

    /// Uses these as the machine's addresses instead of asking the system: for the virtual network.
    /// Each new list is a change of the network. Needs a tokio runtime. Without, a node on sockets
    /// of its own knows no addresses, and sees no changes.
    #[cfg(feature = "testing")]
    pub fn local_addresses(
        mut self,
        addresses: tokio::sync::watch::Receiver<Vec<LocalAddress>>,
    ) -> Self {
        self.interfaces = Some(Interfaces::given(addresses));
        self
    }

    /// Uses this resolver instead of the system's.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Checks the settings, binds, and starts the node's tasks on the current tokio runtime.
    /// Returns at once: links come up in the background, see [`Node::linked`];
    /// [`wait_converged`](Self::wait_converged) has it wait for them.
    ///
    /// # Errors
    /// A setting is wrong, or the system refused something. Nothing is left running.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub async fn start(mut self) -> Result<Node, StartError> {
        let id = self.id.clone().map_err(StartError::InvalidId)?;
        if let Some(invalid) = self.invalid.take() {
            return Err(invalid);
        }
        self.check(&id)?;
        let (epoch, data_dir, manifest) = self.open_data_dir().await?;
        let units =
            open_units(self.units.clone(), data_dir.clone().zip(self.data_dir.clone())).await?;
        let accept_links = !self.listen.is_empty() || self.sockets.is_some();
        let reports = Reports::default();
        let (sockets, renewable, port_opener) = match self.sockets {
            Some(sockets) => (sockets, Vec::new(), self.port_opener),
            None => {
                let bound = bind::bind(&self.listen, &reports)?;
                let port_opener = bind::port_opener(&bound, &reports);
                let renewable = bound.iter().map(Arc::downgrade).collect();
                let sockets =
                    bound.into_iter().map(|socket| socket as Arc<dyn quinn::AsyncUdpSocket>);
                (sockets.collect(), renewable, port_opener)
            }
        };
        let interfaces = self.interfaces.unwrap_or_else(|| match renewable.is_empty() {
            true => Interfaces::unknown(),
            false => Interfaces::of_this_machine(),
        });
        let socket = Socket::new(sockets, id.addr(), Arc::new(SwitchCounters::default()))?
            .with_port_opener(port_opener);
        if let Some(rate) = self.transit_rate {
            socket.limit_transit(rate);
        }
        let dials = !self.peers.is_empty();
        let mesh = Mesh::spawn(Parts {
            logs: self.registry.log_limits().clone(),
            id,
            identity: self.identity,
            socket,
            renewable,
            reports,
            resolver: self.resolver,
            interfaces,
            #[cfg(feature = "mdns")]
            lan: self.lan && !self.ephemeral,
            #[cfg(feature = "portmap")]
            map_port: self.map_port && !self.ephemeral,
            accept_links,
            peers: self.peers,
            transit: self.transit && !self.ephemeral,
            ephemeral: self.ephemeral,
            direct: self.direct.unwrap_or(!self.ephemeral),
            external: self.external,
            costs: self.costs,
            liveness: self.liveness,
            congestion: self.congestion,
            peer_timeout: self.peer_timeout,
            receive_limits: self.receive_limits,
            max_datagram: self.max_datagram,
            epoch,
            data_dir,
            manifest,
        })?;
        let registry = self.registry;
        work::spawn(&mesh, &registry).map_err(|error| match error {
            work::SpawnError::Serve(error) => StartError::Serve(error),
            work::SpawnError::Register(error) => StartError::Register(error),
        })?;
        mesh.set_capabilities(|| work::capabilities(&registry));
        let units = match units {
            Some(opened) => Some(Engine::start(opened, &mesh, &registry).await?),
            None => None,
        };
        let node = Node(Arc::new(Inner { mesh, registry, units }));
        if let Some(within) = self.wait_converged {
            node.settle(within, dials).await;
        }
        Ok(node)
    }

    fn check(&self, id: &NodeId) -> Result<(), StartError> {
        check_identity(id, &self.identity)?;
        if self.listen.len() > MAX_LISTEN {
            return Err(StartError::TooManyListen);
        }
        for (nth, listen) in self.listen.iter().enumerate() {
            let shared = |before: &ListenAddr| {
                before.ips().find(|ip| listen.ips().any(|other| other == *ip))
            };
            if let Some(ip) = self.listen[..nth].iter().find_map(shared) {
                return Err(StartError::ListenTwice(ip));
            }
        }
        if !RECEIVE_WINDOWS.contains(&self.receive_limits.per_peer) {
            return Err(StartError::ReceiveWindow(self.receive_limits.per_peer));
        }
        if !PEER_TIMEOUTS.contains(&self.peer_timeout) {
            return Err(StartError::PeerTimeout(self.peer_timeout));
        }
        if self.external.len() > MAX_EXTERNAL {
            return Err(StartError::TooManyExternal);
        }
        if let Some(addr) =
            self.external.iter().find(|addr| addr.ip().is_unspecified() || addr.port() == 0)
        {
            return Err(StartError::NotExternal(*addr));
        }
        if id.suffix().is_some() && !self.ephemeral {
            return Err(StartError::SuffixedId(id.clone()));
        }
        if self.ephemeral && self.peers.is_empty() {
            return Err(StartError::EphemeralWithoutPeer);
        }
        Ok(())
    }

    async fn open_data_dir(&self) -> Result<(u64, Option<DataDir>, Manifest), StartError> {
        let now = clock::unix_ms();
        let Some(path) = self.data_dir.clone().filter(|_| !self.ephemeral) else {
            return Ok((now, None, Manifest::new()));
        };
        let deadline = tokio::time::Instant::now() + DATA_DIR_WAIT;
        let dir = loop {
            match DataDir::open(path.clone()) {
                Ok(dir) => break dir,
                Err(LockError::Held { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(DATA_DIR_POLL).await;
                }
                Err(LockError::Held { pid }) => return Err(StartError::DataDirInUse { path, pid }),
                Err(LockError::Io(error)) => return Err(StartError::DataDir { path, error }),
            }
        };
        Ok((dir.next_epoch(now), Some(dir.clone()), dir.manifest(clock::unix_secs())))
    }
}

/// Opens the directory of units, and reads what is there.
async fn open_units(
    config: Option<UnitsConfig>,
    data_dir: Option<(DataDir, PathBuf)>,
) -> Result<Option<OpenedUnits>, StartError> {
    let Some(config) = config else { return Ok(None) };
    let opened = tokio::task::spawn_blocking(move || {
        OpenedUnits::open(
            config,
            data_dir.as_ref().map(|(dir, path)| (dir.clone(), path.as_path())),
        )
    });
    match opened.await {
        Ok(Ok(opened)) => Ok(Some(opened)),
        Ok(Err(OpenUnitsError::NoDirectory)) => Err(StartError::UnitsWithoutDirectory),
        Ok(Err(OpenUnitsError::Io { path, error })) => Err(StartError::Units { path, error }),
        Err(_) => Err(StartError::ShutDown(ShutDown)),
    }
}

/// A name that was given as itself, by reference, or as text.
fn name<T>(name: impl TryInto<T, Error: Into<InvalidName>>) -> Result<T, InvalidName> {
    name.try_into().map_err(Into::into)
}

/// A directive that was given as itself, by reference, or as text.
fn parse_directive(
    directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
) -> Result<Directive, InvalidDirective> {
    directive.try_into().map_err(Into::into)
}

fn check_identity(id: &NodeId, identity: &Identity) -> Result<(), StartError> {
    if !identity.may_claim(id) {
        return Err(StartError::NotInCertificate {
            id: id.clone(),
            names: identity.ids().to_vec(),
        });
    }
    if let Err(problem) = identity.check(clock::system()) {
        tracing::warn!(node = %id, %problem, "certificate");
    }
    Ok(())
}

/// Why a node did not start, or did not take an identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The id given to [`Node::builder`] is not valid. The caller's fault.
    #[error("invalid argument of Node::builder: {0}")]
    InvalidId(InvalidName),
    /// The neighbour given to [`NodeBuilder::cost_to`] is not valid. The caller's fault.
    #[error("invalid argument of NodeBuilder::cost_to: {0}")]
    InvalidNeighbour(InvalidName),
    /// The neighbour given to [`NodeBuilder::peer`] is not valid. The caller's fault.
    #[error("invalid argument of NodeBuilder::peer: {0}")]
    InvalidPeer(InvalidPeerAddr),
    /// The address given to [`NodeBuilder::listen`] is not valid. The caller's fault.
    #[error("invalid argument of NodeBuilder::listen: {0}")]
    InvalidListen(InvalidListenAddr),
    /// The certificate is another node's. The configuration's fault.
    #[error("the certificate does not carry the id {id}; it names {}", list(names))]
    NotInCertificate {
        /// The node's id.
        id: NodeId,
        /// What the certificate carries.
        names: Vec<NodeId>,
    },
    /// More than [`MAX_LISTEN`] addresses.
    #[error("a node listens on at most {MAX_LISTEN} addresses")]
    TooManyListen,
    /// Two addresses with the same IP.
    #[error("two listen addresses have the IP {0}; a node listens on one port of each")]
    ListenTwice(std::net::IpAddr),
    /// The receive window is out of bounds.
    #[error(
        "the receive window is {0} bytes; it must be from {least} to {most}",
        least = RECEIVE_WINDOWS.start(),
        most = RECEIVE_WINDOWS.end()
    )]
    ReceiveWindow(u64),
    /// The peer timeout is out of bounds.
    #[error(
        "the peer timeout is {0:?}; it must be from {least:?} to {most:?}",
        least = PEER_TIMEOUTS.start(),
        most = PEER_TIMEOUTS.end()
    )]
    PeerTimeout(Duration),
    /// More than [`MAX_EXTERNAL`] external addresses.
    #[error("a node has at most {MAX_EXTERNAL} external addresses")]
    TooManyExternal,
    /// Nobody can send there.
    #[error(
        "{0} is no address that others can send to: an external address has an IP address and a port"
    )]
    NotExternal(SocketAddr),
    /// The id has a suffix, which only those of ephemeral nodes may have. The configuration's
    /// fault.
    #[error("only an ephemeral node may have a suffix in its id, and {0} is to be none")]
    SuffixedId(NodeId),
    /// An ephemeral takes no links, so it must dial.
    #[error("an ephemeral node needs a peer to dial")]
    EphemeralWithoutPeer,
    /// Another node uses the data directory. Stop it, or give this one a directory of its own.
    #[error(
        "the data directory {} is used by {}; stop that node or use another directory",
        path.display(),
        pid_lock::holder(*pid)
    )]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// The process that uses it, if it is known. It may be this one.
        pid: Option<u32>,
    },
    /// The data directory does not exist and cannot be created. (One that exists and cannot be
    /// written is not an error: the node logs a warning and runs without it.)
    #[error("cannot create the data directory {}: {error}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Units are enabled, and there is no directory to keep them in. The configuration's fault.
    #[error("units need a data directory")]
    UnitsWithoutDirectory,
    /// The directory of units cannot be used: nobody would know what must not be run again.
    #[error("cannot use the units' directory {}: {error}", path.display())]
    Units {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system refused a socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The service of calls could not be offered.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A built-in directive was registered by the application.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The node is shut down, and takes no other identity.
    #[error(transparent)]
    ShutDown(#[from] ShutDown),
}

/// Why a node answers no question about another one. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The name of the node is not valid: the caller's fault.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// This node is shut down.
    #[error(transparent)]
    ShutDown(#[from] ShutDown),
}

/// Why a node is not part of the mesh.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLinked {
    /// No configured peer and this node accept each other; each with the reason.
    #[error("{}", refusals(.0))]
    Refused(Vec<(PeerAddr, Refusal)>),
    /// Another live process has this node's id, and keeps it. Stop one of the two, or give it
    /// another id, and start this one again.
    #[error("this node has yielded its id to another live process, at {to}")]
    Yielded {
        /// Where the other process is, as far as it is known.
        to: String,
    },
    /// The node is shut down.
    #[error("this node is shut down")]
    ShutDown,
}

fn refusals(refusals: &[(PeerAddr, Refusal)]) -> String {
    refusals.iter().map(|(peer, why)| format!("{peer}: {why}")).collect::<Vec<_>>().join("; ")
}

fn list(names: &[NodeId]) -> String {
    match names {
        [] => "no node".to_owned(),
        names => names.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", "),
    }
}
