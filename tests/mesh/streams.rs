//! Streams between neighbours, through relays, and to nowhere.

use std::time::Duration;

use receptor_quic::mesh::{EndReason, EndedBy, RefuseCode, StreamError};
use receptor_quic::testing::{LinkQuality, Mesh, mesh};
use receptor_quic::{Node, OpenError, transport::code::StreamCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::{echo, id, serve_echo, serve_sink, service, transfer};

#[tokio::test(start_paused = true)]
async fn a_stream_echoes_over_a_link_through_relays_and_to_the_node_itself() {
    let mesh = mesh(["a-r1", "r1-r2", "b-r2"]).await;
    for name in ["a", "r1", "b"] {
        serve_echo(mesh.node(name));
        let mut stream = mesh.node("a").open(&id(name), &service("echo")).await.unwrap();
        stream.write_all(name.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, name);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_service_is_refused_with_its_reason() {
    let mesh = mesh(["a-r", "b-r"]).await;
    for name in ["r", "b"] {
        let mut stream = mesh.node("a").open(&id(name), &service("nothing")).await.unwrap();
        let error = stream.accepted().await.unwrap_err();
        let StreamError::Refused(refused) = error else { panic!("{error:?}") };
        assert_eq!(refused.code, RefuseCode::UnknownService);
        assert!(stream.read_u8().await.unwrap_err().to_string().contains("no such service"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_knows_is_no_route_after_a_second() {
    let mesh = mesh(["a-r"]).await;
    let start = Instant::now();
    let error = mesh.node("a").open(&id("nobody"), &service("echo")).await.unwrap_err();
    assert_eq!(error, OpenError::NoRoute { node: id("nobody") });
    assert!(start.elapsed() < Duration::from_millis(1_100), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_for_a_route() {
    let mesh = mesh(["a-r"]).await;
    let deadline = Duration::from_millis(50);
    let error =
        mesh.node("a").open_within(&id("nobody"), &service("echo"), deadline).await.unwrap_err();
    assert_eq!(error, OpenError::Deadline(deadline));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_resets_it_and_finishing_does_not() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut listener = mesh.node("b").serve(service("s")).unwrap();
    let mut stream = mesh.node("a").open(&id("b"), &service("s")).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    let mut incoming = listener.accept().await.unwrap();
    assert_eq!(incoming.peer, id("a"));
    let mut half = [0; 4];
    incoming.stream.read_exact(&mut half).await.unwrap();
    drop(stream);
    let error = incoming.stream.recv.read_chunk(1).await.unwrap_err();
    assert_eq!(error, StreamError::Reset { code: StreamCode::Dropped, bytes: 4 });
    let stopped = incoming.stream.send.stopped().await.unwrap();
    assert_eq!(stopped, Some(StreamCode::Dropped));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_its_opener_finished_and_dropped_is_served() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let a = mesh.node("a");
    for (name, piece) in [("r", 4), ("b", 4), ("r", 200_000), ("b", 200_000)] {
        let mut listener = mesh.node(name).serve(service("log")).unwrap();
        let served = tokio::spawn(async move {
            let mut lengths = Vec::new();
            for _ in 0..20 {
                let mut incoming = listener.accept().await.unwrap();
                let mut all = Vec::new();
                incoming.stream.read_to_end(&mut all).await.unwrap();
                // Nobody reads an answer, and the writer of one learns that.
                let error = incoming.stream.send.write_all(b"?").await.unwrap_err();
                assert!(
                    matches!(error, StreamError::Stopped { code: StreamCode::Dropped, .. }),
                    "{error:?}"
                );
                lengths.push(all.len());
            }
            lengths
        });
        for _ in 0..20 {
            let mut stream = a.open(&id(name), &service("log")).await.unwrap();
            stream.write_all(&vec![7; piece]).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        let served = tokio::time::timeout(Duration::from_secs(5), served).await;
        assert_eq!(served.expect("all arrive").unwrap(), vec![piece; 20], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_opener_wants_no_answer_is_served() {
    let mesh = mesh(["a-r"]).await;
    let mut listener = mesh.node("r").serve(service("log")).unwrap();
    let mut stream = mesh.node("a").open(&id("r"), &service("log")).await.unwrap();
    stream.recv.stop(StreamCode::Cancelled);
    let mut incoming = listener.accept().await.unwrap();
    stream.write_all(b"later").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    incoming.stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "later");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_nobody_else() {
    let mesh = mesh(["a-r", "b-r"]).await;
    serve_sink(mesh.node("b"));
    let mut unread = mesh.node("b").serve(service("unread")).unwrap();
    let mut slow = mesh.node("a").open(&id("b"), &service("unread")).await.unwrap();
    let incoming = async { unread.accept().await.unwrap() };
    let flood = async {
        // Nobody reads: the window fills, and the writer waits.
        loop {
            if tokio::time::timeout(Duration::from_secs(1), slow.write_all(&[0; 65_536]))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    let (_incoming, ()) = tokio::join!(incoming, flood);
    let stream = mesh.node("a").open(&id("b"), &service("sink")).await.unwrap();
    assert!(transfer(stream, 16).await < Duration::from_millis(200));
    let pong = mesh.node("a").ping(&id("b")).await.unwrap();
    assert!(pong.rtt_ms < 20.0, "{pong:?}");
}

#[tokio::test(start_paused = true)]
async fn an_edge_does_not_carry_other_nodes_packets() {
    let mesh = mesh(["a"]).await;
    let b = mesh.joiner("b", &[]).start().await.unwrap();
    let edge = mesh.joiner("edge", &["a"]).peer(b.local_addrs()[0]).start().await.unwrap();
    edge.routable(&id("a")).await.unwrap();
    edge.routable(&id("b")).await.unwrap();
    edge.ping(&id("a")).await.unwrap();
    edge.ping(&id("b")).await.unwrap();
    let error = mesh.node("a").open(&id("b"), &service("echo")).await.unwrap_err();
    assert_eq!(error, OpenError::NoRoute { node: id("b") });
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_ends_its_streams_in_order() {
    let mesh = mesh(["a-r", "b-r"]).await;
    serve_echo(mesh.node("b"));
    let mut stream = mesh.node("a").open(&id("b"), &service("echo")).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    mesh.node("b").shutdown().await;
    let ending = stream.recv.read_chunk(1).await.unwrap_err().ending().unwrap();
    assert_eq!((ending.by, ending.why, ending.bytes), (EndedBy::Other, EndReason::ShutDown, 1));
    let error = mesh.node("a").open(&id("b"), &service("echo")).await.unwrap_err();
    assert_eq!(error, OpenError::NoRoute { node: id("b") });
    assert_eq!(
        mesh.node("b").open(&id("a"), &service("echo")).await.unwrap_err(),
        OpenError::ShutDown
    );
}

/// A mesh in which the round trip from `a` to `b` is 0.8 s, and there is no connection between them
/// yet.
async fn far() -> Mesh {
    let mesh = mesh(["a-r", "b-r"]).await;
    let latency = Duration::from_millis(400);
    let quality = LinkQuality { latency, ..LinkQuality::default() };
    mesh.network().set_link(mesh.addr("b").ip(), mesh.addr("r").ip(), quality);
    serve_echo(mesh.node("b"));
    mesh
}

#[tokio::test(start_paused = true)]
async fn an_open_shorter_than_the_handshake_works_when_repeated() {
    let mesh = far().await;
    let (a, b) = (mesh.node("a"), id("b"));
    let deadline = Duration::from_millis(700);
    let first = a.open_within(&b, &service("echo"), deadline).await.unwrap_err();
    assert_eq!(first, OpenError::Deadline(deadline));
    let mut again = 0;
    while a.open_within(&b, &service("echo"), deadline).await.is_err() {
        again += 1;
        assert!(again < 3, "the handshake goes on between the opens");
    }
    echo(a, "b").await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_shares_it_and_its_failure() {
    let mesh = far().await;
    let (a, b) = (mesh.node("a"), id("b"));
    let open = || async { a.open(&b, &service("echo")).await.map(drop) };
    let gone = tokio::time::timeout(Duration::from_millis(100), open());
    let (gone, first, second) = tokio::join!(gone, open(), open());
    assert!(gone.is_err());
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(connections_to_b(a).await, 1);

    let mesh = far().await;
    let (a, b) = (mesh.node("a"), id("b"));
    mesh.network().cut(mesh.addr("b").ip(), mesh.addr("r").ip());
    let open = || async { (a.open(&b, &service("echo")).await.map(drop), Instant::now()) };
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        open().await
    };
    let (first, late) = tokio::join!(open(), late);
    assert!(matches!(first.0, Err(OpenError::Unreachable { .. })), "{first:?}");
    assert_eq!(first, late);
}

/// Connections that `a` has with the node of this name.
async fn connections_to_b(a: &Node) -> usize {
    a.status().await.unwrap().peers.iter().filter(|peer| peer.node == id("b")).count()
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_withdrawn_refuses_and_serves_again_once_it_is_offered_anew() {
    let mesh = mesh(["a-b"]).await;
    let accepted = async || {
        let mut stream = mesh.node("a").open(&id("b"), &service("s")).await.unwrap();
        stream.accepted().await
    };
    for _ in 0..2 {
        let mut listener = mesh.node("b").serve(service("s")).unwrap();
        for _ in 0..2 {
            assert_eq!(accepted().await, Ok(()));
            assert!(listener.accept().await.is_some());
        }
        drop(listener);
        let refused = accepted().await.unwrap_err();
        assert!(
            matches!(&refused, StreamError::Refused(why) if why.code == RefuseCode::UnknownService)
        );
    }
}
