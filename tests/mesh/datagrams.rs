//! Unreliable messages to a service of another node.

use std::time::Duration;

use receptor_quic::mesh::{DatagramError, DatagramStatus, MAX_WAITING_DATAGRAMS, ServeError};
use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::{Datagram, OpenError};

use crate::support::{id, service};

async fn counts(mesh: &Mesh, name: &str) -> DatagramStatus {
    mesh.node(name).status().await.unwrap().datagrams
}

#[tokio::test(start_paused = true)]
async fn a_datagram_arrives_over_a_link_through_relays_and_at_the_node_itself() {
    let mesh = mesh(["a-r1", "r1-r2", "b-r2"]).await;
    for name in ["a", "r1", "b"] {
        let mut listener = mesh.node(name).serve_datagrams(service("news")).unwrap();
        let sender = mesh.node("a").datagrams(&id(name), &service("news")).await.unwrap();
        sender.send(name.as_bytes()).unwrap();
        sender.send_wait(b"").await.unwrap();
        let Datagram { peer, payload, .. } = listener.recv().await.unwrap();
        assert_eq!((peer, &payload[..]), (id("a"), name.as_bytes()));
        assert_eq!(&listener.recv().await.unwrap().payload[..], b"");
        assert_eq!(counts(&mesh, name).await.received, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_datagram_is_as_long_as_the_sender_says_and_no_longer() {
    let mesh = mesh(["a-r", "b-r"]).await;
    for name in ["r", "b"] {
        let mut listener = mesh.node(name).serve_datagrams(service("news")).unwrap();
        let sender = mesh.node("a").datagrams(&id(name), &service("news")).await.unwrap();
        let max = sender.max_len();
        assert!(max > 1_100, "{max}");
        sender.send(&vec![7; max]).unwrap();
        assert_eq!(listener.recv().await.unwrap().payload, vec![7; max]);
        let error = sender.send(&vec![7; max + 1]).unwrap_err();
        assert_eq!(error, DatagramError::TooLong { len: max + 1, max });
    }
}

#[tokio::test(start_paused = true)]
async fn a_datagram_for_a_service_that_nobody_offers_is_dropped_and_counted() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut other = mesh.node("b").serve_datagrams(service("other")).unwrap();
    // A service of streams is none of datagrams.
    let _streams = mesh.node("b").serve(service("news")).unwrap();
    let news = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    news.send(b"1").unwrap();
    let sender = mesh.node("a").datagrams(&id("b"), &service("other")).await.unwrap();
    sender.send(b"2").unwrap();
    assert_eq!(&other.recv().await.unwrap().payload[..], b"2");
    let DatagramStatus { received, unknown_service, .. } = counts(&mesh, "b").await;
    assert_eq!((received, unknown_service), (1, 1));
    drop(other);
    // Offered anew, the service gets what is sent from now on.
    let mut other = mesh.node("b").serve_datagrams(service("other")).unwrap();
    sender.send(b"3").unwrap();
    assert_eq!(&other.recv().await.unwrap().payload[..], b"3");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_slow_loses_the_oldest() {
    let mesh = mesh(["a-b"]).await;
    let mut listener = mesh.node("b").serve_datagrams(service("news")).unwrap();
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    let sent = 2 * MAX_WAITING_DATAGRAMS / 1_024;
    for n in 0..sent {
        let mut payload = vec![0; 1_000];
        payload[..8].copy_from_slice(&(n as u64).to_be_bytes());
        sender.send_wait(&payload).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let DatagramStatus { received, overflowed, .. } = counts(&mesh, "b").await;
    assert!(overflowed > 0, "{received} came, {overflowed} dropped");
    let first = listener.recv().await.unwrap();
    let first = u64::from_be_bytes(first.payload[..8].try_into().unwrap());
    assert!(first >= overflowed, "the first {overflowed} of {sent} are gone, {first} is here");
}

#[tokio::test(start_paused = true)]
async fn a_sender_faster_than_the_network_counts_what_it_displaces() {
    let mesh = mesh(["a-b"]).await;
    let mut listener = mesh.node("b").serve_datagrams(service("news")).unwrap();
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    let sent = 3 * MAX_WAITING_DATAGRAMS / 1_000;
    for _ in 0..sent {
        // Nothing runs in between: all of them wait for the network.
        sender.send(&[0; 1_000]).unwrap();
    }
    let displaced = counts(&mesh, "a").await.displaced as usize;
    assert!((sent / 2..sent).contains(&displaced), "{displaced} of {sent}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut received = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(1), listener.recv()).await {
        received += 1;
    }
    let DatagramStatus { overflowed, .. } = counts(&mesh, "b").await;
    assert_eq!(received + overflowed as usize + displaced, sent);
    // Whoever waits displaces nothing.
    for _ in 0..sent {
        sender.send_wait(&[0; 1_000]).await.unwrap();
    }
    assert_eq!(counts(&mesh, "a").await.displaced as usize, displaced);
}

#[tokio::test(start_paused = true)]
async fn a_peer_connection_stays_for_as_long_as_datagrams_come() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut listener = mesh.node("b").serve_datagrams(service("news")).unwrap();
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        sender.send(b"still here").unwrap();
        listener.recv().await.unwrap();
    }
    drop(sender);
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert!(mesh.node("a").status().await.unwrap().peers.iter().all(|peer| peer.node != id("b")));
}

#[tokio::test(start_paused = true)]
async fn a_sender_outlives_its_connection() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut listener = mesh.node("b").serve_datagrams(service("news")).unwrap();
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    sender.send(b"first").unwrap();
    assert_eq!(&listener.recv().await.unwrap().payload[..], b"first");

    // The other end closes a connection that carries nothing.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(matches!(sender.send(b"late"), Err(DatagramError::Lost { .. })));
    tokio::time::sleep(Duration::from_secs(1)).await;
    sender.clone().send(b"second").unwrap();
    assert_eq!(&listener.recv().await.unwrap().payload[..], b"second");

    tokio::time::sleep(Duration::from_secs(300)).await;
    sender.send_wait(b"third").await.unwrap();
    assert_eq!(&listener.recv().await.unwrap().payload[..], b"third");
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_was_dropped_while_it_connects_again_keeps_no_connection() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    sender.send(b"first").unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(sender.send(b"late").is_err());
    drop(sender);
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert!(mesh.node("a").status().await.unwrap().peers.iter().all(|peer| peer.node != id("b")));
}

#[tokio::test(start_paused = true)]
async fn a_sender_to_a_node_that_is_gone_fails_until_the_node_is_back() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    mesh.network().isolate(mesh.addr("b").ip());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(matches!(sender.send(b"late"), Err(DatagramError::Lost { .. })));
    assert!(matches!(sender.send_wait(b"late").await, Err(DatagramError::Lost { .. })));
    mesh.network().rejoin(mesh.addr("b").ip());
    tokio::time::sleep(Duration::from_secs(30)).await;
    sender.send_wait(b"back").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_node_ends_its_listeners_and_the_senders_to_it() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut listener = mesh.node("b").serve_datagrams(service("news")).unwrap();
    assert!(matches!(mesh.node("b").serve_datagrams(service("news")), Err(ServeError::Taken(_))));
    let sender = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap();
    sender.send(b"last").unwrap();
    assert!(listener.recv().await.is_some());
    mesh.node("b").shutdown().await;
    assert_eq!(listener.recv().await, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(sender.send(b"late"), Err(DatagramError::Lost { .. })));
    assert_eq!(sender.max_len(), 0);
    let error = mesh.node("a").datagrams(&id("b"), &service("news")).await.unwrap_err();
    assert_eq!(error, OpenError::NoRoute { node: id("b") });
    assert!(matches!(mesh.node("b").serve_datagrams(service("news")), Err(ServeError::ShutDown)));
}
