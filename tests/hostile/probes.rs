//! Candidates that are somebody else's addresses.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::AsyncUdpSocket as _;
use quinn::udp::RecvMeta;
use receptor_quic::punch::{
    Candidate, CandidateKind, Message, NatClass, Offer, PathCookie, ProbeKey, Terms,
};
use receptor_quic::testing::{Mesh, Network, VirtualSocket};

use crate::member::{EDGE, id};
use crate::puppet::Puppet;
use crate::scene::Scene;

/// How many times its own bytes an offer may make a node send to addresses that have not answered.
const AMPLIFICATION: usize = 4;

#[tokio::test(start_paused = true)]
async fn an_offer_turns_few_bytes_to_the_bystanders_that_it_names() {
    let network = Network::new(3);
    let mesh =
        Mesh::with(network.clone(), ["victim-r", "peer-r"], |builder| builder.direct(true)).await;
    let scene = Scene::of(mesh);
    let heard = Arc::new(AtomicUsize::new(0));
    let bystanders: Vec<_> = (0..32).map(|_| network.bind_host()).collect();
    for socket in &bystanders {
        tokio::spawn(listen(socket.clone(), heard.clone()));
    }
    let link = scene.mallory.link(scene.addr("r"), EDGE).await;
    let _puppet = Puppet::start(&scene.mallory, link, false);
    tokio::time::sleep(Duration::from_secs(3)).await;

    let connection = scene.mallory.connect_peer(&id("victim")).await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    let candidate = |socket: &Arc<VirtualSocket>| Candidate {
        addr: socket.address(),
        kind: CandidateKind::Host,
    };
    let terms = Terms {
        class: NatClass::EndpointDependent,
        cookie: PathCookie([1; 8]),
        candidates: bystanders.iter().map(candidate).collect(),
        volleys: true,
        padding: 0,
    };
    let message = Message::Offer(Offer { round: 7, key: ProbeKey([2; 32]), terms }).encode();
    stream.write_all(&(message.len() as u32).to_be_bytes()).await.unwrap();
    stream.write_all(&message).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;

    assert_eq!(scene.pings(20, "peer", "victim").await, 20);
    let bytes = heard.load(Ordering::Relaxed);
    assert!(bytes > 0, "no bystander was probed");
    let sent = message.len() + 4;
    assert!(bytes <= AMPLIFICATION * sent, "{bytes} bytes for an offer of {sent}");
}

/// Counts the bytes that come to a socket.
async fn listen(socket: Arc<VirtualSocket>, heard: Arc<AtomicUsize>) {
    let (mut buffer, mut meta) = (vec![0; 2_048], [RecvMeta::default()]);
    loop {
        let received =
            poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta));
        if received.await.is_ok() {
            heard.fetch_add(meta[0].len, Ordering::Relaxed);
        }
    }
}
