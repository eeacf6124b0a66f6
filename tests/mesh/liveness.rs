//! `Liveness::Fast`: how soon the silence of a neighbour is noticed, and what is not taken for it.

use std::time::Duration;

use receptor_quic::testing::{LinkQuality, Mesh, Network};
use receptor_quic::{Event, Events, Liveness, Node};
use tokio::time::{Instant, sleep, timeout};

use crate::support::id;

/// The idle timeout of a second, a keepalive, and some round trips.
const FAST: Duration = Duration::from_millis(1_500);

/// A relay `r`, and a neighbour that dialled it with [`Liveness::Fast`].
async fn pair(network: Network) -> (Mesh, Node) {
    let mesh = Mesh::on(network, ["r"]).await;
    let edge = mesh.joiner("edge", &["r"]).liveness(Liveness::Fast).start().await.unwrap();
    edge.routable(&id("r")).await.unwrap();
    mesh.node("r").routable(&id("edge")).await.unwrap();
    (mesh, edge)
}

async fn link_down(events: &mut Events) {
    while !matches!(events.recv().await.unwrap(), Event::LinkDown { .. }) {}
}

#[tokio::test(start_paused = true)]
async fn both_ends_of_a_fast_link_notice_silence_after_a_second() {
    let (mesh, edge) = pair(Network::new(1)).await;
    for (pause, cut_off) in [(0, "r"), (130, "r"), (290, "r")] {
        sleep(Duration::from_secs(10) + Duration::from_millis(pause)).await;
        let (mut at_edge, mut at_relay) = (edge.events(), mesh.node("r").events());
        let host = mesh.addr(cut_off).ip();
        mesh.network().isolate(host);
        let start = Instant::now();
        timeout(2 * FAST, async {
            tokio::join!(
                async {
                    link_down(&mut at_edge).await;
                    let took = start.elapsed();
                    assert!((Duration::from_millis(600)..=FAST).contains(&took), "{took:?}");
                },
                async {
                    link_down(&mut at_relay).await;
                    // It sends no keepalives; since the edge does, its limit runs from their last.
                    let took = start.elapsed();
                    assert!((Duration::from_millis(600)..=FAST).contains(&took), "{took:?}");
                }
            );
        })
        .await
        .unwrap();
        mesh.network().rejoin(host);
        edge.routable(&id("r")).await.unwrap();
        mesh.node("r").routable(&id("edge")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn loss_and_jitter_do_not_end_a_fast_link() {
    // RECEPTOR_SEEDS=1000 runs more.
    let seeds = std::env::var("RECEPTOR_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        let latency = Duration::from_millis(20);
        let lossy = LinkQuality { loss: 0.03, latency, ..LinkQuality::default() };
        let jittery =
            LinkQuality { jitter: Duration::from_millis(300), latency, ..LinkQuality::default() };
        for quality in [lossy, jittery] {
            let network = Network::new(seed);
            network.set_default(quality);
            let (mesh, edge) = pair(network).await;
            let mut events = [edge.events(), mesh.node("r").events()];
            sleep(Duration::from_secs(60)).await;
            for event in
                events.iter_mut().flat_map(|events| std::iter::from_fn(|| events.try_recv().ok()))
            {
                assert!(!matches!(event, Event::LinkDown { .. }), "seed {seed}: {event:?}");
            }
        }
    }
}
