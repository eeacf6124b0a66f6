//! Nodes that restart, in order or not, are back at once, however often they do so.

use std::time::Duration;

use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::{Event, Node};
use tokio::time::{Instant, timeout};

use crate::support::id;

/// How long a node may stay unreachable after the start of its next process, in virtual time
/// without latency.
const SOON: Duration = Duration::from_millis(300);

/// How long it may stay unreachable where the process before was killed.
const SOON_AFTER_KILL: Duration = Duration::from_millis(1_500);

/// Waits until `from` can ping `to`, and returns how long that takes from now.
async fn back(from: &Node, to: &str) -> Duration {
    let start = Instant::now();
    while !matches!(timeout(Duration::from_millis(50), from.ping(&id(to))).await, Ok(Ok(_))) {
        assert!(start.elapsed() < Duration::from_secs(100), "{to} does not come back");
    }
    start.elapsed()
}

async fn stop(mesh: &mut Mesh, name: &str) {
    mesh.node(name).clone().shutdown().await;
    mesh.kill(name);
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_restarts_in_order_ten_times_is_back_at_once() {
    let mut mesh = mesh(["edge-relay", "ctl-relay"]).await;
    let ctl = mesh.node("ctl").clone();
    for turn in 0..10 {
        stop(&mut mesh, "edge").await;
        mesh.restart("edge", &["relay"]).await;
        let took = back(&ctl, "edge").await;
        assert!(took < SOON, "{turn}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edge_between_two_relays_that_restarts_is_back_at_once() {
    let mut mesh = mesh(["edge-r1", "edge-r2", "r1-r2", "ctl-r1"]).await;
    let ctl = mesh.node("ctl").clone();
    let mut events = mesh.node("r1").events();
    for turn in 0..10 {
        stop(&mut mesh, "edge").await;
        mesh.restart("edge", &["r1", "r2"]).await;
        let took = back(&ctl, "edge").await;
        assert!(took < SOON, "{turn}: {took:?}");
    }
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::LinkHeld { .. }), "{event:?}");
    }
}

/// Kills a node ten times within two minutes of virtual time, at varying phases of its neighbours'
/// keepalives, and starts it again after `gap`. Returns how long `from` took each time to reach
/// `to`.
async fn kill_ten_times(
    mesh: &mut Mesh,
    name: &str,
    peers: &[&str],
    gap: Duration,
    to: &str,
) -> Vec<Duration> {
    let ctl = mesh.node("ctl").clone();
    let mut took = Vec::new();
    for turn in 0..10 {
        tokio::time::sleep(Duration::from_millis(3_000 + 730 * turn)).await;
        mesh.kill(name);
        tokio::time::sleep(gap).await;
        match peers {
            [] => mesh.restart_in_place(name, &[]).await,
            peers => mesh.restart(name, peers).await,
        }
        took.push(back(&ctl, to).await);
    }
    took
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_is_killed_ten_times_is_back_soon() {
    for gap in [0, 40, 300] {
        let mut mesh = mesh(["edge-relay", "ctl-relay"]).await;
        let took =
            kill_ten_times(&mut mesh, "edge", &["relay"], Duration::from_millis(gap), "edge").await;
        assert!(took.iter().all(|took| *took < SOON_AFTER_KILL), "after {gap} ms: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_link_of_a_process_that_moved_to_another_port_may_answer() {
    let mut mesh = mesh(["edge-relay", "ctl-relay"]).await;
    let (ctl, relay) = (mesh.node("ctl").clone(), mesh.node("relay").clone());
    let before = relay.status().await.unwrap().links;
    let old = before.iter().find(|link| link.peer == Some(id("edge"))).unwrap().address.clone();
    mesh.kill("edge");
    mesh.restart("edge", &["relay"]).await;
    let start = Instant::now();
    // Nothing tells the relay that the process before is dead, so its link gets half a second.
    let mut kept = Duration::ZERO;
    loop {
        let links = relay.status().await.unwrap().links;
        if !links.iter().any(|link| link.address == old) {
            break;
        }
        kept = start.elapsed();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((480..700).contains(&kept.as_millis()), "{kept:?}");
    assert!(start.elapsed() + back(&ctl, "edge").await < SOON_AFTER_KILL);
}

#[tokio::test(start_paused = true)]
async fn a_second_leave_right_after_the_first_is_known_as_well() {
    let mut mesh = mesh(["edge-r1", "edge-r2", "r1-r2", "ctl-r1"]).await;
    let others = ["r1", "r2", "ctl"].map(|name| mesh.node(name).clone());
    for turn in 0..4 {
        mesh.node("edge").clone().shutdown().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for node in &others {
            let left = node.explain(&id("edge")).await.unwrap().left;
            assert!(left.is_some_and(|left| left.ago_s < 0.2), "{turn}: at {}", node.id());
        }
        mesh.kill("edge");
        mesh.restart("edge", &["r1", "r2"]).await;
        for node in &others {
            let known = timeout(SOON, node.routable(&id("edge"))).await;
            known.unwrap_or_else(|_| panic!("{turn}: it is not back at {}", node.id())).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_relay_that_is_killed_ten_times_is_back_soon() {
    for gap in [0, 40, 300] {
        let mut mesh = mesh(["edge-relay", "ctl-relay"]).await;
        let took =
            kill_ten_times(&mut mesh, "relay", &[], Duration::from_millis(gap), "edge").await;
        assert!(took.iter().all(|took| *took < SOON_AFTER_KILL), "after {gap} ms: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_relay_that_restarts_in_order_ten_times_is_back_at_once() {
    let mut mesh = mesh(["edge-relay", "ctl-relay"]).await;
    let ctl = mesh.node("ctl").clone();
    for turn in 0..10 {
        tokio::time::sleep(Duration::from_millis(3_000 + 730 * turn)).await;
        stop(&mut mesh, "relay").await;
        mesh.restart_in_place("relay", &[]).await;
        let took = back(&ctl, "edge").await;
        assert!(took < SOON, "{turn}: {took:?}");
    }
}
