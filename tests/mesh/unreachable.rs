//! Nodes that die, and how long their callers wait.

use std::time::Duration;

use receptor_quic::mesh::{EndReason, EndedBy};
use receptor_quic::testing::{Mesh, Network, mesh};
use receptor_quic::{
    Call, CallError, CallOptions, Node, OpenError, OpenOptions, Responder, StartError, StreamError,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
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
    node.handle("test:endless", handler).unwrap();
}

/// A call that has started.
async fn running(from: &Node, to: &str) -> Call {
    let mut call = from.call(&id(to), "test:endless").await.unwrap();
    call.next().await.unwrap().unwrap();
    call
}

/// A call from its beginning to its failure.
async fn call(from: &Node, to: &str) -> String {
    match from.call(&id(to), "test:endless").await {
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
        Mesh::with(Network::new(seconds), ["a-r", "b-r"], |builder| builder.peer_timeout(timeout))
            .await
    };
    assert!(outage(&mut with(5).await, Duration::from_secs(2)).await);
    assert!(!outage(&mut with(5).await, Duration::from_secs(8)).await);
    assert!(outage(&mut with(40).await, Duration::from_secs(25)).await);
    assert!(!outage(&mut with(40).await, Duration::from_secs(50)).await);
}

/// A call with its own peer timeout that has started.
async fn running_for(from: &Node, to: &str, seconds: u64) -> Call {
    let options =
        CallOptions { peer_timeout: Some(Duration::from_secs(seconds)), ..CallOptions::default() };
    let mut call = from.call_with(&id(to), "test:endless", options).await.unwrap();
    call.next().await.unwrap().unwrap();
    call
}

/// Handles `test:endless`, which answers once and goes on for ever. The channel reports for how
/// long each call ran.
fn handle_measured(node: &Node) -> mpsc::UnboundedReceiver<Duration> {
    struct Report(Instant, mpsc::UnboundedSender<Duration>);
    impl Drop for Report {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.elapsed());
        }
    }
    let (ended, ends) = mpsc::unbounded_channel();
    let handler = move |_, responder: Responder| {
        let report = Report(Instant::now(), ended.clone());
        async move {
            let _report = report;
            responder.send(bytes::Bytes::from_static(b"started")).await?;
            std::future::pending().await
        }
    };
    node.handle("test:endless", handler).unwrap();
    ends
}

/// How long a call takes to end, and why.
async fn end_of(mut call: Call) -> (Duration, CallError) {
    let start = Instant::now();
    let error = call.next().await.unwrap_err();
    (start.elapsed(), error)
}

#[tokio::test(start_paused = true)]
async fn each_call_gives_up_an_unreachable_node_in_its_own_time() {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    let mut ran = handle_measured(mesh.node("b"));
    let a = mesh.node("a").clone();
    let calls =
        [running_for(&a, "b", 2).await, running(&a, "b").await, running_for(&a, "b", 40).await];
    // Both ends lose their link, and with it all routes, at once.
    mesh.kill("r");
    let ends = calls.map(|call| tokio::spawn(end_of(call)));
    for (end, seconds) in ends.into_iter().zip([2, 5, 40]) {
        let (took, error) = end.await.unwrap();
        // The route is missing once the links are found dead, 3.5 to 4.5 s after their last
        // packets.
        let earliest = Duration::from_secs(seconds);
        let latest = earliest.max(Duration::from_millis(4_500)) + Duration::from_millis(500);
        assert!(
            earliest - Duration::from_millis(200) <= took && took <= latest,
            "{seconds} s: {took:?}"
        );
        let ending = error.ending().unwrap();
        assert_eq!(
            (ending.by, ending.why.clone()),
            (EndedBy::Network, EndReason::NoRoute),
            "{seconds} s"
        );
        assert!(error.may_have_started());
        // The executor has waited as long.
        let ran = ran.recv().await.unwrap();
        // Silence counts from the last packet, which may have come before the handler was started.
        let within = earliest - Duration::from_millis(200)..=latest + Duration::from_millis(500);
        assert!(within.contains(&ran), "{seconds} s: {ran:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_outlives_an_outage_that_is_shorter_than_its_own_timeout() {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    let mut ran = handle_measured(mesh.node("b"));
    let a = mesh.node("a").clone();
    let (mut long, usual) = (running_for(&a, "b", 60).await, running(&a, "b").await);
    let usual = tokio::spawn(end_of(usual));
    mesh.kill("r");
    tokio::time::sleep(Duration::from_secs(25)).await;
    mesh.restart_in_place("r", &[]).await;
    assert!(usual.await.unwrap().0 <= LIMIT);
    ran.recv().await.unwrap();
    a.routable(&id("b")).await.unwrap();
    // It is still there, at both ends, and cancelling it arrives.
    assert!(tokio::time::timeout(Duration::from_secs(60), long.next()).await.is_err());
    assert!(ran.try_recv().is_err());
    drop(long);
    let gone = tokio::time::timeout(Duration::from_secs(5), ran.recv()).await;
    assert!(gone.expect("the cancellation arrives").unwrap() > Duration::from_secs(80));
}

#[tokio::test(start_paused = true)]
async fn a_stream_gives_up_in_its_own_time_at_both_ends() {
    for seconds in [2, 30] {
        let mut mesh = mesh(["a-r", "b-r"]).await;
        let mut listener = mesh.node("b").serve(service("held")).unwrap();
        let options = OpenOptions {
            peer_timeout: Some(Duration::from_secs(seconds)),
            ..OpenOptions::default()
        };
        let mut opened =
            mesh.node("a").open_with(&id("b"), &service("held"), options).await.unwrap();
        opened.accepted().await.unwrap();
        let accepted = listener.accept().await.unwrap().stream;
        mesh.kill("r");
        let killed = Instant::now();
        let ends = [opened, accepted].map(|mut stream| {
            tokio::spawn(async move {
                let read = stream.recv.read_chunk(1).await;
                let took = killed.elapsed();
                // What is asked later fails for the same reason.
                let again = stream.recv.read_chunk(1).await;
                let written = stream.send.write_all(&[0]).await;
                let stopped = stream.send.stopped().await.map(drop);
                ([read.map(drop), again.map(drop), written, stopped], took)
            })
        });
        for end in ends {
            let (results, took) = end.await.unwrap();
            let earliest = Duration::from_secs(seconds);
            let latest = earliest.max(Duration::from_millis(4_500)) + Duration::from_millis(500);
            assert!(
                took <= latest && took + Duration::from_millis(200) >= earliest,
                "{seconds} s: {took:?}"
            );
            for result in results {
                let Err(StreamError::Lost(ending)) = result else { panic!("{result:?}") };
                assert_eq!((ending.by, ending.why), (EndedBy::Network, EndReason::NoRoute));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_gives_up_in_its_own_time_behind_a_patient_stream() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let _listener = mesh.node("b").serve(service("held")).unwrap();
    let a = mesh.node("a").clone();
    let patient =
        OpenOptions { peer_timeout: Some(Duration::from_secs(600)), ..OpenOptions::default() };
    let mut patient = a.open_with(&id("b"), &service("held"), patient).await.unwrap();
    patient.accepted().await.unwrap();
    mesh.swallow("r");
    let silent = Instant::now();
    // What is not acknowledged fills the send window of the connection.
    let full =
        tokio::time::timeout(Duration::from_secs(1), patient.write_all(&vec![0; 32 << 20])).await;
    assert!(full.is_err(), "{full:?}");
    let error = a.open(&id("b"), &service("held")).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    assert!(silent.elapsed() < Duration::from_secs(16), "{:?}", silent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_with_a_route_is_given_up_after_15_s_or_later() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut ran = handle_measured(mesh.node("b"));
    let a = mesh.node("a").clone();
    let calls =
        [running_for(&a, "b", 2).await, running(&a, "b").await, running_for(&a, "b", 40).await];
    // The links stay, and nothing is forwarded.
    mesh.swallow("r");
    let ends = calls.map(|call| tokio::spawn(end_of(call)));
    for (end, seconds) in ends.into_iter().zip([15, 15, 40]) {
        let (took, error) = end.await.unwrap();
        let within = Duration::from_secs(seconds)..Duration::from_secs(seconds + 1);
        // The last packet may have come a keepalive before.
        assert!(within.contains(&(took + Duration::from_millis(200))), "{seconds} s: {took:?}");
        assert_eq!(error.ending().unwrap().why, EndReason::Unreachable, "{seconds} s");
        ran.recv().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_unused_silent_connection_is_closed_after_15_s() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let a = mesh.node("a");
    a.ping(&id("b")).await.unwrap();
    let connected =
        async || a.status().await.unwrap().peers.iter().any(|peer| peer.node == id("b"));
    // The links stay, and nothing is forwarded. The last packet may have come a keepalive before.
    mesh.swallow("r");
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    assert!(connected().await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!connected().await);
}

#[tokio::test(start_paused = true)]
async fn a_call_connects_for_as_long_as_it_may() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let a = mesh.node("a").clone();
    a.routable(&id("b")).await.unwrap();
    mesh.swallow("r");
    let open = |peer_timeout: Option<u64>| {
        let a = a.clone();
        tokio::spawn(async move {
            let start = Instant::now();
            let options =
                OpenOptions { peer_timeout: peer_timeout.map(Duration::from_secs), deadline: None };
            let error = a.open_with(&id("b"), &service("echo"), options).await.unwrap_err();
            assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
            start.elapsed()
        })
    };
    // They share attempts.
    let opens = [open(Some(1)), open(None), open(Some(8)), open(Some(60))];
    for (open, seconds) in opens.into_iter().zip([1, 5, 8, 10]) {
        let took = open.await.unwrap();
        let expected = Duration::from_secs(seconds);
        assert!(
            expected <= took && took <= expected + Duration::from_millis(200),
            "{seconds} s: {took:?}"
        );
    }
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
