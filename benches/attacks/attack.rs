//! What the attackers do. Each attack goes on until its future is dropped.

use std::future::pending;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::mpsc::Sender;
use std::time::Duration;

use receptor_quic::switch::Attachment;
use receptor_quic::{Call, Directive, Identity, Node, NodeId};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::chains::namesakes;
use crate::initials::Initials;
use crate::member::{EDGE, Link, Member, RELAY, client_config, frame, framed, id};
use crate::puppet::Puppet;
use crate::stage::Stage;
use crate::udp::Udp;

/// First packets a second from outside.
const OUTSIDE_RATE: u32 = 300;
/// First packets a second through the mesh.
const MESH_RATE: u32 = 200;
/// Handshakes a second with a chain that is expensive to refuse.
const CHAIN_RATE: u32 = 18;
/// Intermediates of such a chain, all with one name.
const NAMESAKES: usize = 18;
/// Calls that one certificate tries to keep.
const CALLS: usize = 1_500;
/// Ephemeral nodes that share the certificate.
const CALLERS: usize = 4;
/// Bytes that each unread call tries to send.
const UNREAD: usize = 2_000_000;
/// Stubs that come and go twice a second.
const STUBS: usize = 4_000;
/// Frames a second, in bursts.
const FRAMES: u32 = 10_000;
/// Links a second that are made and dropped.
const LINKS: u32 = 20;

pub(crate) type AttackFn = fn(Target, Ready) -> Pin<Box<dyn Future<Output = ()>>>;

/// Says that the attack has begun.
pub(crate) struct Ready(pub(crate) Sender<()>);

impl Ready {
    fn now(self) {
        let _ = self.0.send(());
    }
}

/// What an attacker knows.
pub(crate) struct Target {
    relay: SocketAddr,
    a: SocketAddr,
    b: SocketAddr,
    mallory: (NodeId, Identity),
    /// The certificate of the callers.
    greedy: Identity,
}

impl Target {
    pub(crate) fn new(stage: &Stage) -> Self {
        let addr = |node: &crate::stage::Observed| node.node.addr().parse().expect("an address");
        let (_, greedy) = stage.identity("greedy");
        let mallory = stage.identity("mallory");
        Self { relay: addr(&stage.relay), a: addr(&stage.a), b: addr(&stage.b), mallory, greedy }
    }

    async fn member(&self) -> Member {
        let (id, identity) = self.mallory.clone();
        Member::new(Udp::bind().await, id, identity)
    }
}

/// Ticks so often a second; what is late is made up for.
fn rate(per_second: u32) -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

pub(crate) async fn nothing(ready: Ready) {
    ready.now();
    pending().await
}

pub(crate) async fn initials_from_outside(target: Target, ready: Ready) {
    let member = target.member().await;
    let (mut initials, mut ticks) = (Initials::default(), rate(OUTSIDE_RATE));
    ready.now();
    loop {
        ticks.tick().await;
        member.carrier.send(target.relay, &initials.next().await);
    }
}

/// As many addresses as loopback has networks, none of which answers.
pub(crate) async fn initials_from_many_sources(target: Target, ready: Ready) {
    let (mut initials, mut ticks) = (Initials::default(), rate(OUTSIDE_RATE));
    ready.now();
    for number in 0_u32.. {
        ticks.tick().await;
        let [_, _, high, low] = number.to_be_bytes();
        let socket = UdpSocket::bind(SocketAddr::from(([127, low, high.wrapping_add(1), 9], 0)))
            .expect("loopback has 2^24 addresses");
        let _ = socket.send_to(&initials.next().await, target.relay);
    }
}

pub(crate) async fn initials_through_the_mesh(target: Target, ready: Ready) {
    let member = target.member().await;
    let link = member.link(target.relay, EDGE).await;
    let _puppet = Puppet::start(&member, link, false);
    let (mut initials, mut ticks) = (Initials::default(), rate(MESH_RATE));
    ready.now();
    loop {
        ticks.tick().await;
        member.carrier.switch(id("b").addr(), &initials.next().await);
    }
}

/// Claims the ephemeral node that is attached to `a`, and sends with its source address.
pub(crate) async fn stolen_stub(target: Target, ready: Ready) {
    let member = target.member().await;
    let link = member.link(target.relay, EDGE).await;
    let stub = id("guest~stub");
    member.pretend(&link, stub.addr(), Attachment::None);
    let puppet = Puppet::start(&member, link, false);
    puppet.claim(stub);
    let mut ticks = rate(100);
    ready.now();
    loop {
        ticks.tick().await;
        member.carrier.switch(id("b").addr(), b"@stolen");
    }
}

pub(crate) async fn junk_chains(target: Target, ready: Ready) {
    let member = target.member().await;
    let config = client_config(Some(&namesakes(NAMESAKES)));
    let (mut handshakes, mut ticks) = (JoinSet::new(), rate(CHAIN_RATE));
    ready.now();
    loop {
        ticks.tick().await;
        let connecting =
            member.endpoint.connect_with(config.clone(), target.relay, "receptor").unwrap();
        handshakes.spawn(async {
            // The server judges the chain after the client has finished.
            if let Ok(connection) = connecting.await {
                connection.closed().await;
            }
        });
        while handshakes.try_join_next().is_some() {}
    }
}

/// Ordinary nodes with one certificate, linked to the relay.
async fn callers(target: &Target) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 0..CALLERS {
        let builder = Node::builder(id(&format!("greedy~{number}")), target.greedy.clone());
        let node = builder.ephemeral(true).direct(false).peer(target.relay).start().await.unwrap();
        node.linked().await.unwrap();
        nodes.push(node);
    }
    nodes
}

/// As many calls of a directive as `b` lets them have.
async fn calls(nodes: &[Node], directive: &str) -> Vec<Call> {
    let (b, directive): (NodeId, Directive) = (id("b"), directive.parse().unwrap());
    let mut calls = Vec::new();
    for node in nodes {
        for _ in 0..CALLS / CALLERS {
            let call = node.call(&b, directive.clone());
            match timeout(Duration::from_secs(1), call).await {
                Ok(Ok(call)) => calls.push(call),
                _ => break,
            }
        }
    }
    calls
}

/// The payload of no call ends, so neither does the command.
pub(crate) async fn endless_calls(target: Target, ready: Ready) {
    let nodes = callers(&target).await;
    let _calls = calls(&nodes, "wait:work").await;
    ready.now();
    pending().await
}

/// Calls of a command that writes without end, whose responses nobody reads.
pub(crate) async fn unread_responses(target: Target, ready: Ready) {
    let nodes = callers(&target).await;
    let _calls = calls(&nodes, "flood:work").await;
    ready.now();
    pending().await
}

/// Calls of a command that reads nothing and writes without end, whose responses nobody reads.
pub(crate) async fn unread_streams(target: Target, ready: Ready) {
    let nodes = callers(&target).await;
    let mut writing = JoinSet::new();
    let payload = vec![0; UNREAD];
    for call in calls(&nodes, "flood:work").await {
        let (mut send, responses) = call.split();
        let payload = payload.clone();
        writing.spawn(async move {
            let _ = send.write_all(&payload).await;
            pending::<()>().await;
            drop((send, responses));
        });
    }
    ready.now();
    pending().await
}

/// A cheaper path from `a` to `b`, on which nothing arrives.
pub(crate) async fn black_hole(target: Target, ready: Ready) {
    let member = target.member().await;
    let to_a = member.link(target.a, RELAY).await;
    let to_b = member.link(target.b, RELAY).await;
    let _puppet = Puppet::start_with(&member, vec![to_a, to_b], true);
    ready.now();
    pending().await
}

/// Genuine ephemeral nodes under the attacker's own certificate, for all that others know.
pub(crate) async fn stub_churn(target: Target, ready: Ready) {
    let member = target.member().await;
    let link = member.link(target.relay, EDGE).await;
    let puppet = Puppet::start(&member, link, false);
    let stubs: Vec<NodeId> = (0..STUBS).map(|stub| id(&format!("mallory~{stub}"))).collect();
    let mut ticks = interval(Duration::from_millis(500));
    ready.now();
    loop {
        ticks.tick().await;
        stubs.iter().for_each(|stub| puppet.claim(stub.clone()));
        ticks.tick().await;
        stubs.iter().for_each(|stub| puppet.disclaim(stub.clone()));
    }
}

/// Each frame is one that a node would log if it logged every frame.
pub(crate) async fn frames_without_end(target: Target, ready: Ready) {
    const BURST: u32 = 100;
    let member = target.member().await;
    let mut ticks = rate(FRAMES / BURST);
    let mut ready = Some(ready);
    let mut number = 0_u64;
    loop {
        let Link { connection, mut control, frames, .. } = member.link(target.relay, EDGE).await;
        // The attacker reads, so that the victim never waits for it.
        tokio::spawn(frames.discard());
        if let Some(ready) = ready.take() {
            ready.now();
        }
        // The victim may close the link, which is a good defence.
        while connection.close_reason().is_none() {
            ticks.tick().await;
            for _ in 0..BURST {
                number += 1;
                let twin = framed(&(frame::TWIN, number, "somewhere\u{1b}[31m\nelse"));
                if control.write_all(&twin).await.is_err() {
                    break;
                }
            }
        }
    }
}

pub(crate) async fn links_without_end(target: Target, ready: Ready) {
    let member = target.member().await;
    let mut ticks = rate(LINKS);
    ready.now();
    loop {
        let link = member.link(target.relay, EDGE).await;
        ticks.tick().await;
        link.connection.close(0_u32.into(), b"");
    }
}
