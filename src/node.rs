//! A node: the whole of it, from configuration to shutdown.
//!
//! ```text
//!   builder ─▶ checked parts ─▶ spawn ─▶ Node ─▶ shutdown: refuse, drain, withdraw, close
//! ```

mod builder;
mod calls;
mod error;
mod names;
mod policy;
mod shutdown;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{InvalidName, NodeId, ServiceName};
use crate::mesh::handle::Mesh;
use crate::mesh::services::Admission;
use crate::mesh::services::usage::Purpose;
use crate::mesh::{
    ConvergeError, Convergence, DatagramListener, DatagramSender, Events, Listener,
    NodeExplanation, OpenError, OpenOptions, OpenRequests, PeerAddr, RefusedOpen, ServeError,
    ShutDown, Status, StatusOptions, Stream, clock,
};
use crate::transport::Identity;
use crate::work;
use crate::work::Registry;
use crate::work::unit::Engine;
use names::name;

pub use builder::NodeBuilder;
pub use error::{LookupError, NotLinked, StartError};

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
    /// The node's id.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// assert_eq!(alice.id().as_str(), "alice");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.0.mesh.id()
    }

    /// Where the node takes packets, with the ports that the system chose.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use receptor_quic::{Authority, Node};
    /// # let ca = Authority::new("example", 1)?;
    /// # let identity = ca.issue("alice", 1)?;
    /// let node = Node::builder("alice", identity).listen("127.0.0.1:0").start().await?;
    /// println!("listening on port {}", node.local_addrs()[0].port());
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// alice.linked().await?;
    /// let status = alice.status().await?;
    /// assert!(!status.links.is_empty());
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// tokio::select! {
    ///     Some(other) = alice.yielded() => eprintln!("another process has this id: {other}"),
    ///     // What the program does otherwise.
    ///     pong = alice.ping("bob") => println!("{:?}", pong?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn yielded(&self) -> Option<String> {
        let mut view = self.0.mesh.view();
        let over = view.wait_for(|view| view.closed || view.yielded_to.is_some()).await;
        over.ok()?.yielded_to.clone()
    }

    /// Waits until this node has a way to `node`, for as long as it takes. Cancel safe.
    ///
    /// # Errors
    /// The name is not valid, or the node is shut down.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// use std::time::Duration;
    ///
    /// tokio::time::timeout(Duration::from_secs(10), alice.routable("bob")).await??;
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// use std::time::Duration;
    /// use receptor_quic::Convergence;
    ///
    /// match alice.converged(Duration::from_secs(10)).await? {
    ///     Convergence::Converged { count } => println!("all {count} nodes have a route to alice"),
    ///     Convergence::Partial { count, expected } => println!("{count} of {expected} nodes so far"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use tokio::io::AsyncWriteExt;
    ///
    /// let mut listener = bob.serve("log")?;
    /// let mut stream = alice.open("bob", "log").await?;
    /// stream.write_all(b"hello").await?;
    /// stream.shutdown().await?;
    ///
    /// let mut incoming = listener.accept().await.expect("bob is up");
    /// assert_eq!(incoming.stream.recv.read_chunk(1024).await?.as_deref(), Some(&b"hello"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<Stream, OpenError> {
        self.open_with(node, service, OpenOptions::default()).await
    }

    /// As [`open`](Self::open), but fails after `deadline`; the other side is notified.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`OpenError::Deadline`].
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use std::time::Duration;
    ///
    /// # let _listener = bob.serve("log")?;
    /// let mut stream = alice.open_within("bob", "log", Duration::from_secs(5)).await?;
    /// stream.accepted().await?;
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use std::time::Duration;
    /// use receptor_quic::OpenOptions;
    ///
    /// # let _listener = bob.serve("log")?;
    /// let options =
    ///     OpenOptions { peer_timeout: Some(Duration::from_secs(60)), ..OpenOptions::default() };
    /// let mut stream = alice.open_with("bob", "log", options).await?;
    /// stream.accepted().await?;
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// let mut listener = bob.serve("log")?;
    /// # let _stream = alice.open("bob", "log").await?;
    /// let incoming = listener.accept().await.expect("bob is up");
    /// println!("{} has opened a stream", incoming.peer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve(
        &self,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<Listener, ServeError> {
        self.0.mesh.serve(name(service)?, Admission::Everybody)
    }

    /// Offers a service to the callers that `permit` admits. Streams of others are refused with
    /// what it returns: their openers get [`StreamError::Refused`](crate::StreamError::Refused).
    /// Otherwise as [`serve`](Self::serve).
    ///
    /// `permit` is called for each stream, at times twice, on the task that receives for the
    /// caller's connection: it must not block. Use [`serve_requests`](Self::serve_requests) if the
    /// decision takes time.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use receptor_quic::mesh::RefuseCode;
    /// use receptor_quic::{StreamError, testing};
    ///
    /// let mesh = testing::mesh(["alice-bob"]).await;
    /// let mut listener = mesh.node("bob").serve_if("logs", |caller| {
    ///     if caller.as_str() == "admin" { Ok(()) } else { Err(RefuseCode::NotAllowed.into()) }
    /// })?;
    /// let mut stream = mesh.node("alice").open("bob", "logs").await?;
    /// let error = stream.accepted().await.unwrap_err();
    /// assert!(matches!(error, StreamError::Refused(why) if why.code == RefuseCode::NotAllowed));
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve_if(
        &self,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
        permit: impl Fn(&NodeId) -> Result<(), RefusedOpen> + Send + Sync + 'static,
    ) -> Result<Listener, ServeError> {
        self.0.mesh.serve(name(service)?, Admission::If(Arc::new(permit)))
    }

    /// Offers a service whose streams the application accepts or refuses one by one. Otherwise as
    /// [`serve`](Self::serve), which accepts every stream as it comes.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use receptor_quic::mesh::{RefuseCode, RefusedOpen};
    /// use receptor_quic::{StreamError, testing};
    ///
    /// const QUOTA_EXCEEDED: RefuseCode = RefuseCode::Application(7);
    ///
    /// let mesh = testing::mesh(["alice-bob"]).await;
    /// let mut requests = mesh.node("bob").serve_requests("upload")?;
    /// let mut stream = mesh.node("alice").open("bob", "upload").await?;
    ///
    /// let request = requests.next().await.expect("the node is up");
    /// assert_eq!(request.peer().as_str(), "alice");
    /// request.refuse(RefusedOpen::new(QUOTA_EXCEEDED).with_text("1 GiB a day")).await;
    ///
    /// let error = stream.accepted().await.unwrap_err();
    /// assert!(matches!(error, StreamError::Refused(why) if why.code == QUOTA_EXCEEDED));
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve_requests(
        &self,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<OpenRequests, ServeError> {
        Ok(OpenRequests::new(self.0.mesh.serve(name(service)?, Admission::Later)?))
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// let mut listener = bob.serve_datagrams("position")?;
    /// let sender = alice.datagrams("bob", "position").await?;
    /// sender.send(b"52.5 N 13.4 E")?;
    ///
    /// let datagram = listener.recv().await.expect("bob is up");
    /// assert_eq!((datagram.peer.as_str(), &datagram.payload[..]), ("alice", &b"52.5 N 13.4 E"[..]));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// let mut listener = bob.serve_datagrams("position")?;
    /// # alice.datagrams("bob", "position").await?.send(b"52.5 N 13.4 E")?;
    /// let datagram = listener.recv().await.expect("bob is up");
    /// println!("{} bytes from {}", datagram.payload.len(), datagram.peer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve_datagrams(
        &self,
        service: impl TryInto<ServiceName, Error: Into<InvalidName>>,
    ) -> Result<DatagramListener, ServeError> {
        self.0.mesh.serve_datagrams(name(service)?)
    }

    /// A snapshot of the node, with everything it knows: on a hub with thousands of stubs, some
    /// megabytes. [`status_with`](Self::status_with) limits the stubs that are listed.
    ///
    /// # Errors
    /// The node is shut down.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// let status = alice.status().await?;
    /// for route in &status.routes {
    ///     println!("{} through {}, cost {}", route.node, route.next_hop, route.cost);
    /// }
    /// assert!(serde_json::to_string(&status)?.contains("\"bob\""));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Result<Status, ShutDown> {
        self.status_with(StatusOptions::default()).await
    }

    /// A snapshot of the node with a limit on the stubs that are listed. [`Status::stubs`] counts
    /// all of them.
    ///
    /// # Errors
    /// The node is shut down.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// use receptor_quic::StatusOptions;
    ///
    /// let status = alice.status_with(StatusOptions { max_stubs: Some(16) }).await?;
    /// println!("{} stubs can be reached", status.stubs.reachable);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status_with(&self, options: StatusOptions) -> Result<Status, ShutDown> {
        let mut status = self.0.mesh.status(options).await?;
        status.running_calls = self.0.registry.running().len();
        status.policy = self.policy_status();
        for route in &mut status.routes {
            route.directives = work::directives(&std::mem::take(&mut route.capabilities))
                .iter()
                .map(ToString::to_string)
                .collect();
        }
        Ok(status)
    }

    /// Why a node is, or is not, reachable, as far as this node knows, and how its packets travel.
    ///
    /// # Errors
    /// The name is not valid, or the node is shut down.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// use receptor_quic::router::Explanation;
    ///
    /// let explained = alice.explain("carol").await?;
    /// assert_eq!(explained.route, Explanation::NeverHeardOf);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn explain(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
    ) -> Result<NodeExplanation, LookupError> {
        Ok(self.0.mesh.explain(&name(node)?).await?)
    }

    /// What happens from now on, until the node is shut down. A listener that falls more than 1,024
    /// events behind misses the oldest, and gets an error that says how many.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use receptor_quic::Event;
    ///
    /// let mut events = alice.events();
    /// bob.shutdown().await;
    /// loop {
    ///     if let Event::LinkDown { peer, why } = events.recv().await? {
    ///         println!("lost the link to {peer}: {why}");
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.0.mesh.events())
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// // A certificate of the same CA that is valid for another 30 days.
    /// alice.reload(mesh.authority().issue("alice", 30)?).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reload(&self, identity: Identity) -> Result<(), StartError> {
        check_identity(self.id(), &identity)?;
        Ok(self.0.mesh.reload(identity).await?)
    }

    /// Replaces the peers that this node keeps links to, as configured by
    /// [`NodeBuilder::peer`](crate::NodeBuilder::peer).
    ///
    /// Peers that were configured before keep their links. New ones are dialled at once. A link to
    /// one that is no longer configured is closed with
    /// [`CloseCode::NotConfigured`](crate::transport::code::CloseCode::NotConfigured) if this node
    /// dialled it; one that the other node dialled stays. Peer connections and their streams go on
    /// where another route exists.
    ///
    /// # Errors
    /// The node is shut down.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// use receptor_quic::PeerAddr;
    ///
    /// let peer: PeerAddr = "relay-1@198.51.100.7:4433".parse()?;
    /// alice.set_peers([peer]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_peers(
        &self,
        peers: impl IntoIterator<Item = PeerAddr>,
    ) -> Result<(), ShutDown> {
        self.0.mesh.set_peers(peers.into_iter().collect()).await
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
