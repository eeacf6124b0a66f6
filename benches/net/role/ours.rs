//! Nodes of this crate: a client, a relay, a server, or many of them in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use receptor_quic::work::Responder;
use receptor_quic::{Authority, Directive, HandlerError, Node, NodeBuilder, NodeId, Request};

use super::console::Console;
use super::remote::{DATAGRAMS, Peer, Service};
use super::workload::{self, Action, Call, Message};
use super::{Settings, many};
use crate::Result;

/// The directive that echoes.
const ECHO: &str = "bench:echo";
/// Idle links that are made at the same time.
const HOLD_AT_ONCE: usize = 16;

pub(super) async fn run(settings: &Settings) -> Result<()> {
    let mut process = Nodes::start(settings).await?;
    let first = process.nodes.first().and_then(|node| node.local_addrs().first().copied());
    let mut console = Console::ready(first.ok_or("a node listens")?);
    while let Some(command) = console.next().await {
        console.answer(process.obey(&command).await);
    }
    Ok(())
}

/// The nodes of a process: one, unless `count` says otherwise.
struct Nodes {
    authority: Authority,
    nodes: Vec<Node>,
    /// Nodes that only hold their links.
    idle: Vec<Node>,
    issued: usize,
    /// Datagrams that came in.
    datagrams: Arc<AtomicU64>,
}

impl Nodes {
    async fn start(settings: &Settings) -> Result<Self> {
        let authority = Authority::load(&settings.dir()?)?;
        let id = settings.get("id")?;
        let ids = match settings.parsed::<usize>("count")? {
            None => vec![id.to_owned()],
            Some(count) => (0..count).map(|nth| format!("{id}-{nth}")).collect(),
        };
        let (mut nodes, datagrams) = (Vec::new(), Arc::<AtomicU64>::default());
        for id in ids {
            let id: NodeId = id.parse()?;
            let builder = Node::builder(id.clone(), authority.issue(&id, 1)?);
            let node = configured(builder, settings)?.start().await?;
            serve(&node)?;
            count(&node, &datagrams)?;
            nodes.push(node);
        }
        Ok(Self { authority, nodes, idle: Vec::new(), issued: 0, datagrams })
    }

    async fn obey(&mut self, command: &str) -> Result<Vec<f64>> {
        let words: Vec<_> = command.split_whitespace().collect();
        let node = self.nodes[0].clone();
        let peer = |id: &str| Peer::new(&node, id);
        match words.as_slice() {
            ["ready", id] => {
                reach(&peer(id)?).await?;
                Ok(vec![])
            }
            ["stream", id, bytes, streams] => {
                workload::stream(&peer(id)?, bytes.parse()?, streams.parse()?).await
            }
            ["messages", id, size, at_once, millis] => {
                let action = Message(peer(id)?, size.parse()?);
                workload::repeat(action, at_once.parse()?, millis.parse()?).await
            }
            ["calls", id, at_once, millis] => {
                workload::repeat(Call(peer(id)?), at_once.parse()?, millis.parse()?).await
            }
            ["work", id, at_once, millis] => {
                let action = Work(peer(id)?, ECHO.parse()?);
                workload::repeat(action, at_once.parse()?, millis.parse()?).await
            }
            ["fan", prefix, millis] => {
                let mut remotes = Vec::new();
                for (nth, node) in self.nodes.iter().enumerate() {
                    let peer = Peer::new(node, &format!("{prefix}-{nth}"))?;
                    reach(&peer).await?;
                    remotes.push(peer);
                }
                many::stream(remotes, millis.parse()?).await
            }
            ["first", prefix, from, count] => {
                let (from, count): (usize, usize) = (from.parse()?, count.parse()?);
                let mut actions = Vec::new();
                for nth in from..from + count {
                    let peer = peer(&format!("{prefix}-{nth}"))?;
                    peer.routable().await;
                    actions.push(Call(peer));
                }
                many::one_by_one(&actions).await
            }
            ["flows", prefix, count] => {
                for node in &self.nodes {
                    for nth in 0..count.parse::<usize>()? {
                        reach(&Peer::new(node, &format!("{prefix}-{nth}"))?).await?;
                    }
                }
                Ok(vec![])
            }
            ["handshakes", addr, count, at_once] => {
                let (answer, nodes) = self.linked(addr, count, at_once.parse()?).await?;
                self.idle = nodes;
                Ok(answer)
            }
            ["hold", addr, count] => {
                let (_, nodes) = self.linked(addr, count, HOLD_AT_ONCE).await?;
                self.idle.extend(nodes);
                Ok(vec![])
            }
            ["release"] => {
                self.idle.clear();
                tokio::time::sleep(many::RELEASE).await;
                Ok(vec![])
            }
            ["datagrams", id, size, millis] => {
                workload::datagrams(peer(id)?.datagrams().await?, size.parse()?, millis.parse()?)
                    .await
            }
            ["received"] => Ok(vec![self.datagrams.load(Ordering::Relaxed) as f64]),
            _ => Err(format!("unknown command: {command}").into()),
        }
    }

    /// Nodes that have linked to `addr`, so many at once; how many, and the seconds.
    async fn linked(
        &mut self,
        addr: &str,
        count: &str,
        at_once: usize,
    ) -> Result<(Vec<f64>, Vec<Node>)> {
        let actions = self.edges(addr.parse()?, count.parse()?)?.into_iter();
        let actions = actions.map(|edge| async move {
            let node = edge.start().await?;
            node.linked().await?;
            Result::Ok(node)
        });
        many::at_once(actions, at_once).await
    }

    /// Ephemeral nodes that will link to `addr`. Each is another one than all before.
    fn edges(&mut self, addr: SocketAddr, count: usize) -> Result<Vec<NodeBuilder>> {
        let first = self.issued;
        self.issued += count;
        (first..self.issued)
            .map(|nth| {
                let id: NodeId = format!("edge-{nth}").parse()?;
                let identity = self.authority.issue(&id, 1)?;
                Ok(Node::builder(id, identity).ephemeral(true).peer(addr))
            })
            .collect()
    }
}

fn configured(mut builder: NodeBuilder, settings: &Settings) -> Result<NodeBuilder> {
    // On loopback every node is within reach of every other: with direct paths nothing would be
    // relayed.
    builder = builder.direct(false);
    builder = builder.transit(settings.has("transit")).listen("127.0.0.1:0");
    for peer in settings.get("peers")?.split_terminator(',') {
        builder = builder.peer(peer.parse::<SocketAddr>()?);
    }
    if let Some(bytes) = settings.parsed("max_datagram")? {
        builder = builder.max_datagram(bytes);
    }
    Ok(builder.handle(ECHO, echo)?)
}

async fn echo(mut request: Request, responder: Responder) -> std::result::Result<(), HandlerError> {
    let payload = request.payload.collect(1 << 16).await?;
    responder.set_last(payload)?;
    Ok(())
}

fn serve(node: &Node) -> Result<()> {
    for service in Service::ALL {
        let mut listener = node.serve(service.name()?)?;
        tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                let (send, recv) = incoming.stream.split();
                tokio::spawn(service.serve(send, recv));
            }
        });
    }
    Ok(())
}

/// Counts the datagrams that come in.
fn count(node: &Node, datagrams: &Arc<AtomicU64>) -> Result<()> {
    let (mut listener, datagrams) = (node.serve_datagrams(DATAGRAMS)?, datagrams.clone());
    tokio::spawn(async move {
        while listener.recv().await.is_some() {
            datagrams.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Waits until there is a way to a peer and back, and connects to it.
async fn reach(peer: &Peer) -> Result<()> {
    peer.routable().await;
    Call(peer.clone()).run().await
}

/// A call of the directive that echoes.
#[derive(Clone)]
struct Work(Peer, Directive);

impl Action for Work {
    async fn run(&self) -> Result<()> {
        let mut call = self.0.work(self.1.clone()).await?;
        call.payload.write_chunk(workload::request()).await?;
        workload::reply_of(call.collect(1 << 16).await?.len())
    }
}
