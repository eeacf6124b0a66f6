//! Calls, handlers, and units of work of a node.
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Node;
use super::names::{name, parse_directive};
use crate::id::{Directive, InvalidDirective, InvalidName, NodeId};
use crate::mesh::OpenError;
use crate::mesh::services::usage::Purpose;
use crate::work;
use crate::work::unit::{SharedRef, Submit, UnitPayload, Units};
use crate::work::{
    Call, CallOptions, Command, HandlerError, PingError, Pong, RegisterError, Request, Responder,
    RpcError, TraceHop,
};

impl Node {
    /// Handles calls for a directive with a function.
    ///
    /// # Errors
    /// The directive is handled already, there are too many, or the node is shut down.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// bob.handle("text:upper", async |mut request, responder| {
    ///     let text = request.payload.collect(64 * 1024).await?;
    ///     responder.reply(text.to_ascii_uppercase()).await?;
    ///     Ok(())
    /// })?;
    /// let call = alice.call("bob", "text:upper").await?;
    /// assert_eq!(call.exchange("hello".into(), 1024).await?, "HELLO");
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(node: &receptor_quic::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use receptor_quic::Command;
    ///
    /// // The payload of a call is its standard input, its standard output the responses.
    /// node.command("text:sort", Command::new("sort").arg("-u"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn command(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        command: Command,
    ) -> Result<(), RegisterError> {
        self.0.registry.command(directive, command)?;
        self.0.mesh.set_capabilities(|| work::capabilities(&self.0.registry));
        Ok(())
    }

    /// As [`command`](Self::command), in the place of the handler that may be there: calls that run
    /// go on, and the next one meets the new command.
    ///
    /// # Errors
    /// There are too many handlers, the directive is a built-in one, or the node is shut down.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(node: &receptor_quic::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use receptor_quic::Command;
    ///
    /// node.replace_command("text:sort", Command::new("sort").arg("-n"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn replace_command(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        command: Command,
    ) -> Result<(), RegisterError> {
        self.0.registry.replace_command(directive, command)?;
        self.0.mesh.set_capabilities(|| work::capabilities(&self.0.registry));
        Ok(())
    }

    /// Calls a directive on a node. The payload is written and the responses are read with the
    /// [`Call`].
    ///
    /// # Errors
    /// The call could not be sent. What happens to it afterwards, the call's own errors say.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// # bob.handle("text:count", async |_, responder| {
    /// #     for n in ["1", "2", "3"] { responder.send(n.into()).await?; }
    /// #     Ok(())
    /// # })?;
    /// let mut call = alice.call("bob", "text:count").await?;
    /// call.payload.finish();
    /// while let Some(response) = call.next().await? {
    ///     println!("response {}: {:?}", response.serial, response.body);
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use std::time::Duration;
    /// use receptor_quic::{CallError, CallOptions};
    ///
    /// # bob.handle("test:hang", async |_, _| std::future::pending().await)?;
    /// let options =
    ///     CallOptions { deadline: Some(Duration::from_secs(2)), ..CallOptions::default() };
    /// let call = alice.call_with("bob", "test:hang", options).await?;
    /// assert_eq!(call.collect(1024).await, Err(CallError::Deadline));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use std::time::Duration;
    /// use receptor_quic::{CallOptions, HandlerError, NodeId};
    ///
    /// bob.serve_rpc("math:sum", async |_: NodeId, terms: Vec<u64>| {
    ///     Ok::<u64, HandlerError>(terms.iter().sum())
    /// })?;
    /// let options =
    ///     CallOptions { deadline: Some(Duration::from_secs(2)), ..CallOptions::default() };
    /// let sum: u64 = alice.rpc_with("bob", "math:sum", &[1_u64, 2, 3], options).await?;
    /// assert_eq!(sum, 6);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use receptor_quic::{HandlerError, NodeId};
    ///
    /// bob.serve_rpc("math:sum", async |_: NodeId, terms: Vec<u64>| {
    ///     Ok::<u64, HandlerError>(terms.iter().sum())
    /// })?;
    /// let sum: u64 = alice.rpc("bob", "math:sum", &[1_u64, 2, 3]).await?;
    /// assert_eq!(sum, 6);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let bob = mesh.node("bob");
    /// bob.handle("test:nothing", async |_, _| Ok(()))?;
    /// assert!(bob.remove_handler("test:nothing")?);
    /// assert!(!bob.remove_handler("test:nothing")?);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let bob = mesh.node("bob");
    /// bob.handle("test:nothing", async |_, _| Ok(()))?;
    /// // The built-in ones, such as `receptor:ping`, are among them.
    /// assert!(bob.directives().contains(&"test:nothing".parse()?));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn directives(&self) -> Vec<Directive> {
        self.0.registry.directives()
    }

    /// Prepares a unit of work: a job that is handed to `node` as soon as that can be reached,
    /// starts at most once, and outlives every process involved. See [`work::unit`].
    ///
    /// The node needs [units](crate::NodeBuilder::units); otherwise the submission fails.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(node: &receptor_quic::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let unit = node.submit("bob", "db:dump", "").start_by(Duration::from_secs(3_600)).await?;
    /// println!("unit {}", unit.id());
    /// let outcome = unit.wait().await?;
    /// println!("{outcome:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        payload: impl Into<UnitPayload>,
    ) -> Submit {
        Submit::new(self.units_shared(), name(node), parse_directive(directive), payload.into())
    }

    /// The units that this node has submitted, and those that it executes.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(node: &receptor_quic::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use receptor_quic::work::unit::UnitFilter;
    ///
    /// for status in node.units().list(&UnitFilter::default()) {
    ///     println!("{}: {:?}", status.id, status.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// let pong = alice.ping("bob").await?;
    /// println!("{} answered after {} ms", pong.node, pong.rtt_ms);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let alice = mesh.node("alice");
    /// let hops = alice.trace("bob").await?;
    /// assert_eq!(hops.last().expect("a path ends somewhere").node.as_str(), "bob");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn trace(
        &self,
        node: impl TryInto<NodeId, Error: Into<InvalidName>>,
    ) -> Result<Vec<TraceHop>, PingError> {
        work::trace(&self.0.mesh, &name(node).map_err(OpenError::from)?).await
    }
}
