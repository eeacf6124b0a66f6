//! Direct paths between nodes that are no neighbours: packets move to them and back, and streams do
//! not notice.

use std::net::IpAddr;
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn::udp::Transmit;
use receptor_quic::mesh::PeerPath;
use receptor_quic::switch::DropReason;
use receptor_quic::testing::{LinkQuality, Mesh, Network};
use receptor_quic::{Event, Node, NodeExplanation, OpenError};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::support::{echo, id, serve_echo, serve_sink, service, transfer};

/// How long a pair that can be direct may take from its first traffic.
const SOON: Duration = Duration::from_secs(3);
/// How long a stream may stall when its path dies.
const STALL: Duration = Duration::from_secs(7);

/// Two edges that only know a relay.
struct Edges {
    mesh: Mesh,
    a: Node,
    b: Node,
}

impl Edges {
    async fn new() -> Self {
        Self::with(|_| (), true).await
    }

    async fn with(prepare: impl FnOnce(&Network), b_direct: bool) -> Self {
        let network = Network::new(1);
        prepare(&network);
        let mesh = Mesh::on(network, ["r"]).await;
        let a = mesh.joiner("a", &["r"]).direct(true).start().await.unwrap();
        let b = mesh.joiner("b", &["r"]).direct(b_direct).start().await.unwrap();
        serve_echo(&b);
        serve_sink(&b);
        a.routable(&id("b")).await.unwrap();
        b.routable(&id("a")).await.unwrap();
        Self { mesh, a, b }
    }

    /// Both are direct; how long that took from the first packet.
    async fn go_direct(&self) -> Duration {
        let start = Instant::now();
        echo(&self.a, "b").await;
        let both = async {
            until(&self.a, "b", PeerPath::Direct).await;
            until(&self.b, "a", PeerPath::Direct).await;
        };
        timeout(SOON, both).await.unwrap();
        start.elapsed()
    }

    fn ips(&self) -> [IpAddr; 2] {
        [&self.a, &self.b].map(|node| node.local_addrs()[0].ip())
    }

    fn cut(&self) {
        let [a, b] = self.ips();
        self.mesh.network().cut(a, b);
    }

    async fn forwarded(&self) -> u64 {
        self.mesh.node("r").status().await.unwrap().switch.forwarded
    }
}

async fn explain(node: &Node, peer: &str) -> NodeExplanation {
    node.explain(&id(peer)).await.unwrap()
}

/// Waits until the packets for a peer travel so.
async fn until(node: &Node, peer: &str, kind: PeerPath) {
    let mut events = node.events();
    while explain(node, peer).await.path.is_none_or(|path| path.kind != kind) {
        let _ = events.recv().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_edges_go_direct_and_the_relay_has_nothing_more_to_carry() {
    let edges = Edges::new().await;
    let took = edges.go_direct().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let before = edges.forwarded().await;
    let stream = edges.a.open(&id("b"), &service("sink")).await.unwrap();
    transfer(stream, 64).await;
    assert_eq!(edges.forwarded().await, before);
    let status = edges.a.status().await.unwrap();
    assert!(status.switch.direct_bytes > 4 << 20, "{:?}", status.switch);
    let peer = status.peers.iter().find(|peer| peer.node == id("b")).unwrap();
    assert_eq!(
        (peer.path, &peer.via, peer.address),
        (PeerPath::Direct, &None, Some(edges.b.local_addrs()[0]))
    );
    let paths = status.paths.unwrap();
    assert_eq!((paths.direct, paths.outcomes["direct"]), (1, 1));
    let explained = serde_json::to_value(explain(&edges.a, "b").await).unwrap();
    assert_eq!(explained["path"]["kind"], "direct");
    assert_eq!(explained["path"]["address"], edges.b.local_addrs()[0].to_string());
    assert_eq!(explained["attempts"][0]["outcome"], "direct");
    assert_eq!(explained["route"]["way"], serde_json::json!(["a", "r", "b"]));
}

#[tokio::test(start_paused = true)]
async fn the_first_call_does_not_wait_for_a_path() {
    let edges = Edges::new().await;
    let start = Instant::now();
    echo(&edges.a, "b").await;
    assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_through_the_relay_when_its_path_is_cut_and_back_when_it_heals() {
    let edges = Edges::new().await;
    edges.go_direct().await;
    let slow = LinkQuality { bandwidth: Some(8 << 20), ..LinkQuality::default() };
    edges.mesh.network().set_default(slow);
    let mut events = edges.a.events();
    let stream = edges.a.open(&id("b"), &service("sink")).await.unwrap();
    let transfer = tokio::spawn(transfer(stream, 512));
    tokio::time::sleep(Duration::from_secs(1)).await;
    edges.cut();
    let longest = transfer.await.unwrap();
    assert!(
        longest > Duration::from_secs(1),
        "the path in use was the one that was cut: {longest:?}"
    );
    assert!(longest <= STALL, "stalled for {longest:?}");
    while !matches!(events.recv().await.unwrap(), Event::PathDown { peer, .. } if peer == id("b")) {
    }
    assert_eq!(explain(&edges.a, "b").await.path.unwrap().kind, PeerPath::Relayed);
    let [a, b] = edges.ips();
    edges.mesh.network().restore(a, b);
    let again = async {
        while explain(&edges.a, "b").await.path.unwrap().kind != PeerPath::Direct {
            echo(&edges.a, "b").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(Duration::from_secs(60), again).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_path_that_icmp_reports_as_dead_is_left_at_once() {
    let edges = Edges::new().await;
    edges.go_direct().await;
    let slow = LinkQuality { bandwidth: Some(8 << 20), ..LinkQuality::default() };
    edges.mesh.network().set_default(slow);
    let stream = edges.a.open(&id("b"), &service("sink")).await.unwrap();
    let transfer = tokio::spawn(transfer(stream, 256));
    tokio::time::sleep(Duration::from_secs(1)).await;
    edges.cut();
    for (node, other) in [(&edges.a, &edges.b), (&edges.b, &edges.a)] {
        node.report_closed_port(other.local_addrs()[0]);
    }
    let longest = transfer.await.unwrap();
    assert!(longest <= Duration::from_millis(500), "stalled for {longest:?}");
    assert_eq!(explain(&edges.a, "b").await.path.unwrap().kind, PeerPath::Relayed);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_answers_is_kept_whatever_icmp_reports() {
    let edges = Edges::new().await;
    edges.go_direct().await;
    let mut events = edges.a.events();
    for _ in 0..1_000 {
        edges.a.report_closed_port(edges.b.local_addrs()[0]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    echo(&edges.a, "b").await;
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::PathDown { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_outlives_the_relay_and_serves_new_streams_for_as_long_as_it_lives() {
    let mut edges = Edges::new().await;
    edges.go_direct().await;
    edges.mesh.kill("r");
    for _ in 0..30 {
        let start = Instant::now();
        echo(&edges.a, "b").await;
        assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stream = edges.a.open(&id("b"), &service("sink")).await.unwrap();
    let longest = transfer(stream, 64).await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    // The mesh has no way, and the path is all that is left.
    assert_eq!(
        serde_json::to_value(explain(&edges.a, "b").await).unwrap()["route"]["state"],
        "unreachable"
    );
    let mut stream = edges.a.open(&id("b"), &service("echo")).await.unwrap();
    edges.cut();
    stream.write_all(b"lost").await.unwrap();
    let error =
        timeout(Duration::from_secs(30), stream.recv.read_chunk(9)).await.unwrap().unwrap_err();
    assert!(error.ending().is_some_and(|ending| ending.is_unreachable()), "{error:?}");
    let error = edges.a.open(&id("b"), &service("echo")).await.unwrap_err();
    assert_eq!(error, OpenError::NoRoute { node: id("b") });
}

#[tokio::test(start_paused = true)]
async fn where_one_end_wants_no_direct_path_both_say_why_there_is_none() {
    let edges = Edges::with(|_| (), false).await;
    for _ in 0..20 {
        echo(&edges.a, "b").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_silent(&edges.a, "b").await;
    let b = explain(&edges.b, "a").await.path.unwrap();
    assert_eq!((b.kind, &*b.why), (PeerPath::Relayed, "off"), "{}", b.reason);
    assert_eq!(edges.b.status().await.unwrap().paths, None);
    // The other way round: the end that would offer is the one that does not.
    let c = edges.mesh.joiner("0", &["r"]).direct(false).start().await.unwrap();
    edges.a.routable(&id("0")).await.unwrap();
    c.routable(&id("a")).await.unwrap();
    serve_echo(&edges.a);
    for _ in 0..20 {
        echo(&c, "a").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_silent(&edges.a, "0").await;
}

/// The node has tried, and says that the peer does not answer.
async fn assert_silent(node: &Node, peer: &str) {
    let explained = explain(node, peer).await;
    let path = explained.path.unwrap();
    assert_eq!(path.kind, PeerPath::Relayed);
    assert!(["peer-silent", "trying"].contains(&&*path.why), "{}", path.why);
    let outcomes: Vec<_> = explained.attempts.iter().map(|attempt| &*attempt.outcome).collect();
    assert!(
        !outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == "peer-silent"),
        "{outcomes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn two_that_call_each_other_at_the_same_time_go_direct_as_well() {
    let edges = Edges::new().await;
    serve_echo(&edges.a);
    tokio::join!(echo(&edges.a, "b"), echo(&edges.b, "a"));
    edges.go_direct().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_started_anew_is_called_without_delay_and_direct_again() {
    let mut edges = Edges::new().await;
    for n in 1..4 {
        edges.go_direct().await;
        // Connections within two seconds of each other count as opened by both ends at the same
        // time.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let host = edges.b.local_addrs()[0];
        // The old process goes where nobody hears it: there is no farewell.
        let network = edges.mesh.network();
        let grave = network.rebind(host, format!("10.255.9.{n}:7400").parse().unwrap()).unwrap();
        network.isolate(grave.ip());
        let socket = edges.mesh.network().bind(host).unwrap();
        edges.b = edges.mesh.joiner_on(socket, "b", &["r"]).direct(true).start().await.unwrap();
        serve_echo(&edges.b);
        // The relay looks for a second whether the old process is there, and the other end has a
        // path to it until then.
        edges.b.linked().await.unwrap();
        edges.b.converged(Duration::from_secs(10)).await.unwrap();
        let start = Instant::now();
        let answer = timeout(Duration::from_secs(1), edges.b.ping(&id("a"))).await;
        assert!(answer.is_ok_and(|pong| pong.is_ok()), "{:?}", start.elapsed());
        timeout(SOON, until(&edges.b, "a", PeerPath::Direct)).await.unwrap();
        timeout(SOON, until(&edges.a, "b", PeerPath::Direct)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_was_idle_for_long_is_called_without_delay() {
    let edges = Edges::new().await;
    for minutes in [1, 2, 3, 30] {
        edges.go_direct().await;
        tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
        let start = Instant::now();
        echo(&edges.a, "b").await;
        assert!(start.elapsed() < Duration::from_millis(50), "{minutes}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_strangers_packets_and_probes_change_nothing() {
    let edges = Edges::new().await;
    edges.go_direct().await;
    let stranger = edges.mesh.network().bind_host();
    let before = edges.b.status().await.unwrap().switch;
    let mut packet = vec![0x01, 1];
    packet.extend_from_slice(&[0x5a; 8]);
    packet.extend_from_slice(&id("b").addr().0);
    packet.extend_from_slice(&id("a").addr().0);
    packet.extend_from_slice(&[0x40; 100]);
    let probe = vec![0x04; 64];
    for contents in [&packet, &probe] {
        let destination = edges.b.local_addrs()[0];
        let transmit =
            Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        for _ in 0..10 {
            stranger.try_send(&transmit).unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = edges.b.status().await.unwrap().switch;
    for reason in [DropReason::UnknownCookie, DropReason::StrayProbe] {
        assert_eq!(after.dropped[&reason], before.dropped[&reason] + 10, "{reason:?}");
    }
    assert_eq!(explain(&edges.b, "a").await.path.unwrap().kind, PeerPath::Direct);
    echo(&edges.a, "b").await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_carries_smaller_packets_does_not_hold_a_stream_up() {
    for (relayed, direct) in [(1_472, 1_300), (8_952, 1_472), (8_978, 1_252)] {
        let wide = LinkQuality { mtu: relayed, bandwidth: Some(8 << 20), ..LinkQuality::default() };
        let edges = Edges::with(|network| network.set_default(wide), true).await;
        let [a, b] = edges.ips();
        edges.mesh.network().cut(a, b);
        let stream = edges.a.open(&id("b"), &service("sink")).await.unwrap();
        let transfer = tokio::spawn(transfer(stream, 1_024));
        // Long enough to find the relayed path's size.
        tokio::time::sleep(Duration::from_secs(1)).await;
        edges.mesh.network().set_link(a, b, LinkQuality { mtu: direct, ..wide });
        edges.mesh.network().restore(a, b);
        until(&edges.a, "b", PeerPath::Direct).await;
        let longest = transfer.await.unwrap();
        println!("{relayed} to {direct}: stalled for {longest:?}");
        assert!(longest < Duration::from_secs(3), "{relayed} to {direct}: stalled for {longest:?}");
    }
}
