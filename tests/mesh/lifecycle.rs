//! The end of a node: shutdowns, and runtimes that are gone before the handles.
//!
//! Two runtimes have two clocks, and ports are the system's, so some of these run in real time, on
//! loopback.

use std::net::SocketAddr;
use std::time::Duration;

use receptor_quic::testing::mesh;
use receptor_quic::{
    Authority, CallError, ConvergeError, DatagramError, Node, NodeId, NotLinked, OpenError,
    ServeError, ShutDown, Stream, StreamError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};

use crate::support::{echo, id, serve_echo, service, up_links};

/// More than anything here takes on a slow machine.
const LIMIT: Duration = Duration::from_secs(20);

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Two nodes that are linked over loopback, each driven by a runtime of its own.
struct Two {
    far: Node,
    near: Node,
    /// Drives `near`.
    driving: Runtime,
    /// Drives `far`, and all who use `near`.
    using: Runtime,
}

impl Two {
    fn new(driving: Runtime) -> Self {
        let using = multi_thread();
        let ca = Authority::new("lifecycle", 1).unwrap();
        let (near_id, far_id) = (id("near"), id("far"));
        let far = Node::builder(far_id.clone(), ca.issue(&far_id, 1).unwrap());
        let far = using.block_on(far.listen("127.0.0.1:0").start()).unwrap();
        serve_silence(&using, &far);
        let near = Node::builder(near_id.clone(), ca.issue(&near_id, 1).unwrap())
            .peer(far.local_addrs()[0]);
        let near = driving.block_on(async {
            let near = near.start().await.unwrap();
            near.linked().await.unwrap();
            near.routable(far.id()).await.unwrap();
            near
        });
        Self { far, near, driving, using }
    }

    /// Begins all kinds of waits, drops the runtime that drives the node, and returns how they end.
    fn waits_end(self, kind: &str) {
        let Self { far, near, driving, using } = self;
        // A runtime of one thread runs only while somebody waits on it.
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let driver = std::thread::spawn(move || {
            let _ = driving.block_on(stopped);
            drop(driving);
        });
        using.block_on(async move {
            let stream = || async { near.open(far.id(), &service("silence")).await.unwrap() };
            let ended = |what: &'static str, wait: tokio::task::JoinHandle<()>| async move {
                let ended = timeout(LIMIT, wait).await;
                assert!(ended.is_ok(), "{what} hangs on a {kind} runtime");
                ended.unwrap().expect(what);
            };
            let mut waits = Vec::new();

            let mut reading = stream().await;
            waits.push((
                "read",
                tokio::spawn(async move { lost(&reading.recv.read_chunk(1).await.unwrap_err()) }),
            ));
            let mut writing = stream().await;
            waits.push((
                "write",
                tokio::spawn(async move {
                    let error = loop {
                        if let Err(error) = writing.send.write_chunk(vec![0; 1 << 20].into()).await
                        {
                            break error;
                        }
                    };
                    lost(&error);
                }),
            ));
            let mut finished = stream().await;
            finished.send.write_all(&[0; 100_000]).await.unwrap();
            waits.push((
                "stopped",
                tokio::spawn(async move { lost(&finished.send.stopped().await.unwrap_err()) }),
            ));
            let mut later = stream().await;

            let mut listener = near.serve(service("offered")).unwrap();
            waits.push((
                "accept",
                tokio::spawn(async move { assert!(listener.accept().await.is_none()) }),
            ));
            let mut events = near.events();
            waits.push((
                "events",
                tokio::spawn(async move { while events.recv().await != Err(RecvError::Closed) {} }),
            ));
            let mut datagrams = near.serve_datagrams(service("offered")).unwrap();
            waits.push((
                "recv",
                tokio::spawn(async move { assert!(datagrams.recv().await.is_none()) }),
            ));
            let node = near.clone();
            waits.push((
                "routable",
                tokio::spawn(async move {
                    assert_eq!(node.routable(&id("nobody")).await, Err(ShutDown.into()))
                }),
            ));
            let node = near.clone();
            waits.push(("call", tokio::spawn(async move { endless_call(&node).await })));
            let sender = near.datagrams(far.id(), &service("silence")).await.unwrap();
            sender.send(b"there").unwrap();
            // What waits has begun to, once the far end has seen the streams.
            far.ping(near.id()).await.unwrap();

            stop.send(()).unwrap();
            driver.join().unwrap();
            for (what, wait) in waits {
                ended(what, wait).await;
            }

            // And whatever is begun afterwards ends at once.
            let node = near.clone();
            let after = tokio::spawn(async move {
                let near = node;
                let far = id("far");
                assert!(matches!(near.open(&far, &service("s")).await, Err(OpenError::ShutDown)));
                let within = near.open_within(&far, &service("s"), LIMIT).await;
                assert!(matches!(within, Err(OpenError::ShutDown)));
                assert!(matches!(
                    near.datagrams(&far, &service("s")).await,
                    Err(OpenError::ShutDown)
                ));
                assert!(matches!(near.call(&far, "a:b").await, Err(OpenError::ShutDown)));
                assert!(matches!(near.linked().await, Err(NotLinked::ShutDown)));
                assert_eq!(near.routable(&far).await, Err(ShutDown.into()));
                assert_eq!(near.converged(LIMIT).await, Err(ConvergeError::ShutDown));
                assert_eq!(near.status().await.err(), Some(ShutDown));
                assert_eq!(near.explain(&far).await.err(), Some(ShutDown.into()));
                assert_eq!(near.serve(service("late")).err(), Some(ServeError::ShutDown));
                assert_eq!(near.serve_datagrams(service("late")).err(), Some(ServeError::ShutDown));
                assert!(matches!(sender.send(b"gone"), Err(DatagramError::Lost { .. })));
                assert!(matches!(sender.send_wait(b"gone").await, Err(DatagramError::Lost { .. })));
                lost(&later.recv.read_chunk(1).await.unwrap_err());
                lost(&later.send.write_chunk(b"late"[..].into()).await.unwrap_err());
                assert_eq!(near.events().recv().await, Err(RecvError::Closed));
                near.shutdown().await;
            });
            ended("what comes afterwards", after).await;
        });
    }
}

/// Accepts streams and keeps them, without a word.
fn serve_silence(runtime: &Runtime, node: &Node) {
    let mut listener = node.serve(service("silence")).unwrap();
    let handler = |_, _| std::future::pending::<Result<(), receptor_quic::HandlerError>>();
    node.handle("test:endless", handler).unwrap();
    runtime.spawn(async move {
        let mut kept = Vec::new();
        while let Some(incoming) = listener.accept().await {
            kept.push(incoming);
        }
    });
}

async fn endless_call(node: &Node) {
    // On a busy machine, the runtime may be gone before the call has begun.
    match node.call(&id("far"), "test:endless").await {
        Ok(mut call) => assert!(matches!(call.next().await, Err(CallError::Lost(_)))),
        Err(error) => assert_eq!(error, OpenError::ShutDown),
    }
}

/// A stream that was lost with its connection, and neither ended nor refused by the other side.
fn lost(error: &StreamError) {
    let by_the_caller = matches!(error, StreamError::Finished { .. });
    let by_the_other = matches!(error, StreamError::Reset { .. } | StreamError::Stopped { .. });
    assert!(!by_the_caller && !by_the_other, "{error:?}");
}

#[test]
fn waits_end_when_the_multi_thread_runtime_of_a_node_is_gone() {
    Two::new(multi_thread()).waits_end("multi-thread");
}

#[test]
fn waits_end_when_the_current_thread_runtime_of_a_node_is_gone() {
    Two::new(current_thread()).waits_end("current-thread");
}

#[test]
fn a_connection_outlives_the_runtime_of_the_caller_that_made_it() {
    let nodes = current_thread();
    let ca = Authority::new("lifecycle", 1).unwrap();
    let start = |name: &str, peer: Option<SocketAddr>, transit| {
        let node: NodeId = id(name);
        let builder =
            Node::builder(node.clone(), ca.issue(&node, 1).unwrap()).transit(transit).direct(false);
        let builder = builder.listen("127.0.0.1:0");
        let builder = peer.into_iter().fold(builder, |builder, peer| builder.peer(peer));
        nodes.block_on(builder.start()).unwrap()
    };
    let relay = start("relay", None, true);
    let (a, b) = (
        start("a", Some(relay.local_addrs()[0]), false),
        start("b", Some(relay.local_addrs()[0]), false),
    );
    nodes.block_on(async { timeout(LIMIT, a.routable(b.id())).await }).unwrap().unwrap();
    nodes.block_on(async { serve_echo(&b) });

    // The first stream to `b` makes the connection, on behalf of a caller whose runtime is gone a
    // moment later.
    let (opened, stream) = std::sync::mpsc::channel();
    let caller = a.clone();
    let other = std::thread::spawn(move || {
        let runtime = current_thread();
        opened.send(runtime.block_on(caller.open(&id("b"), &service("echo"))).unwrap()).unwrap();
    });
    let mut stream: Stream = nodes.block_on(async {
        while !other.is_finished() {
            tokio::task::yield_now().await;
        }
        stream.recv().unwrap()
    });
    nodes.block_on(async {
        let echoed = async {
            stream.write_all(b"still there").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(timeout(LIMIT, echoed).await.unwrap(), "still there");
    });
}

#[tokio::test]
async fn the_port_is_free_when_shutdown_returns() {
    let ca = Authority::new("lifecycle", 1).unwrap();
    let start = async |name: &str, listen: SocketAddr, peer: Option<SocketAddr>| {
        let node = id(name);
        let builder = Node::builder(node.clone(), ca.issue(&node, 1).unwrap()).listen(listen);
        peer.into_iter().fold(builder, |builder, peer| builder.peer(peer)).start().await
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let far = start("far", any, None).await.unwrap();
    serve_echo(&far);
    let mut addr = any;
    let mut kept = Vec::new();
    for turn in 0..200 {
        let node = start("near", addr, Some(far.local_addrs()[0])).await;
        let node = node.unwrap_or_else(|error| panic!("restart {turn}: {error}"));
        addr = node.local_addrs()[0];
        // Linking takes its time, so not each of them does; those that do leave handles behind.
        if turn % 20 == 0 {
            node.linked().await.unwrap();
            let mut stream = node.open(far.id(), &service("echo")).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            kept.push(stream);
        }
        let clone = node.clone();
        node.shutdown().await;
        std::net::UdpSocket::bind(addr).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        drop(clone);
    }
    assert_eq!(kept.len(), 10);
}

#[test]
fn the_port_is_free_when_the_runtime_is_gone() {
    let two = Two::new(multi_thread());
    let mut addr = two.near.local_addrs()[0];
    addr.set_ip("::".parse().unwrap());
    let stream = two.using.block_on(two.near.open(two.far.id(), &service("silence"))).unwrap();
    drop(two.driving);
    std::net::UdpSocket::bind(addr)
        .or_else(|_| std::net::UdpSocket::bind(("0.0.0.0", addr.port())))
        .unwrap();
    drop((stream, two.near));
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_shut_its_own_node_down() {
    let mesh = mesh(["a-b"]).await;
    let b = mesh.node("b").clone();
    let node = b.clone();
    let handler = move |_, _| {
        let node = node.clone();
        async move {
            node.shutdown().await;
            Ok(())
        }
    };
    b.handle("test:stop", handler).unwrap();
    let start = Instant::now();
    let mut call = mesh.node("a").call(&id("b"), "test:stop").await.unwrap();
    let error = call.next().await.unwrap_err();
    assert!(matches!(error, CallError::Leaving { .. }), "the caller learns why: {error:?}");
    timeout(LIMIT, b.shutdown()).await.unwrap();
    assert_eq!(b.status().await.err(), Some(ShutDown));
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "it did not wait for itself: {:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_whose_future_is_dropped_goes_on() {
    let mesh = mesh(["a-b"]).await;
    let b = mesh.node("b").clone();
    assert!(timeout(Duration::ZERO, b.shutdown()).await.is_err(), "it has just begun");
    let unlinked = async {
        while !up_links(mesh.node("a")).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, unlinked).await.expect("b leaves");
    timeout(LIMIT, async { tokio::join!(b.shutdown(), b.shutdown()) })
        .await
        .expect("all share one shutdown");
    assert_eq!(b.routable(&id("a")).await, Err(ShutDown.into()));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_open_streams_and_refuses_others() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b").clone());
    serve_echo(&b);
    let _other = b.serve(service("other")).unwrap();
    let mut stream = a.open(&id("b"), &service("echo")).await.unwrap();
    stream.write_all(b"before").await.unwrap();
    stream.read_exact(&mut [0; 6]).await.unwrap();
    let leaving = b.clone();
    let leaving =
        tokio::spawn(async move { leaving.shutdown_within(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut late = a.open(&id("b"), &service("echo")).await.unwrap();
    let refused = late.accepted().await.unwrap_err();
    assert!(
        matches!(&refused, StreamError::Refused(why) if why.code == receptor_quic::mesh::RefuseCode::Leaving)
    );
    // Streams like the one before take a shorter way in; so does not the first one for a service.
    for name in ["echo", "echo", "other", "other"] {
        let mut late = a.open(&id("b"), &service(name)).await.unwrap();
        let refused = late.accepted().await.unwrap_err();
        assert!(matches!(refused, StreamError::Refused(_)), "{name}: {refused:?}");
    }
    assert_eq!(b.serve(service("another")).unwrap_err(), ServeError::ShutDown);
    stream.write_all(b"and after").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "and after");
    let before = Instant::now();
    leaving.await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_had_sent_arrives_although_the_node_leaves() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    let mut listener = b.serve(service("slow")).unwrap();
    let mut stream = a.open(&id("b"), &service("slow")).await.unwrap();
    stream.accepted().await.unwrap();
    stream.write_all(&vec![7; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let leaving = a.clone();
    let leaving =
        tokio::spawn(async move { leaving.shutdown_within(Duration::from_secs(60)).await });
    let mut incoming = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    incoming.stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len(), 100_000);
    leaving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn streams_that_outlast_the_grace_period_end_with_the_node() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b").clone());
    serve_echo(&b);
    let mut stream = a.open(&id("b"), &service("echo")).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0; 1]).await.unwrap();
    let start = Instant::now();
    let shutdown = b.shutdown_within(Duration::from_secs(7));
    let ((), read) = tokio::join!(shutdown, stream.recv.read_chunk(1));
    lost(&read.unwrap_err());
    let took = start.elapsed();
    assert!((Duration::from_secs(7)..Duration::from_secs(12)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_ended_is_not_waited_for_while_it_is_kept() {
    let mesh = mesh(["a-b"]).await;
    serve_echo(mesh.node("b"));
    let a = mesh.node("a");
    let mut stream = a.open(&id("b"), &service("echo")).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let start = Instant::now();
    a.shutdown_within(Duration::from_secs(60)).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(stream);
    echo(mesh.node("b"), "b").await;
}
