//! Relays die, and streams go on where another way exists.

use std::time::Duration;

use receptor_quic::testing::{LinkQuality, mesh};
use receptor_quic::{Cost, Event, Node, NodeId, OpenError};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::support::{id, serve_sink, service, transfer};

/// 8 MiB a second, so that a transfer lasts long enough to be interrupted.
fn slow() -> LinkQuality {
    LinkQuality { bandwidth: Some(8 * 1024 * 1024), ..LinkQuality::default() }
}

#[tokio::test(start_paused = true)]
async fn a_stream_survives_the_death_of_its_relay() {
    let mut mesh = mesh(["a-r1", "a-r2", "b-r1", "b-r2"]).await;
    mesh.network().set_default(slow());
    serve_sink(mesh.node("b"));
    let (a, b) = (mesh.node("a").clone(), id("b"));
    let stream = a.open(&b, &service("sink")).await.unwrap();
    let transfer = tokio::spawn(transfer(stream, 512));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = a.status().await.unwrap();
    let via = status.peers.iter().find(|peer| peer.node == b).unwrap().via.clone().unwrap();
    mesh.kill(via.as_str());
    let longest = transfer.await.unwrap();
    assert!(
        longest > Duration::from_millis(300),
        "the relay in use was the one that died: {longest:?}"
    );
    // The flow avoids it long before the link to it is declared dead.
    assert!(longest < Duration::from_millis(1_500), "stalled for {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_host_reports_its_death_is_left_at_once() {
    let mut mesh = mesh(["a-r1", "a-r2", "b-r1", "b-r2"]).await;
    mesh.network().set_default(LinkQuality { latency: Duration::from_millis(5), ..slow() });
    serve_sink(mesh.node("b"));
    let (a, b) = (mesh.node("a").clone(), id("b"));
    let stream = a.open(&b, &service("sink")).await.unwrap();
    let transfer = tokio::spawn(transfer(stream, 256));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = a.status().await.unwrap();
    let via = status.peers.iter().find(|peer| peer.node == b).unwrap().via.clone().unwrap();
    let dead = mesh.addr(via.as_str());
    mesh.kill(via.as_str());
    // Both send to it: data, and what acknowledges that.
    for name in ["a", "b"] {
        mesh.node(name).report_closed_port(dead);
    }
    let longest = transfer.await.unwrap();
    assert!(longest <= Duration::from_millis(500), "stalled for {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn forged_reports_about_a_live_link_change_nothing() {
    let mesh = mesh(["a-r", "b-r"]).await;
    mesh.network().set_default(LinkQuality {
        loss: 0.03,
        latency: Duration::from_millis(20),
        ..LinkQuality::default()
    });
    let mut events = mesh.node("a").events();
    let relay = mesh.addr("r");
    for nth in 0..3_000 {
        mesh.node("a").report_closed_port(relay);
        // The right host and the wrong port, and nobody at all.
        mesh.node("a").report_closed_port(std::net::SocketAddr::new(relay.ip(), 9));
        mesh.node("a")
            .report_closed_port(std::net::SocketAddr::from(([192, 0, 2, 1], 1_024 + nth)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mesh.node("a").ping(&id("b")).await.unwrap();
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::LinkDown { .. } | Event::LinkUp { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn once_a_relays_death_is_seen_the_next_packet_goes_over_the_alternate() {
    const LATENCY: Duration = Duration::from_millis(10);
    let mesh = mesh(["a"]).await;
    mesh.network().set_default(LinkQuality { latency: LATENCY, ..LinkQuality::default() });
    let other = mesh.joiner("b", &[]).start().await.unwrap();
    let relay = |name| mesh.joiner(name, &["a"]).peer(other.local_addrs()[0]).transit(true);
    let spare = relay("r2");
    let relay = relay("r1").start().await.unwrap();
    let dear = Cost::try_from(3).unwrap();
    let spare = spare.cost(dear).start().await.unwrap();
    let (a, b) = (mesh.node("a"), id("b"));
    spare.routable(&b).await.unwrap();
    spare.routable(&id("a")).await.unwrap();
    a.routable(&b).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(route(a, &b).await, (id("r1"), vec![id("r2")]));
    a.ping(&b).await.unwrap();
    let mut events = [a.events(), other.events()];
    // Its neighbours see their connections end.
    drop(relay);
    for events in &mut events {
        while !matches!(events.recv().await.unwrap(), Event::LinkDown { peer, .. } if peer == id("r1"))
        {
        }
    }
    let start = Instant::now();
    a.ping(&b).await.unwrap();
    // There and back over r2, and what a timer's tick adds: nothing was waited for, and nothing
    // sent twice.
    let most = LATENCY * 4 + Duration::from_millis(4);
    assert!(start.elapsed() <= most, "{:?}", start.elapsed());
    let dropped = a.status().await.unwrap().switch.dropped;
    assert!(dropped.values().all(|&count| count == 0), "{dropped:?}");
}

/// The next hop and the alternates to a node.
async fn route(from: &Node, to: &NodeId) -> (NodeId, Vec<NodeId>) {
    let status = from.status().await.unwrap();
    let route = status.routes.into_iter().find(|route| route.node == *to).unwrap();
    (route.next_hop, route.alternates)
}

#[tokio::test(start_paused = true)]
async fn without_another_way_the_caller_is_told_and_does_not_hang() {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    serve_sink(mesh.node("b"));
    let mut stream = mesh.node("a").open(&id("b"), &service("sink")).await.unwrap();
    stream.write_all(&[0; 1000]).await.unwrap();
    stream.accepted().await.unwrap();
    mesh.kill("r");
    let start = Instant::now();
    let error = stream.recv.read_chunk(1).await.unwrap_err();
    assert!(error.ending().is_some_and(|ending| ending.is_unreachable()), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let error = mesh.node("a").open(&id("b"), &service("sink")).await.unwrap_err();
    assert_eq!(error, OpenError::NoRoute { node: id("b") });
}

#[tokio::test(start_paused = true)]
async fn the_mesh_heals_within_five_seconds_of_a_relays_return() {
    for down_secs in [1, 7, 45, 200] {
        let mut mesh = mesh(["a-r", "b-r"]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        mesh.kill("r");
        tokio::time::sleep(Duration::from_secs(down_secs)).await;
        // The relay is back at the address that its edges dial.
        mesh.restart_in_place("r", &[]).await;
        let start = Instant::now();
        mesh.node("a").routable(&id("b")).await.unwrap();
        let healed = start.elapsed();
        assert!(healed < Duration::from_secs(5), "after {down_secs} s it took {healed:?}");
        mesh.node("a").ping(&id("b")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_heals_by_itself() {
    let mesh = mesh(["a-r1", "r1-r2", "b-r2", "c-r2"]).await;
    let (r1, r2) = (mesh.addr("r1").ip(), mesh.addr("r2").ip());
    mesh.network().cut(r1, r2);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(mesh.node("a").ping(&id("b")).await.is_err());
    mesh.node("b").ping(&id("c")).await.unwrap();
    mesh.network().restore(r1, r2);
    mesh.converge().await;
    mesh.node("a").ping(&id("b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_call_after_a_restart_does_not_go_to_the_process_before() {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    for _ in 0..3 {
        mesh.node("a").ping(&id("b")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        mesh.kill("b");
        mesh.restart("b", &["r"]).await;
        mesh.converge().await;
        // Until the new record is here, the old process's connection looks alive.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let start = Instant::now();
        mesh.node("a").ping(&id("b")).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_secs(400)).await;
    }
}
