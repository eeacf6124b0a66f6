//! Who is blamed for the end of a stream, a datagram sender or a call, and how far it got.
//!
//! Each event is played on a mesh `a-r b-r`, where `a` uses `r` over a link, and on one where it
//! uses `b` over a peer connection. The observers: reads, one of them on a half-closed stream, a
//! wait for `stopped` and a call that wait while it happens; and a read, a write, a wait for
//! `stopped` and a datagram that come a second and a half after the end.

use std::time::Duration;

use receptor_quic::mesh::{EndReason, EndedBy, Ending, RefuseCode};
use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::transport::RefusalReason;
use receptor_quic::{
    Call, CallError, DatagramSender, Directive, Event, HandlerError, Node, OpenError, Request,
    Responder, Stream, StreamError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{id, serve_echo, service};

/// Later than any end that is noticed by silence.
const LIMIT: Duration = Duration::from_secs(60);
/// For observers that ask later.
const LATER: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    PeerShutDown,
    PeerDropped,
    PeerKilled,
    PeerSilent,
    PeerDeniedMe,
    PeerRestarted,
    IShutDown,
    IDenied,
}

use EndedBy::{Network, Other, This};
use What::*;

/// What happens, who is blamed, and why: the same for every observer, over a link and over a peer
/// connection.
const TABLE: [(What, EndedBy, &str); 8] = [
    (PeerShutDown, Other, "shut down"),
    (PeerDropped, Other, "dropped"),
    (PeerKilled, Network, "unreachable"),
    (PeerSilent, Network, "unreachable"),
    (PeerDeniedMe, Other, "denied"),
    (PeerRestarted, Other, "restarted"),
    (IShutDown, This, "shut down"),
    (IDenied, This, "denied"),
];

#[tokio::test(start_paused = true)]
async fn every_observer_of_a_link_blames_the_same_side() {
    for (what, by, why) in TABLE {
        play("r", what, by, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_observer_of_a_peer_connection_blames_the_same_side() {
    for (what, by, why) in TABLE {
        play("b", what, by, why).await;
    }
}

/// What `a` uses at the other node.
struct Uses {
    pending: Stream,
    later: Stream,
    write: Stream,
    /// Its sending half is finished.
    half: Stream,
    /// For a wait for its end.
    waits: Stream,
    datagrams: DatagramSender,
    call: Call,
}

async fn play(peer: &str, what: What, by: EndedBy, why: &str) {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    let uses = begin(&mesh, peer).await;
    let Uses { mut pending, mut later, mut write, mut half, waits, datagrams, mut call } = uses;
    let cloned = datagrams.clone();
    let half_read = tokio::spawn(async move { half.recv.read_chunk(8).await.unwrap_err() });
    let stopped = tokio::spawn(async move { (waits.send.stopped().await.unwrap_err(), waits) });
    let pending_read = tokio::spawn(async move { pending.recv.read_chunk(8).await.unwrap_err() });
    let pending_call = tokio::spawn(async move { call.next().await.unwrap_err() });
    // Both are waiting by the time it happens.
    sleep(Duration::from_millis(10)).await;
    happen(&mut mesh, peer, what).await;
    let context = |observer: &str| format!("{what:?} at {peer}, {observer}");

    let pending = timeout(LIMIT, pending_read).await.expect("the read ends").unwrap();
    assert_ending(pending.ending(), by, why, 4, &context("read pending"));
    let call = timeout(LIMIT, pending_call).await.expect("the call ends").unwrap();
    match (&call, what) {
        // Running calls get their word at the end of the grace period.
        (CallError::Leaving { may_have_started }, PeerShutDown) => assert!(may_have_started),
        _ => assert_ending(call.ending(), by, why, 6, &context("call pending")),
    }
    assert!(call.may_have_started(), "{}", context("a call that was running"));
    let half = timeout(LIMIT, half_read).await.expect("the read ends").unwrap();
    assert_ending(half.ending(), by, why, 0, &context("read of a half-closed stream"));
    let (stopped, waits) = timeout(LIMIT, stopped).await.expect("the wait ends").unwrap();
    assert_ending(stopped.ending(), by, why, 4, &context("stopped pending"));
    sleep(LATER).await;
    let error = later.recv.read_chunk(8).await.unwrap_err();
    assert_ending(error.ending(), by, why, 4, &context("read later"));
    let error = write.send.write_all(b"more").await.unwrap_err();
    assert_ending(error.ending(), by, why, 4, &context("write later"));
    for sender in [datagrams, cloned] {
        let error = sender.send(b"more").unwrap_err();
        assert_ending(error.ending(), by, why, 5, &context("datagram later"));
    }
    for stream in [&waits, &write] {
        let error = stream.send.stopped().await.unwrap_err();
        assert_ending(error.ending(), by, why, 4, &context("stopped later"));
    }
    let error = write.read_u8().await.unwrap_err();
    let error = StreamError::from_io(&error).expect("the error of the stream");
    assert_ending(error.ending(), by, why, 4, &context("through io::Error"));
}

async fn begin(mesh: &Mesh, peer: &str) -> Uses {
    let (a, other) = (mesh.node("a"), mesh.node(peer));
    serve_echo(other);
    serve_silence(other);
    other.handle(directive("test:wait"), wait).unwrap();
    let open = async || {
        let mut stream = a.open(&id(peer), &service("echo")).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        stream
    };
    let datagrams = a.datagrams(&id(peer), &service("news")).await.unwrap();
    datagrams.send(b"first").unwrap();
    let mut call = a.call(&id(peer), directive("test:wait")).await.unwrap();
    assert_eq!(call.next().await.unwrap().unwrap().body, "so far");
    let silent = async || {
        let mut stream = a.open(&id(peer), &service("silence")).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.accepted().await.unwrap();
        stream
    };
    let mut half = silent().await;
    half.send.finish();
    let (pending, later, write) = (open().await, open().await, open().await);
    Uses { pending, later, write, half, waits: silent().await, datagrams, call }
}

/// Offers `silence`, which keeps its streams and neither reads nor answers.
fn serve_silence(node: &Node) {
    let mut listener = node.serve(service("silence")).unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(incoming) = listener.accept().await {
            kept.push(incoming);
        }
    });
}

async fn happen(mesh: &mut Mesh, peer: &str, what: What) {
    match what {
        PeerShutDown => mesh.node(peer).shutdown().await,
        PeerDropped => drop(mesh.remove(peer)),
        PeerKilled => mesh.kill(peer),
        PeerSilent => mesh.network().isolate(mesh.addr(peer).ip()),
        PeerDeniedMe => deny(mesh, peer, "a").await,
        PeerRestarted => {
            mesh.kill(peer);
            match peer {
                "r" => mesh.restart_in_place("r", &[]).await,
                _ => mesh.restart("b", &["r"]).await,
            }
        }
        IShutDown => mesh.node("a").shutdown().await,
        IDenied => deny(mesh, "a", peer).await,
    }
}

/// `by` no longer accepts `whom`.
async fn deny(mesh: &Mesh, by: &str, whom: &str) {
    let identity = mesh.authority().issue(&id(by), 1).unwrap();
    let trust = identity.trust().clone().with_denied([id(whom)]);
    mesh.node(by).reload(identity.with_trust(trust)).await.unwrap();
}

#[track_caller]
fn assert_ending(ending: Option<Ending>, by: EndedBy, why: &str, bytes: u64, context: &str) {
    assert!(ending.is_some(), "{context}: the end of nothing");
    let Some(ending) = ending else { return };
    assert_eq!(
        (ending.by, name(&ending.why), ending.bytes),
        (by, why, bytes),
        "{context}: {ending}"
    );
}

fn name(why: &EndReason) -> &'static str {
    match why {
        EndReason::ShutDown => "shut down",
        EndReason::Dropped => "dropped",
        EndReason::Restarted => "restarted",
        EndReason::Unreachable | EndReason::NoRoute => "unreachable",
        EndReason::NotTrusted(refusal) if refusal.reason == RefusalReason::Denied => "denied",
        _ => "another reason",
    }
}

/// Answers once and then never again.
async fn wait(_: Request, responder: Responder) -> Result<(), HandlerError> {
    responder.send("so far".into()).await?;
    std::future::pending().await
}

fn directive(text: &str) -> Directive {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_connection_says_so_to_the_sender_of_datagrams() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    sender.send(b"first").unwrap();
    sleep(Duration::from_secs(300)).await;
    for _ in 0..2 {
        let ending = sender.send(b"late").unwrap_err().ending().unwrap();
        assert_eq!((ending.by, ending.why, ending.bytes), (Other, EndReason::Idle, 5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_connection_with_a_stream_or_a_call_is_not_idle() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut uses = begin(&mesh, "b").await;
    sleep(Duration::from_secs(900)).await;
    uses.write.write_all(b"pong").await.unwrap();
    uses.write.read_exact(&mut [0; 4]).await.unwrap();
    uses.datagrams.send(b"still").unwrap();
    assert!(timeout(Duration::from_secs(1), uses.call.next()).await.is_err(), "the call goes on");
    assert!(
        timeout(Duration::from_secs(1), uses.half.recv.read_chunk(8)).await.is_err(),
        "the half goes on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlasts_silence_without_link_events() {
    let mesh = mesh(["a-r"]).await;
    serve_echo(mesh.node("r"));
    let mut events = mesh.node("a").events();
    let mut stream = mesh.node("a").open(&id("r"), &service("echo")).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let status = mesh.node("r").status().await.unwrap();
    assert_eq!(status.links.len(), 1);
    stream.read_exact(&mut [0; 4]).await.unwrap();
    stream.write_all(b"pong").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::LinkUp { .. } | Event::LinkDown { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_call_in_the_grace_period_was_certainly_not_started() {
    for peer in ["r", "b"] {
        let mesh = mesh(["a-r", "b-r"]).await;
        let mut uses = begin(&mesh, peer).await;
        let leaver = mesh.node(peer).clone();
        let shutdown = tokio::spawn(async move { leaver.shutdown().await });
        sleep(Duration::from_millis(100)).await;
        let call = mesh.node("a").call(&id(peer), directive("test:wait")).await.unwrap();
        let error = call.collect(100).await.unwrap_err();
        assert_eq!(error, CallError::Leaving { may_have_started: false });
        assert!(!error.may_have_started() && error.is_transient());
        let error = uses.call.next().await.unwrap_err();
        assert_eq!(error, CallError::Leaving { may_have_started: true });
        shutdown.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_certain_not_to_have_been_served() {
    let mesh = mesh(["a-r"]).await;
    let mut stream = mesh.node("a").open(&id("r"), &service("nothing")).await.unwrap();
    let ending = stream.accepted().await.unwrap_err().ending().unwrap();
    assert!(
        matches!(&ending.why, EndReason::Refused(why) if why.code == RefuseCode::UnknownService),
        "{ending:?}"
    );
    assert_eq!((ending.by, ending.bytes), (Other, 0));
    let call = mesh.node("a").call(&id("r"), directive("no:body")).await.unwrap();
    let error = call.collect(100).await.unwrap_err();
    assert_eq!(error, CallError::UnknownDirective);
    assert!(!error.may_have_started() && !error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_cut_off_half_way_counts_what_was_accepted() {
    let mesh = mesh(["a-r"]).await;
    let mut listener = mesh.node("r").serve(service("part")).unwrap();
    let mut stream = mesh.node("a").open(&id("r"), &service("part")).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut incoming = listener.accept().await.unwrap();
        let mut read = 0;
        while read < 3_000_000 {
            read += incoming.stream.recv.read_chunk(65_536).await.unwrap().unwrap().len();
        }
        incoming.stream.recv.stop(receptor_quic::transport::code::StreamCode::Cancelled);
        let error = incoming.stream.recv.read_chunk(1).await.unwrap_err();
        assert!(matches!(error, StreamError::Finished { .. }), "{error:?}");
        incoming
    });
    let error = stream.send.write_chunk(vec![0; 30_000_000].into()).await.unwrap_err();
    let StreamError::Stopped { bytes, .. } = error else { panic!("{error:?}") };
    assert!((3_000_000..30_000_000).contains(&bytes), "{bytes}");
    assert_eq!(bytes, stream.send.bytes_sent());
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_half_that_was_reset_has_nothing_to_wait_for() {
    let mesh = mesh(["a-r"]).await;
    serve_echo(mesh.node("r"));
    let mut stream = mesh.node("a").open(&id("r"), &service("echo")).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.send.reset(receptor_quic::transport::code::StreamCode::Cancelled);
    let stopped = timeout(LIMIT, stream.send.stopped()).await.expect("it does not wait");
    assert_eq!(stopped, Err(StreamError::Finished { bytes: 1 }));
}

#[tokio::test(start_paused = true)]
async fn events_and_registrations_end_with_the_node() {
    let mesh = mesh(["a-r"]).await;
    let node = mesh.node("a").clone();
    let mut events = node.events();
    node.shutdown().await;
    let mut downs = 0;
    while let Ok(event) = timeout(LIMIT, events.recv()).await.expect("events end") {
        downs += usize::from(matches!(event, Event::LinkDown { .. }));
    }
    assert_eq!(downs, 1, "the one link went down once");
    assert!(timeout(LIMIT, node.events().recv()).await.expect("there are no more").is_err());
    assert!(node.handle(directive("too:late"), wait).is_err());
    assert_eq!(node.open(&id("r"), &service("echo")).await.unwrap_err(), OpenError::ShutDown);
}

/// Every other node knows within 100 ms that `leaver` has left, and says so in `explain`, `status`
/// and an event.
async fn assert_leave_is_known(mesh: &Mesh, leaver: &str, others: &[&Node]) {
    let mut events: Vec<_> = others.iter().map(|node| node.events()).collect();
    mesh.node(leaver).shutdown().await;
    let left = Instant::now();
    sleep(Duration::from_millis(100)).await;
    for (node, events) in others.iter().zip(&mut events) {
        let explained = serde_json::to_value(node.explain(&id(leaver)).await.unwrap()).unwrap();
        assert_eq!(explained["route"]["state"], "left", "at {}: {explained:#}", node.id());
        assert!(explained["left"]["ago_s"].is_f64(), "at {}", node.id());
        let status = node.status().await.unwrap();
        assert!(
            status.left.iter().any(|gone| gone.node == id(leaver) && !gone.ephemeral),
            "at {}",
            node.id()
        );
        let mut seen = false;
        while let Ok(event) = events.try_recv() {
            seen |= event == Event::NodeLeft { node: id(leaver) };
        }
        assert!(seen, "at {}, {:?} later", node.id(), left.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leave_is_known_everywhere_with_one_neighbour() {
    let mesh = mesh(["a-r", "b-r", "c-b"]).await;
    let others = ["r", "b", "c"].map(|name| mesh.node(name));
    assert_leave_is_known(&mesh, "a", &others).await;
}

#[tokio::test(start_paused = true)]
async fn a_leave_is_known_everywhere_with_three_neighbours() {
    let mesh = mesh(["a-r1", "a-r2", "a-r3", "r1-r2", "r2-r3", "c-r3", "d-r1"]).await;
    let others = ["r1", "r2", "r3", "c", "d"].map(|name| mesh.node(name));
    assert_leave_is_known(&mesh, "a", &others).await;
}

/// Twenty processes of `a` leave one after the other. Each changes its record more often than the
/// mesh accepts records of one node in that time.
async fn assert_leaves_in_a_row_are_known(mesh: &mut Mesh, neighbours: &[&str], others: &[&str]) {
    for _ in 0..20 {
        let others: Vec<_> = others.iter().map(|name| mesh.node(name)).collect();
        for other in &others {
            timeout(LIMIT, other.routable(&id("a"))).await.expect("it is back").unwrap();
        }
        for change in 0..10 {
            mesh.node("a").handle(directive(&format!("test:d{change}")), wait).unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        assert_leave_is_known(mesh, "a", &others).await;
        mesh.kill("a");
        mesh.restart("a", neighbours).await;
    }
}

#[tokio::test(start_paused = true)]
async fn leaves_in_a_row_are_each_known_with_one_neighbour() {
    let mut mesh = mesh(["a-r", "b-r", "c-b"]).await;
    assert_leaves_in_a_row_are_known(&mut mesh, &["r"], &["r", "b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn leaves_in_a_row_are_each_known_with_three_neighbours() {
    let mut mesh = mesh(["a-r1", "a-r2", "a-r3", "r1-r2", "r2-r3", "c-r3", "d-r1"]).await;
    assert_leaves_in_a_row_are_known(&mut mesh, &["r1", "r2", "r3"], &["r1", "r2", "r3", "c", "d"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_leave_of_the_only_relay_is_known_to_all_its_edges() {
    let mesh = mesh(["a-r", "b-r", "c-r"]).await;
    let others = ["a", "b", "c"].map(|name| mesh.node(name));
    assert_leave_is_known(&mesh, "r", &others).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_left_and_came_back_has_not_left() {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    mesh.node("b").shutdown().await;
    sleep(Duration::from_secs(120)).await;
    let explained = mesh.node("a").explain(&id("b")).await.unwrap();
    assert!(explained.left.unwrap().ago_s > 100.0, "it outlives the record");
    drop(mesh.remove("b"));
    mesh.restart("b", &["r"]).await;
    mesh.node("a").routable(&id("b")).await.unwrap();
    assert_eq!(mesh.node("a").explain(&id("b")).await.unwrap().left, None);
    assert!(mesh.node("a").status().await.unwrap().left.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_node_explains_a_distant_leave() {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    let stub = mesh.joiner("s", &["r"]).ephemeral(true).start().await.unwrap();
    stub.linked().await.unwrap();
    assert_eq!(stub.explain(&id("b")).await.unwrap().left, None);
    mesh.node("b").shutdown().await;
    sleep(Duration::from_secs(60)).await;
    let left = stub.explain(&id("b")).await.unwrap().left.expect("it has left");
    assert!((59.0..61.0).contains(&left.ago_s) && !left.ephemeral, "{left:?}");
    // Nothing is reported of a node that is unknown, or that was killed.
    assert_eq!(stub.explain(&id("nobody")).await.unwrap().left, None);
    mesh.kill("a");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(stub.explain(&id("a")).await.unwrap().left, None);
    // One that is back has not left.
    drop(mesh.remove("b"));
    mesh.restart("b", &["r"]).await;
    mesh.node("r").routable(&id("b")).await.unwrap();
    assert_eq!(stub.explain(&id("b")).await.unwrap().left, None);
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_node_that_left_is_explained_near_and_far() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let stub = mesh.joiner("s", &["r"]).ephemeral(true).start().await.unwrap();
    stub.linked().await.unwrap();
    mesh.node("a").routable(&id("s")).await.unwrap();
    stub.shutdown().await;
    sleep(Duration::from_secs(1)).await;
    for name in ["r", "a", "b"] {
        let left = mesh.node(name).explain(&id("s")).await.unwrap().left;
        assert!(left.is_some_and(|left| left.ephemeral), "at {name}");
    }
}
