//! Claims of a member about others: stubs that it does not have, and stubs without end.

use std::time::Duration;

use receptor_quic::Event;
use receptor_quic::router::ClaimState;
use receptor_quic::switch::{Attachment, DropReason};
use receptor_quic::testing::{Mesh, mesh};

use crate::log::Log;
use crate::member::{EDGE, id};
use crate::puppet::Puppet;
use crate::scene::Scene;

#[tokio::test(start_paused = true)]
async fn a_false_claim_of_an_ephemeral_takes_nothing_from_it() {
    // The liar is nearer than the genuine one.
    let mesh =
        Mesh::builder(["stub-r1", "r1-r3", "r3-r2", "peer-r2"]).ephemeral(["stub"]).start().await;
    let scene = Scene::of(mesh);
    assert_eq!(scene.pings(3, "stub", "peer").await, 3);
    let link = scene.mallory.link(scene.addr("r2"), EDGE).await;
    let puppet = Puppet::start(&scene.mallory, link, false);
    puppet.claim(id("stub"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.mallory.carrier.take_received();
    // Both on connections that are there, and on those of a new process.
    assert_eq!(scene.pings(20, "stub", "peer").await, 20);
    assert_eq!(scene.pings(20, "peer", "stub").await, 20);
    assert_eq!(scene.newcomers(20, "r1", "peer").await, 20);
    assert_eq!(scene.newcomers(20, "r2", "stub").await, 20);
    let stolen = scene.mallory.carrier.take_received();
    assert!(stolen.is_empty(), "{} packets went to the liar", stolen.len());
}

#[tokio::test(start_paused = true)]
async fn a_false_claim_is_reported_and_explained() {
    let mesh = Mesh::builder(["stub-r1", "r1-r2", "peer-r2"]).ephemeral(["stub"]).start().await;
    let scene = Scene::of(mesh);
    // The liar's neighbour, and the node that the stub is attached to.
    let mut watchers = ["r2", "r1"].map(|name| scene.mesh.node(name).events());
    let link = scene.mallory.link(scene.addr("r2"), EDGE).await;
    let puppet = Puppet::start(&scene.mallory, link, false);
    puppet.claim(id("stub"));
    for events in &mut watchers {
        let report = async {
            loop {
                if let Ok(Event::FalseClaim { node, by, .. }) = events.recv().await {
                    return (node, by);
                }
            }
        };
        let report = tokio::time::timeout(Duration::from_secs(20), report).await;
        assert_eq!(report, Ok((id("stub"), scene.mallory.id.clone())));
    }
    // Who has nothing to do with either finds out when asked.
    let explained = scene.mesh.node("peer").explain(&id("stub")).await.unwrap();
    let state = |by: &str| {
        explained.claims.iter().find(|claim| claim.by == id(by)).map(|claim| claim.state)
    };
    assert_eq!(state("r1"), Some(ClaimState::Proven));
    assert!(
        matches!(state(scene.mallory.id.as_str()), Some(ClaimState::Rejected(_))),
        "{explained:?}"
    );
    assert_eq!(explained.next_hops, [id("r2")]);
}

#[tokio::test(start_paused = true)]
async fn packets_with_the_source_of_anothers_stub_are_dropped() {
    let mesh = Mesh::builder(["stub-r1", "r1-r2", "peer-r2"]).ephemeral(["stub"]).start().await;
    let scene = Scene::of(mesh);
    let link = scene.mallory.link(scene.addr("r2"), EDGE).await;
    for attachment in [Attachment::None, Attachment::Source(scene.mallory.id.addr())] {
        scene.mallory.pretend(&link, id("stub").addr(), attachment);
        for _ in 0..10 {
            scene.mallory.carrier.switch(id("peer").addr(), b"@stolen");
        }
    }
    let puppet = Puppet::start(&scene.mallory, link, false);
    puppet.claim(id("stub"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..10 {
        scene.mallory.carrier.switch(id("peer").addr(), b"@stolen");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let dropped = scene.mesh.node("r2").status().await.unwrap().switch.dropped;
    assert_eq!(dropped[&DropReason::ForgedSource], 30);
    assert_eq!(scene.pings(20, "stub", "peer").await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_an_absent_name_attracts_nothing() {
    let scene = Scene::of(mesh(["a-r", "b-r"]).await);
    let link = scene.mallory.link(scene.addr("r"), EDGE).await;
    let puppet = Puppet::start(&scene.mallory, link, false);
    puppet.claim(id("absent"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.mallory.carrier.take_received();
    let absent = id("absent");
    let ping =
        tokio::time::timeout(Duration::from_secs(30), scene.mesh.node("a").ping(&absent)).await;
    assert!(matches!(ping, Ok(Err(_))), "{ping:?}");
    let attracted = scene.mallory.carrier.take_received();
    assert!(attracted.is_empty(), "{} packets went to the liar", attracted.len());
}

#[tokio::test(start_paused = true)]
async fn the_id_of_a_full_node_cannot_be_claimed_as_a_stub() {
    let scene = Scene::of(mesh(["a-r", "r-s", "b-s"]).await);
    let link = scene.mallory.link(scene.addr("r"), EDGE).await;
    let puppet = Puppet::start(&scene.mallory, link, false);
    puppet.claim(id("b"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.mallory.carrier.take_received();
    assert_eq!(scene.pings(20, "a", "b").await, 20);
    assert_eq!(scene.newcomers(20, "r", "b").await, 20);
    assert!(scene.mallory.carrier.take_received().is_empty());
}

#[tokio::test(start_paused = true)]
async fn stubs_that_come_and_go_fill_no_log() {
    churn("ghost-").await;
}

#[tokio::test(start_paused = true)]
async fn proven_stubs_that_come_and_go_fill_no_log() {
    // Any number of ephemerals runs under one certificate.
    churn("mallory~").await;
}

/// Stubs of these names come and go twice a second.
async fn churn(prefix: &str) {
    const STUBS: usize = 3_000;
    let scene = Scene::of(mesh(["a-r", "b-r"]).await);
    let link = scene.mallory.link(scene.addr("r"), EDGE).await;
    let puppet = Puppet::start(&scene.mallory, link, false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let log = Log::open();
    let churn = async {
        for _ in 0..30 {
            (0..STUBS).for_each(|stub| puppet.claim(id(&format!("{prefix}{stub}"))));
            tokio::time::sleep(Duration::from_millis(500)).await;
            (0..STUBS).for_each(|stub| puppet.disclaim(id(&format!("{prefix}{stub}"))));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let (answered, ()) = tokio::join!(scene.pings(20, "a", "b"), churn);
    assert_eq!(answered, 20);
    // Of all three nodes.
    let lines = log.take();
    assert!(lines <= 100, "{lines} lines");
    assert_eq!(scene.newcomers(20, "r", "b").await, 20);
}
