//! A node that has just joined reaches everyone, and its replies find back, before its record is
//! everywhere.

use std::time::Duration;

use receptor_quic::testing::{LinkQuality, Mesh, Network};
use receptor_quic::{Node, NodeId};
use tokio::time::Instant;

/// The grid is 4 by 4.
const SIDE: u64 = 4;
/// What the flood may cost beyond the latencies: an id instead of the record, where trees disagree,
/// and its pull.
const DISAGREEMENT: Duration = Duration::from_millis(130);

/// What became of one first ping.
#[derive(Debug)]
#[expect(dead_code, reason = "some of it is for whoever reads of a failure")]
struct FirstPing {
    seed: u64,
    target: NodeId,
    /// Whether the target had no route to the joiner yet when the ping began.
    unknown: bool,
    took: Duration,
    /// What a ping takes once everything is known and connected.
    again: Duration,
}

/// A source of numbers that are the same for the same seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    fn quality(&mut self) -> LinkQuality {
        LinkQuality { latency: Duration::from_millis(5 + self.below(46)), ..LinkQuality::default() }
    }
}

/// A settled grid of 16 nodes, with links of 5 to 50 ms.
async fn grid(draw: &mut Draw, seed: u64) -> Mesh {
    let name = |x, y| format!("n{x}{y}");
    let mut links = Vec::new();
    for (x, y) in (0..SIDE).flat_map(|x| (0..SIDE).map(move |y| (x, y))) {
        links.extend((x + 1 < SIDE).then(|| (name(x, y), name(x + 1, y))));
        links.extend((y + 1 < SIDE).then(|| (name(x, y), name(x, y + 1))));
    }
    let dials: Vec<String> = links.iter().map(|(a, b)| format!("{a}-{b}")).collect();
    let mesh = Mesh::on(Network::new(seed), dials.iter().map(String::as_str)).await;
    for (a, b) in &links {
        mesh.network().set_link(mesh.addr(a).ip(), mesh.addr(b).ip(), draw.quality());
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    mesh
}

/// Lets ten joiners, one after the other, ping a node at the moment when each is linked.
///
/// Nothing is lost meanwhile, neither in the network nor in a switch: it is the first packets that
/// are answered. Time alone would not tell, since QUIC repeats what was not answered in 300 ms,
/// which is less than some of these round trips.
async fn first_pings(seed: u64, ephemeral: bool) -> Vec<FirstPing> {
    let mut draw = Draw(seed);
    let mesh = grid(&mut draw, seed).await;
    let mut pings = Vec::new();
    for n in 0..10 {
        let mut pick = || format!("n{}{}", draw.below(SIDE), draw.below(SIDE));
        let entry = pick();
        let target = loop {
            let target = pick();
            if target != entry {
                break target;
            }
        };
        // The links of the grid have theirs, so this is that of the joiner's.
        mesh.network().set_default(draw.quality());
        let joiner = mesh.joiner(&format!("joiner{n}"), &[&entry]).ephemeral(ephemeral);
        let joiner = joiner.start().await.unwrap();
        joiner.linked().await.unwrap();
        let start = Instant::now();
        let target = mesh.node(&target);
        let unknown = !knows(target, &joiner).await;
        let dropped = drops(&mesh, &joiner).await;
        let first = joiner.ping(target.id()).await;
        assert!(first.is_ok(), "seed {seed}, joiner {n}: {first:?}");
        let took = start.elapsed();
        assert_eq!(drops(&mesh, &joiner).await, dropped, "seed {seed}, joiner {n}");
        let start = Instant::now();
        joiner.ping(target.id()).await.unwrap();
        // What is held without use is given up within a second, and counted.
        let again = start.elapsed();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(drops(&mesh, &joiner).await, dropped, "seed {seed}, joiner {n}");
        pings.push(FirstPing { seed, target: target.id().clone(), unknown, took, again });
        joiner.shutdown().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    pings
}

async fn knows(node: &Node, joiner: &Node) -> bool {
    let routes = node.status().await.unwrap().routes;
    routes.iter().any(|route| route.node == *joiner.id())
}

/// What the switches have dropped so far, of all nodes, and the network.
async fn drops(mesh: &Mesh, joiner: &Node) -> String {
    let mut dropped = Vec::new();
    for node in mesh.nodes().chain([joiner]) {
        dropped.push((node.id().clone(), node.status().await.unwrap().switch.dropped));
    }
    let network = mesh.network().counters();
    format!("{dropped:?}, lost {}", network.lost + network.dropped_unread)
}

async fn every_first_ping_is_answered_at_the_first_attempt(ephemeral: bool) {
    let mut raced = 0;
    for seed in 1..=2 {
        for ping in first_pings(seed, ephemeral).await {
            // A handshake, the request, and the flood: at most three times the latency of each hop.
            assert!(ping.took < ping.again * 4 + DISAGREEMENT, "{ping:?}");
            raced += usize::from(ping.unknown);
        }
    }
    assert!(raced >= 10, "only {raced} of 20 pings began ahead of the flood");
}

#[tokio::test(start_paused = true)]
async fn the_first_ping_of_a_full_node_needs_no_retransmission() {
    every_first_ping_is_answered_at_the_first_attempt(false).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_ping_of_an_ephemeral_node_needs_no_retransmission() {
    every_first_ping_is_answered_at_the_first_attempt(true).await;
}
