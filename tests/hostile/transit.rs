//! A member that says it forwards, and swallows.

use std::time::Duration;

use receptor_quic::id::Cost;
use receptor_quic::router::{NeighbourKind, SessionUp};
use receptor_quic::testing::Mesh;

use crate::member::{RELAY, id};
use crate::puppet::Puppet;
use crate::scene::Scene;

/// ```text
///   a ── mallory ── b
///    ╲── r ── s ──╱
/// ```
#[tokio::test(start_paused = true)]
async fn a_pair_behind_a_black_hole_takes_the_honest_path_within_five_seconds() {
    let mesh = Mesh::builder(["a-r", "r-s", "b-s"]).start().await;
    let scene = Scene::of(mesh);
    // The attacker is a neighbour of both, and forwards nothing.
    let to_a = scene.mallory.link(scene.addr("a"), RELAY).await;
    let to_b = scene.mallory.link(scene.addr("b"), RELAY).await;
    let _puppet = Puppet::start_with(&scene.mallory, vec![to_a, to_b], true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = tokio::time::Instant::now();
    while scene.pings(1, "a", "b").await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the pair is still cut");
    }
    assert_eq!(scene.pings(20, "a", "b").await, 20);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(scene.pings(20, "b", "a").await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_claims_links_it_does_not_have_attracts_nothing() {
    let scene = Scene::of(Mesh::builder(["a-r", "r-s", "b-s"]).start().await);
    let link = scene.mallory.link(scene.addr("r"), RELAY).await;
    let puppet = Puppet::start(&scene.mallory, link, true);
    puppet.order(|router, now| {
        for name in ["a", "s", "b"] {
            let (neighbour, kind) = (id(name), NeighbourKind::Full);
            let up = SessionUp { neighbour, instance: 5, cost: Cost::DEFAULT, kind };
            router.handle_session_up(up, now).unwrap();
        }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    scene.mallory.carrier.take_received();
    assert_eq!(scene.pings(20, "a", "b").await, 20);
    assert!(scene.mallory.carrier.take_received().is_empty());
}
