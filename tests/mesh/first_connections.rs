//! First connections between nodes whose usual path leads through a relay that forwards nothing, or
//! not everything.

use std::time::Duration;

use receptor_quic::switch::Header;
use receptor_quic::testing::{LinkQuality, Mesh};
use receptor_quic::{Event, Node};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{id, serve_echo, try_echo};

/// The time within which a pair must be connected.
const BACK: Duration = Duration::from_secs(5);

/// What a black hole swallows of the switched packets that it should forward.
#[derive(Clone, Copy, Debug)]
enum Swallows {
    All,
    /// Everything after handshakes.
    Data,
    /// What is longer than 1,000 bytes, all first packets of handshakes included.
    Large,
    /// What it should forward to this node.
    To(&'static str),
    /// What it should forward to this node after handshakes.
    DataTo(&'static str),
    /// What is longer than 1,000 bytes and goes to this node.
    LargeTo(&'static str),
}

const KINDS: [Swallows; 9] = [
    Swallows::All,
    Swallows::Data,
    Swallows::Large,
    Swallows::To("a"),
    Swallows::To("b"),
    Swallows::DataTo("a"),
    Swallows::DataTo("b"),
    Swallows::LargeTo("a"),
    Swallows::LargeTo("b"),
];

impl Swallows {
    /// Makes holes of these relays between a and b.
    fn dig(self, mesh: &Mesh, holes: &[&str]) {
        let switched = |datagram: &[u8]| datagram[0] < Header::FIRST_QUIC_BYTE;
        let data = move |datagram: &[u8]| {
            let quic = Header::len_of(datagram[0]).and_then(|len| datagram.get(len));
            switched(datagram) && quic.is_some_and(|first| first & 0x80 == 0)
        };
        let large = move |datagram: &[u8]| switched(datagram) && datagram.len() > 1_000;
        for hole in holes {
            let from = mesh.addr(hole).ip();
            match self {
                Self::All => mesh.swallow(hole),
                Self::Data => {
                    for to in ["a", "b"] {
                        mesh.network().lose_where(from, mesh.addr(to).ip(), data);
                    }
                }
                Self::Large => {
                    for to in ["a", "b"] {
                        mesh.network().lose_where(from, mesh.addr(to).ip(), large);
                    }
                }
                Self::To(to) => mesh.network().lose_where(from, mesh.addr(to).ip(), switched),
                Self::DataTo(to) => mesh.network().lose_where(from, mesh.addr(to).ip(), data),
                Self::LargeTo(to) => mesh.network().lose_where(from, mesh.addr(to).ip(), large),
            }
        }
    }
}

/// a and b, h (and i, if there are two holes) between them, and another path with `longer` relays
/// more than that.
fn links(holes: &[&str], longer: usize) -> Vec<String> {
    let short = if holes.len() == 2 { &["h", "i"][..] } else { &["h"] };
    let mut links: Vec<_> =
        short.iter().flat_map(|hole| [format!("a-{hole}"), format!("b-{hole}")]).collect();
    let honest: Vec<_> = (0..=longer).map(|nth| format!("r{nth}")).collect();
    links.push("a-r0".to_owned());
    links.extend(honest.windows(2).map(|pair| format!("{}-{}", pair[0], pair[1])));
    links.push(format!("b-{}", honest.last().unwrap()));
    links
}

async fn start(holes: &[&str], longer: usize, ephemeral: &[&str]) -> Mesh {
    let links = links(holes, longer);
    let builder =
        Mesh::builder(links.iter().map(String::as_str)).ephemeral(ephemeral.iter().copied());
    let mesh = builder.start().await;
    mesh.network()
        .set_default(LinkQuality { latency: Duration::from_millis(5), ..LinkQuality::default() });
    serve_echo(mesh.node("a"));
    serve_echo(mesh.node("b"));
    mesh
}

/// Opens a stream, sends more than a packet there and back; tries again until that works. Returns
/// how long it took.
async fn exchange(from: &Node, to: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let attempt = async {
            from.ping(&id(to)).await.ok()?;
            try_echo(from, to).await.ok()
        };
        match timeout(2 * BACK, attempt).await {
            Ok(Some(())) => return begun.elapsed(),
            _ if begun.elapsed() > 6 * BACK => return begun.elapsed(),
            _ => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Every kind of hole, met from either end.
async fn meets(holes: &[&str], longer: usize, ephemeral: &[&str]) {
    let mut late = Vec::new();
    for kind in KINDS {
        for (from, to) in [("a", "b"), ("b", "a")] {
            let mesh = start(holes, longer, ephemeral).await;
            kind.dig(&mesh, holes);
            let took = exchange(mesh.node(from), to).await;
            if took > BACK {
                late.push(format!("{kind:?}, {from} to {to}: {took:?}"));
            }
            // The other end finds the connection there, or makes its own.
            let took = exchange(mesh.node(to), from).await;
            if took > BACK {
                late.push(format!("{kind:?}, {from} to {to}, and back: {took:?}"));
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_equally_long_path_is_found_at_once() {
    // The flow decides which of the two relays it uses.
    meets(&["h"], 0, &[]).await;
    meets(&["r0"], 0, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_one_hop_longer_is_found_at_once() {
    meets(&["h"], 1, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_two_hops_longer_is_found_at_once() {
    meets(&["h"], 2, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_three_hops_longer_is_found_at_once() {
    meets(&["h"], 3, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn two_holes_at_the_same_cost_are_both_avoided() {
    meets(&["h", "i"], 1, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_at_either_end_finds_the_honest_path() {
    meets(&["h"], 1, &["a"]).await;
    meets(&["h"], 0, &["b"]).await;
}

/// How many of 60 pings, five seconds apart, get an answer within a second.
async fn stays(from: &Node, to: &str) -> usize {
    let mut answered = 0;
    for _ in 0..60 {
        sleep(Duration::from_secs(5)).await;
        answered += usize::from(matches!(
            timeout(Duration::from_secs(1), from.ping(&id(to))).await,
            Ok(Ok(_))
        ));
    }
    answered
}

/// How often a node has reported a detour.
fn reported(events: &mut receptor_quic::Events) -> usize {
    std::iter::from_fn(|| events.try_recv().ok())
        .filter(|event| matches!(event, Event::NextHopAvoided { .. }))
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_has_found_its_way_keeps_it_for_ten_minutes() {
    for kind in KINDS {
        let mesh = start(&["h"], 2, &[]).await;
        kind.dig(&mesh, &["h"]);
        let (a, b) = (mesh.node("a"), mesh.node("b"));
        let mut events = [a.events(), b.events()];
        let took = exchange(a, "b").await;
        assert!(took <= BACK, "{kind:?}: {took:?}");
        assert_eq!(stays(a, "b").await, 60, "{kind:?}");
        assert_eq!(stays(b, "a").await, 60, "{kind:?}");
        for events in &mut events {
            assert!(reported(events) <= 1, "{kind:?}: the detour changes though it works");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_stays_connected_when_routes_change_around_it() {
    let links = ["a-h", "b-h", "a-r0", "r0-r1", "b-r1", "a-q0", "q0-q1", "q1-q2", "b-q2"];
    let mut mesh = Mesh::builder(links).start().await;
    serve_echo(mesh.node("a"));
    serve_echo(mesh.node("b"));
    mesh.swallow("h");
    let (a, b) = (mesh.node("a").clone(), mesh.node("b").clone());
    assert!(exchange(&a, "b").await <= BACK);
    // The honest path in use dies, and routes lead into the hole as before.
    mesh.kill("r1");
    let took = exchange(&a, "b").await;
    assert!(took <= BACK, "after the loss of the detour: {took:?}");
    assert_eq!(stays(&a, "b").await, 60);
    // A shorter path comes back, and then a relay at the hole's own cost.
    mesh.restart("r1", &["r0", "b"]).await;
    mesh.converge().await;
    let joiner = mesh.joiner("k", &["a", "b"]).start().await.unwrap();
    mesh.converge().await;
    assert_eq!(stays(&b, "a").await, 60);
    // The second honest path dies as well.
    mesh.kill("q1");
    assert_eq!(stays(&a, "b").await, 60);
    drop(joiner);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_only_far_away_costs_no_relay_its_traffic() {
    let mesh = Mesh::builder(["a-h", "b-h", "a-r0", "r0-r1", "b-r1"]).start().await;
    // A round trip of 0.8 s: longer than a handshake may be silent.
    let far = LinkQuality { latency: Duration::from_millis(200), ..LinkQuality::default() };
    mesh.network().set_default(far);
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    let mut events = [a.events(), b.events()];
    for (from, to) in [(a, "b"), (b, "a")] {
        timeout(BACK, from.ping(&id(to))).await.unwrap().unwrap();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(from.explain(&id(to)).await.unwrap().detour, None, "to {to}");
    }
    assert_eq!(events.each_mut().map(reported), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_longer_path_over_distant_links_is_found_in_time() {
    for kind in KINDS {
        let mesh = start(&["h"], 2, &[]).await;
        // A round trip of 0.32 s by the honest path.
        let far = LinkQuality { latency: Duration::from_millis(40), ..LinkQuality::default() };
        mesh.network().set_default(far);
        kind.dig(&mesh, &["h"]);
        let begun = Instant::now();
        while !matches!(timeout(BACK, mesh.node("a").ping(&id("b"))).await, Ok(Ok(_))) {
            assert!(begun.elapsed() < BACK, "{kind:?}");
        }
        assert!(begun.elapsed() < BACK, "{kind:?}: {:?}", begun.elapsed());
    }
}
