//! Nodes that die, and how long their callers wait.

use std::time::Duration;

use receptor_quic::testing::{Mesh, Network, mesh};
use receptor_quic::{Call, Node, OpenError, Responder, StartError};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::support::{echo, id, serve_echo, service};

/// What a caller may wait for a dead node: as long as the mesh takes to notice, and some.
const LIMIT: Duration = Duration::from_millis(5_500);

/// Handles `test:endless`, which answers once and goes on for ever.
fn handle_endless(node: &Node) {
    let handler = |_, responder: Responder| async move {
        responder.send(bytes::Bytes::from_static(b"started")).await?;
        std::future::pending().await
    };
    node.handle("test:endless".parse().unwrap(), handler).unwrap();
}

/// A call that has started.
async fn running(from: &Node, to: &str) -> Call {
    let mut call = from.call(&id(to), "test:endless".parse().unwrap()).await.unwrap();
    call.next().await.unwrap().unwrap();
    call
}

/// A call from its beginning to its failure.
async fn call(from: &Node, to: &str) -> String {
    match from.call(&id(to), "test:endless".parse().unwrap()).await {
        Ok(mut call) => loop {
            if let Err(error) = call.next().await {
                return error.to_string();
            }
        },
        Err(error) => error.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_node_that_was_killed_end_within_the_limit() {
    // The phases of keepalives differ from case to case.
    for wait in [0, 700, 1_900, 3_300, 9_100] {
        for connected in [false, true] {
            let mut mesh = mesh(["a-r", "b-r"]).await;
            handle_endless(mesh.node("b"));
            let stub = mesh.joiner("stub", &["r"]).ephemeral(true).start().await.unwrap();
            stub.linked().await.unwrap();
            let callers = [mesh.node("a").clone(), mesh.node("r").clone(), stub];
            let mut calls = Vec::new();
            if connected {
                for caller in &callers {
                    calls.push(running(caller, "b").await);
                }
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
            mesh.kill("b");
            let killed = Instant::now();
            let running = calls.into_iter().map(|mut call| {
                tokio::spawn(async move {
                    let error = call.next().await.unwrap_err().to_string();
                    (error, killed.elapsed())
                })
            });
            let running: Vec<_> = running.collect();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let new = callers.map(|caller| {
                tokio::spawn(async move {
                    let error = call(&caller, "b").await;
                    (error, killed.elapsed())
                })
            });
            for ended in running.into_iter().chain(new) {
                let (error, took) = ended.await.unwrap();
                let case = format!("connected {connected}, after {wait} ms: {error} in {took:?}");
                assert!(took <= LIMIT, "{case}");
                assert!(error.contains("unreachable"), "{case}");
            }
        }
    }
}

/// A stream from `a` to `b`, which only `r` connects, over an outage of `r`; whether it survived.
async fn outage(mesh: &mut Mesh, outage: Duration) -> bool {
    serve_echo(mesh.node("b"));
    let mut stream = mesh.node("a").open(&id("b"), &service("echo")).await.unwrap();
    stream.accepted().await.unwrap();
    mesh.kill("r");
    tokio::time::sleep(outage).await;
    mesh.restart_in_place("r", &[]).await;
    let exchange = async {
        stream.write_all(b"x").await?;
        stream.shutdown().await?;
        std::io::Result::Ok(stream.recv.read_chunk(1).await?)
    };
    tokio::time::timeout(Duration::from_secs(60), exchange).await.expect("it ends").is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_an_outage_that_is_shorter_than_the_peer_timeout() {
    let with = async |seconds| {
        let timeout = Duration::from_secs(seconds);
        Mesh::with(Network::new(seconds), ["a-r", "b-r"], |builder| builder.peer_timeout(timeout)).await
    };
    assert!(outage(&mut with(5).await, Duration::from_secs(2)).await);
    assert!(!outage(&mut with(5).await, Duration::from_secs(8)).await);
    assert!(outage(&mut with(40).await, Duration::from_secs(25)).await);
    assert!(!outage(&mut with(40).await, Duration::from_secs(50)).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_a_connect_is_unreachable_after_the_peer_timeout() {
    let mesh = mesh(["b-r"]).await;
    let timeout = Duration::from_secs(2);
    let a = mesh.joiner("a", &["r"]).peer_timeout(timeout).start().await.unwrap();
    a.routable(&id("b")).await.unwrap();
    // The route stays, but nothing passes.
    let (b, r) = (mesh.addr("b").ip(), mesh.addr("r").ip());
    mesh.network().cut(b, r);
    let start = Instant::now();
    let error = a.open(&id("b"), &service("echo")).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    assert!(start.elapsed() <= timeout + Duration::from_millis(100), "{:?}", start.elapsed());
    mesh.network().restore(b, r);
    serve_echo(mesh.node("b"));
    a.routable(&id("b")).await.unwrap();
    echo(&a, "b").await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_call_on_a_quiet_connection_goes_on() {
    let mesh = mesh(["a-r", "b-r"]).await;
    handle_endless(mesh.node("b"));
    let mut call = running(mesh.node("a"), "b").await;
    let stub = mesh.joiner("stub", &["r"]).ephemeral(true).start().await.unwrap();
    stub.linked().await.unwrap();
    let mut from_stub = running(&stub, "b").await;
    let both = async {
        tokio::select! { ended = call.next() => ended, ended = from_stub.next() => ended }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), both).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_timeout_out_of_bounds_is_refused() {
    let mesh = mesh(["r"]).await;
    for bad in [Duration::ZERO, Duration::from_millis(499), Duration::from_secs(601)] {
        let error = mesh.joiner("a", &["r"]).peer_timeout(bad).start().await.unwrap_err();
        assert!(matches!(error, StartError::PeerTimeout(timeout) if timeout == bad), "{error}");
    }
}
